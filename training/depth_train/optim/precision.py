"""Mixed precision that can be trusted: what PyTorch's bfloat16 does wrong on some CPUs is done another way."""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TemporalConv(nn.Conv3d):
    """A convolution over time alone, `[k, 1, 1]`, computed as one over the two axes (time, pixels).

    The same numbers; but the weight gradient of a bfloat16 `conv3d` of few frames was seen to hold infinities on the
    CPU (torch 2.15, oneDNN 3.13), and that of the equal `conv2d` was not.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolve `[B, C, T, H, W]`."""
        padding = (int(self.padding[0]), 0)
        out = F.conv2d(input.flatten(3), self.weight.squeeze(-1), self.bias, padding=padding)
        return out.unflatten(3, input.shape[3:])


def convolve_time_in_2d(unet: nn.Module) -> None:
    """Let every convolution over time of a UNet compute as `TemporalConv`; parameters and their names stay."""
    for module in unet.modules():
        if type(module) is nn.Conv3d and module.kernel_size[1:] == (1, 1) and module.stride == (1, 1, 1):
            module.__class__ = TemporalConv


class NarrowGroupNorm(nn.GroupNorm):
    """Group normalisation that writes what it reads under autocast, which would make it float32: half the memory moved.

    Sums are float32 inside either way.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise `[B, C, ...]`."""
        with torch.autocast(input.device.type, enabled=False):
            weight, bias = (None if part is None else part.to(input.dtype) for part in (self.weight, self.bias))
            return F.group_norm(input, self.num_groups, weight, bias, self.eps)


def normalize_narrow(unet: nn.Module) -> None:
    """Let every group normalisation compute as `NarrowGroupNorm`; parameters and their names stay."""
    for module in unet.modules():
        if type(module) is nn.GroupNorm:
            module.__class__ = NarrowGroupNorm


def computes_bfloat16(wanted: str, device: torch.device) -> bool:
    """Whether to run under bfloat16 autocast: where it is asked for, and not many times slower than float32.

    A convolution took ten times as long in bfloat16 on a CPU without AVX-512, where it is emulated (torch 2.15).
    """
    if wanted != "bfloat16":
        return False
    if device.type == "cpu" and torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2"):
        warnings.warn("precision: this CPU emulates bfloat16; computing in float32, which is faster here", stacklevel=2)
        return False
    return True
