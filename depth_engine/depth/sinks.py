"""Sinks: depth files being written, one frame at a time. Names and formats are those of `formats.py`."""

from __future__ import annotations

import io
import shutil
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from depth_engine.depth.formats import count_outside, counts_of, depth_path
from depth_engine.depth.sidecar import DEPTH_KINDS, check_range
from depth_engine.runs.atomic import part_path, publish, refuse_existing
from depth_engine.video.rate import as_frame_rate

if TYPE_CHECKING:
    from depth_engine.video.marks import Marks


class DepthSink(ABC):
    """Takes depth frames one by one; use as a context manager, or call `close` or `abort` yourself.

    Attributes:
        path: The finished file or folder; exists only after `close`.
        frame_count: Frames written so far.
        times_s: Their timestamps, seconds.
        clipped: Values so far that lay outside `value_range` and were clipped to it (always 0 for npy and exr).
    """

    def __init__(self, path: Path, height: int, width: int, overwrite: bool):
        """Check the target; subclasses open it."""
        if height < 1 or width < 1:
            raise ValueError(f"height, width: {height}x{width} must be at least 1x1")
        refuse_existing(path, overwrite)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.frame_count = 0
        self.times_s = array("d")
        self.clipped = 0
        self._shape = (height, width)
        self._overwrite = overwrite
        self._open = True

    def write(self, values: np.ndarray, time_s: float, name: str | None = None) -> None:
        """Append a frame.

        Args:
            values: Float `[H, W]`, finite.
            time_s: Timestamp, seconds.
            name: Of the frame's file without suffix, in a folder of frames; None: its number. Each must be another, and
                the sidecar must list them as `frame_names`.

        Raises:
            ValueError: The shape is not the sink's, a value is not finite, or the sink is closed.
        """
        if not self._open:
            raise ValueError(f"{self.path}: frame {self.frame_count} was written after close or abort")
        if values.shape != self._shape:
            raise ValueError(f"{self.path}: frame {self.frame_count} has shape {values.shape}, not {self._shape}")
        values = np.ascontiguousarray(values, np.float32)
        if not np.isfinite(values).all():
            raise ValueError(f"{self.path}: frame {self.frame_count} holds NaN or infinity")
        self._write_frame(values, time_s, name or f"{self.frame_count:06d}")
        self.frame_count += 1
        self.times_s.append(time_s)

    def close(self) -> None:
        """Finish; the file appears under its name. A second call does nothing.

        Raises:
            ValueError: No frame was written (nothing appears then).
            FileExistsError: The target has come into being meanwhile and overwriting is off.
        """
        if not self._open:
            return
        try:
            if self.frame_count == 0:
                raise ValueError(f"{self.path}: no frame was written")
            self._finish()
        except BaseException:
            self.abort()
            raise
        self._open = False

    def abort(self) -> None:
        """Drop everything written; nothing appears. A second call, or one after `close`, does nothing."""
        if self._open:
            self._open = False
            self._discard()

    def __enter__(self) -> DepthSink:
        """The sink itself."""
        return self

    def __exit__(self, exception_type: type[BaseException] | None, *_: object) -> None:
        """Close, or abort after an exception."""
        self.abort() if exception_type else self.close()

    def _counted(self, values: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
        """Values as 16-bit counts; those outside the range are clipped, and noted."""
        counts, clipped = counts_of(values, value_range)
        self.clipped += clipped
        return counts

    @abstractmethod
    def _write_frame(self, values: np.ndarray, time_s: float, name: str) -> None: ...

    @abstractmethod
    def _finish(self) -> None: ...

    @abstractmethod
    def _discard(self) -> None: ...


@dataclass(frozen=True)
class Stored:
    """How values are stored.

    Attributes:
        dtype: "float32" or "float16", what npy and exr store; the other formats have a type of their own.
        value_range: (lo, hi) that the darkest and brightest count (mkv, png16) or the ends of the colour map (mp4)
            stand for. Values outside are clipped and counted.
        kind: One of `DEPTH_KINDS`; decides which end of the mp4's colours is near.
        cmap: Colour map of the mp4, one of `visualize.COLOR_MAPS`.
        marks: What the two video formats say of the picture.
    """

    dtype: str = "float32"
    value_range: tuple[float, float] = (0.0, 1.0)
    kind: str = "disparity"
    cmap: str = "spectral"
    marks: Marks | None = None


def open_depth_sink(
    path: str | Path,
    format: str,
    *,
    height: int,
    width: int,
    fps: Fraction | float,
    overwrite: bool = False,
    stored: Stored | None = None,
) -> DepthSink:
    """Open a depth file for writing.

    Args:
        path: Base path without ending; `depth_path(path, format)` is written.
        format: One of `DEPTH_FORMATS`.
        height: Rows of every frame.
        width: Columns of every frame.
        fps: Nominal frame rate, for the two video formats.
        overwrite: Replace an existing target, once the new one is whole.
        stored: How values are stored; None: float32 disparity in [0, 1].

    Raises:
        ValueError: An argument is not accepted.
        FileExistsError: The target exists and `overwrite` is off.
    """
    target, stored = depth_path(path, format), stored or Stored()
    value_range = stored.value_range
    if stored.dtype not in ("float32", "float16"):
        raise ValueError(f"dtype: {stored.dtype!r} is not one of float32, float16")
    if stored.kind not in DEPTH_KINDS:
        raise ValueError(f"kind: {stored.kind!r} is not one of {', '.join(DEPTH_KINDS)}")
    check_range(value_range)
    if format == "npy":
        return _NpySink(target, height, width, overwrite, stored.dtype)
    if format == "exr":
        return _FolderSink(target, height, width, overwrite, ".exr", _exr_writer(stored, as_frame_rate(fps)), None)
    if format == "png16":
        return _FolderSink(target, height, width, overwrite, ".png", _write_png16, value_range)
    from depth_engine.video.write import VideoWriter

    size = {"width": width, "height": height}
    writer = partial(VideoWriter, target, **size, fps=fps, marks=stored.marks, overwrite=overwrite)
    if format == "mkv":
        return _MkvSink(target, height, width, overwrite, writer, value_range)
    return _PreviewSink(target, height, width, overwrite, writer, value_range, stored.kind, stored.cmap)


class _NpySink(DepthSink):
    """npy of a length known only at the end: the header has a fixed size and gets its frame count at close."""

    def __init__(self, path: Path, height: int, width: int, overwrite: bool, dtype: str):
        super().__init__(path, height, width, overwrite)
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._part = part_path(path)
        self._file = open(self._part, "xb")
        self._file.write(self._header(0))

    def _header(self, frame_count: int) -> bytes:
        # numpy leaves room for the first axis to grow, so that every count gives a header of one size.
        described = {"descr": self._dtype.str, "fortran_order": False, "shape": (frame_count, *self._shape)}
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, described)
        return header.getvalue()

    def _write_frame(self, values: np.ndarray, time_s: float, name: str) -> None:
        with np.errstate(over="ignore"):
            stored = values.astype(self._dtype, copy=False)
        if self._dtype.itemsize == 2 and not np.isfinite(stored).all():
            raise ValueError(f"{self.path}: frame {self.frame_count} holds values above 65504, the limit of float16")
        self._file.write(stored.data)

    def _finish(self) -> None:
        self._file.seek(0)
        self._file.write(self._header(self.frame_count))
        self._file.close()
        publish(self._part, self.path, self._overwrite)

    def _discard(self) -> None:
        try:
            self._file.close()
        except OSError:
            pass  # a full disk can't take what is left in the buffer
        finally:
            self._part.unlink(missing_ok=True)


class _FolderSink(DepthSink):
    """A folder of numbered frames; `value_range` turns values into counts, None writes them as they are."""

    def __init__(
        self,
        path: Path,
        height: int,
        width: int,
        overwrite: bool,
        suffix: str,
        write_image: Callable[[Path, np.ndarray, int, float], None],
        value_range: tuple[float, float] | None,
    ):
        super().__init__(path, height, width, overwrite)
        self._suffix = suffix
        self._write_image = write_image
        self._value_range = value_range
        self._part = part_path(path)
        self._part.mkdir()

    def _write_frame(self, values: np.ndarray, time_s: float, name: str) -> None:
        if self._value_range is not None:
            values = self._counted(values, self._value_range)
        self._write_image(self._part / f"{name}{self._suffix}", values, self.frame_count, time_s)

    def _finish(self) -> None:
        publish(self._part, self.path, self._overwrite)

    def _discard(self) -> None:
        shutil.rmtree(self._part, ignore_errors=True)


class _VideoSink(DepthSink):
    """What the two formats written through `video.VideoWriter` share; it has its own temporary file."""

    _writer: Any

    def _finish(self) -> None:
        self._writer.close()

    def _discard(self) -> None:
        self._writer.abort()


class _MkvSink(_VideoSink):
    def __init__(self, path: Path, height: int, width: int, overwrite: bool, writer: Callable, value_range: tuple):
        super().__init__(path, height, width, overwrite)
        self._value_range = value_range
        from depth_engine.video.write import Encoding

        self._writer = writer(codec=Encoding("ffv1", "gray16le"))

    def _write_frame(self, values: np.ndarray, time_s: float, name: str) -> None:
        self._writer.write(self._counted(values, self._value_range), time_s)


class _PreviewSink(_VideoSink):
    def __init__(
        self,
        path: Path,
        height: int,
        width: int,
        overwrite: bool,
        writer: Callable,
        value_range: tuple,
        kind: str,
        cmap: str,
    ):
        from depth_engine.report.colours import COLOR_MAPS

        super().__init__(path, height, width, overwrite)
        if cmap not in COLOR_MAPS:
            raise ValueError(f"cmap: {cmap!r} is not one of {', '.join(COLOR_MAPS)}")
        self._value_range = value_range
        self._kind = kind
        self._cmap = cmap
        self._writer = writer(codec="h264")

    def _write_frame(self, values: np.ndarray, time_s: float, name: str) -> None:
        from depth_engine.report.colours import colorize

        lo, hi = self._value_range
        unit = (values - np.float32(lo)) * np.float32(1 / (hi - lo))
        self.clipped += count_outside(values, lo, hi)
        self._writer.write(colorize(unit, self._kind, self._cmap), time_s)


def _write_png16(path: Path, counts: np.ndarray, _index: int, _time_s: float) -> None:
    # Level 1: depth is smooth, higher levels take several times longer for a few per cent.
    Image.fromarray(counts).save(path, compress_level=1)


def _exr_writer(how: Stored, fps: Fraction) -> Callable[[Path, np.ndarray, int, float], None]:
    import OpenEXR

    header = {
        "compression": OpenEXR.ZIP_COMPRESSION,
        "type": OpenEXR.scanlineimage,
        "colorInteropID": "data",  # no colours: programs leave the values as they are
        "depthKind": how.kind,
        "depthRange": how.value_range,
        "pixelAspectRatio": float(how.marks.sample_aspect) if how.marks else 1.0,
    }

    def write(path: Path, values: np.ndarray, index: int, time_s: float) -> None:
        with np.errstate(over="ignore"):
            stored = values.astype(how.dtype, copy=False)
        if how.dtype == "float16" and not np.isfinite(stored).all():
            raise ValueError(f"{path.name}: holds values above 65504, the limit of float16")
        # Y for readers of pictures, which pass over Z: OpenCV shows zeros then, others refuse the file.
        of_frame = header | {"frameNumber": index, "sourceFrame": path.stem}
        if how.marks is not None and how.marks.timecode is not None:
            of_frame |= _exr_timecode(how.marks.timecode, fps, time_s)
        OpenEXR.File(of_frame, {"Y": stored, "Z": stored}).write(str(path))

    return write


def _exr_timecode(first: str, fps: Fraction, time_s: float) -> dict[str, Any]:
    """What the header says of a frame that is shown at this time, where the clip begins at the timecode `first`.

    EXR's timecode has room for 60 frames a second (SMPTE ST 12-1); of faster clips it stays away.
    """
    import OpenEXR

    from depth_engine.video.marks import timecode_at

    text = timecode_at(first, fps, time_s, fps)
    if text is None or fps > 60:
        return {}
    code = OpenEXR.TimeCode()
    code.dropFrame = int(";" in text)
    code.hours, code.minutes, code.seconds, code.frame = (int(part) for part in text.replace(";", ":").split(":"))
    return {"timeCode": code}
