"""Views of the store of model scenes as training clips: each visit is another cut and another picture."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from depth_train.config import Source
from depth_train.scenes.models.assets import assets_folder
from depth_train.scenes.models.camera import develop
from depth_train.scenes.models.pack import SUFFIX
from depth_train.scenes.models.scene import RenderedView
from depth_train.scenes.models.store import StoredView, list_views, read_view

# A cut takes this share of what fits, at the least: the rest is a longer lens.
_SMALLEST_CUT = 0.62
# Views whose shape is within this factor of the wanted one lose little to the cut.
_SHAPE_FACTOR = 1.5
# Files in a row that may be unreadable before the store is taken for broken.
_BAD_FILES = 20


def default_store(gives: str) -> Path:
    """Where `depth-train scenes` keeps stills (`images`) and `clips` unless a folder is named."""
    return assets_folder().with_name("scene-store") / ("stills" if gives == "images" else "clips")


def packs_of(source: Source) -> Path:
    """The folder of a source.

    Raises:
        ValueError: It holds neither packs nor views.
    """
    root = Path(source.root) if source.root else default_store(source.gives).with_name("packs")
    if not root.is_dir():
        raise ValueError(f"packed: no such folder: {root}; `depth-train pack -o {root}` makes it")
    if not any(root.glob(f"*{SUFFIX}")):
        list_views(root)
    return root


class Cut(NamedTuple):
    """A clip as the pool holds it: uint8 `[T, H, W, 3]`, metres `[T, H, W]`, bool `[T, H, W]`, K `[3, 3]`, poses."""

    rgb: Tensor
    depth_m: Tensor
    valid: Tensor
    K: Tensor
    world_from_camera: Tensor


class RenderedViews:
    """The store's views of enough frames.

    Args:
        root: The store.
        frames: Frames of a clip; stills serve as clips of one frame alone.
        images: Take stills only.

    Raises:
        ValueError: The store is missing or holds no view that is long enough.
    """

    def __init__(self, root: str | Path, frames: int, *, images: bool) -> None:
        folder = Path(root)
        if not folder.is_dir():
            raise ValueError(f"rendered: no such folder: {folder}; `depth-train scenes -o {folder}` makes it")
        wanted = 1 if images else frames
        # A clip that is shorter than wanted is played forth and back; a still is no clip.
        self.views = [view for view in list_views(folder) if wanted == 1 or 2 * view.frames - 1 >= max(wanted, 3)]
        if not self.views:
            raise ValueError(f"rendered: no view of {wanted} frames in {folder}")
        self._frames = wanted
        self._fitting: dict[tuple[int, int], list[StoredView]] = {}

    def draw(self, size: tuple[int, int], rng: np.random.Generator) -> Cut:
        """A clip of this height and width, drawn, cut, and developed at random.

        Raises:
            ValueError: Too many files in a row can't be read.
        """
        fitting = self._fitting.setdefault(size, self._of_shape(size))
        for _ in range(_BAD_FILES):
            stored = fitting[int(rng.integers(len(fitting)))]
            try:
                return cut_view(read_view(stored.path), size, self._frames, rng)
            except ValueError as error:
                warnings.warn(f"left out: {error}", stacklevel=2)
        raise ValueError(f"rendered: {_BAD_FILES} files in a row can't be read, the last one {stored.path}")

    def _of_shape(self, size: tuple[int, int]) -> list[StoredView]:
        wanted = math.log(size[1] / size[0])
        distance = [abs(math.log(view.size[1] / view.size[0]) - wanted) for view in self.views]
        limit = max(math.log(_SHAPE_FACTOR), min(distance) + 1e-6)
        return [view for view, far in zip(self.views, distance, strict=True) if far <= limit]


def cut_view(view: RenderedView, size: tuple[int, int], frames: int, rng: np.random.Generator) -> Cut:
    """Cut a part of the picture, shrink it to `size` and develop it.

    Colours are averaged; depth takes the nearest pixel, so no depth between two things is made up. A view of fewer
    frames than wanted is played forth and then back.
    """
    height, width = view.depth_m.shape[1:]
    fits = min(height / size[0], width / size[1])
    share = rng.uniform(_SMALLEST_CUT, 1.0)
    cut_h, cut_w = (
        min(whole, max(1, round(side * fits * share))) for whole, side in ((height, size[0]), (width, size[1]))
    )
    top, left = int(rng.integers(0, height - cut_h + 1)), int(rng.integers(0, width - cut_w + 1))
    played = forth_and_back(len(view.depth_m), frames)
    first = int(rng.integers(0, len(played) - frames + 1))
    taken = played[first : first + frames]
    light = view.radiance[taken, top : top + cut_h, left : left + cut_w].astype(np.float32)
    how = cv2.INTER_AREA if cut_h >= size[0] else cv2.INTER_LINEAR
    light = np.stack([cv2.resize(frame, (size[1], size[0]), interpolation=how) for frame in light])
    rows = ((np.arange(size[0]) + 0.5) * cut_h / size[0]).astype(int) + top
    columns = ((np.arange(size[1]) + 0.5) * cut_w / size[1]).astype(int) + left
    depth_m = view.depth_m[taken][:, rows][:, :, columns]
    picture = develop(light, depth_m, rng)
    # Pixels of the cut, as pixels of the picture that K belongs to.
    back = np.array([[cut_w / size[1], 0, left], [0, cut_h / size[0], top], [0, 0, 1]])
    return Cut(
        torch.tensor(picture.rgb),
        torch.from_numpy(np.ascontiguousarray(depth_m)),
        torch.from_numpy(picture.valid),
        torch.from_numpy(np.linalg.inv(back) @ view.K),
        torch.from_numpy(view.world_from_camera[taken]),
    )


def forth_and_back(held: int, frames: int) -> list[int]:
    """Indices of a view's `held` frames in the order of play: forth, and if that is fewer than `frames`, back again."""
    forth = list(range(held))
    return forth if held >= frames else forth + forth[-2::-1]
