"""A clip of a procedural scene whose cameras and depth are known, for what is found from clips."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from depth_train.scenes.procedural.clips import make_clips

from depth_engine import DepthVideo
from depth_engine.depth.sidecar import DepthKind
from depth_engine.video.write import Encoding, VideoWriter

# Orbits a hall at a small distance: a way of 0.9 median depths, many corners, all at rest.
SEED = 5
FRAMES, HEIGHT, WIDTH, FPS = 16, 144, 192, 24


class SceneFiles(NamedTuple):
    """Where the clip and its depth are, and the truth."""

    clip: Path
    metric: Path
    disparity: Path
    depth_m: np.ndarray
    K: np.ndarray
    world_from_camera: np.ndarray

    @property
    def fov_deg(self) -> float:
        return float(2 * np.degrees(np.arctan(self.depth_m.shape[1] / 2 / self.K[1, 1])))


def write_clip(path: Path, frames: np.ndarray) -> Path:
    with VideoWriter(path, width=frames.shape[2], height=frames.shape[1], fps=FPS, codec=Encoding(crf=8)) as writer:
        for index, frame in enumerate(frames):
            writer.write(frame, index / FPS)
    return path


def write_depth(path: Path, values: np.ndarray, kind: DepthKind) -> Path:
    return DepthVideo(values.astype(np.float32), kind, np.arange(len(values)) / FPS, Fraction(FPS)).save(path)


def write_scene(folder: Path, height: int = HEIGHT, width: int = WIDTH) -> SceneFiles:
    scene = make_clips([SEED], FRAMES, height, width)[0]
    depth_m = scene.depth_m.numpy()
    held = np.where(np.isfinite(depth_m), depth_m, 500.0)
    inverse = 1 / held
    disparity = (inverse - inverse.min()) / (inverse.max() - inverse.min())
    return SceneFiles(
        write_clip(folder / "clip.mp4", scene.rgb.numpy()),
        write_depth(folder / "metric.npy", held, "metric"),
        write_depth(folder / "disparity.npy", disparity, "disparity"),
        depth_m,
        scene.K.numpy(),
        scene.world_from_camera.numpy(),
    )
