"""A depth loss for NeRF training that asks of estimated depth only what it knows.

Video depth is right up to a scale and shift of its disparity. Export aligns the clip as a whole; what is left differs
from frame to frame. So each frame's rendered disparity is brought to the estimate by its own scale and shift before the
two are compared (as MonoSDF does for depth; Yu et al., NeurIPS 2022, eq. 14), held near (1, 0) by a prior: freely
fitted, a surface anywhere would do. At depth borders the estimate is soft and a little off: it counts little there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Residuals above about this share of the mean disparity count linearly: a wrong place must not outvote the others.
_ROBUST_SHARE = 0.05
# A pixel whose surroundings differ in disparity by this share counts a quarter.
_BORDER_SHARE = 0.15
_BORDER_REACH = 2  # pixels
_SCALE_RANGE = (0.2, 5.0)


def rendered_disparity(weights: Tensor, distance: Tensor, directions_norm: Tensor) -> Tensor:
    """Expected planar disparity `[R]` of rays; what a ray does not hit is infinitely far, disparity 0.

    The expected distance instead would hang on the farthest samples, which lie at a thousand scene sizes.

    Args:
        weights: Of the samples along each ray `[R, S]`, their sum at most 1.
        distance: Of the samples from the camera `[R, S]`, Euclidean, above 0.
        directions_norm: Euclidean length of a step of 1 along the optical axis `[R]`.
    """
    return (weights / distance.clamp_min(1e-6)).sum(dim=1) * directions_norm


def depth_confidence(depth: Tensor) -> Tensor:
    """How far a depth picture can be trusted at each pixel: float32 in [0, 1], 0 where there is no depth.

    Args:
        depth: Planar depth `[H, W]`, 0 = unknown.
    """
    known = depth > 0
    disparity = torch.where(known, 1 / depth.clamp_min(1e-9), torch.zeros_like(depth))
    size = 2 * _BORDER_REACH + 1

    def largest(values: Tensor) -> Tensor:
        return F.max_pool2d(values[None, None], size, 1, _BORDER_REACH)[0, 0]

    high = largest(disparity)
    low = -largest(torch.where(known, -disparity, torch.full_like(disparity, -torch.inf)))
    spread = torch.where(known, (high - low) / disparity.clamp_min(1e-12), torch.zeros_like(depth))
    return torch.where(known, 1 / (1 + (spread / _BORDER_SHARE) ** 2) ** 2, torch.zeros_like(depth))


def affine_disparity_loss(rendered: Tensor, target: Tensor, confidence: Tensor, frame: Tensor, prior: float) -> Tensor:
    """Robust difference of rendered and estimated disparity, up to a scale and shift for each frame.

    Args:
        rendered: Disparity of rays `[R]`.
        target: Estimated disparity of the same rays `[R]`, in the same unit; anything where the confidence is 0.
        confidence: Weight of each ray `[R]`, from 0 up.
        frame: Frame of each ray, whole numbers `[R]`.
        prior: How strongly scale and shift are held at 1 and 0, as a share of the frame's rays; 0 leaves them free.

    Returns:
        A scalar, about the mean relative error of disparity; 0 if no ray has depth.
    """
    target = torch.where(confidence > 0, target, torch.zeros_like(target))
    total = confidence.sum()
    unit = (confidence * target).sum() / total.clamp_min(1e-12)
    if total <= 0 or unit <= 0:
        return rendered.sum() * 0
    scale, shift = _per_frame_fit(rendered.detach() / unit, target / unit, confidence, frame, prior)
    residual = scale * rendered / unit + shift - target / unit
    # Charbonnier: quadratic near 0, linear beyond.
    cost = torch.sqrt(residual**2 + _ROBUST_SHARE**2) - _ROBUST_SHARE
    return (confidence * cost).sum() / total


def _per_frame_fit(
    rendered: Tensor, target: Tensor, weight: Tensor, frame: Tensor, prior: float
) -> tuple[Tensor, Tensor]:
    """Scale and shift of each ray's frame `[R]`: least squares with a prior at (1, 0), disparities of mean 1."""
    _, group = torch.unique(frame, return_inverse=True)
    groups = int(group.max()) + 1

    def gathered(values: Tensor) -> Tensor:
        return torch.zeros(groups, dtype=values.dtype, device=values.device).index_add_(0, group, values)

    count = gathered(weight)
    hold = prior * count + 1e-6
    rr, r = gathered(weight * rendered**2) + hold, gathered(weight * rendered)
    rt, t = gathered(weight * rendered * target) + hold, gathered(weight * target)
    one = count + hold
    determinant = (rr * one - r * r).clamp_min(1e-9)
    scale = ((rt * one - r * t) / determinant).clamp(*_SCALE_RANGE)
    shift = (t - scale * r) / one
    return scale[group], shift[group]
