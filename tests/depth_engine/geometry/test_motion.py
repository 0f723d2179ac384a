"""Whether a camera moved: a rotation under its lens is told from travelling, before flat scenes too."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from depth_engine.geometry.cameras import intrinsics
from depth_engine.geometry.motion import Motion, Pair, measure_motion

HEIGHT, WIDTH = 270, 480
K = intrinsics(50, HEIGHT, WIDTH)
TURN = Rotation.from_euler("yxz", [6, 2, 3], degrees=True)
REST = Rotation.identity()


def matched(depth: np.ndarray | float, turn: Rotation, shift: tuple[float, float, float]) -> Pair:
    """Points of a scene in two frames, with the noise of matching; a tenth of them belong to things that move."""
    rng = np.random.default_rng(0)
    pixels = rng.uniform(0, (WIDTH, HEIGHT), (400, 2))
    rays = np.column_stack([pixels, np.ones(400)]) @ np.linalg.inv(K).T
    z = np.broadcast_to(depth, 400)[:, None]
    seen = (turn.apply(rays * z) + shift) @ K.T
    after = seen[:, :2] / seen[:, 2:] + rng.normal(0, 0.15, (400, 2))
    after[:40] += rng.uniform(-30, 30, (40, 2))
    return pixels, after


def measured(depth: np.ndarray | float, turn: Rotation, shift: tuple[float, float, float], lens: bool) -> Motion:
    return measure_motion([matched(depth, turn, shift)] * 3, HEIGHT, WIDTH, K[0, 0] if lens else None)


@pytest.mark.parametrize("lens", [False, True])
def test_a_turn_has_no_parallax_whatever_the_depth(lens: bool) -> None:
    depth = np.random.default_rng(1).uniform(1, 20, 400)
    motion = measured(depth, TURN, (0, 0, 0), lens)
    assert motion.moved_px > 30 and motion.parallax_px < 0.4


@pytest.mark.parametrize("lens", [False, True])
@pytest.mark.parametrize("shift", [(0.6, 0, 0), (0, 0, -0.7), (0.3, 0.3, 0)])
@pytest.mark.parametrize("turn", [REST, TURN])
def test_travelling_before_a_wall_has_parallax(turn: Rotation, shift: tuple[float, float, float], lens: bool) -> None:
    """A homography explains every one of these."""
    assert measured(4.0, turn, shift, lens).parallax_px > 1


@pytest.mark.parametrize("ratio", [0.32, 0.47, 1.35])
def test_a_turn_under_an_unknown_lens_wide_or_long(ratio: float) -> None:
    """An action camera's, too."""
    focal = ratio * WIDTH
    rng = np.random.default_rng(0)
    pixels = rng.uniform((WIDTH * 0.2, HEIGHT * 0.2), (WIDTH * 0.8, HEIGHT * 0.8), (400, 2)) - (WIDTH / 2, HEIGHT / 2)
    turned = TURN.apply(np.column_stack([pixels / focal, np.ones(400)]))
    after = focal * turned[:, :2] / turned[:, 2:] + rng.normal(0, 0.15, (400, 2))
    middle = (WIDTH / 2, HEIGHT / 2)
    motion = measure_motion([(pixels + middle, after + middle)] * 3, HEIGHT, WIDTH, None)
    assert motion.moved_px > 10 and motion.parallax_px < 0.4


def test_nothing_matched_is_no_motion() -> None:
    assert measure_motion([], HEIGHT, WIDTH, None) == Motion(0.0, 0.0)
