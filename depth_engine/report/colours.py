"""Pictures of depth: colour maps, the input and its depth side by side, contact sheets.

Every map runs from dark and cold (far) to bright and warm (near), whatever the depth kind, so that disparity and
depth of one scene look alike. Values are taken as they are: a frame is never normalised by its own range, which would
make a steady depth flicker.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

# Anchor colours, far to near, evenly spaced.
_ANCHORS: dict[str, tuple[str, ...]] = {
    "spectral": (
        "#43307e", "#3f55a8", "#3586bd", "#52b3a8", "#97d49c", "#dcec9f",
        "#fdf4ae", "#fdd37c", "#f9a255", "#ee6a45", "#d43a4c",
    ),
    "turbo": (
        "#2b1740", "#3d46a8", "#3f7df0", "#2bb3e6", "#27dbb5", "#5cf07c",
        "#a9f446", "#e4d938", "#fda834", "#f4661c", "#e0300c",
    ),
    "magma": ("#050411", "#251255", "#5b1a7e", "#93297f", "#cc3f70", "#f3685e", "#fda271", "#fdd69a", "#fdfbc4"),
    "gray": ("#000000", "#ffffff"),
}  # fmt: skip
COLOR_MAPS = tuple(_ANCHORS)

# 1024 steps: more than the 256 levels of an 8-bit channel, so that no step shows; small enough for the L1 cache.
_LUT_SIZE = 1024


def _lookup_table(anchors: Sequence[str]) -> np.ndarray:
    """`[1024, 3]` uint8 RGB, linear between evenly spaced anchor colours."""
    colours = np.array([[int(anchor[i : i + 2], 16) for i in (1, 3, 5)] for anchor in anchors])
    positions = np.linspace(0, len(anchors) - 1, _LUT_SIZE)
    channels = [np.interp(positions, np.arange(len(anchors)), colours[:, channel]) for channel in range(3)]
    return np.rint(np.stack(channels, axis=1)).astype(np.uint8)


# Far to near, and the same reversed for the kinds whose small values are near.
_NEAR_LAST = {name: _lookup_table(anchors) for name, anchors in _ANCHORS.items()}
_NEAR_FIRST = {name: np.ascontiguousarray(table[::-1]) for name, table in _NEAR_LAST.items()}


def colorize(values: np.ndarray, kind: str, cmap: str = "spectral") -> np.ndarray:
    """Colour depth; near is warm and bright for every kind.

    Args:
        values: Float `[H, W]` or `[T, H, W]` in [0, 1]; values outside take the end colours. Metric depth has to be
            brought to [0, 1] by the caller, with one range for the whole clip.
        kind: "disparity" (1 is near), "depth" or "metric" (0 is near).
        cmap: One of `COLOR_MAPS`.

    Returns:
        uint8 RGB, the shape of `values` and a last axis of 3.

    Raises:
        ValueError: The kind or the colour map is unknown, or the shape is neither `[H, W]` nor `[T, H, W]`.
    """
    if kind not in ("disparity", "depth", "metric"):
        raise ValueError(f"kind: {kind!r} is not one of disparity, depth, metric")
    if cmap not in COLOR_MAPS:
        raise ValueError(f"cmap: {cmap!r} is not one of {', '.join(COLOR_MAPS)}")
    if values.ndim not in (2, 3):
        raise ValueError(f"values: shape {values.shape} is neither [H, W] nor [T, H, W]")
    table = _NEAR_LAST[cmap] if kind == "disparity" else _NEAR_FIRST[cmap]
    if values.ndim == 3:
        out = np.empty((*values.shape, 3), np.uint8)
        for index, frame in enumerate(values):
            out[index] = _apply(table, frame)
        return out
    return _apply(table, values)


def _apply(table: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """`[H, W]` in [0, 1] through a `[1024, 3]` table."""
    position = np.clip(frame, 0, 1, dtype=np.float32)
    position *= _LUT_SIZE - 1
    position += 0.5  # round, as the cast below cuts
    return table.take(position.astype(np.uint16), axis=0)


def side_by_side(first: np.ndarray, *others: np.ndarray, max_width_each: int = 960) -> np.ndarray:
    """Pictures in a row, of one size and no wider than `max_width_each` each: the input, then what was made of it.

    Args:
        first: uint8 `[H, W, 3]`; decides the proportions.
        others: uint8 `[h, w, 3]`; resized to the first one's place, with black bars where their proportions are others.
        max_width_each: Width limit of each place, pixels, at least 2.

    Returns:
        uint8 `[h', n w', 3]`, h' and w' even (what H.264 in yuv420p needs). Frames above the limit are downscaled by
        area; an odd row or column of a frame that fits is cropped.

    Raises:
        ValueError: A frame is not uint8 `[H, W, 3]`, is smaller than 2x2, or the limit is below 2.
    """
    for number, picture in enumerate([first, *others]):
        _check_rgb(f"picture {number}", picture)
    if max_width_each < 2:
        raise ValueError(f"max_width_each: {max_width_each} must be at least 2")
    height, width = first.shape[:2]
    if height < 2 or width < 2:
        raise ValueError(f"picture 0: {width}x{height} is smaller than 2x2")
    out_width = _even(min(width, max_width_each))
    out_height = height - height % 2 if width <= max_width_each else _even(round(height * out_width / width))
    return np.concatenate([_placed(picture, out_height, out_width) for picture in [first, *others]], axis=1)


def shrink_to_width(rgb: np.ndarray, max_width: int) -> np.ndarray:
    """A picture no wider than `max_width`, downscaled by area; smaller ones as they are.

    Args:
        rgb: uint8 `[H, W, 3]`.
        max_width: Pixels, at least 1.

    Raises:
        ValueError: The picture is not uint8 `[H, W, 3]`, or the limit is below 1.
    """
    _check_rgb("rgb", rgb)
    if max_width < 1:
        raise ValueError(f"max_width: {max_width} must be at least 1")
    height, width = rgb.shape[:2]
    return rgb if width <= max_width else _fit(rgb, max(1, round(height * max_width / width)), max_width)


def contact_sheet(frames: Sequence[np.ndarray], columns: int) -> np.ndarray:
    """Frames of one size in rows, left to right and top to bottom; unused places stay black.

    Args:
        frames: uint8 `[H, W, 3]` each, at least one.
        columns: Frames per row, at least 1.

    Returns:
        uint8 `[rows * H, columns * W, 3]`.

    Raises:
        ValueError: No frames, frames of different sizes, or `columns` below 1.
    """
    if not frames:
        raise ValueError("frames: a contact sheet needs at least one frame")
    if columns < 1:
        raise ValueError(f"columns: {columns} must be at least 1")
    height, width = frames[0].shape[:2]
    rows = -(-len(frames) // columns)
    sheet = np.zeros((rows * height, columns * width, 3), np.uint8)
    for index, frame in enumerate(frames):
        _check_rgb(f"frames[{index}]", frame)
        if frame.shape != frames[0].shape:
            raise ValueError(f"frames[{index}] has shape {frame.shape}, frames[0] {frames[0].shape}: must be equal")
        top, left = index // columns * height, index % columns * width
        sheet[top : top + height, left : left + width] = frame
    return sheet


def _placed(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bring an image into a place, at its own proportions unless they differ by the rounding of a size alone."""
    stretch = (image.shape[1] / image.shape[0]) / (width / height)
    if 0.88 < stretch < 1.14:  # a side rounded to a multiple of 64 stretches small pictures so much
        return _fit(image, height, width)
    inner = (_even(round(height / stretch)), width) if stretch > 1 else (height, _even(round(width * stretch)))
    place = np.zeros((height, width, 3), np.uint8)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    place[top : top + inner[0], left : left + inner[1]] = _fit(image, *inner)
    return place


def _fit(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bring an image to a size: crop one odd line, average whole blocks where the factor is whole, else resample."""
    spare_rows, spare_columns = image.shape[0] - height, image.shape[1] - width
    if spare_rows in (0, 1) and spare_columns in (0, 1):
        return image[:height, :width]
    source = Image.fromarray(image)
    factor = image.shape[1] // width
    if factor > 1 and image.shape[:2] == (height * factor, width * factor):
        return np.asarray(source.reduce(factor))
    shrinks = spare_rows >= 0 and spare_columns >= 0
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    return np.asarray(source.resize((width, height), method))


def _even(size: int) -> int:
    return max(2, size - size % 2)


def _check_rgb(name: str, image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"{name}: {image.dtype} {image.shape} is not uint8 [H, W, 3]")
