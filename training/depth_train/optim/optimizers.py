"""What moves the weights: Adam, AdamW, or Muon for matrices with AdamW for the rest."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from depth_train.config import TrainConfig

# A matrix thinner than this has too few directions for its update to be worth making orthogonal.
_LEAST_SIDE = 16


def make_optimizers(model: nn.Module, config: TrainConfig) -> dict[str, torch.optim.Optimizer]:
    """Optimisers of the parameters that take a gradient, by name; each group knows its peak rate as `peak_lr`.

    Raises:
        ValueError: This torch has no Muon.
    """
    wanted = config.optimizer
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizers: dict[str, torch.optim.Optimizer] = {}
    if wanted.name == "muon":
        if not hasattr(torch.optim, "Muon"):
            raise ValueError(
                f"config: optimizer: name: muon needs torch 2.9 or later, this is {torch.__version__}; give adamw"
            )
        from depth_train.optim.muon import KernelMuon

        matrices = [parameter for parameter in parameters if is_matrix(parameter)]
        parameters = [parameter for parameter in parameters if not is_matrix(parameter)]
        if matrices:
            optimizers["muon"] = KernelMuon(matrices, wanted.muon_learning_rate, wanted.weight_decay)
    if parameters:
        adam = torch.optim.Adam if wanted.name == "adam" else torch.optim.AdamW
        optimizers["adam"] = adam(
            parameters, lr=wanted.learning_rate, weight_decay=wanted.weight_decay, betas=wanted.betas, fused=True
        )
    for optimizer in optimizers.values():
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def is_matrix(parameter: torch.Tensor) -> bool:
    """Whether a weight, its input axes taken as one, is a matrix of some size."""
    return parameter.ndim >= 2 and min(len(parameter), parameter[0].numel()) >= _LEAST_SIDE


def set_rate(optimizers: Iterable[torch.optim.Optimizer], share: float) -> None:
    """Set every rate to a share of its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * share
