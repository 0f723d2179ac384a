"""Clips held in memory and reused a few times: rendered, or read from data sets."""

from __future__ import annotations

import bisect
import itertools
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from depth_engine.devices import yield_cores
from depth_train.config import Source, Stage, TrainConfig
from depth_train.data.datasets import DepthClip, DepthDataset, open_dataset
from depth_train.data.draws import generator, uniform, whole
from depth_train.scenes.procedural.clips import FIRST_TRAINING_SEED, make_clips

if TYPE_CHECKING:
    from depth_train.data.rendered import RenderedViews

# Keys the draws of what is loaded apart from the draws of steps.
_LOADING = 2**31 - 2
# Files of so many clips are read at once, at the most.
_MOST_READERS = 8
# Clips in a row that may be unreadable before the data set is taken for broken.
_BAD_CLIPS = 20


class Clips(NamedTuple):
    """A batch of clips with the truth.

    Attributes:
        rgb: uint8 `[B, T, H, W, 3]`.
        depth_m: `[B, T, H, W]`, planar; sky is inf.
        valid: bool `[B, T, H, W]`: where the truth is known.
        world_from_pixel: float32 `[B, T, 3, 4]`: pose times inverse intrinsics, `[R K^-1 | t]`, of this picture's
            pixels (centres at +0.5); nan where cameras are not known.
    """

    rgb: Tensor
    depth_m: Tensor
    valid: Tensor
    world_from_pixel: Tensor


class ClipPool:
    """The newest `stage.pool` clips; what it holds depends on how many were loaded, and on nothing else.

    Args:
        stage: Sizes.
        seed: Runs of other seeds see other scenes and another order.
        sources: Where clips come from.
        device: Where scenes are rendered and batches go.
        place: Which of several pools of one run this is; they share the run's numbers evenly.
        places: How many there are.

    Raises:
        ValueError: A source's folder does not hold what it should.
    """

    def __init__(
        self,
        stage: Stage,
        seed: int,
        sources: Sequence[Source],
        device: torch.device,
        place: int = 0,
        places: int = 1,
    ) -> None:
        self.stage, self.seed, self.device = stage, seed, device
        self.loaded = 0
        self._place, self._places = place, places
        shape = (stage.pool, stage.clip_frames, stage.height, stage.width)
        self._rgb = torch.zeros(*shape, 3, dtype=torch.uint8)
        self._depth_m = torch.zeros(*shape, dtype=torch.float32)
        self._valid = torch.zeros(*shape, dtype=torch.bool)
        self._cameras = torch.full((*shape[:2], 3, 4), torch.nan)
        self._moves = torch.ones(stage.pool, dtype=torch.bool)  # False: one frame, held as often as a clip has frames
        self._sources = list(sources)
        # A million scenes to each seed, counted from the first training seed.
        self._first_seed = FIRST_TRAINING_SEED * (1 + seed)
        self._shares = list(itertools.accumulate(source.weight for source in sources))
        self._datasets = [None if source.name == "procedural" else _open(source, stage) for source in sources]
        self._readers = ThreadPoolExecutor(count_readers(), "reader", initializer=yield_cores)

    def load(self, count: int) -> None:
        """Load `count` more clips."""
        while count > self.stage.pool:  # no slot twice at once
            self.load(self.stage.pool)
            count -= self.stage.pool
        numbers = range(self.loaded, self.loaded + count)
        chosen = {number: self._choose(number) for number in numbers}
        rendered = [number for number in numbers if self._datasets[chosen[number]] is None]
        for first in range(0, len(rendered), 8):
            self._render(rendered[first : first + 8])
        # Each clip is drawn by its own number and lies in a slot of its own: which is read first does not matter.
        list(self._readers.map(lambda number: self._read(number, self._datasets[chosen[number]]), numbers))
        for number in numbers:
            self._moves[number % self.stage.pool] = self._sources[chosen[number]].gives == "clips"
        self.loaded += count

    def load_again(self, loaded: int) -> None:
        """Load what a pool holds after so many clips."""
        self.loaded = max(0, loaded - self.stage.pool)
        self.load(loaded - self.loaded)

    def draw(self, frames: int, rngs: Sequence[torch.Generator]) -> Clips:
        """A clip for each generator, strided and perhaps reversed."""
        usable = torch.arange(min(self.loaded, self.stage.pool))
        if frames > 1 and self._moves[usable].any():
            usable = usable[self._moves[usable]]
        parts = []
        for rng in rngs:
            index = usable[whole(rng, 0, len(usable) - 1)]
            longest_stride = max(1, (self.stage.clip_frames - 1) // max(1, frames - 1))
            stride = whole(rng, 1, min(longest_stride, 3))
            start = whole(rng, 0, self.stage.clip_frames - (frames - 1) * stride - 1)
            places = torch.arange(frames) * stride + start
            if uniform(rng) < 0.5:
                places = places.flip(0)
            parts.append(tuple(held[index, places] for held in self._held()))
        return Clips(*(torch.stack(part).to(self.device) for part in zip(*parts, strict=True)))

    def _held(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """In the order of `Clips`."""
        return self._rgb, self._depth_m, self._valid, self._cameras

    def _choose(self, number: int) -> int:
        """Which source a clip comes from."""
        if len(self._shares) == 1:
            return 0
        share = uniform(self._generator(number), 0, self._shares[-1])
        return min(bisect.bisect(self._shares, share), len(self._shares) - 1)

    def _generator(self, number: int) -> torch.Generator:
        """What decides a clip: its number among those of all pools of the run."""
        return generator(self.seed, number * self._places + self._place, _LOADING)

    def _render(self, numbers: Sequence[int]) -> None:
        stage = self.stage
        seeds = [self._first_seed + number * self._places + self._place for number in numbers]
        clips = make_clips(seeds, stage.clip_frames, stage.height, stage.width, device=str(self.device))
        slots = torch.tensor([number % stage.pool for number in numbers])
        self._rgb[slots], self._depth_m[slots] = clips.rgb.cpu(), clips.depth_m.cpu()
        self._valid[slots] = True
        cameras = [world_from_pixel(K, poses) for K, poses in zip(clips.K, clips.world_from_camera, strict=True)]
        self._cameras[slots] = torch.stack(cameras).cpu()

    def _read(self, number: int, dataset: DepthDataset | RenderedViews | None) -> None:
        """Read a clip of a data set or of a store; a scene of the source without either is rendered elsewhere."""
        if isinstance(dataset, DepthDataset):
            self._read_clip(number, dataset)
        elif dataset is not None:
            self._develop(number, dataset)

    def _read_clip(self, number: int, dataset: DepthDataset) -> None:
        rng = self._generator(number)
        uniform(rng)  # the source's
        clip = fit_clip(_read_whole(dataset, rng), self.stage.height, self.stage.width, rng)
        slot = number % self.stage.pool
        for held, values in zip(self._held(), clip, strict=True):
            held[slot] = values

    def _develop(self, number: int, views: RenderedViews) -> None:
        rng = self._generator(number)
        uniform(rng)  # the source's
        cut = views.draw((self.stage.height, self.stage.width), np.random.default_rng(whole(rng, 0, 2**31 - 1)))
        slot = number % self.stage.pool
        cameras = world_from_pixel(cut.K, cut.world_from_camera)
        for held, values in zip(self._held(), (cut.rgb, cut.depth_m, cut.valid, cameras), strict=True):
            held[slot] = values  # one frame is held as often as a clip has frames


class ShapedPools:
    """A `ClipPool` for each picture shape of a stage; clips are loaded for one shape after the other.

    Args:
        stage: Its `shapes`, or its one height and width.
        seed: As for `ClipPool`.
        sources: As for `ClipPool`.
        device: As for `ClipPool`.
        process: Which of the processes that train together this is: each loads clips that no other one does.
        processes: How many there are.
    """

    def __init__(
        self,
        stage: Stage,
        seed: int,
        sources: Sequence[Source],
        device: torch.device,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        shapes = stage.shapes or ((stage.height, stage.width),)
        self.stage, self.loaded = stage, 0
        share, places = max(1, stage.pool // len(shapes)), len(shapes) * processes
        self.pools = [
            ClipPool(replace(stage, height=height, width=width, pool=share), seed, sources, device, place, places)
            for place, (height, width) in enumerate(shapes, process * len(shapes))
        ]

    def load(self, count: int) -> None:
        """Load `count` more clips."""
        self.loaded += count
        for pool in self.pools:
            pool.load(self._share(pool) - pool.loaded)

    def load_again(self, loaded: int) -> None:
        """Load what the pools hold after so many clips."""
        self.loaded = loaded
        for pool in self.pools:
            pool.load_again(self._share(pool))

    def draw(self, shape: int, frames: int, rngs: Sequence[torch.Generator]) -> Clips:
        """Clips of one shape, by its number; see `ClipPool.draw`."""
        return self.pools[shape].draw(frames, rngs)

    def _share(self, pool: ClipPool) -> int:
        """How many of the clips loaded so far are this pool's."""
        place, count = self.pools.index(pool), len(self.pools)
        return (self.loaded - place + count - 1) // count


def count_readers() -> int:
    """Threads that read the files of clips in this process: the machine's cores, shared with those beside it."""
    beside = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(_MOST_READERS, (os.cpu_count() or 1) // beside))


def _read_whole(dataset: DepthDataset, rng: torch.Generator) -> DepthClip:
    """A random clip; warns about one that can't be read and takes another, so that a single bad file ends no run."""
    for _ in range(_BAD_CLIPS):
        index = whole(rng, 0, len(dataset) - 1)
        try:
            return dataset[index]
        except ValueError as error:
            warnings.warn(f"clip {index} is left out: {error}", stacklevel=2)
    raise ValueError(f"{dataset.reader.name}: {_BAD_CLIPS} clips in a row can't be read in {dataset.root}")


def check_sources(config: TrainConfig) -> None:
    """Open the data sets of every stage, so that a wrong folder is named before weights load.

    Raises:
        ValueError: A source's folder does not hold what it should.
    """
    for stage in config.stages:
        for source in config.sources:
            if source.name == "packed":
                from depth_train.data.rendered import packs_of

                packs_of(source)
            elif source.name != "procedural":
                _open(source, stage)
            elif source.split != "all":
                raise ValueError(
                    f"sources: split: {source.split!r} of the procedural scenes is not accepted; leave it out: a run "
                    "trains on scenes of its own seed"
                )


def _open(source: Source, stage: Stage) -> DepthDataset | RenderedViews:
    if source.name == "rendered":
        from depth_train.data.rendered import RenderedViews, default_store  # OpenCV, which plain runs do without

        return RenderedViews(
            source.root or default_store(source.gives), stage.clip_frames, images=source.gives == "images"
        )
    return open_dataset(
        source.name,
        source.root,
        split=source.split,
        length=stage.clip_frames if source.gives == "clips" else 1,
        step=source.step or None,
    )


def world_from_pixel(K: Tensor, world_from_camera: Tensor) -> Tensor:
    """`[T, 3, 4]` float32: [R K^-1 | t], so that a point is R K^-1 (u, v, 1) depth + t.

    Args:
        K: `[3, 3]`.
        world_from_camera: `[T, 4, 4]`.
    """
    turn = world_from_camera[:, :3, :3].double() @ torch.linalg.inv(K.double())
    return torch.cat([turn, world_from_camera[:, :3, 3:].double()], dim=2).float()


def fit_clip(clip: DepthClip, height: int, width: int, rng: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shrink a clip so that it just covers `height` x `width`, and cut that at a random place.

    Colours are averaged; depth and its mask take the nearest pixel, so no depth between two things is made up.

    Returns:
        uint8 `[T, height, width, 3]`, float32 `[T, height, width]`, bool `[T, height, width]`, float32 `[T, 3, 4]`: the
        fields of `Clips`.
    """
    frames, held_height, held_width = clip.depth_m.shape
    scale = max(height / held_height, width / held_width)
    size = max(height, round(held_height * scale)), max(width, round(held_width * scale))
    rgb = torch.from_numpy(np.ascontiguousarray(clip.rgb)).movedim(-1, 1)
    if size != (held_height, held_width):
        rgb = F.interpolate(rgb, size, mode="bilinear", antialias=True)
    rows = ((torch.arange(size[0]) + 0.5) * held_height / size[0]).long()
    columns = ((torch.arange(size[1]) + 0.5) * held_width / size[1]).long()
    top, left = whole(rng, 0, size[0] - height), whole(rng, 0, size[1] - width)
    cut = slice(top, top + height), slice(left, left + width)
    depth_m, valid = (
        torch.from_numpy(np.ascontiguousarray(values))[:, rows[cut[0]]][:, :, columns[cut[1]]]
        for values in (clip.depth_m, clip.valid)
    )
    cameras = torch.full((frames, 3, 4), torch.nan)
    if np.isfinite(clip.K).all() and np.isfinite(clip.world_from_camera).all():
        # Pixels of the cut, as pixels of the picture that K belongs to.
        back = torch.tensor(
            [
                [held_width / size[1], 0, left * held_width / size[1]],
                [0, held_height / size[0], top * held_height / size[0]],
                [0, 0, 1],
            ],
            dtype=torch.float64,
        )
        K = torch.linalg.inv(torch.linalg.inv(torch.as_tensor(clip.K).double()) @ back)
        cameras = world_from_pixel(K, torch.as_tensor(clip.world_from_camera))
    return rgb[..., cut[0], cut[1]].movedim(1, -1), depth_m, valid, cameras
