"""What files say of their picture: two eyes, timecode."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from depth_engine.video.ffmpeg_process import ffmpeg_version, find_ffmpeg
from depth_engine.video.marks import Marks, TwoEyes, timecode_at
from depth_engine.video.read import probe, read_frames
from depth_engine.video.sound import Sound
from depth_engine.video.write import VideoWriter
from tests.clips import run_ffmpeg, smooth_frames

FRAMES, HEIGHT, WIDTH = 5, 32, 64


def write(path: Path, marks: Marks, codec: str = "h264", sound: Sound | None = None) -> Path:
    with VideoWriter(path, width=WIDTH, height=HEIGHT, fps=25, codec=codec, sound=sound, marks=marks) as writer:
        for index, frame in enumerate(smooth_frames(FRAMES, HEIGHT, WIDTH)):
            writer.write(frame, index / 25)
    return path


def frame_packing(path: Path) -> int | None:
    """Arrangement type in the first frame packing SEI of an H.264 file, read from its bytes (ITU-T H.264, D.1.26)."""
    raw = path.with_suffix(".h264")
    run_ffmpeg("-i", path, "-map", "0:v", "-c", "copy", raw)
    for unit in raw.read_bytes().split(b"\0\0\1"):
        if unit[:2] == bytes([6, 45]):  # SEI, payload type 45
            bits = "".join(f"{byte:08b}" for byte in unit[3:])
            # exp-Golomb id 0 is one bit, then a cancel flag; then seven bits of type
            return int(bits[2:9], 2)
    return None


def matroska_stereo_mode(path: Path) -> int | None:
    at = path.read_bytes().find(bytes.fromhex("53b881"))
    return None if at < 0 else path.read_bytes()[at + 3]


def boxes(data: bytes) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    start = 0
    while start + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, start)
        assert 8 <= size <= len(data) - start, (kind, size)
        found.setdefault(kind, []).append(data[start + 8 : start + size])
        start += size
    return found


def st3d(path: Path) -> int | None:
    """Stereo mode in the description of the picture, found by way of every box around it."""
    for track in boxes(boxes(path.read_bytes())[b"moov"][0])[b"trak"]:
        media = boxes(boxes(track)[b"mdia"][0])[b"minf"][0]
        if b"vmhd" in boxes(media):
            described = boxes(boxes(boxes(media)[b"stbl"][0])[b"stsd"][0][8:])
            ((entry,),) = described.values()
            mark = boxes(entry[78:]).get(b"st3d")
            return None if mark is None else mark[0][4]
    raise AssertionError("no picture")


@pytest.mark.parametrize(
    ("layout", "right_first", "matroska", "packing", "box"),
    [
        ("sbs", False, 1, 3, 2),
        ("half-sbs", False, 1, 3, 2),
        ("sbs", True, 11, None, None),
        ("tb", False, 3, 4, 1),
        ("half-tb", False, 3, 4, 1),
        ("half-tb", True, 2, None, None),
        ("anaglyph", False, 10, None, None),
    ],
)
def test_two_eyes_are_marked_as_each_file_can(
    tmp_path: Path, layout: str, right_first: bool, matroska: int | None, packing: int | None, box: int | None
) -> None:
    marks = Marks(eyes=TwoEyes(layout, right_first))
    mkv, mp4, mov = (write(tmp_path / name, marks) for name in ("a.mkv", "b.mp4", "c.mov"))
    pro = write(tmp_path / "e.mov", marks, "prores")
    lossless = write(tmp_path / "f.mkv", marks, "ffv1")
    if layout == "anaglyph" and ffmpeg_version(find_ffmpeg()) < (6, 0):  # 5.1 leaves this one out
        matroska = None
    assert matroska_stereo_mode(mkv) == matroska_stereo_mode(lossless) == matroska
    assert st3d(mp4) == st3d(pro) == box
    assert frame_packing(mov) == packing
    # A second mark would keep ffmpeg 9 from decoding the file.
    assert frame_packing(mkv) is frame_packing(mp4) is st3d(mov) is None
    for path in (mkv, mp4, mov, pro, lossless):
        assert len(list(read_frames(path))) == FRAMES


def test_a_single_picture_is_not_marked(tmp_path: Path) -> None:
    mkv, mp4 = write(tmp_path / "a.mkv", Marks()), write(tmp_path / "b.mp4", Marks())
    assert matroska_stereo_mode(mkv) is None and st3d(mp4) is None and frame_packing(mp4) is None


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_picture_and_sound_are_where_the_index_says(tmp_path: Path, suffix: str) -> None:
    clip = tmp_path / "sound.mp4"
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x48:d=1", "-f", "lavfi", "-i", "sine=d=1", "-c:a", "aac", clip)
    plain = write(tmp_path / f"plain.{suffix}", Marks(timecode="10:00:00:05"), sound=Sound(clip))
    marked = write(tmp_path / f"sbs.{suffix}", Marks(timecode="10:00:00:05", eyes=TwoEyes("tb")), sound=Sound(clip))
    pixels = [np.stack([frame.rgb for frame in read_frames(path)]) for path in (plain, marked)]
    assert len(pixels[1]) == FRAMES and np.abs(pixels[0].astype(int) - pixels[1]).max() <= 2
    for path in (plain, marked):
        run_ffmpeg("-i", path, "-map", "0:a", "-f", "s16le", path.with_suffix(".pcm"))
    sums = [path.with_suffix(".pcm").read_bytes() for path in (plain, marked)]
    assert sums[0] == sums[1] and sums[0]
    assert probe(marked).timecode == "10:00:00:05"
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == f".{suffix}") in (
        [plain.name, marked.name],
        [plain.name, marked.name, clip.name],
    )


def test_half_an_eye_is_shown_whole_in_matroska(tmp_path: Path) -> None:
    """RFC 9559: the display size is that of one eye."""
    wide, tall = (write(tmp_path / f"{name}.mkv", Marks(eyes=TwoEyes(name))) for name in ("half-sbs", "half-tb"))
    assert (probe(wide).sample_aspect, probe(tall).sample_aspect) == (2, Fraction(1, 2))
    assert probe(write(tmp_path / "half.mp4", Marks(eyes=TwoEyes("half-sbs")))).sample_aspect == 1


@pytest.mark.parametrize(
    ("timecode", "source_fps", "start_s", "fps", "expected"),
    [
        ("01:00:00:00", "25", 0, "25", "01:00:00:00"),
        ("01:00:00:20", "25", 0.4, "25", "01:00:01:05"),
        ("23:59:59:24", "25", 0.04, "25", "00:00:00:00"),
        ("00:00:59;29", "30000/1001", 0.0333667, "30000/1001", "00:01:00;02"),
        ("00:09:59;29", "30000/1001", 0.0333667, "30000/1001", "00:10:00;00"),
        ("01:00:00:12", "24", 0, "12", "01:00:00:06"),
        ("12", "24", 0, "24", None),
    ],
)
def test_timecodes_are_counted_on(
    timecode: str, source_fps: str, start_s: float, fps: str, expected: str | None
) -> None:
    assert timecode_at(timecode, Fraction(source_fps), start_s, Fraction(fps)) == expected


def test_every_dropped_frame_timecode_of_an_hour_counts_on_by_one() -> None:
    rate = Fraction(30000, 1001)
    seen = [timecode_at("00:00:00;00", rate, float(number / rate), rate) for number in range(0, 107892, 7)]
    assert len(set(seen)) == len(seen) and seen == sorted(seen)  # type: ignore[type-var]
    assert not any(code and code[6:8] == "00" and code[9:] in ("00", "01") and code[4] != "0" for code in seen)
    assert timecode_at("00:00:00;00", rate, float(107892 / rate), rate) == "01:00:00;00"


def test_a_timecode_of_another_form_is_told(tmp_path: Path) -> None:
    whole, odd = tmp_path / "whole.mkv", tmp_path / "odd.mkv"
    run_ffmpeg("-i", write(tmp_path / "clip.mkv", Marks()), "-c", "copy", "-metadata", "timecode=01:00:00:00", whole)
    run_ffmpeg("-i", whole, "-c", "copy", "-metadata", "timecode=take-7", odd)
    assert not any("timecode" in note for note in probe(whole).notes)
    assert any("timecode 'take-7'" in note and "not carried over" in note for note in probe(odd).notes)
