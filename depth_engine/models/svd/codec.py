"""Pixels <-> latents. Owns ranges, channel layout, scaling, chunks and dtype.

Spaces: RGB pixels `[T, 3, H, W]` in [-1, 1]; depth pixels `[T, H, W]` in [-1, 1]; condition latents (what the UNet sees
    of the RGB) and depth latents (what it denoises), both `[T, C, h, w]`. Latents are float32 whatever the codec
    computes in.

`VaeCodec` is SVD's VAE. `PatchCodec` lays the pixels of a square patch out as channels: lossless, no parameters, no
cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from depth_engine.models.loading import CheckpointFiles, load_model
from depth_engine.plain_data import read_json

if TYPE_CHECKING:
    from diffusers import AutoencoderKLTemporalDecoder

ToDepth = Literal["mean_then_clip", "clip_then_mean"]


class Codec(Protocol):
    """What the engine and the training ask of a codec."""

    downscale: int
    condition_channels: int
    depth_channels: int

    def encode_rgb(self, rgb: Tensor) -> Tensor:
        """Condition latents of RGB pixels."""
        ...

    def encode_depth(self, depth: Tensor) -> Tensor:
        """Depth latents of depth pixels in [-1, 1]."""
        ...

    def decode_depth(self, latents: Tensor) -> Tensor:
        """Depth in [0, 1], `[T, H, W]`, of one chunk of depth latents."""
        ...

    def decode_pixels(self, latents: Tensor) -> Tensor:
        """Depth pixels `[T, H, W]` of one chunk of depth latents, unclipped; differentiable."""
        ...


class PatchCodec:
    """Lossless and parameter-free: a `patch` x `patch` square of pixels becomes channels.

    Args:
        patch: Side of a patch in pixels.
    """

    def __init__(self, patch: int = 4) -> None:
        if patch < 1:
            raise ValueError(f"patch: {patch} is not accepted; give a side in pixels from 1 up")
        self.downscale = patch
        self.condition_channels = 3 * patch**2
        self.depth_channels = patch**2

    def encode_rgb(self, rgb: Tensor) -> Tensor:
        """`[T, 3, H, W]` in [-1, 1] -> `[T, 3 patch^2, H / patch, W / patch]`."""
        return F.pixel_unshuffle(rgb.float(), self.downscale)

    def decode_condition(self, condition: Tensor) -> Tensor:
        """Inverse of `encode_rgb`: `[T, 3, H, W]` in [-1, 1]."""
        return F.pixel_shuffle(condition.float(), self.downscale)

    def encode_depth(self, depth: Tensor) -> Tensor:
        """`[T, H, W]` in [-1, 1] -> `[T, patch^2, H / patch, W / patch]`."""
        return F.pixel_unshuffle(depth.float().unsqueeze(1), self.downscale)

    def decode_pixels(self, latents: Tensor) -> Tensor:
        """Inverse of `encode_depth`, unclipped: `[T, H, W]`."""
        return F.pixel_shuffle(latents.float(), self.downscale).squeeze(1)

    def decode_depth(self, latents: Tensor) -> Tensor:
        """Depth in [0, 1], `[T, H, W]`."""
        return (self.decode_pixels(latents) / 2 + 0.5).clamp(0, 1)


class VaeCodec:
    """SVD's VAE (`AutoencoderKLTemporalDecoder`).

    Frames are encoded one by one: the encoder treats them alike anyway, memory stays small, and the result cannot
    depend on how frames were batched. The condition is the posterior's mode, so that runs repeat.

    Args:
        vae: The VAE, on its device. float16 weights are turned to float32 where the config says they overflow.
        scale_condition: Multiply condition latents by the scaling factor (ChronoDepth) or not (SVD, DepthCrafter).
        to_depth: How three decoded channels become depth: ChronoDepth averages, then clips; DepthCrafter clips first.
    """

    def __init__(self, vae: AutoencoderKLTemporalDecoder, scale_condition: bool, to_depth: ToDepth) -> None:
        if vae.dtype == torch.float16 and vae.config.force_upcast:  # type: ignore[attr-defined]
            torch.nn.Module.to(vae, torch.float32)
        self.vae = vae
        self.scale_condition = scale_condition
        self.to_depth = to_depth
        self.scaling_factor = float(vae.config.scaling_factor)  # type: ignore[attr-defined]
        self.downscale = 2 ** (len(vae.config.block_out_channels) - 1)  # type: ignore[attr-defined]
        self.condition_channels = self.depth_channels = int(vae.config.latent_channels)  # type: ignore[attr-defined]

    def encode_rgb(self, rgb: Tensor) -> Tensor:
        """`[T, 3, H, W]` in [-1, 1] -> `[T, C, H / 8, W / 8]` for SVD."""
        latents = self._encode(rgb)
        return latents * self.scaling_factor if self.scale_condition else latents

    def encode_depth(self, depth: Tensor) -> Tensor:
        """`[T, H, W]` in [-1, 1], as three equal channels -> scaled latents."""
        return self._encode(depth.unsqueeze(1).expand(-1, 3, -1, -1)) * self.scaling_factor

    def decode_depth(self, latents: Tensor) -> Tensor:
        """Depth in [0, 1], `[T, H, W]`, of one chunk; the temporal decoder mixes the frames of a chunk."""
        pixels = self.decode_rgb(latents)
        if self.to_depth == "mean_then_clip":
            return (pixels.mean(dim=1).clamp(-1, 1) + 1) / 2
        return (pixels / 2 + 0.5).clamp(0, 1).mean(dim=1)

    def decode_pixels(self, latents: Tensor) -> Tensor:
        """Depth pixels `[T, H, W]` around [-1, 1] of one chunk: the channels' mean, unclipped."""
        return self.decode_rgb(latents).mean(dim=1)

    def decode_rgb(self, latents: Tensor) -> Tensor:
        """Pixels `[T, 3, H, W]` around [-1, 1] of one chunk of scaled latents, unclipped."""
        scaled = (latents / self.scaling_factor).to(self.vae.device, self.vae.dtype)
        return self.vae.decode(scaled, num_frames=len(latents)).sample.float()  # type: ignore[union-attr]

    def _encode(self, pixels: Tensor) -> Tensor:
        frames = pixels.to(self.vae.device, self.vae.dtype).split(1)
        modes = [self.vae.encode(frame).latent_dist.mode() for frame in frames]  # type: ignore[union-attr]
        return torch.cat(modes).float()


def load_codec(files: CheckpointFiles, dtype: torch.dtype, device: torch.device) -> Codec:
    """The codec of a checkpoint, frozen: its patch codec, or its base's VAE."""
    if files.codec_config:
        patch = read_json(files.codec_config).get("patch")
        if not isinstance(patch, int) or patch < 1:
            raise ValueError(f"{files.codec_config}: patch: {patch!r} is not accepted; a side in pixels, from 1 up, is")
        return PatchCodec(patch)
    from diffusers import AutoencoderKLTemporalDecoder

    # SVD's VAE overflows in float16, and says so in its config; load it wide at once.
    force_upcast = read_json(files.base / "vae" / "config.json").get("force_upcast", True)
    wide = torch.float32 if dtype == torch.float16 and force_upcast else dtype
    vae = load_model(AutoencoderKLTemporalDecoder, files.base / "vae", wide, device)
    return VaeCodec(vae, files.spec.scale_condition, files.spec.to_depth)


class ChunkedDecoder:
    """Decodes a shot's latents in chunks counted from its first frame, whatever the windows.

    Args:
        codec: Decodes a chunk.
        chunk: Frames per chunk (8 in both references).
        pending: Latents that an earlier run left waiting for their chunk.
    """

    def __init__(self, codec: Codec, chunk: int, pending: Tensor | None = None) -> None:
        self.codec = codec
        self.chunk = chunk
        self.pending = pending

    def push(self, latents: Tensor) -> list[Tensor]:
        """Take finished latents `[n, C, h, w]`; return the depth of each chunk that is now whole."""
        waiting = latents if self.pending is None else torch.cat([self.pending, latents])
        whole = len(waiting) // self.chunk * self.chunk
        self.pending = waiting[whole:].clone() if whole < len(waiting) else None
        return [self.codec.decode_depth(part) for part in waiting[:whole].split(self.chunk)] if whole else []

    def flush(self) -> list[Tensor]:
        """Decode what is left at the end of the shot."""
        rest, self.pending = self.pending, None
        return [] if rest is None else [self.codec.decode_depth(rest)]


def to_pixels(frames: Sequence | Tensor) -> Tensor:
    """RGB in [-1, 1] float32 of uint8 `[T, 3, H, W]`, or of float `[T, 3, H, W]` in [0, 1]."""
    rgb = torch.as_tensor(frames)
    if rgb.dtype == torch.uint8:
        return rgb.float().div_(255).mul_(2).sub_(1)
    return (rgb.float() * 2).sub_(1)
