"""What a video file says of its picture beside the frames: pixel aspect, timecode, and how two eyes lie in a frame.

Two eyes are marked once in each file, as its readers expect it: StereoMode in Matroska (RFC 9559), an `st3d` box in MP4
and in MOV with ProRes (Spherical Video V2), a frame packing SEI in MOV with H.264 (ITU-T H.264, D.2.26). Not twice: of
a file with an SEI and a mark of its container, ffmpeg 9 can't decode a frame ("File exists"). The last two can't say
that the right eye comes first; then they are left out, and a player has to be told.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, NamedTuple


class _EyeMark(NamedTuple):
    """How an order of two eyes is written: ffmpeg's name for Matroska, x264's and st3d's number where there is one."""

    matroska: str
    frame_packing: int | None = None
    st3d: int | None = None


# (layout without "half-", right eye first) -> how it is written. Frame packing 3 is side by side, 4 top and bottom; in
# st3d 1 is top and bottom, 2 side by side.
_EYE_MARKS = {
    ("sbs", False): _EyeMark("left_right", 3, 2),
    ("sbs", True): _EyeMark("right_left"),
    ("tb", False): _EyeMark("top_bottom", 4, 1),
    ("tb", True): _EyeMark("bottom_top"),
    ("anaglyph", False): _EyeMark("anaglyph_cyan_red"),  # which ffmpeg 5.1 leaves out
}
_TIMECODE = re.compile(r"(\d{2}):(\d{2}):(\d{2})([:;.])(\d{2,3})")
# Boxes on the way from a track to the descriptions of its pictures (ISO/IEC 14496-12).
_WAY_TO_ENTRIES = (b"mdia", b"minf", b"stbl", b"stsd")


@dataclass(frozen=True)
class TwoEyes:
    """How two eyes lie in a frame.

    Attributes:
        layout: `sbs`, `half-sbs`, `tb`, `half-tb` or `anaglyph`.
        right_first: The right eye is on the left, or on top.
    """

    layout: str
    right_first: bool = False

    @property
    def mark(self) -> _EyeMark:
        """How it is written into files."""
        return _EYE_MARKS[self.layout.removeprefix("half-"), self.right_first and self.layout != "anaglyph"]


@dataclass(frozen=True)
class Marks:
    """What a file is to say of its picture.

    Attributes:
        sample_aspect: Width / height of one pixel.
        timecode: Of the first frame, HH:MM:SS:FF, `;` before the frames if numbers are dropped.
        eyes: How two eyes lie in a frame; None: it is one picture.
    """

    sample_aspect: Fraction = Fraction(1)
    timecode: str | None = None
    eyes: TwoEyes | None = None

    def shown_aspect(self, suffix: str) -> Fraction:
        """Pixel aspect to write: in Matroska that of one eye as it is shown, so half an eye's pixels are stretched."""
        if self.eyes is None or suffix.lower() != ".mkv":
            return self.sample_aspect
        return self.sample_aspect * {"half-sbs": Fraction(2), "half-tb": Fraction(1, 2)}.get(self.eyes.layout, 1)

    def options(self, suffix: str, codec: str) -> dict[str, str]:
        """Options for ffmpeg's output."""
        options = {} if self.timecode is None else {"timecode": self.timecode}
        if self.eyes is not None:
            mark = self.eyes.mark
            if suffix.lower() == ".mkv":
                options["metadata:s:v:0"] = f"stereo_mode={mark.matroska}"
            if suffix.lower() == ".mov" and codec == "h264" and mark.frame_packing is not None:
                options["x264-params"] = f"frame-packing={mark.frame_packing}"
        return options

    def finish(self, path: Path, codec: str) -> None:
        """Write into a whole file what ffmpeg doesn't.

        Raises:
            ValueError: It isn't built as MP4 files are.
        """
        in_box = path.suffix.lower() == ".mp4" or (path.suffix.lower(), codec) == (".mov", "prores")
        if in_box and self.eyes is not None and self.eyes.mark.st3d is not None:
            add_st3d(path, self.eyes.mark.st3d)


def timecode_at(timecode: str, source_fps: Fraction, start_s: float, fps: Fraction) -> str | None:
    """The timecode of a frame within a clip, in the frames of another rate.

    Args:
        timecode: Of the clip's first frame.
        source_fps: Frames per second of the clip.
        start_s: How far the frame lies behind the first.
        fps: Frames per second of the new clip.

    Returns:
        HH:MM:SS:FF; None if `timecode` isn't one.
    """
    match = _TIMECODE.fullmatch(timecode)
    if match is None:
        return None
    hours, minutes, seconds, frames = (int(match[group]) for group in (1, 2, 3, 5))
    nominal = round(source_fps)
    drops = match[4] in ";." and nominal % 30 == 0
    number = ((hours * 60 + minutes) * 60 + seconds) * nominal + frames
    if drops:
        # SMPTE ST 12-1: of every minute but each tenth, the first two numbers (four at 60) are left out.
        number -= nominal // 15 * (60 * hours + minutes - (60 * hours + minutes) // 10)
    number += round(Fraction(start_s) * source_fps)
    if fps != source_fps:
        number = int(number * fps / source_fps)
        nominal, drops = round(fps), drops and fps.denominator != 1 and round(fps) % 30 == 0
    if drops:
        dropped = nominal // 15
        tens, rest = divmod(number, nominal * 600 - 9 * dropped)
        number += 9 * dropped * tens
        if rest >= nominal * 60:
            number += dropped * (1 + (rest - nominal * 60) // (nominal * 60 - dropped))
    minutes, frame = divmod(number, nominal * 60)
    hours = minutes // 60 % 24
    return f"{hours:02}:{minutes % 60:02}:{frame // nominal:02}{';' if drops else ':'}{frame % nominal:02}"


class _Box(NamedTuple):
    """A box of an MP4 file: where it begins and ends, and how long its head is."""

    kind: bytes
    start: int
    head: int
    end: int


def _boxes(data: bytes | bytearray, start: int, end: int) -> list[_Box]:
    found = []
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if size == 1:
            size, head = struct.unpack_from(">Q", data, start + 8)[0], 16
        if size < head or start + size > end:
            raise ValueError(f"mp4: box {kind!r} is {size} bytes long, which does not fit")
        found.append(_Box(kind, start, head, start + size))
        start += size
    return found


def _file_boxes(path: Path) -> list[_Box]:
    """The outermost boxes of a file, whose content stays on disk."""
    found, start, total = [], 0, path.stat().st_size
    with path.open("rb") as file:
        while start + 8 <= total:
            file.seek(start)
            raw = file.read(16)
            size, kind = struct.unpack_from(">I4s", raw)
            head = 8
            if size == 1:
                size, head = struct.unpack_from(">Q", raw, 8)[0], 16
            size = size or total - start
            if size < head or start + size > total:
                raise ValueError(f"mp4: box {kind!r} is {size} bytes long, which does not fit")
            found.append(_Box(kind, start, head, start + size))
            start += size
    return found


def add_st3d(path: Path, mode: int) -> None:
    """Say in an MP4 or MOV file how two eyes lie in its frames. The file is whole at every moment.

    Args:
        path: The file, with one picture.
        mode: 1 top and bottom, 2 side by side; the left eye first.

    Raises:
        ValueError: It isn't built as MP4 files are.
    """
    outermost = _file_boxes(path)
    moov = next((box for box in outermost if box.kind == b"moov"), None)
    if moov is None:
        raise ValueError("mp4: there is no moov box")
    with path.open("rb") as file:
        file.seek(moov.start)
        held = bytearray(file.read(moov.end - moov.start))
    box = struct.pack(">I4sIB", 13, b"st3d", 0, mode)
    way = _way_to_picture(held)
    at = way[-1].end
    # Media that lies after the index moves by the box's length, and so do the places that the index names.
    first_media = min((each.start for each in outermost if each.kind == b"mdat"), default=0)
    if first_media > moov.start:
        _move_chunks(held, 0, len(held), len(box))
    for outer in way:
        struct.pack_into(">I", held, outer.start, outer.end - outer.start + len(box))
    held[at:at] = box
    part = path.with_name(f"{path.stem}.st3d{path.suffix}")
    try:
        with path.open("rb") as source, part.open("wb") as target:
            _copy(source, target, moov.start)
            target.write(held)
            source.seek(moov.end)
            shutil.copyfileobj(source, target, 1 << 20)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _copy(source: BinaryIO, target: BinaryIO, count: int) -> None:
    while count:
        block = source.read(min(count, 1 << 20))
        target.write(block)
        count -= len(block)


def _way_to_picture(moov: bytearray) -> list[_Box]:
    """The boxes from `moov` to the description of the picture, each within the one before."""
    whole = _boxes(moov, 0, len(moov))[0]
    for track in (box for box in _children(moov, whole) if box.kind == b"trak"):
        way = [whole, track]
        for kind in _WAY_TO_ENTRIES:
            way += [box for box in _children(moov, way[-1]) if box.kind == kind][:1]
        if len(way) != 2 + len(_WAY_TO_ENTRIES):
            continue
        is_picture = any(box.kind == b"vmhd" for box in _children(moov, way[3]))
        entries = _children(moov, way[-1], skipped=8)  # a version, flags, and their number
        if is_picture and entries:
            return [*way, entries[0]]
    raise ValueError("mp4: no picture is described in it")


def _children(data: bytearray, box: _Box, skipped: int = 0) -> list[_Box]:
    return _boxes(data, box.start + box.head + skipped, box.end)


def _move_chunks(moov: bytearray, start: int, end: int, by: int) -> None:
    """Add to every place of media in the index."""
    for box in _boxes(moov, start, end):
        first = box.start + box.head
        if box.kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl"):
            _move_chunks(moov, first, box.end, by)
        elif box.kind in (b"stco", b"co64"):
            count = struct.unpack_from(">I", moov, first + 4)[0]
            form = f">{count}{'I' if box.kind == b'stco' else 'Q'}"
            places = [place + by for place in struct.unpack_from(form, moov, first + 8)]
            if box.kind == b"stco" and places and max(places) >= 1 << 32:
                raise ValueError("mp4: its index has no room for the mark of stereo")
            struct.pack_into(form, moov, first + 8, *places)
