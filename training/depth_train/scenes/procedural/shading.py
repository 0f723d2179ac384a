"""The colour of what rays hit: surface, light, texture, sky."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from depth_train.scenes.procedural.description import (
    BOX,
    COLUMN_WIDTHS,
    CYLINDER,
    PLANE,
    TEXELS_PER_FEATURE,
    rotation_from_angles,
)
from depth_train.scenes.procedural.tracing import Geometry, Vector, fractal_noise, hit_primitive, through_leaves


@dataclass
class _Surface:
    """The N hit pixels of an image, flattened."""

    index: Tensor  # [N] position in [T * H * W]
    frame: Tensor  # [N]
    primitive: Tensor  # [N]
    depth: Tensor  # [N]
    world: Vector
    local: Vector  # object coordinates in metres
    normal: Vector  # world, towards the camera
    axes: Tensor  # [9, N] world_from_object, row major
    face: Tensor  # [N] object axis that the face looks along
    cosine: Tensor  # [N] between the normal and the ray
    view: Vector  # [N] from the surface to the camera, unit


def _surface(g: Geometry, depth: Tensor, owner: Tensor) -> _Surface:
    """Recover points, local coordinates and normals from depth and owner."""
    primitives, pixels = len(g.scene.primitives), g.height * g.width
    index = (owner.reshape(-1) >= 0).nonzero()[:, 0]
    frame = index // pixels
    primitive = owner.reshape(-1)[index].long()
    t = depth.reshape(-1)[index]
    slope_y, slope_x = g.pixel_axes()
    within = index % pixels
    y, x = slope_y[:, 0][within // g.width], slope_x[within % g.width]
    pose = g.tensor(g.poses[:, :3].reshape(-1, 12).T).index_select(1, frame)
    ray = [pose[4 * i] * x + pose[4 * i + 1] * y + pose[4 * i + 2] for i in range(3)]
    away = [t * ray[i] for i in range(3)]  # from the camera: keeps float32 precise where the camera is far out
    world = (pose[3] + away[0], pose[7] + away[1], pose[11] + away[2])
    row = frame * primitives + primitive
    axes = g.tensor(g.rotation.reshape(-1, 9).T).index_select(1, row)
    center = g.tensor(g.center.reshape(-1, 3).T).index_select(1, row)
    offset = [world[i] - center[i] for i in range(3)]
    local = tuple(axes[i] * offset[0] + axes[3 + i] * offset[1] + axes[6 + i] * offset[2] for i in range(3))

    half = g.tensor(np.stack([p.half for p in g.scene.primitives]).T).index_select(1, primitive)
    shape = torch.tensor([p.shape for p in g.scene.primitives], device=g.device)[primitive]
    unit = [local[i] / half[i] for i in range(3)]
    size = [axis.abs() for axis in unit]
    flat = (shape == PLANE) | ((shape == CYLINDER) & (size[1] * size[1] >= unit[0] * unit[0] + unit[2] * unit[2]))
    face_y = flat | ((shape == BOX) & (size[1] >= size[0]) & (size[1] >= size[2]))
    face_x = (shape == BOX) & ~face_y & (size[0] >= size[2])
    face_z = (shape == BOX) & ~face_y & ~face_x
    round_ = ~(face_x | face_y | face_z)
    gradient = [unit[i] / half[i] for i in range(3)]
    gradient[1] = torch.where(shape == CYLINDER, 0.0, gradient[1])
    n = [torch.where(round_, gradient[i], (f * torch.sign(unit[i]))) for i, f in enumerate((face_x, face_y, face_z))]
    n[1] = torch.where(shape == PLANE, 1.0, n[1])
    world_n = [axes[3 * i] * n[0] + axes[3 * i + 1] * n[1] + axes[3 * i + 2] * n[2] for i in range(3)]
    inverse = torch.rsqrt(world_n[0] ** 2 + world_n[1] ** 2 + world_n[2] ** 2 + 1e-20)
    ray_inverse = torch.rsqrt(ray[0] ** 2 + ray[1] ** 2 + ray[2] ** 2)
    view = tuple(-axis * ray_inverse for axis in ray)
    facing = (world_n[0] * view[0] + world_n[1] * view[1] + world_n[2] * view[2]) * inverse
    signed = inverse * torch.where(facing < 0, -1.0, 1.0)
    normal = tuple(axis * signed for axis in world_n)
    # A round side is unrolled about y; a ball takes the axis it faces most.
    side_x = round_ & (n[0].abs() > n[2].abs())
    face = torch.where(face_y, 1, torch.where(face_x | side_x, 0, 2))
    return _Surface(index, frame, primitive, t, world, local, normal, axes, face, facing.abs(), view)  # type: ignore[arg-type]


def _light(g: Geometry, s: _Surface) -> tuple[Tensor, Tensor]:
    """How much of the sun and of the sky reach every point of a surface: two `[N]` in 0..1."""
    look = g.scene.look
    sun = torch.ones_like(s.depth)
    sky = torch.ones_like(s.depth)
    to_light = look.to_light
    lift = 0.002 * s.depth + 0.005
    start = [s.world[i] + lift * s.normal[i] for i in range(3)]
    toward = s.normal[0] * to_light[0] + s.normal[1] * to_light[1] + s.normal[2] * to_light[2]
    lit = toward > 0
    for index, p in enumerate(g.scene.primitives):
        moving = p.thing in g.scene.motions
        center = g.tensor(g.center[:, index].T)
        c = center.index_select(1, s.frame) if moving else center[:, :1]
        v = [c[i] - start[i] for i in range(3)]
        if p.shape == PLANE:
            if g.scene.indoor:  # corners of a room are dim
                normal = g.rotation[0, index, :, 1]
                distance = (v[0] * normal[0] + v[1] * normal[1] + v[2] * normal[2]).abs()
                corner = 1 - 0.35 * torch.exp(distance * -2.5)
                sky = sky * torch.where(s.primitive == index, 1.0, corner)
            continue
        squared = v[0] * v[0] + v[1] * v[1] + v[2] * v[2]
        bulk = float(np.prod(p.half)) ** (2 / 3)
        above = (s.normal[0] * v[0] + s.normal[1] * v[1] + s.normal[2] * v[2]).clamp_min_(0)
        cover = above * torch.rsqrt(squared) * (bulk / squared.clamp_min(bulk))
        sky = sky * (1 - 0.6 * torch.where(s.primitive == index, 0.0, cover))
        if not look.shadows:
            continue
        along = v[0] * to_light[0] + v[1] * to_light[1] + v[2] * to_light[2]
        radius = float(np.linalg.norm(p.half))
        close = (lit & (squared - along * along < radius * radius) & (along > -radius)).nonzero()[:, 0]
        if not len(close):
            continue
        rotation = g.tensor(g.rotation[:, index].reshape(-1, 9).T)
        r = rotation.index_select(1, s.frame[close]) if moving else rotation[:, :1]
        w = [-axis[close] for axis in v]
        o = tuple((r[i] * w[0] + r[3 + i] * w[1] + r[6 + i] * w[2]) / float(p.half[i]) for i in range(3))
        d = tuple(
            (r[i] * to_light[0] + r[3 + i] * to_light[1] + r[6 + i] * to_light[2]) / float(p.half[i]) for i in range(3)
        )
        t, second = hit_primitive(p.shape, o, d)  # type: ignore[arg-type]
        if p.leaf_m > 0 and second is not None:
            t = through_leaves(p, t, second, o, d, g.device)  # type: ignore[arg-type]
        sun[close] = sun[close] * torch.isinf(t)
    if look.dapple > 0:  # light through a canopy that is not in the scene
        e = _light_plane(to_light)
        u, w = ((s.world[0] * a[0] + s.world[1] * a[1] + s.world[2] * a[2]) * 0.8 for a in e)
        spots = fractal_noise((u, w, torch.zeros_like(u)), None, g.device)[:, 0]
        sun = sun * (1 - look.dapple * torch.sigmoid(4 * spots))
    return sun, sky


def _light_plane(to_light: tuple[float, float, float]) -> np.ndarray:
    """Two unit vectors `[2, 3]` at right angles to the light."""
    direction = np.array(to_light)
    first = np.cross(direction, (0.3, 0.2, 0.9))
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(direction, first)])


def _pulse(x: Tensor, gap: Tensor, blur: Tensor) -> Tensor:
    """Cover of a periodic cell that leaves a gap, box-filtered to a footprint (all in periods)."""
    phase = x - torch.floor(x)
    inside = torch.minimum(phase, 1 - phase) - gap / 2
    sharp = (inside / blur + 0.5).clamp(0, 1)
    return torch.where(gap > 0, torch.lerp(sharp, 1 - gap, ((blur - 0.3) / 0.4).clamp(0, 1)), 1.0)


def _albedo(g: Geometry, s: _Surface) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Colour `[3, N]`, emission `[N]`, gloss `[N]` and bump `[3, N]` of a surface."""
    scene = g.scene
    material = torch.tensor([p.material for p in scene.primitives], device=g.device)[s.primitive]
    if scene.path is not None:
        half_width, amplitude, wave, phase, path = scene.path
        x, z = s.local[0], s.local[2]
        winding = x - amplitude * torch.sin(z * wave + phase)
        edge = half_width * (1 + 0.08 * torch.sin(z * 5.1) + 0.05 * torch.sin(z * 13.7 + x))
        material = torch.where((s.primitive == 0) & (winding.abs() < edge), path, material)
    table = g.tensor(np.array([m.row() for m in scene.materials]).T)
    m = _columns(table, material)
    footprint = s.depth / (g.K[1, 1] * s.cosine.clamp_min(0.1).sqrt())  # metres a pixel
    # Each primitive cuts another part of the noise, or all trees would be one tree.
    where = [s.local[i] * m["frequency"][i] + (s.primitive * (7.31, 3.77, 5.13)[i]) for i in range(3)]
    texels = footprint * m["frequency"].amax(dim=0) * TEXELS_PER_FEATURE
    coarse = fractal_noise((where[0], where[1], where[2]), texels, g.device)
    # The second lookup is turned against the first so that their periods do not show.
    u, v, w = ((a * where[0] + b * where[1] + c * where[2]) * 9.1 for a, b, c in rotation_from_angles(0.5, 0.6, 0.7))
    fine = fractal_noise((u, v, w), texels * 9.1, g.device)
    contrast, detail = m["contrast"][0], m["fine"][0]
    mix = (0.5 + contrast * (coarse[:, 0] + detail * fine[:, 0])).clamp(0, 1)
    color = m["color_a"] + (m["color_b"] - m["color_a"]) * mix
    color = color * (1 + 0.5 * contrast * detail * fine[:, 1] + 0.4 * contrast * coarse[:, 1]).clamp(0.15, 2.5)
    bump = m["bump"] * fine.T[1:4]

    patterned = (m["pattern"][0] > 0).nonzero()[:, 0]
    if len(patterned):
        cells = _columns(table, material[patterned])
        color[:, patterned] = _pattern(cells, color.index_select(1, patterned), s, patterned, footprint[patterned])
    return color, m["emission"][0], m["gloss"][0], bump


def _columns(table: Tensor, material: Tensor) -> dict[str, Tensor]:
    """Look up the material of every point: its named columns, each `[width, N]`."""
    parts = table.index_select(1, material).split(list(COLUMN_WIDTHS.values()))
    return dict(zip(COLUMN_WIDTHS, parts, strict=True))


def _pattern(m: dict[str, Tensor], color: Tensor, s: _Surface, index: Tensor, footprint: Tensor) -> Tensor:
    """Lay cells in mortar, or a checker, over a colour `[3, N]`."""
    x, y, z = (axis[index] for axis in s.local)
    face = s.face[index]
    period_u, period_v = m["period_m"]
    u = torch.where(face == 0, z, x) / period_u
    v = torch.where(face == 1, z, y) / period_v
    row = torch.floor(v)
    u = u + m["stagger"][0] * torch.remainder(row, 2)
    blur_u, blur_v = (footprint / period_u).clamp(0.01, 1), (footprint / period_v).clamp(0.01, 1)
    cell = torch.sin(torch.floor(u) * 12.9898 + row * 78.233) * 43.7585
    fade = 1 - blur_u.clamp_max(0.5) * 2
    tone = 1 + m["tone"][0] * fade * 2 * (cell - torch.floor(cell) - 0.5)
    cover = _pulse(u, m["gap"][0], blur_u) * _pulse(v, m["gap"][1], blur_v)
    checker = torch.remainder(torch.floor(u) + row, 2) * fade + 0.5 * (1 - fade)
    cover = torch.where(m["pattern"][0] == 2, checker, cover)
    return m["mortar"] * (1 - cover) + color * tone.clamp_min(0.05) * cover


def _sky(g: Geometry, ray: Vector) -> Tensor:
    """Sky radiance `[3, N]` along world directions."""
    look = g.scene.look
    inverse = torch.rsqrt(ray[0] ** 2 + ray[1] ** 2 + ray[2] ** 2)
    up = (-ray[1] * inverse).clamp_min(0.0)
    zenith, horizon = (g.tensor(np.array(c))[:, None] for c in (look.sky_zenith, look.sky_horizon))
    color = torch.lerp(horizon, zenith, (up * 2.2).clamp_max(1.0).sqrt())
    if look.cloud > 0:
        spread = inverse / (up + 0.15)
        cloud = fractal_noise((ray[0] * spread * 0.5, ray[2] * spread * 0.5, up), None, g.device)[:, 0]
        cover = torch.sigmoid(2.5 * (cloud + 2 * look.cloud - 1.2)) * look.cloud
        color = torch.lerp(color, horizon.mean() * torch.ones_like(color) * (1.05 - 0.15 * cloud), cover)
    return color


def shade_hits(g: Geometry, depth: Tensor, owner: Tensor, lit: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple]:
    """Colour every pixel: radiance `[T, 3, H, W]`, and the maps of sun and sky light `[T, H, W]` behind it."""
    look, frames = g.scene.look, len(g.poses)
    s = _surface(g, depth, owner)
    if lit is None:
        maps = []
        for values in _light(g, s):
            light_map = torch.ones(depth.numel(), device=g.device)
            light_map[s.index] = values
            maps.append(light_map)
        sun, sky = maps[0][s.index], maps[1][s.index]
        lit = (maps[0].reshape(depth.shape), maps[1].reshape(depth.shape))
    else:
        repeat = g.height // lit[0].shape[1]
        sun, sky = (m.repeat_interleave(repeat, 1).repeat_interleave(repeat, 2).reshape(-1)[s.index] for m in lit)
    color, emission, gloss, bump = _albedo(g, s)
    n = [s.normal[i] + bump[i] for i in range(3)]
    inverse = torch.rsqrt(n[0] ** 2 + n[1] ** 2 + n[2] ** 2 + 1e-12)
    n = [axis * inverse for axis in n]
    to_light = look.to_light
    direct = (n[0] * to_light[0] + n[1] * to_light[1] + n[2] * to_light[2]).clamp_min(0.0) * sun
    hemisphere = 0.5 - 0.5 * n[1]
    up, down, sun_color = (g.tensor(np.array(c))[:, None] for c in (look.ambient_up, look.ambient_down, look.sun))
    light = torch.lerp(down, up, hemisphere) * sky + sun_color * direct
    if look.lamp is not None:
        v = [look.lamp[i] - s.world[i] for i in range(3)]
        squared = v[0] ** 2 + v[1] ** 2 + v[2] ** 2
        toward = ((n[0] * v[0] + n[1] * v[1] + n[2] * v[2]) * torch.rsqrt(squared + 1e-6)).clamp_min(0.0)
        light = light + look.lamp[3] * (0.2 + 0.8 * toward) * sky / (1 + 0.4 * squared)
    halfway = [s.view[i] + to_light[i] for i in range(3)]
    along = n[0] * halfway[0] + n[1] * halfway[1] + n[2] * halfway[2]
    size = halfway[0] ** 2 + halfway[1] ** 2 + halfway[2] ** 2
    shine = gloss * (along.clamp_min(0.0) ** 2 / size.clamp_min(1e-6)) ** 16 * sun
    radiance = color * light + sun_color * shine + color * emission
    if math.isfinite(look.haze_m):
        veil = 1 - torch.exp(s.depth / -look.haze_m)
        radiance = torch.lerp(radiance, g.tensor(np.array(look.sky_horizon))[:, None], veil)

    image = torch.empty(3, depth.numel(), device=g.device)
    image[:, s.index] = radiance
    missed = (owner.reshape(-1) < 0).nonzero()[:, 0]
    if len(missed):
        slope_y, slope_x = g.pixel_axes()
        within = missed % (g.height * g.width)
        x, y = slope_x[within % g.width], slope_y[:, 0][within // g.width]
        pose = g.tensor(g.poses[:, :3, :3].reshape(-1, 9).T).index_select(1, missed // (g.height * g.width))
        ray = [pose[3 * i] * x + pose[3 * i + 1] * y + pose[3 * i + 2] for i in range(3)]
        image[:, missed] = _sky(g, (ray[0], ray[1], ray[2]))
    return image.reshape(3, frames, g.height, g.width).permute(1, 0, 2, 3), lit
