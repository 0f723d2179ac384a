"""A model divided among processes (torch's FSDP2): each holds a share of weights, gradients, averages and moments."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, distribute_tensor

_LAUNCHER_SETTING = "ACCELERATE_USE_FSDP"


def asked_by_launcher() -> bool:
    """Whether `accelerate launch` was configured for FSDP; of that setting, `--shard` is all that is taken over."""
    return os.environ.get(_LAUNCHER_SETTING, "false").lower() in ("true", "1")


@contextlib.contextmanager
def launcher_setting_hidden() -> Iterator[None]:
    """Keep the launcher's FSDP setting from accelerate.

    It would divide the model where the running average and the checkpoints do not see it.
    """
    held = os.environ.pop(_LAUNCHER_SETTING, None)
    try:
        yield
    finally:
        if held is not None:
            os.environ[_LAUNCHER_SETTING] = held


def shard(module: nn.Module) -> None:
    """Divide a module's parameters among all processes, in place; a block is whole only while it computes.

    Optimisers are made afterwards: they work on the shares.

    Args:
        module: The same on every process; its blocks are called as modules, in an order that all processes share.
    """
    from torch.distributed.fsdp import fully_shard

    # Named, or torch would take the machine's GPU whatever device was chosen.
    mesh = init_device_mesh(next(module.parameters()).device.type, (torch.distributed.get_world_size(),))
    for child in module.children():
        for block in child if isinstance(child, nn.ModuleList) else (child,):
            if any(True for _ in block.parameters()):
                fully_shard(block, mesh=mesh)
    fully_shard(module, mesh=mesh)


def local(tensors: Iterable[Tensor]) -> list[Tensor]:
    """This process's share of each tensor; of one that is not divided, the tensor itself."""
    return [tensor.to_local() if isinstance(tensor, DTensor) else tensor for tensor in tensors]


def whole(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Divided tensors put together, on the CPU, one after the other; all processes must ask, and one may `keep` them.

    Returns:
        All tensors, those that are not divided as they are; nothing without `keep`.
    """
    held: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if keep:
            held[name] = full.cpu() if isinstance(tensor, DTensor) else full
    return held


def divided_like(value: Tensor, other: Tensor) -> Tensor:
    """`value`, whole on every process, divided as `other` is."""
    if not isinstance(other, DTensor) or value.shape != other.shape:
        return value
    return distribute_tensor(value.to(other.device), other.device_mesh, other.placements)


def undivided(shell: nn.Module, state: dict[str, Tensor]) -> nn.Module:
    """A module without memory (`meta`) filled with whole tensors."""
    shell.load_state_dict(state, assign=True)
    return shell


def gradients_wait(module: nn.Module, wait: bool) -> None:
    """Leave the exchange of a divided module's gradients to a later backward pass, or not."""
    module.set_requires_gradient_sync(not wait)  # type: ignore[operator]  # of FSDPModule


def whole_norm(norm: Tensor | float | None) -> Tensor:
    """A gradient norm as one number on every process."""
    return norm.full_tensor() if isinstance(norm, DTensor) else torch.as_tensor(norm)
