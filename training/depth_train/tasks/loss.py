"""Losses of predicted depth against the truth where it is known; each is the mean over clips of the clips' means."""

from __future__ import annotations

import torch
from torch import Tensor

from depth_train.config import TrainConfig

# Where disparity is near 0, relative error has no bound: weights stop growing at this share of the clip's range.
_FARTHEST_SHARE = 0.15


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Mean over each clip's valid elements, then over clips; 0 for a clip that has none.

    Args:
        values: `[B, ...]`.
        valid: bool of the same shape.
    """
    weight = valid.to(values.dtype).flatten(1)
    return ((values.flatten(1) * weight).sum(1) / weight.sum(1).clamp_min(1)).mean()


def align(prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """The prediction after one least-squares scale and shift per clip onto the target.

    The scale-and-shift-invariant loss of MiDaS (arXiv 1907.01341, section 5), over a clip in place of an image. The fit
    is part of the graph. Its scale is kept in [0.2, 5]: an untrained prediction has hardly any variance to divide by.

    Args:
        prediction: `[B, T, H, W]`.
        target: `[B, T, H, W]`.
        valid: bool `[B, T, H, W]`: what the fit looks at.
    """
    weight = valid.to(prediction.dtype).flatten(1)
    weight = weight / weight.sum(1, keepdim=True).clamp_min(1)
    given, truth = prediction.flatten(1), target.flatten(1)
    given_mean, truth_mean = ((values * weight).sum(1, keepdim=True) for values in (given, truth))
    covariance = ((given - given_mean) * (truth - truth_mean) * weight).sum(1, keepdim=True)
    variance = ((given - given_mean) ** 2 * weight).sum(1, keepdim=True)
    scale = (covariance / variance.clamp_min(1e-4)).clamp(0.2, 5)
    return ((given - given_mean) * scale + truth_mean).view_as(prediction)


def depth_loss(
    prediction: Tensor, target: Tensor, valid: Tensor, last: tuple[Tensor, Tensor] | None, config: TrainConfig
) -> Tensor:
    """L1 on pixels as they are and after alignment, on spatial differences, and on frame-to-frame differences.

    Args:
        prediction: `[B, T, H, W]`.
        target: `[B, T, H, W]`.
        valid: bool `[B, T, H, W]`.
        last: Error `[B, 1, H, W]` of the known frame before the first and where it is valid, or None: ties the seam.
        config: Its `affine_weight` weighs the loss after alignment, free of scale and shift; its `relative_weight` the
            same with far pixels weighted up; its `gradient_weight` the spatial differences at four scales, after
            alignment; its `temporal_weight` the frame-to-frame differences.
    """
    error = prediction - target
    aligned_error = align(prediction, target, valid) - target
    loss = masked_mean(error.abs(), valid) + config.loss.affine_weight * masked_mean(aligned_error.abs(), valid)
    if config.loss.relative_weight > 0:
        # Disparity in shares of the clip's range: its inverse weighs as relative error of depth does.
        weight = 1 / ((target + 1) / 2 + _FARTHEST_SHARE)
        weight = weight / weight.mean()
        loss = loss + config.loss.relative_weight * masked_mean(aligned_error.abs() * weight, valid)
    for step in (1, 2, 4, 8):
        across = (aligned_error[..., step:] - aligned_error[..., :-step]).abs()
        down = (aligned_error[..., step:, :] - aligned_error[..., :-step, :]).abs()
        across_mean = masked_mean(across, valid[..., step:] & valid[..., :-step])
        down_mean = masked_mean(down, valid[..., step:, :] & valid[..., :-step, :])
        loss = loss + config.loss.gradient_weight * (across_mean + down_mean) / 8
    # A step in the error at the seam is a step in the depth.
    series, known = error, valid
    if last is not None:
        series = torch.cat([last[0], error], dim=1)
        known = torch.cat([last[1], valid], dim=1)
    if series.shape[1] > 1:
        change = (series[:, 1:] - series[:, :-1]).abs()
        loss = loss + config.loss.temporal_weight * masked_mean(change, known[:, 1:] & known[:, :-1])
    return loss
