"""Depth values brought to a scene's unit by one scale and shift for the whole clip, robustly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from depth_engine.geometry.placement import Placement

_TRIALS = 500  # lines through two random samples: with half of the samples wrong, all fail with 0.75^500
_ROUNDS = 20
_TUKEY = 4.685  # 95 % efficiency for Gaussian noise
_MAD_TO_SIGMA = 1.4826
MIN_SAMPLES = 20


class Samples(NamedTuple):
    """Depth values where the true planar depth is known.

    Attributes:
        values: Raw values `[N]`.
        depth: Planar depth `[N]` in the scene's unit, above 0.
    """

    values: np.ndarray
    depth: np.ndarray


@dataclass(frozen=True)
class Alignment:
    """How a clip's depth fits a scene.

    Attributes:
        placement: The map from values to planar depth.
        error: Median of |depth / true depth - 1|.
    """

    placement: Placement
    error: float


def align(kind: str, samples: Samples) -> Alignment:
    """Find scale and shift: in disparity for `disparity`, in planar depth for `depth`, a scale alone for `metric`.

    Least median of squares over random pairs starts it (Rousseeuw 1984), Tukey's reweighted least squares end it.
    Residuals are of disparity, or of depth relative to the true one.

    Args:
        kind: `disparity`, `depth` or `metric`.
        samples: Where depth is known; values that are not finite are left out.

    Raises:
        ValueError: There are too few samples, or depth grows the wrong way.
    """
    keep = np.isfinite(samples.values) & np.isfinite(samples.depth) & (samples.depth > 0)
    values, depth = samples.values[keep].astype(np.float64), samples.depth[keep].astype(np.float64)
    if len(values) < MIN_SAMPLES:
        raise ValueError(f"depth: known at {len(values)} points of the scene; {MIN_SAMPLES} or more are needed to fit")
    if kind == "disparity":
        scale, shift = fit_line(values, 1 / depth, np.ones_like(depth))
    elif kind == "depth":
        scale, shift = fit_line(values, depth, 1 / depth)
    else:
        ratios = depth[values > 0] / values[values > 0]
        scale, shift = float(np.median(ratios)) if len(ratios) else 0.0, 0.0
    if not scale > 0:
        raise ValueError(
            f"depth: what is called {kind} does not grow as the scene's does (scale {scale:.3g}); check --depth-kind"
        )
    placement = Placement(kind, scale, shift, "poses")
    return Alignment(placement, depth_error(placement, Samples(values, depth)))


def depth_error(placement: Placement, samples: Samples) -> float:
    """Median of |placed depth / true depth - 1|; a value behind the camera or endlessly far counts as 1."""
    ratio = placement.depth(samples.values) / samples.depth
    return float(np.median(np.nan_to_num(np.minimum(np.abs(ratio - 1), 1.0), nan=1.0)))


def fit_line(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> tuple[float, float]:
    """Scale and shift that minimise weight * (scale * x + shift - y), however wrong up to half of the samples are.

    Args:
        x: `[N]`.
        y: `[N]`.
        weight: `[N]`, what makes residuals comparable.
    """
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, len(x), (2, _TRIALS))
    apart = np.abs(x[first] - x[second]) > 1e-9
    first, second = first[apart], second[apart]
    if not len(first):
        return 0.0, float(np.median(y))
    # The median over a part is as good as over all, and keeps the table of residuals small.
    part = rng.permutation(len(x))[:2000]
    scales = (y[first] - y[second]) / (x[first] - x[second])
    shifts = y[first] - scales * x[first]
    residuals = np.abs(weight[part] * (scales[:, None] * x[part] + shifts[:, None] - y[part]))
    best = int(np.median(residuals, axis=1).argmin())
    scale, shift = float(scales[best]), float(shifts[best])
    design = np.stack([x, np.ones_like(x)], axis=1)
    for _ in range(_ROUNDS):
        residual = weight * (scale * x + shift - y)
        sigma = _MAD_TO_SIGMA * float(np.median(np.abs(residual))) + 1e-12
        robust = np.maximum(0, 1 - (residual / (_TUKEY * sigma)) ** 2) ** 2 * weight**2
        normal = (design * robust[:, None]).T @ design
        if np.linalg.cond(normal) > 1e15:
            break
        scale, shift = map(float, np.linalg.solve(normal, (design * robust[:, None]).T @ y))
    return scale, shift
