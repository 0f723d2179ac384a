"""The two objectives: denoise depth latents at random noise levels, or predict depth from nothing in one call.

Both go through the engine's own preconditioner, codec and channel order, so what is trained is what runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from depth_engine.models.loading import CheckpointFiles
from depth_engine.models.svd.codec import Codec, PatchCodec
from depth_engine.models.svd.denoise import precondition, unet_input
from depth_engine.models.svd.embed import Embedder
from depth_engine.models.svd.spec import CheckpointSpec
from depth_train.config import Stage, TrainConfig
from depth_train.data.batch import Batch
from depth_train.data.draws import uniform, whole
from depth_train.tasks.loss import depth_loss, masked_mean
from depth_train.tasks.task import Part, StepDraw, TrainedModel

# Of a context's error, the share that the target of each new frame keeps of the frame before it: half after seven.
CARRIED = 0.9
# The error is blurred over this share of the picture's shorter side.
BLUR_SHARE = 6
# Standard deviation of the uneven error that true context is given; depth is in [-1, 1].
UNEVEN = 0.08


@dataclass
class DepthModel(TrainedModel):
    """The UNet, `trained`, with what it needs around it.

    Attributes:
        codec: Pixels <-> latents, frozen.
        embedder: Frames -> embeddings, frozen.
        spec: What the checkpoint will say of itself.
        sigma: Noise level of one-step predictions.
        bfloat16: Run the network under autocast.
        base: The SVD that it belongs to.
    """

    codec: Codec
    embedder: Embedder
    spec: CheckpointSpec
    sigma: float
    bfloat16: bool = False
    base: CheckpointFiles | None = None

    @property
    def copied_base(self) -> CheckpointFiles | None:
        """The SVD that it belongs to."""
        return self.base

    def denoise(self, rgb: Tensor, context: Tensor, noisy: Tensor, sigma: Tensor) -> Tensor:
        """Denoised depth latents of the new frames.

        Args:
            rgb: `[B, T, 3, H, W]` in [-1, 1], context frames first.
            context: Clean latents of the first k frames, `[B, k, C, h, w]`; k may be 0.
            noisy: Latents of the others, `[B, T - k, C, h, w]`.
            sigma: Their noise levels, `[B, T - k]`.
        """
        batch, frames = rgb.shape[:2]
        with torch.no_grad():
            condition = self.codec.encode_rgb(rgb.flatten(0, 1)).unflatten(0, (batch, frames))
            embedding = self.embedder(rgb.flatten(0, 1)).unflatten(0, (batch, frames)).to(rgb)
        scalings = precondition(sigma)
        scaled = torch.cat([context, scalings.scale(noisy)], dim=1)
        c_noise = torch.cat([sigma.new_full(context.shape[:2], self.spec.context_c_noise), scalings.c_noise], dim=1)
        sample = unet_input(scaled, condition, condition_first=self.spec.condition_first)
        time_ids = rgb.new_tensor(self.spec.added_time_ids).expand(batch, 3)
        with torch.autocast(rgb.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            output = self.trained(sample, c_noise, embedding, time_ids).float()[:, context.shape[1] :]
        return scalings.denoise(noisy, output)

    def encode(self, depth: Tensor) -> Tensor:
        """Latents `[B, T, C, h, w]` of depth pixels `[B, T, H, W]` in [-1, 1]."""
        batch, frames, height, width = depth.shape
        if frames == 0:
            side = self.codec.downscale
            return depth.new_zeros(batch, 0, self.codec.depth_channels, height // side, width // side)
        with torch.no_grad():
            return self.codec.encode_depth(depth.flatten(0, 1)).unflatten(0, (batch, frames))

    def predict(self, rgb: Tensor, context: Tensor) -> Tensor:
        """Depth pixels of the new frames in one call from zero noise, `[B, T - k, H, W]`, unclipped.

        Args:
            rgb: `[B, T, 3, H, W]` in [-1, 1], context frames first.
            context: Known depth of the first k frames, `[B, k, H, W]` in [-1, 1]; k may be 0.
        """
        latents = self.encode(context)
        batch, known = context.shape[:2]
        new = rgb.shape[1] - known
        state = latents.new_zeros(batch, new, *latents.shape[2:])
        denoised = self.denoise(rgb, latents, state, state.new_full((batch, new), self.sigma))
        if isinstance(self.codec, PatchCodec):
            return self.codec.decode_pixels(denoised.flatten(0, 1)).unflatten(0, denoised.shape[:2])
        # Clip by clip: a temporal decoder mixes the frames that it is given together.
        return torch.stack([self.codec.decode_pixels(clip) for clip in denoised])


def follow_context(target: Tensor, context: Tensor, valid: Tensor) -> Tensor:
    """The target in the scale and shift that the context already has, so that the model learns to go on in it.

    One least-squares fit per clip over the context frames; the scale is held near 1, or else a flat context would teach
    flat depth.

    Args:
        target: Normalised truth, `[B, T, H, W]`.
        context: Depth of the first k frames as given to the model, `[B, k, H, W]`.
        valid: bool `[B, T, H, W]`: where the truth is known.
    """
    known = context.shape[1]
    weight = valid[:, :known].to(target.dtype).flatten(1)
    weight = weight / weight.sum(1, keepdim=True).clamp_min(1)
    truth, given = target[:, :known].flatten(1), context.flatten(1)
    truth_mean, given_mean = ((values * weight).sum(1, keepdim=True) for values in (truth, given))
    covariance = ((truth - truth_mean) * (given - given_mean) * weight).sum(1, keepdim=True)
    variance = ((truth - truth_mean) ** 2 * weight).sum(1, keepdim=True)
    scale = (covariance / variance.clamp_min(1e-4)).clamp(0.85, 1.15)
    shift = given_mean - scale * truth_mean
    return target * scale[..., None, None] + shift.clamp(-0.2, 0.2)[..., None, None]


def carry_error(target: Tensor, context: Tensor, valid: Tensor) -> Tensor:
    """The target of the new frames with what the context has wrong in the large, fading from frame to frame.

    Without it the truth asks for a jump where the context ends. Only a blurred error is carried: it stays in place
    while the picture moves, so anything finer would leave ghosts.

    Args:
        target: Truth in the context's scale and shift, `[B, T, H, W]`.
        context: Depth of the first k frames as given to the model, `[B, k, H, W]`.
        valid: bool `[B, T, H, W]`: where the truth is known.
    """
    known = context.shape[1]
    error = _blurred(context[:, -1] - target[:, known - 1], valid[:, known - 1])[:, None]
    new = target.shape[1] - known
    fading = CARRIED ** torch.arange(1, new + 1, dtype=target.dtype, device=target.device)
    return torch.cat([target[:, :known] + error, target[:, known:] + error * fading[:, None, None]], dim=1)


def _blurred(values: Tensor, valid: Tensor) -> Tensor:
    """Means around each pixel of those that are valid, `[B, H, W]`; 0 where there is none."""
    side = 2 * (min(values.shape[1:]) // (2 * BLUR_SHARE)) + 1
    weight = valid.to(values.dtype)[:, None]
    for _ in range(2):  # twice a box: no corners
        total, share = (
            F.avg_pool2d(part, side, 1, side // 2, count_include_pad=False)
            for part in (values[:, None] * weight, weight)
        )
        values, weight = (total / share.clamp_min(1e-6))[:, 0], (share > 0).to(values.dtype)
    return values


def _uneven(shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """A smooth field `[H, W]` as a context may be wrong: here too near, there too far."""
    coarse = torch.randn(1, 1, 3, 5, generator=rng) * UNEVEN
    return F.interpolate(coarse, size=shape, mode="bicubic", align_corners=True)[0, 0]


def _drawn_levels(limits: tuple[float, float], rngs: Sequence[torch.Generator]) -> Tensor:
    """A level for each clip, `[B]`: halving is as likely as doubling where `limits` allow both."""
    lowest, highest = (math.log(limit) for limit in limits)
    return torch.tensor([uniform(rng, lowest, highest) for rng in rngs]).exp()


def at_level(depth: Tensor, level: Tensor) -> Tensor:
    """Depth in [-1, 1] times `level`, counted from -1, its zero.

    Args:
        depth: `[B, T, H, W]`.
        level: `[B]`.
    """
    return (depth + 1) * level[:, None, None, None] - 1


def draw_step(stage: Stage, config: TrainConfig, rng: torch.Generator) -> StepDraw:
    """Draw length and context of a step."""
    frames = whole(rng, stage.min_frames, stage.max_frames)
    known = whole(rng, 1, frames - 1) if frames > 1 and uniform(rng) < config.context.probability else 0
    own = uniform(rng) < config.context.own_probability
    return StepDraw(frames, known, own and stage.objective == "one_step")


def step_loss(model: DepthModel, part: Part[Batch], config: TrainConfig) -> Tensor:
    """Loss of a batch under the stage's objective."""
    loss = diffusion_loss if part.stage.objective == "diffusion" else one_step_loss
    return loss(model, part.batch, part.draw, config, part.rngs)


def draw_sigma(frames: int, config: TrainConfig, rngs: Sequence[torch.Generator]) -> Tensor:
    """Noise levels `[B, frames]`: ln sigma is normal, one per clip or one per frame."""
    levels = [
        torch.randn(frames if config.diffusion.noise_per_frame else 1, generator=rng).expand(frames) for rng in rngs
    ]
    return (config.diffusion.p_mean + config.diffusion.p_std * torch.stack(levels)).exp()


def noise_weight(sigma: Tensor, config: TrainConfig) -> Tensor:
    """Weight of the squared error of denoised latents: (1 + sigma^2) / sigma^2, or min-SNR's; see `diffusion_loss`."""
    snr = sigma**-2
    return snr.clamp_max(config.diffusion.min_snr) if config.diffusion.min_snr else 1 + snr


def diffusion_loss(
    model: DepthModel, batch: Batch, draw: StepDraw, config: TrainConfig, rngs: Sequence[torch.Generator]
) -> Tensor:
    """Squared error of denoised latents, weighted by (1 + sigma^2) / sigma^2 (ChronoDepth, arXiv 2406.01493).

    ln sigma is normal, one per clip or one per frame; the first `draw.known` frames are given clean, as the `context`
    strategy gives them. That weight is the squared error of the v-prediction; min-SNR (arXiv 2303.09556) replaces it by
    min(SNR, gamma), SNR = 1 / sigma^2.
    """
    clean = model.encode(batch.target)
    context, new = clean[:, : draw.known], clean[:, draw.known :]
    count = new.shape[1]
    sigma = draw_sigma(count, config, rngs).to(new)
    noise = torch.stack([torch.randn(new.shape[1:], generator=rng) for rng in rngs]).to(new)
    denoised = model.denoise(batch.rgb, context, new + sigma[..., None, None, None] * noise, sigma)
    weight = noise_weight(sigma, config)
    # A latent counts if all pixels under it are known.
    unknown = (~batch.valid[:, draw.known :]).float()
    known = F.max_pool2d(unknown, model.codec.downscale) == 0
    error = ((denoised - new) ** 2).mean(dim=2) * weight[..., None, None]
    return masked_mean(error, known)


def one_step_loss(
    model: DepthModel, batch: Batch, draw: StepDraw, config: TrainConfig, rngs: Sequence[torch.Generator]
) -> Tensor:
    """Loss of decoded depth: without context, with true context, or with the model's own prediction as context."""
    target, known = batch.target, draw.known
    if known and draw.own:
        with torch.no_grad():
            context = model.predict(batch.rgb[:, :known], target[:, :0]).clamp(-1, 1)
        target = carry_error(follow_context(target, context, batch.valid), context, batch.valid)
    else:
        if known:  # a window before this one may have settled on another scale and shift, and not everywhere the same
            scale = torch.tensor([uniform(rng, 0.9, 1.1) for rng in rngs])
            shift = torch.tensor([float(torch.randn((), generator=rng)) * 0.1 for rng in rngs]).clamp(-0.2, 0.2)
            target = target * scale.to(target)[:, None, None, None] + shift.to(target)[:, None, None, None]
        context = target[:, :known]
        if known:
            field = torch.stack([_uneven(target.shape[2:], rng) for rng in rngs]).to(target)
            context = context + field[:, None]
            target = carry_error(target, context, batch.valid)
    if known and config.context.level != (1.0, 1.0):
        level = _drawn_levels(config.context.level, rngs).to(target)
        target, context = at_level(target, level), at_level(context, level)
    prediction = model.predict(batch.rgb, context)
    seam = slice(known - 1, known)
    last = (context[:, -1:] - target[:, seam], batch.valid[:, seam]) if known else None
    return depth_loss(prediction, target[:, known:], batch.valid[:, known:], last, config)
