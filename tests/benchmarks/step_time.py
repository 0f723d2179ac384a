"""Where the wall time of training steps goes: forward and backward, and everything else.

    python -m tests.benchmarks.step_time [--config bundled] [--stage 1] [--steps 40] [--optimizer adamw]

Waiting for data, optimiser, average and logging count as everything else. Stages count from 1.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from accelerate import Accelerator
from depth_train.config_files import load_config
from depth_train.loop import finetune, trainer
from depth_train.loop.watch import Show
from depth_train.optim.muon import KernelMuon
from depth_train.tasks import depth_task

from depth_engine.devices import choose_device

_WARM_UP = 16  # steps left out: they fill the pool, tune kernels, and each enters the average, later one in four


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="bundled")
    parser.add_argument("--stage", type=int, default=1)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--optimizer")
    parser.add_argument("--device", default="auto")
    args = parser.parse_args()

    config = load_config(args.config)
    stage = replace(config.stages[args.stage - 1], until=1.0)
    # A small pool, so that the run begins soon; what is loaded per step is the config's.
    stage = replace(stage, pool=min(stage.pool, 32))
    optimizer = replace(config.optimizer, name=args.optimizer or config.optimizer.name)
    validation = replace(config.validation, clips=0)
    config = replace(config, stages=(stage,), steps=args.steps + _WARM_UP, validation=validation, optimizer=optimizer)

    inside = ("forward", "backward")
    spent: dict[str, float] = dict.fromkeys((*inside, "data", "optimisers"), 0.0)
    marks: list[float] = []

    def timed(function: Callable, label: str) -> Callable:
        def run(*given: Any, **named: Any) -> Any:
            began = time.perf_counter()
            result = function(*given, **named)
            if torch.cuda.is_available():
                torch.cuda.synchronize()  # only then is the work done
            if len(marks) > _WARM_UP:
                spent[label] += time.perf_counter() - began
            return result

        return run

    def asked(*given: Any) -> Callable[[], Any]:
        return timed(ask(*given), "data")

    ask, real = finetune.Feeder.ask, trainer.average_into

    def note(*given: Any) -> None:
        real(*given)
        marks.append(time.perf_counter())

    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(depth_task, "step_loss", timed(depth_task.step_loss, "forward")),
        patch.object(Accelerator, "backward", timed(Accelerator.backward, "backward")),
        patch.object(KernelMuon, "step", timed(KernelMuon.step, "optimisers")),
        patch.object(torch.optim.Adam, "step", timed(torch.optim.Adam.step, "optimisers")),  # AdamW's too
        patch.object(finetune.Feeder, "ask", asked),
        patch.object(trainer, "average_into", note),
    ):
        device = str(choose_device(args.device))
        finetune.train(config, Path(folder) / "model", device=device, show=Show(lambda line: None))
    wall_s = marks[-1] - marks[_WARM_UP]
    for label, seconds in spent.items():
        print(f"{label:<16}{seconds:8.2f} s {seconds / wall_s:7.1%}")
    print(f"{'wall':<16}{wall_s:8.2f} s, {len(marks) - 1 - _WARM_UP} steps")
    inside_s = sum(spent[label] for label in inside)
    print(f"forward and backward: {inside_s / wall_s:.1%} of the wall time (at least 90 % is wanted)")


if __name__ == "__main__":
    main()
