"""Sun, sky and lamps: the radiance that reaches a camera from a world of triangles."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field

import numpy as np
from numba import njit

from depth_train.scenes.models.tracing import NOISE_SIZE, Hits, World, look_up

# A pixel's light from all around is estimated by so many rays, then smoothed over its surface.
_AROUND = 3
_SMOOTHING = 3  # radius in pixels
FAR_M = 1500.0  # beyond, everything is sky


@dataclass(frozen=True)
class Lamp:
    """A small bright thing: position `[3]`, linear RGB power (radiance at one metre off a white wall, times pi)."""

    position: tuple[float, float, float]
    power: tuple[float, float, float]


@dataclass(frozen=True)
class Light:
    """All that shines.

    Attributes:
        to_sun: Unit vector towards the sun (y down, so a high sun has negative y).
        sun: Linear RGB irradiance at a right angle to the sun; zeros where there is none.
        zenith: Radiance of the sky overhead.
        horizon: Radiance of the sky at the horizon.
        ground: Radiance that comes from below where nothing is.
        cloud: Share of the sky in clouds, 0 to 1.
        ambient: Radiance that bounces about where rays end at a surface, in a closed room above all.
        haze_m: Distance after which a third of the light is left; inf: clear.
        lamps: Small lamps.
        sky_photo: float32 `[h, w, 3]` linear: a picture of the sky in place of the painted one, or None.
    """

    to_sun: tuple[float, float, float]
    sun: tuple[float, float, float]
    zenith: tuple[float, float, float]
    horizon: tuple[float, float, float]
    ground: tuple[float, float, float]
    cloud: float = 0.0
    ambient: tuple[float, float, float] = (0.1, 0.1, 0.1)
    haze_m: float = math.inf
    lamps: list[Lamp] = field(default_factory=list)
    sky_photo: np.ndarray | None = None


def render(
    world: World,
    light: Light,
    K: np.ndarray,
    world_from_camera: np.ndarray,
    size: tuple[int, int],
    samples: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """What a camera sees.

    Args:
        world: What there is.
        light: What shines.
        K: `[3, 3]`, pixels, centres at +0.5.
        world_from_camera: `[4, 4]`, OpenCV axes.
        size: Height and width in pixels.
        samples: Rays a pixel for colour; the first goes through its centre.
        seed: Of the rays' places.

    Returns:
        float32 linear radiance `[H, W, 3]`, and float32 planar depth at pixel centres `[H, W]`, inf where the sky is.
    """
    height, width = size
    rng = np.random.default_rng(seed)
    noise = np.random.default_rng(5).normal(size=(NOISE_SIZE,) * 3).astype(np.float32)
    pixel = np.float32(1 / K[0, 0])
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    centre_x, centre_y = x.ravel() + np.float32(0.5), y.ravel() + np.float32(0.5)
    along, origin = _rays(centre_x, centre_y, K, world_from_camera)
    hits = world.cast(origin, along)
    depth = np.where(hits.distance < FAR_M, hits.distance, np.inf).astype(np.float32)
    around = _light_from_around(world, light, hits, along, depth.reshape(size), pixel, noise, rng)

    total = _shade(world, light, hits, along, around, pixel, noise)
    for _ in range(samples - 1):
        shift = rng.uniform(0, 1, (2, height * width)).astype(np.float32)
        along, origin = _rays(x.ravel() + shift[0], y.ravel() + shift[1], K, world_from_camera)
        hits = world.cast(origin, along)
        total += _shade(world, light, hits, along, around, pixel, noise)
    return (total / samples).reshape(height, width, 3), depth.reshape(height, width)


def _rays(x: np.ndarray, y: np.ndarray, K: np.ndarray, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Directions with z = 1 in the camera, so that distance is planar depth, and the camera's centre for each."""
    local = np.stack([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], np.ones_like(x)], axis=1)
    along = (local @ pose[:3, :3].T).astype(np.float32)
    return along, np.broadcast_to(pose[:3, 3].astype(np.float32), along.shape).copy()


def _surface_at(world: World, hits: Hits, along: np.ndarray, pixel: np.float32, noise: np.ndarray) -> tuple:
    footprint = np.where(np.isfinite(hits.distance), hits.distance * pixel, 0).astype(np.float32)
    return look_up(
        (hits.primitive, hits.u, hits.v),
        along,
        footprint,
        (world.corners, world.uv, world.normals, world.surface),
        (world.table, world.texel_density, world.atlas, world.levels),
        noise,
    )


def _light_from_around(
    world: World,
    light: Light,
    hits: Hits,
    along: np.ndarray,
    depth: np.ndarray,
    pixel: np.float32,
    noise: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """Mean radiance from the half space above each pixel's surface `[N, 3]`: sky where rays escape, else a bounce."""
    where = np.flatnonzero(np.isfinite(depth))
    gathered = np.zeros((depth.size, 3), dtype=np.float32)
    normals = np.zeros((depth.size, 3), dtype=np.float32)
    if len(where):
        part = Hits(*(values[where] for values in (hits.primitive, hits.distance, hits.u, hits.v, hits.tint)))
        _, normal, position, _, _ = _surface_at(world, part, along[where], pixel, noise)
        normals[where] = normal
        start = position + normal * (1e-3 + 1e-4 * part.distance[:, None])
        ambient = np.array(light.ambient, dtype=np.float32)
        sun = np.array(light.sun, dtype=np.float32) * (0.12 / math.pi)
        for _ in range(_AROUND):
            # Lambert's cosine law: a point on the unit sphere around the normal's tip.
            ball = rng.normal(size=normal.shape).astype(np.float32)
            ball /= np.linalg.norm(ball, axis=1, keepdims=True)
            direction = normal + ball * np.float32(0.999)
            bounced = world.cast(start, direction, see_through=False)
            sky = sky_radiance(light, direction)
            row = world.table[world.surface[np.maximum(bounced.primitive, 0)]]
            glass = row[:, 3] < 0.6
            # What a wall sends back: the room's own light, more of it the farther away the wall is.
            open_ = np.minimum(bounced.distance * np.linalg.norm(direction, axis=1), 3.0)[:, None] / 3.0
            wall = row[:, :3] * (ambient + sun) * (0.25 + 0.75 * open_) + row[:, :3] * np.minimum(row[:, 5:6], 4.0)
            gathered[where] += np.where((bounced.primitive < 0)[:, None] | glass[:, None], sky, wall)
        gathered /= _AROUND
    shape = (*depth.shape, 3)
    near = np.where(np.isfinite(depth), depth, 0).astype(np.float32)
    return smooth_over_surface(gathered.reshape(shape), normals.reshape(shape), near).reshape(-1, 3)


@njit(cache=True, fastmath=True)
def smooth_over_surface(values, normals, depth):
    """Means `[H, W, 3]` over neighbours that lie on the same smooth surface."""
    height, width = depth.shape
    result = np.zeros_like(values)
    for y in range(height):
        for x in range(width):
            if depth[y, x] <= 0:
                continue
            total, weight = np.zeros(3, dtype=np.float32), np.float32(0)
            for j in range(max(0, y - _SMOOTHING), min(height, y + _SMOOTHING + 1)):
                for i in range(max(0, x - _SMOOTHING), min(width, x + _SMOOTHING + 1)):
                    if depth[j, i] <= 0 or abs(depth[j, i] - depth[y, x]) > np.float32(0.06) * depth[y, x]:
                        continue
                    alike = (
                        normals[y, x, 0] * normals[j, i, 0]
                        + normals[y, x, 1] * normals[j, i, 1]
                        + normals[y, x, 2] * normals[j, i, 2]
                    )
                    if alike < np.float32(0.7):
                        continue
                    weight += 1
                    for k in range(3):
                        total[k] += values[j, i, k]
            for k in range(3):
                result[y, x, k] = total[k] / weight
    return result


def _shade(
    world: World, light: Light, hits: Hits, along: np.ndarray, around: np.ndarray, pixel: np.float32, noise: np.ndarray
) -> np.ndarray:
    """Radiance `[N, 3]` along rays, one for each pixel."""
    radiance = sky_radiance(light, along)
    where = np.flatnonzero(hits.distance < FAR_M)
    if not len(where):
        return radiance
    part = Hits(*(values[where] for values in (hits.primitive, hits.distance, hits.u, hits.v, hits.tint)))
    ray = along[where]
    albedo, normal, position, gloss, emission = _surface_at(world, part, ray, pixel, noise)
    start = position + normal * (1e-3 + 2e-4 * part.distance[:, None])
    received = around[where].copy()
    # A pixel at whose centre is sky has no light of its own yet.
    unlit = received.sum(axis=1) <= 0
    received[unlit] = 0.5 * np.array(light.horizon, dtype=np.float32)
    received *= math.pi
    to_viewer = -ray / np.linalg.norm(ray, axis=1, keepdims=True)
    shine = np.zeros_like(received)
    if max(light.sun) > 0:
        to_sun = np.array(light.to_sun, dtype=np.float32)
        cosine = normal @ to_sun
        lit = np.flatnonzero(cosine > 0)
        if len(lit):
            free = world.is_free(start[lit], np.broadcast_to(to_sun, (len(lit), 3)).copy())
            lit = lit[free]
            sun = np.array(light.sun, dtype=np.float32)
            received[lit] += cosine[lit, None] * sun
            shine[lit] += _highlight(normal[lit], to_sun, to_viewer[lit])[:, None] * sun
    for lamp in light.lamps:
        offset = np.array(lamp.position, dtype=np.float32) - position
        squared = (offset**2).sum(axis=1)
        cosine = (normal * offset).sum(axis=1) / np.sqrt(squared)
        power = np.array(lamp.power, dtype=np.float32)
        lit = np.flatnonzero((cosine > 0) & (power.max() * cosine / squared > 0.003))
        if len(lit):
            # Shadows end a little before the lamp, which hangs in its own shade.
            lit = lit[world.is_free(start[lit], offset[lit], 0.85)]
            toward = offset[lit] / np.sqrt(squared[lit, None])
            falling = (cosine[lit] / np.maximum(squared[lit], 0.04))[:, None] * power
            received[lit] += falling
            shine[lit] += _highlight(normal[lit], toward, to_viewer[lit])[:, None] * falling
    color = albedo * received / math.pi + gloss[:, None] * shine + albedo * emission[:, None]
    if gloss.max() > 0.02:
        # What mirrors reflects the sky or the light around, more of it at grazing angles (Schlick, 1994).
        facing = np.clip((normal * to_viewer).sum(axis=1), 0, 1)
        share = gloss * (0.08 + 0.92 * (1 - facing) ** 5)
        mirrored = 2 * facing[:, None] * normal - to_viewer
        color += share[:, None] * np.minimum(sky_radiance(light, mirrored.astype(np.float32)), around[where] * 3 + 0.02)
    if math.isfinite(light.haze_m):
        distance = part.distance * np.linalg.norm(ray, axis=1)
        veil = (1 - np.exp(-distance / light.haze_m))[:, None].astype(np.float32)
        color = color * (1 - veil) + np.array(light.horizon, dtype=np.float32) * veil
    radiance[where] = color * part.tint[:, None]
    return radiance


def _highlight(normal: np.ndarray, to_light: np.ndarray, to_viewer: np.ndarray) -> np.ndarray:
    """Blinn's highlight (1977) `[N]`, of a polish between varnish and plastic."""
    half = to_light + to_viewer
    half = half / np.maximum(np.linalg.norm(half, axis=1, keepdims=True), 1e-6)
    return np.clip((normal * half).sum(axis=1), 0, 1) ** 60 * 2


def sky_radiance(light: Light, direction: np.ndarray) -> np.ndarray:
    """Radiance `[N, 3]` from directions `[N, 3]` of any length where nothing is in the way."""
    return _sky(
        np.ascontiguousarray(direction, dtype=np.float32),
        np.array([light.zenith, light.horizon, light.ground, light.sun, light.to_sun], dtype=np.float32),
        np.float32(light.cloud),
        _sky_noise(),
        _NO_PHOTO if light.sky_photo is None else light.sky_photo,
    )


_NO_PHOTO = np.zeros((0, 0, 3), dtype=np.float32)


@functools.cache
def _sky_noise() -> np.ndarray:
    """Fractal noise `[256, 256]` that tiles, mean 0, for clouds."""
    rng = np.random.default_rng(11)
    spectrum = np.fft.fft2(rng.normal(size=(256, 256)))
    fy, fx = np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256), indexing="ij")
    frequency = np.hypot(fx, fy)
    frequency[0, 0] = 1
    clouds = np.fft.ifft2(spectrum / frequency**1.5).real
    return ((clouds - clouds.mean()) / clouds.std()).astype(np.float32)


@njit(cache=True, fastmath=True)
def _sky(direction, colors, cloud, clouds, photo):
    count = len(direction)
    result = np.zeros((count, 3), dtype=np.float32)
    for i in range(count):
        x, y, z = direction[i, 0], direction[i, 1], direction[i, 2]
        length = np.sqrt(x * x + y * y + z * z)
        up = -y / length
        if up < 0:
            for k in range(3):
                result[i, k] = colors[2, k] + (colors[1, k] - colors[2, k]) * max(np.float32(0), 1 + up * 8)
            continue
        share = np.sqrt(min(np.float32(1), up * np.float32(1.8)))
        spread = 1 / (length * (up + np.float32(0.12)))
        if photo.shape[0] > 0:
            row = int(abs(z * spread * 90)) % (2 * photo.shape[0])
            column = int(abs(x * spread * 90)) % (2 * photo.shape[1])
            row = row if row < photo.shape[0] else 2 * photo.shape[0] - 1 - row
            column = column if column < photo.shape[1] else 2 * photo.shape[1] - 1 - column
            fade = min(np.float32(1), up * 6)
            for k in range(3):
                result[i, k] = colors[1, k] * (1 - fade) + photo[row, column, k] * colors[0, k] * 2 * fade
        else:
            u, v = x * spread * 22 + 300, z * spread * 22 + 300
            u0, v0 = int(u), int(v)
            fu, fv = u - u0, v - v0
            value = (clouds[u0 % 256, v0 % 256] * (1 - fu) + clouds[(u0 + 1) % 256, v0 % 256] * fu) * (1 - fv)
            value += (clouds[u0 % 256, (v0 + 1) % 256] * (1 - fu) + clouds[(u0 + 1) % 256, (v0 + 1) % 256] * fu) * fv
            cover = cloud / (1 + np.exp(-4 * (value + 3 * cloud - np.float32(1.5))))
            grey = (colors[1, 0] + colors[1, 1] + colors[1, 2]) / 3 * (np.float32(1.15) - np.float32(0.2) * value)
            for k in range(3):
                clear = colors[1, k] + (colors[0, k] - colors[1, k]) * share
                result[i, k] = clear * (1 - cover) + grey * cover
        near = (x * colors[4, 0] + y * colors[4, 1] + z * colors[4, 2]) / length
        if near > np.float32(0.9):
            glow = np.exp((near - 1) * 900) * 30 + np.exp((near - 1) * 40) * np.float32(0.25)
            for k in range(3):
                result[i, k] += colors[3, k] * glow * (1 - np.float32(0.7) * cloud)
    return result
