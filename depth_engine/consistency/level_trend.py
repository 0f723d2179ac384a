"""Where the level of a shot goes, by a Kalman filter and smoother over the steps between its frames.

Maps lead from a frame's own level to the level that is steady; they are pairs (scale, shift), and all that is done to
them is linear, so one variance serves both. What is taken: a frame's own level is right on average and off by `jump`;
the steady level follows the steps but for an `error`, and but for a drift, the part of the scene's true change that
nobody saw, which lasts for a while (Rauch, Tung and Striebel, "Maximum likelihood estimates of linear dynamic systems",
1965, for the way back).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

# A drift keeps this share from frame to frame: it lasts for some fifty.
_DRIFT_KEPT = 0.98
_OWN = np.array([1.0, 0.0])  # the map that leaves a frame's own level as it is
_AHEAD = np.array([[1.0, 1.0], [0.0, _DRIFT_KEPT]])  # (level, drift) a frame later
_ANYWHERE = 1e6  # variance of a level of which nothing is known


class Affine(NamedTuple):
    """A map of levels: `scale * value + shift`."""

    scale: float = 1.0
    shift: float = 0.0

    def after(self, first: Affine) -> Affine:
        """This map of what `first` gives."""
        return Affine(self.scale * first.scale, self.scale * first.shift + self.shift)

    def inverse(self) -> Affine:
        """The way back."""
        return Affine(1 / self.scale, -self.shift / self.scale)


class Uncertainty(NamedTuple):
    """Standard deviations, in ranges of a frame.

    Attributes:
        error: Of a step.
        drift: Of the drift, per frame.
    """

    error: float
    drift: float


@dataclass(frozen=True)
class Trend:
    """What the frames up to one say.

    Attributes:
        maps: `[2, 2]`: the map from this frame's own level to the steady one, and by how much it drifts in a frame.
        covariance: `[2, 2]` of the two.
    """

    maps: np.ndarray
    covariance: np.ndarray

    def weighed(self, jump: float) -> Trend:
        """With what the frame's own level says."""
        gain = self.covariance[:, 0] / (self.covariance[0, 0] + jump**2)
        return Trend(
            self.maps + np.outer(gain, _OWN - self.maps[0]),
            self.covariance - np.outer(gain, self.covariance[0]),
        )

    def expected(self, unsure: Uncertainty) -> Trend:
        """A frame later, in terms of this frame's level."""
        renewed = (1 - _DRIFT_KEPT**2) * unsure.drift**2
        return Trend(_AHEAD @ self.maps, _AHEAD @ self.covariance @ _AHEAD.T + np.diag([unsure.error**2, renewed]))

    def of_level(self, level: Affine) -> Trend:
        """In terms of another level, from which `level` leads to this one."""
        return Trend(_of_level(self.maps, level), self.covariance)


def begin_trend(unsure: Uncertainty) -> Trend:
    """Before a shot's first frame."""
    return Trend(np.stack([_OWN, [0.0, 0.0]]), np.diag([_ANYWHERE, unsure.drift**2]))


def smooth_levels(
    first: Trend, steps: Sequence[Affine], unsure: Sequence[Uncertainty], jump: float, count: int
) -> tuple[list[Affine], Trend]:
    """Maps of the first frames of a row, by all frames of it.

    Args:
        first: What is expected of the first frame.
        steps: From the own level of each frame to that of the next.
        unsure: Of each of them.
        jump: Standard deviation of a frame's own level, in ranges.
        count: How many frames' maps are wanted; at least 1, at most one more than there are steps.

    Returns:
        The maps, and what is expected of the frame after those (of the last one itself if there is none).
    """
    known = [first.weighed(jump)]
    expected: list[Trend] = []
    for step, each in zip(steps, unsure, strict=True):
        expected.append(known[-1].expected(each))
        known.append(expected[-1].of_level(step.inverse()).weighed(jump))
    best = known[-1].maps
    maps = [best[0]]
    for index in reversed(range(len(steps))):
        back = known[index].covariance @ _AHEAD.T @ np.linalg.inv(expected[index].covariance)
        best = known[index].maps + back @ (_of_level(best, steps[index]) - expected[index].maps)
        maps.append(best[0])
    settled = [Affine(float(scale), float(shift)) for scale, shift in maps[::-1][:count]]
    if count > len(steps):
        return settled, known[-1]
    return settled, expected[count - 1].of_level(steps[count - 1].inverse())


def _of_level(maps: np.ndarray, level: Affine) -> np.ndarray:
    """Maps `[N, 2]` in terms of another level, from which `level` leads to theirs."""
    return np.stack([maps[:, 0] * level.scale, maps[:, 0] * level.shift + maps[:, 1]], axis=1)
