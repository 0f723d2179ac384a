"""Clips with true depth from data sets on disk, all in one form.

Each reader lists frame sequences from the published layout of its data set and loads frames of one; what is common -
clips of a length and stride, checks, errors - is here. Each reader is in a file of its own; `open_dataset` finds them.
"""

from __future__ import annotations

import contextlib
import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# A file of this name in a data set's folder lists frames that are left out: `depth-train inspect` writes it.
SKIP_LIST = "skip.txt"
# Focal lengths and centres of one clip may differ by this share: exported cameras are rounded.
_SAME_LENS = 1e-3

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
    unit_m: float = 1.0  # depth's unit in metres; about, where `metric` is False
    splits: tuple[str, ...] = ("all", "train", "val")

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
        skipped = read_skip_list(root)
        self.sequences = [_without(sequence, skipped) for sequence in reader.sequences(root, split)]
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
        frames = [self.load_frame(sequence, place) for place in places]
        lenses = np.stack([frame.K for frame in frames])
        K = lenses.mean(axis=0)
        if not np.allclose(lenses, K, rtol=_SAME_LENS, equal_nan=True):
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

    def load_frame(self, sequence: FrameSequence, place: int) -> LoadedFrame:
        """Read one frame and see that there is something to learn from.

        Raises:
            ValueError: A file is damaged, picture and depth differ in size, the camera is not finite, no depth is
                known, or picture or depth is the same everywhere; it names the frame.
        """
        name = frame_name(sequence, place)
        with reading(f"{self.reader.name}: {name}"):
            frame = self.reader.load(sequence, place)
        if frame.rgb.shape[:2] != frame.depth_m.shape:
            (height, width), (rows, columns) = frame.rgb.shape[:2], frame.depth_m.shape
            sizes = f"the picture is {width}x{height}, its depth {columns}x{rows}"
            raise ValueError(f"{self.reader.name}: {name}: {sizes}")
        camera = np.isfinite(np.concatenate([frame.K.ravel(), frame.world_from_camera.ravel()]))
        if camera.any() and not camera.all():  # nan alone: cameras are not known
            raise ValueError(f"{self.reader.name}: {name}: the camera is not finite")
        known = frame.depth_m[frame.valid]
        if known.size == 0:
            raise ValueError(f"{self.reader.name}: {name}: no depth is known")
        if frame.rgb.min() == frame.rgb.max():
            raise ValueError(f"{self.reader.name}: {name}: the picture is one colour")
        if frame.valid.all() and known.min() == known.max():
            raise ValueError(f"{self.reader.name}: {name}: depth is the same everywhere")
        return frame


def frame_name(sequence: FrameSequence, place: int) -> str:
    """How a skip list names a frame."""
    return f"{sequence.name} {sequence.numbers[place]}"


def read_skip_list(root: Path) -> frozenset[str]:
    """Names of frames to leave out; none without the file. What follows a tab is why."""
    path = root / SKIP_LIST
    if not path.is_file():
        return frozenset()
    return frozenset(line.split("\t")[0].strip() for line in path.read_text().splitlines() if line.strip())


def _without(sequence: FrameSequence, skipped: frozenset[str]) -> FrameSequence:
    kept = [place for place in range(len(sequence.frames)) if frame_name(sequence, place) not in skipped]
    frames, numbers = sequence.frames, sequence.numbers
    return FrameSequence(sequence.name, tuple(frames[place] for place in kept), tuple(numbers[place] for place in kept))


@contextlib.contextmanager
def reading(what: str | Path) -> Iterator[None]:
    """Name what is read in whatever goes wrong with it: a damaged file shows in as many ways as there are formats.

    Raises:
        ValueError: Anything was raised.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        said = str(error)
        if isinstance(error, ValueError) and str(what) in said:
            raise
        raise ValueError(f"{what}: {said or type(error).__name__}") from error


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
    "folder": "depth_train.data.folder:Folder",
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
    """uint8 `[H, W, 3]`.

    Raises:
        ValueError: The file is damaged.
    """
    with reading(path), Image.open(path) as image:
        return np.array(image.convert("RGB"))


def read_npy(path: Path) -> np.ndarray:
    """float32 `[H, W]`.

    Raises:
        ValueError: The file is damaged, or holds no single map.
    """
    with reading(path):
        values = np.load(path, allow_pickle=False)
        if not isinstance(values, np.ndarray) or values.ndim != 2:
            raise ValueError(f"{path}: no map of one value a pixel")
        return values.astype(np.float32)


def read_exr(path: Path) -> np.ndarray:
    """The one channel of a picture, float32 `[H, W]`.

    Raises:
        ValueError: The file is damaged, or has several channels.
    """
    import OpenEXR

    with reading(path), OpenEXR.File(str(path)) as image:
        channels = image.channels()
        if len(channels) != 1:
            raise ValueError(f"{path}: {len(channels)} channels; expected one")
        return next(iter(channels.values())).pixels.astype(np.float32)


def read_grey(path: Path) -> np.ndarray:
    """Counts of a grey picture of 8 or 16 bits, float32 `[H, W]`.

    Raises:
        ValueError: The file is damaged, or is a picture in colours.
    """
    with reading(path), Image.open(path) as image:
        counts = np.asarray(image)
        if counts.ndim != 2:
            raise ValueError(f"{path}: {counts.ndim} axes; a grey picture of 16 bits is wanted")
        return counts.astype(np.float32)


def pinhole(fx: float, fy: float, cx: float, cy: float) -> np.ndarray:
    """`[3, 3]` intrinsics."""
    return np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], dtype=np.float64)
