"""How the level of depth, its scale and shift, steps from a frame to the next where the scene does not explain it.

Depth is compared along optical flow. Where the camera moves forward, disparity truly grows along the flow, and a step
of the level must not swallow that: the camera's motion, which the flow shows too, says how much depth changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from depth_engine.consistency.camera_motion import Rays, depth_change
from depth_engine.consistency.level_trend import Affine
from depth_engine.consistency.matching import Match

_STRIDE_PX = 2  # of the pixels that are compared: neighbours say the same
_MOTION_STRIDE_PX = 3  # of those that the camera's motion is fitted to
_ROUNDS = 4  # of weights against what moves by itself
_LEAST_PIXELS = 50
# Below this correlation along the flow, depth of two frames has nothing to do with each other, and below this share of
# trusted pixels too little is seen of both.
_LEAST_CORRELATION, _LEAST_SHARE = 0.3, 0.05
# Relative depth says nothing of what is at infinity: its far end (2 %) is taken to lie there but for this share of the
# range. Of depth that grows with distance the near end lies so much before the camera.
_FAR_SHARE, _NEAR_SHARE = 0.05, 0.1
_MOST_CHANGE = 0.5  # of disparity from a frame to the next; more is no motion of a camera


class Ends(NamedTuple):
    """The far and near ends of a frame's values: 2 and 98 %."""

    low: float
    high: float

    @property
    def range(self) -> float:
        """From one to the other."""
        return self.high - self.low


@dataclass(frozen=True)
class LevelStep:
    """From a frame to the next.

    Attributes:
        step: From the level of the earlier frame to that of the later one, under `change`; None: they can't be
            compared.
        change: Of disparity by the camera's motion: (forward, turn_x, turn_y), see `camera_motion.depth_change`, where
            disparity counts ranges of the frame.
        per_change: `[3, 2]`: what one unit more of each `change` adds to (scale, shift) of the earlier frame's depth.
        ends: Of the earlier frame.
    """

    step: Affine | None
    change: np.ndarray
    per_change: np.ndarray
    ends: Ends

    def under(self, change: np.ndarray) -> Affine | None:
        """The step if the camera's motion is another one, close to `change`."""
        if self.step is None:
            return None
        scale, shift = (change - self.change) @ self.per_change
        return self.step.after(Affine(max(1 + float(scale), 0.1), float(shift)).inverse())


def ends_of(depth: np.ndarray) -> Ends:
    """Of a frame `[H, W]`."""
    low, high = np.quantile(depth[::_STRIDE_PX, ::_STRIDE_PX], (0.02, 0.98))
    return Ends(float(low), float(high))


def measure_step(before: np.ndarray, depth: np.ndarray, matches: tuple[Match, Match], kind: str) -> LevelStep:
    """Compare two neighbouring frames.

    Args:
        before: Depth of the earlier frame, float32 `[H, W]`.
        depth: Of the later one.
        matches: The earlier picture's pixels in the later one, and the other way round.
        kind: `disparity`, `depth` or `metric`.
    """
    ends, none = ends_of(before), np.zeros((3, 2))
    too_little = min(match.trusted.mean() for match in matches) < _LEAST_SHARE
    if too_little or ends.range <= 0 or ends_of(depth).range <= 0:
        return LevelStep(None, np.zeros(3), none, ends)
    rays = Rays.of_size(*depth.shape)
    scene = _Scene(kind, rays)
    # Both ways, so that what interpolation and flow do to one side cancels.
    change = (scene.change(before, matches[0]) - scene.change(depth, matches[1])) / 2
    # `back` brings the earlier depth to the later frame, `forth` the later to the earlier one.
    back = scene.compare(before, depth, matches[1], change)
    forth = scene.compare(depth, before, matches[0], -change)
    if back is None or forth is None:
        return LevelStep(None, change, none, ends)
    (one, per_change), (other, _) = back, forth
    scale = float(np.sqrt(one.scale / other.scale))
    middle = float(np.median(before[::_STRIDE_PX, ::_STRIDE_PX]))
    after = (one.scale * middle + one.shift + (middle - other.shift) / other.scale) / 2
    shift = 0.0 if kind == "metric" else after - scale * middle
    return LevelStep(Affine(scale, shift), change, per_change, ends)


@dataclass(frozen=True)
class _Scene:
    """A still scene that a moving camera sees, through depth of a kind."""

    kind: str
    rays: Rays

    def disparity(self, depth: np.ndarray, ends: Ends) -> np.ndarray:
        """In ranges of the frame, 0 at infinity; of depth that grows with distance, 1 at its near end."""
        if self.kind == "disparity":
            return (depth - ends.low) / ends.range + _FAR_SHARE
        offset = self._offset(ends)
        return (ends.low + offset) / np.maximum(depth + offset, 1e-3 * ends.range)

    def changed(self, depth: np.ndarray, ends: Ends, share: np.ndarray) -> np.ndarray:
        """Depth whose disparity grows by a share."""
        share = np.clip(share, -_MOST_CHANGE, _MOST_CHANGE)
        offset = self._offset(ends)
        return (depth + offset) * (1 + share if self.kind == "disparity" else 1 / (1 + share)) - offset

    def _offset(self, ends: Ends) -> float:
        """What is added to values so that 0 is at infinity, of disparity, or at the camera."""
        if self.kind == "metric":
            return 0.0
        return ends.range * (_FAR_SHARE if self.kind == "disparity" else _NEAR_SHARE) - ends.low

    def change(self, depth: np.ndarray, match: Match) -> np.ndarray:
        """What changes depth on the way from a frame to the other one, see `depth_change`."""
        every = np.s_[::_MOTION_STRIDE_PX, ::_MOTION_STRIDE_PX]
        seen = match.trusted[every]
        rows, columns = np.indices(depth.shape, dtype=np.float32)
        way_x = (match.columns - columns)[every][seen] / self.rays.focal_px
        way_y = (match.rows - rows)[every][seen] / self.rays.focal_px
        disparity = self.disparity(depth[every][seen], ends_of(depth))
        return depth_change(self.rays.x[every][seen], self.rays.y[every][seen], way_x, way_y, disparity)

    def compare(
        self, source: np.ndarray, target: np.ndarray, match: Match, change: np.ndarray
    ) -> tuple[Affine, np.ndarray] | None:
        """From the level of `source` to that of `target`, whose pixels `match` finds in `source`, and `per_change`.

        None if they have nothing to do with each other.
        """
        every = np.s_[::_STRIDE_PX, ::_STRIDE_PX]
        seen = match.trusted[every]
        if seen.sum() < _LEAST_PIXELS:
            return None
        wanted, held, ends = target[every][seen], match.bring(source)[every][seen], ends_of(source)
        x, y = self.rays.x[every][seen], self.rays.y[every][seen]
        parts = np.stack([self.disparity(held, ends), y, -x])
        moved = self.changed(held, ends, change @ parts)
        fit, weight = _robust_fit(moved, wanted)
        if fit is None:
            return None
        metric = self.kind == "metric"  # has no shift
        if metric:
            fit = Affine(float(np.sqrt((weight @ wanted**2) / max(float(weight @ moved**2), 1e-12))), 0.0)
        little = 1e-3
        grown = [(self.changed(moved, ends, little * part) - moved) / little for part in parts]
        slopes = [_line(moved, each, weight, through_zero=metric) for each in grown]
        return fit, np.array(slopes)


def _robust_fit(values: np.ndarray, wanted: np.ndarray) -> tuple[Affine | None, np.ndarray]:
    """`wanted` as an affine map of `values`, both with errors alike, and the pixels' weights.

    The ratio of the spreads, not least squares: that makes the scale smaller by the noise of `values`, anew with every
    frame.
    """
    weight, fit = np.ones_like(values), None
    for _ in range(_ROUNDS):
        share = weight / weight.sum()
        mean, wanted_mean = float(share @ values), float(share @ wanted)
        spread, wanted_spread = float(share @ (values - mean) ** 2), float(share @ (wanted - wanted_mean) ** 2)
        both = float(share @ ((values - mean) * (wanted - wanted_mean)))
        if both <= _LEAST_CORRELATION * (spread * wanted_spread) ** 0.5 or spread * wanted_spread <= 0:
            return None, weight
        scale = (wanted_spread / spread) ** 0.5
        fit = Affine(scale, wanted_mean - scale * mean)
        missed = np.abs(wanted - scale * values - fit.shift)
        # Cauchy's weights; 1.48 medians are a standard deviation.
        weight = 1 / (1 + (missed / (1.5 * 1.48 * float(np.median(missed)) + 1e-9)) ** 2)
    return fit, weight


def _line(values: np.ndarray, wanted: np.ndarray, weight: np.ndarray, *, through_zero: bool) -> tuple[float, float]:
    """Slope and offset of a weighed least-squares line."""
    share = weight / weight.sum()
    if through_zero:
        return float(share @ (values * wanted)) / max(float(share @ values**2), 1e-12), 0.0
    mean, wanted_mean = float(share @ values), float(share @ wanted)
    slope = float(share @ ((values - mean) * (wanted - wanted_mean))) / max(float(share @ (values - mean) ** 2), 1e-12)
    return slope, wanted_mean - slope * mean
