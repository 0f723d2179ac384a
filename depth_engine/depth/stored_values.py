"""All values of a depth file at once: mapped, or in memory, or above 1 GiB in a mapped temporary file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from depth_engine.depth.formats import iter_depth

# Larger clips live in an unnamed temporary file that is mapped into memory, so that their length costs disk, not RAM.
_IN_MEMORY_BYTES = 2**30


def load_values(path: Path, format: str, meta: dict[str, Any], value_range: tuple[float, float] | None) -> np.ndarray:
    """float32 `[T, H, W]` of a depth file; `meta` is its sidecar, or empty."""
    if format == "npy" and (mapped := _map_npy(path)) is not None:
        stated = tuple(meta[key] for key in ("frame_count", "height", "width")) if meta else mapped.shape
        if mapped.shape != stated:
            raise ValueError(f"{path}: has shape {mapped.shape}, its sidecar says {stated}")
        return mapped
    frames = iter_depth(path, value_range=value_range)
    count = meta["frame_count"] if meta else sum(1 for _ in iter_depth(path, value_range=value_range))
    return _filled(path, frames, count)


def _map_npy(path: Path) -> np.ndarray | None:
    """A memory map of a float32 npy; None for what has to be read and checked frame by frame."""
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError):
        return None
    return mapped if mapped.dtype == np.float32 and mapped.ndim == 3 else None


def _filled(path: Path, frames: Iterator[np.ndarray], frame_count: int) -> np.ndarray:
    values: np.ndarray | None = None
    for index, frame in enumerate(frames):
        if values is None:
            values = allocate((frame_count, *frame.shape))
        if index < frame_count:
            values[index] = frame
    if values is None:
        raise ValueError(f"{path}: holds no frame")
    return values


def allocate(shape: tuple[int, ...]) -> np.ndarray:
    """Room for float32 `shape`: in memory, or above 1 GiB in a mapped temporary file without a name."""
    if np.prod(shape, dtype=np.int64) * 4 <= _IN_MEMORY_BYTES:
        return np.empty(shape, np.float32)
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, np.float32, "w+", shape=shape)
