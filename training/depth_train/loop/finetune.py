"""The training loop: draw clips, step, save. Every draw is keyed by (seed, step, clip)."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator

from depth_train.checkpoints.folder import recover
from depth_train.checkpoints.state import STATE_FOLDER, Progress
from depth_train.config import TrainConfig
from depth_train.data.held_out import describe_judging
from depth_train.loop import sharding
from depth_train.loop.checkpointer import Checkpointer, check_same_config, read_progress
from depth_train.loop.clock import Clock, Pace
from depth_train.loop.feeder import Feeder
from depth_train.loop.processes import check_shardable, describe_change, describe_processes, start_accelerator
from depth_train.loop.schedule import rate_share, stage_at
from depth_train.loop.trainer import Trainer
from depth_train.loop.watch import Show, Watch
from depth_train.tasks.catalogue import task_of


def train(
    config: TrainConfig,
    folder: Path,
    *,
    init: Path | None = None,
    device: str = "cpu",
    resume: bool = False,
    shard: bool = False,
    pace: Pace | None = None,
    show: Show | None = None,
) -> None:
    """Train until the steps or the minutes are up, leaving a loadable checkpoint from time to time.

    A run that was killed goes on from its last checkpoint with `resume`: the draws depend on the step alone, so on the
    same hardware, with as many processes, the weights are those of an unbroken run (with a budget in minutes, up to
    the clock). SIGINT and SIGTERM end the run after the step at hand, with a checkpoint; a second one ends it at once.
    Under `torchrun` or `accelerate launch` every process trains a batch of its own in each step, of clips that it alone
    reads.

    Args:
        config: The run.
        folder: Checkpoint folder to write; `folder-step*` and `folder-best` beside it, if the config keeps them.
        init: Checkpoint folder of the same shape to start from.
        device: Where to train.
        resume: Go on with the interrupted run in `folder`; without a budget of its own, with that run's.
        shard: Divide weights, gradients, averages and moments among the processes, in place of a copy for each. Files
            are the same: a run can be resumed either way. An FSDP setting of `accelerate launch` asks for it, too.
        pace: What is done by the clock; default: `Pace()`.
        show: Where the run tells how it goes; default: `Show()`.

    Raises:
        ValueError: There is no interrupted run to resume, it had another config, or the model can't be divided.
        FloatingPointError: The run diverged.
        KeyboardInterrupt: A signal ended the run; its checkpoint is written.
    """
    pace, show = pace or Pace(), show or Show()
    shard = sharding.asked_by_launcher() or shard
    if shard:
        check_shardable(config)
    accelerator = start_accelerator(device)
    main, processes = accelerator.is_main_process, accelerator.num_processes
    if main:
        recover(folder)
    accelerator.wait_for_everyone()
    if resume:
        check_same_config(config, folder)
    torch.set_flush_denormal(True)  # the running average makes denormals, and they are slow on a CPU
    torch.manual_seed(config.seed)
    task = task_of(config)
    model = task.start(init, accelerator.device)
    shard = shard and processes > 1
    trainer = Trainer(accelerator, task, config, model, shard=shard)
    checkpointer = Checkpointer(folder, config, task, model, main=main)
    now = Progress()
    if resume:
        now = read_progress(folder)
        trainer.begin(config.stages[now.stage])
        trainer.load(folder / STATE_FOLDER)
    else:
        checkpointer.forget_earlier_run()
    now.budget_minutes = pace.budget_minutes or now.budget_minutes
    pace = replace(pace, budget_minutes=now.budget_minutes)
    if main and processes > 1:
        show.report(describe_processes(config, processes, shard))
    if main and now.processes not in (0, processes):
        show.report(describe_change(config, now.processes, processes))
    now.processes = processes
    if main and config.validation.clips and task.validates:
        show.report(describe_judging(config))
    watch = Watch(
        config,
        accelerator.device,
        show,
        budget_minutes=now.budget_minutes,
        began=now if resume else None,
        enabled=main,
    )
    feeder = Feeder(task, config, accelerator.device, accelerator.process_index, processes)
    clock = Clock(config.steps, pace, minutes=now.minutes, processes=processes)
    with closing(watch), closing(feeder), closing(clock):
        if resume and now.loaded:
            feeder.resume(now.stage, now.loaded)
        _run(accelerator, trainer, checkpointer, feeder, clock, watch, now)
    if main:
        without = f", {now.skipped} left out for a gradient that was not finite" if now.skipped else ""
        show.report(f"{now.step} steps{without}; checkpoint in {folder}")


def _run(
    accelerator: Accelerator,
    trainer: Trainer,
    checkpointer: Checkpointer,
    feeder: Feeder,
    clock: Clock,
    watch: Watch,
    now: Progress,
) -> None:
    """Step until the run or its time is over; keeps `now` up to date.

    Raises:
        KeyboardInterrupt: A signal ended the run; its checkpoint is written.
    """
    config = watch.config

    def save(ended: bool) -> None:
        checkpointer.save(trainer, now, ended=ended)
        checkpointer.judge(watch.validate, now.step, watch.report)
        accelerator.wait_for_everyone()
        clock.saved()

    moment = clock.look(now.step)
    ready = feeder.ask(now.step, stage_at(config, moment.share))
    while moment.share < 1 and not moment.stopped:
        asked = time.monotonic()
        drawn = ready()
        waited_s = time.monotonic() - asked
        share, moment = moment.share, clock.look(now.step + 1)
        ready = feeder.ask(now.step + 1, stage_at(config, min(moment.share, 1 - 1e-9)))
        stepped = trainer.step(now.step, drawn, rate_share(config, now.step, share))
        now.step, now.stage, now.loaded = now.step + 1, drawn.stage_number, drawn.loaded
        now.minutes, now.skipped = clock.minutes, now.skipped + (not stepped.taken)
        watch.stepped(now, drawn.stage, stepped, waited_s, moment.share)
        if moment.share < 1 and moment.save_due:
            save(ended=False)
    save(ended=moment.share >= 1)
    if moment.share < 1:
        raise KeyboardInterrupt
