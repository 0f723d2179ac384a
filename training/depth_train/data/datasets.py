"""Clips with true depth from data sets on disk, all in one form.

Each reader lists frame sequences from the published layout of its data set and loads frames of one; what is common -
clips of a length and stride, checks, errors - is here. The readers are in `dataset_*.py`; `open_dataset` finds them.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])  # y up, z backward -> y down, z forward; its own inverse


@dataclass(frozen=True)
class DepthClip:
    """Frames with the truth behind them.

    Attributes:
        rgb: uint8 `[T, H, W, 3]`.
        depth_m: float32 `[T, H, W]`, planar depth; sky is inf. Metres, or the data set's unit where `metric` is False.
            0 where it is not valid.
        valid: bool `[T, H, W]`: where the truth is known. Sky is: infinitely far.
        K: float64 `[3, 3]`, pixels, pixel centres at +0.5.
        world_from_camera: float64 `[T, 4, 4]`, OpenCV axes, same unit as depth.
        metric: Whether the unit is metres.
        name: Where it comes from: sequence and frames.
    """

    rgb: np.ndarray
    depth_m: np.ndarray
    valid: np.ndarray
    K: np.ndarray
    world_from_camera: np.ndarray
    metric: bool
    name: str


@dataclass(frozen=True)
class LoadedFrame:
    """One frame as a reader gives it; the fields are a `DepthClip`'s without the first axis."""

    rgb: np.ndarray
    depth_m: np.ndarray
    valid: np.ndarray
    K: np.ndarray
    world_from_camera: np.ndarray


@dataclass(frozen=True)
class FrameSequence:
    """Frames of one camera path.

    Attributes:
        name: Relative to the data set's folder.
        frames: What the reader needs for each frame, in order of time.
        numbers: Their numbers in the recording, rising; where one is missing, no clip runs across.
    """

    name: str
    frames: tuple[Any, ...]
    numbers: tuple[int, ...]


class DatasetReader(ABC):
    """What a data set's layout is."""

    name: str
    licence: str
    metric = True
    splits: tuple[str, ...] = ("all",)

    @abstractmethod
    def sequences(self, root: Path, split: str) -> list[FrameSequence]:
        """List what is there; frames that lack a file are left out.

        Raises:
            ValueError: One line that says what was expected where.
        """

    @abstractmethod
    def load(self, sequence: FrameSequence, index: int) -> LoadedFrame:
        """Read one frame."""


class DepthDataset:
    """Clips of a data set, by number.

    Args:
        reader: Knows the layout.
        root: The data set's folder.
        split: One of the reader's splits.
        length: Frames per clip.
        stride: Distance of a clip's frames in the recording.
        step: Distance of the first frames of neighbouring clips; default: clips do not share frames.

    Raises:
        ValueError: An argument is out of range, the folder does not look like the data set, or no sequence is as long
            as a clip.
    """

    def __init__(
        self,
        reader: DatasetReader,
        root: str | Path,
        *,
        split: str = "all",
        length: int = 1,
        stride: int = 1,
        step: int | None = None,
    ) -> None:
        for name, value in (("length", length), ("stride", stride), ("step", step or 1)):
            if value < 1:
                raise ValueError(f"{name}: {value} is not accepted; give a number from 1 up")
        if split not in reader.splits:
            raise ValueError(f"split: {split!r} is not one of {', '.join(reader.splits)}")
        root = Path(root)
        if not root.is_dir():
            raise ValueError(f"{reader.name}: {root} is no folder")
        self.reader, self.root, self.length, self.stride = reader, root, length, stride
        self.sequences = reader.sequences(root, split)
        self._clips = [
            (number, places)
            for number, sequence in enumerate(self.sequences)
            for places in _evenly_spaced(sequence.numbers, length, stride, step or (length - 1) * stride + 1)
        ]
        if not self._clips:
            longest = max((len(sequence.frames) for sequence in self.sequences), default=0)
            raise ValueError(
                f"{reader.name}: no clip of {length} frames at stride {stride} in {root}: the longest of "
                f"{len(self.sequences)} sequences has {longest} whole frames"
            )

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> DepthClip:
        number, places = self._clips[index]
        sequence = self.sequences[number]
        frames = [self.reader.load(sequence, place) for place in places]
        K = frames[0].K
        if any(not np.array_equal(frame.K, K) for frame in frames):
            raise ValueError(f"{self.reader.name}: {sequence.name}: the camera zooms; one K per clip is wanted")
        return DepthClip(
            rgb=np.stack([frame.rgb for frame in frames]),
            depth_m=np.stack([np.where(frame.valid, frame.depth_m, 0).astype(np.float32) for frame in frames]),
            valid=np.stack([frame.valid for frame in frames]),
            K=K,
            world_from_camera=np.stack([frame.world_from_camera for frame in frames]),
            metric=self.reader.metric,
            name=f"{sequence.name} frames {sequence.numbers[places[0]]}-{sequence.numbers[places[-1]]}",
        )


def _evenly_spaced(numbers: Sequence[int], length: int, stride: int, step: int) -> Iterator[list[int]]:
    """Places in `numbers` of clips whose frames are all there; the next begins `step` later, or as soon as one can."""
    place_of = {number: place for place, number in enumerate(numbers)}
    earliest = numbers[0] if numbers else 0
    for start in numbers:
        wanted = [start + i * stride for i in range(length)]
        if start >= earliest and all(number in place_of for number in wanted):
            yield [place_of[number] for number in wanted]
            earliest = start + step


READERS = {
    "hypersim": "depth_train.data.hypersim:Hypersim",
    "tartanair": "depth_train.data.tartanair:TartanAir",
    "vkitti2": "depth_train.data.vkitti2:VirtualKitti2",
    "mvs-synth": "depth_train.data.mvs_synth:MvsSynth",
    "procedural": "depth_train.data.procedural:Procedural",
}


def find_reader(name: str) -> DatasetReader:
    """The reader of a data set by its name.

    Raises:
        ValueError: The name is unknown.
    """
    from depth_engine.checks import known_name

    module, reader = READERS[known_name("dataset", name, READERS)].split(":")
    return getattr(importlib.import_module(module), reader)()


def open_dataset(name: str, root: str | Path, **options: Any) -> DepthDataset:
    """A data set by its name; options as for `DepthDataset`.

    Raises:
        ValueError: The name is unknown, or as `DepthDataset`.
    """
    return DepthDataset(find_reader(name), root, **options)


def expect(reader: DatasetReader, found: Sequence[Any] | bool, what: str, root: Path) -> None:
    """Refuse a folder that does not look like the data set.

    Raises:
        ValueError: One line with what was expected.
    """
    if not found:
        raise ValueError(f"{reader.name}: expected {what} under {root}; found none")


def read_rgb(path: Path) -> np.ndarray:
    """uint8 `[H, W, 3]`."""
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def pinhole(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """`[3, 3]` intrinsics."""
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=np.float64)
