"""Depth metrics: one scale and shift per clip, AbsRel, delta1 and frame-to-frame change.

Two published protocols, both with a single least-squares fit over all valid pixels of a clip and scores that are
averaged per frame first (a frame with few valid pixels weighs as much as any other):

* `evaluate_disparity`: the protocol shared by DepthCrafter (arXiv 2409.02095) and Video Depth Anything
  (arXiv 2501.12375); prediction = affine-invariant disparity, fit in disparity space.
* `evaluate_depth`: ChronoDepth's (arXiv 2406.01493); prediction = affine-invariant depth, fit in depth space.

Clips are read one frame at a time, so `[T, H, W]` arguments may be memory maps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

FrameStack = np.ndarray | Sequence[np.ndarray]
"""`[T, H, W]`: an array, a memory map, or a sequence of `[H, W]` frames."""

# Floors of the shared protocol: ground truth at or below 1 mm is invalid, predictions are clipped there.
MIN_DEPTH_M = 1e-3
MIN_DISPARITY = 1e-3
# The protocol's guard against division by zero; kept so that scores equal the published ones.
_INVERSE_EPSILON = 1e-8

DELTA1_RATIO = 1.25


@dataclass
class ScaleShiftFit:
    """Least squares of `scale * prediction + shift = target`, accumulated batch by batch in float64.

    Sums are taken about the first batch's means, so that a large common offset costs no precision.
    """

    count: int = 0
    _origin: tuple[float, float] = field(default=(0.0, 0.0), repr=False)
    # sums of p, t, p*p, p*t about the origin
    _sums: np.ndarray = field(default_factory=lambda: np.zeros(4), repr=False)

    def add(self, prediction: np.ndarray, target: np.ndarray) -> None:
        """Take in pairs of values.

        Args:
            prediction: Any shape; only valid values.
            target: The same shape.
        """
        p = np.asarray(prediction, np.float64).ravel()
        t = np.asarray(target, np.float64).ravel()
        if p.size == 0:
            return
        if self.count == 0:
            self._origin = (float(p.mean()), float(t.mean()))
        p = p - self._origin[0]
        t = t - self._origin[1]
        self._sums += (p.sum(), t.sum(), p @ p, p @ t)
        self.count += p.size

    def solve(self) -> tuple[float, float]:
        """Scale and shift of the fit.

        Returns:
            (scale, shift). A constant prediction gives scale 0 and the mean target as shift.

        Raises:
            ValueError: Nothing was added.
        """
        if self.count == 0:
            raise ValueError("scale and shift cannot be fitted: no valid pixel in the whole clip")
        sum_p, sum_t, sum_pp, sum_pt = self._sums
        variance = sum_pp / self.count - (sum_p / self.count) ** 2
        covariance = sum_pt / self.count - (sum_p / self.count) * (sum_t / self.count)
        # Rounding leaves about 1e-16 of the second moment where every prediction is the same.
        scale = covariance / variance if variance > 1e-14 * (sum_pp / self.count) else 0.0
        shift = (self._origin[1] + sum_t / self.count) - scale * (self._origin[0] + sum_p / self.count)
        return float(scale), float(shift)


def fit_scale_shift(prediction: FrameStack, target: FrameStack, valid: FrameStack | None = None) -> tuple[float, float]:
    """Fit `scale * prediction + shift = target` by one least squares over all valid pixels of a clip.

    Args:
        prediction: `[T, H, W]`, or `[H, W]` for one frame.
        target: The same shape and the same space (disparity with disparity, depth with depth).
        valid: Boolean, the same shape; None means every pixel.

    Returns:
        (scale, shift) in float64.

    Raises:
        ValueError: The shapes differ, or no pixel is valid.
    """
    fit = ScaleShiftFit()
    for predicted, wanted, mask in _frames(prediction, target, valid):
        fit.add(predicted[mask], wanted[mask])
    return fit.solve()


def abs_rel(depth_m: np.ndarray, target_m: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Mean of |d - d*| / d* over the valid pixels.

    Args:
        depth_m: Any shape, metres.
        target_m: Ground truth of the same shape, metres, > 0 where valid.
        valid: Boolean, the same shape; None means every pixel.

    Raises:
        ValueError: No pixel is valid.
    """
    depth, target = _valid_pairs(depth_m, target_m, valid)
    return float(np.mean(np.abs(depth - target) / target))


def delta1(depth_m: np.ndarray, target_m: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Share of valid pixels with max(d / d*, d* / d) < 1.25.

    Args:
        depth_m: Any shape, metres, > 0 where valid.
        target_m: Ground truth of the same shape, metres, > 0 where valid.
        valid: Boolean, the same shape; None means every pixel.

    Raises:
        ValueError: No pixel is valid.
    """
    depth, target = _valid_pairs(depth_m, target_m, valid)
    return float(np.mean(np.maximum(depth / target, target / depth) < DELTA1_RATIO))


def mean_abs_change(previous: np.ndarray, current: np.ndarray) -> float:
    """Mean |d_t - d_(t-1)| of two depth frames: the flicker (and motion) between them, in the frames' own unit.

    Args:
        previous: `[H, W]`.
        current: `[H, W]`.
    """
    _same_shape("current", current, "previous", previous)
    return float(np.mean(np.abs(current - previous), dtype=np.float64))


@dataclass(frozen=True)
class DepthScores:
    """Scores of one clip.

    Attributes:
        abs_rel: AbsRel, lower is better.
        delta1: Share of pixels within 25 %, higher is better.
        scale: The clip's fitted scale, in the space of the fit.
        shift: The clip's fitted shift, in the space of the fit.
        frame_count: Frames with at least one valid pixel; only these are scored.
    """

    abs_rel: float
    delta1: float
    scale: float
    shift: float
    frame_count: int


def align_disparity_to_depth(
    prediction_disparity: FrameStack, depth_m: FrameStack, valid: FrameStack | None, max_depth_m: float
) -> tuple[float, float]:
    """Scale and shift that bring affine-invariant disparity to 1/m: steps 4 to 6 of the shared protocol.

    The prediction is clipped to 1e-3 from below first, as published: a map with negative values loses them.

    Args:
        prediction_disparity: `[T, H, W]`, near = large.
        depth_m: Ground truth `[T, H, W]`, metres.
        valid: Boolean `[T, H, W]`, or None; pixels outside 1e-3 < depth_m < max_depth_m never count.
        max_depth_m: The set's depth cap, metres.

    Returns:
        (scale, shift): `1 / depth_m = scale * max(disparity, 1e-3) + shift`.

    Raises:
        ValueError: Shapes differ, the cap is not above 1e-3, or no pixel is valid.
    """
    _check_cap(max_depth_m)
    fit = ScaleShiftFit()
    for predicted, target_m, mask in _frames(prediction_disparity, depth_m, valid):
        mask = mask & _in_range(target_m, max_depth_m)
        target_disparity = 1.0 / (target_m[mask].astype(np.float64) + _INVERSE_EPSILON)
        fit.add(np.maximum(predicted[mask], MIN_DISPARITY), target_disparity)
    return fit.solve()


def depth_from_disparity(disparity: np.ndarray, scale: float, shift: float, max_depth_m: float) -> np.ndarray:
    """Metric depth from affine-invariant disparity: step 7 of the shared protocol.

    Args:
        disparity: Any shape, near = large.
        scale: From `align_disparity_to_depth`.
        shift: From `align_disparity_to_depth`.
        max_depth_m: The set's depth cap, metres.

    Returns:
        Depth in metres, float64, in [1e-3, max_depth_m].
    """
    inverse = scale * np.maximum(disparity, MIN_DISPARITY).astype(np.float64) + shift
    return np.clip(1.0 / np.maximum(inverse, MIN_DISPARITY), MIN_DEPTH_M, max_depth_m)


def evaluate_disparity(
    prediction_disparity: FrameStack, depth_m: FrameStack, valid: FrameStack | None, max_depth_m: float
) -> DepthScores:
    """AbsRel and delta1 of affine-invariant disparity by the shared protocol (fit in disparity space).

    Args:
        prediction_disparity: `[T, H, W]`, near = large, at the ground truth's size.
        depth_m: Ground truth `[T, H, W]`, metres.
        valid: Boolean `[T, H, W]`, or None; pixels outside 1e-3 < depth_m < max_depth_m never count.
        max_depth_m: The set's depth cap, metres (Sintel 70, ScanNet 10, KITTI 80, Bonn 10, NYUv2 10).

    Raises:
        ValueError: Shapes differ, the cap is not above 1e-3, or no pixel is valid.
    """
    scale, shift = align_disparity_to_depth(prediction_disparity, depth_m, valid, max_depth_m)
    aligned = (
        (depth_from_disparity(predicted, scale, shift, max_depth_m), target_m, mask)
        for predicted, target_m, mask in _frames(prediction_disparity, depth_m, valid)
    )
    return _scores(aligned, scale, shift, max_depth_m)


def evaluate_depth(
    prediction_depth: FrameStack, depth_m: FrameStack, valid: FrameStack | None, max_depth_m: float
) -> DepthScores:
    """AbsRel and delta1 of affine-invariant depth, fitted in depth space (ChronoDepth section 4).

    ChronoDepth publishes no depth caps; those of the shared protocol are meant, and aligned depth is clipped to
    [1e-3, max_depth_m] in the same way.

    Args:
        prediction_depth: `[T, H, W]`, far = large, at the ground truth's size.
        depth_m: Ground truth `[T, H, W]`, metres.
        valid: Boolean `[T, H, W]`, or None; pixels outside 1e-3 < depth_m < max_depth_m never count.
        max_depth_m: The set's depth cap, metres.

    Raises:
        ValueError: Shapes differ, the cap is not above 1e-3, or no pixel is valid.
    """
    _check_cap(max_depth_m)
    fit = ScaleShiftFit()
    for predicted, target_m, mask in _frames(prediction_depth, depth_m, valid):
        mask = mask & _in_range(target_m, max_depth_m)
        fit.add(predicted[mask], target_m[mask])
    scale, shift = fit.solve()
    aligned = (
        (np.clip(scale * predicted.astype(np.float64) + shift, MIN_DEPTH_M, max_depth_m), target_m, mask)
        for predicted, target_m, mask in _frames(prediction_depth, depth_m, valid)
    )
    return _scores(aligned, scale, shift, max_depth_m)


def constant_baseline(
    depth_m: FrameStack,
    valid: FrameStack | None,
    max_depth_m: float,
    space: Literal["disparity", "depth"] = "disparity",
) -> DepthScores:
    """What a prediction that knows nothing scores: the least-squares constant under the same protocol.

    In disparity space the constant is the harmonic mean of depth, in depth space the mean.

    Args:
        depth_m: Ground truth `[T, H, W]`, metres.
        valid: Boolean `[T, H, W]`, or None.
        max_depth_m: The set's depth cap, metres.
        space: Where the constant is fitted, as in `evaluate_disparity` or `evaluate_depth`.

    Raises:
        ValueError: The space is unknown, the cap is not above 1e-3, or no pixel is valid.
    """
    if space not in ("disparity", "depth"):
        raise ValueError(f"space: {space!r} is not one of disparity, depth")
    constant = [np.zeros(np.shape(frame), np.float32) for frame in depth_m]
    evaluate = evaluate_disparity if space == "disparity" else evaluate_depth
    return evaluate(constant, depth_m, valid, max_depth_m)


def _scores(
    aligned: Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]], scale: float, shift: float, max_depth_m: float
) -> DepthScores:
    """Masked mean per frame, then the mean over the frames that have valid pixels."""
    per_frame = []
    for depth, target_m, mask in aligned:
        mask = mask & _in_range(target_m, max_depth_m)
        if mask.any():
            per_frame.append((abs_rel(depth, target_m, mask), delta1(depth, target_m, mask)))
    mean_abs_rel, mean_delta1 = np.mean(per_frame, axis=0)
    return DepthScores(float(mean_abs_rel), float(mean_delta1), scale, shift, len(per_frame))


def _frames(
    prediction: FrameStack, target: FrameStack, valid: FrameStack | None
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(prediction, target, valid) `[H, W]` frame by frame, after a check of the shapes."""
    if isinstance(prediction, np.ndarray) and prediction.ndim == 2:
        # one frame is a clip of length 1
        prediction, target = prediction[None], np.asarray(target)[None]
        valid = None if valid is None else np.asarray(valid)[None]
    if len(prediction) != len(target) or (valid is not None and len(valid) != len(target)):
        lengths = f"{len(prediction)} predictions, {len(target)} targets"
        raise ValueError(f"frame counts differ: {lengths}" + ("" if valid is None else f", {len(valid)} masks"))
    for index in range(len(target)):
        predicted, wanted = np.asarray(prediction[index]), np.asarray(target[index])
        _same_shape(f"prediction frame {index}", predicted, "its target", wanted)
        if valid is None:
            mask = np.ones(wanted.shape, bool)
        else:
            mask = np.asarray(valid[index], bool)
            _same_shape(f"valid frame {index}", mask, "its target", wanted)
        yield predicted, wanted, mask


def _in_range(target_m: np.ndarray, max_depth_m: float) -> np.ndarray:
    # NaN and inf compare false on one side, so unknown ground truth drops out here too.
    return (target_m > MIN_DEPTH_M) & (target_m < max_depth_m)


def _valid_pairs(depth_m: np.ndarray, target_m: np.ndarray, valid: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    _same_shape("depth_m", depth_m, "target_m", target_m)
    if valid is not None:
        _same_shape("valid", valid, "target_m", target_m)
        depth_m, target_m = depth_m[valid], target_m[valid]
    if depth_m.size == 0:
        raise ValueError("no valid pixel to score")
    return np.asarray(depth_m, np.float64), np.asarray(target_m, np.float64)


def _same_shape(name: str, array: np.ndarray, other_name: str, other: np.ndarray) -> None:
    if array.shape != other.shape:
        raise ValueError(f"{name} has shape {array.shape}, {other_name} {other.shape}: they must be equal")


def _check_cap(max_depth_m: float) -> None:
    if not max_depth_m > MIN_DEPTH_M:
        raise ValueError(f"max_depth_m: {max_depth_m} must be above {MIN_DEPTH_M} m")
