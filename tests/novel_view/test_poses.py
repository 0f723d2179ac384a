"""Cameras found from clips whose cameras are known, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from novel_view.scene_commands import poses as poses_command

from depth_engine.depth.source import open_depth
from depth_engine.geometry import structure
from depth_engine.geometry.alignment import Samples, align
from depth_engine.geometry.cameras import intrinsics
from depth_engine.geometry.pose_estimation import PoseSearch, estimate_poses
from depth_engine.geometry.poses import PoseResult, between, load_poses
from depth_engine.video.read import probe
from depth_engine.video.take import Take
from tests.clips import run_ffmpeg
from tests.novel_view.scene_clip import FRAMES, HEIGHT, WIDTH, SceneFiles, write_clip, write_depth, write_scene


def run(*arguments: object) -> Result:
    return CliRunner().invoke(poses_command, [str(argument) for argument in arguments])


def estimate(clip: Path, depth: Path, work: Path, **options: object) -> PoseResult:
    return estimate_poses(Take(clip), probe(clip), open_depth(depth), PoseSearch(**options), work=work)  # type: ignore[arg-type]


def way(world_from_camera: np.ndarray) -> np.ndarray:
    """Poses as seen from the first camera."""
    return np.linalg.inv(world_from_camera[0]) @ world_from_camera


def way_error(found: np.ndarray, true: np.ndarray, unit: float = 1.0) -> float:
    """Largest error of a position, as a share of the way."""
    off = way(found)[:, :3, 3] * unit - way(true)[:, :3, 3]
    return float(np.linalg.norm(off, axis=1).max() / np.linalg.norm(way(true)[-1, :3, 3]))


@pytest.fixture(scope="module")
def fine_scene(tmp_path_factory: pytest.TempPathFactory) -> SceneFiles:
    """Twice as fine: the pictures of `scene` tell the lens to some 10 % only."""
    return write_scene(tmp_path_factory.mktemp("fine"), 2 * HEIGHT, 2 * WIDTH)


@pytest.fixture(scope="module")
def found(fine_scene: SceneFiles, tmp_path_factory: pytest.TempPathFactory) -> PoseResult:
    return estimate(fine_scene.clip, fine_scene.disparity, tmp_path_factory.mktemp("colmap"), every=2)


def test_colmap_finds_cameras_lens_and_depth(fine_scene: SceneFiles, found: PoseResult) -> None:
    assert found.registered == tuple(range(FRAMES)) and found.interpolated == ()
    assert found.fov_by == "found" and found.K[0, 0] == pytest.approx(fine_scene.K[0, 0], rel=0.05)
    unit = np.linalg.norm(way(fine_scene.world_from_camera)[-1, :3, 3]) / np.linalg.norm(
        way(found.world_from_camera)[-1, :3, 3]
    )
    assert way_error(found.world_from_camera, fine_scene.world_from_camera, float(unit)) < 0.06
    # The depth that the values stand for, by the scale and shift found, is the true one in the poses' unit.
    values = np.stack(list(open_depth(fine_scene.disparity).open()))
    near = fine_scene.depth_m < 2 * np.median(fine_scene.depth_m)
    ratio = found.placement.depth(values)[near] * unit / fine_scene.depth_m[near]
    assert np.median(np.abs(ratio - 1)) < 0.06 and found.alignment_error < 0.06
    assert found.reprojection_px < 1 and len(found.points) > 100


def test_a_flat_scene_leaves_the_lens_unsure(found: PoseResult) -> None:
    rng = np.random.default_rng(0)
    wall = rng.uniform(-1, 1, (200, 2)) @ [[1, 0, 0.3], [0, 1, -0.5]] + rng.normal(0, 0.004, (200, 3)) + [0, 0, 4]
    wall[:5] = rng.uniform(-3, 3, (5, 3))  # found wrongly
    flat = replace(found, points=wall)

    def is_told(poses: PoseResult) -> bool:
        return any("the scene is flat" in line and "give --fov" in line for line in poses.report())

    assert is_told(flat) and not is_told(found)
    assert not is_told(replace(flat, fov_by="given")) and not is_told(replace(flat, points=wall[:2]))


def test_points_lie_where_depth_says(fine_scene: SceneFiles, found: PoseResult) -> None:
    camera = found.camera(0)
    local = (found.points - camera.world_from_camera[:3, 3]) @ camera.world_from_camera[:3, :3]
    pixels = (local @ camera.K.T)[:, :2] / local[:, 2:]
    inside = (local[:, 2] > 0) & (pixels >= 0).all(1) & (pixels < (2 * WIDTH, 2 * HEIGHT)).all(1)
    columns, rows = pixels[inside].astype(int).T
    depth = found.placement.depth(next(open_depth(fine_scene.disparity).open()))[rows, columns]
    assert inside.sum() > 50
    assert np.median(np.abs(depth / local[inside, 2] - 1)) < 0.08


def test_of_several_attempts_the_one_that_explains_most_in_the_same_way_each_time(
    scene: SceneFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No order of threads shows in the cameras, and no lens is taken where another explains more."""
    attempts: list[tuple[tuple[int, int], float]] = []  # what was explained, and by which focal length
    map_once = structure._map

    def seen(*given: Any) -> Any:
        model = map_once(*given)
        if model is not None:
            focal_px = next(iter(model.cameras.values())).mean_focal_length()
            attempts.append(((model.num_reg_images(), model.compute_num_observations()), focal_px))
        return model

    monkeypatch.setattr(structure, "_map", seen)
    first = estimate(scene.clip, scene.disparity, tmp_path / "first", every=2)
    most = max(explained for explained, _ in attempts)
    best_focals_px = [focal_px for explained, focal_px in attempts if explained == most]
    assert len(attempts) >= 2 and np.isclose(best_focals_px, first.K[0, 0]).any()
    second = estimate(scene.clip, scene.disparity, tmp_path / "second", every=2)
    assert np.array_equal(first.K, second.K) and np.array_equal(first.world_from_camera, second.world_from_camera)
    assert np.array_equal(first.points, second.points)


@pytest.mark.parametrize("method", ["colmap", "odometry"])
def test_a_lens_knows_pixels_that_are_not_square(fine_scene: SceneFiles, tmp_path: Path, method: str) -> None:
    """Anamorphic: half as many columns, each shown twice as wide."""
    clip, out = tmp_path / "narrow.mkv", tmp_path / "poses.json"
    run_ffmpeg("-i", fine_scene.clip, "-vf", "scale=iw/2:ih,setsar=2", "-c:v", "ffv1", clip)
    depth = np.stack(list(open_depth(fine_scene.metric).open()))[..., ::2]
    np.save(tmp_path / "depth.npy", depth)
    options = ["--depth", tmp_path / "depth.npy", "--depth-kind", "metric", "--fov", fine_scene.fov_deg]
    options += ["--match-every", 1] if method == "colmap" else []
    result = run(clip, "-o", out, "--method", method, *options)
    assert result.exit_code == 0, result.output
    poses = load_poses(out)
    assert (poses.width, poses.height) == (WIDTH, 2 * HEIGHT)
    assert np.allclose(poses.K, np.diag([0.5, 1, 1]) @ fine_scene.K, rtol=1e-6)
    assert way_error(poses.world_from_camera, fine_scene.world_from_camera) < 0.08


def test_odometry_is_in_metres(scene: SceneFiles, tmp_path: Path) -> None:
    out = tmp_path / "poses.json"
    result = run(scene.clip, "-o", out, "--depth", scene.metric, "--method", "odometry", "--fov", scene.fov_deg)
    assert result.exit_code == 0, result.output
    assert f"{FRAMES} of {FRAMES} frames registered (odometry)" in result.output
    poses = load_poses(out)
    assert (poses.scale, poses.shift, poses.depth_kind) == (1, 0, "metric")
    assert way_error(poses.world_from_camera, scene.world_from_camera) < 0.08
    assert list(tmp_path.iterdir()) == [out]


def turning(frame: np.ndarray) -> np.ndarray:
    """What a camera sees that turns where it stands: the middle of a picture, by homographies."""
    K = intrinsics(50, HEIGHT, WIDTH)
    frames = []
    for angle in np.linspace(-0.08, 0.08, 10):
        turn = cv2.Rodrigues(np.array([0, angle, 0]))[0]
        wide = K @ np.diag([0.7, 0.7, 1]) @ turn @ np.linalg.inv(K)
        frames.append(cv2.warpPerspective(frame, np.linalg.inv(wide), (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC))
    return np.stack(frames)


@pytest.mark.parametrize("moves", ["stands", "turns"])
def test_a_camera_in_one_place_is_refused(scene: SceneFiles, tmp_path: Path, moves: str) -> None:
    first = next(Take(scene.clip).frames()).rgb
    noise = np.random.default_rng(0).normal(0, 2, (10, *first.shape))
    frames = turning(first) if moves == "turns" else np.repeat(first[None], 10, axis=0)
    clip = write_clip(tmp_path / "clip.mp4", (frames + noise).clip(0, 255).astype(np.uint8))
    depth = write_depth(tmp_path / "depth.npy", np.full((10, HEIGHT, WIDTH), 3.0), "metric")
    result = run(clip, "-o", tmp_path / "poses.json", "--depth", depth, "--match-every", 1, "--quiet")
    assert result.exit_code == 1 and len(result.output.strip().splitlines()) == 1
    assert "the camera did not move: points move by" in result.output
    assert ("as when a camera turns" in result.output) == (moves == "turns")
    result = run(clip, "-o", tmp_path / "poses.json", "--depth", depth, "--method", "odometry", "--fov", 50)
    if moves == "stands":
        assert result.exit_code == 1 and "the camera did not move: it goes 0." in result.output
    assert not list(tmp_path.glob(".poses*"))


def wall_seen_from(positions_m: np.ndarray, K: np.ndarray, wall_m: float = 4.0) -> np.ndarray:
    """Pictures of a painted wall by a camera that travels before it without turning."""
    rng = np.random.default_rng(3)
    paint = np.zeros((600, 800, 3), np.float32)
    for cell in (100, 40, 15, 5):
        blots = rng.uniform(0, 255, (600 // cell + 2, 800 // cell + 2, 3)).astype(np.float32)
        paint += cv2.resize(blots, (800, 600), interpolation=cv2.INTER_CUBIC) / 4
    paint = ((paint - 127) * 2 + 127).clip(0, 255)
    metres = np.array([[8 / 800, 0, -4], [0, 6 / 600, -3], [0, 0, 1]])
    frames = []
    for x, y, z in positions_m:
        seen = K @ np.array([[1, 0, -x], [0, 1, -y], [0, 0, wall_m - z]]) @ metres
        picture = cv2.warpPerspective(paint, seen, (WIDTH, HEIGHT), flags=cv2.INTER_LINEAR)
        frames.append(picture + rng.normal(0, 1.5, picture.shape))
    return np.stack(frames).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(("way_m", "fov"), [(1.2, None), (0.3, 50)])
def test_a_camera_that_travels_along_a_wall_is_found(tmp_path: Path, way_m: float, fov: float | None) -> None:
    """The shortest way is that of a hand that sways: the first two frames see the wall under 4 degrees."""
    count = 8
    positions = np.zeros((count, 3))
    positions[:, 0] = np.linspace(-way_m / 2, way_m / 2, count)
    clip = write_clip(tmp_path / "clip.mp4", wall_seen_from(positions, intrinsics(50, HEIGHT, WIDTH)))
    depth = write_depth(tmp_path / "depth.npy", np.full((count, HEIGHT, WIDTH), 4.0), "metric")
    found = estimate(clip, depth, tmp_path / "colmap", every=1 if fov else 2, fov_deg=fov)
    assert found.registered == tuple(range(count))
    true = np.tile(np.eye(4), (count, 1, 1))
    true[:, :3, 3] = positions
    moved = way(found.world_from_camera)[-1, :3, 3]
    if fov is None:  # a flat scene does not tell the lens, so the way is known by about what the lens is off by
        assert moved[0] > 0.6 * way_m
    else:
        assert way_error(found.world_from_camera, true) < 0.06


@pytest.mark.parametrize("kind", ["disparity", "depth", "metric"])
def test_alignment_bears_wrong_points(kind: str) -> None:
    rng = np.random.default_rng(1)
    depth = rng.uniform(1, 8, 400)
    values = {"disparity": (1 / depth - 0.05) / 0.9, "depth": (depth - 0.5) / 9, "metric": depth / 2.5}[kind]
    values = values * rng.normal(1, 0.01, 400)
    values[:120] = rng.uniform(0, 1, 120)
    values[120] = np.nan
    found = align(kind, Samples(values, depth))
    expected = {"disparity": (0.9, 0.05), "depth": (9, 0.5), "metric": (2.5, 0)}[kind]
    assert (found.placement.scale, found.placement.shift) == pytest.approx(expected, rel=0.05, abs=0.02)
    assert found.error < 0.05


def test_alignment_refuses_what_does_not_fit() -> None:
    depth = np.linspace(1, 8, 100)
    with pytest.raises(ValueError, match="what is called depth does not grow as the scene's does"):
        align("depth", Samples(1 / depth, depth))
    with pytest.raises(ValueError, match="known at 5 points"):
        align("depth", Samples(depth[:5], depth[:5]))


def test_frames_between_are_turned_and_moved_evenly() -> None:
    last = np.eye(4)
    last[:3, :3] = cv2.Rodrigues(np.array([0, 0.8, 0]))[0]
    last[:3, 3] = (4, 0, 2)
    times = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    poses = between({1: np.eye(4), 5: last}, times)
    assert np.allclose(poses[0], np.eye(4)) and np.allclose(poses[1], np.eye(4)) and np.allclose(poses[5], last)
    assert np.allclose(poses[3, :3, 3], (2, 0, 1))
    assert np.allclose(poses[3, :3, :3], cv2.Rodrigues(np.array([0, 0.4, 0]))[0])


def test_poses_are_read_back_as_written(found: PoseResult, tmp_path: Path) -> None:
    path = found.save(tmp_path / "poses.json")
    read = load_poses(path)
    for name in ("world_from_camera", "times_s", "K", "colors"):
        assert np.array_equal(getattr(read, name), getattr(found, name))
    assert np.allclose(read.points, found.points, atol=1e-6)
    assert (read.scale, read.shift, read.registered) == (found.scale, found.shift, found.registered)
    with pytest.raises(FileExistsError, match="poses.json exists already"):
        found.save(path)
    with pytest.raises(ValueError, match=f"there are {FRAMES} cameras, none for frame {FRAMES}"):
        read.camera(FRAMES)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"format": "other"}, "was not written by novel-view poses"),
        ({"K": None}, "K is not finite numbers"),
        ({"world_from_camera": [[1, 2], [3]]}, "is broken"),
        ({"scale": -1}, "are no map of depth"),
        ({"times_s": [0.0]}, "world_from_camera is not finite numbers of shape [1, 4, 4]"),
    ],
)
def test_broken_poses_are_refused(found: PoseResult, tmp_path: Path, change: dict, text: str) -> None:
    path = found.save(tmp_path / "poses.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ValueError) as error:
        load_poses(path)
    assert text in str(error.value)
    content = json.loads(path.read_text()) | {"format": "novel-view poses 1"}
    del content["registered"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="registered is missing|is broken"):
        load_poses(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        load_poses(path)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--method", "slam"), "--method: 'slam' is not known"),
        (("--fov", 180), "fov: 180 is not accepted"),
        (("--match-every", 0), "--match-every: 0 is not accepted"),
        (("--near", 1, "--far", 3), "--near, --far: are for --method odometry"),
        (("-o", "poses.txt"), "'poses.txt' does not end in .json"),
        (("--depth-kind", "depth"), "contradicts disparity"),
        (("--start", 99), "is past the end"),
    ],
)
def test_bad_requests_are_told_in_one_line(scene: SceneFiles, tmp_path: Path, arguments: tuple, text: str) -> None:
    result = run(scene.clip, "-o", tmp_path / "poses.json", "--depth", scene.disparity, *arguments)
    assert result.exit_code == 2
    assert text in result.output and len(result.output.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_depth_that_ends_before_the_clip_is_told(scene: SceneFiles, tmp_path: Path) -> None:
    short = write_depth(tmp_path / "short.npy", np.full((FRAMES - 3, HEIGHT, WIDTH), 3.0), "metric")
    result = run(scene.clip, "-o", tmp_path / "poses.json", "--depth", short)
    assert result.exit_code == 2 and f"has {FRAMES - 3} frames, the clip {FRAMES}" in result.output
