"""What the source frame never saw: first from other frames that did, then painted from the background.

A hole opens behind a near thing that moved aside, so what belongs there continues the far side of its rim. The near
side must not leak in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numba
import numpy as np

from depth_engine.geometry.cameras import Camera
from novel_view.warp.reproject import Warped, warp

_DIRECTIONS = 16  # rays from a hole pixel to its rim
# The nearer end of a line across a hole counts as background too if its disparity is above the other's by this share.
_FAR_SIDE = 0.15
_SKY = 1e-9  # disparities below it are all the sky
_CLEARANCE = 1.5  # pixels to step past the rim: the first one behind a border is often mixed with the foreground
_SOFT_RADII = (2, 4, 8, 16, 32)  # of the blur, and how deep in a hole it begins, pixels
_STEADY = 0.75  # share of a filled pixel's last colour that stays, where the background did not change
_STEADY_RANGE = 24.0  # difference of colour, of 255, at which it is a change


def fill_spatial(view: Warped) -> Warped:
    """Paint holes from the far side of their rim.

    Lines go out from every hole pixel to the rim on both sides. The end that lies farther away gives its colour and
    disparity, the nearer one only if it is about as far; near ends and short lines weigh more.

    Args:
        view: From `warp`; not changed.

    Returns:
        The view without holes (as they are where nothing at all was seen); `hole` still says what was painted.
    """
    if not view.hole.any() or view.hole.all():
        return view
    with np.errstate(divide="ignore"):
        disparity = np.where(view.hole, 0, 1 / view.depth.astype(np.float64)).astype(np.float32)
    angles = (np.arange(_DIRECTIONS) + 0.5) * 2 * math.pi / _DIRECTIONS
    rays = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rgb, filled = _paint(view.rgb, disparity, view.hole, rays)
    rgb = _soften(rgb, view.hole)
    with np.errstate(divide="ignore"):
        depth = np.where(view.hole, 1 / filled.astype(np.float64), view.depth).astype(np.float32)
    return Warped(rgb, depth, view.hole)


def _soften(rgb: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Painted pixels blurred among themselves, the more the deeper they lie in a hole: rays leave streaks there."""
    import cv2

    depth_px = cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, 3)
    soft = rgb.copy()
    for radius in _SOFT_RADII:
        deep = depth_px > radius
        if not deep.any():
            break
        size = (2 * radius + 1, 2 * radius + 1)
        share = cv2.blur(hole.astype(np.float32), size)
        total = cv2.blur(rgb.astype(np.float32) * hole[..., None], size)
        soft[deep] = np.clip(np.rint(total[deep] / share[deep][:, None]), 0, 255).astype(np.uint8)
    return soft


@numba.njit(cache=True, parallel=True)
def _paint(rgb, disparity, hole, rays):
    height, width = hole.shape
    out_rgb, out_disparity = rgb.copy(), disparity.copy()
    count = len(rays)
    for line in numba.prange(height):
        y = np.int64(line)
        rim_y, rim_x = np.empty(count, np.int64), np.empty(count, np.int64)
        distance, weight = np.empty(count), np.empty(count)
        for x in range(width):
            if not hole[y, x]:
                continue
            for ray in range(count):
                distance[ray] = np.inf
                weight[ray] = 0.0
                step = 1.0
                while True:
                    ny = int(math.floor(y + 0.5 + rays[ray, 1] * step))
                    nx = int(math.floor(x + 0.5 + rays[ray, 0] * step))
                    if ny < 0 or ny >= height or nx < 0 or nx >= width:
                        break
                    if not hole[ny, nx]:
                        past_y = int(math.floor(y + 0.5 + rays[ray, 1] * (step + _CLEARANCE)))
                        past_x = int(math.floor(x + 0.5 + rays[ray, 0] * (step + _CLEARANCE)))
                        inside = 0 <= past_y < height and 0 <= past_x < width
                        if inside and not hole[past_y, past_x]:
                            ny, nx = past_y, past_x
                        rim_y[ray], rim_x[ray], distance[ray] = ny, nx, step
                        break
                    step += 1.0
            # Of the two ends of a line across the hole the farther one is background, the nearer one if it is alike.
            shortest, background = np.inf, np.inf
            for ray in range(count // 2):
                other = ray + count // 2
                across = distance[ray] + distance[other]
                if across == np.inf:
                    continue
                here, there = disparity[rim_y[ray], rim_x[ray]], disparity[rim_y[other], rim_x[other]]
                if here <= there * (1 + _FAR_SIDE) + _SKY:
                    weight[ray] = 1 / (across * distance[ray])
                if there <= here * (1 + _FAR_SIDE) + _SKY:
                    weight[other] = 1 / (across * distance[other])
                if across < shortest:
                    shortest, background = across, min(here, there)
            # At the picture's rim lines have one end: it counts if it is no nearer than the background found so far.
            if background == np.inf:
                for ray in range(count):
                    if distance[ray] < np.inf:
                        background = min(background, disparity[rim_y[ray], rim_x[ray]])
            for ray in range(count):
                one_ended = distance[ray] < np.inf and distance[(ray + count // 2) % count] == np.inf
                if one_ended and disparity[rim_y[ray], rim_x[ray]] <= background * (1 + _FAR_SIDE) + _SKY:
                    weight[ray] = 1 / (distance[ray] * distance[ray])
            weights, far = 0.0, 0.0
            red, green, blue = 0.0, 0.0, 0.0
            for ray in range(count):
                if weight[ray] == 0:
                    continue
                ny, nx = rim_y[ray], rim_x[ray]
                weights += weight[ray]
                far += weight[ray] * disparity[ny, nx]
                red += weight[ray] * rgb[ny, nx, 0]
                green += weight[ray] * rgb[ny, nx, 1]
                blue += weight[ray] * rgb[ny, nx, 2]
            if weights == 0:
                continue
            out_disparity[y, x] = far / weights
            out_rgb[y, x, 0] = np.uint8(red / weights + 0.5)
            out_rgb[y, x, 1] = np.uint8(green / weights + 0.5)
            out_rgb[y, x, 2] = np.uint8(blue / weights + 0.5)
    return out_rgb, out_disparity


def steady(view: Warped, last: Warped | None) -> Warped:
    """Keep painted pixels from flickering: each leans on its last colour, unless the background changed.

    Args:
        view: Filled; `hole` says what was painted.
        last: The view before it, treated likewise, of the same shot; None: there is none.
    """
    if last is None:
        return view
    both = view.hole & last.hole
    if not both.any():
        return view
    new, old = view.rgb[both].astype(np.float32), last.rgb[both].astype(np.float32)
    alike = np.exp(-np.square((new - old).mean(1) / _STEADY_RANGE))
    kept = (_STEADY * alike)[:, None]
    rgb = view.rgb.copy()
    rgb[both] = np.rint(kept * old + (1 - kept) * new).astype(np.uint8)
    return view._replace(rgb=rgb)


def fill_from_frames(
    view: Warped, target: Camera, others: Iterable[tuple[np.ndarray, np.ndarray, Camera]], *, device: str = "cpu"
) -> tuple[Warped, np.ndarray]:
    """Take what is missing from other frames of the shot, the first one that saw a place.

    A thing that moved may stand elsewhere in another frame, so only what lies behind the rim's far side is taken: a
    place is refused if it is nearer than what surrounds the hole.

    Args:
        view: From `warp`.
        target: The new camera, in the world.
        others: Picture, planar depth and camera in the world of each other frame, the best first.
        device: Where to compute, as `warp` takes it.

    Returns:
        The view, holes smaller; and bool `[H, W]`: what was taken from other frames.
    """
    taken = np.zeros_like(view.hole)
    for rgb, depth, camera in others:
        if not view.hole.any():
            break
        seen = warp(rgb, depth, camera, target, device=device)
        painted = fill_spatial(view)
        with np.errstate(divide="ignore", invalid="ignore"):
            behind = ~(1 / seen.depth > (1 + _FAR_SIDE) / painted.depth)
        use = view.hole & ~seen.hole & behind
        view = Warped(
            np.where(use[..., None], seen.rgb, view.rgb), np.where(use, seen.depth, view.depth), view.hole & ~use
        )
        taken |= use
    return view, taken
