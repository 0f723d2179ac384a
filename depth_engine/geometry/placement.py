"""Relative depth placed in space: every choice that this takes is explicit and recorded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from depth_engine.depth.source import DepthSource

# Without near and far, a relative value of nearest is 1 and of farthest 10, in a unit of its own: a room, a street.
DEFAULT_NEAR, DEFAULT_FAR = 1.0, 10.0
_BINS = 4096  # of the histogram that finds the median; finer than any depth


@dataclass(frozen=True)
class Placement:
    """The affine map from a file's values to planar depth z.

    disparity: 1 / z = scale * value + shift;  depth and metric: z = scale * value + shift.

    Attributes:
        kind: `disparity`, `depth` or `metric`.
        scale: Of the values.
        shift: Added to them.
        by: What decided it, for the sidecar: `default`, `near and far`, `poses`, `metric`.
    """

    kind: str
    scale: float
    shift: float
    by: str

    def depth(self, values: np.ndarray) -> np.ndarray:
        """Planar depth, float32; inf is far away, nan unknown (values at or behind the camera too).

        Args:
            values: Raw values, float32 `[H, W]`.
        """
        placed = self.scale * values.astype(np.float64) + self.shift
        if self.kind != "disparity":
            return np.where(placed > 0, placed, np.nan).astype(np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            depth = np.where(np.isfinite(placed) & (placed >= 0), 1 / np.maximum(placed, 0), np.nan)
        return depth.astype(np.float32)

    def to_json(self) -> dict[str, float | str]:
        """For the sidecar."""
        return {"kind": self.kind, "scale": self.scale, "shift": self.shift, "by": self.by}


def place(kind: str, near: float | None = None, far: float | None = None) -> Placement:
    """The placement by near and far, or the stated default.

    Args:
        kind: Of the depth.
        near: Distance that the nearest possible relative value stands for.
        far: Distance of the farthest; inf is accepted for disparity.

    Raises:
        ValueError: One of them is missing, they are not 0 < near < far, or a metric clip was given any.
    """
    if kind == "metric":
        if near is not None or far is not None:
            raise ValueError("--near, --far: the depth is metric already; leave them out")
        return Placement(kind, 1.0, 0.0, "metric")
    if (near is None) != (far is None):
        raise ValueError(f"--{'far' if far is None else 'near'}: is missing; give both --near and --far, or neither")
    by = "default" if near is None else "near and far"
    low = DEFAULT_NEAR if near is None else near
    high = DEFAULT_FAR if far is None else far
    if not (0 < low < high and math.isfinite(low)) or (kind == "depth" and not math.isfinite(high)):
        raise ValueError(f"--near, --far: {low:g} and {high:g} are not accepted; give distances with 0 < near < far")
    if kind == "disparity":
        return Placement(kind, 1 / low - 1 / high, 1 / high, by)
    return Placement(kind, high - low, low, by)


@dataclass(frozen=True)
class DepthFacts:
    """What one pass over a clip's depth tells.

    Attributes:
        median: Median planar depth over the clip.
        nearest: Planar depth that 99.9 % of the values lie beyond.
        frames: Number of frames.
        odd: Frames with nan or infinite raw values, or points not before the camera.
    """

    median: float
    nearest: float
    frames: int
    odd: int


def survey(source: DepthSource, placement: Placement) -> DepthFacts:
    """Median and nearest depth of a clip, in bounded memory: a histogram of disparity.

    Raises:
        ValueError: No value lies before the camera.
    """
    counts = np.zeros(_BINS, np.int64)
    top = 0.0
    frames, odd = 0, 0
    for values in source.open():
        depth = placement.depth(values)
        frames += 1
        odd += bool(np.isnan(depth).any() or not np.isfinite(values).all())
        with np.errstate(divide="ignore"):
            disparity = 1 / depth[~np.isnan(depth)].astype(np.float64)
        if disparity.size == 0:
            continue
        if disparity.max() > top:  # widen the range by whole factors, so that earlier counts stay in whole bins
            factor = max(1, math.ceil(disparity.max() / top)) if top else 1
            widened = np.add.reduceat(counts, np.arange(0, _BINS, factor)) if factor > 1 else counts
            counts = np.concatenate([widened, np.zeros(_BINS - len(widened), np.int64)])
            top = top * factor or float(disparity.max())
        counts += np.histogram(disparity, bins=_BINS, range=(0, top))[0]
    if not counts.sum():
        raise ValueError(
            f"depth: no value of {source.path} lies before the camera; check --depth-kind, --near and --far"
        )
    share = np.cumsum(counts) / counts.sum()
    bin_size = top / _BINS
    return DepthFacts(
        median=1 / ((int(np.searchsorted(share, 0.5)) + 0.5) * bin_size),
        nearest=1 / ((int(np.searchsorted(share, 0.999)) + 0.5) * bin_size),
        frames=frames,
        odd=odd,
    )


def fitted_frames(frames: Iterable[np.ndarray], height: int, width: int) -> Iterator[np.ndarray]:
    """Raw values at the clip's size: float32 `[H, W]`, one by one."""
    import cv2

    for values in frames:
        if values.shape != (height, width):
            values = cv2.resize(values, (width, height), interpolation=cv2.INTER_LINEAR)
        yield values
