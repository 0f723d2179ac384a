from pathlib import Path

import numpy as np
import pytest

from depth_engine.depth.source import DepthSource, open_depth
from depth_engine.geometry.placement import fitted_frames, place, survey


def source_of(folder: Path, values: np.ndarray, kind: str = "disparity") -> DepthSource:
    np.save(folder / "values.npy", values.astype(np.float32))
    return open_depth(folder / "values.npy", kind)


def test_near_and_far_are_met() -> None:
    values = np.array([[0, 0.5, 1]], np.float32)
    np.testing.assert_allclose(place("disparity", 2, 8).depth(values), [[8, 3.2, 2]])
    np.testing.assert_allclose(place("depth", 2, 8).depth(values), [[2, 5, 8]])
    np.testing.assert_allclose(place("disparity", 2, np.inf).depth(values), [[np.inf, 4, 2]])
    np.testing.assert_allclose(place("metric").depth(values + 1), values + 1)
    assert place("disparity").to_json()["by"] == "default"


def test_what_is_not_before_the_camera_is_unknown() -> None:
    values = np.array([[np.nan, np.inf, -5, 0.5]], np.float32)
    depth = place("disparity", 1, 10).depth(values)
    assert np.isnan(depth[0, :3]).all() and depth[0, 3] > 0
    depth = place("metric").depth(np.array([[np.nan, np.inf, -1, 2]], np.float32))
    assert np.isnan(depth[0, 0]) and np.isinf(depth[0, 1]) and np.isnan(depth[0, 2]) and depth[0, 3] == 2


@pytest.mark.parametrize(
    ("kind", "near", "far", "text"),
    [
        ("metric", 1, 2, "is metric already"),
        ("disparity", 1, None, "--far: is missing"),
        ("disparity", None, 3, "--near: is missing"),
        ("disparity", 3, 2, "3 and 2 are not accepted"),
        ("depth", 0, 2, "0 and 2"),
        ("depth", 1, np.inf, "1 and inf"),
        ("disparity", np.nan, 2, "nan and 2"),
    ],
)
def test_bad_near_and_far_are_refused(kind: str, near: float | None, far: float | None, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        place(kind, near, far)


def test_the_survey_finds_the_median(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    depth = rng.uniform(1.0, 9.0, (7, 30, 40)) * np.linspace(2, 0.5, 7)[:, None, None]
    facts = survey(source_of(tmp_path, depth, "metric"), place("metric"))
    assert facts.median == pytest.approx(np.median(depth), rel=0.02)
    assert facts.nearest == pytest.approx(np.quantile(depth, 0.001), rel=0.05)
    assert (facts.frames, facts.odd) == (7, 0)
    depth[2, 0, 0], depth[4, 1] = np.nan, -1
    assert survey(source_of(tmp_path, depth, "metric"), place("metric")).odd == 2
    with pytest.raises(ValueError, match="no value .* before the camera"):
        survey(source_of(tmp_path, np.full((2, 3, 4), -1.0), "metric"), place("metric"))


def test_depth_is_brought_to_the_clip_s_size(tmp_path: Path) -> None:
    source = source_of(tmp_path, np.linspace(0, 1, 5 * 30 * 40).reshape(5, 30, 40))
    assert next(fitted_frames(source.open(), 60, 80)).shape == (60, 80)
