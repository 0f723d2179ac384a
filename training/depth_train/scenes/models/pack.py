"""Packs: a store of rendered views made small enough to be carried to another machine, some 7 kB a view.

A pack is a zip file. Of each view it holds the light as AVIF and the disparity as lossless WebP, eight bits of the
logarithm each; frames of a clip stand one below the other.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from depth_train.scenes.models.store import StoredView, read_view

SUFFIX = ".pack"
_INDEX = "index.json"
# Light is coded as log(1 + STEEP light), 0 to BRIGHTEST, where the mean of the logarithms is a camera's grey.
STEEP, BRIGHTEST, _GREY = 64.0, 32.0, 0.18
# Code of depth: 0 is the sky, 1 the farthest, 255 the nearest.
LEVELS = 255
_QUALITY = 45  # of AVIF: much below it grain and fine texture go
_TOGETHER = 64  # views that a process codes at a time


@dataclass(frozen=True)
class PackedView:
    """A view as a pack holds it.

    Attributes:
        light: uint8 `[T, H, W, 3]`, the logarithm of linear light; see `light_of_codes`.
        disparity: uint8 `[T, H, W]`: 0 is the sky, 1 to 255 are even steps of the logarithm between the two below.
        log_disparity: Natural logarithms of the least and the greatest disparity, 1 / m.
    """

    light: np.ndarray
    disparity: np.ndarray
    log_disparity: tuple[float, float]


def code_view(path: Path) -> PackedView:
    """A stored view in eight bits.

    Raises:
        ValueError: The file is damaged, or all of it is sky.
    """
    view = read_view(path)
    light = np.maximum(np.nan_to_num(view.radiance.astype(np.float32)), 0)
    grey = float(np.exp(np.log(light.mean(axis=-1) + 1e-4).mean()))
    code = np.log1p(light * (_GREY * STEEP / max(grey, 1e-6))) / np.log1p(STEEP * BRIGHTEST)
    seen = np.isfinite(view.depth_m)
    if not seen.any():
        raise ValueError(f"{path}: nothing but sky")
    logs = -np.log(np.maximum(view.depth_m[seen], 1e-3))
    low, high = float(logs.min()), float(logs.max())
    steps = np.zeros(view.depth_m.shape, dtype=np.uint8)
    steps[seen] = 1 + np.round((logs - low) / max(high - low, 1e-6) * (LEVELS - 1)).astype(np.uint8)
    return PackedView((np.clip(code, 0, 1) * 255 + 0.5).astype(np.uint8), steps, (low, high))


def encode_view(view: PackedView) -> tuple[bytes, bytes]:
    """AVIF of the light, WebP of the disparity."""
    width = view.light.shape[2]
    light, disparity = io.BytesIO(), io.BytesIO()
    Image.fromarray(view.light.reshape(-1, width, 3)).save(light, "AVIF", quality=_QUALITY, speed=7, max_threads=1)
    Image.fromarray(view.disparity.reshape(-1, width)).save(disparity, "WEBP", lossless=True, quality=60, method=3)
    return light.getvalue(), disparity.getvalue()


def decode_view(light: bytes, disparity: bytes, log_disparity: tuple[float, float], frames: int) -> PackedView:
    """Read what `encode_view` wrote.

    Raises:
        ValueError: The bytes are no pictures.
    """
    try:
        pictures = np.asarray(Image.open(io.BytesIO(light)).convert("RGB"))
        steps = np.asarray(Image.open(io.BytesIO(disparity)).convert("RGB"))[..., 0]
    except OSError as error:
        raise ValueError(f"a packed view can't be read ({error})") from error
    width = pictures.shape[1]
    return PackedView(pictures.reshape(frames, -1, width, 3), steps.reshape(frames, -1, width), log_disparity)


def write_packs(views: Sequence[StoredView], folder: Path, megabytes: float, processes: int) -> list[Path]:
    """Pack views in their order into files of about one size.

    Args:
        views: From `list_views`.
        folder: Where the packs go; it is made.
        megabytes: Size of a pack.
        processes: Processes that code.

    Raises:
        FileExistsError: The folder holds packs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.glob(f"*{SUFFIX}")):
        raise FileExistsError(f"--output: {folder} holds packs; give another folder")
    written: list[Path] = []
    with ProcessPoolExecutor(processes) as pool:
        coded = pool.map(_code, [view.path for view in views], chunksize=_TOGETHER)
        good = (view for view in coded if view is not None)
        while part := list(_until(good, megabytes * 1e6)):
            written.append(_write_pack(part, folder / f"{len(written):03d}{SUFFIX}"))
    return written


class _Coded(NamedTuple):
    light: bytes
    disparity: bytes
    about: dict[str, object]


def _code(path: Path) -> _Coded | None:
    """A view as the pack's bytes; None for one that can't be read, which a store may hold after a kill."""
    try:
        view = code_view(path)
    except ValueError:
        return None
    return _Coded(*encode_view(view), {"frames": len(view.disparity), "log_disparity": view.log_disparity})


def _until(views: Iterator[_Coded], size: float) -> Iterator[_Coded]:
    """As many as fill a pack."""
    for view in views:
        size -= len(view.light) + len(view.disparity)
        yield view
        if size <= 0:
            return


def _write_pack(part: Iterable[_Coded], path: Path) -> Path:
    """Write a pack, whole or not at all."""
    unfinished = path.with_suffix(".tmp")
    index = []
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as file:
        for number, view in enumerate(part):
            file.writestr(f"{number}.avif", view.light)
            file.writestr(f"{number}.webp", view.disparity)
            index.append(view.about)
        file.writestr(_INDEX, json.dumps(index))
    unfinished.replace(path)
    return path


def read_pack(path: Path) -> list[PackedView]:
    """All views of a pack.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        with zipfile.ZipFile(path) as file:
            index = json.loads(file.read(_INDEX))
            return [
                decode_view(
                    file.read(f"{number}.avif"),
                    file.read(f"{number}.webp"),
                    tuple(entry["log_disparity"]),
                    entry["frames"],
                )
                for number, entry in enumerate(index)
            ]
    except (OSError, KeyError, zipfile.BadZipFile, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: can't be read as a pack ({error})") from error
