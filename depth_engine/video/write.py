"""Video out: frames with their times into H.264, ProRes or FFV1, and the source's sound beside them.

A raw pipe carries no times. So the frames go to ffmpeg as a minimal Matroska stream (RFC 9559) of uncompressed video,
one cluster to a frame, with times in microseconds.
"""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import threading
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO, NamedTuple

import ffmpeg as ffmpeg_python
import numpy as np

from depth_engine.video.ffmpeg_process import LOCAL_PROTOCOLS, PASSTHROUGH, ErrorLog, find_ffmpeg, local_url
from depth_engine.video.marks import Marks
from depth_engine.video.rate import as_frame_rate
from depth_engine.video.sound import Sound, SoundStreams, sound_streams


class _Codec(NamedTuple):
    """What a codec is written to, and how."""

    suffixes: tuple[str, ...]
    even_sides: bool
    options: dict[str, str | int]


# Thread and slice counts are fixed: they change the bytes, and the same frames shall give the same file everywhere.
_CODECS = {
    "h264": _Codec(
        (".mp4", ".mov", ".mkv"), True, {"c:v": "libx264", "preset": "veryfast", "pix_fmt": "yuv420p", "threads": 4}
    ),
    # Profile 3 is ProRes 422 HQ; the vendor code is Apple's, which some editors insist on.
    "prores": _Codec(
        (".mov", ".mkv"),
        True,
        {"c:v": "prores_ks", "profile:v": 3, "vendor": "apl0", "pix_fmt": "yuv422p10le", "threads": 4},
    ),
    "ffv1": _Codec((".mkv",), False, {"c:v": "ffv1", "level": 3, "g": 1, "slicecrc": 1, "threads": 4}),
}

# Pixel format -> FourCC under which ffmpeg knows it, shape after [H, W], dtype.
_PIPE_FORMATS = {
    "rgb24": (b"RGB\x18", (3,), np.dtype(np.uint8)),
    "gray16le": (b"Y1\x00\x10", (), np.dtype("<u2")),
}


@dataclass(frozen=True)
class Encoding:
    """How frames are stored.

    Attributes:
        codec: `h264`, `prores` or `ffv1`.
        pixel_format: `rgb24` for uint8 `[H, W, 3]`, or `gray16le` for uint16 `[H, W]`, with `ffv1` only.
        crf: Quality of `h264`: 0 is lossless, 18 looks it, 51 is worst.
    """

    codec: str = "h264"
    pixel_format: str = "rgb24"
    crf: int = 18


_part_numbers = itertools.count()


class VideoWriter:
    """Writes one video file; a context manager. The finished name appears only when the file is whole.

    The same frames, times and sound give the same bytes. H.264 is High, yuv420p, BT.709, with the index in front;
    FFV1 is lossless. H.264 and ProRes need even sides: an odd one is widened by one pixel that repeats the edge.

    Args:
        path: Where to write: `.mp4`, `.mov` or `.mkv` for `h264`, `.mov` or `.mkv` for `prores`, `.mkv` for `ffv1`.
        width: Width of the frames in pixels.
        height: Height of the frames in pixels.
        fps: Average frame rate; exact times come with the frames.
        codec: `h264`, `prores` or `ffv1`, or in full an `Encoding`.
        sound: What is put beside the frames.
        marks: What the file says of its picture: pixel aspect, timecode, two eyes.
        overwrite: Whether a file of that name may be replaced.

    Raises:
        ValueError: If an argument is not accepted.
        FileExistsError: If the file exists and `overwrite` is not set.
        FileNotFoundError: If its folder does not exist.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        width: int,
        height: int,
        fps: Fraction | float,
        codec: str | Encoding = "h264",
        sound: Sound | None = None,
        marks: Marks | None = None,
        overwrite: bool = False,
    ) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self.path = Path(path)
        encoding = Encoding(codec) if isinstance(codec, str) else codec
        check_format(self.path, encoding.codec, encoding.pixel_format)
        if width < 1 or height < 1:
            raise ValueError(f"width, height: {width}x{height} is not a size, 1x1 or more")
        if not 0 <= encoding.crf <= 51:
            raise ValueError(f"crf: {encoding.crf} is not in 0..51")
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"{self.path}: its folder does not exist")
        self._overwrite = overwrite
        self._refuse_existing()
        self._codec, self._codec_name = _CODECS[encoding.codec], encoding.codec
        self._fourcc, shape, self._dtype = _PIPE_FORMATS[encoding.pixel_format]
        self._shape = (height, width, *shape)
        # One more row or column where the codec needs even sides.
        odd = (height % 2, width % 2) if self._codec.even_sides else (0, 0)
        self._padding = ((0, odd[0]), (0, odd[1]), *[(0, 0) for _ in shape])
        self._pipe_size = (width + odd[1], height + odd[0])
        self._fps = as_frame_rate(fps)
        self._marks = marks or Marks()
        self._video_options = _video_options(encoding, self._marks.shown_aspect(self.path.suffix), self._fps)
        self._video_options |= self._marks.options(self.path.suffix, encoding.codec)
        if encoding.codec == "ffv1" and min(width, height) >= 16:
            # Four parts that four threads decode; ffmpeg refuses to cut frames of a few pixels.
            self._video_options["slices"] = 4
        self._sound = SoundStreams() if sound is None else sound_streams(sound, self.path.suffix)
        # In the same folder, so that the finished file is moved within one file system.
        self._part = self.path.with_name(f".{os.getpid()}-{next(_part_numbers)}.part{self.path.suffix}")
        self._errors = ErrorLog()
        self._first_s = self._last_s = -math.inf
        self._closed = False

    def write(self, frame: np.ndarray, time_s: float) -> None:
        """Add a frame.

        Args:
            frame: uint8 `[H, W, 3]`, or uint16 `[H, W]` for `gray16le`.
            time_s: When it is shown, 0 or later, after the frame before.

        Raises:
            ValueError: If the frame's shape or dtype, or its time, is not accepted.
            OSError: If ffmpeg cannot write (a full disk); the unfinished file is gone then.
        """
        if self._closed:
            raise ValueError(f"{self.path}: is closed, no frame can be added")
        if frame.shape != self._shape or frame.dtype != self._dtype:
            raise ValueError(f"frame: is {frame.dtype} {frame.shape}, not {self._dtype} {self._shape}")
        time_s = float(time_s)
        if not (math.isfinite(time_s) and time_s >= 0 and time_s > self._last_s):
            raise ValueError(f"time_s: {time_s} is not a time after {max(self._last_s, 0):g} s, the frame before")
        if any(after for _, after in self._padding):
            frame = np.pad(frame, self._padding, mode="edge")
        data = np.ascontiguousarray(frame)
        try:
            if self._process is None:
                self._start(time_s)
            stdin = _pipe(self._process)
            _write_all(stdin, matroska_cluster_head(round((time_s - self._first_s) * 1e6), data.nbytes))
            _write_all(stdin, data.data.cast("B"))
        except OSError as error:
            raise self._failure() from error
        self._last_s = time_s

    def close(self) -> None:
        """Finish the file and give it its name.

        Raises:
            ValueError: If no frame was written.
            OSError: If ffmpeg could not finish the file, which is gone then.
            FileExistsError: If a file of that name has appeared meanwhile and `overwrite` is not set.
        """
        if self._closed:
            return
        if self._process is None:
            self._closed = True
            raise ValueError(f"{self.path}: no frame was written")
        try:
            _pipe(self._process).close()
        except OSError as error:
            raise self._failure() from error
        code = self._process.wait()
        self._drain.join()
        # Older versions end with code 0 if the disk fills at the very end.
        if code or self._errors.has("Error writing trailer"):
            raise self._failure()
        try:
            self._marks.finish(self._part, self._codec_name)
            self._refuse_existing()
            os.replace(self._part, self.path)
        finally:
            self.abort()

    def abort(self) -> None:
        """Stop and leave nothing behind."""
        self._closed = True
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._drain.join()
            try:
                _pipe(self._process).close()
            except OSError:
                pass  # what was still in the pipe is not wanted
            self._process = None
            self._part.unlink(missing_ok=True)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def __del__(self) -> None:
        if self._process is not None:
            self.abort()

    def _refuse_existing(self) -> None:
        if not self._overwrite and self.path.exists():
            raise FileExistsError(f"{self.path}: exists; set overwrite to replace it")

    def _start(self, first_s: float) -> None:
        """Start ffmpeg; the stream's times count from its first frame, whose own time ffmpeg adds again."""
        self._first_s = first_s
        # restore_signals=False leaves SIGXFSZ ignored: at a limit on file size ffmpeg tells an error instead of dying.
        self._process = subprocess.Popen(
            self._command(first_s),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            bufsize=0,
            restore_signals=False,
        )
        # The thread holds the log and not this writer, so that a forgotten writer is still collected.
        self._drain = threading.Thread(target=self._errors.follow, args=(self._process.stderr,), daemon=True)
        self._drain.start()
        width, height = self._pipe_size
        _write_all(_pipe(self._process), matroska_head(width, height, self._fourcc, self._fps))

    def _command(self, first_s: float) -> list[str]:
        # All that is to know of the stream stands in its head: ffmpeg need not read frames to guess.
        pipe = ffmpeg_python.input(
            "pipe:0", format="matroska", itsoffset=f"{first_s:.6f}", probesize=32, protocol_whitelist=LOCAL_PROTOCOLS
        )
        options: dict[str, str | int] = self._video_options | self._sound.options
        options |= PASSTHROUGH
        # No encoder version, no date, no random identifiers.
        options |= {"fflags": "+bitexact", "flags:v": "+bitexact", "flags:a": "+bitexact"}
        options |= {"map_metadata": -1, "map_chapters": -1}
        if self.path.suffix.lower() != ".mkv":
            options["movflags"] = "+faststart"
        output = ffmpeg_python.output(pipe["v:0"], *self._sound.streams, local_url(self._part), **options)
        quiet = ("-hide_banner", "-nostats", "-loglevel", "level+error")
        outputs = ffmpeg_python.merge_outputs(output, *self._sound.aside)
        return outputs.global_args(*quiet).overwrite_output().compile(cmd=find_ffmpeg())

    def _failure(self) -> OSError:
        """End ffmpeg, remove the unfinished file, and say why."""
        code = None
        if self._process is not None:
            try:
                # It closed the pipe, so it is ending; let it say why.
                code = self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                code = None
        self.abort()
        return OSError(f"{self.path}: cannot be written: {self._errors.first(f'ffmpeg ended with code {code}')}")


def check_format(path: Path, codec: str, pixel_format: str = "rgb24") -> None:
    """See that a codec is known and fits a file's name and pixel format.

    Raises:
        ValueError: Says what is accepted.
    """
    if codec not in _CODECS:
        raise ValueError(f"codec: {codec!r} is not one of {', '.join(_CODECS)}")
    if pixel_format not in _PIPE_FORMATS:
        raise ValueError(f"pixel_format: {pixel_format!r} is not one of {', '.join(_PIPE_FORMATS)}")
    if pixel_format == "gray16le" and codec != "ffv1":
        raise ValueError(f"pixel_format: gray16le needs codec ffv1, {codec} cannot store 16 bits")
    suffixes = _CODECS[codec].suffixes
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"output: {path.name!r} does not end in {', '.join(suffixes)}, what {codec} is written to")


def _video_options(encoding: Encoding, sample_aspect: Fraction, fps: Fraction) -> dict[str, str | int]:
    options: dict[str, str | int] = dict(_CODECS[encoding.codec].options)
    filters = []
    if encoding.codec == "ffv1":
        options["pix_fmt"] = "gray16le" if encoding.pixel_format == "gray16le" else "bgr0"
    else:
        filters.append("scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_int")
        # ProRes and ffmpeg 5 take what a file says of its colours from the frames, and not from the options.
        filters.append("setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv")
        options |= {"colorspace": "bt709", "color_primaries": "bt709", "color_trc": "bt709", "color_range": "tv"}
    if encoding.codec == "h264":
        options["crf"] = encoding.crf
    if sample_aspect != 1:
        filters.append(f"setsar={sample_aspect.numerator}/{sample_aspect.denominator}")
    if filters:
        options["vf"] = ",".join(filters)
    # A tick that divides 1/fps exactly, so that even frames stay even, and is below 1/50000 s for uneven ones.
    ticks_per_s = fps.numerator * max(1, math.ceil(50_000 / fps.numerator))
    options |= {"enc_time_base": f"1:{ticks_per_s}", "video_track_timescale": ticks_per_s}
    return options


def _pipe(process: subprocess.Popen[bytes] | None) -> IO[bytes]:
    if process is None or process.stdin is None:
        raise BrokenPipeError("ffmpeg is not running")
    return process.stdin


def _write_all(pipe: IO[bytes], data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[pipe.write(rest) :]


def _element(identifier: str, body: bytes) -> bytes:
    """An EBML element: identifier in hex, then the body's size as an 8-byte number (marker bit 56), then the body."""
    return bytes.fromhex(identifier) + (len(body) | 1 << 56).to_bytes(8, "big") + body


def _unsigned(identifier: str, number: int) -> bytes:
    return _element(identifier, number.to_bytes(8, "big"))


def matroska_head(width: int, height: int, fourcc: bytes, fps: Fraction) -> bytes:
    """Head of a Matroska stream with one uncompressed video track and times in microseconds."""
    video = _unsigned("B0", width) + _unsigned("BA", height) + _element("2EB524", fourcc)
    track = (
        _unsigned("D7", 1)  # TrackNumber
        + _unsigned("73C5", 1)  # TrackUID
        + _unsigned("83", 1)  # TrackType: video
        + _unsigned("9C", 0)  # FlagLacing
        + _unsigned("23E383", round(10**9 / fps))  # DefaultDuration, ns
        + _element("22B59C", b"und")  # Language
        + _element("86", b"V_UNCOMPRESSED")
        + _element("E0", video)
    )
    ebml = _element("1A45DFA3", _element("4282", b"matroska") + _unsigned("4287", 4) + _unsigned("4285", 2))
    info = _unsigned("2AD7B1", 1000) + _element("4D80", b"depth-engine") + _element("5741", b"depth-engine")
    # A segment of unknown size: all value bits set.
    segment = bytes.fromhex("18538067") + b"\x01" + b"\xff" * 7
    return ebml + segment + _element("1549A966", info) + _element("1654AE6B", _element("AE", track))


def matroska_cluster_head(time_us: int, frame_bytes: int) -> bytes:
    """What goes before a frame: a cluster at its time, and a block of one key frame."""
    time = _unsigned("E7", time_us)
    block = b"\x81" + bytes(2) + b"\x80"  # track 1, 0 us after the cluster's time, key frame
    block_head = bytes.fromhex("A3") + (len(block) + frame_bytes | 1 << 56).to_bytes(8, "big") + block
    size = len(time) + len(block_head) + frame_bytes
    return bytes.fromhex("1F43B675") + (size | 1 << 56).to_bytes(8, "big") + time + block_head
