"""Depth of a network brought to agree with what the parallax of its clip says.

Parallax is right where it is sure, and knows nothing elsewhere; a network's depth is everywhere, and off by little from
pixel to pixel and by much over the picture and over time. So the network's depth is first brought to the parallax's
level frame by frame, then bent by a correction that is smooth over picture, depth and time and fades away from where
parallax is sure, and last averaged along the cameras' motion. Whether
it helps is judged in `shot_depth`, on regions that none of the steps has seen.

The numbers were chosen on rendered scenes of training (seeds from 1,000,000) and procedural ones from 2,000 up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from depth_engine.geometry.triangulation import Parallax, relative_camera

# Relative spread at which a triangulated disparity counts half, and from which it does not count.
_HALF_TRUST, _NO_TRUST = 0.05, 0.3
# Share of the median disparity that ratios are softened by: what is nearly at infinity differs by little.
SOFTENING = 0.1
_SAMPLES_PER_FRAME = 600  # of trusted pixels that a frame's level is fitted to
_LEVEL_ROUNDS = 15
_LEVEL_SMOOTHNESS = 20.0  # of the levels over time, against the data's own weight
_MOST_CORRECTION = 1.0  # of the logarithm of disparity: a factor of e
_PRIOR = 0.03  # weight of "no correction", as a share of a cell full of trusted pixels
_BASE_WEIGHT = 0.1  # of pixels without trust, where frames are averaged
_SAME_SURFACE = 0.3  # difference of the logarithm of disparity at which a frame's word counts 1/e
_REACH, _ROUNDS = 6, 3  # frames either side that are averaged, and how often


@dataclass(frozen=True)
class _Grid:
    """Cells of a correction.

    Attributes:
        cell_px: Side of a cell in the picture.
        bins: Cells over the range of disparity.
        frames: Spread over time.
    """

    cell_px: int
    bins: int
    frames: float


_GRIDS = (_Grid(32, 10, 3.0), _Grid(12, 20, 1.5))


class Levels(NamedTuple):
    """Disparity = scale * the network's + shift, of every frame: `[T]` each."""

    scale: np.ndarray
    shift: np.ndarray


def trust_of(parallax: Parallax) -> np.ndarray:
    """How much a triangulated disparity counts, float32 `[H, W]` from 0 to 1."""
    with np.errstate(invalid="ignore", over="ignore"):
        relative = parallax.sigma / np.maximum(parallax.disparity, 1e-12)
        trust = 1 / (1 + (relative / _HALF_TRUST) ** 2)
    return np.where((parallax.disparity > 0) & (relative < _NO_TRUST), trust, 0).astype(np.float32)


def typical_disparity(disparity: np.ndarray, trust: np.ndarray) -> float:
    """Median of the trusted disparities, `[T, H, W]` both; nan where there are none."""
    known = disparity[trust > 0]
    return float(np.median(known)) if known.size else float("nan")


def fit_levels(
    network: np.ndarray, disparity: np.ndarray, trust: np.ndarray, *, constant: bool = False
) -> Levels | None:
    """Scale and shift of every frame, smooth over time: iteratively reweighted least squares of relative errors.

    Args:
        network: The network's disparity `[T, H, W]`.
        disparity: By parallax, `[T, H, W]`.
        trust: `[T, H, W]`.
        constant: One scale and shift for all frames.

    Returns:
        None where too little is trusted, or the network's disparity is the same everywhere.
    """
    from scipy.sparse import block_diag, coo_array, csr_array, eye_array
    from scipy.sparse.linalg import spsolve

    count = len(network)
    typical = typical_disparity(disparity, trust)
    frames, inputs, targets, weights = [], [], [], []
    for frame in range(count):
        places = np.flatnonzero(trust[frame].ravel() > 0.05)
        places = places[np.random.default_rng(frame).permutation(len(places))[:_SAMPLES_PER_FRAME]]
        frames.append(np.full(len(places), 0 if constant else frame))
        inputs.append(network[frame].ravel()[places])
        targets.append(disparity[frame].ravel()[places])
        weights.append(trust[frame].ravel()[places])
    of, x, y, trusted = (np.concatenate(parts).astype(np.float64) for parts in (frames, inputs, targets, weights))
    of = of.astype(int)
    spread = float(x.std()) if len(x) else 0.0
    if len(x) < _SAMPLES_PER_FRAME or spread < 1e-6:
        return None
    middle, unknowns = float(x.mean()), 1 if constant else count
    u = (x - middle) / spread
    rows = np.arange(len(x))
    design = csr_array(
        coo_array(
            (np.concatenate([u, np.ones_like(u)]), (np.tile(rows, 2), np.concatenate([of, of + unknowns]))),
            shape=(len(x), 2 * unknowns),
        )
    )
    steps = np.arange(unknowns - 1)
    change = csr_array(
        coo_array(
            (np.repeat([-1.0, 1.0], unknowns - 1), (np.tile(steps, 2), np.concatenate([steps, steps + 1]))),
            shape=(unknowns - 1, unknowns),
        )
    )
    smooth = block_diag([change.T @ change] * 2)
    relative = 1 / (y + typical)
    robust = np.ones_like(x)
    held = np.zeros(2 * unknowns)
    for _ in range(_LEVEL_ROUNDS):
        weight = trusted * robust * relative**2
        strength = _LEVEL_SMOOTHNESS * float(weight.sum()) / unknowns
        normal = design.T @ (design * weight[:, None]) + strength * smooth + 1e-9 * strength * eye_array(2 * unknowns)
        held = np.asarray(spsolve(normal.tocsc(), design.T @ (weight * y)))
        error = (design @ held - y) * relative
        sigma = 1.4826 * float(np.median(np.abs(error))) + 1e-9  # of a normal distribution, from the median
        robust = 1 / (1 + (error / (2 * sigma)) ** 2)
    scale, level = held[:unknowns] / spread, held[unknowns:]
    shift = level - scale * middle
    return Levels(np.broadcast_to(scale, count), np.broadcast_to(shift, count))


def correct(levelled: np.ndarray, disparity: np.ndarray, trust: np.ndarray, typical: float) -> np.ndarray:
    """Disparity bent towards the parallax: coarse cells first, finer ones after.

    The grid over picture, depth and time is that of a bilateral filter (Chen, Paris and Durand, "Real-time Edge-Aware
    Image Processing with the Bilateral Grid", SIGGRAPH 2007): a correction does not cross a border of depth.

    Args:
        levelled: `[T, H, W]`, in the parallax's unit.
        disparity: By parallax, `[T, H, W]`.
        trust: `[T, H, W]`.
        typical: Of `disparity`.
    """
    for grid in _GRIDS:
        levelled = _correct_once(levelled, disparity, trust, typical, grid)
    return levelled


def _correct_once(
    levelled: np.ndarray, disparity: np.ndarray, trust: np.ndarray, typical: float, grid: _Grid
) -> np.ndarray:
    from scipy.ndimage import gaussian_filter, map_coordinates

    count, height, width = levelled.shape
    soft = SOFTENING * typical
    low, high = np.log(soft), np.log(1.5 * float(np.quantile(levelled, 0.999)) + 2 * soft)
    depth_cell = ((np.log(np.maximum(levelled, 0) + soft) - low) / (high - low) * (grid.bins - 1)).clip(
        0, grid.bins - 1
    )
    row_cell, column_cell = (side / grid.cell_px for side in np.mgrid[0:height, 0:width])
    shape = (int(row_cell.max()) + 2, int(column_cell.max()) + 2, grid.bins)
    sums, weights = np.zeros((2, count, *shape))
    for frame in range(count):
        wanted = np.log((disparity[frame] + soft) / (np.maximum(levelled[frame], 0) + soft))
        cells = np.ravel_multi_index(
            tuple(np.round(cell).astype(int) for cell in (row_cell, column_cell, depth_cell[frame])), shape
        ).ravel()
        weight = trust[frame].ravel().astype(np.float64)
        weighed = weight * wanted.clip(-_MOST_CORRECTION, _MOST_CORRECTION).ravel()
        sums[frame] = np.bincount(cells, weighed, int(np.prod(shape))).reshape(shape)
        weights[frame] = np.bincount(cells, weight, int(np.prod(shape))).reshape(shape)
    spread = (grid.frames, 1.0, 1.0, 1.0)
    sums, weights = (gaussian_filter(each, spread, mode="constant") for each in (sums, weights))
    field = sums / (weights + _PRIOR * grid.cell_px**2)
    corrected = np.empty_like(levelled)
    for frame in range(count):
        correction = map_coordinates(field[frame], [row_cell, column_cell, depth_cell[frame]], order=1, mode="nearest")
        corrected[frame] = (np.maximum(levelled[frame], 0) + soft) * np.exp(correction) - soft
    return corrected


def settle(
    disparity: np.ndarray, trust: np.ndarray, K: np.ndarray, camera_from_world: np.ndarray, typical: float
) -> np.ndarray:
    """Each frame's disparity averaged with what its neighbours say of the same surface, seen from the frame.

    Args:
        disparity: `[T, H, W]`, in one over the cameras' unit.
        trust: `[T, H, W]`.
        K: `[3, 3]`.
        camera_from_world: `[T, 4, 4]`.
        typical: Of `disparity`.
    """
    soft = SOFTENING * typical
    held = np.maximum(disparity, 1e-3 * typical).astype(np.float32)
    weights = trust + np.float32(_BASE_WEIGHT)
    for _ in range(_ROUNDS):
        settled = np.empty_like(held)
        for frame in range(len(held)):
            total = weights[frame].copy()
            sum_ = total * held[frame]
            for other in range(max(0, frame - _REACH), min(len(held), frame + _REACH + 1)):
                if other == frame:
                    continue
                pair = relative_camera(K, camera_from_world[frame], camera_from_world[other])
                seen, weight = _seen_from(held[frame], held[other], weights[other], pair)
                weight *= np.exp(-((np.log((seen + soft) / (held[frame] + soft)) / _SAME_SURFACE) ** 2))
                sum_ += weight * seen
                total += weight
            settled[frame] = sum_ / total
        held = settled
    return held


def _seen_from(
    disparity: np.ndarray, other: np.ndarray, weight: np.ndarray, pair: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Another frame's disparity, turned into that of this frame's pixels, and its weight there; `[H, W]` both."""
    turned, moved = (part.astype(np.float32) for part in pair)
    height, width = disparity.shape
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32) + 0.5, np.arange(height, dtype=np.float32) + 0.5)
    x, y, z = (turned[axis, 0] * columns + turned[axis, 1] * rows + turned[axis, 2] for axis in range(3))
    scaled = np.maximum(z + moved[2] * disparity, 1e-6)
    to_column = (x + moved[0] * disparity) / scaled - 0.5  # OpenCV counts from the centre of the first pixel
    to_row = (y + moved[1] * disparity) / scaled - 0.5
    inside = (to_column >= 0) & (to_column <= width - 1) & (to_row >= 0) & (to_row <= height - 1)
    there = cv2.remap(other, to_column, to_row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    weight = cv2.remap(weight, to_column, to_row, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    # The other's planar depth 1 / there is (z + moved_z * d) / d of this frame's disparity d.
    behind = 1 / np.maximum(there, 1e-9) - moved[2]
    good = inside & (behind > 1e-9) & (z > 0)
    return np.where(good, z / np.maximum(behind, 1e-9), disparity), np.where(good, weight, 0)
