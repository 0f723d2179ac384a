"""When a checkpoint of a run is written: the newest, the last few, the best; and where a killed run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from depth_train.checkpoints.folder import copy_base, drop_earlier, drop_kept, keep_best, save_checkpoint
from depth_train.checkpoints.state import STATE_FOLDER, Progress, save_state
from depth_train.config import TrainConfig
from depth_train.loop.trainer import Trainer
from depth_train.tasks.task import Task, TrainedModel


class Checkpointer:
    """Writes the checkpoints of one run; of several processes, the main one's does.

    Args:
        folder: Checkpoint folder to write; `folder-step*` and `folder-best` beside it, if the config keeps them.
        config: The run.
        task: Writes what is specific to it.
        model: Says which files of its base belong into every checkpoint.
        main: Whether this is the main process.
    """

    def __init__(
        self, folder: Path, config: TrainConfig, task: Task[Any, Any], model: TrainedModel, *, main: bool
    ) -> None:
        self._folder, self._config, self._task, self._main = folder, config, task, main
        self._copied_base = model.copied_base

    def forget_earlier_run(self) -> None:
        """Delete what an earlier run kept beside its newest checkpoint, which stays until the next one is whole."""
        if self._main:
            drop_kept(self._folder)

    def save(self, trainer: Trainer, now: Progress, *, ended: bool) -> None:
        """Write a checkpoint, and what `resume` needs if the run has not ended; all processes must call this."""
        state = trainer.state(keep=self._main, ended=ended)
        if not self._main:
            return
        averaged = trainer.averaged(state)
        before, now.saved_step = now.saved_step, now.step

        def write(target: Path, earlier: Path | None) -> None:
            self._task.write(target, averaged)
            if self._copied_base is not None:
                copy_base(self._copied_base, target, earlier)

        def write_state(target: Path) -> None:
            save_state(target, state, now)

        save_checkpoint(
            self._folder,
            write,
            write_state=None if ended else write_state,
            keep_as=self._kept_as(before) if self._config.keep_last and before else None,
            shares_base=before > 0,
        )
        drop_earlier(self._folder, self._config.keep_last)

    def judge(self, validate: Callable[[Path, int], float], step: int, report: Callable[[str], None]) -> None:
        """Keep a copy of the newest checkpoint if it is the best so far, where the run asks for that.

        Args:
            validate: (folder, step) -> held-out AbsRel.
            step: That the checkpoint was written after.
            report: Takes a line of text.
        """
        if not (self._main and self._config.validation.clips and self._task.validates):
            return
        abs_rel = validate(self._folder, step)
        if keep_best(self._folder, abs_rel):
            report(f"step {step}: held-out AbsRel {abs_rel:.3f}, the best so far")

    def _kept_as(self, step: int) -> Path:
        return self._folder.with_name(f"{self._folder.name}-step{step:06d}")


def read_progress(folder: Path) -> Progress:
    """Where an interrupted run was.

    Raises:
        ValueError: The folder holds no state.
    """
    try:
        return Progress(**json.loads((folder / STATE_FOLDER / "progress.json").read_text()))
    except (OSError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"--resume: {folder / STATE_FOLDER} holds no state of this run ({error})") from error


def check_same_config(config: TrainConfig, folder: Path) -> None:
    """See that `folder` holds an interrupted run of this config.

    Raises:
        ValueError: One line that says what is there instead.
    """
    if not (folder / STATE_FOLDER).is_dir():
        raise ValueError(f"--resume: {folder} holds no interrupted run")
    # A field that the run was begun without has its default's effect.
    held = _by_path(asdict(TrainConfig())) | _by_path(json.loads((folder / "train_config.json").read_text()))
    for field, wanted in _by_path(asdict(config)).items():
        if held[field] != wanted:
            raise ValueError(f"--resume: the run in {folder} had {field} {held[field]}, not {wanted}")


def _by_path(fields: dict[str, Any], within: str = "") -> dict[str, Any]:
    """Every field of the config, as JSON has it, by the names that lead to it."""
    flat: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            flat |= _by_path(value, f"{within}{name}: ")
        else:
            flat[f"{within}{name}"] = json.loads(json.dumps(value))
    return flat
