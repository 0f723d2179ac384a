"""Virtual KITTI 2 (Naver Labs): drives in 10 variations, 1242x375, planar depth as 16-bit PNG in centimetres."""

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
    read_grey,
    read_rgb,
    reading,
)

# The data set has no split of its own; ChronoDepth trains on four of its five scenes, this one held out here.
_HELD_OUT = "Scene06"
_SKY_CM = 65500  # sky is 65535; published readers drop from 655 m on


class VirtualKitti2(DatasetReader):
    """`SceneXX/<variation>/{frames/{rgb,depth}/Camera_{0,1},intrinsic.txt,extrinsic.txt}`.

    `val` is Scene06 in all its variations, `train` the other four scenes.
    """

    name = "vkitti2"
    licence = "CC BY-NC-SA 3.0"

    def sequences(self, root: Path, split: str) -> list[FrameSequence]:
        """List one sequence per scene, variation and camera."""
        found = []
        for depth_folder in sorted(root.glob("Scene*/*/frames/depth/Camera_*")):
            variation, camera = depth_folder.parents[2], int(depth_folder.name.removeprefix("Camera_"))
            if split != "all" and (variation.parent.name == _HELD_OUT) != (split == "val"):
                continue
            try:
                intrinsics = _read_table(variation / "intrinsic.txt", 4)
                extrinsics = _read_table(variation / "extrinsic.txt", 16)
            except ValueError as error:
                warnings.warn(f"{error}; {depth_folder} is left out", stacklevel=2)
                continue
            frames, numbers, without_camera = [], [], 0
            for depth in sorted(depth_folder.glob("depth_*.png")):
                number = int(depth.stem.removeprefix("depth_"))
                rgb = variation / "frames" / "rgb" / depth_folder.name / f"rgb_{number:05d}.jpg"
                if (number, camera) not in intrinsics or (number, camera) not in extrinsics:
                    without_camera += 1
                elif rgb.is_file():
                    frames.append((rgb, depth, intrinsics[number, camera], extrinsics[number, camera]))
                    numbers.append(number)
            if without_camera:
                told = f"{without_camera} frames without a camera in intrinsic.txt and extrinsic.txt are left out"
                warnings.warn(f"vkitti2: {depth_folder}: {told}", stacklevel=2)
            if frames:
                name = f"{variation.relative_to(root)}/{depth_folder.name}"
                found.append(FrameSequence(name, tuple(frames), tuple(numbers)))
        expect(
            self,
            found,
            f"SceneXX/<variation>/frames/{{rgb,depth}}/Camera_0 of split {split} with intrinsic.txt and extrinsic.txt",
            root,
        )
        return found

    def load(self, sequence: FrameSequence, index: int) -> LoadedFrame:
        """Read a picture, its depth, its camera."""
        rgb_path, depth_path, (fx, fy, cx, cy), camera_from_world = sequence.frames[index]
        depth_cm = read_grey(depth_path)
        depth_m = np.where(depth_cm >= _SKY_CM, np.float32(np.inf), depth_cm / 100)
        # The published centre of 1242x375 is (620.5, 187): pixel centres at whole numbers.
        K = pinhole(fx, fy, cx + 0.5, cy + 0.5)
        return LoadedFrame(
            read_rgb(rgb_path), depth_m, depth_cm > 0, K, np.linalg.inv(np.reshape(camera_from_world, (4, 4)))
        )


def _read_table(path: Path, columns: int) -> dict[tuple[int, int], np.ndarray]:
    """Numbers by (frame, camera) of a text table with a header line."""
    if not path.is_file():
        raise ValueError(f"vkitti2: expected {path.name} in {path.parent}; found none")
    with reading(f"vkitti2: {path}"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the file is empty: told below
        table = np.loadtxt(path, skiprows=1, ndmin=2)
    if table.shape[1] != 2 + columns:
        raise ValueError(f"vkitti2: {path}: {table.shape[1]} columns; expected frame, cameraID and {columns} numbers")
    return {(int(row[0]), int(row[1])): row[2:] for row in table}
