"""What a video file is, told from its header and its first decoded frame, without ffprobe."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

from depth_engine.video.ffmpeg_process import (
    LOCAL_PROTOCOLS,
    LOG_OPTIONS,
    ErrorLog,
    find_ffmpeg,
    has_filter,
    local_url,
    split_log_line,
)
from depth_engine.video.marks import timecode_at
from depth_engine.video.rate import as_frame_rate

# A header and one frame take well under a second; an 8K frame on a busy machine a few.
_PROBE_TIMEOUT_S = 120

_HDR_TRANSFERS = {"smpte2084": "PQ", "arib-std-b67": "HLG"}

# ffmpeg's words for a colour tag that is not there.
UNTAGGED = frozenset({"unknown", "unspecified", "reserved"})

# ffmpeg plays these text formats as pictures of a terminal: a text file is not a clip.
_TEXT_ART_CONTAINERS = {"tty", "bin", "xbin", "adf", "idf"}

_STREAM = re.compile(r"^\s+Stream #0:\d+(\S*): (Video|Audio|Subtitle|Data): (.*)$")
_LANGUAGE = re.compile(r"\((?!und\))(\w+)\)")
_TIMECODE = re.compile(r"\s+timecode\s*: (\S+)$", re.IGNORECASE)
_ROTATION = re.compile(r"\s+display ?matrix: rotation of (-?[\d.]+) degrees", re.IGNORECASE)
_FIRST_FRAME = re.compile(r"\bn: *0 pts:.*?fmt:(\w+).*? sar:(\d+)/(\d+) s:(\d+)x(\d+) i:(\w)")


class VideoError(ValueError):
    """A source that cannot be used; the message is one line with the file and the reason."""


class DecodeError(RuntimeError):
    """A source whose data fails on the way.

    Attributes:
        frame_index: Index of the first frame that could not be read.
    """

    def __init__(self, message: str, frame_index: int) -> None:
        super().__init__(message)
        self.frame_index = frame_index


@dataclass(frozen=True)
class VideoInfo:
    """What a clip is.

    Attributes:
        path: The source as it was given.
        kind: `video`, or `sequence` for image files.
        width: Displayed width in pixels: after rotation, before any stretch to square pixels.
        height: Displayed height in pixels.
        fps: Average frame rate.
        frame_count: Number of frames; None if the file does not tell its duration.
        frame_count_exact: False where the count is an estimate, duration times frame rate.
        duration_s: Duration of the file in seconds, the longest of picture and sound; None if the file does not tell.
        rotation_deg: Clockwise rotation that the metadata asks for and that reading applies: [0, 360).
        pixel_format: ffmpeg's name of the stored pixel format, or Pillow's mode of a sequence, an EXR's channels.
        bit_depth: Stored bits per channel.
        has_alpha: Whether there is transparency (it is dropped in reading).
        audio_codecs: ffmpeg's codec name of each sound track.
        audio_languages: Language of each sound track, such as `eng`; None where it is not tagged.
        is_hdr: Whether the transfer function is PQ or HLG.
        codec: ffmpeg's codec name, or the image format of a sequence.
        container: ffmpeg's name of the container; `images` for a sequence.
        color_matrix: ffmpeg's name of the YUV matrix, `unknown` if untagged.
        color_primaries: ffmpeg's name of the primaries, `unknown` if untagged.
        sample_aspect: Width / height of one pixel.
        stream: Which of the file's video streams is read, counted from 0.
        notes: What a user should know about how this source is read.
        timecode: Of the first frame, HH:MM:SS:FF; None if the file has none.
        transfer: How images store their values, one of `transfer.TRANSFERS`; None of a video.
    """

    path: str | Path
    kind: str
    width: int
    height: int
    fps: Fraction
    frame_count: int | None
    frame_count_exact: bool
    duration_s: float | None
    rotation_deg: int
    pixel_format: str
    bit_depth: int
    has_alpha: bool
    audio_codecs: tuple[str, ...]
    audio_languages: tuple[str | None, ...]
    is_hdr: bool
    codec: str
    container: str
    color_matrix: str
    color_primaries: str
    sample_aspect: Fraction
    stream: int
    notes: tuple[str, ...]
    timecode: str | None = None
    transfer: str | None = None

    @property
    def has_audio(self) -> bool:
        """Whether there is a sound track."""
        return bool(self.audio_codecs)


def has_tone_mapping() -> bool:
    """Whether ffmpeg can map HDR to SDR: it needs the zscale filter, which some builds lack."""
    return has_filter(find_ffmpeg(), "zscale") and has_filter(find_ffmpeg(), "tonemap")


def probe_file(path: Path, stream: int | None = None) -> VideoInfo:
    """What a video file is.

    Args:
        path: The file.
        stream: Which of its video streams is meant, counted from 0; None: the one marked as default, the largest of
            several.

    Raises:
        VideoError: If the file is absent, empty, no video, sound only, reaches out to an address, or lacks the stream.
    """
    _check_regular(path)
    state = path.stat()
    return _probe_unchanged(path, stream, find_ffmpeg(), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)  # a command asks several times, and each answer takes a process
def _probe_unchanged(path: Path, stream: int | None, ffmpeg: str, size: int, time_ns: int) -> VideoInfo:
    """What a file of that size and time is, asked of this ffmpeg."""
    log = _first_frame_log(path, 0, ffmpeg)
    videos = _parse_header(log, 0).video
    chosen = _best_stream(videos) if stream is None else stream
    if videos and not 0 <= chosen < len(videos):
        listed = "; ".join(f"{index} ({facts})" for index, facts in enumerate(videos))
        raise VideoError(f"{path}: stream: {stream} is not one of its video streams, which are {listed}")
    return _parse_probe(path, log if chosen == 0 else _first_frame_log(path, chosen, ffmpeg), chosen)


def _best_stream(videos: list[str]) -> int:
    """Of ffmpeg's lines on the streams, the first of the largest among those marked as default, or among all."""

    def rank(index: int) -> tuple[bool, int]:
        size = re.search(r", (\d+)x(\d+)", videos[index])
        return "(default)" in videos[index], int(size[1]) * int(size[2]) if size else 0

    return max(range(len(videos)), key=rank, default=0)


def _check_regular(path: Path) -> None:
    if not path.exists():
        raise VideoError(f"{path}: no such file")
    if not path.is_file():
        raise VideoError(f"{path}: not a regular file")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except OSError as error:
        raise VideoError(f"{path}: cannot be opened: {error.strerror}") from error
    if empty:
        raise VideoError(f"{path}: the file is empty")


def _first_frame_log(path: Path, stream: int, ffmpeg: str) -> list[tuple[str, str]]:
    """Ffmpeg's log while it decodes one frame: the header as it understands it, then the frame's facts."""
    import ffmpeg as ffmpeg_python

    source = ffmpeg_python.input(local_url(path), protocol_whitelist=LOCAL_PROTOCOLS, fflags="+discardcorrupt")
    # V: a video stream that is not a cover picture.
    one_frame = {"map": f"0:V:{stream}", "frames:v": 1, "vf": "showinfo=checksum=0", "format": "null"}
    command = source.output("-", **one_frame).global_args(*LOG_OPTIONS).compile(cmd=ffmpeg)
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_PROBE_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise VideoError(f"{path}: no frame could be read within {_PROBE_TIMEOUT_S} s") from error
    if done.returncode < 0:
        raise VideoError(f"{path}: ffmpeg itself crashed on it (signal {-done.returncode})")
    return [split_log_line(line) for line in done.stderr.splitlines()]


@dataclass
class _Header:
    """What the log says of the file, before its first frame."""

    container: str = ""
    duration_s: float | None = None
    video: list[str] = field(default_factory=list)
    audio_codecs: tuple[str, ...] = ()
    audio_languages: tuple[str | None, ...] = ()
    subtitles: int = 0
    timecode: str | None = None
    rotation_deg: int = 0
    alpha_tag: bool = False


def _parse_header(log: list[tuple[str, str]], stream: int) -> _Header:
    header = _Header()
    in_chosen = False
    for _, text in log:
        if text.startswith(("Stream mapping", "Output #")):
            break
        if not header.container and (container := re.match(r"Input #0, (.*), from ", text)):
            header.container = container[1]
        elif header.duration_s is None and (duration := re.match(r"\s+Duration: (\d+):(\d+):([\d.]+)", text)):
            header.duration_s = int(duration[1]) * 3600 + int(duration[2]) * 60 + float(duration[3])
        elif found := _STREAM.match(text):
            tags, kind, facts = found.groups()
            in_chosen = False
            if kind == "Audio":
                language = _LANGUAGE.search(tags)
                header.audio_codecs += (re.split(r"[ ,]", facts, maxsplit=1)[0],)
                header.audio_languages += (language[1] if language else None,)
            elif kind == "Subtitle":
                header.subtitles += 1
            elif kind == "Video" and "(attached pic)" not in facts:
                in_chosen = len(header.video) == stream
                header.video.append(facts)
        elif timecode := _TIMECODE.match(text):
            header.timecode = header.timecode or timecode[1]
        elif in_chosen and (turn := _ROTATION.match(text)):
            # ffmpeg prints the angle counter-clockwise.
            header.rotation_deg = round(-float(turn[1])) % 360
        elif in_chosen and re.match(r"\s+alpha_mode\s*: 1$", text):
            header.alpha_tag = True
    return header


def _parse_probe(path: Path, log: list[tuple[str, str]], stream: int) -> VideoInfo:
    header = _parse_header(log, stream)
    whole = "\n".join(text for _, text in log)
    frame = _FIRST_FRAME.search(whole)
    if not header.video or not frame or header.container in _TEXT_ART_CONTAINERS:
        raise VideoError(_why_unusable(path, header, log))
    pixel_format, sar_num, sar_den, width, height, scan = frame.groups()
    color = {
        key: _found(rf"color_{key}:(\S+)", whole[frame.end() :], "unknown") for key in ("space", "trc", "primaries")
    }
    facts = header.video[stream]
    fps, is_variable = _frame_rate(facts, whole)
    duration_s = header.duration_s or None
    bit_depth = _bit_depth(pixel_format)
    has_alpha = header.alpha_tag or pixel_format.startswith(
        ("yuva", "rgba", "bgra", "argb", "abgr", "gbrap", "ya8", "ya16", "ayuv", "vuya")
    )
    hdr = _HDR_TRANSFERS.get(color["trc"])
    sample_aspect = Fraction(int(sar_num), int(sar_den)) if int(sar_num) and int(sar_den) else Fraction(1)
    notes = []
    if has_alpha:
        notes.append("alpha dropped")
    if hdr:
        done = "tone-mapped to SDR" if has_tone_mapping() else "not tone-mapped: this ffmpeg has no zscale filter"
        notes.append(f"HDR ({hdr}) {done}")
        if has_tone_mapping() and UNTAGGED & {color["space"], color["primaries"]}:
            notes.append("its colour matrix or primaries are not tagged: taken as BT.2020")
    if bit_depth > 8:
        notes.append(f"{bit_depth}-bit reduced to 8-bit")
    if header.rotation_deg:
        notes.append(f"turned {header.rotation_deg} degrees clockwise, as its metadata asks")
    if scan in "TB":
        notes.append("interlaced: both fields are read as one frame")
    if is_variable:
        notes.append("variable frame rate: each frame keeps its own time")
    if sample_aspect != 1:
        notes.append(f"pixels are not square ({sample_aspect}): read as stored, not stretched")
    if header.subtitles:
        notes.append(f"{header.subtitles} subtitle track{'s' if header.subtitles > 1 else ''} not carried over")
    if header.timecode and timecode_at(header.timecode, fps, 0.0, fps) is None:
        notes.append(f"timecode {header.timecode!r} is not of the form HH:MM:SS:FF: not carried over")
    if len(header.video) > 1:
        last = len(header.video) - 1
        notes.append(f"of video streams 0 to {last}, stream {stream} is read, {width}x{height} (--stream)")
    return VideoInfo(
        path=path,
        kind="video",
        width=int(width),
        height=int(height),
        fps=fps,
        frame_count=max(1, round(duration_s * fps)) if duration_s else None,
        frame_count_exact=False,
        duration_s=duration_s,
        rotation_deg=header.rotation_deg,
        pixel_format=pixel_format,
        bit_depth=bit_depth,
        has_alpha=has_alpha,
        audio_codecs=header.audio_codecs,
        audio_languages=header.audio_languages,
        is_hdr=hdr is not None,
        codec=re.split(r"[ ,]", facts, maxsplit=1)[0],
        container=header.container,
        color_matrix=color["space"],
        color_primaries=color["primaries"],
        sample_aspect=sample_aspect,
        stream=stream,
        notes=tuple(notes),
        timecode=header.timecode,
    )


def _found(pattern: str, text: str, otherwise: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else otherwise


def _why_unusable(path: Path, header: _Header, log: list[tuple[str, str]]) -> str:
    errors = ErrorLog()
    for level, text in log:
        errors.note(level, text)
    if any("not on whitelist" in text or "Unsafe file name" in text for _, text in log):
        return f"{path}: a playlist that refers to an address; only local files are read"
    if header.container in _TEXT_ART_CONTAINERS:
        return f"{path}: is text, not a video"
    if header.container and not header.video:
        what = "sound but no picture" if header.audio_codecs else "no picture"
        return f"{path}: holds {what}"
    reason = errors.first("unknown format")
    if header.video:
        return f"{path}: not even its first frame can be decoded ({reason})"
    return f"{path}: not a video that ffmpeg can read ({reason})"


def _frame_rate(facts: str, log: str) -> tuple[Fraction, bool]:
    """Average rate, and whether frames come at a varying one.

    The header prints the average with two digits; the filter knows the exact rate of evenly spaced frames. They agree
    unless the rate varies.
    """
    printed = re.search(r", ([\d.]+)(k?) fps", facts)
    exact_text = _found(r"frame_rate: (\d+/[1-9]\d*)", log, "0/1")
    exact = Fraction(exact_text)
    if not printed:
        # A raw stream or a header that does not tell: 25 is what ffmpeg itself assumes there.
        return (exact if 0 < exact <= 1000 else Fraction(25)), False
    average = as_frame_rate(Fraction(printed[1]) * (1000 if printed[2] else 1))
    if exact and abs(exact - average) <= max(Fraction(1, 100), average / 1000):
        base = _found(r", ([\d.]+k?) tbr", facts, "")
        # Millisecond containers give 19001/317 for 60000/1001.
        return as_frame_rate(exact), base != printed[1] + printed[2]
    return average, True


def _bit_depth(pixel_format: str) -> int:
    if "f32" in pixel_format:
        return 32
    if pixel_format.startswith(("rgb48", "bgr48", "rgba64", "bgra64", "ayuv64")) or "f16" in pixel_format:
        return 16
    depth = re.search(r"(?:p|p0|p2|p4|gray|ya|x2rgb|x2bgr|xyz|y2|xv)(9|10|12|14|16|30|36|48)(?:le|be)$", pixel_format)
    return {30: 10, 36: 12, 48: 16}.get(int(depth[1]), int(depth[1])) if depth else 8
