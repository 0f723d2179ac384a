"""Depth-warped reprojection: every pixel's footprint is drawn where the new camera sees it, the nearest one wins.

A pixel is a small quad on its surface. Quads of one surface share their corners, so a slanted or magnified surface
shows no cracks; at a depth border they do not, so nothing is stretched across it and a hole opens instead. Planes are
linear in disparity over the picture, so slopes and corners are taken in disparity.

Drawing keeps only the nearest surface and which pixel it is of; colours are looked up once, at the end.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from novel_view.cameras import Camera

# Neighbours are of one surface if their disparities differ by no more than this share,
_SMOOTH = np.float32(0.03)
# or if the step between them goes on like those on both sides of it, to this share of it: a slanted surface;
_SLANTED = np.float32(0.35)
# of one side alone, at the rim of a surface, only steps up to this share: steeper ones are often chance.
_STEEP = np.float32(0.12)
# Footprints are drawn this much larger on each side, pixels of the new picture: rounding must not open cracks.
_OVERLAP = np.float32(2e-3)
_HALF, _QUARTER, _ONE, _ZERO = np.float32(0.5), np.float32(0.25), np.float32(1), np.float32(0)
_BEHIND = np.float32(1e-6)  # z of points that are not before the camera
_FLAT = np.float32(1e-9)  # area of a triangle, square pixels, that covers nothing
# A source pixel's row and column in one number; 32,767 rows are more than any picture has.
_PLACE_BITS, _PLACE_MASK = 16, 0xFFFF

# Without checks for division by zero; results are the same on every machine of one kind, whatever its threads.
_fast = numba.njit(cache=True, error_model="numpy")
_fast_parallel = numba.njit(cache=True, error_model="numpy", parallel=True)


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


def warp(
    rgb: np.ndarray, depth: np.ndarray, source: Camera, target: Camera, *, antialias: bool = False, device: str = "cpu"
) -> Warped:
    """Show a frame from another camera. The same input gives the same bytes, whatever the number of threads.

    Args:
        rgb: uint8 `[H, W, 3]`.
        depth: Planar depth `[H, W]` of the source camera, above 0; inf is far away (sky), nan and others are left out.
        source: The camera of the frame.
        target: The new camera, of any size.
        antialias: Blend the surfaces that meet in a pixel by how much of it each covers, from 2x2 samples. Pixels of
            one surface are the same with and without.
        device: `cpu` runs compiled loops; any other is torch's: `cuda`, `cuda:1`. Between them rounding may differ.

    Raises:
        ValueError: Shapes do not fit each other.
    """
    if rgb.shape != (source.height, source.width, 3) or rgb.dtype != np.uint8:
        raise ValueError(
            f"rgb: {rgb.dtype} {list(rgb.shape)} is not accepted; give uint8 [{source.height}, {source.width}, 3]"
        )
    if depth.shape != rgb.shape[:2]:
        raise ValueError(f"depth: shape {list(depth.shape)} differs from the picture's, {list(rgb.shape[:2])}")
    # Pixel p of disparity d lies at K_t (R K_s^-1 p + t d) / d: homogeneous, so sky (d = 0) is no exception.
    target_from_source = np.linalg.inv(target.world_from_camera) @ source.world_from_camera
    turn = target.K @ target_from_source[:3, :3] @ np.linalg.inv(source.K)
    shift = target.K @ target_from_source[:3, 3]
    forward = np.column_stack([turn, shift]).astype(np.float32)
    # Back again: pixel q of disparity e in the new picture lies at turn^-1 (q - shift e), up to scale.
    inverse = np.linalg.inv(turn)
    backward = np.column_stack([inverse, -inverse @ shift]).astype(np.float32)
    rgb = np.ascontiguousarray(rgb)
    if device != "cpu":
        from novel_view.warp_torch import warp_on

        return Warped(*warp_on(device, rgb, depth, forward, backward, target.height, target.width, antialias))
    disparity = _invert(np.ascontiguousarray(depth, np.float32))
    right, down = surface_links(disparity)
    drawn = _nearest_surfaces(disparity, right, down, forward, target.height, target.width)
    seen = Warped(*_look_up(rgb, right, down, backward, *drawn))
    if antialias:
        fine = np.diag([2, 2, 1]).astype(np.float32) @ forward
        samples = _nearest_surfaces(disparity, right, down, fine, 2 * target.height, 2 * target.width)
        _blend(rgb, right, down, backward, *samples, seen.hole, seen.rgb)
    return seen


def _nearest_surfaces(
    disparity: np.ndarray, right: np.ndarray, down: np.ndarray, forward: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """For each thread, the largest disparity at every pixel of the new picture (-1: none), and whose it is."""
    corners = _project_corners(disparity, right, down, forward)
    nearness = np.empty((numba.get_num_threads(), height, width), np.float32)
    pixel = np.empty(nearness.shape, np.int32)
    _draw(disparity, right, down, forward, *corners, nearness, pixel)
    return nearness, pixel


@_fast_parallel
def _invert(depth):
    """Disparity of depth: 0 of the sky, nan where depth is unknown."""
    height, width = depth.shape
    disparity = np.empty((height, width), np.float32)
    for line in numba.prange(height):
        y = np.int64(line)  # unsigned as it comes, and unsigned minus signed is a float
        for x in range(width):
            value = depth[y, x]
            disparity[y, x] = _ONE / value if value > _ZERO else np.float32(np.nan)
    return disparity


@_fast_parallel
def surface_links(disparity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each pixel is of one surface with the next one to the right, and with the one below; bool `[H, W]`."""
    height, width = disparity.shape
    right = np.zeros((height, width), dtype=np.bool_)
    down = np.zeros((height, width), dtype=np.bool_)
    for line in numba.prange(height):
        y = np.int64(line)
        for x in range(width - 1):
            here, there = disparity[y, x], disparity[y, x + 1]
            # False for nan
            right[y, x] = abs(there - here) <= _SMOOTH * max(here, there)
        if y + 1 < height:
            for x in range(width):
                here, there = disparity[y, x], disparity[y + 1, x]
                down[y, x] = abs(there - here) <= _SMOOTH * max(here, there)
        # Steeper steps are rare, and a matter of what lies around.
        for x in range(width):
            here = disparity[y, x]
            if x + 1 < width and not right[y, x]:
                before = disparity[y, x - 1] if x > 0 else np.float32(np.nan)
                after = disparity[y, x + 2] if x + 2 < width else np.float32(np.nan)
                right[y, x] = _slanted(before, here, disparity[y, x + 1], after)
            if y + 1 < height and not down[y, x]:
                before = disparity[y - 1, x] if y > 0 else np.float32(np.nan)
                after = disparity[y + 2, x] if y + 2 < height else np.float32(np.nan)
                down[y, x] = _slanted(before, here, disparity[y + 1, x], after)
    return right, down


@_fast
def _slanted(before, here, there, after):
    """Whether a step between two neighbours is a slope's, by one more neighbour on either side."""
    step = there - here
    if np.isnan(step) or here == _ZERO or there == _ZERO:  # the sky is no slope
        return False
    as_before = abs(step - (here - before)) <= _SLANTED * abs(step)  # False if before is nan
    as_after = abs(step - (after - there)) <= _SLANTED * abs(step)
    return (as_before and as_after) or ((as_before or as_after) and abs(step) <= _STEEP * max(here, there))


@_fast_parallel
def _project_corners(disparity, right, down, forward):
    """Corners that four pixels of one surface share, in the new picture: x, y, disparity, `[H + 1, W + 1]`.

    x is nan where they do not share one, or it is behind the camera.
    """
    height, width = disparity.shape
    px = np.full((height + 1, width + 1), np.float32(np.nan), np.float32)
    py = np.empty((height + 1, width + 1), np.float32)
    pd = np.empty((height + 1, width + 1), np.float32)
    for line in numba.prange(height - 1):
        y = np.int64(line) + 1
        for x in range(1, width):
            d = (disparity[y - 1, x - 1] + disparity[y - 1, x] + disparity[y, x - 1] + disparity[y, x]) * _QUARTER
            u, v = np.float32(x), np.float32(y)
            z = forward[2, 0] * u + forward[2, 1] * v + forward[2, 2] + forward[2, 3] * d
            scale = _ONE / z
            shared = (right[y - 1, x - 1] & right[y, x - 1] & down[y - 1, x - 1] & down[y - 1, x]) and z > _BEHIND
            column = (forward[0, 0] * u + forward[0, 1] * v + forward[0, 2] + forward[0, 3] * d) * scale
            px[y, x] = column if shared else np.float32(np.nan)
            py[y, x] = (forward[1, 0] * u + forward[1, 1] * v + forward[1, 2] + forward[1, 3] * d) * scale
            pd[y, x] = d * scale  # depth in the new camera is z / d
    return px, py, pd


@_fast
def _own_corner(disparity, right, down, forward, y, x, side, below, out):
    """A corner that a pixel does not share, by its own slope; False if it is behind the camera."""
    height, width = disparity.shape
    here = disparity[y, x]
    has_left = x > 0 and right[y, x - 1]
    has_right = right[y, x]
    has_up = y > 0 and down[y - 1, x]
    has_down = down[y, x]
    slope_x, slope_y = _ZERO, _ZERO
    if has_left and has_right:
        slope_x = (disparity[y, x + 1] - disparity[y, x - 1]) * _HALF
    elif has_right:
        slope_x = disparity[y, x + 1] - here
    elif has_left:
        slope_x = here - disparity[y, x - 1]
    if has_up and has_down:
        slope_y = (disparity[y + 1, x] - disparity[y - 1, x]) * _HALF
    elif has_down:
        slope_y = disparity[y + 1, x] - here
    elif has_up:
        slope_y = here - disparity[y - 1, x]
    d = max(here + (np.float32(side) - _HALF) * slope_x + (np.float32(below) - _HALF) * slope_y, _ZERO)
    u, v = np.float32(x + side), np.float32(y + below)
    z = forward[2, 0] * u + forward[2, 1] * v + forward[2, 2] + forward[2, 3] * d
    if z <= _BEHIND:
        return False
    out[0] = (forward[0, 0] * u + forward[0, 1] * v + forward[0, 2] + forward[0, 3] * d) / z
    out[1] = (forward[1, 0] * u + forward[1, 1] * v + forward[1, 2] + forward[1, 3] * d) / z
    out[2] = d / z
    return True


@_fast_parallel
def _draw(disparity, right, down, forward, px, py, pd, nearness, pixel):
    """Draw all footprints; each thread has a part of the source's rows and a picture of its own.

    Among equally near ones the first in reading order wins, here and when the pictures are put together: so the number
    of threads changes nothing.
    """
    height, width = disparity.shape
    chunks, new_height, new_width = nearness.shape
    for number in numba.prange(chunks):
        chunk = np.int64(number)
        near, owner = nearness[chunk], pixel[chunk]
        near[:] = np.float32(-1)
        corner = np.empty((4, 3), np.float32)
        for y in range(height * chunk // chunks, height * (chunk + 1) // chunks):
            for x in range(width):
                x0, x1, x2, x3 = px[y, x], px[y, x + 1], px[y + 1, x], px[y + 1, x + 1]
                whole = x0 + x1 + x2 + x3
                if whole == whole:
                    y0, y1, y2, y3 = py[y, x], py[y, x + 1], py[y + 1, x], py[y + 1, x + 1]
                    d0, d1, d2, d3 = pd[y, x], pd[y, x + 1], pd[y + 1, x], pd[y + 1, x + 1]
                else:
                    if np.isnan(disparity[y, x]):
                        continue
                    before = True
                    for place in range(4):
                        side, below = place % 2, place // 2
                        if np.isnan(px[y + below, x + side]):
                            before &= _own_corner(disparity, right, down, forward, y, x, side, below, corner[place])
                        else:
                            corner[place, 0] = px[y + below, x + side]
                            corner[place, 1] = py[y + below, x + side]
                            corner[place, 2] = pd[y + below, x + side]
                    if not before:
                        continue
                    x0, x1, x2, x3 = corner[0, 0], corner[1, 0], corner[2, 0], corner[3, 0]
                    y0, y1, y2, y3 = corner[0, 1], corner[1, 1], corner[2, 1], corner[3, 1]
                    d0, d1, d2, d3 = corner[0, 2], corner[1, 2], corner[2, 2], corner[3, 2]
                low_y, high_y = min(min(y0, y1), min(y2, y3)), max(max(y0, y1), max(y2, y3))
                low_x, high_x = min(min(x0, x1), min(x2, x3)), max(max(x0, x1), max(x2, x3))
                first_row = max(0, int(np.ceil(low_y - _HALF - _OVERLAP)))
                last_row = min(new_height - 1, int(np.floor(high_y - _HALF + _OVERLAP)))
                first_column = max(0, int(np.ceil(low_x - _HALF - _OVERLAP)))
                last_column = min(new_width - 1, int(np.floor(high_x - _HALF + _OVERLAP)))
                if first_row > last_row or first_column > last_column:
                    continue
                # Two triangles, 0 1 2 and 3 2 1: a point is at s, t along the sides that meet in 0, or in 3.
                ax, ay, bx, by = x1 - x0, y1 - y0, x2 - x0, y2 - y0
                cx, cy, ex, ey = x2 - x3, y2 - y3, x1 - x3, y1 - y3
                upper, lower = ax * by - ay * bx, cx * ey - cy * ex
                upper_scale = _ONE / upper if abs(upper) > _FLAT else _ZERO
                lower_scale = _ONE / lower if abs(lower) > _FLAT else _ZERO
                # The overlap in shares of the sides.
                slack = _OVERLAP
                for row in range(first_row, last_row + 1):
                    v = np.float32(row) + _HALF
                    for column in range(first_column, last_column + 1):
                        u = np.float32(column) + _HALF
                        dx, dy = u - x0, v - y0
                        s = (dx * by - dy * bx) * upper_scale
                        t = (ax * dy - ay * dx) * upper_scale
                        if upper_scale != _ZERO and s >= -slack and t >= -slack and s + t <= _ONE + slack:
                            d = d0 + s * (d1 - d0) + t * (d2 - d0)
                        else:
                            dx, dy = u - x3, v - y3
                            s = (dx * ey - dy * ex) * lower_scale
                            t = (cx * dy - cy * dx) * lower_scale
                            if lower_scale == _ZERO or s < -slack or t < -slack or s + t > _ONE + slack:
                                continue
                            d = d3 + s * (d2 - d3) + t * (d1 - d3)
                        if d > near[row, column]:
                            near[row, column] = d
                            owner[row, column] = (y << _PLACE_BITS) | x


@_fast
def _nearest(nearness, pixel, row, column):
    """The nearest of the threads' pictures at a place: its disparity, and the source's pixel."""
    best, owner = nearness[0, row, column], pixel[0, row, column]
    for chunk in range(1, len(nearness)):
        if nearness[chunk, row, column] > best:
            best, owner = nearness[chunk, row, column], pixel[chunk, row, column]
    return best, owner


@_fast_parallel
def _look_up(rgb, right, down, backward, nearness, pixel):
    """Put the threads' pictures together and look up the colours: picture, depth, holes."""
    _, new_height, new_width = nearness.shape
    out_rgb = np.zeros((new_height, new_width, 3), np.uint8)
    out_depth = np.empty((new_height, new_width), np.float32)
    hole = np.zeros((new_height, new_width), np.bool_)
    for line in numba.prange(new_height):
        row = np.int64(line)
        for column in range(new_width):
            best, owner = _nearest(nearness, pixel, row, column)
            if best < _ZERO:
                hole[row, column] = True
                out_depth[row, column] = np.float32(np.inf)
                continue
            out_depth[row, column] = _ONE / best
            u, v = np.float32(column) + _HALF, np.float32(row) + _HALF
            red, green, blue = _color(rgb, right, down, backward, u, v, best, owner)
            out_rgb[row, column, 0] = np.uint8(np.int32(red + _HALF))
            out_rgb[row, column, 1] = np.uint8(np.int32(green + _HALF))
            out_rgb[row, column, 2] = np.uint8(np.int32(blue + _HALF))
    return out_rgb, out_depth, hole


@_fast_parallel
def _blend(rgb, right, down, backward, nearness, pixel, hole, out_rgb):
    """Where surfaces meet in a pixel, the mean of what its 2x2 samples show."""
    height, width = hole.shape
    for line in numba.prange(height):
        row = np.int64(line)
        for column in range(width):
            if hole[row, column]:
                continue
            low, high, seen, first, one_pixel = np.float32(np.inf), _ZERO, 0, np.int32(-1), True
            for sample in range(4):
                d, of = _nearest(nearness, pixel, 2 * row + sample // 2, 2 * column + sample % 2)
                if d >= _ZERO:
                    low, high, seen = min(low, d), max(high, d), seen + 1
                    one_pixel = one_pixel and (first == -1 or first == of)
                    first = of
            if one_pixel or high - low <= _SMOOTH * high:
                continue
            red, green, blue = _ZERO, _ZERO, _ZERO
            share = _ONE / np.float32(seen)
            for sample in range(4):
                d, of = _nearest(nearness, pixel, 2 * row + sample // 2, 2 * column + sample % 2)
                if d < _ZERO:
                    continue
                u = np.float32(column) + _QUARTER + _HALF * np.float32(sample % 2)
                v = np.float32(row) + _QUARTER + _HALF * np.float32(sample // 2)
                more_red, more_green, more_blue = _color(rgb, right, down, backward, u, v, d, of)
                red, green, blue = red + share * more_red, green + share * more_green, blue + share * more_blue
            out_rgb[row, column, 0] = np.uint8(np.int32(red + _HALF))
            out_rgb[row, column, 1] = np.uint8(np.int32(green + _HALF))
            out_rgb[row, column, 2] = np.uint8(np.int32(blue + _HALF))


@_fast
def _color(rgb, right, down, backward, u, v, d, owner):
    """Colour of a place u, v in the new picture that shows disparity d of a source pixel.

    Bilinear, of one surface: neighbours beyond a depth border count as the pixel itself.
    """
    height, width = right.shape
    y, x = np.int64(owner >> _PLACE_BITS), np.int64(owner & _PLACE_MASK)
    # Where in the source this is, from the pixel's centre; at most half a pixel off, up to rounding.
    w = backward[2, 0] * u + backward[2, 1] * v + backward[2, 2] + backward[2, 3] * d
    at_x = (backward[0, 0] * u + backward[0, 1] * v + backward[0, 2] + backward[0, 3] * d) / w
    at_y = (backward[1, 0] * u + backward[1, 1] * v + backward[1, 2] + backward[1, 3] * d) / w
    along = min(max(at_x - np.float32(x) - _HALF, -_HALF), _HALF)
    beneath = min(max(at_y - np.float32(y) - _HALF, -_HALF), _HALF)
    nx, ny = x + (1 if along > _ZERO else -1), y + (1 if beneath > _ZERO else -1)
    links_x = 0 <= nx < width and right[y, min(x, nx)]
    links_y = 0 <= ny < height and down[min(y, ny), x]
    diagonal = links_x and links_y and down[min(y, ny), nx] and right[ny, min(x, nx)]
    nx, ny = nx if links_x else x, ny if links_y else y
    wx, wy = abs(along), abs(beneath)
    here, beside, under, across = (_ONE - wx) * (_ONE - wy), wx * (_ONE - wy), (_ONE - wx) * wy, wx * wy
    if not diagonal:
        beside, under, across = beside + _HALF * across, under + _HALF * across, _ZERO
    red = here * np.float32(rgb[y, x, 0]) + beside * np.float32(rgb[y, nx, 0])
    red += under * np.float32(rgb[ny, x, 0]) + across * np.float32(rgb[ny, nx, 0])
    green = here * np.float32(rgb[y, x, 1]) + beside * np.float32(rgb[y, nx, 1])
    green += under * np.float32(rgb[ny, x, 1]) + across * np.float32(rgb[ny, nx, 1])
    blue = here * np.float32(rgb[y, x, 2]) + beside * np.float32(rgb[y, nx, 2])
    blue += under * np.float32(rgb[ny, x, 2]) + across * np.float32(rgb[ny, nx, 2])
    return red, green, blue
