"""Muon for convolution kernels, many at a time: torch's takes matrices alone, one by one."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

# On a CPU, matrices made orthogonal together: as many as have this many elements, so that copies stay in the cache.
_TOGETHER = 2**19


class KernelMuon(torch.optim.Muon):
    """torch.optim.Muon (Jordan 2024; rates matched to AdamW's as in arXiv 2502.16982) on kernels seen as matrices.

    The rows are the output channels; all other axes are columns. The optimiser's own parameters share the memory of the
    model's, so the model must not be moved or cast afterwards. Matrices of one shape go through each product together:
    a UNet has hundreds of small ones, and calling takes longer than computing.

    Args:
        weights: Contiguous, of two axes or more.
        lr: Peak rate, on AdamW's scale.
        weight_decay: Decoupled.
    """

    def __init__(self, weights: Iterable[nn.Parameter], lr: float, weight_decay: float) -> None:
        self._weights = list(weights)
        self._matrices = [nn.Parameter(weight.data.view(len(weight), -1)) for weight in self._weights]
        super().__init__(self._matrices, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step on the gradients that the model's weights hold."""
        result = None
        if closure is not None:
            with torch.enable_grad():
                result = closure()
        (group,) = self.param_groups
        alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
        for matrix, weight in zip(self._matrices, self._weights, strict=True):
            if weight.grad is not None:
                alike[matrix.shape].append((matrix, weight.grad.reshape(matrix.shape)))
        for shape, pairs in alike.items():
            count = len(pairs) if pairs[0][0].is_cuda else max(1, _TOGETHER // shape.numel())
            for first in range(0, len(pairs), count):
                self._step_alike(group, *zip(*pairs[first : first + count], strict=True))
        return result

    def _step_alike(self, group: dict[str, Any], matrices: Sequence[Tensor], grads: Sequence[Tensor]) -> None:
        """Step matrices of one shape."""
        for matrix in matrices:
            if "momentum_buffer" not in self.state[matrix]:
                self.state[matrix]["momentum_buffer"] = torch.zeros_like(matrix)
        momenta = [self.state[matrix]["momentum_buffer"] for matrix in matrices]
        torch._foreach_lerp_(momenta, list(grads), 1 - group["momentum"])
        updates = torch.stack(torch._foreach_lerp(list(grads), momenta, group["momentum"]))  # Nesterov's look ahead
        updates = orthogonalized(updates, group["ns_coefficients"], group["ns_steps"], group["eps"])
        rate = group["lr"] * 0.2 * math.sqrt(max(matrices[0].shape))
        torch._foreach_mul_(list(matrices), 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(list(matrices), list(updates), alpha=-rate)


def orthogonalized(
    matrices: Tensor, coefficients: tuple[float, float, float], iterations: int, least_norm: float
) -> Tensor:
    """Matrices with all singular values near 1: Newton-Schulz iterations of the quintic a x + b x^3 + c x^5.

    An iteration multiplies X by p = a + b G + c G^2, where G = X X^T; p and G commute, so the next G is p G p. The
    iterations therefore run on G alone, as large as the shorter side, and X meets the product of all p once: for the
    kernels of a UNet a third of the work. Float32, as rounding grows with a^2 an iteration (some 1e-4 after five).

    Args:
        matrices: `[N, rows, columns]`.
        coefficients: a, b, c.
        iterations: How often, at least once.
        least_norm: What a norm is taken for at the least.

    Returns:
        float32 of the same shape.
    """
    wide = matrices.float()
    is_tall = wide.shape[1] > wide.shape[2]
    if is_tall:
        wide = wide.mT
    wide = wide / wide.flatten(1).norm(dim=1).clamp(min=least_norm)[:, None, None]
    gram = torch.bmm(wide, wide.mT)
    product = factor = _quintic_factor(gram, coefficients)
    for _ in range(iterations - 1):
        gram = torch.bmm(torch.bmm(factor, gram), factor)
        factor = _quintic_factor(gram, coefficients)
        product = torch.bmm(factor, product)
    wide = torch.bmm(product, wide)
    return wide.mT if is_tall else wide


def _quintic_factor(gram: Tensor, coefficients: tuple[float, float, float]) -> Tensor:
    """What an iteration multiplies by: a + b G + c G^2."""
    a, b, c = coefficients
    factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    factor.diagonal(dim1=1, dim2=2).add_(a)
    return factor
