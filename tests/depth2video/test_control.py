from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from depth2video.control import (
    FAR_OVER_NEAR,
    ClipHistogram,
    DisparityRange,
    choose_range,
    clip_range,
    contain,
    control_frames,
    cover,
    frame_range,
    to_control,
    to_disparity,
)

from depth_engine.depth.depth_video import DepthVideo
from depth_engine.depth.source import DepthSource, open_depth
from tests.depth2video.conftest import moving_disparity


def _source(folder: Path, values: np.ndarray, kind: str) -> DepthSource:
    video = DepthVideo(values, kind, np.arange(len(values)) / 25, 25)  # type: ignore[arg-type]
    return open_depth(video.save(folder / "depth.npy"))


def test_near_is_white_for_every_kind(tmp_path: Path) -> None:
    disparity = moving_disparity(6, 24, 32)
    metric = (1 / (0.1 + disparity)).astype(np.float32)
    # The inverse of what `to_disparity` takes relative depth for, in [0, 1].
    relative = ((metric - metric.min()) / (metric.max() - metric.min())).astype(np.float32)
    for kind, values in (("disparity", disparity), ("metric", metric), ("depth", relative)):
        source = _source(tmp_path / kind, values, kind)
        frames = list(control_frames(source, choose_range(source, "clip"), 24, 32))
        assert len(frames) == 6 and frames[0].shape == (24, 32, 3) and frames[0].dtype == np.uint8
        assert (frames[0] == frames[0][..., :1]).all()
        block, ground = frames[0][8, 3, 0], frames[0][20, 25, 0]
        assert block >= 250 and ground < 200, kind


def test_conversion_to_disparity() -> None:
    values = np.array([[0.0, 0.5, 1.0]], np.float32)
    np.testing.assert_allclose(to_disparity(values, "depth"), [[1, 2 / (1 + FAR_OVER_NEAR), 1 / FAR_OVER_NEAR]])
    np.testing.assert_array_equal(to_disparity(values, "disparity"), values)
    odd = np.array([[np.nan, np.inf, -1.0, 0.0, 4.0]], np.float32)
    np.testing.assert_array_equal(to_disparity(odd, "metric"), [[0, 0, 0, 0, 0.25]])
    np.testing.assert_array_equal(to_disparity(odd, "disparity"), [[0, 0, 0, 0, 4]])
    with pytest.raises(ValueError, match="kind: 'far' is not known"):
        to_disparity(values, "far")


def test_percentiles_of_the_clip_are_those_of_all_its_values() -> None:
    generator = np.random.default_rng(0)
    for scale in (1.0, 30.0):  # metric disparity has no bound
        frames = [generator.gamma(2.0, scale * (0.1 + 0.1 * index), (40, 50)).astype(np.float32) for index in range(5)]
        low, high = clip_range(frames)
        wanted = np.percentile(np.stack(frames), (2, 98))
        np.testing.assert_allclose((low, high), wanted, rtol=0.01)
    with pytest.raises(ValueError, match="no frame"):
        clip_range([])


def test_one_range_keeps_steady_depth_steady_and_each_frame_its_own_does_not(tmp_path: Path) -> None:
    """A near thing that comes into view must not darken the rest."""
    values = np.tile(np.linspace(0.1, 0.5, 32, dtype=np.float32), (8, 24, 1))
    values[4:, 8:16, 8:16] = 1.0
    source = _source(tmp_path, values, "disparity")
    still = (slice(None), 20, slice(None), 0)
    by_clip = np.stack(list(control_frames(source, choose_range(source, "clip"), 24, 32)))[still]
    by_frame = np.stack(list(control_frames(source, choose_range(source, "frame"), 24, 32)))[still]
    assert (by_clip == by_clip[0]).all()
    assert np.abs(by_frame[4].astype(int) - by_frame[3]).max() > 50
    assert choose_range(source, "none") == DisparityRange(0.0, 1.0)


def test_depth_that_was_seen_is_not_read_again(tmp_path: Path) -> None:
    values = moving_disparity(6, 24, 32)
    source = _source(tmp_path, values, "disparity")
    unread = replace(source, open=lambda: pytest.fail("it was read again"))
    seen = ClipHistogram()
    for frame in values[:-1]:
        seen.add(frame)
    assert choose_range(source, "clip", None, seen) == clip_range(values), "a part is not enough"
    seen.add(values[-1])
    assert choose_range(unread, "clip", 6, seen) == clip_range(values)
    assert choose_range(source, "clip", 2, seen) == clip_range(values[:2]) != clip_range(values)


def test_a_few_wrong_values_do_not_decide_the_contrast() -> None:
    frame = np.tile(np.linspace(0.2, 0.4, 100, dtype=np.float32), (100, 1))
    frame[0, :50] = 1e6
    control = to_control(frame, frame_range(frame))
    assert control[50, 2, 0] < 5 and control[50, 97, 0] > 250


def test_a_flat_clip_is_grey() -> None:
    flat = np.full((4, 6), 0.3, np.float32)
    assert (to_control(flat, frame_range(flat)) == 128).all()


def test_none_is_refused_where_it_means_nothing(tmp_path: Path) -> None:
    source = _source(tmp_path, moving_disparity(2, 8, 8) + 1, "metric")
    with pytest.raises(ValueError, match="--normalize: none is for disparity, and the depth is metric"):
        choose_range(source, "none")
    with pytest.raises(ValueError, match="did you mean 'frame'"):
        choose_range(source, "fram")


@pytest.mark.parametrize("size", [(32, 32), (24, 48), (96, 60)])
def test_pictures_are_not_stretched(size: tuple[int, int]) -> None:
    """A disc stays a disc, whole when it is padded, in the middle when it is cropped."""
    y, x = np.mgrid[0:120, 0:160]
    disc = np.where(((y - 59.5) ** 2 + (x - 79.5) ** 2)[..., None] < 30**2, 255, 40).astype(np.uint8).repeat(3, 2)
    for fit in (cover, contain):
        small = fit(disc, *size)
        assert small.shape == (*size, 3) and small.dtype == np.uint8
        inside = small[..., 0] > 150
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        assert abs(len(rows) - len(columns)) <= 1, fit
        assert abs(rows.mean() - (size[0] - 1) / 2) <= 1 and abs(columns.mean() - (size[1] - 1) / 2) <= 1
    assert (contain(disc, *size)[0] == 40).all(), "the border repeats the edge"
    np.testing.assert_array_equal(cover(disc, 120, 160), disc)
