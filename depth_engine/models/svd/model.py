"""A network of the SVD family: windows of latents, denoised with what is known of the windows before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from depth_engine.consistency.flow import follow_flow
from depth_engine.models.contract import Carry, WindowResult
from depth_engine.models.loading import CheckpointFiles, load_model
from depth_engine.models.resize import ModelSize
from depth_engine.models.svd.codec import ChunkedDecoder, Codec, PatchCodec, load_codec, to_pixels
from depth_engine.models.svd.denoise import WindowTask, denoise_window, unet_input
from depth_engine.models.svd.embed import Embedder, load_embedder
from depth_engine.models.svd.unet import DepthUNet
from depth_engine.models.svd.windows import Window, crossfade_noise_order, frames_to_read, next_window
from depth_engine.plain_data import read_json

if TYPE_CHECKING:
    from depth_engine.models.svd.noise import Noise
    from depth_engine.settings import RunSettings


@dataclass(frozen=True)
class _Kept:
    """What passes from window to window of a shot.

    Attributes:
        window: The last window, or None before a shot's first.
        condition: Condition latents of the last frames, `[k, C, h, w]`, k < window.
        embedding: Image embeddings of the same frames, `[k, D]`.
        latents: Depth latents of the same frames, `[k, C, h, w]`.
        pending: Finished latents that wait for their decode chunk, or None.
    """

    window: Window | None = None
    condition: Tensor | None = None
    embedding: Tensor | None = None
    latents: Tensor | None = None
    pending: Tensor | None = None

    def to_state(self) -> dict[str, Tensor]:
        """As `Carry` holds it."""
        names = ("condition", "embedding", "latents", "pending")
        held = {name: tensor for name in names if (tensor := getattr(self, name)) is not None}
        return held if self.window is None else {"window": torch.tensor(astuple(self.window)), **held}

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> _Kept:
        """Read back what `to_state` made."""
        tensors = {name: tensor for name, tensor in state.items() if name != "window"}
        return cls(Window(*state["window"].tolist()) if "window" in state else None, **tensors)


class SvdModel:
    """A loaded checkpoint of the SVD family; a `DepthNetwork`.

    Attributes:
        spec: What it expects.
        unet: The denoiser.
        codec: Pixels <-> latents.
        embedder: Frames to image embeddings.
        device: Where it runs.
        dtype: What the UNet computes in.
    """

    def __init__(
        self, files: CheckpointFiles, unet: DepthUNet, codec: Codec, embedder: Embedder, device: torch.device
    ) -> None:
        self.spec = files.spec
        self.unet, self.codec, self.embedder, self.device = unet, codec, embedder, device
        self.dtype = unet.dtype
        # Once, with the weights: it makes a thousand small tensors, and collecting garbage after those takes a while.
        self._scheduler = _load_scheduler(files)
        channels = codec.condition_channels + codec.depth_channels
        taken = int(unet.config["in_channels"])
        if taken != channels:
            raise ValueError(f"model: the UNet of {files.name} takes {taken} channels, its codec gives {channels}")

    def prepare(self, frame: Tensor, size: ModelSize) -> Tensor:
        """See `DepthNetwork.prepare`."""
        return size.shrink(frame[None])[0]

    def restore(self, depth: Tensor, size: ModelSize) -> Tensor:
        """See `DepthNetwork.restore`."""
        return size.restore(depth).clamp(0, 1)

    def frames_wanted(self, carry: Carry, settings: RunSettings) -> int:
        """See `DepthNetwork.frames_wanted`."""
        return frames_to_read(_Kept.from_state(carry.state).window, settings.window, settings.stride)

    def run_window(
        self, new: Sequence[Tensor], size: ModelSize, carry: Carry, settings: RunSettings, noise: Noise, ended: bool
    ) -> WindowResult:
        """See `DepthNetwork.run_window`."""
        before = _Kept.from_state(carry.state)
        window = next_window(before.window, len(new), settings.window, settings.stride, settings.layout)
        condition, embedding = self._encode(new, carry.frames_read, noise)
        condition = _append(before.condition, condition)[-window.length :]
        embedding = _append(before.embedding, embedding)[-window.length :]
        known = before.latents[-window.context :] if before.latents is not None and window.context else None
        sigmas, initial_scale = self._noise_levels(settings)
        task = WindowTask(
            network=self._bind(condition, embedding),
            context=condition.new_zeros(0, self.codec.depth_channels, *condition.shape[-2:])
            if known is None
            else known,
            frames=window.length,
            noise=self._window_noise(noise, carry.shot_start, window, settings, condition.shape[-2:]),
            sigmas=sigmas,
            initial_scale=initial_scale,
            sampler=settings.sampler,  # type: ignore[arg-type]
            context_c_noise=self.spec.context_c_noise,
        )
        latents = denoise_window(task, settings.strategy)  # type: ignore[arg-type]
        if settings.flow:
            latents = self._follow_flow(condition, latents, window.context)
        kept = _Kept(window, condition, embedding, latents, before.pending)
        return self._finish(kept, before.latents, carry, settings, ended)

    def _follow_flow(self, condition: Tensor, latents: Tensor, known: int) -> Tensor:
        """Latents of a window with its new frames' depth carried along the flow of the pictures."""
        if not isinstance(self.codec, PatchCodec):
            raise ValueError("flow: True is not accepted; it needs a lossless codec, a patch codec")
        before = max(0, known - 1)  # the last known frame is what the first new one follows
        rgb, depth = self.codec.decode_condition(condition[before:]), self.codec.decode_pixels(latents[before:])
        depth = follow_flow(rgb, depth, settled=known > 0)
        return torch.cat([latents[:before], self.codec.encode_depth(depth)])

    def _finish(
        self, kept: _Kept, latents_before: Tensor | None, carry: Carry, settings: RunSettings, ended: bool
    ) -> WindowResult:
        """Decode what the window settled and say what the next one needs."""
        window, latents = kept.window, kept.latents
        if window is None or latents is None:
            raise ValueError("window: none was computed")
        # A crossfade still changes its overlap in the next window; the other strategies never touch a frame twice.
        unsettled = settings.overlap if settings.layout == "cut" and not ended else 0
        first_settled = 0 if settings.layout == "cut" else window.context
        decoder = ChunkedDecoder(self.codec, self.spec.decode_chunk, kept.pending)
        chunks = decoder.push(latents[first_settled : window.length - unsettled])
        if ended:
            chunks += decoder.flush()
        depth = torch.cat(chunks).float().cpu() if chunks else torch.zeros(0)
        if ended:
            return WindowResult(depth, carry.next_shot(window.new, len(depth)))
        keep = settings.window - 1
        state = replace(
            kept,
            condition=_last(kept.condition, keep),
            embedding=_last(kept.embedding, keep),
            latents=_last(_join_latents(latents_before, latents, window), keep),
            pending=decoder.pending,
        ).to_state()
        return WindowResult(depth, carry.next_window(window.new, len(depth), state))

    def _encode(self, frames: Sequence[Tensor], first: int, noise: Noise) -> tuple[Tensor, Tensor]:
        """Condition latents `[n, C, h, w]` and embeddings `[n, D]`; frame by frame, so memory is one frame's."""
        conditions, embeddings = [], []
        for index, frame in enumerate(frames, start=first):
            rgb = to_pixels(frame[None]).to(self.device)
            embeddings.append(self.embedder(rgb))
            if self.spec.condition_noise:
                rgb = rgb + self.spec.condition_noise * noise(index, -1, tuple(rgb.shape[1:])).to(rgb)
            conditions.append(self.codec.encode_rgb(rgb))
        return torch.cat(conditions), torch.cat(embeddings)

    def _bind(self, condition: Tensor, embedding: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """The UNet with condition, embeddings and micro-conditioning of one window in place."""
        time_ids = torch.tensor([self.spec.added_time_ids], device=self.device)

        def network(scaled: Tensor, c_noise: Tensor) -> Tensor:
            sample = unet_input(scaled, condition, condition_first=self.spec.condition_first)[None].to(self.dtype)
            return self.unet(sample, c_noise[None], embedding[None].to(self.dtype), time_ids)[0]

        return network

    def _window_noise(
        self, noise: Noise, shot_start: int, window: Window, settings: RunSettings, latent_size: Sequence[int]
    ) -> Callable[[int, int], Tensor]:
        """Noise by place in the window: the frame's own, or for a crossfade that of the first window."""
        shape = (self.codec.depth_channels, *latent_size)
        if settings.layout == "cut":
            order = crossfade_noise_order(window.number, settings.window, settings.stride)
            return lambda position, draw: noise(shot_start + order[position], draw, shape)
        return lambda position, draw: noise(shot_start + window.start + position, draw, shape)

    def _noise_levels(self, settings: RunSettings) -> tuple[list[float], float]:
        """Falling noise levels closed by 0, and the scale of the first noise."""
        if settings.sigmas is not None:
            sigmas = list(settings.sigmas)
            scale = (sigmas[0] ** 2 + 1) ** 0.5
        else:
            self._scheduler.set_timesteps(settings.steps)
            sigmas, scale = self._scheduler.sigmas.tolist(), float(self._scheduler.init_noise_sigma)
        return sigmas, 0.0 if self.spec.start == "zero" else scale


def load_svd(files: CheckpointFiles, device: torch.device, dtype: torch.dtype) -> SvdModel:
    """Load a checkpoint of the SVD family.

    Raises:
        ValueError: A damaged checkpoint; names the tensors that do not fit.
    """
    unet = load_model(DepthUNet, files.unet, dtype, device)
    codec = load_codec(files, dtype, device)
    width = unet.config["cross_attention_dim"]
    embedder = load_embedder(files, width[0] if isinstance(width, (list, tuple)) else width, device, dtype)
    return SvdModel(files, unet, codec, embedder, device)


def _load_scheduler(files: CheckpointFiles) -> Any:
    from diffusers import EulerDiscreteScheduler

    return EulerDiscreteScheduler.from_config(read_json(files.base / "scheduler" / "scheduler_config.json"))


def _append(before: Tensor | None, new: Tensor) -> Tensor:
    return new if before is None else torch.cat([before, new])


def _join_latents(before: Tensor | None, latents: Tensor, window: Window) -> Tensor:
    """Latents of the last frames: older ones, then this window's (whose overlap a crossfade may have changed)."""
    if before is None or len(before) <= window.context:
        return latents
    return torch.cat([before[: len(before) - window.context], latents])


def _last(tensor: Tensor | None, count: int) -> Tensor | None:
    if tensor is None:
        return None
    return tensor[len(tensor) - min(count, len(tensor)) :].clone()
