"""Metrics against hand-computed values and numpy's lstsq."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depth_engine.depth import metrics


def _lstsq(prediction: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    design = np.stack([prediction.ravel().astype(np.float64), np.ones(prediction.size)], axis=1)
    scale, shift = np.linalg.lstsq(design, target.ravel().astype(np.float64), rcond=None)[0]
    return float(scale), float(shift)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    offset=st.sampled_from([0.0, 1.0, -300.0, 1e5]),
    spread=st.sampled_from([1e-2, 1.0, 50.0]),
)
def test_fit_equals_lstsq_over_the_whole_clip(seed: int, offset: float, spread: float) -> None:
    rng = np.random.default_rng(seed)
    prediction = offset + spread * rng.random((3, 4, 5))
    target = 2.5 * (prediction - offset) / spread + rng.normal(size=(3, 4, 5))
    valid = rng.random((3, 4, 5)) < 0.7

    scale, shift = metrics.fit_scale_shift(prediction, target, valid)

    # compared as predictions: with a large offset lstsq itself loses digits of the shift
    expected_scale, expected_shift = _lstsq(prediction[valid], target[valid])
    np.testing.assert_allclose(
        scale * prediction + shift, expected_scale * prediction + expected_shift, rtol=1e-6, atol=1e-6
    )


def test_fit_of_two_points_by_hand() -> None:
    # (1 -> 5), (3 -> 9): slope 2, intercept 3
    assert metrics.fit_scale_shift(np.array([[1.0, 3.0]]), np.array([[5.0, 9.0]])) == pytest.approx((2.0, 3.0))


def test_fit_accumulates_over_batches() -> None:
    rng = np.random.default_rng(3)
    prediction, target = rng.random(100) + 7, rng.random(100)
    whole, batched = metrics.ScaleShiftFit(), metrics.ScaleShiftFit()
    whole.add(prediction, target)
    for part in np.split(np.arange(100), [1, 10, 55]):
        batched.add(prediction[part], target[part])
    assert batched.solve() == pytest.approx(whole.solve(), rel=1e-9)


def test_fit_of_a_constant_prediction_is_the_mean_target() -> None:
    target = np.array([[1.0, 2.0, 6.0]])
    assert metrics.fit_scale_shift(np.full((1, 3), 0.3), target) == pytest.approx((0.0, 3.0))


def test_fit_without_a_valid_pixel_is_refused() -> None:
    with pytest.raises(ValueError, match="no valid pixel"):
        metrics.fit_scale_shift(np.ones((2, 3, 3)), np.ones((2, 3, 3)), np.zeros((2, 3, 3), bool))


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="prediction frame 0 has shape"):
        metrics.fit_scale_shift(np.ones((2, 3, 3)), np.ones((2, 3, 4)))
    with pytest.raises(ValueError, match="3 predictions, 2 targets"):
        metrics.fit_scale_shift(np.ones((3, 3, 3)), np.ones((2, 3, 3)))


def test_abs_rel_and_delta1_by_hand() -> None:
    target = np.array([[2.0, 4.0, 1.0, 0.0]])
    depth = np.array([[2.4, 3.0, 1.0, 9.0]])
    valid = target > 0
    # |0.4|/2, |-1|/4, 0 -> 0.45/3; ratios 1.2, 1.333, 1.0 -> two of three within 1.25
    assert metrics.abs_rel(depth, target, valid) == pytest.approx(0.15)
    assert metrics.delta1(depth, target, valid) == pytest.approx(2 / 3)


def test_delta1_is_strict() -> None:
    assert metrics.delta1(np.array([1.25]), np.array([1.0])) == 0.0


def _scene(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.uniform(1.0, 8.0, (4, 6, 7))


def test_affine_disparity_scores_perfectly() -> None:
    depth_m = _scene()
    prediction = (0.9 / depth_m + 0.05).astype(np.float32)
    scores = metrics.evaluate_disparity(prediction, depth_m, None, 10.0)
    assert scores.abs_rel < 1e-5
    assert scores.delta1 == 1.0
    assert scores.frame_count == 4
    assert (scores.scale, scores.shift) == pytest.approx((1 / 0.9, -0.05 / 0.9), rel=1e-4)


def test_affine_depth_scores_perfectly_only_in_depth_space() -> None:
    depth_m = _scene()
    prediction = (depth_m - 1.0) / 7.0
    assert metrics.evaluate_depth(prediction, depth_m, None, 10.0).abs_rel < 1e-12
    assert metrics.evaluate_disparity(prediction, depth_m, None, 10.0).abs_rel > 0.05


def test_disparity_protocol_step_by_step() -> None:
    """The protocol written out plainly with lstsq, on data that meets every clip of it."""
    rng = np.random.default_rng(5)
    depth_m = rng.uniform(0.5, 15.0, (3, 8, 9))
    prediction = rng.uniform(-0.2, 1.0, (3, 8, 9)) + 0.5 / depth_m
    valid = rng.random((3, 8, 9)) < 0.8
    valid[1] = False
    cap = 10.0

    mask = valid & (depth_m > 1e-3) & (depth_m < cap)
    clipped = np.maximum(prediction, 1e-3)
    scale, shift = _lstsq(clipped[mask], 1 / (depth_m[mask] + 1e-8))
    aligned = np.clip(1 / np.maximum(scale * clipped + shift, 1e-3), 1e-3, cap)
    per_frame = [(np.abs(aligned[t] - depth_m[t]) / depth_m[t])[mask[t]].mean() for t in (0, 2)]

    scores = metrics.evaluate_disparity(prediction, depth_m, valid, cap)
    assert scores.abs_rel == pytest.approx(np.mean(per_frame), rel=1e-9)
    assert scores.frame_count == 2


def test_frames_weigh_the_same_whatever_their_valid_pixels() -> None:
    depth_m = np.full((2, 1, 4), 2.0)
    depth_m[1] = 4.0
    valid = np.array([[[True, True, True, True]], [[True, False, False, False]]])
    # depth space, constant: mean of (2, 2, 2, 2, 4) = 2.4 -> errors 0.2 and 0.4, averaged per frame
    scores = metrics.constant_baseline(depth_m, valid, 10.0, "depth")
    assert scores.abs_rel == pytest.approx(0.3)
    assert scores.delta1 == pytest.approx(0.5)
    assert scores.shift == pytest.approx(2.4)


def test_constant_baseline_in_disparity_space_is_the_harmonic_mean() -> None:
    depth_m = np.array([[[2.0, 4.0]]])
    # mean disparity 3/8 -> 8/3 m: errors 1/3 and 1/3
    scores = metrics.constant_baseline(depth_m, None, 10.0)
    assert scores.shift == pytest.approx(0.375)
    assert scores.abs_rel == pytest.approx(1 / 3, rel=1e-6)
    assert scores.delta1 == 0.0


def test_unknown_ground_truth_never_counts() -> None:
    depth_m = _scene()
    clean = metrics.evaluate_disparity(1 / depth_m[:, :, 1:], depth_m[:, :, 1:], None, 10.0)
    dirty = depth_m.copy()
    dirty[:, :, 0] = np.array([0.0, np.inf, np.nan, 99.0])[:, None]
    assert metrics.evaluate_disparity(1 / depth_m, dirty, None, 10.0) == clean


def test_bad_arguments_of_the_protocols() -> None:
    depth_m = _scene()
    with pytest.raises(ValueError, match="max_depth_m"):
        metrics.evaluate_disparity(depth_m, depth_m, None, 0.0)
    with pytest.raises(ValueError, match="space: 'log'"):
        metrics.constant_baseline(depth_m, None, 10.0, "log")  # pyright: ignore[reportArgumentType]


def test_memory_maps_are_read_frame_by_frame(tmp_path) -> None:
    depth_m = _scene().astype(np.float32)
    np.save(tmp_path / "gt.npy", depth_m)
    mapped = np.load(tmp_path / "gt.npy", mmap_mode="r")
    assert metrics.evaluate_depth(mapped, mapped, None, 10.0).abs_rel < 1e-6


def test_mean_abs_change_by_hand() -> None:
    previous = np.array([[0.0, 0.5]], np.float32)
    current = np.array([[0.25, 0.0]], np.float32)
    assert metrics.mean_abs_change(previous, current) == pytest.approx(0.375)
    assert metrics.mean_abs_change(current, current) == 0.0
    with pytest.raises(ValueError, match="current has shape"):
        metrics.mean_abs_change(previous, current.T)
