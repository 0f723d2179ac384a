"""TartanAir (castacks/tartanair_tools, data_type.md): simulated flights, 640x480, planar depth in metres."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from depth_train.data.datasets import (
    DatasetReader,
    FrameSequence,
    LoadedFrame,
    expect,
    pinhole,
    read_npy,
    read_rgb,
    reading,
)

# Sky is stored as about 10,000 m; nothing that was modelled is half as far.
_SKY_M = 5000.0

# NED (x forward, y right, z down) -> OpenCV (x right, y down, z forward), as a permutation of axes.
_OPENCV_FROM_NED = np.eye(4)[[1, 2, 0, 3]]

# The data set has no split of its own; these flights are the ones that the field holds out (since DROID-SLAM,
# arXiv 2108.10869).
_HELD_OUT = frozenset(
    f"{environment}/{flight}"
    for environment, flights in {
        "abandonedfactory": "Easy/P011 Hard/P011",
        "abandonedfactory_night": "Easy/P013 Hard/P014",
        "amusement": "Easy/P008 Hard/P007",
        "carwelding": "Easy/P007",
        "endofworld": "Easy/P009",
        "gascola": "Easy/P008 Hard/P009",
        "hospital": "Easy/P036 Hard/P049",
        "japanesealley": "Easy/P007 Hard/P005",
        "neighborhood": "Easy/P021 Hard/P017",
        "ocean": "Easy/P013 Hard/P009",
        "office": "Hard/P007",
        "office2": "Easy/P011 Hard/P010",
        "oldtown": "Easy/P007 Hard/P008",
        "seasidetown": "Easy/P009",
        "seasonsforest": "Easy/P011 Hard/P006",
        "seasonsforest_winter": "Easy/P009 Hard/P018",
        "soulcity": "Easy/P012 Hard/P009",
        "westerndesert": "Easy/P013 Hard/P007",
    }.items()
    for flight in flights.split()
)


class TartanAir(DatasetReader):
    """`<env>/{Easy,Hard}/P000/{image_left,depth_left,pose_left.txt}`; archives add a second `<env>` folder.

    `val` are the 32 flights that the field holds out, `train` the others.
    """

    name = "tartanair"
    licence = "CC BY 4.0"
    splits = ("all", "easy", "hard", "train", "val")

    def sequences(self, root: Path, split: str) -> list[FrameSequence]:
        """List flights with pictures, depth and poses."""
        found = []
        for poses in sorted(root.rglob("pose_left.txt")):
            folder = poses.parent
            if not _is_in(folder, split):
                continue
            try:
                matrices = _read_poses(poses)
            except ValueError as error:
                warnings.warn(f"{error}; its flight is left out", stacklevel=2)
                continue
            if (pictures := len(list(folder.glob("image_left/*_left.png")))) > len(matrices):
                told = f"{len(matrices)} poses for {pictures} pictures; those without one are left out"
                warnings.warn(f"tartanair: {poses}: {told}", stacklevel=2)
            frames, numbers = [], []
            for index, pose in enumerate(matrices):
                rgb = folder / "image_left" / f"{index:06d}_left.png"
                depth = folder / "depth_left" / f"{index:06d}_left_depth.npy"
                if rgb.is_file() and depth.is_file():
                    frames.append((rgb, depth, pose))
                    numbers.append(index)
            if frames:
                found.append(FrameSequence(str(folder.relative_to(root)), tuple(frames), tuple(numbers)))
        expect(
            self,
            found,
            f"<env>/{{Easy,Hard}}/P000 of split {split} with image_left/, depth_left/ and pose_left.txt",
            root,
        )
        return found

    def load(self, sequence: FrameSequence, index: int) -> LoadedFrame:
        """Read a picture, its depth and its pose."""
        rgb_path, depth_path, pose = sequence.frames[index]
        rgb = read_rgb(rgb_path)
        depth_m = read_npy(depth_path)
        valid = np.isfinite(depth_m) & (depth_m > 0)
        depth_m = np.where(depth_m >= _SKY_M, np.float32(np.inf), depth_m)
        height, width = rgb.shape[:2]
        # A field of view of 90 degrees: half a width of focal length (320 px at 640x480).
        K = pinhole(width / 2, width / 2, width / 2, height / 2)
        return LoadedFrame(rgb, depth_m, valid, K, pose)


def _is_in(flight: Path, split: str) -> bool:
    """Whether a flight, `<env>/Easy/P000`, belongs to a split."""
    if split in ("train", "val"):
        return ("/".join(flight.parts[-3:]) in _HELD_OUT) == (split == "val")
    return split in ("all", flight.parent.name.lower())


def _read_poses(path: Path) -> np.ndarray:
    """World from camera in OpenCV axes, `[N, 4, 4]`, of lines `tx ty tz qx qy qz qw` in NED."""
    with reading(f"tartanair: {path}"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the file is empty: told below
        rows = np.loadtxt(path, ndmin=2)
    if rows.shape[1] != 7:
        raise ValueError(f"tartanair: {path}: {rows.shape[1]} numbers in a line; expected tx ty tz qx qy qz qw")
    x, y, z, w = (rows[:, 3:] / np.linalg.norm(rows[:, 3:], axis=1, keepdims=True)).T
    poses = np.tile(np.eye(4), (len(rows), 1, 1))
    poses[:, :3, :3] = np.stack(
        [
            np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)], axis=-1),
            np.stack([2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)], axis=-1),
            np.stack([2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)], axis=-1),
        ],
        axis=-2,
    )
    poses[:, :3, 3] = rows[:, :3]
    return _OPENCV_FROM_NED @ poses @ _OPENCV_FROM_NED.T
