"""Noise that belongs to a frame, not to its place in a window."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

# (frame_index, draw, shape) -> standard normals. draw 0: the frame's initial latent noise; draw k >= 1: its re-noising
# at step k - 1 of `replacement`; draw -1: the noise added to its pixels.
Noise = Callable[[int, int, tuple[int, ...]], "Tensor"]


def seeded_noise(seed: int) -> Noise:
    """Standard normals keyed by (seed, frame_index, draw): the same on every machine, in any order, after any restart.

    Args:
        seed: From 0 to 2^64 - 1.

    Raises:
        ValueError: If the seed is out of range.
    """
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed: {seed} is not accepted; give a whole number from 0 to 2^64 - 1")

    def noise(frame_index: int, draw: int, shape: tuple[int, ...]) -> Tensor:
        import torch

        # Philox counts in 256 bits: the low words run within a draw, the high ones name it, so no two draws overlap.
        counter = np.array([0, 0, draw % 2**64, frame_index], dtype=np.uint64)
        generator = np.random.Generator(np.random.Philox(key=np.array([seed, 0], dtype=np.uint64), counter=counter))
        return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))

    return noise
