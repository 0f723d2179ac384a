"""Disparity from the parallax between a frame and its neighbours, with how sure it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from depth_engine.geometry.matches import Matches

# Spread of a good match in pixels: dense inverse search is rarely better.
_MATCH_SIGMA_PX = 0.35
# A match that returns farther away, or lies farther from its epipolar line, is no match of a still point.
_MOST_RETURNED_PX = 1.5
_MOST_EPIPOLAR_PX = 1.5
# Of matches that count where cameras are judged: how near they return, and how near their line they must lie.
_RETURNED_PX, _ON_LINE_PX = 1.0, 1.0
# Frames away that neighbours are looked for.
_STEPS = (1, 2, 3, 5, 8, 12, 16, 24)
# Parallax of a typical point as a share of the picture's width: precise, and a quarter of it, which what is four times
# as near has where the first is too much for the flow.
_WANTED_PARALLAX = (0.06, 0.015)
# Estimates of several neighbours farther apart than this many of their spreads show a thing that moves.
_MOST_DISAGREEMENT = 3.0


class Parallax(NamedTuple):
    """Disparity of a frame from its neighbours, in one over the cameras' unit.

    Attributes:
        disparity: float32 `[H, W]`; 0 where nothing is known.
        sigma: float32 `[H, W]`, its standard deviation; inf where nothing is known.
    """

    disparity: np.ndarray
    sigma: np.ndarray


def relative_camera(
    K: np.ndarray, camera_from_world: np.ndarray, other_from_world: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A and b such that a pixel (column, row, 1) at disparity d falls on the other camera's A pixel + d b.

    The plane-plus-parallax form of two views: A = K R K^-1, b = K t (Hartley and Zisserman, Multiple View Geometry,
    section 13.3).
    """
    other_from_camera = other_from_world @ np.linalg.inv(camera_from_world)
    return K @ other_from_camera[:3, :3] @ np.linalg.inv(K), K @ other_from_camera[:3, 3]


def parallax_of(K: np.ndarray, camera_from_world: np.ndarray, other_from_world: np.ndarray, disparity: float) -> float:
    """How far a point in the picture's middle moves by the change of place alone, in pixels.

    Args:
        K: `[3, 3]`, principal point in the middle.
        camera_from_world: `[4, 4]`.
        other_from_world: `[4, 4]`.
        disparity: Of the point.
    """
    turned, moved = relative_camera(K, camera_from_world, other_from_world)
    far = turned @ np.array([K[0, 2], K[1, 2], 1.0])
    near = far + disparity * moved
    if near[2] <= 0 or far[2] <= 0:
        return float("inf")
    sideways = float(np.linalg.norm(near[:2] / near[2] - far[:2] / far[2]))
    # A move along the line of sight shows away from the middle: count it as at a quarter of the picture's width.
    along = abs(float(disparity * moved[2])) * K[0, 2] / 2
    return float(np.hypot(sideways, along))


def choose_neighbours(
    frame: int, K: np.ndarray, camera_from_world: np.ndarray, disparity: float, width: int
) -> list[int]:
    """Frames before and after that see a typical point with a wide parallax, and with a small one for what is near.

    Args:
        frame: Index of the frame.
        K: `[3, 3]`.
        camera_from_world: `[T, 4, 4]`.
        disparity: Of a typical point, in one over the cameras' unit.
        width: Of the picture in pixels.
    """
    chosen = set()
    for side in (-1, 1):
        others = [frame + side * step for step in _STEPS if 0 <= frame + side * step < len(camera_from_world)]
        if not others:
            continue
        here = camera_from_world[frame]
        parallax_px = np.array([parallax_of(K, here, camera_from_world[other], disparity) for other in others])
        for wanted in _WANTED_PARALLAX:
            off = np.abs(np.log(np.maximum(parallax_px, 1e-6) / (wanted * width)))
            chosen.add(others[int(np.argmin(off))])
    return sorted(chosen)


class PairEstimate(NamedTuple):
    """What one neighbour says.

    Attributes:
        parallax: Disparity and its spread.
        on_line: Share of the good matches that lie on their epipolar lines; nan where there is no good match.
    """

    parallax: Parallax
    on_line: float


def triangulate_pair(
    matches: Matches, K: np.ndarray, camera_from_world: np.ndarray, other_from_world: np.ndarray
) -> PairEstimate:
    """Disparity by one neighbour: least squares along the epipolar line.

    Args:
        matches: Of the frame with the neighbour.
        K: `[3, 3]` of both pictures.
        camera_from_world: `[4, 4]` of the frame.
        other_from_world: `[4, 4]` of the neighbour.
    """
    height, width = matches.returned_px.shape
    turned, moved = relative_camera(K, camera_from_world, other_from_world)
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    a = turned @ np.stack([columns.ravel(), rows.ravel(), np.ones(rows.size)])
    ax, ay, az = a.reshape(3, height, width)
    qx, qy = matches.pixels[..., 0].astype(np.float64), matches.pixels[..., 1].astype(np.float64)
    gx, gy = moved[0] - qx * moved[2], moved[1] - qy * moved[2]  # of the match's place by disparity, times z
    hx, hy = qx * az - ax, qy * az - ay
    slope = np.maximum(gx * gx + gy * gy, 1e-18)
    disparity = (gx * hx + gy * hy) / slope
    z = np.maximum(az + disparity * moved[2], 1e-6)
    epipolar_px = np.abs(gx * hy - gy * hx) / np.sqrt(slope) / z
    spread_px = np.sqrt(_MATCH_SIGMA_PX**2 + (matches.returned_px / 2) ** 2 + epipolar_px**2)
    sigma = spread_px * z / np.sqrt(slope)
    good = (matches.returned_px < _MOST_RETURNED_PX) & (epipolar_px < _MOST_EPIPOLAR_PX) & (disparity > 0)
    parallax = Parallax(
        np.where(good, disparity, 0).astype(np.float32), np.where(good, sigma, np.inf).astype(np.float32)
    )
    returned = matches.returned_px < _RETURNED_PX
    on_line = float((epipolar_px[returned] < _ON_LINE_PX).mean()) if returned.any() else float("nan")
    return PairEstimate(parallax, on_line)


def agree(estimates: Sequence[Parallax]) -> Parallax:
    """One disparity from several neighbours' estimates: their mean by precision, unsure where they disagree.

    A thing that moves along its epipolar line gives a clean match and a wrong disparity; neighbours at other distances
    give another one.
    """
    disparity = np.stack([each.disparity for each in estimates]).astype(np.float64)
    weight = 1 / np.stack([each.sigma for each in estimates]).astype(np.float64) ** 2
    total = weight.sum(axis=0)
    known = total > 0
    mean = (weight * disparity).sum(axis=0) / np.maximum(total, 1e-30)
    variance = 1 / np.maximum(total, 1e-30)
    off = (weight * (disparity - mean) ** 2).sum(axis=0)  # chi squared
    count = (weight > 0).sum(axis=0)
    per_freedom = off / np.maximum(count - 1, 1)
    # One estimate alone can't be checked by another: it counts as if it disagreed a little.
    spread = np.where(count > 1, np.maximum(per_freedom, 1), 2.0)
    sigma = np.sqrt(variance * spread)
    known &= per_freedom < _MOST_DISAGREEMENT**2
    return Parallax(np.where(known, mean, 0).astype(np.float32), np.where(known, sigma, np.inf).astype(np.float32))
