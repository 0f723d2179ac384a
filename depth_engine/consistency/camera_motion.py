"""How the camera moves from a picture to the next, from the pixels' ways and depth that is right up to scale and shift.

A still scene's pixel at (x, y), in focal lengths from the centre, moves by a turn of the camera, whatever its depth,
and by the camera's shift times its disparity (Longuet-Higgins and Prazdny, "The interpretation of a moving retinal
image", 1980, equations 2.6 and 2.7). With disparity known, both are one least squares. What is wanted of it is the
change of depth along the way: of disparity D by the share of it that the camera's step forward times D makes, and by
what a turn makes of planar depth beside the picture's centre.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Focal length over the longest side where nobody says: about 60 degrees across. A lens twice as wide or as long changes
# the forward step that is found by a few per cent.
FOCAL_RATIO = 0.87
# What is not seen is not made up: weak pulls to no motion, of the sideways, of the forward part (in spreads of
# disparity) and of the turn.
_SIDEWAYS_PULL, _FORWARD_PULL, _TURN_PULL = 1e-3, 1e-4, 1e-7
_ROUNDS = 5  # of weights against what moves by itself; more change nothing that matters
_LEAST_PIXELS = 50


@dataclass(frozen=True)
class Rays:
    """Pixels of a picture as directions.

    Attributes:
        x: To the right of the centre, in focal lengths, `[H, W]`.
        y: Below it.
        focal_px: Focal length in pixels.
    """

    x: np.ndarray
    y: np.ndarray
    focal_px: float

    @classmethod
    def of_size(cls, height: int, width: int) -> Rays:
        """Of a picture, under the assumed lens."""
        focal_px = FOCAL_RATIO * max(height, width)
        rows, columns = np.indices((height, width), dtype=np.float32)
        return cls((columns + 0.5 - width / 2) / focal_px, (rows + 0.5 - height / 2) / focal_px, focal_px)


def depth_change(
    x: np.ndarray, y: np.ndarray, way_x: np.ndarray, way_y: np.ndarray, disparity: np.ndarray
) -> np.ndarray:
    """What changes depth along the way: (forward, turn_x, turn_y), by a robust least squares.

    The share by which a pixel's disparity grows is `forward * disparity + turn_x * y - turn_y * x`.

    Args:
        x: Trusted pixels `[N]`, in focal lengths right of the centre.
        y: Below it.
        way_x: How far they move to the right, in focal lengths.
        way_y: And down.
        disparity: Theirs, in any unit; 0 is at infinity.

    Returns:
        float64 `[3]`; zeros where too little is seen.
    """
    if len(x) < _LEAST_PIXELS:
        return np.zeros(3)
    spread = float(disparity.std()) + 1e-6
    sideways, forward = (disparity - disparity.mean()) / spread, disparity / spread
    none = np.zeros_like(x)
    # Turns about x, y, z; sideways shifts along x and y; the step forward. A sideways shift of the mean disparity looks
    # as a turn does and is left to it.
    across = np.stack([-x * y, 1 + x * x, -y, sideways, none, forward * x], axis=1)
    down = np.stack([-1 - y * y, x * y, x, none, sideways, forward * y], axis=1)
    pull = np.diag([_TURN_PULL] * 3 + [_SIDEWAYS_PULL] * 2 + [_FORWARD_PULL])
    weight = np.ones_like(x)
    found = np.zeros(6)
    for _ in range(_ROUNDS):
        weighed_across, weighed_down = across * weight[:, None], down * weight[:, None]
        normal = weighed_across.T @ across + weighed_down.T @ down
        right = weighed_across.T @ way_x + weighed_down.T @ way_y
        found = np.linalg.solve(normal / weight.sum() + pull, right / weight.sum())
        missed = np.hypot(across @ found - way_x, down @ found - way_y)
        weight = 1 / (1 + (missed / (2 * float(np.median(missed)) + 1e-6)) ** 2)
    # x' = (1 + x^2) w_y - ... : a turn w_x, w_y changes planar depth by w_x y - w_y x, disparity the other way.
    return np.array([found[5] / spread, -found[0], -found[1]])
