"""Depth files, written and read one frame at a time.

A base path names a result; each format adds its own ending to it (`depth_path`), and one sidecar serves them all:

    DIR/depth.npy      float32 or float16 [T, H, W], opens with np.load(mmap_mode="r")
    DIR/depth.mkv      16-bit grey FFV1, the archive
    DIR/depth_png16/   000000.png ..., 16-bit grey; of an image sequence under the names of its images
    DIR/depth_exr/     000000.exr ..., float32 or half, the depth in Z and again in Y; names likewise
    DIR/depth.mp4      coloured H.264 preview, cannot be read back
    DIR/depth.json     the sidecar

The two 16-bit formats store count = round(65535 * (value - lo) / (hi - lo)) for the caller's `value_range` (lo, hi).
Every target appears under its finished name only when it is whole. The same frames give the same bytes.
"""

from __future__ import annotations

import io
import shutil
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from PIL import Image

from depth_engine.depth.sidecar import (
    COUNT_FORMATS,
    DEPTH_KINDS,
    MAX_COUNT,
    check_range,
    read_sidecar,
    sidecar_path,
)
from depth_engine.runs.atomic import part_path, publish, refuse_existing

if TYPE_CHECKING:
    from depth_engine.video.marks import Marks

DepthFormat = Literal["npy", "mkv", "png16", "exr", "mp4"]
DEPTH_FORMATS: tuple[str, ...] = get_args(DepthFormat)

_ENDINGS = {"npy": ".npy", "mkv": ".mkv", "png16": "_png16", "exr": "_exr", "mp4": ".mp4"}


# ---------------------------------------------------------------------------------------------------------- names


def depth_path(base: str | Path, format: str) -> Path:
    """Where a format's file or folder of frames lies.

    Args:
        base: Path without ending, such as DIR/depth.
        format: One of `DEPTH_FORMATS`.

    Raises:
        ValueError: The format is unknown.
    """
    if format not in _ENDINGS:
        raise ValueError(f"format: {format!r} is not one of {', '.join(DEPTH_FORMATS)}")
    base = Path(base)
    return base.with_name(base.name + _ENDINGS[format])


def split_depth_path(path: str | Path) -> tuple[Path, DepthFormat]:
    """The inverse of `depth_path`: base path and format of a depth file or folder.

    Raises:
        ValueError: The name has no depth ending.
    """
    path = Path(path)
    for format in get_args(DepthFormat):
        ending = _ENDINGS[format]
        if path.name.endswith(ending) and path.name != ending:
            return path.with_name(path.name[: -len(ending)]), format
    raise ValueError(f"{path}: a depth file's name ends in one of {', '.join(_ENDINGS.values())}")


# ---------------------------------------------------------------------------------------------------------- sinks


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
        return _FolderSink(target, height, width, overwrite, ".exr", _exr_writer(stored), None)
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
        write_image: Callable[[Path, np.ndarray, int], None],
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
            values, clipped = _counts(values, self._value_range)
            self.clipped += clipped
        self._write_image(self._part / f"{name}{self._suffix}", values, self.frame_count)

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
        counts, clipped = _counts(values, self._value_range)
        self.clipped += clipped
        self._writer.write(counts, time_s)


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
        self.clipped += _count_outside(values, lo, hi)
        self._writer.write(colorize(unit, self._kind, self._cmap), time_s)


def _write_png16(path: Path, counts: np.ndarray, _index: int) -> None:
    # Level 1: depth is smooth, higher levels take several times longer for a few per cent.
    Image.fromarray(counts).save(path, compress_level=1)


def _exr_writer(how: Stored) -> Callable[[Path, np.ndarray, int], None]:
    import OpenEXR

    header = {
        "compression": OpenEXR.ZIP_COMPRESSION,
        "type": OpenEXR.scanlineimage,
        "colorInteropID": "data",  # no colours: programs leave the values as they are
        "depthKind": how.kind,
        "depthRange": how.value_range,
        "pixelAspectRatio": float(how.marks.sample_aspect) if how.marks else 1.0,
    }

    def write(path: Path, values: np.ndarray, index: int) -> None:
        with np.errstate(over="ignore"):
            stored = values.astype(how.dtype, copy=False)
        if how.dtype == "float16" and not np.isfinite(stored).all():
            raise ValueError(f"{path.name}: holds values above 65504, the limit of float16")
        # Y for readers of pictures, which pass over Z: OpenCV shows zeros then, others refuse the file.
        of_frame = header | {"frameNumber": index, "sourceFrame": path.stem}
        OpenEXR.File(of_frame, {"Y": stored, "Z": stored}).write(str(path))

    return write


def _counts(values: np.ndarray, value_range: tuple[float, float]) -> tuple[np.ndarray, int]:
    """uint16 counts of float32 values, and how many values were clipped."""
    lo, hi = value_range
    scaled = values - np.float32(lo)
    scaled *= np.float32(MAX_COUNT / (hi - lo))
    np.rint(scaled, out=scaled)
    np.clip(scaled, 0, MAX_COUNT, out=scaled)
    return scaled.astype(np.uint16), _count_outside(values, lo, hi)


def _count_outside(values: np.ndarray, lo: float, hi: float) -> int:
    # float32 bounds, as the values are: float32(0.1) is no value outside (0.1, 0.9).
    low, high = np.float32(lo), np.float32(hi)
    if values.min() >= low and values.max() <= high:
        return 0
    return int(np.count_nonzero((values < low) | (values > high)))


def _values(counts: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """float32 values of uint16 counts; computed in float64 so that counts survive a second round."""
    lo, hi = value_range
    return (lo + counts * ((hi - lo) / MAX_COUNT)).astype(np.float32)


def as_read_back(values: np.ndarray, value_range: tuple[float, float] = (0.0, 1.0)) -> np.ndarray:
    """float32 values as mkv and png16 give them back: rounded to the nearest of their 65,536 counts."""
    return _values(_counts(values, value_range)[0], value_range)


# -------------------------------------------------------------------------------------------------------- readers


def iter_depth(path: str | Path, *, value_range: tuple[float, float] | None = None) -> Iterator[np.ndarray]:
    """Read a depth file or folder frame by frame.

    If it has a sidecar, its frame count and size are held against it.

    Args:
        path: A file or folder named as `depth_path` does.
        value_range: What the counts of mkv and png16 stand for; taken from the sidecar where there is one, else
            needed. Has no meaning for npy and exr.

    Returns:
        Iterator over float32 `[H, W]` in the original value range.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is damaged or does not match its sidecar (while iterating; names file and frame), the
            value range is missing or contradicts the sidecar, or the format is the coloured mp4.
    """
    path = Path(path)
    base, format = split_depth_path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such depth file")
    if format == "mp4":
        raise ValueError(f"{path}: a coloured preview cannot be read back as depth; use npy, mkv, png16 or exr")
    sidecar = read_sidecar(sidecar_path(base)) if sidecar_path(base).exists() else None
    if format in COUNT_FORMATS:
        value_range = _resolve_range(path, value_range, sidecar)
    return _checked(path, _READERS[format](path, value_range), sidecar)


def _resolve_range(path: Path, given: tuple[float, float] | None, sidecar: dict | None) -> tuple[float, float]:
    stated = None if sidecar is None else tuple(sidecar["value_range"])
    if given is not None:
        check_range(given)
    if given is None and stated is None:
        raise ValueError(f"{path}: without its sidecar value_range is needed, such as (0, 1) for relative depth")
    if given is not None and stated is not None and tuple(given) != stated:
        raise ValueError(f"value_range: {tuple(given)} contradicts {stated} in the sidecar of {path}")
    return stated or given  # pyright: ignore[reportReturnType]


def _checked(path: Path, frames: Iterator[np.ndarray], sidecar: dict | None) -> Iterator[np.ndarray]:
    """Pass frames on; raise where they differ in size, or from what the sidecar says."""
    shape = None if sidecar is None else (sidecar["height"], sidecar["width"])
    count = 0
    for frame in frames:
        shape = shape or frame.shape
        if frame.shape != shape:
            raise ValueError(f"{path}: frame {count} has shape {frame.shape}, expected {shape}")
        yield frame
        count += 1
    if count == 0:
        raise ValueError(f"{path}: holds no frame")
    if sidecar is not None and count != sidecar["frame_count"]:
        raise ValueError(f"{path}: ends after frame {count - 1}, its sidecar says {sidecar['frame_count']} frames")


def _read_npy(path: Path, _: object) -> Iterator[np.ndarray]:
    # Plain reads, no memory map: mapped pages would count as this process's memory and grow with the clip.
    with open(path, "rb") as file:
        try:
            np.lib.format.read_magic(file)
            shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(file)
        except ValueError as error:
            raise ValueError(f"{path}: not an npy file: {error}") from error
        if len(shape) != 3 or fortran_order or dtype not in (np.dtype("<f4"), np.dtype("<f2")):
            raise ValueError(f"{path}: holds {dtype} {shape}, not float32 or float16 [T, H, W] in C order")
        frame = np.empty(shape[1:], dtype)
        for index in range(shape[0]):
            if file.readinto(frame.data) != frame.nbytes:
                raise ValueError(f"{path}: cut off within frame {index} of {shape[0]}")
            yield frame.astype(np.float32)


def _read_mkv(path: Path, value_range: tuple[float, float]) -> Iterator[np.ndarray]:
    from depth_engine.video.probe import DecodeError
    from depth_engine.video.read import read_gray16

    try:
        for counts in read_gray16(path):
            yield _values(counts, value_range)
    except DecodeError as error:  # names file and frame
        raise ValueError(str(error)) from error


def _read_png16(folder: Path, value_range: tuple[float, float]) -> Iterator[np.ndarray]:
    for index, path in _numbered(folder, ".png"):
        try:
            with Image.open(path) as image:
                if image.mode != "I;16":
                    raise ValueError(f"is {image.mode}, not 16-bit grey")
                counts = np.asarray(image)
        except (OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"{folder}: frame {index} ({path.name}) cannot be read: {error}") from error
        yield _values(counts, value_range)


def _read_exr(folder: Path, _: object) -> Iterator[np.ndarray]:
    import OpenEXR

    for index, path in _numbered(folder, ".exr"):
        try:
            with OpenEXR.File(str(path)) as image:
                channels = image.channels()
                if "Z" not in channels:
                    raise ValueError(f"has channels {', '.join(channels)}, no Z")
                values = channels["Z"].pixels.astype(np.float32)
        except (RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{folder}: frame {index} ({path.name}) cannot be read: {error}") from error
        yield values


_READERS: dict[str, Callable[[Path, Any], Iterator[np.ndarray]]] = {
    "npy": _read_npy,
    "mkv": _read_mkv,
    "png16": _read_png16,
    "exr": _read_exr,
}


def _numbered(folder: Path, suffix: str) -> Iterator[tuple[int, Path]]:
    """By the names in the sidecar; else 000000, 000001, ... without a gap."""
    sidecar = sidecar_path(split_depth_path(folder)[0])
    count = sum(entry.suffix == suffix for entry in folder.iterdir())
    names = read_sidecar(sidecar).get("frame_names") if sidecar.exists() else None
    for index, name in enumerate(names or [f"{number:06d}" for number in range(count)]):
        path = folder / f"{name}{suffix}"
        if not path.exists():
            raise ValueError(f"{folder}: frame {index} ({path.name}) is missing")
        yield index, path
