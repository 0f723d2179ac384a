"""What a training run needs to go on after a kill as if there had been none, as safetensors and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from depth_train.loop.sharding import divided_like, whole

STATE_FOLDER = "resume"  # within the checkpoint folder, so that both are replaced in one step


@dataclass
class Progress:
    """Where the run is.

    Attributes:
        step: Steps done.
        minutes: Wall-clock minutes spent so far; a budget counts them over all parts of the run.
        stage: Index of the stage that the pool of clips belongs to.
        loaded: Clips that the pool has loaded; with the seed this is the pool's content.
        skipped: Steps left out because the gradient was not finite.
        saved_step: Step of the checkpoint saved before.
        budget_minutes: The run's budget, if it has one.
        processes: That trained together so far; 0: the run began before this was noted.
    """

    step: int = 0
    minutes: float = 0.0
    stage: int = 0
    loaded: int = 0
    skipped: int = 0
    saved_step: int = 0
    budget_minutes: float | None = None
    processes: int = 0


class State(NamedTuple):
    """Everything that training changes, as whole tensors.

    Attributes:
        unet: Weights that the optimiser works on, float32, by name.
        average: Their running average, float32, by name.
        moments: Of the optimisers, by `optimiser|index of the parameter|name`.
    """

    unet: dict[str, Tensor]
    average: dict[str, Tensor]
    moments: dict[str, Tensor]


def collect_state(
    unet: nn.Module, average: nn.Module, optimizers: Mapping[str, torch.optim.Optimizer], *, keep: bool, ended: bool
) -> State:
    """What `save_state` keeps; tensors that are divided among processes are put together, so all must call this.

    Args:
        unet: Weights.
        average: Their running average.
        optimizers: By name.
        keep: This process writes it; another's state is empty.
        ended: The average alone is wanted.
    """
    averages = whole(average.state_dict(), keep)
    if ended:
        return State({}, averages, {})
    moments = {
        f"{name}|{index}|{key}": torch.as_tensor(value)
        for name, optimizer in optimizers.items()
        for index, held in optimizer.state_dict()["state"].items()
        for key, value in held.items()
    }
    return State(whole(unet.state_dict(), keep), averages, whole(moments, keep))


def save_state(folder: Path, state: State, progress: Progress) -> None:
    """Write into `folder`, which the caller brings to its place.

    Args:
        folder: Made if it is not there.
        state: From `collect_state`.
        progress: Where the run is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, held in (("unet", state.unet), ("average", state.average), ("optimizer", state.moments)):
        save_file({key: value.contiguous() for key, value in held.items()}, folder / f"{name}.safetensors")
    (folder / "progress.json").write_text(json.dumps(vars(progress), indent=2) + "\n")


def load_state(
    folder: Path, unet: nn.Module, average: nn.Module, optimizers: Mapping[str, torch.optim.Optimizer]
) -> None:
    """Fill weights, average and optimisers with what `save_state` wrote, divided as they are.

    Raises:
        ValueError: The folder holds no state, or one of another model.
    """
    try:
        for name, module in (("unet", unet), ("average", average)):
            own = module.state_dict()
            saved = load_file(folder / f"{name}.safetensors")
            module.load_state_dict({key: divided_like(value, own.get(key, value)) for key, value in saved.items()})
        moments = load_file(folder / "optimizer.safetensors")
    except (OSError, RuntimeError) as error:
        raise ValueError(f"--resume: {folder} holds no state of this run ({str(error).splitlines()[0]})") from error
    for name, optimizer in optimizers.items():
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        held: dict[int, dict[str, Tensor]] = {}
        for entry, value in moments.items():
            owner, index, key = entry.split("|")
            if owner == name:
                held.setdefault(int(index), {})[key] = divided_like(value, parameters[int(index)])
        optimizer.load_state_dict({"state": held, "param_groups": optimizer.state_dict()["param_groups"]})
