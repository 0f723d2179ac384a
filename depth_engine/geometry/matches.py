"""Where each pixel of a picture is found in another: dense flow, checked forth and back."""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np

# OpenCV's search reads out of bounds in pictures that are small or narrow (seen at 16x128, not from 64 up).
_LEAST_SIDE_PX = 64


class Matches(NamedTuple):
    """Where pixels are found in another picture.

    Attributes:
        pixels: float32 `[H, W, 2]`, column and row in the other picture, centres at +0.5.
        returned_px: float32 `[H, W]`: how far from its start a pixel ends that is followed there and back; inf where
            it leaves the picture.
    """

    pixels: np.ndarray
    returned_px: np.ndarray


def flow_between(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Flow float32 `[H, W, 2]` in pixels from a grey picture uint8 `[H, W]` to another of its size.

    Dense inverse search (Kroeger et al., arXiv 1603.03590; OpenCV's).
    """
    cv: Any = cv2  # its stubs lack this flow
    height, width = before.shape
    below, right = max(0, _LEAST_SIDE_PX - height), max(0, _LEAST_SIDE_PX - width)
    if below or right:
        before, after = (cv2.copyMakeBorder(each, 0, below, 0, right, cv2.BORDER_REPLICATE) for each in (before, after))
    return cv.DISOpticalFlow_create(cv.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(before, after, None)[:height, :width]


def matches_from(there: np.ndarray, back: np.ndarray) -> Matches:
    """Matches of a picture with another.

    Args:
        there: Flow from the picture to the other, `[H, W, 2]`.
        back: Flow from the other to the picture, `[H, W, 2]`.
    """
    height, width = there.shape[:2]
    rows, columns = np.indices((height, width), dtype=np.float32)
    reached_columns, reached_rows = columns + there[..., 0], rows + there[..., 1]
    returning = cv2.remap(back, reached_columns, reached_rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    returned = np.hypot(there[..., 0] + returning[..., 0], there[..., 1] + returning[..., 1])
    inside = (
        (reached_columns >= 0) & (reached_columns <= width - 1) & (reached_rows >= 0) & (reached_rows <= height - 1)
    )
    pixels = np.stack([reached_columns + 0.5, reached_rows + 0.5], axis=-1)
    return Matches(pixels, np.where(inside, returned, np.inf).astype(np.float32))
