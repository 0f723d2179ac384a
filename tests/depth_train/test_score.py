"""Held-out scores: the rows mean what they say."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from depth_train.data.held_out import MAX_DEPTH_M, HeldOut
from depth_train.scenes.procedural.clips import make_clips
from depth_train.score import RUNS, score_checkpoint

from depth_engine import DepthEngine, DepthVideo


def test_rows_of_the_bundled_checkpoint() -> None:
    engine = DepthEngine.from_pretrained("bundled", device="cpu")
    lines: list[str] = []
    scores = score_checkpoint(engine, HeldOut(1, 8, 48, 64), report=lines.append)
    assert list(scores) == ["best constant", *RUNS]
    assert lines == ["clip 1/1"]
    assert all(0 < row.abs_rel < 2 and 0 < row.delta1 < 1 for row in scores.values())
    assert np.isnan(scores["best constant"].jitter) and scores["context windows"].mfc_m > 0


def test_the_truth_itself_scores_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the true disparity in place of the network's, AbsRel is 0, delta1 is 1, nothing jitters."""
    engine = DepthEngine.from_pretrained("bundled", device="cpu")
    clip = make_clips([0], 6, 48, 64)[0]
    disparity = 1 / np.minimum(clip.depth_m.numpy(), MAX_DEPTH_M)
    truth = DepthVideo(disparity / disparity.max(), "disparity", np.arange(6) / 24, Fraction(24))
    monkeypatch.setattr(DepthEngine, "estimate", lambda self, frames, **settings: truth)
    row = score_checkpoint(engine, HeldOut(1, 6, 48, 64), report=lambda line: None)["context windows"]
    assert row.abs_rel < 0.01 and row.delta1 > 0.99 and row.jitter < 0.01


def test_seams_are_where_the_checkpoints_windows_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step in depth where the first window ends shows there, and in the mean over all pairs by its share."""
    engine = DepthEngine.from_pretrained("bundled", device="cpu")
    frames, window = engine.spec.window + 3, engine.spec.window
    clip = make_clips([0], frames, 48, 64)[0]
    disparity = 1 / np.minimum(clip.depth_m.numpy(), MAX_DEPTH_M)
    disparity[window:] *= 1.5
    stepped = DepthVideo(disparity / disparity.max(), "disparity", np.arange(frames) / 24, Fraction(24))
    monkeypatch.setattr(DepthEngine, "estimate", lambda self, frames, **settings: stepped)
    row = score_checkpoint(engine, HeldOut(1, frames, 48, 64), report=lambda line: None)["context windows"]
    assert row.seam_mfc_m > 5 * row.mfc_m


def test_depth_kinds_and_other_steps_are_scored(svd_folder: Path) -> None:
    """ChronoDepth's kind, fitted in depth; the steps asked for are those that run."""
    engine = DepthEngine.from_pretrained(svd_folder, spec="chronodepth", device="cpu", dtype="float32")
    runs = {"context windows": RUNS["context windows"]}
    rows = [
        score_checkpoint(engine, HeldOut(1, 3, 64, 64), runs, steps=steps, report=lambda line: None) for steps in (1, 2)
    ]
    errors = [row["context windows"].abs_rel for row in rows]
    assert all(0 < error < 2 for error in errors) and errors[0] != errors[1]


def test_scenes_begin_at_the_seed_asked_for() -> None:
    engine = DepthEngine.from_pretrained("bundled", device="cpu")
    runs = {"single frames": RUNS["single frames"]}

    def constant(clips: int, first: int) -> float:
        scenes = HeldOut(clips, 2, 48, 64, first_seed=first)
        return score_checkpoint(engine, scenes, runs, report=lambda line: None)["best constant"].abs_rel

    second, both = (constant(clips, first) for clips, first in ((1, 6), (2, 5)))
    first = constant(1, 5)
    assert both == pytest.approx((first + second) / 2)
