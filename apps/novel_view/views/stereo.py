"""Two eyes from one: left and right view of a frame by its disparity, and the layouts that displays take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from depth_engine.checks import known_name
from depth_engine.geometry.cameras import Camera

# Least-squares red-cyan projection for RGB displays: E. Dubois, "A projection method to generate anaglyph stereo
# images", ICASSP 2001. Rows give R, G, B; columns take left R, G, B and right R, G, B.
_DUBOIS = np.array(
    [
        [0.456, 0.500, 0.176, -0.043, -0.088, -0.002],
        [-0.040, -0.038, -0.016, 0.378, 0.734, -0.018],
        [-0.015, -0.021, -0.005, -0.072, -0.113, 1.226],
    ]
)


@dataclass(frozen=True)
class Eyes:
    """How the eyes stand.

    Attributes:
        separation_percent: Difference of parallax between the nearest (disparity 1) and the farthest point (0), per
            cent of the picture's width.
        convergence: Disparity in [0, 1] that lies in the plane of the screen: nearer things stand before it.

    Raises:
        ValueError: A number is not accepted.
    """

    separation_percent: float = 2.5
    convergence: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.separation_percent <= 10:
            raise ValueError(
                f"separation: {self.separation_percent:g} is not accepted; give per cent of the width above 0, at most "
                "10 (eyes can't follow more)"
            )
        if not 0 <= self.convergence <= 1:
            raise ValueError(f"convergence: {self.convergence:g} is not accepted; give a disparity from 0 to 1")


def eye_cameras(eyes: Eyes, height: int, width: int) -> tuple[Camera, Camera, Camera]:
    """The frame's own camera and the left and right one, for depth that is 1 / disparity.

    Both eyes look straight ahead and their pictures are shifted (off-axis projection), so there is no vertical
    parallax. A point of disparity d is seen by the left eye (d - convergence) * separation / 2 to the right of where
    the source has it, by the right eye as much to the left.
    """
    shift_px = eyes.separation_percent / 100 * width / 2
    focal_px = float(width)  # any will do: shifts depend on its product with the baseline

    def camera(side: float) -> Camera:
        K = np.array(
            [[focal_px, 0, width / 2 + side * eyes.convergence * shift_px], [0, focal_px, height / 2], [0, 0, 1]]
        )
        pose = np.eye(4)
        pose[0, 3] = side * shift_px / focal_px
        return Camera(K, pose, height, width)

    return camera(0.0), camera(-1.0), camera(1.0)


def anaglyph(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Red-cyan picture after Dubois, uint8 `[H, W, 3]`; red glass on the left eye."""
    both = np.concatenate([left, right], axis=2).astype(np.float32)
    return np.clip(np.rint(both @ _DUBOIS.T.astype(np.float32)), 0, 255).astype(np.uint8)


def _halved(picture: np.ndarray, axis: int) -> np.ndarray:
    """Half the size along an axis, pairs averaged; an odd last line is left out."""
    size = picture.shape[axis] // 2 * 2
    even = np.take(picture, range(0, size, 2), axis=axis).astype(np.uint16)
    odd = np.take(picture, range(1, size, 2), axis=axis).astype(np.uint16)
    return ((even + odd + 1) // 2).astype(np.uint8)


LAYOUTS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "half-sbs": lambda left, right: np.concatenate([_halved(left, 1), _halved(right, 1)], axis=1),
    "sbs": lambda left, right: np.concatenate([left, right], axis=1),
    "half-tb": lambda left, right: np.concatenate([_halved(left, 0), _halved(right, 0)], axis=0),
    "tb": lambda left, right: np.concatenate([left, right], axis=0),
    "anaglyph": anaglyph,
    "left": lambda left, right: left,
    "right": lambda left, right: right,
}


def pack(left: np.ndarray, right: np.ndarray, layout: str) -> np.ndarray:
    """Put two eyes into one picture.

    Args:
        left: uint8 `[H, W, 3]`.
        right: Of the same size.
        layout: One of `LAYOUTS`; `half-` ones keep the picture's size.

    Raises:
        ValueError: The layout is unknown.
    """
    return LAYOUTS[known_name("layout", layout, LAYOUTS)](left, right)
