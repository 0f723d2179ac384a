"""Stable Diffusion 1.5 with a motion adapter and a depth ControlNet, through diffusers' AnimateDiff pipelines.

Within a window FreeNoise (arXiv 2310.15169) slides the motion modules' context over the frames and averages what they
say; the noise of later contexts is that of the first one, shuffled. Windows of a longer clip meet as `long_clips` says:
noise belongs to the frame, so both windows start the shared frames alike, and after each step their latents are drawn
towards the first window's, noised to the same level.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from depth2video.generators.catalogue import GENERATORS
from depth2video.generators.interface import Request
from depth2video.generators.long_clips import Span, share_of_new, spans
from depth2video.generators.pipelines import load_part, pictures, place, to_frames
from depth2video.generators.single_file import SCHEDULER
from depth2video.generators.words import load_tokenizer
from depth_engine.models.svd.noise import seeded_noise
from depth_engine.plain_data import read_json
from depth_engine.runs.pieces import Piece

# The motion adapters were trained on 16 frames; 4 is the step that FreeNoise's authors take.
CONTEXT, CONTEXT_STRIDE = 16, 4
_DECODE_FRAMES = 8  # at a time: the VAE takes more memory than the UNet where it gets all at once
# What every AnimateDiff checkpoint expects of DDIM, whatever the base's scheduler says.
_SCHEDULER = {
    "beta_schedule": "linear",
    "clip_sample": False,
    "timestep_spacing": "linspace",
    "steps_offset": 1,
}


class AnimateDiffGenerator:
    """Prompt and depth to video; see `generators.Generator`.

    Args:
        pipe: `AnimateDiffControlNetPipeline`, or `AnimateDiffVideoToVideoControlNetPipeline` for requests with a
            strength; with a deterministic scheduler, not placed yet.
        window: Frames per window.
        stride: New frames per window.
        device: Where it computes.
        offload: `none`, `model` or `sequential`.
    """

    size_multiple = GENERATORS["animatediff"].size_multiple

    def __init__(self, pipe: Any, *, window: int, stride: int, device: torch.device, offload: str = "none") -> None:
        self.pipe, self.window, self.stride = pipe, window, stride
        self.context = min(CONTEXT, pipe.motion_adapter.config["motion_max_seq_length"])
        # It makes new blocks, which offloading has to see. The window bounds memory; diffusers' split inference, which
        # bounds it further, fails with diffusers 0.42.
        pipe.enable_free_noise(context_length=self.context, context_stride=min(CONTEXT_STRIDE, self.context))
        place(pipe, device, offload)

    def generate(
        self, control: Iterator[np.ndarray], request: Request, *, state: dict[str, Tensor] | None
    ) -> Iterator[Piece]:
        """See `generators.Generator`."""
        if (request.image is None) != (self.pipe.image_encoder is None):
            wrong = "an IP-Adapter was loaded for it" if request.image is None else "no IP-Adapter was loaded"
            raise ValueError(f"image: {'is missing' if request.image is None else 'is of no use'}; {wrong}")
        done = int(state["windows_done"]) if state else 0
        held = state["latents"] if state else None
        for span in spans(_with_source(control, request), self.window, self.stride, done):
            latents = self._sample(span, request, held)
            held = latents[:, :, span.finished :].clone()
            done += 1
            yield Piece(
                self._decode(latents[:, :, : span.finished]),
                {"windows_done": torch.tensor(done), "latents": held},
            )

    def _sample(
        self, span: Span[tuple[np.ndarray, np.ndarray | None]], request: Request, held: Tensor | None
    ) -> Tensor:
        """Latents `[1, C, n, h, w]` of a window, float32 on the CPU."""
        spec, pipe = GENERATORS["animatediff"], self.pipe
        items = list(span.items)
        # FreeNoise wants a whole context; what a short clip lacks repeats its last frame and is dropped.
        items += [items[-1]] * (self.context - len(items))
        height, width = items[0][0].shape[:2]
        steps = request.steps or spec.steps
        noise = self._noise(request.seed, span.window.start, len(items), height, width)
        call: dict[str, Any] = {
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt,
            "height": height,
            "width": width,
            "num_inference_steps": steps,
            "guidance_scale": spec.guidance if request.guidance is None else request.guidance,
            "conditioning_frames": pictures(frame for frame, _ in items),
            "controlnet_conditioning_scale": float(request.control_scale),
            "control_guidance_start": request.control_start,
            "control_guidance_end": request.control_end,
            "output_type": "latent",
            "callback_on_step_end": None if held is None else self._draw_to(held, noise),
        }
        if request.image is not None:
            call["ip_adapter_image"] = pictures([request.image])[0]
        if request.strength is None:
            result = pipe(**call, num_frames=len(items), latents=noise.to(pipe.unet.dtype))
        else:
            source = self._encode([frame for _, frame in items if frame is not None])
            start = self._first_timestep(steps, request.strength)
            noisy = pipe.scheduler.add_noise(source, noise, start).to(pipe.unet.dtype)
            result = pipe(**call, strength=request.strength, latents=noisy)
        return result.frames[:, :, : len(span.items)].float().cpu()

    def _noise(self, seed: int, first: int, count: int, height: int, width: int) -> Tensor:
        """`[1, C, count, h, w]`: the first context's noise, its order shuffled anew every context stride."""
        shape = (
            self.pipe.unet.config["in_channels"],
            *(side // self.pipe.vae_scale_factor for side in (height, width)),
        )
        noise = seeded_noise(seed)
        frames = [noise(shuffled_frame(index, self.context, seed), 0, shape) for index in range(first, first + count)]
        return torch.stack(frames, dim=1)[None]

    def _first_timestep(self, steps: int, strength: float) -> Tensor:
        """Where the pipeline will begin with this strength."""
        self.pipe.scheduler.set_timesteps(steps)
        return self.pipe.scheduler.timesteps[steps - min(int(steps * strength), steps)].reshape(1)

    def _draw_to(self, held: Tensor, noise: Tensor) -> Callable[[Any, int, Any, dict[str, Tensor]], dict[str, Tensor]]:
        """After each step, draws the shared frames' latents towards those of the window before, equally noisy."""
        shared = held.shape[2]
        new = torch.from_numpy(share_of_new(shared))[:, None, None]

        def after_step(pipe: Any, step: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            latents = tensors["latents"]
            earlier, share = held.to(latents.device), new.to(latents)
            later = [entry for entry in pipe.scheduler.timesteps if entry < timestep]
            if later:
                same_noise = noise[:, :, :shared].to(latents.device)
                earlier = pipe.scheduler.add_noise(earlier, same_noise, later[0].reshape(1))
            latents[:, :, :shared] = (1 - share) * earlier.to(latents) + share * latents[:, :, :shared]
            return {"latents": latents}

        return after_step

    @torch.no_grad()
    def _encode(self, frames: list[np.ndarray]) -> Tensor:
        """Latents `[1, C, n, h, w]` of pictures: the mode, so that runs repeat."""
        vae = self.pipe.vae
        pixels = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 127.5 - 1
        device = self.pipe._execution_device
        modes = [vae.encode(part.to(device, vae.dtype)).latent_dist.mode().float().cpu() for part in pixels.split(1)]
        return vae.config["scaling_factor"] * torch.cat(modes).transpose(0, 1)[None]

    @torch.no_grad()
    def _decode(self, latents: Tensor) -> np.ndarray:
        """uint8 `[n, H, W, 3]`."""
        vae = self.pipe.vae
        scaled = latents[0].transpose(0, 1) / vae.config["scaling_factor"]
        device = self.pipe._execution_device
        parts = [vae.decode(part.to(device, vae.dtype)).sample for part in scaled.split(_DECODE_FRAMES)]
        return np.concatenate([to_frames(part) for part in parts])


def shuffled_frame(index: int, context: int, seed: int) -> int:
    """Frame of the first context whose noise a frame has.

    FreeNoise shuffles the noise of `CONTEXT_STRIDE` frames when it uses it again a context later (arXiv 2310.15169,
    section 3.2). The order is keyed by the block, so any window, in any process, finds the same.
    """
    stride = min(CONTEXT_STRIDE, context)
    if index < context:
        return index
    block = index // stride
    order = np.random.default_rng([seed, block]).permutation(stride)
    return block % max(1, context // stride) * stride + int(order[index % stride])


def _with_source(control: Iterator[np.ndarray], request: Request) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    if request.strength is None:
        return ((frame, None) for frame in control)
    if request.video is None:
        raise ValueError("video: is missing; strength goes with the source's frames")
    return zip(control, request.video, strict=False)


def load_animatediff(
    folders: Mapping[str, Path],
    *,
    window: int,
    stride: int,
    device: torch.device,
    dtype: torch.dtype,
    offload: str = "none",
    video_to_video: bool = False,
) -> AnimateDiffGenerator:
    """Load the parts and put them together.

    Args:
        folders: `base`, `motion_adapter`, `controlnet`, and `ip_adapter` where an image is to give the style; as
            `find_parts` gives them.
        window: Frames per window.
        stride: New frames per window.
        device: Where it computes.
        dtype: In which it computes.
        offload: `none`, `model` or `sequential`.
        video_to_video: Whether requests will have a strength.

    Raises:
        ValueError: A part is missing or does not fit its config.
    """
    from diffusers import (
        AnimateDiffControlNetPipeline,
        AnimateDiffVideoToVideoControlNetPipeline,
        AutoencoderKL,
        ControlNetModel,
        DDIMScheduler,
        MotionAdapter,
        UNet2DConditionModel,
        UNetMotionModel,
    )
    from transformers import CLIPTextModel, CLIPVisionModelWithProjection

    base = folders["base"]
    adapter = load_part(MotionAdapter, folders["motion_adapter"], dtype=dtype)
    unet = load_part(UNet2DConditionModel, base, "unet", dtype=dtype)
    pipeline: Any = AnimateDiffVideoToVideoControlNetPipeline if video_to_video else AnimateDiffControlNetPipeline
    motion_model: Any = UNetMotionModel
    pipe: Any = pipeline(
        vae=load_part(AutoencoderKL, base, "vae", dtype=dtype),
        text_encoder=load_part(CLIPTextModel, base, "text_encoder", dtype=dtype),
        tokenizer=load_tokenizer("animatediff", folders),
        unet=torch.nn.Module.to(motion_model.from_unet2d(unet, adapter), dtype),
        motion_adapter=adapter,
        controlnet=load_part(ControlNetModel, folders["controlnet"], dtype=dtype),
        scheduler=DDIMScheduler.from_config({**_trained_schedule(base), **_SCHEDULER}),
        # Given here, or `load_ip_adapter` would look for it under its full-precision name alone.
        image_encoder=load_part(
            CLIPVisionModelWithProjection, folders["ip_adapter"], "models/image_encoder", dtype=dtype
        )
        if "ip_adapter" in folders
        else None,
    )
    if "ip_adapter" in folders:
        pipe.load_ip_adapter(
            str(folders["ip_adapter"]),
            subfolder="models",
            weight_name="ip-adapter_sd15.safetensors",
            local_files_only=True,
        )
    return AnimateDiffGenerator(pipe, window=window, stride=stride, device=device, offload=offload)


def _trained_schedule(base: Path) -> dict[str, Any]:
    return SCHEDULER if base.is_file() else read_json(base / "scheduler" / "scheduler_config.json")
