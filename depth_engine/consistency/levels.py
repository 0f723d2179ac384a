"""Levels: scale and shift of depth that jump from frame to frame, made steady within each shot.

A network that sees frames one by one, or depth that was normalised frame by frame, gives each frame a scale and shift
of its own. `level_steps` measures how the level steps from frame to frame, with what the moving camera truly changes
taken out; `level_trend` weighs where those steps lead against where the levels of all frames lie. The more the level
jumps and the better the steps are known, the longer they are followed. That the frames' own levels always have a share
bounds the drift. Depth whose level does not jump is left as it is.

The numbers were chosen on training scenes (procedural ones of seeds 2000000 to 2000013, rendered ones of seeds 1500000
to 1500011).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from depth_engine.consistency.level_steps import Ends, LevelStep, measure_step
from depth_engine.consistency.level_trend import Affine, Trend, Uncertainty, begin_trend, smooth_levels
from depth_engine.consistency.matching import grey_of, match_both_ways, resized

# Pictures are compared at this size.
WORK_SIDE_PX = 256
# Frames to look ahead: so many say where a shot's level begins, and how it drifts.
LOOK_AHEAD = 24
# Frames around a step that say how the camera moves, to each side, and frames before it that say how the level jumps.
_MOTION_REACH, _JUMP_REACH = 6, 48
# A step errs by this share of the frame's range.
_STEP_ERROR = 1e-4
# Drift per frame that is thought possible, in ranges: always, and per share that the camera's step forward, and its
# turn, change of depth.
_DRIFT, _DRIFT_OF_FORWARD, _DRIFT_OF_TURN = 1e-3, 0.1, 0.1
# The camera's motion counts as far as it is more than this many standard errors from none.
_SIGNIFICANT = 1.0
# What true depth seems to jump by, in ranges: flow errs. A level that jumps by no more does not jump.
_APPARENT_JUMP = 0.005
_ROW = 13  # numbers of a step


@dataclass
class LevelCurve:
    """Where each frame's level goes, from the steps between frames.

    Attributes:
        look_ahead: Frames that are seen after a frame before it is settled, at the least.
        steps: Into each frame that is still needed; None where a shot starts.
        settled: How many of those frames are settled.
        trend: What is expected of the next frame; None at the start of a shot.
    """

    look_ahead: int = LOOK_AHEAD
    steps: deque[LevelStep | None] = field(default_factory=deque)
    settled: int = 0
    trend: Trend | None = None

    def push(self, step: LevelStep | None) -> list[Affine]:
        """Take the step into the next frame, None where a shot starts; maps of the frames that this settles."""
        ready = self.flush() if step is None else []
        self.steps.append(step)
        at_once = max(1, self.look_ahead // 4)  # the frames ahead are gone through for several frames at a time
        if len(self.steps) - self.settled >= self.look_ahead + _MOTION_REACH + at_once:
            ready += self._settle(at_once)
        return ready

    def flush(self) -> list[Affine]:
        """Maps of the frames that are left of a shot."""
        ready: list[Affine] = []
        while self.settled < len(self.steps):
            ready += self._settle(len(self.steps) - self.settled)
        self.steps.clear()
        self.settled = 0
        return ready

    def _settle(self, wanted: int) -> list[Affine]:
        """Maps of the next frames: as many as wanted, or fewer where frames can't be compared."""
        steps, here = list(self.steps), self.settled
        end = min(len(steps), here + self.look_ahead + wanted)
        jump = _jump(steps[max(0, here - _JUMP_REACH) : end])
        changes = _smoothed(steps)
        unsure = [_uncertainty(change) for change in changes[here:end]]
        row: list[Affine] = []
        for step, change in zip(steps[here + 1 : end], changes[here + 1 : end], strict=True):
            known = None if step is None else step.under(change)
            if known is None:  # begins anew, as a shot does
                break
            row.append(known)
        count = min(wanted, len(row) + 1)
        first = self.trend or begin_trend(unsure[0])
        if jump > 0:
            ready, trend = smooth_levels(first, row, unsure[1 : len(row) + 1], jump, count)
        else:
            ready, trend = [Affine()] * count, begin_trend(unsure[0])
        self.trend = trend if here + count < len(steps) and count <= len(row) else None
        self.settled += count
        while self.settled > _JUMP_REACH + _MOTION_REACH:
            self.steps.popleft()
            self.settled -= 1
        return ready


class LevelMeter:
    """Measures the steps between the frames of a clip, one after the other.

    Args:
        kind: Of the depth: `disparity`, `depth` or `metric`.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.before: tuple[np.ndarray, np.ndarray] | None = None  # grey picture and depth of the last frame

    def push(self, rgb: np.ndarray, depth: np.ndarray, starts_shot: bool) -> LevelStep | None:
        """The step into the next frame; None where a shot starts.

        Args:
            rgb: uint8 `[H, W, 3]`.
            depth: float32 `[h, w]`, finite, of any size and range.
            starts_shot: Whether the frame is the first of a shot.
        """
        grey = grey_of(rgb, WORK_SIDE_PX)
        height, width = grey.shape
        small = resized(depth, height, width)
        before, self.before = self.before, (grey, small)
        if before is None or starts_shot:
            return None
        return measure_step(before[1], small, match_both_ways(before[0], grey), self.kind)


class LevelStage:
    """Depth frames in, the same with steady levels out, some frames later.

    Args:
        kind: Of the depth: `disparity`, `depth` or `metric`.
        look_ahead: As for `LevelCurve`; a frame comes out by some 36 frames later.
        state: Of another stage, to go on from, see `state`.
    """

    def __init__(self, kind: str, look_ahead: int = LOOK_AHEAD, state: Mapping[str, np.ndarray] | None = None) -> None:
        self._meter, self._curve = LevelMeter(kind), LevelCurve(look_ahead)
        self._waiting: deque[np.ndarray] = deque()
        if state:
            self._meter.before = (state["grey"], state["small"])
            self._waiting.extend(state["waiting"])
            self._curve = curve_from(state, look_ahead)

    def push(self, rgb: np.ndarray, depth: np.ndarray, starts_shot: bool) -> list[np.ndarray]:
        """Take a frame, as `LevelMeter.push`; the frames that this settles, float32 `[h, w]`."""
        maps = self._curve.push(self._meter.push(rgb, depth, starts_shot))
        settled = [self._next(level) for level in maps]
        self._waiting.append(depth)
        return settled

    def flush(self) -> list[np.ndarray]:
        """The frames that are left."""
        return [self._next(level) for level in self._curve.flush()]

    def state(self) -> dict[str, np.ndarray]:
        """All that is needed to go on, some forty frames of depth at the most; empty before the first frame."""
        if self._meter.before is None:
            return {}
        grey, small = self._meter.before
        waiting = np.stack(self._waiting) if self._waiting else np.zeros((0, 1, 1), np.float32)
        return {"grey": grey, "small": small, "waiting": waiting, **curve_state(self._curve)}

    def _next(self, level: Affine) -> np.ndarray:
        return on_level(self._waiting.popleft(), level)


def on_level(depth: np.ndarray, level: Affine) -> np.ndarray:
    """Depth float32 `[h, w]` on another level; the same array where the level stays."""
    return depth if level == Affine() else (depth * np.float32(level.scale) + np.float32(level.shift))


def curve_state(curve: LevelCurve) -> dict[str, np.ndarray]:
    """A curve as arrays."""
    rows = np.full((len(curve.steps), _ROW), np.nan)
    for row, step in zip(rows, curve.steps, strict=True):
        if step is not None:
            known = (np.nan, np.nan) if step.step is None else step.step
            row[:] = [*known, *step.change, *step.per_change.ravel(), *step.ends]
    trend = np.zeros((0, 2, 2)) if curve.trend is None else np.stack([curve.trend.maps, curve.trend.covariance])
    return {"steps": rows, "settled": np.array([curve.settled]), "trend": trend}


def curve_from(state: Mapping[str, np.ndarray], look_ahead: int) -> LevelCurve:
    """A curve from what `curve_state` made of it."""
    curve = LevelCurve(look_ahead, settled=int(state["settled"][0]))
    for row in state["steps"]:
        if np.isnan(row[2]):
            curve.steps.append(None)
            continue
        known = None if np.isnan(row[0]) else Affine(float(row[0]), float(row[1]))
        curve.steps.append(LevelStep(known, row[2:5], row[5:11].reshape(3, 2), Ends(float(row[11]), float(row[12]))))
    if len(state["trend"]):
        curve.trend = Trend(*state["trend"])
    return curve


def _smoothed(steps: list[LevelStep | None]) -> np.ndarray:
    """`[N, 3]`: the camera's motion, which changes slowly, as each step's neighbours say it; none where it may be."""
    raw = np.array([np.zeros(3) if step is None else step.change for step in steps])
    smooth = np.zeros_like(raw)
    for index in range(len(raw)):
        near = raw[max(1, index - _MOTION_REACH) : index + _MOTION_REACH + 1]
        if not len(near):
            continue
        middle = np.median(near, axis=0)
        # Of a median of n draws; 1.48 median deviations are a standard deviation.
        error = 1.25 * 1.48 * np.median(np.abs(near - middle), axis=0) / len(near) ** 0.5
        smooth[index] = middle * np.maximum(0, 1 - (_SIGNIFICANT * error / np.maximum(np.abs(middle), 1e-12)) ** 2)
    return smooth


def _jump(steps: list[LevelStep | None]) -> float:
    """Standard deviation of a frame's own level, in ranges: what is not smooth in the steps; 0: it does not jump."""
    moves = np.full((max(len(steps), 2), 2), np.nan)
    for index, step in enumerate(steps):
        if step is not None and step.step is not None:
            moves[index] = [(step.step.scale * end + step.step.shift - end) / step.ends.range for end in step.ends]
    uneven = np.diff(moves, axis=0)
    if np.isnan(uneven).all():
        return 0.0
    # Of levels that are off at random, a step has twice the variance, the difference of two steps six times.
    variance = float(np.nanmean(uneven**2)) / 6
    return max(0.0, variance - _APPARENT_JUMP**2) ** 0.5


def _uncertainty(change: np.ndarray) -> Uncertainty:
    forward, turn = abs(float(change[0])), float(np.hypot(change[1], change[2]))
    return Uncertainty(_STEP_ERROR, _DRIFT + _DRIFT_OF_FORWARD * forward + _DRIFT_OF_TURN * turn)
