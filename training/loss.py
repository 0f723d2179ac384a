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
    """

    unet: DepthUNet
    codec: PatchCodec
    sigma: float
    context_c_noise: float
    added_time_ids: tuple[float, float, float]

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
        output = self.unet(torch.cat([condition, noisy], dim=2), c_noise, embedding, time_ids)
        denoised = scalings.c_skip * state + scalings.c_out * output[:, known:]
        return self.codec.decode_pixels(denoised.flatten(0, 1)).unflatten(0, (batch, frames - known))


def depth_loss(
    prediction: Tensor, target: Tensor, last_known: Tensor | None, gradient_weight: float, temporal_weight: float
) -> Tensor:
    """L1 on pixels, on spatial differences at four scales, and on frame-to-frame differences.

    Args:
        prediction: `[B, T, H, W]`.
        target: `[B, T, H, W]`.
        last_known: Target of the frame before the first, `[B, 1, H, W]`, or None: ties the seam.
        gradient_weight: Weight of the spatial differences.
        temporal_weight: Weight of the frame-to-frame differences.
    """
    error = prediction - target
    loss = error.abs().mean()
    for step in (1, 2, 4, 8):
        across = (error[..., step:] - error[..., :-step]).abs().mean()
        down = (error[..., step:, :] - error[..., :-step, :]).abs().mean()
        loss = loss + gradient_weight * (across + down) / 8
    # The known frame has no error, so a step in the error at the seam is a step in the depth.
    series = error if last_known is None else torch.cat([torch.zeros_like(last_known), error], dim=1)
    if series.shape[1] > 1:
        loss = loss + temporal_weight * (series[:, 1:] - series[:, :-1]).abs().mean()
    return loss
