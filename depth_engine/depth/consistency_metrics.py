"""How well the depth of neighbouring frames agrees in space, by known cameras: MFC and TAE.

Both move every pixel of a frame to the next by its depth, the intrinsics and the poses, and compare depth there:

* `multi_frame_consistency`: ChronoDepth's MFC (arXiv 2406.01493): mean |difference| in the unit of depth.
* `temporal_alignment_error`: Video Depth Anything's TAE (arXiv 2501.12375): mean of |difference| / depth in per cent,
  both directions. With a z-buffer and without points behind the camera, which its published script lacks.

Prediction first gets its one scale and shift per clip (`metrics.py`). The truth has a floor above 0 in both: points go
to whole pixels, and what is hidden or moves does not agree.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def project_depth(
    depth_m: np.ndarray, K: np.ndarray, world_from_first: np.ndarray, world_from_second: np.ndarray
) -> np.ndarray:
    """Depth of a frame's points as a second camera sees them, at the nearest pixel; the nearest point wins.

    Args:
        depth_m: Planar depth `[H, W]`; values that are not finite and above 0 are left out.
        K: `[3, 3]`, pixels, centres at +0.5.
        world_from_first: `[4, 4]`, OpenCV axes, pose of the frame.
        world_from_second: `[4, 4]`, pose of the second camera.

    Returns:
        float64 `[H, W]`, nan where no point falls.
    """
    height, width = depth_m.shape
    rows, columns = np.nonzero(np.isfinite(depth_m) & (depth_m > 0))
    rays = np.stack([columns + 0.5, rows + 0.5, np.ones(len(rows))]).T @ np.linalg.inv(K).T
    second_from_first = np.linalg.inv(world_from_second) @ world_from_first
    points = (rays * depth_m[rows, columns][:, None]) @ second_from_first[:3, :3].T + second_from_first[:3, 3]
    points = points[points[:, 2] > 0]
    pixels = points @ K.T
    column, row = (np.floor(pixels[:, axis] / points[:, 2]) for axis in (0, 1))
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    seen = np.full(height * width, np.inf)
    places = (row[inside] * width + column[inside]).astype(np.int64)
    np.minimum.at(seen, places, points[inside, 2])
    return np.where(np.isinf(seen), np.nan, seen).reshape(height, width)


def multi_frame_consistency(
    depth_m: np.ndarray, K: np.ndarray, world_from_camera: np.ndarray, visible: Sequence[np.ndarray] | None = None
) -> float:
    """MFC: the mean over neighbouring frames of `consistency_by_pair`; pairs that share nothing do not count.

    It takes the same arguments.

    Raises:
        ValueError: Shapes disagree, or no pair shares a pixel.
    """
    errors = consistency_by_pair(depth_m, K, world_from_camera, visible)
    if np.isnan(errors).all():
        raise ValueError("depth_m: no two neighbouring frames share a pixel; check the poses")
    return float(np.nanmean(errors))


def consistency_by_pair(
    depth_m: np.ndarray, K: np.ndarray, world_from_camera: np.ndarray, visible: Sequence[np.ndarray] | None = None
) -> np.ndarray:
    """Mean |D_{m->n} - D_n| of each two neighbouring frames m, n = m + 1, in the unit of depth.

    Args:
        depth_m: Aligned planar depth `[T, H, W]`, T >= 2.
        K: `[3, 3]`.
        world_from_camera: `[T, 4, 4]`, OpenCV axes, in depth's unit.
        visible: For each pair, pixels `[H, W]` of the later frame to compare (see `visible_pairs`); None: all that a
            point of the earlier one falls on.

    Returns:
        `[T - 1]`; nan where a pair shares nothing.

    Raises:
        ValueError: Shapes disagree.
    """
    _check(depth_m, K, world_from_camera)
    errors = np.full(len(depth_m) - 1, np.nan)
    for n in range(1, len(depth_m)):
        moved, compared = _meet(depth_m, K, world_from_camera, n - 1, n)
        if visible is not None:
            compared &= visible[n - 1]
        if compared.any():
            errors[n - 1] = np.abs(moved - depth_m[n])[compared].mean()
    return errors


def temporal_alignment_error(depth_m: np.ndarray, K: np.ndarray, world_from_camera: np.ndarray) -> float:
    """TAE in per cent: mean |D_{m->n} - D_n| / D_n over neighbouring frames, both directions.

    Args:
        depth_m: Aligned planar depth `[T, H, W]`, T >= 2.
        K: `[3, 3]`.
        world_from_camera: `[T, 4, 4]`, OpenCV axes, in depth's unit.

    Raises:
        ValueError: Shapes disagree, or no pair shares a pixel.
    """
    _check(depth_m, K, world_from_camera)
    errors = []
    for n in range(1, len(depth_m)):
        for source, target in ((n - 1, n), (n, n - 1)):
            moved, compared = _meet(depth_m, K, world_from_camera, source, target)
            if compared.any():
                errors.append((np.abs(moved - depth_m[target])[compared] / depth_m[target][compared]).mean())
    if not errors:
        raise ValueError("depth_m: no two neighbouring frames share a pixel; check the poses")
    return 100 * float(np.mean(errors))


def visible_pairs(
    depth_m: np.ndarray, K: np.ndarray, world_from_camera: np.ndarray, tolerance: float = 0.05
) -> list[np.ndarray]:
    """For each pair of neighbouring frames, the pixels of the later one that show the same still point in both.

    Args:
        depth_m: True planar depth `[T, H, W]`.
        K: `[3, 3]`.
        world_from_camera: `[T, 4, 4]`, OpenCV axes.
        tolerance: Relative difference that the move to whole pixels may make on a slanted surface.
    """
    _check(depth_m, K, world_from_camera)
    pairs = []
    for n in range(1, len(depth_m)):
        moved = project_depth(depth_m[n - 1], K, world_from_camera[n - 1], world_from_camera[n])
        with np.errstate(invalid="ignore"):
            pairs.append(np.abs(moved - depth_m[n]) <= tolerance * depth_m[n])
    return pairs


def _meet(
    depth_m: np.ndarray, K: np.ndarray, world_from_camera: np.ndarray, source: int, target: int
) -> tuple[np.ndarray, np.ndarray]:
    """A frame's depth moved to another, and the pixels where both have depth."""
    moved = project_depth(depth_m[source], K, world_from_camera[source], world_from_camera[target])
    return moved, np.isfinite(moved) & np.isfinite(depth_m[target]) & (depth_m[target] > 0)


def _check(depth_m: np.ndarray, K: np.ndarray, world_from_camera: np.ndarray) -> None:
    if depth_m.ndim != 3 or len(depth_m) < 2:
        raise ValueError(f"depth_m: shape {depth_m.shape} is not [T, H, W] with two frames or more")
    if K.shape != (3, 3) or world_from_camera.shape != (len(depth_m), 4, 4):
        raise ValueError(
            f"K, world_from_camera: shapes {K.shape}, {world_from_camera.shape}; expected (3, 3), "
            f"({len(depth_m)}, 4, 4)"
        )
