"""Whether a camera changed its place, from points matched between pairs of frames.

A camera that only turns moves every point by a rotation under its lens, near or far. A homography alone says nothing:
it explains a flat scene too, however the camera travels before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

MIN_MATCHES = 50  # of a pair of frames; fewer do not count
_PAIRS, _POINTS = 40, 300  # that are looked at: enough for a percentile, and done in a second
_ROUNDS = 12  # of Gauss-Newton; it starts near and converges in a few
# Focal length over the longest side where the lens is not known: 118 to 40 degrees across. A longer one makes turning
# look like travelling past a wall, and what is longer is rare: then `--fov` tells them apart.
_FOCAL_RATIOS = np.geomspace(0.3, 1.4, 8)


@dataclass(frozen=True)
class Motion:
    """How points move between frames, in pixels: of pairs of frames, a tenth have more.

    Attributes:
        moved_px: Median distance between matched points.
        parallax_px: Distance from where the best rotation puts a point (three quarters have less). With an unknown
            lens, the ordinary focal length that leaves least counts.
    """

    moved_px: float
    parallax_px: float


Pair = tuple[np.ndarray, np.ndarray]  # the same points in two frames, `[N, 2]` each


def measure_motion(pairs: Sequence[Pair], height: int, width: int, focal_px: float | None) -> Motion:
    """Measure how points move, and how far from what a rotation explains.

    Args:
        pairs: Matched points of pairs of frames, pixels with centres at +0.5.
        height: Of the frames.
        width: Of the frames.
        focal_px: Focal length; None: not known.
    """
    moved = np.array([np.median(np.linalg.norm(after - before, axis=1)) for before, after in pairs])
    if not len(moved):
        return Motion(0.0, 0.0)
    # The pairs of least motion have no parallax either way.
    order = np.argsort(moved, kind="stable")[len(moved) // 2 :]
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(_PAIRS, len(order))).round().astype(int))]
    middle = np.array([width / 2, height / 2])
    some = [_some(pairs[number]) for number in chosen]
    centred = [(before - middle, after - middle) for before, after in some]

    def parallax_px(focal: float) -> float:
        left = [_beyond_rotation(before, after, focal) for before, after in centred]
        # Of all pairs a tenth have more; of the half that moves most, a fifth.
        return float(np.percentile(left, 80))

    least = parallax_px(focal_px) if focal_px is not None else _least(parallax_px, max(height, width))
    return Motion(float(np.percentile(moved, 90)), least)


def _some(pair: Pair) -> Pair:
    rows = np.random.default_rng(0).permutation(len(pair[0]))[:_POINTS]
    return pair[0][rows].astype(np.float64), pair[1][rows].astype(np.float64)


def _least(parallax_px: Callable[[float], float], side_px: int) -> float:
    """The parallax that the best focal length leaves."""
    from scipy.optimize import minimize_scalar

    tried = [parallax_px(ratio * side_px) for ratio in _FOCAL_RATIOS]
    best = int(np.argmin(tried))
    low, high = _FOCAL_RATIOS[max(best - 1, 0)], _FOCAL_RATIOS[min(best + 1, len(_FOCAL_RATIOS) - 1)]
    finer = minimize_scalar(
        lambda log_ratio: parallax_px(np.exp(log_ratio) * side_px),
        bounds=(np.log(low), np.log(high)),
        method="bounded",
        options={"maxiter": 12},
    )
    return min(tried[best], float(finer.fun))


def _beyond_rotation(before: np.ndarray, after: np.ndarray, focal_px: float) -> float:
    """Distance of points from where the best rotation puts them, pixels: three quarters have less.

    Gauss-Newton over the rotation; points that are far off (things that move) hardly count.

    Args:
        before: `[N, 2]`, from the middle of the picture.
        after: `[N, 2]`, likewise.
        focal_px: Of both frames.
    """
    from scipy.spatial.transform import Rotation

    rays = np.column_stack([before / focal_px, np.ones(len(before))])
    turn = Rotation.identity()
    error = np.zeros(len(before))
    for _ in range(_ROUNDS):
        x, y, z = turn.apply(rays).T
        z = np.maximum(z, 1e-6)
        u, v = x / z, y / z
        off = after - focal_px * np.column_stack([u, v])
        error = np.linalg.norm(off, axis=1)
        weight = 1 / (1 + (error / max(1.0, float(np.median(error)))) ** 2)
        # Of u and v by a small further turn about x, y and z.
        slopes = focal_px * np.stack(
            [np.column_stack([-u * v, 1 + u * u, -v]), np.column_stack([-1 - v * v, u * v, u])], axis=1
        )
        weighed = slopes * weight[:, None, None]
        normal = np.einsum("nik,nil->kl", weighed, slopes) + 1e-9 * np.eye(3)
        step = np.linalg.solve(normal, np.einsum("nik,ni->k", weighed, off))
        turn = Rotation.from_rotvec(step) * turn
        if np.abs(step).max() < 1e-7:
            break
    return float(np.percentile(error, 75))
