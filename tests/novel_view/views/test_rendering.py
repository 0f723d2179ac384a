"""What makes views look right: mended depth borders, blended edges, filled places that do not flicker."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from novel_view.cli import main
from novel_view.views.rendering import FILLS, SourceFrame, render_views

from depth_engine import DepthVideo
from depth_engine.geometry.cameras import Camera, intrinsics
from depth_engine.video.read import read_frames
from depth_engine.video.write import VideoWriter

HEIGHT, WIDTH, FRAMES, FPS = 64, 96, 6, 24
NEAR, WALL = np.array([210.0, 30.0, 20.0]), np.array([20.0, 60.0, 150.0])
# The disc is seen this far to the side by `render` and by the left eye of `stereo`, pixels.
SHIFT_PX = 4


def covered(shift_px: float = 0.0, samples: int = 8) -> np.ndarray:
    """Share of each pixel, `[H, W]`, that a disc in the middle covers."""
    y, x = (np.mgrid[: HEIGHT * samples, : WIDTH * samples] + 0.5) / samples
    inside = (x - WIDTH / 2 - shift_px) ** 2 + (y - HEIGHT / 2) ** 2 < 15**2
    return inside.reshape(HEIGHT, samples, WIDTH, samples).mean(axis=(1, 3))


def picture(share: np.ndarray) -> np.ndarray:
    return (WALL + share[..., None] * (NEAR - WALL)).round().clip(0, 255).astype(np.uint8)


def run(
    folder: Path, command: str, frames: np.ndarray, disparity: np.ndarray, *options: str, shift_px: float = SHIFT_PX
) -> np.ndarray:
    """Pictures `[T, H, W, 3]` of a view from the left: what has disparity 1 moves by the shift, the wall hardly."""
    folder.mkdir(exist_ok=True)
    times = np.arange(len(frames)) / FPS
    with VideoWriter(folder / "clip.mkv", width=WIDTH, height=HEIGHT, fps=FPS, codec="ffv1", overwrite=True) as writer:
        for time_s, frame in zip(times, frames, strict=True):
            writer.write(frame, float(time_s))
    values = np.broadcast_to(disparity, (len(frames), HEIGHT, WIDTH)).astype(np.float32)
    # In metres: a wall at 100, so that all shifts are those of the nearest thing, at 1.
    inverse = 0.01 + 0.99 * values
    DepthVideo(1 / inverse, "metric", times, Fraction(FPS)).save(folder / "depth.npy", overwrite=True)
    out = folder / f"{command}{''.join(options)}.mkv"
    if command == "render":
        focal_px = HEIGHT / 2 / np.tan(np.radians(25))
        percent = -shift_px / focal_px  # of the median depth, which is the wall's, 100
        path = folder / "path.json"
        path.write_text(json.dumps({"keyframes": [{"time_s": 0, "position_percent": [percent, 0, 0]}]}))
        moves = ["--path", str(path)]
    else:
        moves = ["--layout", "left", "--convergence", "0", "--separation", str(2 * shift_px / WIDTH * 100)]
    where = [command, str(folder / "clip.mkv"), "-o", str(out), "--depth", str(folder / "depth.npy")]
    result = CliRunner().invoke(main, [*where, "--codec", "ffv1", "--no-shots", *moves, *options])
    assert result.exit_code == 0, result.output
    return np.stack([frame.rgb for frame in read_frames(out)])


def left_behind(seen: np.ndarray) -> int:
    """Pixels that look like the disc where the old outline was and the wall should be: `[H, W, 3]`."""
    old = (covered(0) > 0) & (covered(SHIFT_PX) == 0)
    away_from_new = np.arange(WIDTH)[None] < WIDTH / 2 - 4
    return int(((seen[..., 0] > WALL[0] + 15) & old & away_from_new).sum())


@pytest.mark.parametrize("command", ["render", "stereo"])
def test_no_outline_stays_where_a_disc_was(command: str, tmp_path: Path) -> None:
    share = covered()
    frames = np.repeat(picture(share)[None], 2, axis=0)
    seen = run(tmp_path, command, frames, share > 0.5)
    without = run(tmp_path, command, frames, share > 0.5, "--no-edge")
    assert left_behind(without[0]) > 8
    assert left_behind(seen[0]) == 0


@pytest.mark.parametrize("command", ["render", "stereo"])
def test_soft_depth_is_brought_to_the_disc_before_it_moves(command: str, tmp_path: Path) -> None:
    """Depth of a disc that is too small and soft: its rim would stay behind."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    radius = np.hypot(x - WIDTH / 2, y - HEIGHT / 2)
    soft = np.clip((14 - radius) / 2, 0, 1)
    frames = np.repeat(picture(covered())[None], 2, axis=0)
    seen = run(tmp_path, command, frames, soft)
    without = run(tmp_path, command, frames, soft, "--no-sharpen", "--no-edge")
    assert left_behind(without[0]) > 20
    assert left_behind(seen[0]) <= 2


@pytest.mark.parametrize("command", ["render", "stereo"])
def test_edges_of_what_moved_are_blended(command: str, tmp_path: Path) -> None:
    """A disc without mixed pixels, seen from half a pixel beside: its leading edge has steps or is blended."""
    frames = np.repeat(picture(covered(samples=1))[None], 2, axis=0)
    seen = run(tmp_path, command, frames, covered(samples=1) > 0.5, shift_px=4.5)[0].astype(float)
    share = (seen[..., 0] - WALL[0]) / (NEAR[0] - WALL[0])
    columns = np.arange(WIDTH)[None] > WIDTH / 2 + 4
    between = (share > 0.15) & (share < 0.85) & columns
    assert between.sum() > 6


def test_the_mask_is_the_same_for_every_fill() -> None:
    """It holds what the frame itself doesn't show, also where another frame does."""
    camera = Camera(intrinsics(50, HEIGHT, WIDTH), np.eye(4), HEIGHT, WIDTH)
    beside = np.eye(4)
    beside[0, 3] = 0.1
    target = Camera(camera.K, beside, HEIGHT, WIDTH)
    depth = np.where(covered() > 0.5, 1.0, 4.0).astype(np.float32)
    far = np.full_like(depth, 4.0)
    frames = [
        SourceFrame(0, 0.0, picture(covered()), depth, camera, True),
        SourceFrame(1, 0.04, picture(covered() * 0), far, camera, False),
    ]
    masks = {}
    for fill in FILLS:
        (_, view, opened), _ = render_views(iter(frames), lambda frame: target, fill)
        masks[fill] = opened
        assert opened.sum() > 100 and (fill != "temporal" or view.hole.sum() < opened.sum())
    assert np.array_equal(masks["temporal"], masks["spatial"]) and np.array_equal(masks["none"], masks["spatial"])


@pytest.mark.parametrize("command", ["render", "stereo"])
def test_filled_places_flicker_less_than_the_picture_around(command: str, tmp_path: Path) -> None:
    """A wall with noise that changes from frame to frame: what is painted from it holds still."""
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 8, (FRAMES, 1, 1, 3))  # of the whole picture: an average over space does not calm it
    frames = (picture(covered()) + noise).clip(0, 255).astype(np.uint8)
    mask = tmp_path / f"{command}-holes.mkv"
    seen = run(tmp_path, command, frames, covered() > 0.5, "--mask-out", str(mask)).astype(float)
    hole = np.stack([frame.rgb[..., 0] for frame in read_frames(mask)]).min(axis=0)[:, :WIDTH] > 0
    hole &= np.arange(WIDTH)[None] > 10
    assert hole.sum() > 40
    change = np.abs(np.diff(seen, axis=0)).mean(axis=(0, 3))
    assert change[hole].mean() < 0.6 * change[:10, 20:].mean()
