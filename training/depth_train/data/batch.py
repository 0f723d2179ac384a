"""From clips with depth to what the network is trained on: normalised, cut, mirrored, recoloured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from depth_engine.models.svd.codec import to_pixels
from depth_train.config import Augmentation
from depth_train.data.clip_pool import Clips
from depth_train.data.draws import uniform, whole

# Marigold's quantiles (config/train_marigold_depth.yaml), taken per clip so that one scale holds for all its frames.
LOW_QUANTILE, HIGH_QUANTILE = 0.02, 0.98


class Batch(NamedTuple):
    """What one step sees.

    Attributes:
        rgb: `[B, T, 3, H, W]` in [-1, 1].
        target: Normalised depth or disparity `[B, T, H, W]` in [-1, 1]; where it is not known, -1 or 1: as if far.
        valid: bool `[B, T, H, W]`.
    """

    rgb: Tensor
    target: Tensor
    valid: Tensor


def normalize(depth_m: Tensor, valid: Tensor, kind: Literal["disparity", "depth"]) -> Tensor:
    """Depth or disparity of clips, affine-normalised: 2 % and 98 % quantiles of valid pixels at -1 and 1, clipped.

    Sky, and what is not valid, counts as infinitely far: disparity -1, depth 1. Nothing odd reaches the codec then.

    Args:
        depth_m: Planar depth `[B, T, H, W]`; sky is inf.
        valid: bool `[B, T, H, W]`.
        kind: Which of the two.
    """
    far = ~valid | ~torch.isfinite(depth_m)
    values = depth_m.masked_fill(far, torch.inf)
    values = values.reciprocal() if kind == "disparity" else values
    normalized = torch.empty_like(values)
    for clip, (held, known) in enumerate(zip(values, valid, strict=True)):
        # Every fourth pixel is plenty for a quantile, and torch.quantile takes 16 M values at the most.
        some = held[:, ::4, ::4][known[:, ::4, ::4]]
        some = some[torch.isfinite(some)]
        if len(some) == 0:
            some = held.new_zeros(1)
        low, high = torch.quantile(some, some.new_tensor([LOW_QUANTILE, HIGH_QUANTILE]))
        normalized[clip] = ((held - low) / (high - low).clamp_min(1e-6)).clamp(0, 1) * 2 - 1
    return normalized


def make_batch(
    clips: Clips,
    kind: Literal["disparity", "depth"],
    multiple: int,
    augmentation: Augmentation,
    step_rng: torch.Generator,
    clip_rngs: Sequence[torch.Generator],
) -> Batch:
    """Cut, normalise and augment.

    Args:
        clips: From the pool.
        kind: What is predicted.
        multiple: Sides of the cut are divisible by it, pixels.
        augmentation: How to vary them.
        step_rng: Draws the cut's size, alike for all clips of the step.
        clip_rngs: One per clip.
    """
    cut = crop(clips, multiple, augmentation, step_rng, clip_rngs)
    target = normalize(cut.depth_m, cut.valid, kind)
    return augment(Batch(to_pixels(cut.rgb.movedim(-1, 2)), target, cut.valid), augmentation, clip_rngs)


def crop(
    clips: Clips,
    multiple: int,
    augmentation: Augmentation,
    step_rng: torch.Generator,
    clip_rngs: Sequence[torch.Generator],
) -> Clips:
    """Cut now and then a batch to another shape, down to two thirds of one side."""
    size = list(clips.depth_m.shape[2:])
    if uniform(step_rng) < augmentation.cut:
        side = whole(step_rng, 0, 1)
        least = -(-size[side] * 2 // (3 * multiple))  # two thirds, rounded up
        size[side] = multiple * whole(step_rng, least, size[side] // multiple)
    parts = []
    for rgb, depth_m, valid, cameras, rng in zip(*clips, clip_rngs, strict=True):
        top, left = (whole(rng, 0, held - kept) for held, kept in zip(depth_m.shape[1:], size, strict=True))
        rows, columns = slice(top, top + size[0]), slice(left, left + size[1])
        # The cut's pixel (0, 0) is the clip's (left, top).
        corner = cameras.new_tensor([[1, 0, left], [0, 1, top], [0, 0, 1]])
        moved = torch.cat([cameras[:, :, :3] @ corner, cameras[:, :, 3:]], dim=2)
        parts.append((rgb[:, rows, columns], depth_m[:, rows, columns], valid[:, rows, columns], moved))
    return Clips(*(torch.stack(part) for part in zip(*parts, strict=True)))


def augment(batch: Batch, augmentation: Augmentation, clip_rngs: Sequence[torch.Generator]) -> Batch:
    """Mirror all; jitter the colours of RGB alone, alike over a clip."""
    parts = []
    for rgb, target, valid, rng in zip(*batch, clip_rngs, strict=True):
        if uniform(rng) < augmentation.mirror:
            rgb, target, valid = rgb.flip(-1), target.flip(-1), valid.flip(-1)
        gain = torch.tensor([uniform(rng, 0.8, 1.25) for _ in range(3)])[:, None, None].to(rgb)
        offset, saturation, noise = uniform(rng, -0.15, 0.15), uniform(rng, 0, 1.3), uniform(rng, 0, 1)
        if augmentation.colour:
            grey = rgb.mean(dim=1, keepdim=True)
            rgb = (grey + (rgb - grey) * saturation) * gain + offset
        if augmentation.noise:
            rgb = rgb + torch.randn(rgb.shape, generator=rng).to(rgb) * (noise * augmentation.noise)
        parts.append((rgb.clamp(-1, 1), target, valid))
    return Batch(*(torch.stack(part) for part in zip(*parts, strict=True)))
