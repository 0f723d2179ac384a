"""Clouds of coloured points: from depth, and to PLY files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from depth_engine.geometry.cameras import Camera
from depth_engine.geometry.tracking import lift

# A point beside which depth changes by this share lies on a border, where depth belongs to no surface.
_BORDER = 0.06


def write_ply(path: Path, points: np.ndarray, colors: np.ndarray) -> None:
    """Write a binary little-endian PLY file.

    Args:
        path: Where to.
        points: `[N, 3]`.
        colors: uint8 `[N, 3]`.
    """
    rows = np.empty(len(points), dtype=[("xyz", "<f4", 3), ("rgb", "u1", 3)])
    rows["xyz"], rows["rgb"] = points, colors
    fields = [f"property float {axis}" for axis in "xyz"] + [
        f"property uchar {name}" for name in ("red", "green", "blue")
    ]
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}", *fields, "end_header"]
    path.write_bytes("\n".join(head).encode() + b"\n" + rows.tobytes())


def cloud(rgb: np.ndarray, depth: np.ndarray, camera: Camera, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points of a frame, drawn evenly over the picture; none at depth borders or where depth is unknown.

    Args:
        rgb: uint8 `[H, W, 3]`.
        depth: Planar depth `[H, W]`; inf, nan or 0: unknown.
        camera: Of this frame and size.
        count: How many at the most.
        seed: Of the draw.

    Returns:
        Points `[N, 3]` in the world and colours uint8 `[N, 3]`.
    """
    import cv2

    known = np.isfinite(depth) & (depth > 0)
    held = np.where(known, depth, 0).astype(np.float32)
    window = np.ones((3, 3), np.uint8)
    even = known & (cv2.dilate(held, window) <= cv2.erode(held, window) * (1 + _BORDER))
    rows, columns = np.nonzero(even)
    chosen = np.random.default_rng(seed).permutation(len(rows))[:count]
    rows, columns = rows[chosen], columns[chosen]
    pixels = np.column_stack([columns, rows]) + 0.5
    return lift(pixels, held[rows, columns].astype(np.float64), camera.world_from_camera, camera.K), rgb[rows, columns]
