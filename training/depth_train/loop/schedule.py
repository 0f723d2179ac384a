"""What the share of a run that is done decides: the stage and the learning rate."""

from __future__ import annotations

import math

from depth_train.config import TrainConfig

# The rate's rise takes no more than this share of a run whose steps are few for its minutes.
_LONGEST_WARMUP = 0.05


def rate_share(config: TrainConfig, step: int, progress: float) -> float:
    """Share of the peak rate: linear warm-up, a plateau, then a cosine to zero at the end of the run."""
    falling = max(0.0, min(progress, 1.0) - config.optimizer.decay_from) / (1 - config.optimizer.decay_from)
    rising = max((step + 1) / config.optimizer.warmup, progress / _LONGEST_WARMUP)
    return min(1, rising) * 0.5 * (1 + math.cos(math.pi * falling))


def stage_at(config: TrainConfig, share: float) -> int:
    """Index of the stage at a share of the run, below 1 (or the last)."""
    return next((number for number, stage in enumerate(config.stages) if share < stage.until), len(config.stages) - 1)
