"""Rays against a world of triangles, through Embree; what they hit, and what covers it there."""

from __future__ import annotations

import functools
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numba import njit

from depth_train.scenes.models.meshes import Mesh, Surface, merge

# Through so many leaves or panes of glass a ray goes on.
_MOST_LAYERS = 6
# Below this opacity (of glass) or alpha (of leaves) a ray goes through.
_SEE_THROUGH = 0.6
_GLASS_TINT = 0.85
NOISE_SIZE = 32


@dataclass(frozen=True)
class Hits:
    """Where N rays ended.

    Attributes:
        primitive: int32 `[N]`, -1 where nothing was hit.
        distance: float32 `[N]`, in lengths of the ray's direction; inf where nothing was hit.
        u: float32 `[N]`, barycentric weight of the triangle's second corner.
        v: float32 `[N]`, of its third.
        tint: float32 `[N]`, share of the light that glass on the way let through.
    """

    primitive: np.ndarray
    distance: np.ndarray
    u: np.ndarray
    v: np.ndarray
    tint: np.ndarray


class World:
    """Triangles, their materials in flat tables, and Embree's trees over them: a still part and one that moves.

    Args:
        still: What never moves.
        moving: Things that move, each about its own origin; `place` says where they are.
    """

    def __init__(self, still: list[Mesh], moving: list[Mesh] | None = None) -> None:
        self._moving = list(moving or ())
        whole = merge([*still, *self._moving])
        self._first_moving = sum(len(mesh.corners) for mesh in still)
        self.corners, self.uv = np.ascontiguousarray(whole.corners), np.ascontiguousarray(whole.uv)
        self.normals, self.surface = np.ascontiguousarray(whole.normals), np.ascontiguousarray(whole.surface)
        self.table, self.atlas, self.levels = _tables(whole.surfaces)
        self.texel_density = _texel_density(self.corners, self.uv, self.surface, self.table)
        self._still_scene = _build(self.corners[: self._first_moving])
        self._moving_scene = None
        self._placed = b""

    def place(self, poses: list[np.ndarray]) -> None:
        """Put the moving things at poses `[4, 4]` (world_from_thing), one for each."""
        key = b"".join(pose.tobytes() for pose in poses)
        if key == self._placed:
            return
        self._placed = key
        start = self._first_moving
        for mesh, pose in zip(self._moving, poses, strict=True):
            placed = mesh.moved(pose[:3, :3], pose[:3, 3])
            end = start + len(placed.corners)
            self.corners[start:end], self.normals[start:end] = placed.corners, placed.normals
            start = end
        self._moving_scene = _build(self.corners[self._first_moving :]) if self._moving else None

    def cast(self, origins: np.ndarray, directions: np.ndarray, *, see_through: bool = True) -> Hits:
        """Follow rays to the first surface that stops them.

        Args:
            origins: float32 `[N, 3]`.
            directions: float32 `[N, 3]`, of any length.
            see_through: Go through glass and through the holes of leaves; else stop at the first triangle.
        """
        count = len(origins)
        hits = Hits(
            np.full(count, -1, dtype=np.int32),
            np.full(count, np.inf, dtype=np.float32),
            np.zeros(count, dtype=np.float32),
            np.zeros(count, dtype=np.float32),
            np.ones(count, dtype=np.float32),
        )
        active = np.arange(count)
        start = np.ascontiguousarray(origins, dtype=np.float32)
        along = np.ascontiguousarray(directions, dtype=np.float32)
        passed = np.zeros(count, dtype=np.float32)
        for layer in range(_MOST_LAYERS):
            primitive, distance, u, v = self._nearest(start, along)
            stopped = primitive >= 0
            through = np.zeros(len(active), dtype=bool)
            if see_through and layer < _MOST_LAYERS - 1 and stopped.any():
                through = stopped & _lets_through(
                    primitive, u, v, self.uv, self.surface, self.table, self.atlas, self.levels
                )
            done = stopped & ~through
            where = active[done]
            hits.primitive[where], hits.u[where], hits.v[where] = primitive[done], u[done], v[done]
            hits.distance[where] = passed[where] + distance[done]
            if not through.any():
                break
            glass = through & (self.table[self.surface[np.maximum(primitive, 0)], 3] < _SEE_THROUGH)
            hits.tint[active[glass]] *= _GLASS_TINT
            # A ten-thousandth beyond the pane, and half a millimetre.
            step = distance[through] * np.float32(1.0001) + np.float32(5e-4) / np.linalg.norm(along[through], axis=1)
            active = active[through]
            passed[active] += step
            along = np.ascontiguousarray(along[through])
            start = np.ascontiguousarray(start[through] + along * step[:, None])
        return hits

    def is_free(self, origins: np.ndarray, directions: np.ndarray, reach: np.ndarray | float = np.inf) -> np.ndarray:
        """Bool `[N]`: nothing stands in the way, up to `reach` lengths of the direction; glass does not count."""
        return self.cast(origins, directions).distance >= reach

    def _nearest(self, start: np.ndarray, along: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        found = self._still_scene.run(start, along, output=1)
        primitive, distance, u, v = found["primID"].astype(np.int32), found["tfar"], found["u"], found["v"]
        if self._moving_scene is not None:
            other = self._moving_scene.run(start, along, output=1)
            nearer = (other["primID"] >= 0) & ((primitive < 0) | (other["tfar"] < distance))
            primitive = np.where(nearer, other["primID"] + self._first_moving, primitive).astype(np.int32)
            distance, u, v = (
                np.where(nearer, other[key], held) for key, held in (("tfar", distance), ("u", u), ("v", v))
            )
        return primitive, distance.astype(np.float32), u.astype(np.float32), v.astype(np.float32)


def _build(corners: np.ndarray) -> Any:
    from embreex.mesh_construction import TriangleMesh
    from embreex.rtcore_scene import EmbreeScene

    scene = EmbreeScene()
    index = np.arange(3 * len(corners), dtype=np.int32).reshape(-1, 3)
    TriangleMesh(scene, np.ascontiguousarray(corners.reshape(-1, 3)), index)
    return scene


def _tables(surfaces: tuple[Surface, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Materials as rows of numbers, and all their textures with smaller versions in one flat array.

    Returns:
        float32 `[S, 10]`: colour (3), opacity, gloss, emission, tile width, tile height, texture (-1: none), side of
        the texture in texels; uint8 `[M, 4]`: texels; int32 `[textures, levels, 3]`: first texel, height, width.
    """
    rows, pieces, levels = [], [], []
    known: dict[int, int] = {}
    start = 0
    for surface in surfaces:
        texture, side = -1, 1.0
        if surface.texture is not None:
            side = float(max(surface.texture.shape[:2]))
            texture = known.get(id(surface.texture), -1)
            if texture < 0:
                texture = known[id(surface.texture)] = len(levels)
                places = []
                for level in _smaller_versions(surface.texture):
                    places.append((start, level.shape[0], level.shape[1]))
                    pieces.append(level.reshape(-1, 4))
                    start += len(pieces[-1])
                levels.append(places)
        rows.append([*surface.color, surface.opacity, surface.gloss, surface.emission, *surface.tile_m, texture, side])
    atlas = np.concatenate(pieces) if pieces else np.zeros((1, 4), dtype=np.uint8)
    places = np.array(levels, dtype=np.int32) if levels else np.zeros((1, _LEVELS, 3), dtype=np.int32)
    return np.array(rows, dtype=np.float32), np.ascontiguousarray(atlas), places


_LEVELS = 9


@functools.lru_cache(maxsize=1)
def _known_levels() -> OrderedDict[int, tuple[np.ndarray, list[np.ndarray]]]:
    """Smaller versions of the textures seen last, by the array's identity (it is held, so its id stays its own)."""
    return OrderedDict()


def _smaller_versions(texture: np.ndarray) -> list[np.ndarray]:
    """The texture, and halves of it down to a texel or so; each texel is the mean of those under it."""
    known = _known_levels()
    if id(texture) not in known:
        versions = [texture]
        while len(versions) < _LEVELS:
            height, width = versions[-1].shape[:2]
            size = (max(1, width // 2), max(1, height // 2))
            versions.append(cv2.resize(versions[-1], size, interpolation=cv2.INTER_AREA))
        known[id(texture)] = (texture, versions)
        if len(known) > 1000:
            known.popitem(last=False)
    return known[id(texture)][1]


def _texel_density(corners: np.ndarray, uv: np.ndarray, surface: np.ndarray, table: np.ndarray) -> np.ndarray:
    """float32 `[N]`: texels a metre of each triangle, to choose among a texture's smaller versions."""
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    area = np.linalg.norm(np.cross(a, b), axis=1)
    p, q = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    uv_area = np.abs(p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0]) / (table[surface, 6] * table[surface, 7])
    return (np.sqrt(uv_area / np.maximum(area, 1e-12)) * table[surface, 9]).astype(np.float32)


@njit(cache=True, fastmath=True)
def _texel(atlas, levels, texture, level, x, y):
    """RGBA of a texture at coordinates in repeats, bilinear, as four floats in [0, 255]."""
    first, height, width = levels[texture, level, 0], levels[texture, level, 1], levels[texture, level, 2]
    px, py = (x - np.floor(x)) * width - 0.5, (y - np.floor(y)) * height - 0.5
    x0, y0 = int(np.floor(px)), int(np.floor(py))
    fx, fy = px - x0, py - y0
    xa, xb = x0 % width, (x0 + 1) % width
    ya, yb = y0 % height, (y0 + 1) % height
    wa, wb, wc, wd = (1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy
    ia, ib = first + ya * width + xa, first + ya * width + xb
    ic, id_ = first + yb * width + xa, first + yb * width + xb
    r = atlas[ia, 0] * wa + atlas[ib, 0] * wb + atlas[ic, 0] * wc + atlas[id_, 0] * wd
    g = atlas[ia, 1] * wa + atlas[ib, 1] * wb + atlas[ic, 1] * wc + atlas[id_, 1] * wd
    b = atlas[ia, 2] * wa + atlas[ib, 2] * wb + atlas[ic, 2] * wc + atlas[id_, 2] * wd
    a = atlas[ia, 3] * wa + atlas[ib, 3] * wb + atlas[ic, 3] * wc + atlas[id_, 3] * wd
    return r, g, b, a


@njit(cache=True, fastmath=True)
def _lets_through(primitive, u, v, uv, surface, table, atlas, levels):
    """Whether a ray goes on behind its hit: glass, or a hole in a leaf's picture."""
    through = np.zeros(len(primitive), dtype=np.bool_)
    for i in range(len(primitive)):
        p = primitive[i]
        if p < 0:
            continue
        row = table[surface[p]]
        if row[3] < _SEE_THROUGH:
            through[i] = True
        elif row[8] >= 0:
            w = 1 - u[i] - v[i]
            x = (w * uv[p, 0, 0] + u[i] * uv[p, 1, 0] + v[i] * uv[p, 2, 0]) / row[6]
            y = (w * uv[p, 0, 1] + u[i] * uv[p, 1, 1] + v[i] * uv[p, 2, 1]) / row[7]
            through[i] = _texel(atlas, levels, int(row[8]), 0, x, y)[3] < 128
    return through


@njit(cache=True, fastmath=True)
def look_up(hits, directions, footprint, shapes, textures, noise):
    """Albedo `[N, 3]`, normal towards the viewer `[N, 3]`, position `[N, 3]`, gloss `[N]`, emission `[N]` of hits.

    `hits` are primitive, u and v; `footprint` `[N]` is the width of a pixel there, in metres; `shapes` are corners, uv,
    normals and surface of the primitives, `textures` are table, texel density, atlas and levels of the world; `noise`
    `[S, S, S]` dirties plain colours.
    """
    primitive, u, v = hits
    corners, uv, normals, surface = shapes
    table, density, atlas, levels = textures
    count = len(primitive)
    albedo = np.zeros((count, 3), dtype=np.float32)
    normal = np.zeros((count, 3), dtype=np.float32)
    position = np.zeros((count, 3), dtype=np.float32)
    gloss = np.zeros(count, dtype=np.float32)
    emission = np.zeros(count, dtype=np.float32)
    size = noise.shape[0]
    for i in range(count):
        p = primitive[i]
        if p < 0:
            continue
        w0, w1, w2 = 1 - u[i] - v[i], u[i], v[i]
        length, facing = np.float32(1e-20), np.float32(0)
        for k in range(3):
            position[i, k] = w0 * corners[p, 0, k] + w1 * corners[p, 1, k] + w2 * corners[p, 2, k]
            normal[i, k] = w0 * normals[p, 0, k] + w1 * normals[p, 1, k] + w2 * normals[p, 2, k]
            length += normal[i, k] ** 2
            facing += normal[i, k] * directions[i, k]
        sign = -1 / np.sqrt(length) if facing > 0 else 1 / np.sqrt(length)
        for k in range(3):
            normal[i, k] *= sign
        row = table[surface[p]]
        dirt = np.float32(0)
        scale = np.float32(1.7)
        for _ in range(3):
            # Turned against the world's axes, along which floors and walls lie.
            px = (0.8 * position[i, 0] + 0.36 * position[i, 1] + 0.48 * position[i, 2]) * scale
            py = (-0.6 * position[i, 0] + 0.48 * position[i, 1] + 0.64 * position[i, 2]) * scale
            pz = (0.8 * position[i, 1] - 0.6 * position[i, 2]) * scale
            a, b, c = int(np.floor(px)) % size, int(np.floor(py)) % size, int(np.floor(pz)) % size
            fa, fb, fc = px - np.floor(px), py - np.floor(py), pz - np.floor(pz)
            fa, fb, fc = fa * fa * (3 - 2 * fa), fb * fb * (3 - 2 * fb), fc * fc * (3 - 2 * fc)
            a1, b1, c1 = (a + 1) % size, (b + 1) % size, (c + 1) % size
            near = (noise[a, b, c] * (1 - fa) + noise[a1, b, c] * fa) * (1 - fb)
            near += (noise[a, b1, c] * (1 - fa) + noise[a1, b1, c] * fa) * fb
            far = (noise[a, b, c1] * (1 - fa) + noise[a1, b, c1] * fa) * (1 - fb)
            far += (noise[a, b1, c1] * (1 - fa) + noise[a1, b1, c1] * fa) * fb
            # Noise finer than a pixel averages out.
            visible = min(np.float32(1), np.float32(0.5) / (footprint[i] * scale + np.float32(1e-6)))
            dirt += (near * (1 - fc) + far * fc) * visible * np.float32(0.07)
            scale *= np.float32(4.3)
        shade = max(np.float32(0.3), 1 + dirt)
        for k in range(3):
            albedo[i, k] = row[k] * shade
        if row[8] >= 0:
            x = (w0 * uv[p, 0, 0] + w1 * uv[p, 1, 0] + w2 * uv[p, 2, 0]) / row[6]
            y = (w0 * uv[p, 0, 1] + w1 * uv[p, 1, 1] + w2 * uv[p, 2, 1]) / row[7]
            level = int(np.log2(max(np.float32(1), footprint[i] * density[p])) + 0.5)
            level = min(level, levels.shape[1] - 1)
            red, green, blue, _ = _texel(atlas, levels, int(row[8]), level, x, y)
            albedo[i, 0] *= (red / 255) ** 2.2
            albedo[i, 1] *= (green / 255) ** 2.2
            albedo[i, 2] *= (blue / 255) ** 2.2
        gloss[i], emission[i] = row[4], row[5]
    return albedo, normal, position, gloss, emission
