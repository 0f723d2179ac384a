"""Packed views held in the memory of the device that trains; batches are cut and developed there.

For a GPU, which takes thousands of pictures a second and can't wait for a disk. One step sees one shape of picture.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from depth_train.config import Source, Stage
from depth_train.data.batch import HIGH_QUANTILE, LOW_QUANTILE, Batch
from depth_train.data.device_camera import DeviceCamera, captions
from depth_train.data.rendered import packs_of
from depth_train.scenes.models.pack import BRIGHTEST, LEVELS, STEEP, SUFFIX, PackedView, code_view, read_pack
from depth_train.scenes.models.store import list_views

# A cut takes this share of what fits, at the least: the rest is a longer lens.
_SMALLEST_CUT = 0.6
# A share of the steps of several frames see a still over which the cut wanders: there are many more stills than clips.
_PANNED = 0.4
_SMALLEST_PANNED_CUT = 0.45
_UNREST = 0.012
# Areas of a step's pictures, in shares of the stage's height times width, and how far their aspect is from the views'.
_LEAST_AREA, _MOST_AREA = 0.6, 1.5
_ASPECT = 0.22
# Views of one size that are fewer than this would be seen too often.
_FEWEST = 32
_CAPTIONS = 256
# Side of the square in which codes that differ by two at the most are one slope.
_SMOOTHED_PX = 9


class _Group(NamedTuple):
    """Views of one size and length: uint8 `[N, T, H, W, 3]`, uint8 `[N, T, H, W]`, float `[N, 2]`, share of draws."""

    light: Tensor
    disparity: Tensor
    log_disparity: Tensor
    weight: float


class ResidentViews:
    """All views of the sources' folders: packs, or stores as `depth-train scenes` writes them.

    Args:
        stage: Sizes; its `shapes`, `pool` and `fresh` have no use here.
        sources: Where they are; a view of a source of weight 2 is seen twice as often as one of weight 1.
        seed: Of the run.
        device: Where.
        share: Which of each folder's packs are read: every process that trains has its own, unless there are fewer.

    Raises:
        ValueError: A folder holds no packs, or none of enough frames.
    """

    def __init__(
        self, stage: Stage, sources: Sequence[Source], seed: int, device: torch.device, share: slice = slice(None)
    ) -> None:
        self.stage, self.loaded = stage, 0
        self._device = device
        groups = [group for source in sources for group in _read_groups(packs_of(source), source.weight, device, share)]
        self._clips = [group for group in groups if group.light.shape[1] > 1]
        # Steps of one frame see every frame of the clips, too.
        self._stills = [_frames_of(group) for group in groups]
        self._camera = DeviceCamera(device, captions(_CAPTIONS, seed))

    def load(self, count: int) -> None:
        """Nothing: all is there."""
        self.loaded += count

    def load_again(self, loaded: int) -> None:
        """Nothing: all is there."""
        self.loaded = loaded

    @torch.no_grad()
    def batch(self, frames: int, count: int, multiple: int, seed: int) -> Batch:
        """Clips, cut, developed and normalised, each step's own.

        Args:
            frames: Of each clip; where no clip of the sources is as long, all are made of stills.
            count: Number of clips.
            multiple: Sides are divisible by it, pixels.
            seed: Decides all draws.
        """
        host = np.random.default_rng(seed)
        rng = torch.Generator(self._device).manual_seed(seed)
        long = [group for group in self._clips if group.light.shape[1] >= frames]
        panned = frames > 1 and (not long or host.random() < _PANNED)
        groups = self._stills if frames == 1 or panned else long
        weights = np.array([group.weight for group in groups])
        group = groups[int(host.choice(len(groups), p=weights / weights.sum()))]
        size = self._draw_size(group, multiple, host)
        chosen = torch.randint(len(group.light), (count,), generator=rng, device=self._device)
        moments = 1 if panned else frames
        at = self._draw_times(group.light.shape[1], moments, count, host)
        codes = group.light[chosen[:, None], at].movedim(-1, 2)  # [B, T, 3, H, W]
        steps = group.disparity[chosen[:, None], at]
        grid = self._draw_grid(group, size, (count, frames if panned else 1), rng)
        light, steps = _sampled(codes, grid, "bilinear"), _sampled(steps[:, :, None], grid, "nearest")[:, :, 0]
        light = torch.expm1(light / 255 * math.log1p(STEEP * BRIGHTEST)) / STEEP
        disparity = _disparity(_without_steps(steps), group.log_disparity[chosen])
        image, valid = self._camera.develop(light, disparity, rng)
        return Batch(image * 2 - 1, normalized_disparity(disparity, valid), valid)

    def _draw_size(self, group: _Group, multiple: int, host: np.random.Generator) -> tuple[int, int]:
        """Height and width of a step's pictures."""
        area = (
            self.stage.height * self.stage.width * math.exp(host.uniform(math.log(_LEAST_AREA), math.log(_MOST_AREA)))
        )
        aspect = group.light.shape[3] / group.light.shape[2] * math.exp(host.uniform(-_ASPECT, _ASPECT))
        sides = math.sqrt(area / aspect), math.sqrt(area * aspect)
        height, width = (max(multiple * 4, round(side / multiple) * multiple) for side in sides)
        return height, width

    def _draw_times(self, held: int, frames: int, count: int, host: np.random.Generator) -> Tensor:
        """Which frames each clip shows, `[count, frames]`: strided, forwards or backwards."""
        longest = max(1, (held - 1) // max(1, frames - 1))
        stride = host.integers(1, min(longest, 3) + 1, count)
        start = host.integers(0, held - (frames - 1) * stride)
        times = start[:, None] + np.arange(frames) * stride[:, None]
        backwards = host.random(count) < 0.5
        times[backwards] = times[backwards, ::-1]
        return torch.from_numpy(times).to(self._device)

    def _draw_grid(self, group: _Group, size: tuple[int, int], shape: tuple[int, int], rng: torch.Generator) -> Tensor:
        """Where the pixels of cuts lie in the view, `[B, T, H, W, 2]` in [-1, 1]; every other clip is mirrored.

        Of T > 1 the cut wanders and zooms over the view, from one draw to another, with a hand's unrest.
        """
        held = group.light.shape[2:4]
        fits = min(held[0] / size[0], held[1] / size[1])
        clips, times = shape
        draws = torch.rand(4, 2, clips, 1, 1, 1, generator=rng, device=self._device)
        unrest = torch.randn(3, clips, times, 1, 1, generator=rng, device=self._device).cumsum(2) * _UNREST
        along = torch.linspace(0, 1, times, device=self._device).view(1, -1, 1, 1)
        least = _SMALLEST_CUT if times == 1 else _SMALLEST_PANNED_CUT
        shares, *ways = (torch.lerp(draws[part, 0], draws[part, 1], along) for part in range(3))
        share = (least + (1 - least) * shares + unrest[2]).clamp(least, 1)
        reach = [size[axis] * fits / held[axis] * share for axis in range(2)]  # of the view's half side
        middle = [((ways[axis] * 2 - 1 + 4 * unrest[axis]).clamp(-1, 1)) * (1 - reach[axis]) for axis in range(2)]
        y, x = ((torch.arange(side, device=self._device) + 0.5) / side * 2 - 1 for side in size)
        mirrored = torch.where(draws[3, 0] < 0.5, -1.0, 1.0)
        rows = (middle[0] + reach[0] * y[:, None]).expand(clips, times, *size)
        columns = (middle[1] + reach[1] * mirrored * x).expand(clips, times, *size)
        return torch.stack([columns, rows], dim=-1)


def _sampled(views: Tensor, grid: Tensor, mode: str) -> Tensor:
    """`[B, T, C, h, w]` at the places `[B, S, H, W, 2]`, float32; T or S is 1, and each meets all of the other."""
    batch, frames, channels, height, width = views.shape
    times = grid.shape[1]
    if times == 1:
        planes = views.reshape(batch, frames * channels, height, width).float()
        out = F.grid_sample(planes, grid[:, 0], mode=mode, padding_mode="border", align_corners=False)
        return out.unflatten(1, (frames, channels))
    planes = views.expand(batch, times, channels, height, width).reshape(-1, channels, height, width).float()
    out = F.grid_sample(planes, grid.flatten(0, 1), mode=mode, padding_mode="border", align_corners=False)
    return out.unflatten(0, (batch, times))


def _without_steps(steps: Tensor) -> Tensor:
    """Codes `[B, T, H, W]` smoothed where they rise evenly: in a small cut a slope shows the steps of eight bits."""
    reach = _SMOOTHED_PX // 2
    planes = steps.flatten(0, 1)[:, None]
    highest, lowest = (sign * F.max_pool2d(sign * planes, _SMOOTHED_PX, 1, reach) for sign in (1, -1))
    mean = F.avg_pool2d(planes, _SMOOTHED_PX, 1, reach, count_include_pad=False)
    even = (highest - lowest <= 2) & (lowest > 0)
    return torch.where(even, mean, planes)[:, 0].view_as(steps)


def _disparity(steps: Tensor, log_disparity: Tensor) -> Tensor:
    """Disparity, 1 / m, of codes `[B, T, H, W]`; 0 is the sky."""
    low, high = log_disparity[:, 0].view(-1, 1, 1, 1), log_disparity[:, 1].view(-1, 1, 1, 1)
    return torch.where(steps > 0, torch.exp(low + (steps - 1) / (LEVELS - 1) * (high - low)), 0.0)


def normalized_disparity(disparity: Tensor, valid: Tensor) -> Tensor:
    """As `normalize` of `batch` for disparity, all clips at once: 2 % and 98 % quantiles at -1 and 1, clipped."""
    some = disparity.masked_fill(~valid, torch.nan)[:, :, ::4, ::4].flatten(1)
    ends = torch.nanquantile(some, some.new_tensor([LOW_QUANTILE, HIGH_QUANTILE]), dim=1)
    low, high = torch.nan_to_num(ends).view(2, -1, 1, 1, 1)
    scaled = ((disparity - low) / (high - low).clamp_min(1e-6)).clamp(0, 1) * 2 - 1
    return scaled.masked_fill(~valid, -1)


def _read_groups(root: Path, weight: float, device: torch.device, share: slice) -> list[_Group]:
    """Views grouped by size and length."""
    packs = sorted(root.glob(f"*{SUFFIX}"))
    packs = packs[share] or packs
    held: dict[tuple[int, ...], list[PackedView]] = {}
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        if packs:
            parts = pool.map(read_pack, packs)
        else:
            paths = [view.path for view in list_views(root)]
            parts = ([view] for view in pool.map(code_view, paths[share] or paths, chunksize=8))
        for views in parts:
            for view in views:
                held.setdefault(view.disparity.shape, []).append(view)
    large = [views for views in held.values() if len(views) >= _FEWEST]
    return [_stacked(views, weight, device) for views in large or held.values()]


def _stacked(views: list[PackedView], weight: float, device: torch.device) -> _Group:
    light = torch.from_numpy(np.stack([view.light for view in views])).to(device)
    disparity = torch.from_numpy(np.stack([view.disparity for view in views])).to(device)
    ranges = torch.tensor([view.log_disparity for view in views], device=device)
    return _Group(light, disparity, ranges, weight * len(views))


def _frames_of(group: _Group) -> _Group:
    """Every frame of clips as a view of its own; no copy. Frames of a clip are alike, so it counts less than they."""
    frames = group.light.shape[1]
    return _Group(
        group.light.flatten(0, 1)[:, None],
        group.disparity.flatten(0, 1)[:, None],
        group.log_disparity.repeat_interleave(frames, dim=0),
        group.weight * math.sqrt(frames),
    )
