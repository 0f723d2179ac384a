"""The processes that train together: how they are started, and whether the run can be divided among them."""

from __future__ import annotations

import os
from typing import Any

from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import DistributedType

from depth_train.config import TrainConfig
from depth_train.loop import sharding


def start_accelerator(device: str) -> Accelerator:
    """An accelerator on a device: `cpu`, `cuda`, `cuda:1`; the launcher decides where there are several processes."""
    if ":" in device:
        os.environ["ACCELERATE_TORCH_DEVICE"] = device
    # The layers of the other stages, and of blocks that a clip does not reach, get no gradient.
    handlers: list[Any] = [DistributedDataParallelKwargs(find_unused_parameters=True)]
    # The config says what the network computes in; a launcher's own choice would be a second one.
    with sharding.launcher_setting_hidden():
        accelerator = Accelerator(cpu=device == "cpu", mixed_precision="no", kwargs_handlers=handlers)
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise ValueError(
            f"accelerate: {accelerator.distributed_type.value} divides the model where the running average and the "
            "checkpoints do not see it; launch plain processes and give --shard, which divides them too"
        )
    return accelerator


def check_shardable(config: TrainConfig) -> None:
    """See that the model can be divided among processes.

    Raises:
        ValueError: Names what can't.
    """
    asked = "accelerate launch: FSDP" if sharding.asked_by_launcher() else "--shard"
    if config.optimizer.name == "muon":
        raise ValueError(f"{asked}: muon works on whole matrices; give the config optimizer adam or adamw")
    if config.task == "generator":
        raise ValueError(f"{asked}: the small generator is not worth dividing; leave it out")


def describe_processes(config: TrainConfig, count: int, sharded: bool) -> str:
    """One line that says how several processes share the work, and how many clips they see together."""
    how = "the model divided among them" if sharded else "each with a copy of the model"
    if sharded and sharding.asked_by_launcher():
        how += " (all that is taken over from the launcher's FSDP setting)"
    return f"{_processes(count)}, {how}; {_totals(config, count)} clips a step in all"


def describe_change(config: TrainConfig, before: int, count: int) -> str:
    """One line that says what a resumed run's other number of processes means."""
    return (
        f"--resume: this run had {_processes(before)} so far and has {count} now: {_totals(config, count)} clips a "
        f"step in all instead of {_totals(config, before)}, at the same learning rate, and other clips from here on"
    )


def _processes(count: int) -> str:
    return f"{count} process{'es' if count > 1 else ''}"


def _totals(config: TrainConfig, count: int) -> str:
    """Clips a step over all processes, stage by stage."""
    return ", then ".join(str(stage.batch * count) for stage in config.stages)
