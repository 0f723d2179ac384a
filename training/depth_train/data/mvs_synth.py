"""MVS-Synth (phuang17): city drives of a video game, 100 frames each, planar depth as EXR, unit about 0.1 m."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from depth_train.data.datasets import (
    DatasetReader,
    FrameSequence,
    LoadedFrame,
    expect,
    pinhole,
    read_exr,
    read_rgb,
    reading,
)

# The stored world is left-handed, the camera's axes are OpenCV's: mirroring an axis of the world makes the pose a
# rotation and leaves what one camera sees of another as it was (MapAnything and CUT3R mirror the world, too).
_STORED_FROM_RIGHT_HANDED = np.diag([1.0, -1.0, 1.0, 1.0])


# The data set has no split of its own: its last twelve drives of 120.
_FIRST_HELD_OUT = 108


class MvsSynth(DatasetReader):
    """`GTAV_{540,720,1080}/0000/{images/0000.png,depths/0000.exr,poses/0000.json}`; the root or one of the sizes.

    `val` are the drives from 0108 on, `train` those before.
    """

    name = "mvs-synth"
    licence = "non-commercial"
    metric = False
    unit_m = 0.1

    def sequences(self, root: Path, split: str) -> list[FrameSequence]:
        """List one sequence per numbered folder."""
        found = []
        for poses in sorted([*root.glob("[0-9]*/poses"), *root.glob("GTAV_*/[0-9]*/poses")]):
            folder = poses.parent
            if split != "all" and (int(folder.name) >= _FIRST_HELD_OUT) != (split == "val"):
                continue
            frames, numbers = [], []
            for pose in sorted(poses.glob("[0-9]*.json")):
                rgb, depth = folder / "images" / f"{pose.stem}.png", folder / "depths" / f"{pose.stem}.exr"
                if rgb.is_file() and depth.is_file():
                    frames.append((rgb, depth, pose))
                    numbers.append(int(pose.stem))
            if frames:
                found.append(FrameSequence(str(folder.relative_to(root)), tuple(frames), tuple(numbers)))
        expect(self, found, f"0000/{{images/*.png,depths/*.exr,poses/*.json}} of split {split}", root)
        return found

    def load(self, sequence: FrameSequence, index: int) -> LoadedFrame:
        """Read a picture, its depth, its camera."""
        rgb_path, depth_path, pose_path = sequence.frames[index]
        with reading(pose_path):
            camera = json.loads(pose_path.read_text())
            K = pinhole(*(float(camera[name]) for name in ("f_x", "f_y", "c_x", "c_y")))
            camera_from_world = np.array(camera["extrinsic"], dtype=np.float64).reshape(4, 4)
        depth = read_exr(depth_path)
        if np.linalg.det(camera_from_world[:3, :3]) < 0:
            camera_from_world = camera_from_world @ _STORED_FROM_RIGHT_HANDED
        return LoadedFrame(
            read_rgb(rgb_path), depth, ~np.isnan(depth) & (depth > 0), K, np.linalg.inv(camera_from_world)
        )
