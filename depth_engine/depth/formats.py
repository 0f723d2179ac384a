"""Depth files: their names, what their counts stand for, and reading them one frame at a time; `sinks.py` writes.

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

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from depth_engine.depth.sidecar import COUNT_FORMATS, MAX_COUNT, check_range, read_sidecar, sidecar_path

DepthFormat = Literal["npy", "mkv", "png16", "exr", "mp4"]
DEPTH_FORMATS: tuple[str, ...] = get_args(DepthFormat)

_ENDINGS = {"npy": ".npy", "mkv": ".mkv", "png16": "_png16", "exr": "_exr", "mp4": ".mp4"}
_READABLE = ("npy", "exr", "mkv", "png16")  # most exact first


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


def find_depth_file(path: Path) -> Path:
    """The depth file that a path means: itself, what its sidecar describes, or what lies in the folder."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    if path.suffix == ".json":
        base = path.with_suffix("")
        found = [depth_path(base, format) for format in _READABLE]
        for file in found:
            if file.exists():
                return file
        raise ValueError(f"{path}: none of the files it can describe exists: {', '.join(f.name for f in found)}")
    is_frames_folder = path.is_dir() and (path.name.endswith(("_png16", "_exr")))
    if path.is_file() or is_frames_folder:
        return path
    sidecars = sorted(file for file in path.glob("*.json") if _is_sidecar(file))
    if len(sidecars) != 1:
        names = ", ".join(file.name for file in sidecars) or "none"
        raise ValueError(f"{path}: a folder must hold exactly one depth sidecar, found {names}")
    return find_depth_file(sidecars[0])


def _is_sidecar(path: Path) -> bool:
    try:
        read_sidecar(path)
    except ValueError:
        return False
    return True


def counts_of(values: np.ndarray, value_range: tuple[float, float]) -> tuple[np.ndarray, int]:
    """uint16 counts of float32 values, and how many values were clipped."""
    lo, hi = value_range
    scaled = values - np.float32(lo)
    scaled *= np.float32(MAX_COUNT / (hi - lo))
    np.rint(scaled, out=scaled)
    np.clip(scaled, 0, MAX_COUNT, out=scaled)
    return scaled.astype(np.uint16), count_outside(values, lo, hi)


def count_outside(values: np.ndarray, lo: float, hi: float) -> int:
    """How many values lie outside a range."""
    # float32 bounds, as the values are: float32(0.1) is no value outside (0.1, 0.9).
    low, high = np.float32(lo), np.float32(hi)
    if values.min() >= low and values.max() <= high:
        return 0
    return int(np.count_nonzero((values < low) | (values > high)))


def values_of(counts: np.ndarray, value_range: tuple[float, float]) -> np.ndarray:
    """float32 values of uint16 counts; computed in float64 so that counts survive a second round."""
    lo, hi = value_range
    return (lo + counts * ((hi - lo) / MAX_COUNT)).astype(np.float32)


def to_unit(values: np.ndarray, lo: float, hi: float) -> np.ndarray:
    """Values from `lo` to `hi` as float32 from 0 to 1."""
    values = np.asarray(values, np.float32)
    return values if (lo, hi) == (0.0, 1.0) else (values - np.float32(lo)) / np.float32(hi - lo)


def as_read_back(values: np.ndarray, value_range: tuple[float, float] = (0.0, 1.0)) -> np.ndarray:
    """float32 values as mkv and png16 give them back: rounded to the nearest of their 65,536 counts."""
    return values_of(counts_of(values, value_range)[0], value_range)


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
            yield values_of(counts, value_range)
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
        yield values_of(counts, value_range)


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
