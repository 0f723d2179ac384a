"""The procedural scenes as a data set: nothing on disk; a sequence per seed."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np

from depth_train.data.datasets import DatasetReader, FrameSequence, LoadedFrame
from depth_train.scenes.procedural.clips import FIRST_TRAINING_SEED, SceneClip, make_clips

FRAMES, HEIGHT, WIDTH = 24, 144, 256
COUNT = 100
FIRST_SEED = {"val": 0, "train": FIRST_TRAINING_SEED}


@functools.lru_cache(maxsize=4)
def _clip(seed: int) -> SceneClip:
    return make_clips([seed], FRAMES, HEIGHT, WIDTH)[0]


class Procedural(DatasetReader):
    """100 held-out scenes (`val`) or the first 100 that training sees, 24 frames of 256x144; the folder is ignored."""

    name = "procedural"
    licence = "Apache-2.0"
    splits = ("all", "train", "val")

    def sequences(self, root: Path, split: str) -> list[FrameSequence]:
        """List scenes by seed."""
        first = FIRST_SEED["val" if split == "all" else split]
        return [FrameSequence(f"seed {first + i}", ((first + i),) * FRAMES, tuple(range(FRAMES))) for i in range(COUNT)]

    def load(self, sequence: FrameSequence, index: int) -> LoadedFrame:
        """Render the scene and take a frame."""
        clip = _clip(sequence.frames[index])
        depth_m = clip.depth_m[index].numpy()
        return LoadedFrame(
            clip.rgb[index].numpy(),
            depth_m,
            np.ones(depth_m.shape, dtype=bool),
            clip.K.numpy(),
            clip.world_from_camera[index].numpy(),
        )
