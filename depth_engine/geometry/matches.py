"""Where each pixel of a picture is found in another: dense flow, checked forth and back."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

Found = tuple[np.ndarray, np.ndarray]  # columns and rows, as `consistency.matching.where_from` gives them


class Matches(NamedTuple):
    """Where pixels are found in another picture.

    Attributes:
        pixels: float32 `[H, W, 2]`, column and row in the other picture, centres at +0.5.
        returned_px: float32 `[H, W]`: how far from its start a pixel ends that is followed there and back; inf where
            it leaves the picture.
    """

    pixels: np.ndarray
    returned_px: np.ndarray


def matches_from(there: Found, back: Found) -> Matches:
    """Matches of a picture with another.

    Args:
        there: Where the picture's pixels are found in the other.
        back: Where the other's are found in the picture.
    """
    columns, rows = there
    height, width = columns.shape
    returned_columns, returned_rows = (
        cv2.remap(each, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE) for each in back
    )
    here_rows, here_columns = np.indices((height, width), dtype=np.float32)
    returned_px = np.hypot(returned_columns - here_columns, returned_rows - here_rows)
    inside = (columns >= 0) & (columns <= width - 1) & (rows >= 0) & (rows <= height - 1)
    pixels = np.stack([columns + 0.5, rows + 0.5], axis=-1)
    return Matches(pixels, np.where(inside, returned_px, np.inf).astype(np.float32))
