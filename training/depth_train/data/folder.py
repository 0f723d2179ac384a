"""A user's own pictures with depth: any folder of `rgb/` and `depth/` side by side."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from depth_train.data.datasets import (
    DatasetReader,
    FrameSequence,
    LoadedFrame,
    expect,
    read_exr,
    read_grey,
    read_npy,
    read_rgb,
)

_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff")
_MILLIMETRES_PER_METRE = 1000


def _millimetres(path: Path) -> np.ndarray:
    return read_grey(path) / _MILLIMETRES_PER_METRE


_DEPTH: dict[str, Callable[[Path], np.ndarray]] = {".npy": read_npy, ".exr": read_exr, ".png": _millimetres}


class Folder(DatasetReader):
    """`[<sequence>/]{rgb/NAME.{png,jpg,...},depth/NAME.{npy,exr,png}}`: planar depth, metres, or millimetres as PNG.

    Frames are in the order of the last number in their names, or of the names where there are none. What is 0, negative
    or nan is not known; inf is the sky. Cameras are not known. Sequences in a folder `train`, `val` or `test` of the
    root are those splits.
    """

    name = "folder"
    licence = "the user's own"
    splits = ("all", "train", "val", "test")

    def sequences(self, root: Path, split: str) -> list[FrameSequence]:
        """List the folders that hold both."""
        found = []
        for depth_folder in sorted(path for path in root.rglob("depth") if path.is_dir()):
            folder = depth_folder.parent
            if split != "all" and folder.relative_to(root).parts[:1] != (split,):
                continue
            pictures = {path.stem: path for path in sorted(folder.glob("rgb/*")) if path.suffix.lower() in _PICTURES}
            depths = {path.stem: path for path in sorted(depth_folder.iterdir()) if path.suffix.lower() in _DEPTH}
            names = sorted(pictures.keys() & depths.keys(), key=_order)
            if names:
                numbers = [_order(name)[0] for name in names]
                if len(set(numbers)) < len(numbers):
                    numbers = list(range(len(names)))
                frames = tuple((pictures[name], depths[name]) for name in names)
                found.append(FrameSequence(str(folder.relative_to(root)), frames, tuple(numbers)))
        where = "" if split == "all" else f"{split}/: "
        expect(self, found, f"{where}folders with rgb/NAME.png and depth/NAME.{{npy,exr,png}}", root)
        return found

    def load(self, sequence: FrameSequence, index: int) -> LoadedFrame:
        """Read a picture and its depth; the depth may be of another size, and the picture is what counts."""
        rgb_path, depth_path = sequence.frames[index]
        rgb, depth_m = read_rgb(rgb_path), _DEPTH[depth_path.suffix.lower()](depth_path)
        height, width = rgb.shape[:2]
        rows = (np.arange(height) + 0.5) * depth_m.shape[0] / height
        columns = (np.arange(width) + 0.5) * depth_m.shape[1] / width
        depth_m = depth_m[rows.astype(int)][:, columns.astype(int)]
        unknown = np.full((3, 3), np.nan), np.full((4, 4), np.nan)
        return LoadedFrame(rgb, depth_m, ~np.isnan(depth_m) & (depth_m > 0), *unknown)


def _order(name: str) -> tuple[int, str]:
    """The last number in a name, then the name."""
    numbers = re.findall(r"\d+", name)
    return (int(numbers[-1]) if numbers else 0, name)
