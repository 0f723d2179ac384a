"""Reprojection against what must hold exactly, and against the truth of procedural scenes."""

from __future__ import annotations

import numba
import numpy as np
import pytest
import torch
from depth_train.scenes.procedural.clips import make_clips, render_view
from novel_view.warp.reproject import warp

from depth_engine.geometry.cameras import Camera, intrinsics, look_at, opengl_from_opencv

HEIGHT, WIDTH = 48, 64
TORCH = "cpu:0"  # any name but "cpu" takes the way of CUDA


def camera(**move: float) -> Camera:
    pose = np.eye(4)
    pose[:3, 3] = [move.get(axis, 0.0) for axis in "xyz"]
    return Camera(intrinsics(50, HEIGHT, WIDTH), pose, HEIGHT, WIDTH)


def noise_picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.mark.parametrize("device", ["cpu", TORCH])
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_identity_is_the_very_picture(turned: bool, antialias: bool, device: str) -> None:
    rgb = noise_picture()
    depth = np.random.default_rng(1).uniform(0.5, 50, (HEIGHT, WIDTH)).astype(np.float32)
    depth[:5] = np.inf
    pose = look_at(np.array([3.0, -2.0, 1.0]), np.array([0.0, 4.0, 9.0]), np.array([0.0, 1.0, 0.2]))
    at = Camera(camera().K, pose, HEIGHT, WIDTH) if turned else camera()
    seen = warp(rgb, depth, at, at, antialias=antialias, device=device)
    assert np.array_equal(seen.rgb, rgb)
    assert not seen.hole.any()
    clip = make_clips([5], 1, HEIGHT, WIDTH)[0]
    true_depth = clip.depth_m[0].numpy()
    assert np.isclose(warp(rgb, true_depth, at, at).depth, true_depth, rtol=0.01).mean() > 0.99


def test_a_plane_moves_by_its_disparity() -> None:
    rgb = noise_picture()
    depth = np.full((HEIGHT, WIDTH), 2.0, dtype=np.float32)
    K = camera().K
    baseline = 3 * 2.0 / K[0, 0]  # three pixels
    seen = warp(rgb, depth, camera(), camera(x=baseline))
    assert np.abs(seen.rgb[:, :-3].astype(int) - rgb[:, 3:].astype(int)).max() <= 1
    assert seen.hole[:, -3:].all() and not seen.hole[:, :-3].any()
    assert np.allclose(seen.depth[:, :-3], 2.0, rtol=1e-4)


@pytest.mark.parametrize("move", [{"z": 1.2}, {"x": 0.8, "z": 0.7}, {"y": -0.5, "z": 0.9}])
def test_slanted_and_magnified_surfaces_have_no_cracks(move: dict[str, float]) -> None:
    """A floor and a curved wall: one surface each, seen from nearer."""
    K = camera().K
    rows = (np.arange(HEIGHT) + 0.5 - K[1, 2]) / K[1, 1]
    columns = (np.arange(WIDTH) + 0.5 - K[0, 2]) / K[0, 0]
    wall = 3.0 + np.cos(columns * 3)[None] + 0 * rows[:, None]
    with np.errstate(divide="ignore"):
        floor = np.where(rows > 0, 1.0 / rows, np.inf)[:, None] + 0 * columns[None]
    seen = warp(noise_picture(), np.minimum(wall, floor).astype(np.float32), camera(), camera(**move))
    middle = seen.hole[HEIGHT // 3 : -HEIGHT // 3, WIDTH // 3 : -WIDTH // 3]
    assert not middle.any()


def test_nothing_is_stretched_across_a_depth_border() -> None:
    """A near red square before a far blue wall: no mixed colour, and the hole is as wide as the parallax."""
    rgb = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    rgb[..., 2] = 200
    depth = np.full((HEIGHT, WIDTH), 8.0, dtype=np.float32)
    rgb[16:32, 24:40], depth[16:32, 24:40] = (200, 0, 0), 1.0
    K = camera().K
    baseline = 4 / K[0, 0]  # four pixels for the square, half a pixel for the wall
    seen = warp(rgb, depth, camera(), camera(x=baseline))
    colors = {tuple(color) for color in seen.rgb[~seen.hole].tolist()}
    assert colors == {(200, 0, 0), (0, 0, 200)}
    inner = seen.hole[18:30, 4:-4]
    assert np.abs(inner.sum(axis=1) - 3.5).max() <= 0.5
    assert (seen.rgb[18:30, 20:36, 0] == 200).all(), "the nearer surface wins"


def test_surfaces_that_meet_in_a_pixel_are_blended() -> None:
    """A white square a half pixel on: its rim is half white, all else is as without blending."""
    rgb = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    depth = np.full((HEIGHT, WIDTH), np.inf, dtype=np.float32)
    rgb[16:32, 24:40], depth[16:32, 24:40] = 255, 1.0
    target = camera(x=3.5 / camera().K[0, 0])
    plain, soft = warp(rgb, depth, camera(), target), warp(rgb, depth, camera(), target, antialias=True)
    assert np.array_equal(plain.hole, soft.hole) and np.array_equal(plain.depth, soft.depth)
    changed = (plain.rgb != soft.rgb).any(axis=2)
    assert set(np.nonzero(changed)[1]) <= {20, 36}
    left_rim = soft.rgb[18:30, 20, 0]
    assert (np.abs(left_rim.astype(int) - 128) <= 1).all()


def test_threads_and_order_change_nothing() -> None:
    clip = make_clips([3], 1, HEIGHT, WIDTH)[0]
    rgb, depth = clip.rgb[0].numpy(), clip.depth_m[0].numpy()
    here = Camera(clip.K.numpy(), np.eye(4), HEIGHT, WIDTH)
    there = camera(x=0.3, z=0.2)
    together = warp(rgb, depth, here, there, antialias=True)
    held = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        alone = warp(rgb, depth, here, there, antialias=True)
    finally:
        numba.set_num_threads(held)
    assert np.array_equal(together.rgb, alone.rgb) and np.array_equal(together.depth, alone.depth)


@pytest.mark.parametrize("seed", [4, 6, 11])
def test_torch_sees_what_the_loops_see(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to rounding: a pixel in a thousand, at rims, may be another's; in parts as in one go."""
    clip = make_clips([seed], 1, HEIGHT, WIDTH)[0]
    rgb, depth = clip.rgb[0].numpy(), clip.depth_m[0].numpy()
    depth[20:23, 5:9] = np.nan
    here = Camera(clip.K.numpy(), np.eye(4), HEIGHT, WIDTH)
    median = float(np.median(depth[np.isfinite(depth)]))
    pose = look_at(np.array([0.1, -0.05, 0.3]) * median, np.array([0, 0, median]), np.array([0, 1.0, 0.1]))
    there = Camera(intrinsics(40, 60, 70), pose, 60, 70)
    loops = warp(rgb, depth, here, there, antialias=True)
    seen = warp(rgb, depth, here, there, antialias=True, device=TORCH)
    assert seen.rgb.shape == loops.rgb.shape and 0.01 < loops.hole.mean() < 0.9
    assert (seen.hole != loops.hole).mean() < 0.002
    both = ~(seen.hole | loops.hole)
    assert np.isclose(seen.depth, loops.depth, rtol=1e-3)[both].mean() > 0.998
    assert (np.abs(seen.rgb.astype(int) - loops.rgb)[both] <= 1).mean() > 0.995
    monkeypatch.setattr("novel_view.warp.reproject_torch._PAIRS", 500)
    in_parts = warp(rgb, depth, here, there, antialias=True, device=TORCH)
    assert all(np.array_equal(one, other) for one, other in zip(seen, in_parts, strict=True))


@pytest.mark.parametrize("device", ["cpu", TORCH])
def test_odd_depth_is_left_out_and_points_behind_the_camera_too(device: str) -> None:
    depth = np.full((HEIGHT, WIDTH), 2.0, dtype=np.float32)
    depth[10:20, 10:20] = np.nan
    depth[30:40, 30:40] = -1
    seen = warp(noise_picture(), depth, camera(), camera(), device=device)
    assert seen.hole[11:19, 11:19].all() and seen.hole[31:39, 31:39].all() and not seen.hole[:9].any()
    assert warp(noise_picture(), depth, camera(), camera(z=5.0), device=device).hole.all()


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((first.astype(float) - second.astype(float)) ** 2)))


@pytest.mark.parametrize("seed", [5, 6])
def test_views_of_true_depth_are_what_a_second_camera_sees(seed: int) -> None:
    height, width = 144, 256
    clip = make_clips([seed], 1, height, width)[0]
    depth = clip.depth_m[0].numpy()
    here = Camera(clip.K.numpy(), clip.world_from_camera[0].numpy(), height, width)
    step = np.eye(4)
    step[0, 3] = 0.05 * float(np.median(depth[np.isfinite(depth)]))
    there = Camera(here.K, here.world_from_camera @ step, height, width)
    truth = render_view(seed, [0.0], clip.K, torch.from_numpy(there.world_from_camera)[None], height, width)
    seen = warp(clip.rgb[0].numpy(), depth, here, there)
    true_depth = truth.depth_m[0].numpy()
    with np.errstate(invalid="ignore"):
        same = ~seen.hole & ((np.abs(seen.depth - true_depth) < 0.02 * true_depth) | (seen.depth == true_depth))
    assert same.mean() > 0.8
    assert psnr(seen.rgb[same], truth.rgb[0].numpy()[same]) > 30


def test_conventions() -> None:
    pose = look_at(np.zeros(3), np.array([0, 0, 2.0]), np.array([0, 1.0, 0]))
    assert np.allclose(pose, np.eye(4)), "OpenCV's own camera"
    assert np.allclose(opengl_from_opencv(opengl_from_opencv(pose)), pose)
    assert np.allclose(opengl_from_opencv(np.eye(4))[:3, 2], [0, 0, -1])
    K = intrinsics(90, 100, 200)
    assert K[0, 0] == pytest.approx(50) and K[0, 2] == 100 and K[1, 2] == 50
    for fov in (0, 180, -3, np.nan):
        with pytest.raises(ValueError, match="fov"):
            intrinsics(fov, 10, 10)
    with pytest.raises(ValueError, match="no upright view"):
        look_at(np.zeros(3), np.array([0, 1.0, 0]), np.array([0, 1.0, 0]))
    with pytest.raises(ValueError, match="K: give finite numbers"):
        Camera(np.full((3, 3), np.nan), np.eye(4), 2, 2)
    with pytest.raises(ValueError, match="depth: shape"):
        warp(noise_picture(), np.ones((3, 3)), camera(), camera())
