"""Where the pixels of a picture are found in another one, and which of them can be trusted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

# OpenCV's search reads out of bounds in pictures that are small or narrow (seen at 16x128, not from 64 up).
_LEAST_SIDE = 64
# A pixel's way there and back again may miss it by this many pixels, and by this share of the way.
_RETURN_PX, _RETURN_SHARE = 0.5, 0.02
# The pictures may differ by this much of 255 around a trusted pixel.
_GREY_DIFFERENCE = 25.0

Quality = Literal["fast", "medium"]


@dataclass(frozen=True)
class Match:
    """A picture's pixels in another one.

    Attributes:
        columns: float32 `[H, W]`: where each pixel is found, in pixel indices (0 is the centre of the first pixel).
        rows: The same of rows.
        trusted: bool `[H, W]`: inside, looks the same there, and the way back leads here again.
    """

    columns: np.ndarray
    rows: np.ndarray
    trusted: np.ndarray

    def bring(self, values: np.ndarray) -> np.ndarray:
        """Values `[H, W]` of the other picture at the places of this one's pixels."""
        import cv2

        return cv2.remap(values, self.columns, self.rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def grey_of(rgb: np.ndarray, longest_px: int) -> np.ndarray:
    """uint8 `[h, w]` of a picture uint8 `[H, W, 3]`, shrunk to a longest side; weights of ITU-R BT.601."""
    import cv2

    height, width = rgb.shape[:2]
    factor = min(1.0, longest_px / max(height, width))
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return resized(grey, max(1, round(height * factor)), max(1, round(width * factor)))


def resized(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Depth, or a grey picture, `[h, w]` at another size: averaged where it gets smaller."""
    import cv2

    if values.shape == (height, width):
        return values
    how = cv2.INTER_AREA if height * width < values.size else cv2.INTER_LINEAR
    return cv2.resize(values, (width, height), interpolation=how)


def where_from(grey: np.ndarray, other: np.ndarray, quality: Quality = "fast") -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows, float32 `[H, W]`, at which each pixel of a picture is found in another one.

    Dense inverse search (Kroeger et al., arXiv 1603.03590; OpenCV's).

    Args:
        grey: uint8 `[H, W]`.
        other: uint8 `[H, W]`.
        quality: `medium` searches at half the picture's size, in four times the time of `fast`, which takes a quarter
            and makes large motions too small by a tenth or two.
    """
    import cv2

    height, width = grey.shape
    below, right = max(0, _LEAST_SIDE - height), max(0, _LEAST_SIDE - width)
    pair = (cv2.copyMakeBorder(each, 0, below, 0, right, cv2.BORDER_REPLICATE) for each in (grey, other))
    flow = _search(quality).calc(*pair, None)[:height, :width]
    rows, columns = np.indices(grey.shape, dtype=np.float32)
    return columns + flow[..., 0], rows + flow[..., 1]


def match_both_ways(first: np.ndarray, second: np.ndarray, quality: Quality = "medium") -> tuple[Match, Match]:
    """The first picture's pixels in the second, and the second's in the first; uint8 `[H, W]` each."""
    there, back = where_from(first, second, quality), where_from(second, first, quality)
    return _checked(first, second, there, back), _checked(second, first, back, there)


def _checked(
    grey: np.ndarray,
    other: np.ndarray,
    there: tuple[np.ndarray, np.ndarray],
    back: tuple[np.ndarray, np.ndarray],
) -> Match:
    import cv2

    columns, rows = there
    height, width = grey.shape
    here_rows, here_columns = np.indices(grey.shape, dtype=np.float32)
    unchecked = Match(columns, rows, np.ones(grey.shape, bool))
    missed_px = np.hypot(unchecked.bring(back[0]) - here_columns, unchecked.bring(back[1]) - here_rows)
    way_px = np.hypot(columns - here_columns, rows - here_rows)
    # Single pixels differ by noise; a surface that comes into view differs over an area.
    difference = cv2.blur(cv2.absdiff(unchecked.bring(other), grey).astype(np.float32), (5, 5))
    inside = (columns >= 0) & (columns <= width - 1) & (rows >= 0) & (rows <= height - 1)
    returns = missed_px < _RETURN_PX + _RETURN_SHARE * way_px
    return Match(columns, rows, inside & returns & (difference < _GREY_DIFFERENCE))


def _search(quality: Quality) -> Any:
    """OpenCV's search, made anew: it takes no time, and one that is kept must not run in two threads."""
    import cv2

    cv: Any = cv2  # its stubs lack this flow
    preset = {"fast": cv.DISOPTICAL_FLOW_PRESET_FAST, "medium": cv.DISOPTICAL_FLOW_PRESET_MEDIUM}[quality]
    return cv.DISOpticalFlow_create(preset)
