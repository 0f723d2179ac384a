"""Rays against primitives: which one is hit, how far away. Noise that textures and leaves share."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from depth_train.scenes.procedural.description import (
    BOX,
    ELLIPSOID,
    MAX_DEPTH_M,
    NEAR_M,
    PLANE,
    TEXELS_PER_FEATURE,
    VOLUME_SIZE,
    Primitive,
    Scene,
)

Vector = tuple[Tensor, Tensor, Tensor]


@functools.lru_cache(maxsize=4)
def _noise_pyramid(device: str) -> tuple[Tensor, list[int]]:
    """A periodic volume of four independent 1/f noises with unit variance, box-filtered into a pyramid.

    Returns the texels `[V, 4]` of all levels and the offset of each level.
    """
    n = VOLUME_SIZE
    generator = torch.Generator().manual_seed(20240607)
    spectrum = torch.fft.fftn(torch.randn(4, n, n, n, generator=generator), dim=(1, 2, 3))
    k = torch.fft.fftfreq(n) * n
    radius = torch.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, :] ** 2)
    lowest = n / TEXELS_PER_FEATURE
    gain = torch.where(radius > 0, radius.clamp_min(lowest) ** -2.2 * (radius / lowest).clamp_max(1.0) ** 2, 0.0)
    volume = torch.fft.ifftn(spectrum * gain, dim=(1, 2, 3)).real
    volume = volume / volume.std(dim=(1, 2, 3), keepdim=True)
    levels, offsets, offset = [], [], 0
    while volume.shape[-1] >= 2:
        levels.append(volume.permute(1, 2, 3, 0).reshape(-1, 4))
        offsets.append(offset)
        offset += len(levels[-1])
        volume = F.avg_pool3d(volume, 2)
    return torch.cat(levels).contiguous().to(device), offsets


def fractal_noise(point: Vector, texels_per_pixel: Tensor | None, device: str) -> Tensor:
    """Look up noise `[N, 4]` at points in features, blurred to a footprint so that it does not alias."""
    table, offsets = _noise_pyramid(device)
    if texels_per_pixel is None:
        level = torch.zeros((), dtype=torch.int32, device=device)
    else:
        level = torch.log2(texels_per_pixel.clamp_min(1.0)).round_().clamp_max_(len(offsets) - 1.0).int()
    scale = TEXELS_PER_FEATURE * torch.exp2(-level.float())
    size = VOLUME_SIZE >> level
    base = torch.tensor(offsets, dtype=torch.int32, device=device)[level.long()]
    # Wrapped before the cast: far points would overflow int32.
    low, fraction = [], []
    for axis in point:
        x = axis * scale - 0.5
        cell = torch.floor(x)
        fraction.append(x - cell)
        low.append(torch.remainder(cell, size).int())
    high = [torch.where(cell + 1 == size, 0, cell + 1) for cell in low]
    indices, weights = [], []
    for z, wz in ((low[2], 1 - fraction[2]), (high[2], fraction[2])):
        for y, wy in ((low[1], 1 - fraction[1]), (high[1], fraction[1])):
            row, wzy = base + (z * size + y) * size, wz * wy
            for x, wx in ((low[0], 1 - fraction[0]), (high[0], fraction[0])):
                indices.append(row + x)
                weights.append(wzy * wx)
    return F.embedding_bag(
        torch.stack(indices, dim=-1), table, mode="sum", per_sample_weights=torch.stack(weights, dim=-1)
    )


def hit_primitive(shape: int, o: Vector, d: Vector) -> tuple[Tensor, Tensor | None]:
    """Intersect rays with a unit shape; inf where they miss. Gives the nearest hit and, for ellipsoids, the second."""
    inf = math.inf
    if shape == PLANE:
        t = -o[1] / d[1]
        return torch.where(t > NEAR_M, t, inf), None
    if shape == BOX:
        inverse = [1 / axis for axis in d]
        middle = [-a * b for a, b in zip(o, inverse, strict=True)]
        reach = [axis.abs() for axis in inverse]
        enter = torch.maximum(torch.maximum(middle[0] - reach[0], middle[1] - reach[1]), middle[2] - reach[2])
        leave = torch.minimum(torch.minimum(middle[0] + reach[0], middle[1] + reach[1]), middle[2] + reach[2])
        return torch.where((enter < leave) & (enter > NEAR_M), enter, inf), None
    if shape == ELLIPSOID:
        a = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
        b = o[0] * d[0] + o[1] * d[1] + o[2] * d[2]
        c = o[0] * o[0] + o[1] * o[1] + o[2] * o[2] - 1
        square = b * b - a * c
        meets = square >= 0
        root = torch.sqrt(square.clamp_min(0.0))  # the root of a negative is some fifty times slower
        first, second = (-b - root) / a, (-b + root) / a
        return torch.where(meets & (first > NEAR_M), first, inf), torch.where(meets & (second > NEAR_M), second, inf)
    a = d[0] * d[0] + d[2] * d[2]
    b = o[0] * d[0] + o[2] * d[2]
    c = o[0] * o[0] + o[2] * o[2] - 1
    square = b * b - a * c
    root = torch.sqrt(square.clamp_min(0.0))
    middle, reach = -o[1] / d[1], (1 / d[1]).abs()
    enter = torch.maximum((-b - root) / a, middle - reach)
    leave = torch.minimum((-b + root) / a, middle + reach)
    return torch.where((square >= 0) & (enter < leave) & (enter > NEAR_M), enter, inf), None


def through_leaves(primitive: Primitive, t: Tensor, second: Tensor, o: Vector, d: Vector, device: str) -> Tensor:
    """Let rays pass the holes of foliage: to its inner side, or through both."""
    kept = torch.full_like(t, math.inf).reshape(-1)
    flat_o, flat_d = ([axis.expand(t.shape).reshape(-1) for axis in v] for v in (o, d))
    pending = torch.isfinite(t).reshape(-1)
    for candidate in (t.reshape(-1), second.reshape(-1)):
        index = pending.nonzero()[:, 0]
        if not len(index):
            break
        at = candidate[index]
        frequency = (float(h) / primitive.leaf_m / 2 for h in primitive.half)
        x, y, z = ((flat_o[i][index] + at * flat_d[i][index]) * f for i, f in enumerate(frequency))
        solid = fractal_noise((x, y, z), None, device)[:, 0] > -0.35
        kept[index] = torch.where(solid, at, math.inf)
        pending[index] = ~solid
    return kept.reshape(t.shape)


def _screen_rect(
    center: np.ndarray, radius: float, K: np.ndarray, height: int, width: int
) -> tuple[int, int, int, int]:
    """Bound the pixels (top, bottom, left, right) that a ball can cover in any frame; centre `[T, 3]` in the camera."""
    near, far = center[:, 2] - radius, center[:, 2] + radius
    if far.max() <= NEAR_M:
        return 0, 0, 0, 0
    if near.min() <= 0.05:
        return 0, height, 0, width
    bounds = []
    for axis, limit in ((1, height), (0, width)):
        low, high = center[:, axis] - radius, center[:, axis] + radius
        low_px = np.minimum(low / near, low / far).min() * K[axis, axis] + K[axis, 2]
        high_px = np.maximum(high / near, high / far).max() * K[axis, axis] + K[axis, 2]
        bounds += [int(np.clip(math.floor(low_px) - 1, 0, limit)), int(np.clip(math.ceil(high_px) + 1, 0, limit))]
    return bounds[0], bounds[1], bounds[2], bounds[3]


@dataclass
class Geometry:
    """A scene at T moments, ready for the device: poses of its primitives, and the rays of one image size."""

    scene: Scene
    rotation: np.ndarray  # [T, P, 3, 3]
    center: np.ndarray  # [T, P, 3]
    K: np.ndarray
    poses: np.ndarray  # [T, 4, 4]
    height: int
    width: int
    device: str

    def tensor(self, array: np.ndarray) -> Tensor:
        """A float32 copy on the device."""
        return torch.from_numpy(np.ascontiguousarray(array)).float().to(self.device)

    def pixel_axes(self) -> tuple[Tensor, Tensor]:
        """Ray slopes y `[H, 1]` and x `[W]` at pixel centres."""
        y = (np.arange(self.height) + 0.5 - self.K[1, 2]) / self.K[1, 1]
        x = (np.arange(self.width) + 0.5 - self.K[0, 2]) / self.K[0, 0]
        return self.tensor(y)[:, None], self.tensor(x)


def trace_rays(g: Geometry) -> tuple[Tensor, Tensor]:
    """Find the nearest hit of every pixel's ray: depth `[T, H, W]` (inf = none) and primitive index (-1 = none)."""
    frames = len(g.poses)
    depth = torch.full((frames, g.height, g.width), MAX_DEPTH_M, device=g.device)
    owner = torch.full((frames, g.height, g.width), -1, dtype=torch.int32, device=g.device)
    slope_y, slope_x = g.pixel_axes()
    camera_rotation, camera_center = g.poses[:, :3, :3], g.poses[:, :3, 3]
    for index, primitive in enumerate(g.scene.primitives):
        away = g.center[:, index] - camera_center
        top, bottom, left, right = 0, g.height, 0, g.width
        if primitive.shape != PLANE:
            in_camera = np.einsum("tji,tj->ti", camera_rotation, away)
            radius = (
                float(np.linalg.norm(primitive.half)) if primitive.shape != ELLIPSOID else float(primitive.half.max())
            )
            top, bottom, left, right = _screen_rect(in_camera, radius, g.K, g.height, g.width)
            if top >= bottom or left >= right:
                continue
        rotation = g.rotation[:, index].transpose(0, 2, 1)
        to_unit = g.tensor((rotation @ camera_rotation) / primitive.half[:, None])[..., None, None]  # [T, 3, 3, 1, 1]
        origin = g.tensor(-np.einsum("tij,tj->ti", rotation, away) / primitive.half)[..., None, None]
        x, y = slope_x[left:right], slope_y[top:bottom]
        d = tuple(to_unit[:, i, 0] * x + (to_unit[:, i, 1] * y + to_unit[:, i, 2]) for i in range(3))
        o = (origin[:, 0], origin[:, 1], origin[:, 2])
        t, second = hit_primitive(primitive.shape, o, d)  # type: ignore[arg-type]
        if primitive.leaf_m > 0 and second is not None:
            t = through_leaves(primitive, t, second, o, d, g.device)  # type: ignore[arg-type]
        window = depth[:, top:bottom, left:right]
        nearer = t < window
        window.copy_(torch.where(nearer, t, window))
        owner[:, top:bottom, left:right].masked_fill_(nearer, index)
    return torch.where(owner >= 0, depth, math.inf), owner
