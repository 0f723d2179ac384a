"""What a training run needs to go on after a kill as if there had been none, as safetensors and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

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
    """

    step: int = 0
    minutes: float = 0.0
    stage: int = 0
    loaded: int = 0
    skipped: int = 0
    saved_step: int = 0
    budget_minutes: float | None = None


def save_state(
    folder: Path,
    unet: nn.Module,
    average: nn.Module,
    optimizers: Mapping[str, torch.optim.Optimizer],
    progress: Progress,
) -> None:
    """Write into `folder`, which the caller brings to its place.

    Args:
        folder: Made if it is not there.
        unet: Weights that the optimiser works on, float32.
        average: Their running average, float32.
        optimizers: By name; their moments are kept in the order of their parameters.
        progress: Where the run is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, module in (("unet", unet), ("average", average)):
        save_file(
            {key: value.contiguous() for key, value in module.state_dict().items()}, folder / f"{name}.safetensors"
        )
    moments: dict[str, Tensor] = {}
    for name, optimizer in optimizers.items():
        for index, held in optimizer.state_dict()["state"].items():
            for key, value in held.items():
                moments[f"{name}|{index}|{key}"] = torch.as_tensor(value).contiguous()
    save_file(moments, folder / "optimizer.safetensors")
    (folder / "progress.json").write_text(json.dumps(vars(progress), indent=2) + "\n")


def load_state(
    folder: Path, unet: nn.Module, average: nn.Module, optimizers: Mapping[str, torch.optim.Optimizer]
) -> None:
    """Fill weights, average and optimisers with what `save_state` wrote.

    Raises:
        ValueError: The folder holds no state, or one of another model.
    """
    try:
        for name, module in (("unet", unet), ("average", average)):
            module.load_state_dict(load_file(folder / f"{name}.safetensors"))
        moments = load_file(folder / "optimizer.safetensors")
    except (OSError, RuntimeError) as error:
        raise ValueError(f"resume: {folder} holds no state of this run ({str(error).splitlines()[0]})") from error
    for name, optimizer in optimizers.items():
        held: dict[int, dict[str, Tensor]] = {}
        for entry, value in moments.items():
            owner, index, key = entry.split("|")
            if owner == name:
                held.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({"state": held, "param_groups": optimizer.state_dict()["param_groups"]})
