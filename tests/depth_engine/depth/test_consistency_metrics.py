from __future__ import annotations

import numpy as np
import pytest

from depth_engine.depth.consistency_metrics import (
    multi_frame_consistency,
    project_depth,
    temporal_alignment_error,
    visible_pairs,
)

K = np.array([[40.0, 0, 32], [0, 40, 24], [0, 0, 1]])
STILL = np.tile(np.eye(4), (4, 1, 1))


def forward(step_m: float, frames: int = 4) -> np.ndarray:
    poses = np.tile(np.eye(4), (frames, 1, 1))
    poses[:, 2, 3] = step_m * np.arange(frames)
    return poses


def wall(distance_m: float, poses: np.ndarray) -> np.ndarray:
    """A wall across the way, as each camera sees it."""
    return np.stack([np.full((48, 64), distance_m - pose[2, 3]) for pose in poses])


def test_identity_keeps_depth() -> None:
    depth_m = np.random.default_rng(0).uniform(1, 5, (48, 64))
    assert np.allclose(project_depth(depth_m, K, np.eye(4), np.eye(4)), depth_m)


def test_the_truth_of_a_wall_agrees_exactly() -> None:
    poses = forward(0.25)
    assert multi_frame_consistency(wall(5, poses), K, poses) == pytest.approx(0, abs=1e-9)
    assert temporal_alignment_error(wall(5, poses), K, poses) == pytest.approx(0, abs=1e-9)


def test_known_errors_give_known_numbers() -> None:
    poses = forward(0.25)
    wrong = wall(5, poses)
    wrong[1::2] += 0.1  # flickers by 10 cm
    assert multi_frame_consistency(wrong, K, poses) == pytest.approx(0.1)
    flicker = np.full((4, 48, 64), 4.0)
    flicker[1::2] = 5.0
    assert multi_frame_consistency(flicker, K, STILL) == pytest.approx(1)
    assert temporal_alignment_error(flicker, K, STILL) == pytest.approx(100 * (1 / 4 + 1 / 5) / 2)


def test_the_nearer_point_wins_and_nothing_comes_from_behind() -> None:
    depth_m = np.full((48, 64), 10.0)
    depth_m[:, 30:34] = 2.0
    aside = np.eye(4)
    aside[0, 3] = 0.3  # to the right: the near post moves left over the wall
    seen = project_depth(depth_m, K, np.eye(4), aside)
    assert (seen[24, 24:28] == 2).all()
    past = np.eye(4)
    past[2, 3] = 3.0
    assert np.nanmin(project_depth(depth_m, K, np.eye(4), past)) == pytest.approx(7)


def test_what_moves_or_is_hidden_is_not_visible() -> None:
    depth_m = np.full((2, 48, 64), 10.0)
    depth_m[0, :, 10:14] = 2.0
    depth_m[1, :, 40:44] = 2.0  # the post walked
    (visible,) = visible_pairs(depth_m, K, STILL[:2])
    assert not visible[:, 10:14].any() and not visible[:, 40:44].any() and visible[:, 20:30].all()
    assert multi_frame_consistency(depth_m, K, STILL[:2], [visible]) == 0
    assert multi_frame_consistency(depth_m, K, STILL[:2]) > 0.9


def test_sky_is_left_out() -> None:
    poses = forward(0.25)
    depth_m = wall(5, poses)
    depth_m[:, :20] = np.inf
    assert multi_frame_consistency(depth_m, K, poses) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match="share a pixel"):
        multi_frame_consistency(np.full((2, 8, 8), np.inf), K, STILL[:2])


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match="two frames or more"):
        multi_frame_consistency(np.ones((1, 8, 8)), K, STILL[:1])
    with pytest.raises(ValueError, match=r"expected \(3, 3\), \(2, 4, 4\)"):
        temporal_alignment_error(np.ones((2, 8, 8)), K, STILL)
