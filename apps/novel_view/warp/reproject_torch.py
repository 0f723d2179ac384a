"""The reprojection of `warp` in torch, for CUDA: the same footprints, all of them at once.

Every step is that of `warp`'s loops, on whole pictures. Footprints are drawn as a list of (footprint, pixel) pairs;
the z-buffer is one maximum over 64-bit keys, nearness above, reading order below, so the result does not depend on the
order in which a GPU gets to them. Rounding may differ from `warp`'s by a unit in the last place.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from novel_view.warp.reproject_loops import BEHIND, FLAT, OVERLAP, SLANTED, SMOOTH, STEEP

# As plain numbers: a numpy scalar times a tensor is taken by numpy.
_SMOOTH, _SLANTED, _STEEP = float(SMOOTH), float(SLANTED), float(STEEP)
_OVERLAP, _BEHIND, _FLAT = float(OVERLAP), float(BEHIND), float(FLAT)
# (footprint, pixel) pairs that are worked on at once: some 60 values each, so about 1 GB.
_PAIRS = 1 << 22
_LOW = (1 << 32) - 1


class Links(NamedTuple):
    """Whether a pixel is of one surface with the next one to the right and with the one below; bool `[H, W]`."""

    right: Tensor
    down: Tensor


def warp_on(
    device: torch.device | str,
    rgb: np.ndarray,
    depth: np.ndarray,
    forward: np.ndarray,
    backward: np.ndarray,
    size: tuple[int, int],
    antialias: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Picture, depth and holes of the new view.

    Args:
        device: Where to compute.
        rgb: uint8 `[H, W, 3]`.
        depth: Planar depth `[H, W]`, as `warp.warp` takes it.
        forward: `[3, 4]`: (x, y, 1, disparity) of the source to homogeneous pixels of the new picture.
        backward: `[3, 4]`: the way back.
        size: Height and width of the new picture.
        antialias: Blend the surfaces that meet in a pixel.
    """
    height, width = size
    colors = torch.from_numpy(rgb).to(device)
    depths = torch.from_numpy(np.ascontiguousarray(depth, np.float32)).to(device)
    there, back = (torch.from_numpy(matrix).to(device) for matrix in (forward, backward))
    disparity = torch.where(depths > 0, 1 / depths, torch.nan)
    links = surface_links(disparity)
    nearness, owner = _nearest_surfaces(disparity, links, there, height, width)
    rows, columns = _pixel_grid(height, width, colors.device)
    hole = nearness < 0
    picture = _colors(colors, links, back, columns + 0.5, rows + 0.5, nearness, owner)
    seen = torch.where(hole[..., None], 0.0, picture)
    if antialias:
        fine = torch.diag(there.new_tensor([2, 2, 1])) @ there
        samples = _nearest_surfaces(disparity, links, fine, 2 * height, 2 * width)
        seen = _blend(colors, links, back, *samples, hole, seen)
    new_depth = torch.where(hole, torch.inf, 1 / nearness)
    return (seen + 0.5).to(torch.uint8).cpu().numpy(), new_depth.cpu().numpy(), hole.cpu().numpy()


def surface_links(disparity: Tensor) -> Links:
    """As `warp.surface_links`: even, or a slope that goes on, and not the sky."""
    return Links(_linked(disparity), _linked(disparity.T).T)


def _linked(disparity: Tensor) -> Tensor:
    """Whether each pixel is of one surface with the next one along the last dimension."""
    padded = F.pad(disparity, (1, 2), value=torch.nan)
    before, here, there, after = (padded[:, place : place + disparity.shape[1]] for place in range(4))
    step = there - here
    larger = torch.maximum(here, there)
    even = step.abs() <= _SMOOTH * larger  # False for nan, here and below
    as_before = (step - (here - before)).abs() <= _SLANTED * step.abs()
    as_after = (step - (after - there)).abs() <= _SLANTED * step.abs()
    slope = (as_before & as_after) | ((as_before | as_after) & (step.abs() <= _STEEP * larger))
    return even | (slope & (here != 0) & (there != 0))


def _pixel_grid(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows and columns of a picture's pixels, int64 `[H, W]`."""
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    return rows[:, None].expand(height, width), columns[None].expand(height, width)


def _project(forward: Tensor, u: Tensor, v: Tensor, d: Tensor) -> Tensor:
    """Places `[..., 3]` in the new picture: x, y, disparity; nan behind the camera."""
    x, y, z = (row[0] * u + row[1] * v + row[2] + row[3] * d for row in forward)
    scale = torch.where(z > _BEHIND, 1 / z, torch.nan)
    return torch.stack([x * scale, y * scale, d * scale], dim=-1)


def _footprints(disparity: Tensor, links: Links, forward: Tensor) -> Tensor:
    """The corners of each pixel's quad in the new picture, `[H, W, 4, 3]`; nan where it is not drawn."""
    height, width = disparity.shape
    right, down = links
    rows, columns = _pixel_grid(height + 1, width + 1, disparity.device)
    shared = disparity.new_full((height + 1, width + 1, 3), torch.nan)
    together = right[:-1, :-1] & right[1:, :-1] & down[:-1, :-1] & down[:-1, 1:]
    mean = (disparity[:-1, :-1] + disparity[:-1, 1:] + disparity[1:, :-1] + disparity[1:, 1:]) * 0.25
    mean = torch.where(together, mean, torch.nan)
    shared[1:-1, 1:-1] = _project(forward, columns[1:-1, 1:-1], rows[1:-1, 1:-1], mean)
    slope_x = _slope(disparity, right)
    slope_y = _slope(disparity.T, down.T).T
    corners = []
    for below, side in ((0, 0), (0, 1), (1, 0), (1, 1)):
        own_d = (disparity + (side - 0.5) * slope_x + (below - 0.5) * slope_y).clamp_min(0)
        own = _project(forward, columns[:-1, :-1] + side, rows[:-1, :-1] + below, own_d)
        common = shared[below : below + height, side : side + width]
        corners.append(torch.where(common[..., :1].isnan(), own, common))
    return torch.stack(corners, dim=2)


def _slope(disparity: Tensor, linked: Tensor) -> Tensor:
    """A pixel's own slope along the last dimension, from the neighbours of its surface."""
    step = F.pad(disparity[:, 1:] - disparity[:, :-1], (0, 1))
    step = torch.where(linked, step, 0.0)
    before = F.pad(step[:, :-1], (1, 0))
    count = linked.float() + F.pad(linked[:, :-1].float(), (1, 0))
    return (step + before) / count.clamp_min(1)


def _nearest_surfaces(
    disparity: Tensor, links: Links, forward: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """The largest disparity at every pixel of the new picture (-1: none) and which source pixel it is of."""
    quads = _footprints(disparity, links, forward).flatten(0, 1)
    places = quads[..., :2]
    drawn = places.isfinite().all(dim=-1).all(dim=-1).nonzero()[:, 0]
    low, high = places[drawn].amin(dim=1), places[drawn].amax(dim=1)
    size = low.new_tensor([width, height])
    # Bounded before they become whole numbers: a place may be anywhere.
    first = torch.ceil(low - 0.5 - _OVERLAP).clamp_min(0).minimum(size)
    last = torch.floor(high - 0.5 + _OVERLAP).clamp_min(-1).minimum(size - 1)
    spans = (last - first + 1).clamp_min(0).long()
    counts = spans[:, 0] * spans[:, 1]
    kept = (counts > 0).nonzero()[:, 0]
    drawn, first, spans, counts = drawn[kept], first[kept].long(), spans[kept], counts[kept]
    keys = torch.full((height * width,), -1, dtype=torch.int64, device=disparity.device)
    ends = counts.cumsum(0)
    start = 0
    while start < len(drawn):
        base = int(ends[start - 1]) if start else 0
        stop = max(int(torch.searchsorted(ends, base + _PAIRS, right=True)), start + 1)
        part = slice(start, stop)
        _draw(quads[drawn[part]], drawn[part], first[part], spans[part], counts[part], width, keys)
        start = stop
    none = keys < 0
    nearness = (keys >> 32).to(torch.int32).view(torch.float32)
    owner = _LOW - (keys & _LOW)
    nearness = torch.where(none, -1.0, nearness).view(height, width)
    return nearness, torch.where(none, 0, owner).view(height, width)


def _draw(
    quads: Tensor, numbers: Tensor, first: Tensor, spans: Tensor, counts: Tensor, width: int, keys: Tensor
) -> None:
    """Draw footprints `[N, 4, 3]` of the source pixels `numbers` into `keys`, a z-buffer of the new picture."""
    which = torch.repeat_interleave(torch.arange(len(quads), device=quads.device), counts)
    within = torch.arange(len(which), device=quads.device) - (counts.cumsum(0) - counts)[which]
    column = first[which, 0] + within % spans[which, 0]
    row = first[which, 1] + within // spans[which, 0]
    u, v = column + 0.5, row + 0.5
    corner = quads[which]
    upper, d_upper = _in_triangle(corner[:, 0], corner[:, 1], corner[:, 2], u, v)
    lower, d_lower = _in_triangle(corner[:, 3], corner[:, 2], corner[:, 1], u, v)
    d = torch.where(upper, d_upper, d_lower)
    inside = (upper | lower) & (d >= 0)
    # Floats from 0 up sort as the whole numbers of their bits; + 0.0 makes -0 a 0.
    nearness = (d[inside] + 0.0).view(torch.int32).long() << 32
    target = (row * width + column)[inside]
    keys.scatter_reduce_(0, target, nearness | (_LOW - numbers[which[inside]]), "amax")


def _in_triangle(at: Tensor, one: Tensor, other: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Whether places lie in the triangle of corners `[N, 3]`, up to the overlap, and their disparity there."""
    ax, ay = one[:, 0] - at[:, 0], one[:, 1] - at[:, 1]
    bx, by = other[:, 0] - at[:, 0], other[:, 1] - at[:, 1]
    area = ax * by - ay * bx
    scale = torch.where(area.abs() > _FLAT, 1 / area, torch.nan)
    dx, dy = u - at[:, 0], v - at[:, 1]
    s, t = (dx * by - dy * bx) * scale, (ax * dy - ay * dx) * scale
    inside = (s >= -_OVERLAP) & (t >= -_OVERLAP) & (s + t <= 1 + _OVERLAP)
    return inside, at[:, 2] + s * (one[:, 2] - at[:, 2]) + t * (other[:, 2] - at[:, 2])


def _blend(
    rgb: Tensor, links: Links, backward: Tensor, nearness: Tensor, owner: Tensor, hole: Tensor, seen: Tensor
) -> Tensor:
    """Where surfaces meet in a pixel, the mean of what its 2x2 samples show."""
    height, width = hole.shape
    rows, columns = _pixel_grid(height, width, hole.device)
    shares = [(nearness[b::2, a::2], owner[b::2, a::2], a, b) for b in (0, 1) for a in (0, 1)]
    visible = torch.stack([d >= 0 for d, *_ in shares])
    d = torch.stack([d for d, *_ in shares])
    low = torch.where(visible, d, torch.inf).amin(dim=0)
    high = torch.where(visible, d, 0.0).amax(dim=0)
    owners = torch.stack([of for _, of, *_ in shares])
    least = torch.where(visible, owners, _LOW).amin(dim=0)
    several = least != torch.where(visible, owners, -1).amax(dim=0)
    meets = ~hole & several & (high - low > _SMOOTH * high)
    picture = torch.zeros_like(seen)
    for (d, of, a, b), there in zip(shares, visible, strict=True):
        color = _colors(rgb, links, backward, columns + 0.25 + 0.5 * a, rows + 0.25 + 0.5 * b, d, of)
        picture += torch.where(there[..., None], color, 0.0)
    mean = picture / visible.sum(dim=0).clamp_min(1)[..., None]
    return torch.where(meets[..., None], mean, seen)


def _colors(rgb: Tensor, links: Links, backward: Tensor, u: Tensor, v: Tensor, d: Tensor, owner: Tensor) -> Tensor:
    """Colours `[..., 3]` of places u, v in the new picture that show disparity d of source pixels.

    Bilinear, of one surface: neighbours beyond a depth border count as the pixel itself.
    """
    height, width = links.right.shape
    y, x = owner // width, owner % width
    at_x, at_y, w = (row[0] * u + row[1] * v + row[2] + row[3] * d for row in backward)
    along = (at_x / w - x - 0.5).clamp(-0.5, 0.5)
    beneath = (at_y / w - y - 0.5).clamp(-0.5, 0.5)
    nx, ny = torch.where(along > 0, x + 1, x - 1), torch.where(beneath > 0, y + 1, y - 1)
    x_inside, y_inside = (nx >= 0) & (nx < width), (ny >= 0) & (ny < height)
    nx, ny = nx.clamp(0, width - 1), ny.clamp(0, height - 1)
    links_x = x_inside & links.right[y, torch.minimum(x, nx)]
    links_y = y_inside & links.down[torch.minimum(y, ny), x]
    diagonal = links_x & links_y & links.down[torch.minimum(y, ny), nx] & links.right[ny, torch.minimum(x, nx)]
    nx, ny = torch.where(links_x, nx, x), torch.where(links_y, ny, y)
    wx, wy = along.abs(), beneath.abs()
    across = wx * wy
    spread = torch.where(diagonal, 0.0, 0.5 * across)
    weights = ((1 - wx) * (1 - wy), wx * (1 - wy) + spread, (1 - wx) * wy + spread, across - 2 * spread)
    sources = ((y, x), (y, nx), (ny, x), (ny, nx))
    return sum(
        (weight[..., None] * rgb[place].float() for weight, place in zip(weights, sources, strict=True)),
        start=rgb.new_zeros((), dtype=torch.float32),
    )
