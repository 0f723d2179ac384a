"""Held-out scores of a checkpoint, against the best constant and its own single-frame run."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from depth_engine import DepthEngine
from depth_engine.depth.consistency_metrics import consistency_by_pair, visible_pairs
from depth_engine.depth.metrics import (
    MIN_DEPTH_M,
    abs_rel,
    delta1,
    depth_from_disparity,
    evaluate_depth,
    evaluate_disparity,
)
from depth_engine.models.svd.windows import plan
from depth_train.data.held_out import MAX_DEPTH_M, HeldOut, HeldOutClip, HeldOutSplit


@dataclass(frozen=True)
class Score:
    """Means over clips.

    Attributes:
        abs_rel: Mean of |depth - truth| / truth after one scale and shift per clip in disparity.
        delta1: Share of pixels within a factor of 1.25.
        jitter: Mean |change of predicted disparity - change of true disparity| between neighbouring frames, after the
            fit, in shares of the clip's 2-98 % disparity range: what flickers. 0 for a constant would say nothing.
        mfc_m: Multi-frame consistency (`depth/consistency_metrics.py`), metres, where truth shows a still, visible
            point.
        seam_mfc_m: The same of the frames alone between which the checkpoint's own windows meet, in every row; nan
            where the clip is one window.
    """

    abs_rel: float
    delta1: float
    jitter: float
    mfc_m: float
    seam_mfc_m: float


# What `depth-train score` compares: settings of the engine by the name of the row. Where the checkpoint does not carry
# depth along optical flow, the row without says nothing new.
RUNS: dict[str, dict[str, Any]] = {
    "single frames": {"window": 1, "stride": 1, "strategy": "independent"},
    "independent windows": {"strategy": "independent"},
    "context without flow": {"strategy": "context", "flow": False},
    "context windows": {"strategy": "context"},
}


def score_checkpoint(
    engine: DepthEngine,
    scenes: HeldOut | HeldOutSplit,
    runs: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    steps: int | None = None,
    report: Callable[[str], None],
) -> dict[str, Score]:
    """Score the checkpoint on held-out clips.

    Args:
        engine: Loaded checkpoint; what it gives, disparity or depth, is what is fitted.
        scenes: Which.
        runs: Settings of the engine by the name of the row; default: `RUNS`, what the checkpoint lacks left out.
        steps: Denoising steps; default: the run's own, or the checkpoint's.
        report: Takes progress lines.

    Raises:
        ValueError: No clip can be read.
    """
    if runs is None:
        runs = {name: run for name, run in RUNS.items() if engine.spec.flow or run.get("flow") is not False}
    windows = [*plan(scenes.frames, engine.spec.window, engine.spec.stride, "sliding")]
    seams = [window.first_new - 1 for window in windows[1:]]  # places in the list of pairs
    gives_disparity = engine.spec.kind == "disparity"
    evaluate = evaluate_disparity if gives_disparity else evaluate_depth
    chosen: dict[str, Any] = {} if steps is None else {"steps": steps}
    rows: dict[str, list[Score]] = {name: [] for name in ("best constant", *runs)}
    number = 0
    for number, clip in enumerate(scenes, 1):
        truth, valid, K, poses = clip.capped_m, clip.known, clip.K, clip.world_from_camera
        visible = visible_pairs(clip.depth_m, K, poses)
        rows["best constant"].append(_best_constant(truth))
        for name, settings in runs.items():
            prediction = engine.estimate(clip.rgb, shots=False, **{**settings, **chosen}).values
            scores = evaluate(prediction, truth, valid, MAX_DEPTH_M)
            if gives_disparity:
                aligned_m = depth_from_disparity(prediction, scores.scale, scores.shift, MAX_DEPTH_M)
            else:
                aligned_m = np.clip(scores.scale * prediction + scores.shift, MIN_DEPTH_M, MAX_DEPTH_M)
            jitter = _jitter(prediction if gives_disparity else 1 / aligned_m, clip)
            errors_m = consistency_by_pair(aligned_m, K, poses, visible)
            mfc_m, seam_mfc_m = _mean(errors_m), _mean(errors_m[seams])
            rows[name].append(Score(scores.abs_rel, scores.delta1, jitter, mfc_m, seam_mfc_m))
        report(f"clip {number}/{scenes.clips}")
    if not number:
        raise ValueError("no clip of the data set can be read")
    return {name: Score(*map(_mean, zip(*map(astuple, scores), strict=True))) for name, scores in rows.items()}


def _mean(values: Sequence[float] | np.ndarray) -> float:
    """Mean of the values that are there; nan if none is."""
    there = np.asarray(values)[np.isfinite(values)]
    return float(there.mean()) if there.size else math.nan


def _best_constant(truth: np.ndarray) -> Score:
    """The one depth per clip that minimises AbsRel: the median of the depths, weighted by 1 / depth."""
    depths = np.sort(truth[truth < MAX_DEPTH_M].astype(np.float64))
    weights = np.cumsum(1 / depths)
    constant = depths[np.searchsorted(weights, weights[-1] / 2)]
    guess = np.full_like(depths, constant)
    return Score(abs_rel(guess, depths), delta1(guess, depths), math.nan, math.nan, math.nan)


def _jitter(prediction: np.ndarray, clip: HeldOutClip) -> float:
    seen = clip.depth_m > 0  # sky, too, is known to be far
    disparity = 1 / np.where(seen, clip.depth_m, np.inf)  # sky -> 0
    slope, offset = np.polyfit(prediction[seen].astype(np.float64), disparity[seen].astype(np.float64), 1)
    change = np.abs(np.diff(slope * prediction + offset - disparity, axis=0))[seen[1:] & seen[:-1]]
    low, high = np.quantile(disparity[seen], [0.02, 0.98])
    return _mean(change) / max(float(high - low), 1e-9)
