"""Depth files and sidecar: round trips, same bytes, atomic names, damage."""

from __future__ import annotations

import hashlib
import json
import re
import tracemalloc
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import OpenEXR
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from depth_engine.depth import sinks
from depth_engine.depth.formats import DEPTH_FORMATS, depth_path, iter_depth, split_depth_path
from depth_engine.depth.sidecar import Held, MadeBy, make_sidecar, read_sidecar, sidecar_path, write_sidecar
from depth_engine.depth.sinks import Stored, open_depth_sink
from depth_engine.video.marks import Marks
from depth_engine.video.read import read_frames
from tests.clips import packet_times_s

READABLE = [name for name in DEPTH_FORMATS if name != "mp4"]
COUNTS = ["mkv", "png16"]


def _clip(frame_count: int = 4, height: int = 18, width: int = 26) -> np.ndarray:
    return np.random.default_rng(7).random((frame_count, height, width), dtype=np.float32)


def _write(base: Path, format: str, clip: np.ndarray, overwrite: bool = False, **stored) -> Path:
    size = {"height": clip.shape[1], "width": clip.shape[2]}
    given = Stored(**stored)
    with open_depth_sink(base, format, **size, fps=Fraction(24), overwrite=overwrite, stored=given) as sink:
        for index, frame in enumerate(clip):
            sink.write(frame, index / 24)
    return sink.path


def _bytes(path: Path) -> dict[str, str]:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def _sidecar_of(clip: np.ndarray, made_by: MadeBy | None = None, **changes) -> dict:
    times_s = np.arange(len(clip)) / 24
    held = {"kind": "disparity", "fps": 24, "times_s": times_s, "height": clip.shape[1], "width": clip.shape[2]}
    return make_sidecar(Held(**held | changes), made_by)


# ---------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("format", DEPTH_FORMATS)
def test_names_and_back(format: str, tmp_path: Path) -> None:
    base = tmp_path / "my.clip v2"
    assert split_depth_path(depth_path(base, format)) == (base, format)


def test_documented_names() -> None:
    names = [depth_path("d/depth", name).as_posix() for name in DEPTH_FORMATS]
    assert names == ["d/depth.npy", "d/depth.mkv", "d/depth_png16", "d/depth_exr", "d/depth.mp4"]
    assert sidecar_path("d/depth").as_posix() == "d/depth.json"


def test_unknown_names() -> None:
    with pytest.raises(ValueError, match="format: 'tiff' is not one of npy, mkv"):
        depth_path("d/depth", "tiff")
    with pytest.raises(ValueError, match="name ends in one of"):
        split_depth_path("d/depth.tiff")


# ---------------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("format", ["npy", "exr"])
def test_float32_comes_back_exactly(format: str, tmp_path: Path) -> None:
    clip = _clip() * 300 - 20
    clip[0, 0, :4] = [0.0, -0.0, 1e-30, 6e30]
    back = np.stack(list(iter_depth(_write(tmp_path / "depth", format, clip))))
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, clip)


@pytest.mark.parametrize("format", ["npy", "exr"])
def test_float16_comes_back_as_half_precision(format: str, tmp_path: Path) -> None:
    clip = _clip()
    back = np.stack(list(iter_depth(_write(tmp_path / "depth", format, clip, dtype="float16"))))
    np.testing.assert_array_equal(back, clip.astype(np.float16).astype(np.float32))


@pytest.mark.parametrize("format", COUNTS)
@pytest.mark.parametrize("value_range", [(0.0, 1.0), (0.5, 80.0)])
def test_16_bit_formats_come_back_within_half_a_count(format: str, value_range: tuple, tmp_path: Path) -> None:
    lo, hi = value_range
    clip = np.float32(lo) + _clip() * np.float32(hi - lo)
    clip[0, 0, :2] = value_range
    path = _write(tmp_path / "depth", format, clip, value_range=value_range)
    back = np.stack(list(iter_depth(path, value_range=value_range)))
    # half a count, and the rounding of float32 itself
    np.testing.assert_allclose(back, clip, rtol=0, atol=0.5 * (hi - lo) / 65535 + np.spacing(np.float32(hi)))
    assert back[0, 0, :2].tolist() == [np.float32(lo), np.float32(hi)]


@pytest.mark.parametrize("format", COUNTS)
def test_every_count_survives_a_second_round(format: str, tmp_path: Path) -> None:
    counts = np.arange(65536, dtype=np.float64).reshape(1, 256, 256)
    for number, (lo, hi) in enumerate([(0.0, 1.0), (0.3, 19.7), (-4.0, 4.0)]):
        first = _write(tmp_path / f"a{number}", format, (lo + counts * (hi - lo) / 65535).astype(np.float32),
                       value_range=(lo, hi))  # fmt: skip
        values = np.stack(list(iter_depth(first, value_range=(lo, hi))))
        second = _write(tmp_path / f"b{number}", format, values, value_range=(lo, hi))
        assert list(_bytes(second).values()) == list(_bytes(first).values())
        assert len(np.unique(values)) == 65536


def test_png16_is_what_other_programs_read(tmp_path: Path) -> None:
    clip = np.array([[[0.0, 0.5], [1.0, 0.25]]], np.float32)
    path = _write(tmp_path / "depth", "png16", clip)
    with Image.open(path / "000000.png") as image:
        assert np.asarray(image).tolist() == [[0, 32768], [65535, 16384]]


def test_npy_opens_as_a_memory_map(tmp_path: Path) -> None:
    clip = _clip()
    mapped = np.load(_write(tmp_path / "depth", "npy", clip), mmap_mode="r")
    assert isinstance(mapped, np.memmap) and mapped.dtype == np.float32
    np.testing.assert_array_equal(mapped, clip)


@settings(max_examples=40, deadline=None)
@given(frame_count=st.integers(0, 10**12), height=st.integers(1, 10**6), width=st.integers(1, 10**6))
def test_npy_header_keeps_its_size(frame_count: int, height: int, width: int) -> None:
    sink = object.__new__(sinks._NpySink)
    sink._shape, sink._dtype = (height, width), np.dtype("<f4")
    header = sink._header(frame_count)
    assert len(header) == len(sink._header(0))
    assert str((frame_count, height, width)) in header.decode("latin1")


def test_exr_is_what_other_programs_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = _clip(1)
    path = _write(tmp_path / "depth", "exr", clip, kind="depth") / "000000.exr"
    with OpenEXR.File(str(path)) as image:
        channels, header = image.channels(), image.header()
        assert sorted(channels) == ["Y", "Z"]
        for channel in channels.values():
            assert channel.pixels.dtype == np.float32
            np.testing.assert_array_equal(channel.pixels, clip[0])
        assert header["colorInteropID"] == "data" and header["depthKind"] == "depth"
        assert header["frameNumber"] == 0 and header["sourceFrame"] == "000000"
        assert header["pixelAspectRatio"] == 1 and np.allclose(header["depthRange"], (0, 1))
    monkeypatch.setenv("OPENCV_IO_ENABLE_OPENEXR", "1")
    import cv2

    np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), clip[0])


def test_exr_names_the_source_s_frame_and_the_shape_of_its_pixels(tmp_path: Path) -> None:
    stored = Stored(marks=Marks(Fraction(4, 3)))
    with open_depth_sink(tmp_path / "depth", "exr", height=8, width=8, fps=24, stored=stored) as sink:
        for number in (1001, 1003):
            sink.write(np.full((8, 8), 0.5), number / 24, f"plate.{number}")
    with OpenEXR.File(str(sink.path / "plate.1003.exr")) as image:
        header = image.header()
        assert header["frameNumber"] == 1 and header["sourceFrame"] == "plate.1003"
        assert abs(header["pixelAspectRatio"] - 4 / 3) < 1e-6


def test_exr_counts_the_timecode_on(tmp_path: Path) -> None:
    """From frame to frame by their times: one of two was left out, and numbers are dropped at the full minute."""
    stored = Stored(marks=Marks(timecode="00:00:59;28"))
    with open_depth_sink(
        tmp_path / "depth", "exr", height=8, width=8, fps=Fraction(30000, 1001), stored=stored
    ) as sink:
        for number in (0, 1, 3):
            sink.write(np.full((8, 8), 0.5), number * 1001 / 30000)
    codes = [OpenEXR.File(str(file)).header()["timeCode"] for file in sorted(sink.path.iterdir())]
    found = [(code.hours, code.minutes, code.seconds, code.frame, code.dropFrame) for code in codes]
    assert found == [(0, 0, 59, 28, 1), (0, 0, 59, 29, 1), (0, 1, 0, 3, 1)]


@pytest.mark.parametrize("kind", ["disparity", "depth"])
def test_preview_shows_near_in_warm_colours(kind: str, tmp_path: Path) -> None:
    near_left = np.tile(np.array([1.0] * 32 + [0.0] * 32, np.float32), (3, 48, 1))
    clip = near_left if kind == "disparity" else 1 - near_left
    frames = list(read_frames(_write(tmp_path / "depth", "mp4", clip, kind=kind)))
    assert len(frames) == 3
    left, right = frames[1].rgb[:, 4:28].mean((0, 1)), frames[1].rgb[:, 36:60].mean((0, 1))
    assert left[0] > left[2] + 50 and right[2] > right[0] + 30


def test_preview_maps_metres_by_the_value_range(tmp_path: Path) -> None:
    metres = np.full((2, 32, 32), 2.0, np.float32)
    metres[:, :, 16:] = 40.0
    frames = list(read_frames(_write(tmp_path / "depth", "mp4", metres, kind="metric", value_range=(2.0, 40.0))))
    assert frames[0].rgb[8, 6, 0] > frames[0].rgb[8, 26, 0] + 100


def test_uneven_times_keep_every_frame_of_the_archive(tmp_path: Path) -> None:
    clip = _clip(6)
    sink = open_depth_sink(tmp_path / "depth", "mkv", height=18, width=26, fps=Fraction(30000, 1001))
    with sink:
        for frame, time_s in zip(clip, [0.2, 0.21, 0.5, 1.9, 1.95, 7.0], strict=True):
            sink.write(frame, time_s)
    assert list(sink.times_s) == [0.2, 0.21, 0.5, 1.9, 1.95, 7.0]
    assert len(list(iter_depth(sink.path, value_range=(0, 1)))) == 6
    np.testing.assert_allclose(packet_times_s(sink.path), np.subtract(sink.times_s, 0.2), atol=1e-3)


@pytest.mark.parametrize("format", DEPTH_FORMATS)
def test_odd_sizes(format: str, tmp_path: Path) -> None:
    path = _write(tmp_path / "depth", format, _clip(2, 17, 23))
    if format == "mp4":
        assert len(list(read_frames(path))) == 2
    else:
        assert [frame.shape for frame in iter_depth(path, value_range=(0, 1))] == [(17, 23)] * 2


# ---------------------------------------------------------------------------------------------- the sinks' promises


@pytest.mark.parametrize("format", DEPTH_FORMATS)
def test_same_frames_same_bytes(format: str, tmp_path: Path) -> None:
    assert _bytes(_write(tmp_path / "a" / "depth", format, _clip())) == _bytes(
        _write(tmp_path / "b" / "depth", format, _clip())
    )


@pytest.mark.parametrize("format", DEPTH_FORMATS)
def test_name_appears_only_when_whole(format: str, tmp_path: Path) -> None:
    sink = open_depth_sink(tmp_path / "depth", format, height=18, width=26, fps=24)
    for index, frame in enumerate(_clip()):
        sink.write(frame, index / 24)
        assert not depth_path(tmp_path / "depth", format).exists()
    sink.close()
    sink.close()
    assert [path.name for path in tmp_path.iterdir()] == [depth_path("depth", format).name]
    with pytest.raises(ValueError, match="after close"):
        sink.write(_clip()[0], 9.0)


@pytest.mark.parametrize("format", DEPTH_FORMATS)
def test_an_exception_leaves_nothing_behind(format: str, tmp_path: Path) -> None:
    with pytest.raises(KeyError), open_depth_sink(tmp_path / "depth", format, height=18, width=26, fps=24) as sink:
        sink.write(_clip()[0], 0.0)
        raise KeyError("the caller's own")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", DEPTH_FORMATS)
def test_no_frame_is_an_error_and_leaves_nothing_behind(format: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no frame was written"):
        open_depth_sink(tmp_path / "depth", format, height=18, width=26, fps=24).close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", DEPTH_FORMATS)
def test_overwrite_rule(format: str, tmp_path: Path) -> None:
    path = _write(tmp_path / "depth", format, _clip())
    before = _bytes(path)
    with pytest.raises(FileExistsError, match="exists"):
        open_depth_sink(tmp_path / "depth", format, height=18, width=26, fps=24)
    assert _bytes(path) == before

    other = _write(tmp_path / "other" / "depth", format, _clip(2))
    _write(tmp_path / "depth", format, _clip(2), overwrite=True)
    assert _bytes(path) == _bytes(other)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([path.name, "other"])


@pytest.mark.parametrize("format", DEPTH_FORMATS)
def test_an_aborted_overwrite_keeps_the_old_file(format: str, tmp_path: Path) -> None:
    path = _write(tmp_path / "depth", format, _clip())
    before = _bytes(path)
    sink = open_depth_sink(tmp_path / "depth", format, height=18, width=26, fps=24, overwrite=True)
    sink.write(_clip()[0], 0.0)
    sink.abort()
    assert _bytes(path) == before and len(list(tmp_path.iterdir())) == 1


def test_a_target_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    sink = open_depth_sink(tmp_path / "depth", "npy", height=18, width=26, fps=24)
    sink.write(_clip()[0], 0.0)
    (tmp_path / "depth.npy").write_text("somebody else's")
    with pytest.raises(FileExistsError):
        sink.close()
    assert (tmp_path / "depth.npy").read_text() == "somebody else's"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("format", ["mkv", "png16", "mp4"])
def test_clipped_values_are_counted(format: str, tmp_path: Path) -> None:
    clip = np.full((2, 16, 16), 0.5, np.float32)
    clip[0, 0, :3] = [-0.1, 1.2, 1.0]
    clip[1, 5, 5] = 40.0
    with open_depth_sink(tmp_path / "depth", format, height=16, width=16, fps=24) as sink:
        for index, frame in enumerate(clip):
            sink.write(frame, index / 24)
    assert sink.clipped == 3
    if format != "mp4":
        assert next(iter_depth(sink.path, value_range=(0, 1)))[0, :3].tolist() == [0.0, 1.0, 1.0]


def test_bad_frames_name_file_and_frame(tmp_path: Path) -> None:
    with open_depth_sink(tmp_path / "depth", "npy", height=18, width=26, fps=24, stored=Stored("float16")) as sink:
        sink.write(_clip()[0], 0.0)
        with pytest.raises(ValueError, match=r"depth\.npy: frame 1 has shape \(26, 18\), not \(18, 26\)"):
            sink.write(_clip()[0].T, 1.0)
        with pytest.raises(ValueError, match="frame 1 holds NaN"):
            sink.write(np.full((18, 26), np.nan, np.float32), 1.0)
        with pytest.raises(ValueError, match="frame 1 holds values above 65504"):
            sink.write(np.full((18, 26), 7e4, np.float32), 1.0)
        sink.write(_clip()[1], 1.0)
    assert len(list(iter_depth(sink.path))) == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "uint8"}, "dtype: 'uint8'"),
        ({"kind": "inverse"}, "kind: 'inverse'"),
        ({"value_range": (1.0, 1.0)}, "value_range"),
        ({"value_range": (0.0, float("nan"))}, "value_range"),
        ({"height": 0}, "height, width: 0x26"),
        ({"fps": 0}, "fps: 0 is not a frame rate"),
        ({"cmap": "jet"}, "cmap: 'jet'"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(options: dict, message: str, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"height": 18, "width": 26, "fps": 24}
    stored = Stored(**{name: value for name, value in options.items() if name not in arguments})
    arguments |= {name: value for name, value in options.items() if name in arguments}
    with pytest.raises(ValueError, match=message):
        open_depth_sink(tmp_path / "depth", "mp4", **arguments, stored=stored)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", READABLE)
def test_memory_does_not_grow_with_the_clip(format: str, tmp_path: Path) -> None:
    frame = _clip(1, 128, 256)[0]

    def peak_bytes(frame_count: int) -> int:
        tracemalloc.start()
        path = _write(tmp_path / str(frame_count), format, np.broadcast_to(frame, (frame_count, *frame.shape)))
        for _ in iter_depth(path, value_range=(0, 1)):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_bytes(2)  # what is imported and cached once
    short, long = peak_bytes(6), peak_bytes(40)
    assert long - short < 4 * frame.nbytes


# --------------------------------------------------------------------------------------------------------- damage


def _damage(path: Path, format: str) -> None:
    """Cut the data in frame 2 of 4."""
    file = path / {"png16": "000002.png", "exr": "000002.exr"}[format] if path.is_dir() else path
    data = file.read_bytes()
    if format == "npy":
        data = data[: 128 + 2 * 18 * 26 * 4 + 100]
    else:
        data = data[: len(data) * 6 // 10]
    file.write_bytes(data)


@pytest.mark.parametrize("format", READABLE)
def test_a_cut_file_gives_what_is_whole_and_then_names_the_frame(format: str, tmp_path: Path) -> None:
    path = _write(tmp_path / "depth", format, _clip())
    _damage(path, format)
    frames = iter_depth(path, value_range=(0, 1))
    np.testing.assert_allclose([next(frames), next(frames)], _clip()[:2], atol=1e-5)
    with pytest.raises(ValueError, match=rf"{path.name}: .*frame 2") as caught:
        next(frames)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("format", "suffix"), [("png16", ".png"), ("exr", ".exr")])
def test_a_missing_frame_is_named(format: str, suffix: str, tmp_path: Path) -> None:
    path = _write(tmp_path / "depth", format, _clip())
    (path / f"000001{suffix}").unlink()
    frames = iter_depth(path, value_range=(0, 1))
    next(frames)
    with pytest.raises(ValueError, match=r"frame 1 \(000001"):
        next(frames)


@pytest.mark.parametrize("format", READABLE)
def test_a_file_of_something_else_is_refused_in_one_line(format: str, tmp_path: Path) -> None:
    path = depth_path(tmp_path / "depth", format)
    if format in ("png16", "exr"):
        path.mkdir()
        (path / ("000000.png" if format == "png16" else "000000.exr")).write_bytes(b"no picture at all")
    else:
        path.write_bytes(b"no picture at all")
    with pytest.raises(ValueError, match=re.escape(path.name)) as caught:
        list(iter_depth(path, value_range=(0, 1)))
    assert "\n" not in str(caught.value)


def test_wrong_contents_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "ints.npy", np.zeros((2, 3, 4), np.int32))
    with pytest.raises(ValueError, match="int32"):
        list(iter_depth(tmp_path / "ints.npy"))
    (tmp_path / "eight_png16").mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "eight_png16" / "000000.png")
    with pytest.raises(ValueError, match=r"frame 0 \(000000.png\) .*not 16-bit"):
        list(iter_depth(tmp_path / "eight_png16", value_range=(0, 1)))
    (tmp_path / "rgb_exr").mkdir()
    OpenEXR.File({}, {"Y": np.zeros((4, 4), np.float32)}).write(str(tmp_path / "rgb_exr" / "000000.exr"))
    with pytest.raises(ValueError, match="channels Y, no Z"):
        list(iter_depth(tmp_path / "rgb_exr"))
    (tmp_path / "none_exr").mkdir()
    with pytest.raises(ValueError, match="holds no frame"):
        list(iter_depth(tmp_path / "none_exr"))
    with pytest.raises(ValueError, match="cannot be read back"):
        iter_depth(_write(tmp_path / "depth", "mp4", _clip()))
    with pytest.raises(FileNotFoundError, match="no such depth file"):
        iter_depth(tmp_path / "gone.npy")


@pytest.mark.parametrize("format", READABLE)
def test_a_file_is_held_against_its_sidecar(format: str, tmp_path: Path) -> None:
    path = _write(tmp_path / "depth", format, _clip())
    write_sidecar(sidecar_path(tmp_path / "depth"), _sidecar_of(_clip(5)))
    with pytest.raises(ValueError, match="ends after frame 3, its sidecar says 5"):
        list(iter_depth(path))
    write_sidecar(sidecar_path(tmp_path / "depth"), _sidecar_of(_clip(), height=20), overwrite=True)
    with pytest.raises(ValueError, match=r"frame 0 has shape \(18, 26\), expected \(20, 26\)"):
        list(iter_depth(path))


def test_value_range_comes_from_the_sidecar(tmp_path: Path) -> None:
    clip = 2 + 8 * _clip()
    path = _write(tmp_path / "depth", "png16", clip, value_range=(2, 10))
    with pytest.raises(ValueError, match="value_range is needed"):
        iter_depth(path)
    write_sidecar(sidecar_path(tmp_path / "depth"), _sidecar_of(clip, kind="metric", value_range=(2, 10)))
    np.testing.assert_allclose(np.stack(list(iter_depth(path))), clip, atol=1e-4)
    with pytest.raises(ValueError, match="contradicts"):
        iter_depth(path, value_range=(0, 1))


# -------------------------------------------------------------------------------------------------------- sidecar


def test_sidecar_round_trip(tmp_path: Path) -> None:
    held = Held(
        kind="metric",
        fps=Fraction(30000, 1001),
        times_s=np.array([0.0, 1001 / 30000]),
        height=4,
        width=6,
        value_range=(0, 65.535),
        shots=[0, 1],
        clipped={"mkv": 2},
    )
    settings = {
        "window": 10,
        "resolution": (480, 640),
        "sigma": np.float32(0.5),
        "count": np.int64(9),
        "folder": Path("x/y"),
    }
    made_by = MadeBy({"name": "bundled", "sha256": "ab" * 32}, 3, settings, "a <b> & c.mp4")
    content = make_sidecar(held, made_by)
    write_sidecar(tmp_path / "depth.json", content)
    back = read_sidecar(tmp_path / "depth.json")
    assert back["fps"] == "30000/1001"
    assert back["times_s"] == [0.0, 1001 / 30000]
    assert back["settings"] == {"window": 10, "resolution": [480, 640], "sigma": 0.5, "count": 9, "folder": "x/y"}
    assert back["scale"]["step"] == pytest.approx(0.001) and back["scale"]["offset"] == 0.0
    assert (back["kind"], back["seed"], back["frame_count"], back["shots"]) == ("metric", 3, 2, [0, 1])
    assert back["meaning"] == "metres" and back["clipped"] == {"mkv": 2}
    assert [entry.name for entry in tmp_path.iterdir()] == ["depth.json"]


def test_sidecar_is_the_same_bytes_and_one_line_a_key(tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        write_sidecar(tmp_path / name, _sidecar_of(_clip()))
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert len((tmp_path / "a.json").read_text().splitlines()) == 2 + len(_sidecar_of(_clip()))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), np.float64("-inf"), {"deep": [float("nan")]}, object()])
def test_what_json_cannot_hold_is_never_written(value: object, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="settings cannot be written as JSON"):
        write_sidecar(tmp_path / "depth.json", _sidecar_of(_clip(), MadeBy(settings={"bad": value})))
    assert list(tmp_path.iterdir()) == []


def test_sidecar_overwrite_rule(tmp_path: Path) -> None:
    write_sidecar(tmp_path / "depth.json", _sidecar_of(_clip()))
    with pytest.raises(FileExistsError):
        write_sidecar(tmp_path / "depth.json", _sidecar_of(_clip(9)))
    write_sidecar(tmp_path / "depth.json", _sidecar_of(_clip(9)), overwrite=True)
    assert read_sidecar(tmp_path / "depth.json")["frame_count"] == 9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "format_version 99"),
        ({"kind": "inverse"}, "kind 'inverse'"),
        ({"frame_count": 7}, "4 times_s for a frame_count of 7"),
        ({"fps": ...}, "lacks fps"),
        ({"format_version": ...}, "not a depth sidecar"),
    ],
)
def test_damaged_sidecars_are_refused(change: dict, message: str, tmp_path: Path) -> None:
    content = {key: value for key, value in (_sidecar_of(_clip()) | change).items() if value is not ...}
    (tmp_path / "depth.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        read_sidecar(tmp_path / "depth.json")


def test_no_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "depth.json").write_text('{"kind": "disp')
    with pytest.raises(ValueError, match="not JSON"):
        read_sidecar(tmp_path / "depth.json")
