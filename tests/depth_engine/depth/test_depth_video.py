"""DepthVideo: kinds, conversion, alignment, files."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depth_engine.depth import stored_values
from depth_engine.depth.depth_video import DepthVideo
from depth_engine.depth.formats import DEPTH_FORMATS
from depth_engine.depth.sidecar import read_sidecar

READABLE = ["npy", "exr", "mkv", "png16"]


def _values(frame_count: int = 3) -> np.ndarray:
    return np.random.default_rng(1).random((frame_count, 10, 14), dtype=np.float32)


def _video(kind: Any = "disparity", values: np.ndarray | None = None, **meta) -> DepthVideo:
    values = _values() if values is None else values
    return DepthVideo(values, kind, np.arange(len(values)) / 24, Fraction(24), meta)


def _metric() -> DepthVideo:
    return _video("metric", 1 + 9 * _values())


# ----------------------------------------------------------------------------------------------------- validation


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "inverse"}, "kind: 'inverse' is not one of disparity, depth, metric"),
        ({"values": _values().astype(np.float64)}, r"values: float64 \(3, 10, 14\)"),
        ({"values": _values()[0]}, r"values: float32 \(10, 14\)"),
        ({"values": [[[0.5]]]}, "values: list"),
        ({"values": np.zeros((0, 4, 4), np.float32), "times_s": []}, r"values: float32 \(0, 4, 4\)"),
        ({"times_s": [0.0, 1.0]}, "times_s: shape"),
        ({"times_s": [0.0, 1.0, 1.0]}, "times_s: must be finite and increase"),
        ({"times_s": [0.0, 1.0, np.inf]}, "times_s: must be finite and increase"),
        ({"fps": 0}, "fps: 0 is not a frame rate"),
    ],
)
def test_what_is_no_depth_is_refused(changes: dict, message: str) -> None:
    arguments = {"values": _values(), "kind": "depth", "times_s": [0.0, 0.5, 1.0], "fps": 2} | changes
    with pytest.raises(ValueError, match=message):
        DepthVideo(**arguments)


def test_values_that_are_not_finite_name_the_frame() -> None:
    values = _values()
    values[2, 4, 4] = np.nan
    with pytest.raises(ValueError, match="frame 2 holds NaN"):
        _video(values=values)


def test_repr_and_length() -> None:
    assert repr(_video()) == "DepthVideo(kind='disparity', frames=3, height=10, width=14, fps=24)"
    assert len(_video()) == 3


def test_frames_by_number_and_in_a_loop() -> None:
    video = _video()
    np.testing.assert_array_equal(video[1], video.values[1])
    np.testing.assert_array_equal(video[-1], video.values[2])
    np.testing.assert_array_equal(list(video), video.values)
    with pytest.raises(IndexError):
        video[3]


def test_a_slice_is_a_shorter_clip(tmp_path: Path) -> None:
    values = np.linspace(0, 1, 10 * 12, dtype=np.float32).reshape(10, 3, 4)
    whole = DepthVideo(values, "depth", np.arange(10) / 25, Fraction(25), {"shots": [0, 3, 8], "source": "a.mp4"})
    # Saved and read back, so that its sidecar speaks of the whole clip.
    whole = DepthVideo.load(whole.save(tmp_path / "whole.npy"))
    part = whole[2:9:2]
    np.testing.assert_array_equal(part.values, values[2:9:2])
    np.testing.assert_allclose(part.times_s, [0.08, 0.16, 0.24, 0.32])
    assert (part.kind, part.fps, part.meta["shots"]) == ("depth", Fraction(25, 2), [0, 1, 3])
    held = DepthVideo.load(part.save(tmp_path / "part.npy"))
    assert (len(held), held.fps, held.meta["source"], held.meta["shots"]) == (4, Fraction(25, 2), "a.mp4", [0, 1, 3])
    np.testing.assert_allclose(held.times_s, part.times_s)
    for refused in (slice(4, 4), slice(None, None, -1), slice(20, 30)):
        with pytest.raises(ValueError, match=r"slice: .* of 10 frames is not accepted; give one frame or more"):
            whole[refused]


def test_numpy_takes_a_clip() -> None:
    video = _video()
    assert np.asarray(video) is video.values
    assert np.asarray(video, np.float64).dtype == np.float64
    assert np.array(video) is not video.values and not np.shares_memory(np.array(video), video.values)
    np.testing.assert_array_equal(np.stack([video, video])[1], video.values)


# ----------------------------------------------------------------------------------------------------- conversion


def test_near_and_far_of_disparity() -> None:
    values = np.array([[[1.0, 0.0, 0.5]]], np.float32)
    metric = _video("disparity", values).to_metric(near_m=2, far_m=10)
    # halfway in inverse depth: 1 / ((1/2 + 1/10) / 2)
    np.testing.assert_allclose(metric.values, [[[2, 10, 10 / 3]]], rtol=1e-6)
    assert metric.kind == "metric" and metric.values.dtype == np.float32


def test_near_and_far_of_depth() -> None:
    values = np.array([[[0.0, 1.0, 0.5]]], np.float32)
    np.testing.assert_allclose(_video("depth", values).to_metric(near_m=2, far_m=10).values, [[[2, 10, 6]]])


def test_scale_and_shift() -> None:
    values = np.array([[[0.0, 0.5, 1.0]]], np.float32)
    np.testing.assert_allclose(_video("depth", values).to_metric(scale=4, shift=1).values, [[[1, 3, 5]]])
    np.testing.assert_allclose(
        _video("disparity", values).to_metric(scale=4, shift=1).values, [[[1, 1 / 3, 0.2]]], rtol=1e-6
    )


@settings(max_examples=30, deadline=None)
@given(near_m=st.floats(0.05, 50), ratio=st.floats(1.01, 500), kind=st.sampled_from(["disparity", "depth"]))
def test_relative_to_metric_and_back(near_m: float, ratio: float, kind) -> None:
    far_m = near_m * ratio
    relative = _video(kind)
    metric = relative.to_metric(near_m=near_m, far_m=far_m)
    assert metric.values.min() >= near_m * (1 - 1e-6) and metric.values.max() <= far_m * (1 + 1e-6)
    back = metric.to_disparity() if kind == "disparity" else metric.to_depth()
    assert back.kind == kind
    # the same up to the scale and shift that made it
    scale, shift = metric.meta["conversion"]["scale"], metric.meta["conversion"]["shift"]
    np.testing.assert_allclose(back.values, scale * relative.values + shift, rtol=2e-6)


def test_disparity_and_depth_by_way_of_a_given_map() -> None:
    disparity = _video("disparity")
    depth = disparity.to_depth(near_m=1, far_m=20)
    np.testing.assert_array_equal(depth.values, disparity.to_metric(near_m=1, far_m=20).values)
    assert depth.kind == "depth"
    again = _video("depth").to_disparity(scale=19, shift=1)
    np.testing.assert_allclose(1 / again.values, 19 * _values() + 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("kind", "method", "target"),
    [
        ("disparity", "to_metric", "metric"),
        ("depth", "to_metric", "metric"),
        ("disparity", "to_depth", "depth"),
        ("depth", "to_disparity", "disparity"),
    ],
)
def test_nothing_converts_silently(kind: str, method: str, target: str) -> None:
    video = _video(kind)
    convert = getattr(video, method)
    with pytest.raises(ValueError, match=f"affine-invariant {kind} does not determine {target}: give scale and shift"):
        convert()
    with pytest.raises(ValueError, match="got scale=2"):
        convert(scale=2)
    with pytest.raises(ValueError, match="got near_m=2"):
        convert(near_m=2)
    with pytest.raises(ValueError, match="got scale=1, shift=0, near_m=1, far_m=2"):
        convert(scale=1, shift=0, near_m=1, far_m=2)


@pytest.mark.parametrize(("near_m", "far_m"), [(0, 5), (-1, 5), (5, 5), (5, 1), (1, float("inf")), (float("nan"), 2)])
def test_near_and_far_must_be_distances_in_order(near_m: float, far_m: float) -> None:
    with pytest.raises(ValueError, match="near_m, far_m"):
        _video().to_metric(near_m=near_m, far_m=far_m)


def test_a_kind_does_not_convert_to_itself() -> None:
    for video, convert in [(_metric(), "to_metric"), (_video("depth"), "to_depth"), (_video(), "to_disparity")]:
        with pytest.raises(ValueError, match=f"is {video.kind} already"):
            getattr(video, convert)()


def test_metric_needs_no_numbers() -> None:
    with pytest.raises(ValueError, match="needs none of them"):
        _metric().to_disparity(scale=1, shift=0)
    np.testing.assert_allclose(_metric().to_disparity().values, 1 / _metric().values, rtol=1e-6)


@pytest.mark.parametrize("kind", ["disparity", "depth"])
def test_depth_behind_the_camera_is_refused_or_clipped(kind) -> None:
    values = np.array([[[0.5, 0.5]], [[0.1, 0.9]]], np.float32)
    video = _video(kind, values)
    with pytest.raises(ValueError, match=r"frame 1: scale, shift: \(1, -0.3\) give .* of -0.2"):
        video.to_metric(scale=1, shift=-0.3)
    clipped = video.to_metric(scale=1, shift=-0.3, clip_m=(0.1, 30)).values[1, 0]
    expected = [30, 1 / 0.6] if kind == "disparity" else [0.1, 0.6]
    np.testing.assert_allclose(clipped, expected, rtol=1e-5)
    with pytest.raises(ValueError, match="clip_m"):
        video.to_metric(scale=1, shift=0, clip_m=(0, 30))


def test_conversion_leaves_the_original_alone_and_says_what_it_did() -> None:
    video = _video(checkpoint={"name": "bundled"}, value_range=[0.0, 1.0])
    before = video.values.copy()
    metric = video.to_metric(near_m=1, far_m=2)
    np.testing.assert_array_equal(video.values, before)
    assert video.meta == {"checkpoint": {"name": "bundled"}, "value_range": [0.0, 1.0]}
    assert metric.meta == {
        "checkpoint": {"name": "bundled"},
        "kind": "metric",
        "conversion": {"from": "disparity", "scale": 0.5, "shift": 0.5},
    }
    np.testing.assert_array_equal(metric.times_s, video.times_s)


# ------------------------------------------------------------------------------------------------------ alignment


@pytest.mark.parametrize("kind", ["disparity", "depth"])
def test_fit_finds_the_map_to_metres(kind) -> None:
    depth_m = np.random.default_rng(2).uniform(1, 9, (3, 10, 14))
    values = 0.8 / depth_m + 0.1 if kind == "disparity" else 0.08 * depth_m + 0.1
    depth_m[:, :2] = -1  # unknown
    video = _video(kind, values.astype(np.float32))
    scale, shift = video.fit(depth_m, depth_m > 0)
    np.testing.assert_allclose(video.to_metric(scale=scale, shift=shift).values[:, 2:], depth_m[:, 2:], rtol=1e-4)


def test_fit_refuses_what_it_cannot_fit() -> None:
    with pytest.raises(ValueError, match="metric clip"):
        _metric().fit(np.ones((3, 10, 14)))
    with pytest.raises(ValueError, match="depth_m: shape"):
        _video().fit(np.ones((3, 10, 13)))
    with pytest.raises(ValueError, match="depth_m: frame 0"):
        _video().fit(np.zeros((3, 10, 14)))
    with pytest.raises(ValueError, match="no valid pixel"):
        _video().fit(np.ones((3, 10, 14)), np.zeros((3, 10, 14), bool))


# ---------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("format", READABLE)
@pytest.mark.parametrize("kind", ["disparity", "metric"])
def test_save_and_load(format, kind, tmp_path: Path) -> None:
    values = _values() if kind == "disparity" else 0.5 + 60 * _values()
    times_s = np.array([0.0, 0.04, 0.09])
    video = DepthVideo(
        values, kind, times_s, Fraction(30000, 1001), {"seed": 5, "shots": [0, 2], "checkpoint": {"name": "b"}}
    )
    path = video.save(tmp_path / "depth", format)
    back = DepthVideo.load(path)
    step = 0 if format in ("npy", "exr") else np.ptp(values) / 65535 + 1e-6
    np.testing.assert_allclose(back.values, values, rtol=0, atol=step)
    np.testing.assert_array_equal(back.times_s, times_s)
    assert (back.kind, back.fps, back.meta["seed"], back.meta["shots"]) == (kind, Fraction(30000, 1001), 5, [0, 2])
    assert back.meta["clipped"] == {format: 0}
    assert back.meta["checkpoint"] == {"name": "b"}


def test_every_way_to_name_a_result(tmp_path: Path) -> None:
    path = _video().save(tmp_path / "depth", "png16")
    for name in (path, tmp_path / "depth.json", tmp_path, str(path)):
        np.testing.assert_allclose(DepthVideo.load(name).values, _values(), atol=1e-5)


def test_the_most_exact_file_of_a_sidecar_is_read(tmp_path: Path) -> None:
    video = _video()
    video.save(tmp_path / "depth", "mkv")
    video.save(tmp_path / "other" / "depth", "npy").rename(tmp_path / "depth.npy")
    np.testing.assert_array_equal(DepthVideo.load(tmp_path / "depth.json").values, _values())
    assert not np.array_equal(DepthVideo.load(tmp_path / "depth.mkv").values, _values())


def test_npy_is_mapped_not_read(tmp_path: Path) -> None:
    path = _video().save(tmp_path / "depth.npy")
    loaded = DepthVideo.load(path)
    assert isinstance(loaded.values, np.memmap)
    np.testing.assert_array_equal(loaded.values, _values())


@pytest.mark.parametrize("format", ["npy", "exr"])
def test_half_precision_loads_as_float32(format, tmp_path: Path) -> None:
    loaded = DepthVideo.load(_video().save(tmp_path / "depth", format, dtype="float16"))
    np.testing.assert_array_equal(loaded.values, _values().astype(np.float16).astype(np.float32))


def test_large_clips_live_in_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _video().save(tmp_path / "depth", "exr")
    monkeypatch.setattr(stored_values, "_IN_MEMORY_BYTES", 1000)
    loaded = DepthVideo.load(path)
    metric = loaded.to_metric(near_m=1, far_m=2)
    assert isinstance(loaded.values, np.memmap) and isinstance(metric.values, np.memmap)
    np.testing.assert_array_equal(loaded.values, _values())
    np.testing.assert_allclose(metric.values, 1 / (0.5 * _values() + 0.5), rtol=1e-6)


@pytest.mark.parametrize("format", READABLE)
def test_without_a_sidecar_the_kind_must_be_given(format, tmp_path: Path) -> None:
    path = _video().save(tmp_path / "depth", format)
    (tmp_path / "depth.json").unlink()
    with pytest.raises(ValueError, match=r"without its sidecar depth\.json, kind must be given: disparity, depth"):
        DepthVideo.load(path)
    loaded = DepthVideo.load(path, kind="depth", value_range=(0, 1))
    assert (loaded.kind, loaded.fps, loaded.times_s.tolist()) == ("depth", 1, [0.0, 1.0, 2.0])
    assert DepthVideo.load(path, kind="depth", value_range=(0, 1), fps=4).times_s.tolist() == [0.0, 0.25, 0.5]
    np.testing.assert_allclose(loaded.values, _values(), atol=1e-5)


def test_arguments_must_agree_with_the_sidecar(tmp_path: Path) -> None:
    path = _video().save(tmp_path / "depth", "npy")
    with pytest.raises(ValueError, match="kind: 'depth' contradicts 'disparity'"):
        DepthVideo.load(path, kind="depth")
    with pytest.raises(ValueError, match="fps: the sidecar .* says 24/1"):
        DepthVideo.load(path, fps=25)
    assert DepthVideo.load(path, kind="disparity").kind == "disparity"


def test_damage_is_found_at_load(tmp_path: Path) -> None:
    path = _video().save(tmp_path / "depth", "npy")
    data = path.read_bytes()
    path.write_bytes(data[:-40])
    with pytest.raises(ValueError, match=r"depth\.npy: cut off within frame 2 of 3"):
        DepthVideo.load(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="not an npy file"):
        DepthVideo.load(path)
    _video(values=_values(2)).save(tmp_path / "short" / "depth", "npy").rename(path)
    with pytest.raises(ValueError, match=r"has shape \(2, 10, 14\), its sidecar says \(3, 10, 14\)"):
        DepthVideo.load(path)
    wide = np.zeros((3, 10, 15), np.float32)
    np.save(path, wide)
    with pytest.raises(ValueError, match=r"has shape \(3, 10, 15\), its sidecar says \(3, 10, 14\)"):
        DepthVideo.load(path)


def test_what_holds_no_depth_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such file"):
        DepthVideo.load(tmp_path / "gone.mkv")
    with pytest.raises(ValueError, match="exactly one depth sidecar, found none"):
        DepthVideo.load(tmp_path)
    (tmp_path / "clip.mov").write_bytes(b"x")
    with pytest.raises(ValueError, match="name ends in one of"):
        DepthVideo.load(tmp_path / "clip.mov")
    _video().save(tmp_path / "a", "npy")
    _video().save(tmp_path / "b", "npy")
    with pytest.raises(ValueError, match="found a.json, b.json"):
        DepthVideo.load(tmp_path)
    (tmp_path / "a.npy").unlink()
    with pytest.raises(ValueError, match="none of the files it can describe exists"):
        DepthVideo.load(tmp_path / "a.json")


def test_save_takes_the_format_from_the_ending(tmp_path: Path) -> None:
    assert _video().save(tmp_path / "x.mkv").name == "x.mkv"
    assert _video().save(tmp_path / "y.npy", "npy").name == "y.npy"
    with pytest.raises(ValueError, match="format: needed for"):
        _video().save(tmp_path / "z")
    with pytest.raises(ValueError, match="format: 'mkv' contradicts"):
        _video().save(tmp_path / "z.npy", "mkv")


@pytest.mark.parametrize("format", DEPTH_FORMATS)
def test_save_never_overwrites_unasked(format, tmp_path: Path) -> None:
    _video().save(tmp_path / "depth", format)
    with pytest.raises(FileExistsError):
        _video().save(tmp_path / "depth", format)
    _video(values=_values(2)).save(tmp_path / "depth", format, overwrite=True)
    assert read_sidecar(tmp_path / "depth.json")["frame_count"] == 2


def test_metric_is_saved_in_16_bits_without_clipping(tmp_path: Path) -> None:
    video = _metric()
    _, meta = video.save(tmp_path / "depth", "mkv"), read_sidecar(tmp_path / "depth.json")
    assert meta["value_range"] == [float(video.values.min()), float(video.values.max())]
    video.save(tmp_path / "cut", "mkv", value_range=(2, 8))
    outside = int(((video.values < 2) | (video.values > 8)).sum())
    assert outside > 0 and read_sidecar(tmp_path / "cut.json")["clipped"] == {"mkv": outside}


def test_a_constant_metric_clip_can_be_saved(tmp_path: Path) -> None:
    constant = _video("metric", np.full((2, 4, 4), 3.0, np.float32))
    np.testing.assert_array_equal(DepthVideo.load(constant.save(tmp_path / "d", "png16")).values, constant.values)


def test_a_loaded_clip_saves_to_the_same_bytes(tmp_path: Path) -> None:
    first = _video(seed=4).save(tmp_path / "a" / "depth", "mkv")
    second = DepthVideo.load(first).save(tmp_path / "b" / "depth", "mkv")
    assert second.read_bytes() == first.read_bytes()
    assert (tmp_path / "b" / "depth.json").read_bytes() == (tmp_path / "a" / "depth.json").read_bytes()
