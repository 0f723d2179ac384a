"""Depth-warped reprojection: every pixel's footprint is drawn where the new camera sees it, the nearest one wins.

A pixel is a small quad on its surface. Quads of one surface share their corners, so a slanted or magnified surface
shows no cracks; at a depth border they do not, so nothing is stretched across it and a hole opens instead. Planes are
linear in disparity over the picture, so slopes and corners are taken in disparity.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from depth_engine.geometry.cameras import Camera
from novel_view.warp.reproject_loops import warp_in_loops


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
    size = (target.height, target.width)
    if device != "cpu":
        from novel_view.warp.reproject_torch import warp_on

        return Warped(*warp_on(device, rgb, depth, forward, backward, size, antialias))
    return Warped(*warp_in_loops(rgb, depth, forward, backward, size, antialias))
