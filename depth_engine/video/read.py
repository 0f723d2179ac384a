"""Video and image sequences in: what a source is, and its frames one at a time.

ffmpeg decodes; its log gives each frame's own timestamp (the showinfo filter), so variable frame rate survives the
raw pipe. It opens local files only. Writing is in `write.py`.
"""

from __future__ import annotations

import itertools
import math
import queue
import re
import subprocess
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import IO, TypeVar

import numpy as np

from depth_engine.video.ffmpeg_process import (
    LOCAL_PROTOCOLS,
    LOG_OPTIONS,
    PASSTHROUGH,
    ErrorLog,
    ask_for_all_streams,
    find_ffmpeg,
    has_common_clock,
    local_url,
    split_log_line,
)
from depth_engine.video.frame import Frame
from depth_engine.video.image_file import read_image
from depth_engine.video.image_sequence import probe_images
from depth_engine.video.probe import UNTAGGED, DecodeError, VideoError, VideoInfo, has_tone_mapping, probe_file
from depth_engine.video.rate import as_frame_rate
from depth_engine.video.sequence_files import (
    IMAGE_SUFFIXES,
    ImageFiles,
    files_of_folder,
    files_of_pattern,
    is_pattern,
    list_images,
    natural_key,
    skipped,
)

VIDEO_SUFFIXES = frozenset(
    (
        ".mp4 .mov .mkv .webm .avi .m4v .mpg .mpeg .ts .mts .m2ts .wmv .flv .ogv .3gp .mxf .gif .y4m .h264 .hevc "
        ".3g2 .264 .265 .h265 .amv .apng .asf .av1 .divx .dv .dvr-ms .f4v .ivf .m1v .m2t .m2v .mjpeg .mjpg .mk3d .mod "
        ".mp4v .mpe .mpv .mxg .nut .obu .ogg .ogm .qt .rm .rmvb .tod .trp .vc1 .vob .vro .wtv .xvid .yuv4mpeg"
    ).split()
)
# Containers whose index lets ffmpeg start at any time and still know where it is.
_SEEKABLE = ("mov,", "matroska,")
# A frame this close before `start_s` counts as on it: times are typed as decimals of 1/30000 s and the like.
_TIME_TOLERANCE_S = 1e-6
# What ffmpeg logs when data is missing or broken. It goes on after these, and may end with exit code 0.
_DAMAGE = re.compile(
    r"partial file|File ended prematurely|Error submitting packet|Error while decoding stream|Invalid data found"
    r"|Input/output error|Read error|error reading|Truncat|error while decoding"
    r"|not on whitelist|Error during demuxing|incomplete frame|Decoding error",
    re.IGNORECASE,
)
# What a demuxer suspects: nothing is wrong where the decoder gives every frame all the same.
_SUSPICION = re.compile(r"Packet corrupt|exceeds containing")
# A line about lost data comes at most so many frames before the gap that it leaves: they are still being decoded.
_FRAMES_UNDER_WAY = 50
_SHOWINFO_TIME_BASE = re.compile(r"config in time_base: (\d+)/(\d+)")
_SHOWINFO_FRAME = re.compile(r"\bn: *\d+ pts: *(-?\d+|NOPTS) (?:.*?\bduration: *(\d+))?")
_DECODED_FRAME = re.compile(r"^decoder -> .*?pts:(-?\d+)")
_Payload = TypeVar("_Payload")


def probe(
    source: str | Path,
    sequence_fps: Fraction | float | None = None,
    stream: int | None = None,
    transfer: str | None = None,
) -> VideoInfo:
    """What a source is: a video file, a folder of images, an image, or a pattern such as `frames/%05d.png`.

    Args:
        source: What is meant.
        sequence_fps: The rate of an image sequence, frames per second; None: 24. A video has its own.
        stream: Which of a file's video streams, counted from 0; None: the default one, the largest of several.
        transfer: How images store their values, one of `TRANSFERS`; None: as they say, or the rule of their format. A
            video has its own.

    Raises:
        VideoError: If it cannot be used: it does not exist, is an address, holds no picture, is damaged from the
            start, or holds images of differing sizes.
    """
    images = _images_of(source)
    if not images.files:
        if transfer is not None:
            raise VideoError(f"{source}: transfer: {transfer} is not accepted; it is for images, a video has its own")
        return probe_file(Path(source), stream)
    if stream is not None:
        raise VideoError(f"{source}: stream: {stream} is not accepted; images have no streams")
    rate = None if sequence_fps is None else as_frame_rate(sequence_fps)
    return probe_images(source, images.files, rate, transfer, images.notes)


def read_frames(
    source: str | Path,
    *,
    start_s: float | None = None,
    end_s: float | None = None,
    fps: Fraction | float | None = None,
    max_frames: int | None = None,
    stream: int | None = None,
    transfer: str | None = None,
) -> Iterator[Frame]:
    """The frames of a source, one at a time, in bounded memory. Closing the iterator ends ffmpeg.

    Rotation is applied, HDR is tone-mapped, more than 8 bits and alpha are dropped: `probe(source).notes` says so.

    Args:
        source: As `probe` takes it.
        start_s: Frames shown before this time are left out; it becomes the zero of `Frame.time_s`.
        end_s: Frames shown at or after this time are left out, in seconds of the source.
        fps: Reduces the frame rate: keeps the source frame nearest to each multiple of 1/fps, none twice. At or above
            the source's rate all frames are kept. Of an image sequence it is the rate, and every image is a frame.
        max_frames: Stops after so many frames.
        stream: As for `probe`.
        transfer: As for `probe`.

    Raises:
        VideoError: At once if the source cannot be used or no frame lies in the range.
        DecodeError: After the last good frame, if the data fails on the way.
        ValueError: If an argument is out of range.
    """
    _check_range(start_s, end_s, max_frames)
    wanted_fps = None if fps is None else as_frame_rate(fps)
    info = probe(source, wanted_fps, stream, transfer)
    if start_s and info.duration_s is not None and start_s >= info.duration_s:
        raise VideoError(f"{source}: start_s: {start_s:g} lies after its end at {info.duration_s:g} s")
    if wanted_fps and wanted_fps >= info.fps:
        wanted_fps = None
    trim = (start_s or 0.0, math.inf if end_s is None else end_s)
    return _deliver(info, trim, wanted_fps, max_frames)


def read_gray16(source: str | Path) -> Iterator[np.ndarray]:
    """The frames of a 16-bit grey video as they were stored: uint16 `[H, W]`, bit-exact.

    Raises:
        VideoError: At once if the source is no 16-bit grey video.
        DecodeError: After the last good frame, if the data fails on the way.
    """
    info = probe(source)
    if info.kind != "video" or not info.pixel_format.startswith("gray16"):
        raise VideoError(f"{source}: stores {info.pixel_format}; a video of 16-bit grey (gray16le) is accepted")
    return _gray16_frames(info)


def expand_inputs(paths: Iterable[str | Path]) -> tuple[list[str | Path], list[str]]:
    """What a user named, as single sources for `probe` and `read_frames`, and notes on what is not read.

    A folder that holds videos stands for each of them, in natural order; a folder that holds images is one sequence;
    patterns and files stay as they are.

    Raises:
        VideoError: If a path does not exist, is an address, or is a folder with neither videos nor images, or both.
    """
    sources: list[str | Path] = []
    notes: list[str] = []
    for path in paths:
        _refuse_address(path)
        if is_pattern(path):
            sources.append(path)
        elif Path(path).is_dir():
            videos = _list_videos(Path(path))
            if videos and len(list_images(Path(path))) > 1:  # one is a poster
                raise VideoError(f"{path}: holds videos and images; name those that are meant, or {path}/%05d.png")
            notes += skipped(Path(path), videos) if videos else ()
            sources += videos or [Path(path)]
            _images_of(sources[-1])
        elif Path(path).exists():
            sources.append(Path(path))
        else:
            raise VideoError(f"{path}: no such file or folder")
    return sources, notes


def _list_videos(folder: Path) -> list[Path]:
    videos = (p for p in folder.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES and not p.name.startswith("."))
    return sorted(videos, key=natural_key)


def _refuse_address(source: str | Path) -> None:
    # A path object has lost one of the two slashes. One letter is a Windows drive.
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(source)) and not Path(source).exists():
        raise VideoError(f"{source}: is an address; only local files are read")


def _images_of(source: str | Path) -> ImageFiles:
    """The files of an image sequence; none if the source is to be read as a video."""
    _refuse_address(source)
    if is_pattern(source):
        return files_of_pattern(source)
    path = Path(source)
    if path.is_dir():
        if list_images(path):
            return files_of_folder(path)
        if _list_videos(path):
            raise VideoError(f"{source}: a folder of videos; name one of them")
        raise VideoError(f"{source}: a folder without images or videos")
    return ImageFiles([path] if path.suffix.lower() in IMAGE_SUFFIXES else [])


def _check_range(start_s: float | None, end_s: float | None, max_frames: int | None) -> None:
    if start_s is not None and not (math.isfinite(start_s) and start_s >= 0):
        raise ValueError(f"start_s: {start_s} is not a time, 0 or more seconds")
    if end_s is not None and not end_s > (start_s or 0):
        raise ValueError(f"end_s: {end_s} is not after start_s ({start_s or 0})")
    if max_frames is not None and max_frames < 1:
        raise ValueError(f"max_frames: {max_frames} is not a count, 1 or more")


class _DamagedError(Exception):
    """The source's data failed; no frame comes after this."""


def _deliver(
    info: VideoInfo, trim: tuple[float, float], fps: Fraction | None, max_frames: int | None
) -> Iterator[Frame]:
    files = _images_of(info.path).files
    start_s, end_s = trim
    index = 0
    if files:
        stamped: Iterator[tuple[float, Path | np.ndarray]] = (
            (float(position / info.fps), path) for position, path in enumerate(files)
        )
    else:
        stamped = _decode(info, start_s, "rgb24")
    with closing(stamped):  # type: ignore[type-var]
        chosen = _in_range(stamped, start_s, end_s)
        if fps:
            chosen = _nearest_to_ticks(chosen, float(fps), float(1 / info.fps))
        try:
            for time_s, payload in itertools.islice(chosen, max_frames):
                name = payload.stem if isinstance(payload, Path) else None
                yield Frame(index, time_s - start_s, _pixels(payload, info.transfer), name=name)
                index += 1
        except _DamagedError as error:
            raise DecodeError(f"{info.path}: frame {index} cannot be read: {error}", index) from error
    if not index:
        raise VideoError(f"{info.path}: no frame lies between {start_s:g} s and {end_s:g} s")


def _pixels(payload: Path | np.ndarray, transfer: str | None) -> np.ndarray:
    if isinstance(payload, np.ndarray):
        return payload
    try:
        return read_image(payload, transfer)
    except (OSError, SyntaxError, ValueError) as error:
        raise _DamagedError(f"{payload.name}: {error}") from error


def _gray16_frames(info: VideoInfo) -> Iterator[np.ndarray]:
    index = 0
    try:
        for _, gray in _decode(info, 0.0, "gray16le"):
            yield gray
            index += 1
    except _DamagedError as error:
        raise DecodeError(f"{info.path}: frame {index} cannot be read: {error}", index) from error


def _in_range(
    stamped: Iterator[tuple[float, _Payload]], start_s: float, end_s: float
) -> Iterator[tuple[float, _Payload]]:
    for time_s, payload in stamped:
        if time_s >= end_s - _TIME_TOLERANCE_S:
            return
        if time_s >= start_s - _TIME_TOLERANCE_S:
            yield max(time_s, start_s), payload


def _nearest_to_ticks(
    stamped: Iterator[tuple[float, _Payload]], fps: float, last_duration_s: float
) -> Iterator[tuple[float, _Payload]]:
    """Of the frames, those nearest to a tick; ticks come every 1/fps from the first frame's time on."""
    held: tuple[float, _Payload] | None = None
    first_s = 0.0
    tick = 0
    failure: _DamagedError | None = None
    try:
        for frame in stamped:
            if held is None:
                first_s = frame[0]
            else:
                middle_s = (held[0] + frame[0]) / 2
                if first_s + tick / fps < middle_s:
                    yield held
                    # The first tick that is nearer to the new frame.
                    tick = max(tick + 1, math.ceil((middle_s - first_s) * fps))
            held = frame
    except _DamagedError as error:
        failure = error
    # A tick half an interval or more past the last frame belongs to what comes after the end.
    if held is not None and first_s + tick / fps < held[0] + last_duration_s / 2 - _TIME_TOLERANCE_S:
        yield held
    if failure:
        raise failure


def _decode(info: VideoInfo, start_s: float, pixel_format: str) -> Iterator[tuple[float, np.ndarray]]:
    """`(time_s, pixels)` of the frames from about `start_s` on, times in seconds of the source."""
    log = _DecodeLog(float(1 / info.fps))
    command = _decode_command(info, start_s, pixel_format)
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
    )
    stdout, stderr = process.stdout, process.stderr
    if stdout is None or stderr is None:
        raise OSError(f"{info.path}: ffmpeg has no pipes")
    drain = threading.Thread(target=log.follow, args=(stderr,), daemon=True)
    drain.start()
    shape, dtype = ((3,), np.uint8) if pixel_format == "rgb24" else ((), np.dtype("<u2"))
    last_s = -math.inf
    try:
        while True:
            pixels = np.empty((info.height, info.width, *shape), dtype)
            size = _read_into(stdout, pixels.data.cast("B"))
            if size < pixels.nbytes:
                break
            time_s = log.next_time_s()
            # A raw stream has no times, and a broken one may step back: go on at the average rate.
            if time_s is None or time_s <= last_s:
                time_s = last_s + float(1 / info.fps) if math.isfinite(last_s) else 0.0
            last_s = time_s
            yield time_s, pixels
        code = process.wait()
        drain.join()
        if size:
            raise _DamagedError(log.damage or "the data ends within a frame")
        if log.damage or code:
            raise _DamagedError(log.damage or log.errors.first(f"ffmpeg ended with code {code}"))
    finally:
        process.kill()
        process.wait()
        drain.join()
        stdout.close()
        stderr.close()


def _read_into(pipe: IO[bytes], buffer: memoryview) -> int:
    """Fill a buffer from a pipe; fewer bytes than it holds mean the end."""
    size = 0
    while size < len(buffer):
        got = pipe.readinto(buffer[size:])  # type: ignore[attr-defined]
        if not got:
            break
        size += got
    return size


def _decode_command(info: VideoInfo, start_s: float, pixel_format: str) -> list[str]:
    options: dict[str, str | float] = {
        "protocol_whitelist": LOCAL_PROTOCOLS,
        # With a thread per frame, what stands in for lost data depends on the load: another picture each time.
        "thread_type": "slice",
    }
    if info.container != "mpegts":
        # A cut-off packet may decode to a picture that is half grey: leave it out. In MPEG-TS a packet is suspected
        # where its counter jumps, and the decoder tells which frames are damaged.
        options["fflags"] = "+discardcorrupt"
    # debug_ts: the decoder names the time of each frame, the only way to learn which one it calls corrupt.
    whole: list[str] = [*LOG_OPTIONS, "-debug_ts"]
    seek_s = start_s - 0.1  # a margin for rounding to the container's ticks
    if seek_s > 0 and info.container.startswith(_SEEKABLE):
        options["ss"] = f"{seek_s:.6f}"
        # Times stay those of the source, with the file's start as zero.
        whole += ["-copyts", "-start_at_zero"]
    output = {
        "format": "rawvideo",
        "map": f"0:V:{info.stream}",
        "pix_fmt": pixel_format,
        "vf": ",".join([*_conversion(info, pixel_format), f"format={pixel_format}", "showinfo=checksum=0"]),
        **PASSTHROUGH,
    }
    import ffmpeg as ffmpeg_python

    source = ffmpeg_python.input(local_url(Path(info.path)), **options)
    outputs = [source.output("pipe:1", **output)]
    if info.has_audio and not has_common_clock(info.container):
        outputs.append(ask_for_all_streams(source))
    return ffmpeg_python.merge_outputs(*outputs).global_args(*whole).compile(cmd=find_ffmpeg())


def _conversion(info: VideoInfo, pixel_format: str) -> list[str]:
    """Filters from the stored pixels to RGB of the probed size (a stream may change its size on the way)."""
    size = f"scale=w={info.width}:h={info.height}"
    if pixel_format != "rgb24":
        return [size]
    if info.is_hdr and has_tone_mapping():
        # Scene light relative to a 100 cd/m2 white, highlights rolled off in linear light with BT.709 primaries.
        linear = "zscale=transfer=linear:npl=100,format=gbrpf32le,zscale=primaries=bt709"
        assumed = [
            f"setparams={option}={value}"
            for option, value, tag in (
                ("colorspace", "bt2020nc", info.color_matrix),
                ("color_primaries", "bt2020", info.color_primaries),
            )
            if tag in UNTAGGED
        ]
        sdr = "zscale=transfer=bt709:range=full:matrix=gbr,format=gbrp"
        return [*assumed, linear, "tonemap=hable:desat=0", sdr, size]
    matrix = ""
    if info.color_matrix in UNTAGGED:
        # Untagged: HD is BT.709, SD is BT.601, as players take it.
        is_hd = max(info.width, info.height) >= 1280 or min(info.width, info.height) > 576
        matrix = f":in_color_matrix={'bt709' if is_hd else 'bt601'}"
    return [f"{size}{matrix}:flags=bicubic+accurate_rnd+full_chroma_int"]


class _DecodeLog:
    """Follows ffmpeg's log in a thread: times of the frames, and where the data fails.

    Bounded: ffmpeg runs only a few frames ahead of the pipe.
    """

    def __init__(self, interval_s: float) -> None:
        """Begin.

        Args:
            interval_s: From one frame to the next, where ffmpeg does not say how long a frame lasts.
        """
        self.damage: str | None = None
        self.errors = ErrorLog()
        self._interval_s = interval_s
        self._suspicion: str | None = None
        self._frames_since_suspicion = 0
        self._times_s: queue.SimpleQueue[float | None | _DamagedError] = queue.SimpleQueue()
        self._time_base = (1, 1)
        self._next_decoded_is_corrupt = False
        self._corrupt_pts: set[int] = set()
        self._end_pts: float | None = None

    def next_time_s(self) -> float | None:
        """Time of the next frame, None where the stream has none.

        Raises:
            _DamagedError: If that frame is damaged, or frames before it are lost.
        """
        time_s = self._times_s.get()
        if isinstance(time_s, _DamagedError):
            raise time_s
        return time_s

    def follow(self, stderr: IO[bytes]) -> None:
        """Read the log to its end."""
        for raw in stderr:
            self._read_line(*split_log_line(raw))
        # Frames without a line of their own would wait for ever.
        self._times_s.put(_DamagedError(self.damage or "ffmpeg gave no time for it"))

    def _read_line(self, level: str, text: str) -> None:
        if "corrupt decoded frame" in text:
            self._next_decoded_is_corrupt = True
        elif self._next_decoded_is_corrupt and (decoded := _DECODED_FRAME.match(text)):
            self._next_decoded_is_corrupt = False
            self._corrupt_pts.add(int(decoded[1]))
        elif time_base := _SHOWINFO_TIME_BASE.search(text):
            self._time_base = (int(time_base[1]), int(time_base[2]))
        elif frame := _SHOWINFO_FRAME.search(text):
            self._note_frame(frame[1], frame[2])
        elif level in ("error", "fatal", "warning"):
            self.errors.note(level, text)
            if _DAMAGE.search(text):
                self.damage = self.damage or text.strip()
            elif _SUSPICION.search(text):
                self._suspicion = self._suspicion or text.strip()
                self._frames_since_suspicion = 0

    def _note_frame(self, pts_text: str, duration_text: str | None) -> None:
        if pts_text == "NOPTS":
            self._times_s.put(None)
            return
        pts, duration = int(pts_text), int(duration_text or 0)
        duration = duration or round(self._interval_s * self._time_base[1] / self._time_base[0])
        self._frames_since_suspicion += 1
        if self._frames_since_suspicion > _FRAMES_UNDER_WAY:
            self._suspicion = None
        # A hole in time is no fault in itself, but after an error it is where the lost frames were.
        why = self.damage or self._suspicion
        lost = why and self._end_pts is not None and pts > self._end_pts + duration / 2
        if lost or pts in self._corrupt_pts:
            self._times_s.put(_DamagedError(why or self.errors.first("ffmpeg calls it corrupt")))
        else:
            self._times_s.put(pts * self._time_base[0] / self._time_base[1])
        self._end_pts = pts + duration if duration else None
