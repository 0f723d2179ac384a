"""Levels: what jumps is taken out, what truly changes stays, and nothing passes from shot to shot."""

from __future__ import annotations

import numpy as np
import pytest

from depth_engine.consistency.levels import LevelStage
from depth_engine.depth.metrics import fit_scale_shift
from tests.depth_engine.consistency.layers import jumping, layered_clip

FRAMES = 48


def steadied(
    pictures: np.ndarray, depth: np.ndarray, shots: tuple[int, ...] = (0,), kind: str = "disparity"
) -> np.ndarray:
    stage = LevelStage(kind)
    frames = [
        settled
        for index, (rgb, values) in enumerate(zip(pictures, depth, strict=True))
        for settled in stage.push(rgb, values, index in shots)
    ]
    return np.stack([*frames, *stage.flush()])


def level_error(values: np.ndarray, truth: np.ndarray) -> float:
    """Root mean square error of the frames' means, after one scale and shift for the clip, in ranges of the truth."""
    scale, shift = fit_scale_shift(values, truth)
    means = (scale * values + shift - truth).mean(axis=(1, 2))
    return float(np.sqrt((means**2).mean())) / float(np.ptp(truth))


@pytest.fixture(scope="module")
def passing() -> tuple[np.ndarray, np.ndarray]:
    """The camera moves to the side."""
    return layered_clip(FRAMES, sideways_m=0.02)


@pytest.fixture(scope="module")
def nearing() -> tuple[np.ndarray, np.ndarray]:
    """The camera moves forward: what is near becomes half as near again."""
    return layered_clip(FRAMES, forward_m=0.025)


def test_levels_that_jump_become_steady(passing: tuple[np.ndarray, np.ndarray]) -> None:
    pictures, truth = passing
    depth = jumping(truth)
    assert level_error(steadied(pictures, depth), truth) < 0.1 * level_error(depth, truth)


def test_depth_whose_level_does_not_jump_is_left_as_it_is(nearing: tuple[np.ndarray, np.ndarray]) -> None:
    pictures, truth = nearing
    assert np.array_equal(steadied(pictures, truth), truth)


@pytest.mark.parametrize("kind", ["disparity", "depth", "metric"])
def test_what_truly_grows_still_grows(nearing: tuple[np.ndarray, np.ndarray], kind: str) -> None:
    """Levels carried along the flow alone would take all of the growth for jumps."""
    pictures, truth = nearing
    truth = truth if kind == "disparity" else 1 / truth
    depth = jumping(truth, shifted=kind != "metric")
    found = steadied(pictures, depth, kind=kind)
    assert level_error(found, truth) < 0.2 * level_error(depth, truth)
    fit = fit_scale_shift(found, truth)
    near = [
        np.quantile(each, 0.97 if kind == "disparity" else 0.03, axis=(1, 2))
        for each in (fit[0] * found + fit[1], truth)
    ]
    grown = [float(ends[-6:].mean() - ends[:6].mean()) for ends in near]
    assert grown[0] == pytest.approx(grown[1], rel=0.25)


def test_metric_depth_is_scaled_and_never_shifted(passing: tuple[np.ndarray, np.ndarray]) -> None:
    pictures, truth = passing
    depth_m = jumping(1 / truth, shifted=False)
    ratio = steadied(pictures, depth_m, kind="metric") / depth_m
    assert np.ptp(ratio, axis=(1, 2)).max() < 1e-5
    assert np.ptp(ratio[:, 0, 0]) > 0.2


def test_nothing_passes_a_cut(passing: tuple[np.ndarray, np.ndarray], nearing: tuple[np.ndarray, np.ndarray]) -> None:
    pictures = np.concatenate([passing[0][:20], nearing[0][:20]])
    depth = jumping(np.concatenate([passing[1][:20], 3 + 5 * nearing[1][:20]]))
    together = steadied(pictures, depth, shots=(0, 20))
    apart = [steadied(pictures[part], depth[part]) for part in (slice(0, 20), slice(20, 40))]
    assert np.array_equal(together, np.concatenate(apart))


def test_a_run_goes_on_from_any_frame_to_the_same_values(passing: tuple[np.ndarray, np.ndarray]) -> None:
    pictures, depth = passing[0], jumping(passing[1])
    whole = steadied(pictures, depth, shots=(0, 30))
    for stop in (1, 33, 45):
        first = LevelStage("disparity")
        frames = [
            settled for index in range(stop) for settled in first.push(pictures[index], depth[index], index in (0, 30))
        ]
        then = LevelStage("disparity", state=first.state())
        for index in range(stop, FRAMES):
            frames += then.push(pictures[index], depth[index], index == 30)
        assert np.array_equal(np.stack([*frames, *then.flush()]), whole)


def test_frames_that_wait_are_few() -> None:
    rgb, depth = np.zeros((16, 24, 3), np.uint8), np.linspace(0, 1, 16 * 24, dtype=np.float32).reshape(16, 24)
    stage, out = LevelStage("disparity"), 0
    for index in range(120):
        out += len(stage.push(rgb, depth, index == 0))
        assert index + 1 - out <= 36
        assert len(stage.state()["steps"]) <= 100


def test_pictures_that_show_nothing_and_flat_depth_are_no_error() -> None:
    """Nothing can be compared: each frame keeps what it has."""
    pictures = np.zeros((6, 64, 64, 3), np.uint8)
    flat = np.full((6, 64, 64), 0.5, np.float32)
    assert np.array_equal(steadied(pictures, flat), flat)
    some = np.random.default_rng(0).random((6, 64, 64)).astype(np.float32)
    some[3] = 0.25
    assert np.isfinite(steadied(pictures, some)).all()
