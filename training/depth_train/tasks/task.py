"""What the loop asks of a task: where it starts, what a step sees, what it is judged by, what is written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor, nn

from depth_engine.models.loading import CheckpointFiles
from depth_train.config import Stage, TrainConfig
from depth_train.data.clip_pool import Clips


@dataclass
class TrainedModel:
    """A network that is trained, with what it needs around it.

    Attributes:
        trained: The network; perhaps wrapped for several processes.
    """

    trained: nn.Module

    @property
    def frozen_parts(self) -> list[nn.Module]:
        """Networks that are held beside it and do not change."""
        return []

    @property
    def copied_base(self) -> CheckpointFiles | None:
        """SVD whose other parts belong into every checkpoint; None: there is none, or it is left where it is."""
        return None


@dataclass(frozen=True)
class StepDraw:
    """What all clips of a step share, whatever process trains them.

    Attributes:
        frames: Length of the clips.
        known: How many of the first frames are given clean.
        own: Whether these are the model's own prediction.
    """

    frames: int
    known: int
    own: bool


Model = TypeVar("Model", bound=TrainedModel)
Seen = TypeVar("Seen", bound=tuple[Any, ...])


@dataclass(frozen=True)
class Part(Generic[Seen]):
    """What one forward and backward pass sees.

    Attributes:
        batch: Clips of `draw.frames` frames.
        draw: What all clips of the step share.
        stage: That the step belongs to.
        rngs: One generator per clip.
    """

    batch: Seen
    draw: StepDraw
    stage: Stage
    rngs: Sequence[torch.Generator]


class Task(ABC, Generic[Model, Seen]):
    """A kind of training.

    Args:
        config: The run.
    """

    # Whether the engine can score its checkpoints.
    validates: ClassVar[bool] = False

    def __init__(self, config: TrainConfig) -> None:
        self.config = config

    @abstractmethod
    def check(self, init: Path | None) -> None:
        """See that the files are there that the run begins with.

        Args:
            init: Checkpoint folder to start from.

        Raises:
            ValueError: A file is missing, or means something else than the config.
            FileNotFoundError: The base can't be found or fetched.
        """

    @abstractmethod
    def start(self, init: Path | None, device: torch.device) -> Model:
        """The model to train, in float32.

        Args:
            init: Checkpoint folder to start from.
            device: Where to train.

        Raises:
            ValueError: A file is missing or damaged, or the parts do not fit each other.
        """

    @abstractmethod
    def draw(self, stage: Stage, rng: torch.Generator) -> StepDraw:
        """Draw what all clips of a step share."""

    @abstractmethod
    def batch(self, clips: Clips, step_rng: torch.Generator, clip_rngs: Sequence[torch.Generator]) -> Seen:
        """Make of clips what a step sees.

        Args:
            clips: From the pool.
            step_rng: Draws what is alike for all clips of the step.
            clip_rngs: One per clip.
        """

    @abstractmethod
    def loss(self, model: Model, part: Part[Seen]) -> Tensor:
        """What the model is to make small."""

    @abstractmethod
    def write(self, folder: Path, weights: nn.Module) -> None:
        """Write a checkpoint, but for what is copied of its base.

        Args:
            folder: Made here.
            weights: The network to keep, the running average.
        """
