"""Muon for convolution kernels: torch's takes matrices alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn


class KernelMuon(torch.optim.Muon):
    """torch.optim.Muon (Jordan 2024; rates matched to AdamW's as in arXiv 2502.16982) on kernels seen as matrices.

    The rows are the output channels; all other axes are columns. The optimiser's own parameters share the memory of the
    model's, so the model must not be moved or cast afterwards.

    Args:
        weights: Contiguous, of two axes or more.
        lr: Peak rate, on AdamW's scale.
        weight_decay: Decoupled.
    """

    def __init__(self, weights: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        self._weights = list(weights)
        self._matrices = [nn.Parameter(weight.data.view(len(weight), -1)) for weight in self._weights]
        super().__init__(self._matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step on the gradients that the model's weights hold."""
        for matrix, weight in zip(self._matrices, self._weights, strict=True):
            matrix.grad = None if weight.grad is None else weight.grad.reshape(matrix.shape)
        result = super().step(closure)
        for matrix in self._matrices:
            matrix.grad = None
        return result
