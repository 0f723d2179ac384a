"""The size that a model works at: frames shrunk to it, depth brought back from it. Nothing else resizes for a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

import numpy as np
import torch.nn.functional as F
from torch import Tensor


class ModelSize(NamedTuple):
    """Source size and the size that the model works at, in pixels; `shrink` and `restore` undo each other's size."""

    height: int
    width: int
    model_height: int
    model_width: int

    def shrink(self, rgb: Tensor) -> Tensor:
        """uint8 or float RGB `[T, 3, height, width]` -> `[T, 3, model_height, model_width]`, antialiased."""
        if (self.height, self.width) == (self.model_height, self.model_width):
            return rgb
        return F.interpolate(rgb, (self.model_height, self.model_width), mode="bilinear", antialias=True)

    def restore(self, depth: Tensor) -> Tensor:
        """Depth `[T, model_height, model_width]` -> `[T, height, width]`."""
        if (self.height, self.width) == (self.model_height, self.model_width):
            return depth
        return F.interpolate(depth.unsqueeze(1), (self.height, self.width), mode="bilinear").squeeze(1)


class Resizer(Protocol):
    """How a model takes up frames and gives back depth: see `contract.DepthNetwork`."""

    def prepare(self, frame: Tensor, size: ModelSize) -> Tensor:
        """A frame `[3, height, width]` as the model takes it up."""
        ...

    def restore(self, depth: Tensor, size: ModelSize) -> Tensor:
        """Depth `[n, h, w]` at the frames' size."""
        ...


class SizedFrames:
    """Marked frames on their way to a model, prepared one by one: a window of large frames would not fit in memory.

    Args:
        marked: Frames `[3, height, width]`, with True where a shot starts.
        fit: Height and width of the first frame -> size to work at.
        resizer: Brings frames to that size, and depth back from it.
    """

    def __init__(
        self, marked: Iterable[tuple[Tensor, bool]], fit: Callable[[int, int], ModelSize], resizer: Resizer
    ) -> None:
        self._marked, self._fit, self._resizer = marked, fit, resizer
        self._size: ModelSize | None = None

    def __iter__(self) -> Iterator[tuple[Tensor, bool]]:
        for frame, starts in self._marked:
            self._size = self._size or self._fit(*frame.shape[-2:])
            yield self._resizer.prepare(frame, self._size), starts

    @property
    def size(self) -> ModelSize:
        """Known once the first frame was taken."""
        if self._size is None:
            raise ValueError("frames: none was taken yet, so their size is not known")
        return self._size

    def restore(self, depth: Tensor) -> Iterator[np.ndarray]:
        """Depth `[n, h, w]` of the model at the frames' size, float32 `[H, W]`, one at a time."""
        for frame in depth.split(1) if len(depth) else ():
            yield self._resizer.restore(frame, self.size)[0].numpy()


def fit_size(
    height: int, width: int, multiple: int, max_res: int | None = None, area_px: int | None = None
) -> ModelSize:
    """The size to run the model at: never larger than the source but for rounding, both sides multiples of `multiple`.

    Args:
        height: Source height in pixels.
        width: Source width in pixels.
        multiple: What the model's sides must be divisible by.
        max_res: Longest side in pixels at the most, or None.
        area_px: Number of pixels, about, or None: a wide picture and a tall one then show the model things as large.
    """
    scale = min(1.0, max_res / max(height, width)) if max_res else 1.0
    if area_px:
        scale = min(scale, math.sqrt(area_px / (height * width)))

    def side(length: int) -> int:
        rounded = max(1, round(length * scale / multiple)) * multiple
        # Rounding up must not pass the limit that the caller set, unless one multiple already does.
        return rounded - multiple if max_res and rounded > max(max_res, multiple) else rounded

    return ModelSize(height, width, side(height), side(width))
