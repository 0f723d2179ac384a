"""Depth to work from: this project's own files by their sidecar, or those of any other tool.

Frames come one at a time, so memory does not grow with the clip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path

import numpy as np
from PIL import Image

from depth_engine.checks import known_name
from depth_engine.depth.formats import find_depth_file, iter_depth, split_depth_path, to_unit
from depth_engine.depth.sidecar import DEPTH_KINDS, read_sidecar, sidecar_path
from depth_engine.video.sequence_files import natural_key

# Names under which other tools keep the array: Video Depth Anything, DepthCrafter, and what they call it elsewhere.
_NPZ_NAMES = ("depths", "depth", "disparity", "disparities")
_ACCEPTED = "npy, npz, a folder of png or exr, or a 16-bit grey mkv"


@dataclass(frozen=True)
class DepthSource:
    """Depth of a clip, on disk.

    Attributes:
        path: The file or folder.
        kind: `disparity`, `depth` or `metric`.
        height: Rows.
        width: Columns.
        frame_count: Number of frames; None if it is known only at the end.
        shots: First frame of every shot, if the sidecar knows; else None.
        notes: What the user should know of how it was read.
        open: Starts reading: float32 `[H, W]` one by one. Relative depth lies in [0, 1]; nan and inf are possible.
    """

    path: Path
    kind: str
    height: int
    width: int
    frame_count: int | None
    shots: tuple[int, ...] | None
    notes: tuple[str, ...]
    open: Callable[[], Iterator[np.ndarray]]

    def repeated(self, count: int) -> DepthSource:
        """The depth of a single image for a clip that shows nothing else."""

        def frames() -> Iterator[np.ndarray]:
            with closing(self.open()) as held:  # type: ignore[type-var]
                yield from repeat(next(held), count)

        return replace(self, frame_count=count, open=frames)


def open_depth(path: str | Path, kind: str | None = None) -> DepthSource:
    """Find out what depth a path holds. Little is read.

    Args:
        path: A depth file or folder of frames, a sidecar, or a folder with one sidecar.
        kind: `disparity`, `depth` or `metric`; needed where no sidecar says it.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The kind is missing or contradicts the sidecar, or the file can't be read as depth.
    """
    path = Path(path)
    if kind is not None:
        known_name("depth-kind", kind, DEPTH_KINDS)
    if not path.exists():
        raise FileNotFoundError(f"depth: {path} does not exist; give {_ACCEPTED}")
    own = _own(path)
    if own is not None:
        return _open_own(own, kind)
    if kind is None:
        raise ValueError(
            f"depth: {path} has no sidecar that says what it holds; give --depth-kind {', '.join(DEPTH_KINDS)}"
        )
    if path.is_dir():
        return _open_folder(path, kind)
    readers = {".npy": _open_npy, ".npz": _open_npz, ".mkv": _open_mkv}
    if path.suffix.lower() not in readers:
        raise ValueError(f"depth: {path.name} is not accepted; give {_ACCEPTED}")
    return readers[path.suffix.lower()](path, kind)


def _own(path: Path) -> Path | None:
    """The depth file that a sidecar describes, if there is one."""
    try:
        file = find_depth_file(path)
        base, _ = split_depth_path(file)
    except (FileNotFoundError, ValueError):
        return None
    return file if sidecar_path(base).exists() else None


def _open_own(file: Path, kind: str | None) -> DepthSource:
    sidecar = read_sidecar(sidecar_path(split_depth_path(file)[0]))
    if kind not in (None, sidecar["kind"]):
        raise ValueError(f"depth-kind: {kind} contradicts {sidecar['kind']} in the sidecar of {file}")
    lo, hi, notes = 0.0, 1.0, ()
    if sidecar["kind"] != "metric" and (lo, hi) != tuple(sidecar["value_range"]):
        lo, hi, notes = _of_range(*sidecar["value_range"])
    return DepthSource(
        file,
        sidecar["kind"],
        sidecar["height"],
        sidecar["width"],
        sidecar["frame_count"],
        tuple(sidecar["shots"]) or None,
        notes,
        lambda: (to_unit(frame, lo, hi) for frame in iter_depth(file)),
    )


def _open_npy(path: Path, kind: str) -> DepthSource:
    try:
        held = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"depth: {path} can't be read as an array ({error})") from error
    return _of_array(path, kind, held, lambda: np.load(path, mmap_mode="r", allow_pickle=False))


def _open_npz(path: Path, kind: str) -> DepthSource:
    def load() -> np.ndarray:
        try:
            with np.load(path, allow_pickle=False) as held:
                names = [name for name in _NPZ_NAMES if name in held] or list(held)
                if len(names) != 1:
                    raise ValueError(
                        f"it holds {', '.join(names) or 'nothing'}; one of {', '.join(_NPZ_NAMES)} is read"
                    )
                return held[names[0]]
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"depth: {path} can't be read as an array ({error})") from error

    return _of_array(path, kind, load(), load)


def _of_array(path: Path, kind: str, array: np.ndarray, load: Callable[[], np.ndarray]) -> DepthSource:
    shape = [size for axis, size in enumerate(array.shape) if not (size == 1 and axis in (1, array.ndim - 1))]
    if array.ndim not in (3, 4) or len(shape) != 3 or not np.issubdtype(array.dtype, np.number):
        raise ValueError(f"depth: {path} holds {array.dtype} {list(array.shape)}; numbers [T, H, W] are accepted")
    frame_count, height, width = shape
    lo, hi, notes = 0.0, 1.0, ()
    if np.issubdtype(array.dtype, np.integer) and kind != "metric":
        hi = float(np.iinfo(array.dtype).max)
    elif kind != "metric":
        lo, hi, notes = _relative_range(array)

    def frames() -> Iterator[np.ndarray]:
        for frame in load():
            yield to_unit(frame.reshape(height, width), lo, hi)

    return DepthSource(path, kind, height, width, frame_count, None, notes, frames)


def _relative_range(frames: Iterable[np.ndarray]) -> tuple[float, float, tuple[str, ...]]:
    """Range of the whole clip that becomes [0, 1], where relative depth is not in it already."""
    lo, hi = np.inf, -np.inf
    for frame in frames:
        values = frame[np.isfinite(frame)]
        if values.size:
            lo, hi = min(lo, float(values.min())), max(hi, float(values.max()))
    if (lo >= 0 and hi <= 1) or lo > hi:
        return 0.0, 1.0, ()
    return _of_range(lo, hi)


def _of_range(lo: float, hi: float) -> tuple[float, float, tuple[str, ...]]:
    note = f"relative depth from {lo:g} to {hi:g} was brought to [0, 1] for the whole clip"
    return lo, hi if hi > lo else lo + 1, (note,)


def _open_mkv(path: Path, kind: str) -> DepthSource:
    from depth_engine.video.read import probe, read_gray16

    if kind == "metric":
        raise ValueError(f"depth: {path} without its sidecar has no unit; give --depth-kind disparity or depth")
    info = probe(path)
    return DepthSource(
        path,
        kind,
        info.height,
        info.width,
        info.frame_count,
        None,
        (),
        lambda: (counts.astype(np.float32) / 65535 for counts in read_gray16(path)),
    )


def _open_folder(path: Path, kind: str) -> DepthSource:
    files = sorted((file for file in path.iterdir() if file.suffix.lower() in (".png", ".exr")), key=natural_key)
    endings = {file.suffix.lower() for file in files}
    if len(endings) != 1:
        raise ValueError(f"depth: {path} holds {'png and exr mixed' if endings else 'no png or exr'}; give {_ACCEPTED}")
    if endings == {".png"} and kind == "metric":
        raise ValueError(f"depth: png files in {path} have no unit; give --depth-kind disparity or depth")
    read = _read_png if endings == {".png"} else _read_exr
    height, width = read(files[0]).shape
    lo, hi, notes = 0.0, 1.0, ()
    if endings == {".exr"} and kind != "metric":
        lo, hi, notes = _relative_range(read(file) for file in files)

    def frames() -> Iterator[np.ndarray]:
        for file in files:
            frame = read(file)
            if frame.shape != (height, width):
                raise ValueError(f"depth: {file} has shape {frame.shape}, the first one {(height, width)}")
            yield to_unit(frame, lo, hi)

    return DepthSource(path, kind, height, width, len(files), None, notes, frames)


def _read_png(file: Path) -> np.ndarray:
    """Grey of 8 or 16 bits as [0, 1]; a grey picture kept as colour counts as grey."""
    try:
        with Image.open(file) as image:
            counts = np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise ValueError(f"depth: {file} can't be read ({error})") from error
    if counts.ndim == 3 and (counts[..., :3] == counts[..., :1]).all():
        counts = counts[..., 0]
    if counts.ndim != 2 or counts.dtype.kind not in "ui":
        raise ValueError(f"depth: {file} is {counts.dtype} {list(counts.shape)}; grey of 8 or 16 bits is accepted")
    return counts.astype(np.float32) / (255 if counts.dtype == np.uint8 else 65535)


def _read_exr(file: Path) -> np.ndarray:
    """The Z channel, or the only one, or R where several hold the same."""
    import OpenEXR

    try:
        with OpenEXR.File(str(file)) as image:
            channels = {name: channel.pixels for name, channel in image.channels().items()}
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"depth: {file} can't be read ({error})") from error
    values = next((channels[name] for name in ("Z", "Y", "R", "RGB", "RGBA") if name in channels), None)
    if values is None and len(channels) == 1:
        values = next(iter(channels.values()))
    if values is None:
        raise ValueError(f"depth: {file} has channels {', '.join(channels)}; Z, Y or R is read")
    return (values[..., 0] if values.ndim == 3 else values).astype(np.float32)
