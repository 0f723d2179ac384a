"""The tasks by their names."""

from __future__ import annotations

from typing import Any

from depth_engine.models.loading import resolve_checkpoint
from depth_train.config import TrainConfig
from depth_train.tasks.start import checkpoint_spec
from depth_train.tasks.task import Task


def task_of(config: TrainConfig) -> Task[Any, Any]:
    """The task of a run."""
    if config.task == "generator":
        from depth_train.tasks.generator import GeneratorTask

        return GeneratorTask(config)
    if config.task == "controlnet":
        from depth_train.tasks.controlnet import ControlNetTask

        return ControlNetTask(config)
    from depth_train.tasks.depth_task import DepthTask

    return DepthTask(config)


def has_base(config: TrainConfig) -> bool:
    """Whether the weights to begin with are here, or none are needed; a hub id that can't be fetched is not."""
    try:
        return not config.base or bool(resolve_checkpoint(config.base, spec=checkpoint_spec(config)))
    except FileNotFoundError:
        return False
