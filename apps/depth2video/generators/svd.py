"""Stable Video Diffusion steered by a depth ControlNet: the first frame gives the look, the control the motion.

Sampling is SVD's (arXiv 2311.15127): EDM noise levels of its scheduler, Euler steps, guidance that rises over the
frames. Long clips: windows overlap; the frames that a window shares with the one before are put back, noised to the
level of the step, before each step (the engine's `replacement` strategy), so that the new ones go on from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from depth2video.generators.catalogue import GENERATORS, MOTION
from depth2video.generators.controlnet import ControlledUNet, DepthControlNet, Residuals, control_pixels, run_controlled
from depth_engine.models.loading import CheckpointFiles, load_model
from depth_engine.models.svd.codec import VaeCodec, load_codec
from depth_engine.models.svd.denoise import WindowTask, denoise_window, unet_input
from depth_engine.models.svd.embed import Embedder, load_embedder
from depth_engine.models.svd.noise import seeded_noise
from depth_engine.models.svd.spec import CHRONODEPTH
from depth_engine.plain_data import read_json
from depth_engine.runs.pieces import Piece

if TYPE_CHECKING:
    from depth2video.generators.interface import Offload, Request

DECODE_CHUNK = 8  # frames that the temporal decoder takes at a time, as the engine's references do
FPS = 24  # that it is told where the request says nothing: film's
IMAGE_NOISE = 0.02  # standard deviation of the noise on the first frame, as SVD was trained
FIRST_GUIDANCE = 1.0  # of the first frame, which is given; rises to the chosen one
# Class name in the config of the public SVD ControlNet (CiaraRowles/temporal-controlnet-depth-svd-v1).
PUBLISHED_CLASS = "ControlNetSDVModel"
# How SVD sees the first frame: by CLIP's tower, and by unscaled latents after the noisy ones.
SVD_SPEC = replace(CHRONODEPTH, embedding="per_frame", scale_condition=False, condition_first=False)


def added_time_ids(fps: float, image_noise: float = IMAGE_NOISE, motion: float = MOTION) -> tuple[float, float, float]:
    """SVD's micro-conditioning in its order: frame rate less 1, motion bucket, noise on the first frame."""
    return fps - 1.0, float(motion), image_noise


@dataclass
class SvdParts:
    """What is loaded.

    Attributes:
        unet: SVD's.
        controlnet: Of the same shape.
        codec: SVD's VAE.
        embedder: CLIP's image tower.
        scheduler: Config of SVD's scheduler.
        residuals: How the ControlNet's residuals are added.
    """

    unet: ControlledUNet
    controlnet: DepthControlNet
    codec: VaeCodec
    embedder: Embedder
    scheduler: dict[str, Any]
    residuals: Residuals


class SvdGenerator:
    """Makes a clip of any length, window by window.

    Args:
        parts: From `load_svd_parts`.
        window: Frames per window.
        stride: New frames per window.
        device: Where it computes.
        offload: `none`, `model` (each model is on the device while it is used) or `sequential` (each layer of the UNet
            and the ControlNet; the others as with `model`).
    """

    size_multiple = GENERATORS["svd"].size_multiple

    def __init__(
        self, parts: SvdParts, window: int, stride: int, device: torch.device, offload: Offload = "none"
    ) -> None:
        self._parts, self._device, self._offload = parts, device, offload
        self.window, self.stride = window, stride
        for module in (parts.unet, parts.controlnet):
            if offload == "sequential":
                from accelerate import cpu_offload

                cpu_offload(module, device)
            else:
                nn.Module.to(module, device if offload == "none" else torch.device("cpu"))
        if offload == "none":
            for module in filter(None, (parts.codec.vae, self._tower())):
                nn.Module.to(module, device)

    @torch.no_grad()
    def generate(
        self, control: Iterator[np.ndarray], request: Request, *, state: dict[str, Tensor] | None
    ) -> Iterator[Piece]:
        """See `generators.Generator`.

        Raises:
            ValueError: There is no first frame.
        """
        if request.image is None:
            raise ValueError("--image: is missing; svd needs the first frame")
        first_image = control_pixels(request.image[None])
        with self._using(self._tower()):
            embedding = self._parts.embedder(first_image.to(self._device))
        state = state or {}
        latents = state.get("latents")
        known_control = state["control"].numpy() if state else np.zeros((0, *request.image.shape), np.uint8)
        # The window begins with a frame that is known: the given one, or the first of those shared with the one before.
        anchor = state["anchor"] if state else request.image
        done = int(state["done"]) if state else 0
        frames = iter(control)
        while chunk := list(islice(frames, self.window - len(known_control))):
            given = np.concatenate([known_control, np.stack(chunk)])
            first = done - len(known_control)
            latents = self._sample(given, np.asarray(anchor), embedding, latents, first, request)
            rgb = self._decode(latents)
            new = rgb[len(known_control) :]
            done += len(new)
            keep = min(self.window - self.stride, len(given))
            anchor, known_control = rgb[-keep] if keep else rgb[-1], given[len(given) - keep :]
            latents = latents[len(latents) - keep :]
            held = {
                "latents": latents.cpu(),
                "control": torch.from_numpy(known_control.copy()),
                "anchor": torch.from_numpy(anchor.copy()),
                "done": torch.tensor(done),
            }
            yield Piece(new, held, {"control": np.stack(chunk)})

    def _sample(
        self,
        control: np.ndarray,
        anchor: np.ndarray,
        embedding: Tensor,
        known: Tensor | None,
        first: int,
        request: Request,
    ) -> Tensor:
        """Latents `[T, C, h, w]` of a window.

        Args:
            control: uint8 `[T, H, W, 3]`.
            anchor: uint8 `[H, W, 3]`: the window's first frame, which SVD goes on from.
            embedding: Of the clip's first frame, `[1, D]`.
            known: Latents of the first frames; None: none.
            first: Index in the clip of the window's first frame.
            request: What is asked for.
        """
        spec, count = GENERATORS["svd"], len(control)
        with self._using(self._parts.codec.vae):
            pixels = control_pixels(anchor[None])
            noise = seeded_noise(request.seed)
            pixels = pixels + IMAGE_NOISE * noise(first, -1, tuple(pixels.shape[1:]))
            condition = self._parts.codec.encode_rgb(pixels.to(self._device)).expand(count, -1, -1, -1)
        sigmas, initial_scale = self._noise_levels(request.steps or spec.steps)
        guidance = spec.guidance if request.guidance is None else request.guidance
        start = guidance if known is not None and len(known) else min(FIRST_GUIDANCE, guidance)
        network = _Guided(
            self._parts,
            condition,
            embedding,
            control_pixels(control).to(self._device),
            torch.linspace(start, guidance, count, device=self._device),
            request,
            sigmas,
        )
        task = WindowTask(
            network=network,
            # Copied: how numbers lie in memory changes their last bits, and a resumed run shall give the same bytes.
            context=condition[:0] if known is None else known.to(self._device, copy=True),
            frames=count,
            noise=lambda position, draw: noise(first + position, draw, tuple(condition.shape[1:])),
            sigmas=sigmas,
            initial_scale=initial_scale,
            sampler="euler",
            context_c_noise=0.0,  # of another strategy
        )
        with self._using(self._parts.unet), self._using(self._parts.controlnet):
            return denoise_window(task, "replacement")

    def _decode(self, latents: Tensor) -> np.ndarray:
        """uint8 `[T, H, W, 3]`."""
        with self._using(self._parts.codec.vae):
            pixels = torch.cat([self._parts.codec.decode_rgb(chunk) for chunk in latents.split(DECODE_CHUNK)])
        rgb = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        return rgb.movedim(1, -1).cpu().numpy()

    def _noise_levels(self, steps: int) -> tuple[list[float], float]:
        """Falling noise levels closed by 0, and the scale of the first noise."""
        from diffusers import EulerDiscreteScheduler

        scheduler: Any = EulerDiscreteScheduler.from_config(self._parts.scheduler)
        scheduler.set_timesteps(steps)
        return scheduler.sigmas.tolist(), float(scheduler.init_noise_sigma)

    def _tower(self) -> nn.Module | None:
        return getattr(self._parts.embedder, "model", None)

    @contextmanager
    def _using(self, module: nn.Module | None) -> Iterator[None]:
        """A model on the device while it is used, where it is not there all the time or moved layer by layer."""
        large = module is self._parts.unet or module is self._parts.controlnet
        moves = self._offload == "model" or (self._offload == "sequential" and not large)
        if moves and module is not None:
            nn.Module.to(module, self._device)
        try:
            yield
        finally:
            if moves and module is not None:
                nn.Module.to(module, torch.device("cpu"))


class _Guided:
    """The network of one window: UNet and ControlNet with classifier-free guidance (arXiv 2207.12598)."""

    def __init__(
        self,
        parts: SvdParts,
        condition: Tensor,
        embedding: Tensor,
        control: Tensor,
        guidance: Tensor,
        request: Request,
        sigmas: list[float],
    ) -> None:
        self._parts, self._request = parts, request
        self._guided = bool((guidance > 1).any())
        self._guidance = guidance[:, None, None, None]
        dtype = parts.unet.dtype
        # Without guidance there is only the conditional half; else the unconditional one, of zeros, comes first.
        halves = [torch.zeros_like(condition), condition] if self._guided else [condition]
        self._condition = torch.stack(halves).to(dtype)
        embeddings = [torch.zeros_like(embedding), embedding] if self._guided else [embedding]
        self._embedding = torch.stack(embeddings).to(dtype)
        fps = FPS if request.fps_id is None else request.fps_id
        motion = MOTION if request.motion is None else request.motion
        ids = condition.new_tensor(added_time_ids(fps, motion=motion), dtype=dtype)
        self._time_ids = ids.expand(len(halves), 3)
        self._control = control.to(dtype).expand(len(halves), *control.shape)
        # c_noise -> whether control is on at that step.
        steps = len(sigmas) - 1
        self._levels = torch.tensor(sigmas[:-1]).log() / 4
        self._on = [
            request.control_start <= step / steps and (step + 1) / steps <= request.control_end for step in range(steps)
        ]

    def __call__(self, scaled: Tensor, c_noise: Tensor) -> Tensor:
        """Network output `[T, C, h, w]` float32."""
        step = int((self._levels - c_noise[0].cpu()).abs().argmin())
        scale = self._request.control_scale if self._on[step] else 0.0
        every = scaled.to(self._condition).expand(len(self._condition), *scaled.shape)
        sample = unet_input(every, self._condition, condition_first=SVD_SPEC.condition_first)
        inputs = (sample, c_noise[:1].expand(len(sample)), self._embedding, self._time_ids)
        out = run_controlled(
            self._parts.unet, self._parts.controlnet, inputs, self._control, scale, self._parts.residuals
        ).float()
        return out[0] + self._guidance * (out[1] - out[0]) if self._guided else out[0]


class SvdBase(NamedTuple):
    """SVD without a ControlNet; see `SvdParts`."""

    unet: ControlledUNet
    codec: VaeCodec
    embedder: Embedder


def load_svd_base(files: CheckpointFiles, dtype: torch.dtype) -> SvdBase:
    """Load SVD onto the CPU, frozen.

    Args:
        files: Of `SVD_SPEC`.
        dtype: In which it computes. The VAE computes in float32 where its config says that float16 overflows.

    Raises:
        ValueError: A file is missing or damaged.
    """
    cpu = torch.device("cpu")
    unet = load_model(ControlledUNet, files.unet, dtype, cpu)
    codec = load_codec(files, dtype, cpu)
    if not isinstance(codec, VaeCodec):
        raise ValueError(f"--base: {files.base} has no VAE; give a folder of Stable Video Diffusion")
    return SvdBase(unet, codec, load_embedder(files, int(dict(unet.config)["cross_attention_dim"]), cpu, dtype))


def load_controlnet(folder: Path, dtype: torch.dtype) -> tuple[DepthControlNet, Residuals]:
    """Load a depth ControlNet onto the CPU, frozen, and how its residuals are to be added.

    Args:
        folder: Has the ControlNet's config and weights, or has them in `controlnet/`.
        dtype: In which it computes.

    Raises:
        ValueError: A file is missing or damaged, or a tensor is missing, surplus or misshapen.
    """
    inner = folder / "controlnet" if (folder / "controlnet").is_dir() else folder
    published = read_json(inner / "config.json").get("_class_name") == PUBLISHED_CLASS
    return load_model(DepthControlNet, inner, dtype, torch.device("cpu")), "published" if published else "once"


def load_svd_parts(base: Path, controlnet: Path, *, dtype: torch.dtype) -> SvdParts:
    """Load SVD and a depth ControlNet onto the CPU.

    Args:
        base: SVD's folder.
        controlnet: See `load_controlnet`.
        dtype: See `load_svd_base`.

    Raises:
        ValueError: A file is missing or damaged, or a tensor is missing, surplus or misshapen.
    """
    unet, codec, embedder = load_svd_base(CheckpointFiles("svd", SVD_SPEC, base / "unet", base), dtype)
    steering, residuals = load_controlnet(controlnet, dtype)
    scheduler = read_json(base / "scheduler" / "scheduler_config.json")
    return SvdParts(unet, steering, codec, embedder, scheduler, residuals)


def load_svd(
    folders: dict[str, Path], *, window: int, stride: int, device: torch.device, dtype: torch.dtype, offload: Offload
) -> SvdGenerator:
    """Load the generator; `folders` has `base` and `controlnet`. See `load_svd_parts` and `SvdGenerator`."""
    parts = load_svd_parts(folders["base"], folders["controlnet"], dtype=dtype)
    return SvdGenerator(parts, window, stride, device, offload)
