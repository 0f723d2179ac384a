"""How good depth is on real clips: beside the best constant, and beside "lower in the picture is nearer"."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from depth_engine.depth.metrics import DELTA1_RATIO, ScaleShiftFit
from depth_engine.geometry.tracking import sample
from depth_train.footage import Footage

# Depth beyond this, in units of the clip's median, is far for any metric; the aligned prediction is held below.
_CAP = 20.0
# Frames with fewer known pixels say nothing of their level.
_MIN_PIXELS = 30


@dataclass(frozen=True)
class FootageScore:
    """Scores of one clip after one scale and shift in disparity over all its known pixels.

    Attributes:
        delta1: Share of pixels whose depth is within a factor of 1.25.
        abs_rel: Mean of |depth - truth| / truth.
        spearman: Rank correlation of predicted and true disparity.
        drift: How much the level wanders: spread between the 5 % and 95 % quantiles over frames of the median ratio of
            depth to truth.
    """

    delta1: float
    abs_rel: float
    spearman: float
    drift: float


def score_footage(values: np.ndarray, footage: Footage) -> dict[str, FootageScore]:
    """Scores of depth, of the best constant, and of the picture's row.

    Args:
        values: Disparity `[T, h, w]`, near is large, of any size.
        footage: Where depth is known.
    """
    predicted, rows, depth, frame = [], [], [], []
    for index, (pixels, known) in enumerate(zip(footage.pixels, footage.depth_m, strict=True)):
        if len(known) == 0:
            continue
        height, width = footage.frames[index].shape[:2]
        predicted.append(sample(values[index], pixels, height, width))
        rows.append(pixels[:, 1] / height)
        depth.append(known)
        frame.append(np.full(len(known), index))
    truth, frames = np.concatenate(depth), np.concatenate(frame)
    return {
        "depth": _score(np.concatenate(predicted), truth, frames),
        "image row": _score(np.concatenate(rows), truth, frames),
        "constant": _constant(truth),
    }


def _score(predicted: np.ndarray, depth: np.ndarray, frames: np.ndarray) -> FootageScore:
    fit = ScaleShiftFit()
    fit.add(predicted, 1 / depth)
    scale, shift = fit.solve()
    farthest = _CAP * float(np.median(depth))
    aligned = 1 / np.maximum(scale * predicted + shift, 1 / farthest)
    ratio = aligned / depth
    levels = [np.median(ratio[frames == i]) for i in np.unique(frames) if (frames == i).sum() >= _MIN_PIXELS]
    drift = float(np.subtract(*np.quantile(levels, [0.95, 0.05]))) if levels else float("nan")
    rank = np.asarray(spearmanr(predicted, 1 / depth))[0]
    close = float((np.maximum(ratio, 1 / ratio) < DELTA1_RATIO).mean())
    return FootageScore(close, float(np.abs(ratio - 1).mean()), float(rank), drift)


def _constant(depth: np.ndarray) -> FootageScore:
    """The one depth that is within a factor of 1.25 of most pixels; its AbsRel is that of the best for AbsRel."""
    logs = np.sort(np.log(depth))
    reach = np.searchsorted(logs, logs + 2 * np.log(DELTA1_RATIO), side="left") - np.arange(len(logs))
    weights = np.cumsum(1 / np.sort(depth))
    middle = np.sort(depth)[np.searchsorted(weights, weights[-1] / 2)]
    return FootageScore(
        float(reach.max() / len(logs)), float((np.abs(middle - depth) / depth).mean()), 0.0, float("nan")
    )
