"""What the loop can train: for each task, where it starts, what a step sees, what it is judged by, what is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from depth_engine.models.loading import resolve_checkpoint
from depth_train.checkpoints.folder import write_depth_checkpoint
from depth_train.config import TrainConfig
from depth_train.data.batch import make_batch
from depth_train.tasks.depth import StepDraw, draw_step, step_loss
from depth_train.tasks.start import checkpoint_spec, start_model


@dataclass(frozen=True)
class Task:
    """The parts of training that differ.

    Attributes:
        check: (config, init folder or None) sees that the files are there that the run begins with.
        start: (config, init folder, device) -> model with `unet`, the module that is trained; and its base.
        draw: (stage, config, generator) -> what all clips of a step share.
        batch: (clips, config, step's generator, clips' generators) -> what a step sees.
        loss: (model, batch, draw, stage, config, clips' generators) -> loss.
        write: (folder, averaged module, config, base, earlier checkpoint) writes a checkpoint.
        validates: Whether the engine can score its checkpoints.
    """

    check: Callable[[TrainConfig, Path | None], None]
    start: Callable[..., tuple[Any, Any]]
    draw: Callable[..., StepDraw]
    batch: Callable[..., Any]
    loss: Callable[..., Tensor]
    write: Callable[..., None]
    validates: bool = False


def task_of(config: TrainConfig) -> Task:
    """The task of a run."""
    if config.task == "generator":
        from depth_train.tasks import generator as small

        return Task(
            _check_generator,
            small.start_generator,
            small.draw_generator,
            small.batch_generator,
            small.generator_loss,
            small.write_generator,
        )
    if config.task == "controlnet":
        from depth_train.tasks import controlnet

        return Task(
            controlnet.check_controlnet,
            controlnet.start_controlnet,
            controlnet.draw_controlnet,
            controlnet.batch_controlnet,
            controlnet.controlnet_loss,
            controlnet.write_controlnet,
        )
    return Task(_check_depth, start_model, draw_step, _depth_batch, step_loss, write_depth_checkpoint, validates=True)


def has_base(config: TrainConfig) -> bool:
    """Whether the weights to begin with are here, or none are needed; a hub id that can't be fetched is not."""
    try:
        return not config.base or bool(resolve_checkpoint(config.base, spec=checkpoint_spec(config)))
    except FileNotFoundError:
        return False


def _check_depth(config: TrainConfig, init: Path | None) -> None:
    wanted = checkpoint_spec(config)
    if config.base:
        resolve_checkpoint(config.base, spec=wanted)
    if init is None:
        return
    says_what_it_is = (init / "depth_engine.json").is_file()
    # A UNet published alone, or a folder without a spec, is taken for what the config says.
    held = resolve_checkpoint(init, spec=None if says_what_it_is else wanted, base=config.base or None).spec
    for name in ("kind", "condition_first", "scale_condition", "embedding"):
        if getattr(held, name) != getattr(wanted, name):
            asked = f"{getattr(wanted, name)!r}; train from another checkpoint, or change the config"
            raise ValueError(
                f"--init: {init} was trained with {name} {getattr(held, name)!r}, the config means {asked}"
            )


def _check_generator(config: TrainConfig, init: Path | None) -> None:
    from depth2video.generators.small import SmallSpec

    if init is not None:
        SmallSpec.read(init)


def _depth_batch(clips: Any, config: TrainConfig, step_rng: Any, clip_rngs: Any) -> Any:
    return make_batch(clips, config.kind, config.multiple, config.augmentation, step_rng, clip_rngs)
