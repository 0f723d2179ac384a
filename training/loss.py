"""The one-step depth loss, on the engine's own preconditioner and codec."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from depth_engine.codec import PatchCodec
from depth_engine.denoise import precondition
from depth_engine.unet import DepthUNet


@dataclass(frozen=True)
class OneStepModel:
    """The UNet with what it needs around it to predict depth in one call from zero noise.

    Attributes:
        unet: The network.
        codec: Pixels <-> latents.
        sigma: Noise level of new frames.
        context_c_noise: c_noise that flags clean context frames.
        added_time_ids: Micro-conditioning, three numbers.
        bfloat16: Run the network under autocast.
    """

    unet: DepthUNet
    codec: PatchCodec
    sigma: float
    context_c_noise: float
    added_time_ids: tuple[float, float, float]
    bfloat16: bool = False

    def predict(self, rgb: Tensor, context: Tensor) -> Tensor:
        """Depth pixels of the new frames.

        Args:
            rgb: `[B, T, 3, H, W]` in [-1, 1], context frames first.
            context: Known depth of the first k frames, `[B, k, H, W]` in [-1, 1]; k may be 0.

        Returns:
            `[B, T - k, H, W]`, unclipped.
        """
        batch, frames = rgb.shape[:2]
        known = context.shape[1]
        condition = self.codec.encode_rgb(rgb.flatten(0, 1)).unflatten(0, (batch, frames))
        state = condition.new_zeros(batch, frames - known, self.codec.depth_channels, *condition.shape[-2:])

        scalings = precondition(torch.tensor(self.sigma, device=rgb.device))
        noisy = scalings.c_in * state
        if known:
            context_latents = self.codec.encode_depth(context.flatten(0, 1)).unflatten(0, (batch, known))
            noisy = torch.cat([context_latents, noisy], dim=1)
        c_noise = scalings.c_noise.expand(batch, frames).clone()
        c_noise[:, :known] = self.context_c_noise
        embedding = rgb.new_zeros(batch, 1, self.unet.config.cross_attention_dim)  # type: ignore[attr-defined]
        time_ids = rgb.new_tensor(self.added_time_ids).expand(batch, 3)
        with torch.autocast(rgb.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            output = self.unet(torch.cat([condition, noisy], dim=2), c_noise, embedding, time_ids).float()
        denoised = scalings.c_skip * state + scalings.c_out * output[:, known:]
        return self.codec.decode_pixels(denoised.flatten(0, 1)).unflatten(0, (batch, frames - known))


def align(prediction: Tensor, target: Tensor) -> Tensor:
    """The prediction after one least-squares scale and shift per clip onto the target.

    The scale-and-shift-invariant loss of MiDaS (arXiv 1907.01341, section 5), over a clip in place of an image. The fit
    is part of the graph. Its scale is kept in [0.2, 5]: an untrained prediction has hardly any variance to divide by.

    Args:
        prediction: `[B, T, H, W]`.
        target: `[B, T, H, W]`.
    """
    given, truth = prediction.flatten(1), target.flatten(1)
    given_mean, truth_mean = given.mean(1, keepdim=True), truth.mean(1, keepdim=True)
    covariance = ((given - given_mean) * (truth - truth_mean)).mean(1, keepdim=True)
    scale = (covariance / given.var(1, unbiased=False, keepdim=True).clamp_min(1e-4)).clamp(0.2, 5)
    return ((given - given_mean) * scale + truth_mean).view_as(prediction)


def depth_loss(
    prediction: Tensor,
    target: Tensor,
    last_known: Tensor | None,
    *,
    affine_weight: float,
    gradient_weight: float,
    temporal_weight: float,
) -> Tensor:
    """L1 on pixels as they are and after alignment, on spatial differences, and on frame-to-frame differences.

    Args:
        prediction: `[B, T, H, W]`.
        target: `[B, T, H, W]`.
        last_known: Target of the frame before the first, `[B, 1, H, W]`, or None: ties the seam.
        affine_weight: Weight of the loss after alignment, where it is free of scale and shift.
        gradient_weight: Weight of the spatial differences at four scales, after alignment.
        temporal_weight: Weight of the frame-to-frame differences.
    """
    error = prediction - target
    aligned_error = align(prediction, target) - target
    loss = error.abs().mean() + affine_weight * aligned_error.abs().mean()
    for step in (1, 2, 4, 8):
        across = (aligned_error[..., step:] - aligned_error[..., :-step]).abs().mean()
        down = (aligned_error[..., step:, :] - aligned_error[..., :-step, :]).abs().mean()
        loss = loss + gradient_weight * (across + down) / 8
    # The known frame has no error, so a step in the error at the seam is a step in the depth.
    series = error if last_known is None else torch.cat([torch.zeros_like(last_known), error], dim=1)
    if series.shape[1] > 1:
        loss = loss + temporal_weight * (series[:, 1:] - series[:, :-1]).abs().mean()
    return loss
