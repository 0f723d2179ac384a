"""Reprojection in compiled loops, for the CPU.

Drawing keeps only the nearest surface and which pixel it is of; colours are looked up once, at the end.
"""

from __future__ import annotations

import numba
import numpy as np

# `reproject_torch` works by these six too.
# Neighbours are of one surface if their disparities differ by no more than this share,
SMOOTH = np.float32(0.03)
# or if the step between them goes on like those on both sides of it, to this share of it: a slanted surface;
SLANTED = np.float32(0.35)
# of one side alone, at the rim of a surface, only steps up to this share: steeper ones are often chance.
STEEP = np.float32(0.12)
# Footprints are drawn this much larger on each side, pixels of the new picture: rounding must not open cracks.
OVERLAP = np.float32(2e-3)
_HALF, _QUARTER, _ONE, _ZERO = np.float32(0.5), np.float32(0.25), np.float32(1), np.float32(0)
BEHIND = np.float32(1e-6)  # z of points that are not before the camera
FLAT = np.float32(1e-9)  # area of a triangle, square pixels, that covers nothing
# A source pixel's row and column in one number; 32,767 rows are more than any picture has.
_PLACE_BITS, _PLACE_MASK = 16, 0xFFFF
# Source pixels packed into one integer each, so that one multiplication weighs all three channels: 20 bits a channel
# hold 255 times a weight of 12 bits. Above them stand the links to the pixel on the right, to the one below, and
# whether these three and the one across are all of one surface.
_WEIGHT_BITS, _CHANNEL_BITS = 12, 20
_WHOLE, _CHANNEL_MASK = 1 << _WEIGHT_BITS, (1 << _CHANNEL_BITS) - 1
_COLORS_MASK = (1 << 3 * _CHANNEL_BITS) - 1
_RIGHT, _DOWN, _BLOCK = (1 << 3 * _CHANNEL_BITS + number for number in range(3))

# Without checks for division by zero; results are the same on every machine of one kind, whatever its threads.
_fast = numba.njit(cache=True, error_model="numpy")
_fast_parallel = numba.njit(cache=True, error_model="numpy", parallel=True)


def warp_in_loops(
    rgb: np.ndarray,
    depth: np.ndarray,
    forward: np.ndarray,
    backward: np.ndarray,
    size: tuple[int, int],
    antialias: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Picture, depth and holes of the new view.

    Args:
        rgb: uint8 `[H, W, 3]`, contiguous.
        depth: Planar depth `[H, W]`, as `warp` takes it.
        forward: float32 `[3, 4]`: (x, y, 1, disparity) of the source to homogeneous pixels of the new picture.
        backward: float32 `[3, 4]`: the way back.
        size: Height and width of the new picture.
        antialias: Blend the surfaces that meet in a pixel.
    """
    disparity = _invert(np.ascontiguousarray(depth, np.float32))
    links = surface_links(disparity)
    drawn = _nearest_surfaces(disparity, links, forward, size)
    packed = _pack(rgb, *links)
    seen, new_depth, hole = _look_up(packed, backward, *drawn)
    if antialias:
        fine = np.diag([2, 2, 1]).astype(np.float32) @ forward
        samples = _nearest_surfaces(disparity, links, fine, (2 * size[0], 2 * size[1]))
        _blend(packed, backward, *samples, hole, seen)
    return seen, new_depth, hole


def _nearest_surfaces(
    disparity: np.ndarray, links: tuple[np.ndarray, np.ndarray], forward: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """For each thread, the largest disparity at every pixel of the new picture (-1: none), and whose it is."""
    corners = _project_corners(disparity, *links, forward)
    nearness = np.empty((numba.get_num_threads(), *size), np.float32)
    pixel = np.empty(nearness.shape, np.int32)
    _draw(disparity, links, forward, corners, nearness, pixel)
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
            right[y, x] = abs(there - here) <= SMOOTH * max(here, there)
        if y + 1 < height:
            for x in range(width):
                here, there = disparity[y, x], disparity[y + 1, x]
                down[y, x] = abs(there - here) <= SMOOTH * max(here, there)
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
    as_before = abs(step - (here - before)) <= SLANTED * abs(step)  # False if before is nan
    as_after = abs(step - (after - there)) <= SLANTED * abs(step)
    return (as_before and as_after) or ((as_before or as_after) and abs(step) <= STEEP * max(here, there))


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
            shared = (right[y - 1, x - 1] & right[y, x - 1] & down[y - 1, x - 1] & down[y - 1, x]) and z > BEHIND
            column = (forward[0, 0] * u + forward[0, 1] * v + forward[0, 2] + forward[0, 3] * d) * scale
            px[y, x] = column if shared else np.float32(np.nan)
            py[y, x] = (forward[1, 0] * u + forward[1, 1] * v + forward[1, 2] + forward[1, 3] * d) * scale
            pd[y, x] = d * scale  # depth in the new camera is z / d
    return px, py, pd


@_fast
def _own_corner(disparity, links, forward, y, x, side, below, out):
    """A corner that a pixel does not share, by its own slope; False if it is behind the camera."""
    right, down = links
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
    if z <= BEHIND:
        return False
    out[0] = (forward[0, 0] * u + forward[0, 1] * v + forward[0, 2] + forward[0, 3] * d) / z
    out[1] = (forward[1, 0] * u + forward[1, 1] * v + forward[1, 2] + forward[1, 3] * d) / z
    out[2] = d / z
    return True


@_fast_parallel
def _draw(disparity, links, forward, corners, nearness, pixel):
    """Draw all footprints; each thread has a part of the source's rows and a picture of its own.

    Among equally near ones the first in reading order wins, here and when the pictures are put together: so the number
    of threads changes nothing.
    """
    px, py, pd = corners
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
                            before &= _own_corner(disparity, links, forward, y, x, side, below, corner[place])
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
                first_row = max(0, int(np.ceil(low_y - _HALF - OVERLAP)))
                last_row = min(new_height - 1, int(np.floor(high_y - _HALF + OVERLAP)))
                first_column = max(0, int(np.ceil(low_x - _HALF - OVERLAP)))
                last_column = min(new_width - 1, int(np.floor(high_x - _HALF + OVERLAP)))
                if first_row > last_row or first_column > last_column:
                    continue
                # Two triangles, 0 1 2 and 3 2 1: a point is at s, t along the sides that meet in 0, or in 3.
                ax, ay, bx, by = x1 - x0, y1 - y0, x2 - x0, y2 - y0
                cx, cy, ex, ey = x2 - x3, y2 - y3, x1 - x3, y1 - y3
                upper, lower = ax * by - ay * bx, cx * ey - cy * ex
                upper_scale = _ONE / upper if abs(upper) > FLAT else _ZERO
                lower_scale = _ONE / lower if abs(lower) > FLAT else _ZERO
                # The overlap in shares of the sides.
                slack = OVERLAP
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
def _pack(rgb, right, down):
    """Colours and links of every pixel in one integer, after a row and a column without links; `[H + 1, W + 1]`."""
    height, width = right.shape
    packed = np.zeros((height + 1, width + 1), np.int64)
    for line in numba.prange(height):
        y = np.int64(line)
        for x in range(width):
            colors = np.int64(rgb[y, x, 0]) | np.int64(rgb[y, x, 1]) << _CHANNEL_BITS
            packed[y + 1, x + 1] = colors | np.int64(rgb[y, x, 2]) << 2 * _CHANNEL_BITS
            packed[y + 1, x + 1] |= (_RIGHT if right[y, x] else 0) | (_DOWN if down[y, x] else 0)
        if y + 1 < height:
            for x in range(width - 1):
                if right[y, x] & right[y + 1, x] & down[y, x] & down[y, x + 1]:
                    packed[y + 1, x + 1] |= _BLOCK
    return packed


@_fast_parallel
def _look_up(packed, backward, nearness, pixel):
    """Put the threads' pictures together and look up the colours: picture, depth, holes."""
    _, new_height, new_width = nearness.shape
    out_rgb = np.zeros((new_height, new_width, 3), np.uint8)
    out_depth = np.empty((new_height, new_width), np.float32)
    hole = np.empty((new_height, new_width), np.bool_)
    for line in numba.prange(new_height):
        row = np.int64(line)
        # Line by line and step by step: simple loops become vector instructions.
        best, owner = nearness[0, row].copy(), pixel[0, row].copy()
        for chunk in range(1, len(nearness)):
            for column in range(new_width):
                nearer = nearness[chunk, row, column] > best[column]
                best[column] = nearness[chunk, row, column] if nearer else best[column]
                owner[column] = pixel[chunk, row, column] if nearer else owner[column]
        at = np.empty((2, new_width), np.float32)
        for column in range(new_width):
            place = _place(backward, np.float32(column) + _HALF, np.float32(row) + _HALF, best[column], owner[column])
            at[0, column], at[1, column] = place
            hole[row, column] = best[column] < _ZERO
            out_depth[row, column] = np.float32(np.inf) if best[column] < _ZERO else _ONE / best[column]
        for column in range(new_width):
            if best[column] < _ZERO:
                continue
            weighed = _color(packed, at[0, column], at[1, column], owner[column])
            for channel in range(3):
                value = (weighed >> channel * _CHANNEL_BITS) & _CHANNEL_MASK
                out_rgb[row, column, channel] = (value + _WHOLE // 2) >> _WEIGHT_BITS
    return out_rgb, out_depth, hole


@_fast_parallel
def _blend(packed, backward, nearness, pixel, hole, out_rgb):
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
            if one_pixel or high - low <= SMOOTH * high:
                continue
            red, green, blue = 0, 0, 0
            for sample in range(4):
                d, of = _nearest(nearness, pixel, 2 * row + sample // 2, 2 * column + sample % 2)
                if d < _ZERO:
                    continue
                u = np.float32(column) + _QUARTER + _HALF * np.float32(sample % 2)
                v = np.float32(row) + _QUARTER + _HALF * np.float32(sample // 2)
                at_x, at_y = _place(backward, u, v, d, of)
                weighed = _color(packed, at_x, at_y, of)
                red += weighed & _CHANNEL_MASK
                green += (weighed >> _CHANNEL_BITS) & _CHANNEL_MASK
                blue += weighed >> 2 * _CHANNEL_BITS
            whole = seen * _WHOLE
            out_rgb[row, column, 0] = (red + whole // 2) // whole
            out_rgb[row, column, 1] = (green + whole // 2) // whole
            out_rgb[row, column, 2] = (blue + whole // 2) // whole


@_fast
def _place(backward, u, v, d, owner):
    """Where in the source a place u, v of the new picture is that shows disparity d of a source pixel: x, y.

    In rows and columns of `packed`, with pixels' centres at whole numbers; at most half a pixel from the owner's.
    """
    x, y = np.float32(owner & _PLACE_MASK) + _HALF, np.float32(owner >> _PLACE_BITS) + _HALF
    scale = _ONE / (backward[2, 0] * u + backward[2, 1] * v + backward[2, 2] + backward[2, 3] * d)
    at_x = (backward[0, 0] * u + backward[0, 1] * v + backward[0, 2] + backward[0, 3] * d) * scale + _HALF
    at_y = (backward[1, 0] * u + backward[1, 1] * v + backward[1, 2] + backward[1, 3] * d) * scale + _HALF
    # In this order nan becomes the bound, and no index is made of it.
    return min(max(x, at_x), x + _ONE), min(max(y, at_y), y + _ONE)


@_fast
def _color(packed, at_x, at_y, owner):
    """Colours, times `_WHOLE` and packed, of a place in the source; bilinear, of the owner's surface."""
    left, top = np.int64(at_x), np.int64(at_y)
    wx = np.int64((at_x - np.float32(left)) * np.float32(_WHOLE) + _HALF)
    wy = np.int64((at_y - np.float32(top)) * np.float32(_WHOLE) + _HALF)
    corner = packed[top, left]
    if not corner & _BLOCK:
        y, x = np.int64(owner >> _PLACE_BITS) + 1, np.int64(owner & _PLACE_MASK) + 1
        return _color_at_border(packed, y, x, top, left, wy, wx)
    across = (wx * wy + _WHOLE // 2) >> _WEIGHT_BITS
    weighed = (_WHOLE - wx - wy + across) * (corner & _COLORS_MASK)
    weighed += (wx - across) * (packed[top, left + 1] & _COLORS_MASK)
    weighed += (wy - across) * (packed[top + 1, left] & _COLORS_MASK)
    return weighed + across * (packed[top + 1, left + 1] & _COLORS_MASK)


@_fast
def _color_at_border(packed, y, x, top, left, wy, wx):
    """As `_color`, among four pixels that are not all linked: those beyond a border count as the pixel y, x itself."""
    wx, wy = wx if left == x else _WHOLE - wx, wy if top == y else _WHOLE - wy  # of the neighbours
    nx, ny = left + (left == x), top + (top == y)
    links_x, links_y = packed[y, left] & _RIGHT, packed[top, x] & _DOWN
    here = packed[y, x] & _COLORS_MASK
    beside = packed[y, nx] & _COLORS_MASK if links_x else here
    under = packed[ny, x] & _COLORS_MASK if links_y else here
    # What belongs to the pixel across, which has no link here, goes to the two between.
    both = (wx * wy + _WHOLE // 2) >> _WEIGHT_BITS
    half = both >> 1
    return (_WHOLE - wx - wy + both) * here + (wx - both + half) * beside + (wy - half) * under
