"""ChronoDepth and DepthCrafter written straight down the page, to hold `depth_engine` against.

Whole clips in memory, float32, loops over windows and steps, diffusers' own scheduler and blocks. Nothing here is fast
or shared with the engine: the only common ground is the checkpoint, the frames and the noise. The facts are those of
the two released pipelines (ChronoDepth `chronodepth_pipeline.py`, arXiv 2406.01493; DepthCrafter
`depth_crafter_ppl.py`, arXiv 2409.02095), with one deliberate difference: ChronoDepth's condition is the posterior's
mode, not a sample of it.

Noise is a function `noise(frame_index, draw, shape)` of standard normals: draw 0 is a frame's initial latent noise,
draw k >= 1 its re-noising at step k - 1 of `replacement`, draw -1 the noise added to its pixels.
"""

# diffusers annotates its lazy exports, configurations and `return_dict` outputs too loosely to check.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportArgumentType=false
from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLTemporalDecoder, EulerDiscreteScheduler, UNetSpatioTemporalConditionModel
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing
from torch import Tensor
from transformers import CLIPVisionModelWithProjection

Noise = Callable[[int, int, tuple[int, ...]], Tensor]

CONTEXT_C_NOISE = -4.0
"""The timestep that flags clean context latents (ChronoDepth's `sigma_epsilon`, which is a c_noise)."""

DECODE_CHUNK = 8
CLIP_SIZE = (224, 224)


@dataclass
class Parts:
    """The networks of one checkpoint, and how they are told of context.

    Attributes:
        clip_mean: Channel means of the feature extractor, `[1, 3, 1, 1]`.
        clip_std: Channel standard deviations of the feature extractor, `[1, 3, 1, 1]`.
        context_c_noise: Timestep that flags the clean context latents of "context".
    """

    unet: UNetSpatioTemporalConditionModel
    vae: AutoencoderKLTemporalDecoder
    image_encoder: CLIPVisionModelWithProjection
    scheduler: EulerDiscreteScheduler
    clip_mean: Tensor
    clip_std: Tensor
    context_c_noise: float = CONTEXT_C_NOISE


def load_parts(svd_folder: str | Path, unet_folder: str | Path | None = None) -> Parts:
    """Load a checkpoint in float32 on the CPU; `unet_folder` holds another UNet to use instead of the SVD folder's."""
    svd_folder = Path(svd_folder)
    extractor = json.loads((svd_folder / "feature_extractor" / "preprocessor_config.json").read_text(encoding="utf-8"))
    return Parts(
        unet=UNetSpatioTemporalConditionModel.from_pretrained(unet_folder or svd_folder / "unet").eval(),
        vae=AutoencoderKLTemporalDecoder.from_pretrained(svd_folder / "vae").eval(),
        image_encoder=CLIPVisionModelWithProjection.from_pretrained(svd_folder / "image_encoder").eval(),
        scheduler=EulerDiscreteScheduler.from_pretrained(svd_folder / "scheduler"),
        clip_mean=torch.tensor(extractor["image_mean"]).view(1, 3, 1, 1),
        clip_std=torch.tensor(extractor["image_std"]).view(1, 3, 1, 1),
    )


@torch.no_grad()
def chronodepth(
    parts: Parts,
    frames: np.ndarray,
    *,
    mode: str,
    sampler: str,
    window: int,
    stride: int,
    steps: int,
    noise: Noise,
) -> np.ndarray:
    """Estimate depth as ChronoDepth does.

    Args:
        parts: The networks.
        frames: uint8 RGB `[T, H, W, 3]`, sides multiples of 64.
        mode: "independent", "replacement" or "context".
        sampler: "reference" steps on the scaled model input, as the released code does; "euler" on the state.
        window: Frames in a full window (the release's `n_tokens`).
        stride: New frames in each window but the first (the release's `chunk_size`).
        steps: Denoising steps.
        noise: Source of standard normals.

    Returns:
        Depth, far = large, float32 `[T, H, W]` in [0, 1].
    """
    num_frames = len(frames)
    pixels = _pixels(frames)
    condition = _posterior_mode(parts.vae, pixels) * parts.vae.config.scaling_factor
    zero_image = torch.zeros(1, 3, *CLIP_SIZE)
    embedding = parts.image_encoder((zero_image - parts.clip_mean) / parts.clip_std).image_embeds
    latent_shape = tuple(condition.shape[1:])

    depth_latents: list[Tensor] = []  # one [C, h, w] for each frame that is finished
    while len(depth_latents) < num_frames:
        done = len(depth_latents)
        if done == 0:
            start, end = 0, min(window, num_frames)
        else:
            end = min(done + stride, num_frames)
            start = max(0, end - window)
        overlap = done - start
        context = depth_latents[start:done]

        parts.scheduler.set_timesteps(steps)
        latents = torch.stack([noise(frame, 0, latent_shape) for frame in range(start, end)])
        latents = latents * parts.scheduler.init_noise_sigma

        for step, c_noise in enumerate(parts.scheduler.timesteps):
            frame_c_noise = torch.full((end - start,), float(c_noise))
            if mode == "replacement" and overlap:
                sigma = parts.scheduler.sigmas[step]
                for position in range(overlap):
                    fresh = noise(start + position, step + 1, latent_shape)
                    latents[position] = context[position] + sigma * fresh

            scaled = parts.scheduler.scale_model_input(latents, c_noise)
            network_latents = scaled.clone()
            if mode == "context" and overlap:
                network_latents[:overlap] = torch.stack(context)
                frame_c_noise[:overlap] = parts.context_c_noise

            network_input = torch.cat([condition[start:end], network_latents], dim=1)
            time_ids = torch.tensor([[6.0, 127.0, 0.0]]).repeat(end - start, 1)
            embeddings = embedding[:, None].repeat(end - start, 1, 1)
            v_prediction = unet_per_frame(parts.unet, network_input, frame_c_noise, embeddings, time_ids)

            stepped_on = scaled if sampler == "reference" else latents
            latents = parts.scheduler.step(v_prediction, c_noise, stepped_on).prev_sample

        # Context frames keep their first prediction, whatever this window made of them.
        depth_latents.extend(latents[overlap:])

    decoded = _decode(parts.vae, torch.stack(depth_latents))
    return ((decoded.mean(dim=1).clamp(-1, 1) + 1) / 2).numpy()


@torch.no_grad()
def depthcrafter(
    parts: Parts,
    frames: np.ndarray,
    *,
    window: int,
    stride: int,
    steps: int,
    noise: Noise,
    sampler: str = "euler",
    embedding_order: list[int] | None = None,
) -> np.ndarray:
    """Estimate disparity as DepthCrafter does.

    Args:
        parts: The networks.
        frames: uint8 RGB `[T, H, W, 3]`, sides multiples of 64.
        window: Frames in a full window.
        stride: Frames from one window's start to the next; the overlap is `window - stride`.
        steps: Denoising steps.
        noise: Source of standard normals. Draw 0 is asked for the positions of the first window only: later windows
            shuffle that array instead of drawing.
        sampler: "euler" (DepthCrafter's own) or "reference" (ChronoDepth's, see `chronodepth`).
        embedding_order: Frame whose CLIP embedding each frame gets; the frame itself by default.

    Returns:
        Disparity, near = large, float32 `[T, H, W]` in [0, 1].
    """
    num_frames = len(frames)
    pixels = _pixels(frames)
    embeddings = clip_embeddings(parts, pixels)
    if embedding_order is not None:
        embeddings = embeddings[embedding_order]
    noisy_pixels = pixels.clone()
    for frame in range(num_frames):
        noisy_pixels[frame] += 0.02 * noise(frame, -1, tuple(pixels.shape[1:]))
    condition = _posterior_mode(parts.vae, noisy_pixels)
    latent_shape = tuple(condition.shape[1:])

    if num_frames <= window:
        window, overlap = num_frames, 0
    else:
        overlap = window - stride
    blend = torch.linspace(0, 1, overlap).view(-1, 1, 1, 1)

    parts.scheduler.set_timesteps(steps)
    noise_array = torch.stack([noise(position, 0, latent_shape) for position in range(window)])
    noise_array = noise_array * parts.scheduler.init_noise_sigma

    disparity_latents = torch.empty(0, *latent_shape)
    start = 0
    while start < num_frames - overlap:
        end = min(start + window, num_frames)
        parts.scheduler.set_timesteps(steps)
        latents = noise_array[: end - start].clone()
        noise_array = torch.cat([noise_array[len(noise_array) - overlap :], noise_array[:stride]])

        if start > 0:
            unit_noise = latents[:overlap] / parts.scheduler.init_noise_sigma
            latents[:overlap] = disparity_latents[start:] + unit_noise * parts.scheduler.sigmas[0]

        for c_noise in parts.scheduler.timesteps:
            scaled = parts.scheduler.scale_model_input(latents, c_noise)
            network_input = torch.cat([scaled, condition[start:end]], dim=1)
            frame_c_noise = torch.full((end - start,), float(c_noise))
            time_ids = torch.tensor([[7.0, 127.0, 0.02]]).repeat(end - start, 1)
            v_prediction = unet_per_frame(
                parts.unet, network_input, frame_c_noise, embeddings[start:end, None], time_ids
            )
            stepped_on = scaled if sampler == "reference" else latents
            latents = parts.scheduler.step(v_prediction, c_noise, stepped_on).prev_sample

        if start == 0:
            disparity_latents = latents
        else:
            joined = latents[:overlap] * blend + disparity_latents[start:] * (1 - blend)
            disparity_latents = torch.cat([disparity_latents[:start], joined, latents[overlap:]])
        start += window - overlap

    decoded = _decode(parts.vae, disparity_latents)
    return (decoded / 2 + 0.5).clamp(0, 1).mean(dim=1).numpy()


@torch.no_grad()
def unet_per_frame(
    unet: UNetSpatioTemporalConditionModel,
    sample: Tensor,
    c_noise: Tensor,
    embeddings: Tensor,
    time_ids: Tensor,
) -> Tensor:
    """Run the UNet's own blocks on one clip with a noise level, an embedding and added ids for each frame.

    Args:
        unet: The network.
        sample: Network input `[T, C, h, w]`; h and w divisible by the UNet's total downscale.
        c_noise: Timestep of each frame, `[T]`.
        embeddings: CLIP embedding of each frame, `[T, 1, D]`.
        time_ids: Added time ids of each frame, `[T, 3]`.

    Returns:
        The v-prediction `[T, C_out, h, w]`.
    """
    num_frames = len(sample)
    added = unet.add_time_proj(time_ids.flatten()).reshape(num_frames, -1)
    time_embedding = unet.time_embedding(unet.time_proj(c_noise)) + unet.add_embedding(added)
    video = torch.zeros(1, num_frames)  # 0 everywhere: a video, not a set of images

    hidden = unet.conv_in(sample)
    skips = [hidden]
    for block in unet.down_blocks:
        if getattr(block, "has_cross_attention", False):
            hidden, outputs = block(hidden, time_embedding, embeddings, video)
        else:
            hidden, outputs = block(hidden, time_embedding, video)
        skips.extend(outputs)

    hidden = unet.mid_block(hidden, time_embedding, embeddings, video)

    for block in unet.up_blocks:
        block_skips = tuple(skips[-len(block.resnets) :])
        del skips[-len(block.resnets) :]
        if getattr(block, "has_cross_attention", False):
            hidden = block(
                hidden_states=hidden,
                res_hidden_states_tuple=block_skips,
                temb=time_embedding,
                encoder_hidden_states=embeddings,
                image_only_indicator=video,
            )
        else:
            hidden = block(
                hidden_states=hidden,
                res_hidden_states_tuple=block_skips,
                temb=time_embedding,
                image_only_indicator=video,
            )

    return unet.conv_out(unet.conv_act(unet.conv_norm_out(hidden)))


@torch.no_grad()
def clip_embeddings(parts: Parts, pixels: Tensor) -> Tensor:
    """CLIP image embeddings `[T, D]` of pixels `[T, 3, H, W]` in [-1, 1]."""
    images = (_resize_with_antialiasing(pixels, CLIP_SIZE) + 1) / 2
    return parts.image_encoder((images - parts.clip_mean) / parts.clip_std).image_embeds


def _pixels(frames: np.ndarray) -> Tensor:
    """Frames uint8 `[T, H, W, 3]` to pixels float32 `[T, 3, H, W]` in [-1, 1]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255 * 2 - 1


def _posterior_mode(vae: AutoencoderKLTemporalDecoder, pixels: Tensor) -> Tensor:
    return torch.cat([vae.encode(frame[None]).latent_dist.mode() for frame in pixels])


def _decode(vae: AutoencoderKLTemporalDecoder, latents: Tensor) -> Tensor:
    """Scaled latents `[T, C, h, w]` to pixels `[T, 3, H, W]`; the temporal layers see one chunk at a time."""
    unscaled = latents / vae.config.scaling_factor
    chunks = []
    for start in range(0, len(latents), DECODE_CHUNK):
        chunk = unscaled[start : start + DECODE_CHUNK]
        chunks.append(vae.decode(chunk, num_frames=len(chunk)).sample)
    return torch.cat(chunks)
