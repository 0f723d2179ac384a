"""Clips that no training sees, to judge checkpoints by: scenes of reserved seeds, or a data set's held-out split."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from depth_train.config import Source, TrainConfig
from depth_train.data.clip_pool import fit_clip
from depth_train.data.datasets import READERS, DepthClip, DepthDataset, find_reader, open_dataset
from depth_train.data.draws import generator
from depth_train.scenes.procedural.clips import make_clips

if TYPE_CHECKING:
    from torch import Tensor

# The cap of the KITTI protocol (reference: DepthCrafter's and Video Depth Anything's evaluation code); sky is beyond
# it.
MAX_DEPTH_M = 80.0
_FRAMES = 8  # of a clip that a run in progress is judged by, at the most
# Of the scenes that choose the best checkpoint: those from 0 up, on which `depth-train score` reports, must not.
_FIRST_CHOOSING_SEED = 1000


class HeldOutClip(NamedTuple):
    """A clip with the truth.

    Attributes:
        rgb: uint8 `[T, H, W, 3]`.
        depth_m: `[T, H, W]`, planar, metres (about, where the data set has another unit); sky is inf; 0: not known.
        K: `[3, 3]`; nan where cameras are not known.
        world_from_camera: `[T, 4, 4]`, OpenCV axes, metres; nan where cameras are not known.
    """

    rgb: np.ndarray
    depth_m: np.ndarray
    K: np.ndarray
    world_from_camera: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """Bool `[T, H, W]`: where there is depth to compare with."""
        return np.isfinite(self.depth_m) & (self.depth_m > 0)

    @property
    def capped_m(self) -> np.ndarray:
        """Depth for the metrics, which leave out what is beyond `MAX_DEPTH_M`."""
        return np.where(self.known, self.depth_m, MAX_DEPTH_M + 1)


@dataclass(frozen=True)
class HeldOut:
    """Scenes that no training sees: a seed each; training counts from a million.

    Attributes:
        clips: Number of scenes.
        frames: Frames per clip.
        height: Picture height in pixels.
        width: Picture width in pixels.
        first_seed: Of the scenes. Reported scores are from 0 up: to choose between checkpoints, take others.
    """

    clips: int
    frames: int
    height: int
    width: int
    first_seed: int = 0

    def __iter__(self) -> Iterator[HeldOutClip]:
        for number in range(self.clips):
            clip = make_clips([self.first_seed + number], self.frames, self.height, self.width)[0]
            arrays: tuple[Tensor, ...] = (clip.rgb, clip.depth_m, clip.K, clip.world_from_camera)
            yield HeldOutClip(*(array.numpy() for array in arrays))


@dataclass(frozen=True)
class HeldOutSplit:
    """Clips of a data set, evenly spread over it; one that can't be read is told, and the next is taken.

    Attributes:
        dataset: Its length is that of the clips.
        clips: How many, at the most.
        size: Height and width that pictures are shrunk and cut to; None: as they are.
    """

    dataset: DepthDataset
    clips: int
    size: tuple[int, int] | None = None

    @property
    def frames(self) -> int:
        """Frames per clip."""
        return self.dataset.length

    def __iter__(self) -> Iterator[HeldOutClip]:
        count = min(self.clips, len(self.dataset))
        firsts = [len(self.dataset) * number // count for number in range(count + 1)]
        for number, (first, end) in enumerate(zip(firsts[:-1], firsts[1:], strict=True)):
            for index in range(first, end):
                try:
                    yield self._clip(self.dataset[index], number)
                    break
                except ValueError as error:
                    warnings.warn(f"clip {index} is left out: {error}", stacklevel=2)

    def _clip(self, clip: DepthClip, number: int) -> HeldOutClip:
        unit_m = self.dataset.reader.unit_m
        if self.size is not None:
            rgb, depth, valid, _ = fit_clip(clip, *self.size, generator(0, number))
            clip = replace(clip, rgb=rgb.numpy(), depth_m=depth.numpy(), valid=valid.numpy())
        poses = clip.world_from_camera.copy()
        poses[:, :3, 3] *= unit_m
        K = np.full((3, 3), np.nan) if self.size else clip.K  # a picture that was cut has another one
        held = HeldOutClip(clip.rgb, np.where(clip.valid, clip.depth_m * unit_m, 0), K, poses)
        if not (held.known & (held.depth_m < MAX_DEPTH_M)).any():
            raise ValueError(f"{self.dataset.reader.name}: {clip.name}: no depth within {MAX_DEPTH_M:g} m is known")
        return held


def judging_sources(config: TrainConfig) -> list[Source]:
    """Data sets that a run's checkpoints are judged by; none: procedural scenes.

    Those that the config names, or of each one that the run trains on the split `train` of, the split `val`.
    """
    if config.validation.datasets:
        return list(config.validation.datasets)
    trained = [source for source in config.sources if source.name in READERS and source.split == "train"]
    return [replace(source, split="val") for source in trained]


def judging_clips(config: TrainConfig) -> Sequence[HeldOut | HeldOutSplit]:
    """What depth checkpoints of a run are judged by, `validation.clips` in all, in the size of its last stage.

    Raises:
        ValueError: The split of a data set is not there.
    """
    stage, sources = config.stages[-1], judging_sources(config)
    if not config.validation.clips or config.task != "depth":
        return []
    if not sources:
        return [HeldOut(config.validation.clips, _FRAMES, stage.height, stage.width, _FIRST_CHOOSING_SEED)]
    chosen = []
    for place, source in enumerate(sources):
        count = (config.validation.clips - place + len(sources) - 1) // len(sources)
        frames = min(_FRAMES, stage.max_frames) if source.gives == "clips" else 1
        try:
            dataset = open_dataset(source.name, source.root, split=source.split, length=frames)
        except ValueError as error:
            hint = "validation: datasets names other clips to judge by, validation: clips: 0 judges by none"
            raise ValueError(f"{error} (split {source.split}, to judge checkpoints by; {hint})") from error
        if count > 0:
            chosen.append(HeldOutSplit(dataset, count, (stage.height, stage.width)))
    return chosen


def describe_judging(config: TrainConfig) -> str:
    """One line that says what the best checkpoint is chosen by."""
    sources = judging_sources(config)
    by = ", ".join(f"{source.name} ({source.split})" for source in sources) or "procedural scenes"
    clips = f"{config.validation.clips} held-out clip{'s' if config.validation.clips > 1 else ''}"
    return f"checkpoints are judged by {clips} of {by}"


def open_scored(name: str | None, root: Path | None, split: str, frames: int, clips: int) -> HeldOutSplit | None:
    """What `depth-train score --dataset` scores on; None: no data set is named.

    Raises:
        ValueError: One line that names the option.
    """
    if name is None:
        if root is not None:
            raise ValueError("--root: goes with --dataset alone; name the data set")
        return None
    reader = find_reader(name)
    if root is None:
        raise ValueError(f"--root: none is given; give the folder of {name}")
    if split not in reader.splits:
        raise ValueError(f"--split: {split!r} is not one of {', '.join(reader.splits)}")
    dataset = DepthDataset(reader, root, split=split, length=frames)
    return HeldOutSplit(dataset, min(clips, len(dataset)))
