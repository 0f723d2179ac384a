"""Real clips with truth: RGB-D folders in TUM's layout, and plain clips judged by their own structure from motion."""

from __future__ import annotations

import bisect
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from depth_engine.geometry.structure import WORK_SIDE_PX, map_pictures, picture_name
from depth_engine.geometry.tracking import work_picture

# TUM's depth is in steps of a five-thousandth of a metre.
_TUM_STEPS_PER_METRE = 5000.0
# Colour and depth within this time belong together.
_SAME_TIME_S = 0.02
# Every so many pixels of a dense depth map count, each way: plenty, and light.
_EVERY_PIXEL = 3
# Frames of a plain clip that are mapped: enough for parallax, few enough for a minute.
_MAPPED_FRAMES = 40
_MIN_POINTS = 200
# Of a rendered view: what is farther is as good as the sky.
_FARTHEST_M = 80.0


@dataclass(frozen=True)
class Footage:
    """A real clip with known depth at some pixels.

    Attributes:
        name: Of the file or folder.
        frames: uint8 RGB `[H, W, 3]`, all of one size.
        pixels: For each frame, float64 `[N, 2]`: columns and rows with known depth, centres at +0.5.
        depth_m: For each frame, float64 `[N]`: planar depth there; metres, or the mapping's own unit.
        truth: What it rests on: `sensor`, `structure from motion` or `rendering`.
    """

    name: str
    frames: list[np.ndarray]
    pixels: list[np.ndarray]
    depth_m: list[np.ndarray]
    truth: str


def read_footage(path: Path, max_frames: int) -> Footage:
    """A clip, or a folder in TUM's layout.

    Args:
        path: A video, or a folder with `rgb.txt` and `depth.txt`.
        max_frames: Frames from the beginning.

    Raises:
        ValueError: It is neither, or has no truth: too little parallax, no depth.
    """
    if path.is_dir():
        return _read_tum(path, max_frames)
    if not path.is_file():
        raise ValueError(f"--footage: no such file or folder: {path}")
    return _read_clip(path, max_frames)


def _read_tum(folder: Path, max_frames: int) -> Footage:
    for name in ("rgb.txt", "depth.txt"):
        if not (folder / name).is_file():
            raise ValueError(f"--footage: {folder} has no {name}; a folder in the layout of TUM RGB-D is accepted")
    depths = _listed(folder / "depth.txt")
    times = [time for time, _ in depths]
    frames, pixels, known = [], [], []
    for time, name in _listed(folder / "rgb.txt")[:max_frames]:
        near = min(
            (i for i in (bisect.bisect(times, time) - 1, bisect.bisect(times, time)) if 0 <= i < len(times)),
            key=lambda i: abs(times[i] - time),
            default=None,
        )
        if near is None or abs(times[near] - time) > _SAME_TIME_S:
            continue
        try:
            rgb = np.array(Image.open(folder / name).convert("RGB"))
            raw = np.array(Image.open(folder / depths[near][1]))
        except OSError as error:
            raise ValueError(f"--footage: {folder}: {error}") from error
        depth = raw.astype(np.float64) / _TUM_STEPS_PER_METRE
        grid = np.mgrid[0 : depth.shape[0] : _EVERY_PIXEL, 0 : depth.shape[1] : _EVERY_PIXEL]
        rows, columns = grid[0].ravel(), grid[1].ravel()
        there = depth[rows, columns] > 0
        frames.append(rgb)
        # Depth may be of another size than colour; both see the same.
        scale = np.array([rgb.shape[1] / depth.shape[1], rgb.shape[0] / depth.shape[0]])
        pixels.append((np.stack([columns[there], rows[there]], axis=1) + 0.5) * scale)
        known.append(depth[rows[there], columns[there]])
    if not frames or not sum(len(part) for part in known):
        raise ValueError(f"--footage: {folder} holds no frame with depth")
    return Footage(folder.name, frames, pixels, known, "sensor")


def read_views(folder: Path, max_views: int) -> Iterator[tuple[str, Footage]]:
    """Views of a store of `depth-train scenes`, each developed in one way that its name decides, with their places.

    Args:
        folder: The store.
        max_views: The first ones by name.

    Raises:
        ValueError: The folder holds no views, or one is damaged.
    """
    from depth_train.scenes.models.camera import develop
    from depth_train.scenes.models.store import list_views, read_view

    for stored in list_views(folder)[:max_views]:
        view = read_view(stored.path)
        picture = develop(view.radiance, view.depth_m, np.random.default_rng(zlib.crc32(stored.path.name.encode())))
        pixels, known = [], []
        for depth, valid in zip(view.depth_m, picture.valid, strict=True):
            there = np.zeros(depth.shape, dtype=bool)
            there[::_EVERY_PIXEL, ::_EVERY_PIXEL] = True
            rows, columns = np.nonzero(there & valid & (depth < _FARTHEST_M))
            pixels.append(np.stack([columns, rows], axis=1) + 0.5)
            known.append(depth[rows, columns].astype(np.float64))
        if sum(len(part) for part in known) >= _MIN_POINTS:
            yield view.place, Footage(stored.path.name, list(picture.rgb), pixels, known, "rendering")


def _listed(path: Path) -> list[tuple[float, str]]:
    """Lines `time name` of a TUM list."""
    rows = []
    for line in path.read_text().splitlines():
        parts = line.split()
        if len(parts) >= 2 and not line.startswith("#"):
            try:
                rows.append((float(parts[0]), parts[1]))
            except ValueError as error:
                raise ValueError(f"--footage: {path}: {line!r} is no line of time and name") from error
    return rows


def _read_clip(path: Path, max_frames: int) -> Footage:
    from depth_engine.video.read import read_frames

    frames = [frame.rgb for frame in read_frames(path, max_frames=max_frames)]
    step = max(1, len(frames) // _MAPPED_FRAMES)
    mapped = list(range(0, len(frames), step))
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        (folder / "images").mkdir()
        height, width = frames[0].shape[:2]
        for index in mapped:
            picture = work_picture(frames[index], WORK_SIDE_PX)
            height, width = picture.shape[:2]
            cv2.imwrite(str(folder / "images" / picture_name(index)), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        try:
            structure = map_pictures(folder, mapped, height, width, None, lambda stage, done: None)
        except ValueError as error:
            raise ValueError(f"--footage: {path}: no structure from motion to compare with ({error})") from error
    scale = np.array([frames[0].shape[1] / width, frames[0].shape[0] / height])
    pixels, known = [np.zeros((0, 2))] * len(frames), [np.zeros(0)] * len(frames)
    for index, seen in structure.observations.items():
        pose = structure.camera_from_world[index]
        depth = structure.points[seen.points] @ pose[2, :3] + pose[2, 3]
        there = depth > 0
        pixels[index], known[index] = seen.pixels[there] * scale, depth[there]
    if sum(len(part) for part in known) < _MIN_POINTS:
        raise ValueError(f"--footage: {path}: structure from motion found too few points to compare with")
    return Footage(path.name, frames, pixels, known, "structure from motion")
