"""Random numbers keyed by what they are for, so that a resumed or divided run draws the same."""

from __future__ import annotations

import numpy as np
import torch

# Keys beside a clip's place in the batch.
WHOLE_STEP = 2**31 - 1


def generator(seed: int, step: int, place: int = WHOLE_STEP) -> torch.Generator:
    """A CPU generator of its own for each clip of each step, whatever process trains it.

    Args:
        seed: The run's.
        step: Number of the step.
        place: The clip's place in the batch; default: what all clips of the step share.
    """
    words = np.random.SeedSequence([seed, step, place]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)


def uniform(rng: torch.Generator, low: float = 0.0, high: float = 1.0) -> float:
    """A number in [low, high)."""
    return low + (high - low) * float(torch.rand((), generator=rng))


def whole(rng: torch.Generator, low: int, high: int) -> int:
    """A whole number from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=rng))
