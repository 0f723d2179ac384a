"""Depth-warped reprojection: every pixel's footprint is drawn where the new camera sees it, the nearest one wins.

A pixel is a small quad on its surface. Quads of one surface share their corners, so a slanted or magnified surface
shows no cracks; at a depth border they do not, so nothing is stretched across it and a hole opens instead. Planes are
linear in disparity over the picture, so slopes and corners are taken in disparity.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from novel_view.cameras import Camera

# Neighbours are of one surface if their disparities differ by no more than this share,
_SMOOTH = 0.03
# or if the step between them goes on like those on both sides of it, to this share of it: a slanted surface;
_SLANTED = 0.35
# of one side alone, at the rim of a surface, only steps up to this share: steeper ones are often chance.
_STEEP = 0.12
# Footprints are drawn this much larger on each side, pixels of the picture: rounding must not open cracks.
_OVERLAP = 2e-3
# Rows of the new picture that one thread draws at a time.
_BAND = 16


class Warped(NamedTuple):
    """A picture from a new camera.

    Attributes:
        rgb: uint8 `[H, W, 3]`; 0 in holes.
        depth: Planar depth `[H, W]` in the new camera, in the unit of the given depth; inf in holes.
        hole: bool `[H, W]`: what the source never saw.
    """

    rgb: np.ndarray
    depth: np.ndarray
    hole: np.ndarray


def warp(rgb: np.ndarray, depth: np.ndarray, source: Camera, target: Camera) -> Warped:
    """Show a frame from another camera. The same input gives the same bytes, whatever the number of threads.

    Args:
        rgb: uint8 `[H, W, 3]`.
        depth: Planar depth `[H, W]` of the source camera, above 0; inf is far away (sky), nan and others are left out.
        source: The camera of the frame.
        target: The new camera, of any size.

    Raises:
        ValueError: Shapes do not fit each other.
    """
    if rgb.shape != (source.height, source.width, 3) or rgb.dtype != np.uint8:
        raise ValueError(
            f"rgb: {rgb.dtype} {list(rgb.shape)} is not accepted; give uint8 [{source.height}, {source.width}, 3]"
        )
    if depth.shape != rgb.shape[:2]:
        raise ValueError(f"depth: shape {list(depth.shape)} differs from the picture's, {list(rgb.shape[:2])}")
    with np.errstate(divide="ignore", invalid="ignore"):
        disparity = np.where(depth > 0, 1 / depth.astype(np.float64), np.nan).astype(np.float32)
    # Pixel p of disparity d lies at K_t (R K_s^-1 p + t d) / d: homogeneous, so sky (d = 0) is no exception.
    target_from_source = np.linalg.inv(target.world_from_camera) @ source.world_from_camera
    turn = target.K @ target_from_source[:3, :3] @ np.linalg.inv(source.K)
    shift = target.K @ target_from_source[:3, 3]
    right, down = surface_links(disparity)
    extent = _row_extents(disparity, right, down, turn, shift)
    out_rgb = np.zeros((target.height, target.width, 3), dtype=np.uint8)
    nearness = np.full((target.height, target.width), -1.0, dtype=np.float32)
    _draw(rgb, disparity, right, down, turn, shift, extent, out_rgb, nearness)
    hole = nearness < 0
    with np.errstate(divide="ignore"):
        seen_depth = np.where(hole, np.inf, 1 / nearness)
    return Warped(out_rgb, seen_depth.astype(np.float32), hole)


@numba.njit(cache=True, parallel=True)
def surface_links(disparity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each pixel is of one surface with the next one to the right, and with the one below; bool `[H, W]`."""
    height, width = disparity.shape
    right = np.zeros((height, width), dtype=np.bool_)
    down = np.zeros((height, width), dtype=np.bool_)
    for line in numba.prange(height):
        y = np.int64(line)  # unsigned as it comes, and unsigned minus signed is a float
        for x in range(width):
            here = disparity[y, x]
            if x + 1 < width:
                before = disparity[y, x - 1] if x > 0 else np.float32(np.nan)
                after = disparity[y, x + 2] if x + 2 < width else np.float32(np.nan)
                right[y, x] = _linked(before, here, disparity[y, x + 1], after)
            if y + 1 < height:
                before = disparity[y - 1, x] if y > 0 else np.float32(np.nan)
                after = disparity[y + 2, x] if y + 2 < height else np.float32(np.nan)
                down[y, x] = _linked(before, here, disparity[y + 1, x], after)
    return right, down


@numba.njit(cache=True)
def _linked(before, here, there, after):
    """Whether two neighbours, with one more on either side, are of one surface."""
    step = there - here
    if np.isnan(step):
        return False
    if abs(step) <= _SMOOTH * max(here, there):
        return True
    if here == 0 or there == 0:  # the sky is no slope
        return False
    as_before = abs(step - (here - before)) <= _SLANTED * abs(step)  # False if before is nan
    as_after = abs(step - (after - there)) <= _SLANTED * abs(step)
    return (as_before and as_after) or ((as_before or as_after) and abs(step) <= _STEEP * max(here, there))


@numba.njit(cache=True)
def _corner_disparities(disparity, right, down, y, x, corners):
    """Disparity at a pixel's corners, row by row: the mean of the four around, or the pixel's own slope."""
    height, width = disparity.shape
    here = np.float64(disparity[y, x])
    has_left = x > 0 and bool(right[y, x - 1])
    has_right = bool(right[y, x])
    has_up = y > 0 and bool(down[y - 1, x])
    has_down = bool(down[y, x])
    slope_x, slope_y = 0.0, 0.0
    if has_left and has_right:
        slope_x = (disparity[y, x + 1] - disparity[y, x - 1]) / 2
    elif has_right:
        slope_x = disparity[y, x + 1] - here
    elif has_left:
        slope_x = here - disparity[y, x - 1]
    if has_up and has_down:
        slope_y = (disparity[y + 1, x] - disparity[y - 1, x]) / 2
    elif has_down:
        slope_y = disparity[y + 1, x] - here
    elif has_up:
        slope_y = here - disparity[y - 1, x]
    for number in range(4):
        side, above = number % 2, number // 2
        nx, ny = x + 2 * side - 1, y + 2 * above - 1
        links_x = has_right if side else has_left
        links_y = has_down if above else has_up
        if links_x and links_y and down[min(y, ny), nx] and right[ny, min(x, nx)]:
            total = here + disparity[y, nx] + disparity[ny, x] + disparity[ny, nx]
            corners[number] = total / 4
        else:
            corners[number] = max(here + (side - 0.5) * slope_x + (above - 0.5) * slope_y, 0.0)


@numba.njit(cache=True)
def _project_corners(disparity, right, down, y, x, turn, shift, corners, px, py, pd):
    """Where a pixel's corners fall in the new picture, and their disparity there; False if one is behind the camera."""
    _corner_disparities(disparity, right, down, y, x, corners)
    for number in range(4):
        u = x + number % 2 + (2 * (number % 2) - 1) * _OVERLAP
        v = y + number // 2 + (2 * (number // 2) - 1) * _OVERLAP
        d = corners[number]
        z = turn[2, 0] * u + turn[2, 1] * v + turn[2, 2] + shift[2] * d
        if z <= 1e-6:
            return False
        px[number] = (turn[0, 0] * u + turn[0, 1] * v + turn[0, 2] + shift[0] * d) / z
        py[number] = (turn[1, 0] * u + turn[1, 1] * v + turn[1, 2] + shift[1] * d) / z
        pd[number] = d / z  # depth in the new camera is z / d
    return True


@numba.njit(cache=True, parallel=True)
def _row_extents(disparity, right, down, turn, shift):
    """Lowest and highest place that each source row reaches in the new picture, `[H, 2]`."""
    height, width = disparity.shape
    extent = np.empty((height, 2))
    for line in numba.prange(height):
        y = np.int64(line)  # unsigned as it comes, and unsigned minus signed is a float
        corners, px, py, pd = np.empty(4), np.empty(4), np.empty(4), np.empty(4)
        low, high = np.inf, -np.inf
        for x in range(width):
            if np.isnan(disparity[y, x]):
                continue
            if _project_corners(disparity, right, down, y, x, turn, shift, corners, px, py, pd):
                for number in range(4):
                    low, high = min(low, py[number]), max(high, py[number])
        extent[y, 0], extent[y, 1] = low, high
    return extent


@numba.njit(cache=True, parallel=True)
def _draw(rgb, disparity, right, down, turn, shift, extent, out_rgb, nearness):
    """Draw all footprints, each band of rows by one thread; among equals the first in reading order wins."""
    height, width = disparity.shape
    new_height = out_rgb.shape[0]
    bands = (new_height + _BAND - 1) // _BAND
    for number_of_band in numba.prange(bands):
        band = np.int64(number_of_band)
        top, bottom = band * _BAND, min((band + 1) * _BAND, new_height)
        corners, px, py, pd = np.empty(4), np.empty(4), np.empty(4), np.empty(4)
        for y in range(height):
            if extent[y, 1] < top or extent[y, 0] > bottom:
                continue
            for x in range(width):
                if np.isnan(disparity[y, x]):
                    continue
                if not _project_corners(disparity, right, down, y, x, turn, shift, corners, px, py, pd):
                    continue
                # Corners 0 1 / 2 3: two triangles.
                _draw_triangle(0, 1, 2, rgb, right, down, y, x, px, py, pd, top, bottom, out_rgb, nearness)
                _draw_triangle(3, 2, 1, rgb, right, down, y, x, px, py, pd, top, bottom, out_rgb, nearness)


@numba.njit(cache=True)
def _draw_triangle(a, b, c, rgb, right, down, y, x, px, py, pd, top, bottom, out_rgb, nearness):
    """Draw half a footprint; a, b and c number its corners, b beside a and c below or above it."""
    width = out_rgb.shape[1]
    bx, by, cx, cy = px[b] - px[a], py[b] - py[a], px[c] - px[a], py[c] - py[a]
    area = bx * cy - by * cx
    if abs(area) < 1e-12:
        return
    low_y, high_y = min(py[a], py[b], py[c]), max(py[a], py[b], py[c])
    low_x, high_x = min(px[a], px[b], px[c]), max(px[a], px[b], px[c])
    first_row, last_row = max(top, int(np.ceil(low_y - 0.5))), min(bottom - 1, int(np.floor(high_y - 0.5)))
    first_column, last_column = max(0, int(np.ceil(low_x - 0.5))), min(width - 1, int(np.floor(high_x - 0.5)))
    for row in range(first_row, last_row + 1):
        for column in range(first_column, last_column + 1):
            dx, dy = column + 0.5 - px[a], row + 0.5 - py[a]
            s, t = (dx * cy - dy * cx) / area, (bx * dy - by * dx) / area
            if s < 0 or t < 0 or s + t > 1:
                continue
            d = pd[a] + s * (pd[b] - pd[a]) + t * (pd[c] - pd[a])
            if d <= nearness[row, column]:
                continue
            nearness[row, column] = d
            # Place within the source pixel, -0.5 to 0.5 from its centre.
            along, below = s - 0.5, t - 0.5
            if a == 3:
                along, below = -along, -below
            _sample(rgb, right, down, y, x, along, below, out_rgb, row, column)


@numba.njit(cache=True)
def _sample(rgb, right, down, y, x, along, below, out_rgb, row, column):
    """Bilinear colour of one surface: neighbours beyond a depth border count as the pixel itself."""
    height, width = right.shape
    nx, ny = x + (1 if along > 0 else -1), y + (1 if below > 0 else -1)
    links_x = 0 <= nx < width and right[y, min(x, nx)]
    links_y = 0 <= ny < height and down[min(y, ny), x]
    diagonal = links_x and links_y and down[min(y, ny), nx] and right[ny, min(x, nx)]
    wx, wy = abs(along), abs(below)
    for channel in range(3):
        here = np.float64(rgb[y, x, channel])
        beside = np.float64(rgb[y, nx, channel]) if links_x else here
        under = np.float64(rgb[ny, x, channel]) if links_y else here
        corner = np.float64(rgb[ny, nx, channel]) if diagonal else (beside + under) / 2
        value = (here * (1 - wx) + beside * wx) * (1 - wy) + (under * (1 - wx) + corner * wx) * wy
        out_rgb[row, column, channel] = np.uint8(value + 0.5)
