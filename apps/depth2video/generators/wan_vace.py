"""Wan VACE with the depth as its control video, through diffusers' WanVACEPipeline.

Wan's VAE makes one latent of the first frame and one of every four after it, so windows are of 4 n + 1 frames; a short
one is padded with its last frame and trimmed. Windows of a longer clip meet as `long_clips` says. The shared frames go
in as they were made, with a black mask: VACE's own way to continue a clip. Windows start at multiples of four, so each
latent has the same frames, and the same noise, in both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from depth2video.generators.catalogue import GENERATORS
from depth2video.generators.interface import Request
from depth2video.generators.long_clips import Span, crossfade, spans
from depth2video.generators.pipelines import load_part, pictures, place, to_frames
from depth2video.generators.words import TOKENS, load_tokenizer
from depth_engine.models.svd.noise import seeded_noise
from depth_engine.models.weight_files import listed_parts
from depth_engine.plain_data import read_json
from depth_engine.runs.pieces import Piece

FRAMES_PER_LATENT = 4
# Wan's authors: 3 at 480p, 5 at 720p (README of Wan2.1); the border is between the two areas.
_SHIFT_480P, _SHIFT_720P, _BORDER_PIXELS = 3.0, 5.0, 900 * 600


class WanVaceGenerator:
    """Prompt, depth and perhaps a reference picture to video; see `generators.Generator`.

    Args:
        pipe: `WanVACEPipeline`, placed.
        window: Frames per window, 4 n + 1.
        stride: New frames per window, a multiple of 4 below it.
    """

    size_multiple = GENERATORS["wan-vace"].size_multiple

    def __init__(self, pipe: Any, *, window: int, stride: int) -> None:
        self.pipe, self.window, self.stride = pipe, window, stride
        self._model = pipe.transformer if pipe.transformer is not None else pipe.transformer_2

    def generate(
        self, control: Iterator[np.ndarray], request: Request, *, state: dict[str, Tensor] | None
    ) -> Iterator[Piece]:
        """See `generators.Generator`."""
        done = int(state["windows_done"]) if state else 0
        held = state["frames"].numpy() if state else None
        for span in spans(control, self.window, self.stride, done):
            frames = self._render(span, request, held)
            if held is not None:
                frames = crossfade(held, frames)
            held = frames[span.finished :]
            done += 1
            yield Piece(
                frames[: span.finished],
                {"windows_done": torch.tensor(done), "frames": torch.from_numpy(held.copy())},
            )

    def _render(self, span: Span[np.ndarray], request: Request, held: np.ndarray | None) -> np.ndarray:
        """uint8 `[n, H, W, 3]` of a window."""
        spec, pipe = GENERATORS["wan-vace"], self.pipe
        known = 0 if held is None else len(held)
        shown = [*(() if held is None else held), *span.items[known:]]
        shown += [shown[-1]] * (-(len(shown) - 1) % FRAMES_PER_LATENT)
        height, width = shown[0].shape[:2]
        self._set_shift(height * width)
        references = None if request.image is None else pictures([request.image])
        steps = request.steps or spec.steps
        layers = len(self._model.config["vace_layers"])
        scale = torch.zeros(layers, device=pipe._execution_device, dtype=self._model.dtype)
        latents = pipe(
            prompt=request.prompt,
            negative_prompt=request.negative_prompt,
            video=pictures(shown),
            mask=_masks(known, len(shown), height, width),
            reference_images=references,
            conditioning_scale=scale,
            height=height,
            width=width,
            num_frames=len(shown),
            num_inference_steps=steps,
            max_sequence_length=TOKENS["wan-vace"],
            guidance_scale=spec.guidance if request.guidance is None else request.guidance,
            latents=self._noise(request.seed, span.window.start, len(shown), height, width, references is not None),
            output_type="latent",
            callback_on_step_end=self._steer(request, scale, steps),
        ).frames
        return self._decode(latents[:, :, int(references is not None) :])[: len(span.items)]

    def _noise(self, seed: int, first: int, count: int, height: int, width: int, reference: bool) -> Tensor:
        """`[1, C, t, h, w]`, one draw for each latent frame of the clip; a reference's latent lies in front."""
        downscale = self.pipe.vae_scale_factor_spatial
        shape = (self._model.config["in_channels"], height // downscale, width // downscale)
        noise = seeded_noise(seed)
        first_latent = first // FRAMES_PER_LATENT
        frames = [noise(0, 1, shape)] if reference else []
        latent_count = (count - 1) // FRAMES_PER_LATENT + 1
        frames += [noise(index, 0, shape) for index in range(first_latent, first_latent + latent_count)]
        return torch.stack(frames, dim=1)[None]

    def _steer(self, request: Request, scale: Tensor, steps: int) -> Callable[..., dict]:
        """Switches control on and off between steps.

        The pipeline has no arguments for that, but it reads `scale`, which is on its device and of its dtype, anew at
        every step. Frames that are known come in by the same way: where control is off, only noise and the crossfade
        join the windows.
        """

        def switch(step: int) -> None:
            on = request.control_start <= step / steps and (step + 1) / steps <= request.control_end
            scale.fill_(request.control_scale if on else 0.0)

        def after_step(pipe: Any, step: int, timestep: Any, tensors: dict) -> dict:
            switch(step + 1)
            return {}

        switch(0)
        return after_step

    def _set_shift(self, pixels: int) -> None:
        scheduler = self.pipe.scheduler
        if "flow_shift" in scheduler.config:
            shift = _SHIFT_720P if pixels > _BORDER_PIXELS else _SHIFT_480P
            self.pipe.scheduler = type(scheduler).from_config(scheduler.config, flow_shift=shift)

    @torch.no_grad()
    def _decode(self, latents: Tensor) -> np.ndarray:
        vae = self.pipe.vae
        mean, std = (
            torch.tensor(vae.config[name], dtype=torch.float32, device=latents.device).view(1, -1, 1, 1, 1)
            for name in ("latents_mean", "latents_std")
        )
        pixels = vae.decode((latents.float() * std + mean).to(vae.dtype)).sample
        return to_frames(pixels[0].transpose(0, 1))


def _masks(known: int, count: int, height: int, width: int) -> list[Any]:
    """Black where frames are given, white where they are to be made."""
    from PIL import Image

    return [Image.new("L", (width, height), 0 if index < known else 255) for index in range(count)]


def load_wan_vace(
    folder: Path, *, window: int, stride: int, device: torch.device, dtype: torch.dtype, offload: str = "none"
) -> WanVaceGenerator:
    """Load a Wan VACE pipeline, of one transformer (2.1) or two (2.2).

    Args:
        folder: Local folder as diffusers saves the pipeline.
        window: Frames per window.
        stride: New frames per window.
        device: Where it computes.
        dtype: In which it computes; the VAE stays in float32, which it needs.
        offload: `none`, `model` or `sequential`.

    Raises:
        ValueError: A part is missing or does not fit its config.
    """
    import diffusers
    from diffusers import AutoencoderKLWan, WanVACEPipeline, WanVACETransformer3DModel
    from transformers import UMT5EncoderModel

    listed = listed_parts(folder)
    index = read_json(folder / "model_index.json")
    scheduler = getattr(diffusers, index["scheduler"][1])
    pipeline: Any = WanVACEPipeline
    pipe = pipeline(
        tokenizer=load_tokenizer("wan-vace", {"base": folder}),
        text_encoder=load_part(UMT5EncoderModel, folder, "text_encoder", dtype=dtype),
        vae=load_part(AutoencoderKLWan, folder, "vae", dtype=torch.float32),
        scheduler=scheduler.from_pretrained(folder, subfolder="scheduler", local_files_only=True),
        **{
            name: load_part(WanVACETransformer3DModel, folder, name, dtype=dtype) if name in listed else None
            for name in ("transformer", "transformer_2")
        },
        boundary_ratio=index.get("boundary_ratio"),
    )
    place(pipe, device, offload)
    return WanVaceGenerator(pipe, window=window, stride=stride)
