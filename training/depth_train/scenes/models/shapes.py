"""Meshes of plain shapes: what rooms, streets and grounds are built of. Texture coordinates are metres."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from depth_train.scenes.models.meshes import Mesh, Surface, flat_normals

Point = Sequence[float] | np.ndarray


def turn_y(yaw: float) -> np.ndarray:
    """Rotation `[3, 3]` about the vertical: yaw turns z towards x."""
    c, s = math.cos(yaw), math.sin(yaw)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def mesh_of(corners: np.ndarray, uv: np.ndarray, surface: Surface, normals: np.ndarray | None = None) -> Mesh:
    """A mesh of one material."""
    corners = np.asarray(corners, dtype=np.float32)
    if normals is None:
        normals = flat_normals(corners)
    number = np.zeros(len(corners), dtype=np.int32)
    return Mesh(corners, np.asarray(uv, dtype=np.float32), np.asarray(normals, dtype=np.float32), number, (surface,))


def quad(origin: Point, edge_u: Point, edge_v: Point, surface: Surface) -> Mesh:
    """A flat rectangle from a corner along two edges."""
    o, u, v = (np.asarray(p, dtype=np.float64) for p in (origin, edge_u, edge_v))
    long, high = float(np.linalg.norm(u)), float(np.linalg.norm(v))
    corners = [[o, o + u, o + u + v], [o, o + u + v, o + v]]
    uv = [[[0, 0], [long, 0], [long, high]], [[0, 0], [long, high], [0, high]]]
    return mesh_of(np.array(corners), np.array(uv), surface)


def box(centre: Point, size: Point, surface: Surface, yaw: float = 0.0, fit: bool = False) -> Mesh:
    """A block, centred, turned about the vertical.

    Args:
        centre: `[3]`.
        size: Width (x), height (y), depth (z).
        surface: Of all six sides.
        yaw: Radians.
        fit: Stretch one repeat of the texture over each side, as on a book or a crate.
    """
    corners, uv = [], []
    half = np.asarray(size, dtype=np.float64) / 2
    for axis in range(3):
        for sign in (-1, 1):
            a, b = ((2, 1), (0, 2), (0, 1))[axis]
            normal, u, v = np.zeros(3), np.zeros(3), np.zeros(3)
            normal[axis], u[a], v[b] = sign * half[axis], 2 * half[a], 2 * half[b]
            o = normal - u / 2 - v / 2
            corners += [[o, o + u, o + u + v], [o, o + u + v, o + v]]
            w, h = surface.tile_m if fit else (2 * half[a], 2 * half[b])
            uv += [[[0, 0], [w, 0], [w, h]], [[0, 0], [w, h], [0, h]]]
    placed = np.array(corners) @ turn_y(yaw).T + np.asarray(centre, dtype=np.float64)
    return mesh_of(placed, np.array(uv), surface)


def cylinder(base: Point, radius: float, height: float, surface: Surface, top_radius: float | None = None) -> Mesh:
    """An upright round post, bottle or trunk with a lid; `top_radius` makes it a cone."""
    sides = 14
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    ring = np.stack([np.cos(angle), np.zeros(sides + 1), np.sin(angle)], axis=1)
    low = ring * radius + np.asarray(base)
    high = ring * (radius if top_radius is None else top_radius) + np.asarray(base) + [0, -height, 0]
    tip = np.asarray(base, dtype=np.float64) + [0, -height, 0]
    corners, uv, normals = [], [], []
    round_ = 2 * math.pi * radius
    for i in range(sides):
        u0, u1 = i / sides * round_, (i + 1) / sides * round_
        corners += [[low[i], low[i + 1], high[i + 1]], [low[i], high[i + 1], high[i]], [high[i], high[i + 1], tip]]
        uv += [
            [[u0, height], [u1, height], [u1, 0]],
            [[u0, height], [u1, 0], [u0, 0]],
            [[0, 0], [0.1, 0], [0.05, 0.1]],
        ]
        up = np.array([0.0, -1.0, 0.0])
        normals += [[ring[i], ring[i + 1], ring[i + 1]], [ring[i], ring[i + 1], ring[i]], [up, up, up]]
    return mesh_of(np.array(corners), np.array(uv), surface, np.array(normals))


def ball(centre: Point, radii: Point, surface: Surface) -> Mesh:
    """An ellipsoid."""
    rows, columns = 10, 16
    latitude, longitude = np.linspace(-np.pi / 2, np.pi / 2, rows + 1), np.linspace(0, 2 * np.pi, columns + 1)
    unit = np.stack(
        [
            np.cos(latitude)[:, None] * np.cos(longitude),
            np.repeat(np.sin(latitude)[:, None], columns + 1, axis=1),
            np.cos(latitude)[:, None] * np.sin(longitude),
        ],
        axis=-1,
    )
    size = float(np.mean(radii))
    uv = np.stack(np.broadcast_arrays(longitude * size, (latitude * size)[:, None]), axis=-1)
    return _grid(unit * np.asarray(radii) + np.asarray(centre), uv, surface, unit / np.asarray(radii))


def ground(size_m: float, heights: np.ndarray, surface: Surface, centre: tuple[float, float] = (0.0, 0.0)) -> Mesh:
    """A square of land with heights `[n, n]` above y = 0."""
    count = len(heights)
    axis = np.linspace(-size_m / 2, size_m / 2, count)
    x, z = np.meshgrid(axis + centre[0], axis + centre[1])
    points = np.stack([x, -heights, z], axis=-1)
    step = size_m / (count - 1)
    slope_z, slope_x = np.gradient(heights, step)
    normals = np.stack([-slope_x, -np.ones_like(x), -slope_z], axis=-1)
    return _grid(points, np.stack([x, z], axis=-1), surface, normals)


def tube(points: np.ndarray, radius: float, surface: Surface) -> Mesh:
    """A round bar along points `[n, 3]`: a branch, a cable, a rail."""
    points = np.asarray(points, dtype=np.float64)
    along = np.gradient(points, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True) + 1e-9
    side = np.cross(along, [0.31, 0.9, 0.3])
    side /= np.linalg.norm(side, axis=1, keepdims=True) + 1e-9
    other = np.cross(along, side)
    angle = np.linspace(0, 2 * np.pi, 7)[:, None]
    normals = side[:, None] * np.cos(angle) + other[:, None] * np.sin(angle)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    uv = np.stack(np.broadcast_arrays(angle[:, 0] * radius, length[:, None]), axis=-1)
    return _grid(points[:, None] + normals * radius, uv, surface, normals)


def wall(
    start: Point,
    end: Point,
    height: float,
    surface: Surface,
    openings: Sequence[tuple[float, float, float, float]] = (),
    thickness: float = 0.15,
    reveal: Surface | None = None,
) -> list[Mesh]:
    """An upright wall between two points of the ground `(x, z)`, with rectangular holes.

    Args:
        start: Where it begins.
        end: Where it ends.
        height: Metres.
        surface: Its face.
        openings: Left end and bottom above the ground, width and height, in metres; apart from each other.
        thickness: Depth of the holes.
        reveal: Sides of the holes.
    """
    a, b = np.array([start[0], 0.0, start[1]]), np.array([end[0], 0.0, end[1]])
    length = float(np.linalg.norm(b - a))
    along = (b - a) / length
    up = np.array([0.0, -1.0, 0.0])
    back = np.cross(along, up) * thickness
    parts: list[Mesh] = []

    def panel(left: float, bottom: float, width: float, high: float) -> None:
        if width > 1e-3 and high > 1e-3:
            for shift in (np.zeros(3), back):
                corner = a + along * left + up * bottom + shift
                part = quad(corner, along * width, up * high, surface)
                # Textures go on across panels.
                parts.append(
                    Mesh(
                        part.corners,
                        part.uv * [1, -1] + np.array([left, -bottom], dtype=np.float32),
                        part.normals,
                        part.surface,
                        part.surfaces,
                    )
                )

    at = 0.0
    for left, bottom, width, high in sorted(openings):
        panel(at, 0, left - at, height)
        panel(left, 0, width, bottom)
        panel(left, bottom + high, width, height - bottom - high)
        corner, edge = a + along * left + up * bottom, along * width
        for origin, edges in (
            (corner, (edge, back)),
            (corner + up * high, (edge, back)),
            (corner, (up * high, back)),
            (corner + edge, (up * high, back)),
        ):
            parts.append(quad(origin, *edges, reveal or surface))
        at = left + width
    panel(at, 0, length - at, height)
    return [Mesh(p.corners, p.uv.astype(np.float32), p.normals, p.surface, p.surfaces) for p in parts]


def stairs(foot: Point, yaw: float, width: float, steps: int, surface: Surface, rise: float = 0.17) -> list[Mesh]:
    """Steps that climb away along yaw's forward direction from a point of the ground `(x, z)`."""
    turn, parts = turn_y(yaw), []
    for i in range(steps):
        centre = turn @ np.array([0, 0, 0.29 * (i + 0.5)]) + [foot[0], -rise * (i + 1) / 2, foot[1]]
        parts.append(box(centre, (width, rise * (i + 1), 0.29), surface, yaw))
    return parts


def _grid(points: np.ndarray, uv: np.ndarray, surface: Surface, normals: np.ndarray) -> Mesh:
    """Two triangles for each cell of a grid `[r, c, 3]`."""
    normals = normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)

    def cut(values: np.ndarray) -> np.ndarray:
        a, b, c, d = values[:-1, :-1], values[:-1, 1:], values[1:, 1:], values[1:, :-1]
        return np.stack([np.stack([a, b, c], axis=2), np.stack([a, c, d], axis=2)], axis=2).reshape(
            -1, 3, values.shape[-1]
        )

    return mesh_of(cut(points), cut(uv), surface, cut(normals))
