"""Depth borders moved to the picture's own borders, so that no rim of the foreground sticks to the background.

Estimated depth is soft: between a near thing and what lies behind it there are a few pixels of made-up depth, and the
border is a little off. Around such a place each pixel is given to the near or the far side by its colour.

Even where depth is right, a picture's edges are a mixture of both sides. Where a mixed pixel stays on the background, a
dotted outline of the thing is left behind when it moves aside; so it goes with the near side.
"""

from __future__ import annotations

import numba
import numpy as np

# A border is where disparity within the reach differs by more than this share of the larger one.
_BORDER = 0.12
_REACH = 4  # pixels; half of what a depth model blurs at its working size, once enlarged
_ROUNDS = 2  # the second round works on the first one's sides, which are cleaner
_SAME_COLOR = 300.0  # squared difference of colours that say nothing, 0 to 255: about 10 in each channel
_MIXED_PX = 2  # rings of mixed pixels around a near thing: antialiasing makes one, a lens or a codec another
_SIDE_PX = 2  # pixels around a mixed one, beyond those rings, that tell the colours of the two sides
_LEAST_SHARE = 0.06  # of the near colour in a mixed pixel; less is not seen
_OFF_LINE = 0.15  # how far a mixture lies beside the line between both colours, as a share of their difference


def sharpen_borders(depth: np.ndarray, rgb: np.ndarray, reach: int = _REACH) -> np.ndarray:
    """Depth whose borders lie on the picture's.

    Args:
        depth: Planar depth `[H, W]`, above 0; inf is far away, nan unknown (kept).
        rgb: uint8 `[H, W, 3]`.
        reach: Pixels around a border that are decided anew.

    Returns:
        float32 `[H, W]`; away from borders the very values given.
    """
    with np.errstate(divide="ignore"):
        disparity = (1 / depth.astype(np.float64)).astype(np.float32)
    sharp = disparity
    for _ in range(_ROUNDS):
        sharp = _decide(sharp, np.ascontiguousarray(rgb), reach)
    with np.errstate(divide="ignore"):
        moved = (1 / sharp.astype(np.float64)).astype(np.float32)
    return np.where(sharp == disparity, depth, moved).astype(np.float32)


def give_mixed_to_near(depth: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    """Depth in which pixels that mix a near thing with what lies behind it belong to the near thing.

    Args:
        depth: Planar depth `[H, W]`, above 0, its borders at the picture's; inf is far away, nan unknown (kept).
        rgb: uint8 `[H, W, 3]`.

    Returns:
        float32 `[H, W]`; the very values given but for mixed pixels.
    """
    with np.errstate(divide="ignore"):
        disparity = (1 / depth.astype(np.float64)).astype(np.float32)
    colors, given = np.ascontiguousarray(rgb), disparity
    for _ in range(_MIXED_PX):
        disparity = _widen(disparity, given, colors)
    with np.errstate(divide="ignore"):
        moved = (1 / disparity.astype(np.float64)).astype(np.float32)
    return np.where(disparity == given, depth, moved).astype(np.float32)


@numba.njit(cache=True, parallel=True)
def _widen(disparity, given, rgb):
    """One ring more for near things: the pixels next to them whose colour is a mixture of both sides."""
    height, width = disparity.shape
    out = disparity.copy()
    reach = _MIXED_PX + _SIDE_PX
    for line in numba.prange(height):
        y = np.int64(line)
        near_color, far_color = np.empty(3), np.empty(3)
        for x in range(width):
            here = disparity[y, x]
            if np.isnan(here):
                continue
            nearest = here
            for ny in range(max(0, y - 1), min(height, y + 2)):
                for nx in range(max(0, x - 1), min(width, x + 2)):
                    nearest = max(nearest, disparity[ny, nx])  # nan is never the larger
            if nearest - here <= _BORDER * nearest:
                continue
            # Both colours from where the sides are pure: not next to the border that was given.
            near_from = nearest - (nearest - here) / 3
            far_to = here + (nearest - here) / 3
            near_color[:], far_color[:] = 0, 0
            near_count, far_count = 0, 0
            for ny in range(max(0, y - reach), min(height, y + reach + 1)):
                for nx in range(max(0, x - reach), min(width, x + reach + 1)):
                    value = given[ny, nx]
                    is_near, is_far = value >= near_from, value <= far_to
                    if not (is_near or is_far):
                        continue
                    margin = 1 if is_near else _MIXED_PX
                    pure = True
                    for my in range(max(0, ny - margin), min(height, ny + margin + 1)):
                        for mx in range(max(0, nx - margin), min(width, nx + margin + 1)):
                            pure &= given[my, mx] >= near_from if is_near else given[my, mx] <= far_to
                    if not pure:
                        continue
                    if is_near:
                        near_count += 1
                        for channel in range(3):
                            near_color[channel] += rgb[ny, nx, channel]
                    else:
                        far_count += 1
                        for channel in range(3):
                            far_color[channel] += rgb[ny, nx, channel]
            if near_count == 0 or far_count == 0:
                continue
            apart, along = 0.0, 0.0
            for channel in range(3):
                step = near_color[channel] / near_count - far_color[channel] / far_count
                apart += step * step
                along += step * (rgb[y, x, channel] - far_color[channel] / far_count)
            if apart < _SAME_COLOR:
                continue
            share = along / apart
            beside = 0.0
            for channel in range(3):
                far_mean = far_color[channel] / far_count
                mixture = far_mean + share * (near_color[channel] / near_count - far_mean)
                beside += (rgb[y, x, channel] - mixture) ** 2
            if share > _LEAST_SHARE and beside <= _OFF_LINE * _OFF_LINE * apart:
                out[y, x] = nearest
    return out


@numba.njit(cache=True, parallel=True)
def _extremes(disparity, reach):
    """Smallest and largest disparity within reach of each pixel, nan left out."""
    height, width = disparity.shape
    low_rows, high_rows = np.empty_like(disparity), np.empty_like(disparity)
    for line in numba.prange(height):
        y = np.int64(line)
        for x in range(width):
            low, high = np.float32(np.inf), np.float32(-np.inf)
            for nx in range(max(0, x - reach), min(width, x + reach + 1)):
                value = disparity[y, nx]
                if value < low:
                    low = value
                if value > high:
                    high = value
            low_rows[y, x], high_rows[y, x] = low, high
    low_out, high_out = np.empty_like(disparity), np.empty_like(disparity)
    for line in numba.prange(height):
        y = np.int64(line)
        for x in range(width):
            low, high = np.float32(np.inf), np.float32(-np.inf)
            for ny in range(max(0, y - reach), min(height, y + reach + 1)):
                low, high = min(low, low_rows[ny, x]), max(high, high_rows[ny, x])
            low_out[y, x], high_out[y, x] = low, high
    return low_out, high_out


@numba.njit(cache=True, parallel=True)
def _decide(disparity, rgb, reach):
    """Give each pixel near a border the disparity of the side that it looks like."""
    height, width = disparity.shape
    low, high = _extremes(disparity, reach)
    out = disparity.copy()
    for line in numba.prange(height):
        y = np.int64(line)
        near_color, far_color = np.empty(3), np.empty(3)
        for x in range(width):
            if np.isnan(disparity[y, x]) or high[y, x] - low[y, x] <= _BORDER * high[y, x]:
                continue
            span = high[y, x] - low[y, x]
            # The outer thirds are the two sides; what lies between may be made up.
            near_from, far_to = high[y, x] - span / 3, low[y, x] + span / 3
            near_color[:], far_color[:] = 0, 0
            near_weight, far_weight, near_disparity, far_disparity = 0.0, 0.0, 0.0, 0.0
            for ny in range(max(0, y - reach), min(height, y + reach + 1)):
                for nx in range(max(0, x - reach), min(width, x + reach + 1)):
                    value = disparity[ny, nx]
                    is_near, is_far = value >= near_from, value <= far_to
                    if not (is_near or is_far):
                        continue
                    weight = 1.0 / (1 + (ny - y) ** 2 + (nx - x) ** 2)
                    if is_near:
                        near_weight += weight
                        near_disparity += weight * value
                        for channel in range(3):
                            near_color[channel] += weight * rgb[ny, nx, channel]
                    else:
                        far_weight += weight
                        far_disparity += weight * value
                        for channel in range(3):
                            far_color[channel] += weight * rgb[ny, nx, channel]
            if near_weight == 0 or far_weight == 0:
                continue
            to_near, to_far, apart = 0.0, 0.0, 0.0
            for channel in range(3):
                near_mean, far_mean = near_color[channel] / near_weight, far_color[channel] / far_weight
                to_near += (rgb[y, x, channel] - near_mean) ** 2
                to_far += (rgb[y, x, channel] - far_mean) ** 2
                apart += (near_mean - far_mean) ** 2
            between = disparity[y, x] < near_from and disparity[y, x] > far_to
            # Sides of one colour say nothing: only made-up depth is decided then, by the nearer value.
            if apart < _SAME_COLOR:
                if between:
                    nearer = disparity[y, x] - far_to > near_from - disparity[y, x]
                    out[y, x] = near_disparity / near_weight if nearer else far_disparity / far_weight
                continue
            looks_near = to_near < to_far
            # A pixel of a clear side changes it only if its colour is clearly the other's.
            if looks_near and (between or (disparity[y, x] <= far_to and to_near * 4 < to_far)):
                out[y, x] = near_disparity / near_weight
            elif not looks_near and (between or (disparity[y, x] >= near_from and to_far * 4 < to_near)):
                out[y, x] = far_disparity / far_weight
    return out
