"""Between the kinds of depth: an affine map that the caller states, and metres through it."""

from __future__ import annotations

import numpy as np


def affine(
    kind: str, target: str, scale: float | None, shift: float | None, near_m: float | None, far_m: float | None
) -> tuple[float, float]:
    """(scale, shift) from exactly one of the two pairs; none is made up."""
    affine, ends = (scale, shift), (near_m, far_m)
    given = [pair for pair in (affine, ends) if pair != (None, None)]
    if len(given) != 1 or None in given[0]:
        stated = {"scale": scale, "shift": shift, "near_m": near_m, "far_m": far_m}
        names = ", ".join(f"{name}={number}" for name, number in stated.items() if number is not None) or "neither"
        raise ValueError(
            f"affine-invariant {kind} does not determine {target}: give scale and shift, or near_m and far_m"
            f" (got {names})"
        )
    if scale is not None and shift is not None:
        if not (np.isfinite(scale) and np.isfinite(shift)):
            raise ValueError(f"scale, shift: ({scale}, {shift}) must be finite")
        return float(scale), float(shift)
    near, far = float(near_m or 0.0), float(far_m or 0.0)
    if not (0 < near < far and np.isfinite(far)):
        raise ValueError(f"near_m, far_m: ({near_m}, {far_m}) must be finite metres with 0 < near_m < far_m")
    if kind == "disparity":
        return 1 / near - 1 / far, 1 / far
    return far - near, near


def metres(
    frame: np.ndarray, scale: float, shift: float, inverse: bool, clip_m: tuple[float, float] | None
) -> np.ndarray:
    """Metric depth, float64 `[H, W]`, of `scale * v + shift` or its inverse."""
    mapped = scale * frame.astype(np.float64) + shift
    if clip_m is not None:
        low_m, high_m = clip_m
        return 1.0 / np.clip(mapped, 1 / high_m, 1 / low_m) if inverse else np.clip(mapped, low_m, high_m)
    lowest = float(mapped.min())
    if lowest <= 0:
        name = "inverse depth" if inverse else "depth"
        raise ValueError(f"scale, shift: ({scale:g}, {shift:g}) give a {name} of {lowest:g}, which must be > 0")
    return 1.0 / mapped if inverse else mapped
