"""DepthEngine: frames in, depth out, one window at a time. What passes from window to window is a `Carry`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from depth_engine.checks import check_keywords
from depth_engine.consistency.flow import follow_flow
from depth_engine.devices import choose_device, choose_dtype
from depth_engine.models.loading import CheckpointFiles, load_model, resolve_checkpoint
from depth_engine.models.resize import ModelSize, SizedFrames, fit_size
from depth_engine.models.svd.codec import ChunkedDecoder, Codec, PatchCodec, load_codec, to_pixels
from depth_engine.models.svd.denoise import WindowTask, denoise_window, unet_input
from depth_engine.models.svd.embed import Embedder, load_embedder
from depth_engine.models.svd.noise import Noise, seeded_noise
from depth_engine.models.svd.spec import CheckpointSpec
from depth_engine.models.svd.unet import DepthUNet
from depth_engine.models.svd.windows import Window, crossfade_noise_order, frames_to_read, next_window
from depth_engine.plain_data import read_json
from depth_engine.settings import RunSettings, SettingOptions, choose_settings
from depth_engine.video.in_memory import frames_of, mark_frames
from depth_engine.video.take import TAKE_FIELDS, Take, TakeOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from depth_engine.depth.depth_video import DepthVideo


class EngineOptions(TakeOptions, SettingOptions, total=False):
    """What `estimate` and `stream` take by keyword: the part of a file, and settings."""


@dataclass(frozen=True)
class Carry:
    """All that the next window needs of the past. Bounded by the window.

    Attributes:
        frames_read: Frames of the clip consumed so far.
        frames_done: Frames whose depth was given out.
        shot_start: First frame of the current shot, in frames of the clip.
        window: The last window, or None before a shot's first.
        condition: Condition latents of the last frames, `[k, C, h, w]`, k < window.
        embedding: Image embeddings of the same frames, `[k, D]`.
        latents: Depth latents of the same frames, `[k, C, h, w]`.
        pending: Finished latents that wait for their decode chunk, or None.
    """

    frames_read: int = 0
    frames_done: int = 0
    shot_start: int = 0
    window: Window | None = None
    condition: Tensor | None = None
    embedding: Tensor | None = None
    latents: Tensor | None = None
    pending: Tensor | None = None

    def to(self, device: torch.device) -> Carry:
        """The same on a device."""
        names = ("condition", "embedding", "latents", "pending")
        return replace(
            self, **{name: getattr(self, name).to(device) for name in names if getattr(self, name) is not None}
        )


@dataclass(frozen=True)
class WindowResult:
    """What one window finished.

    Attributes:
        depth: Depth in [0, 1] at the model's size, `[n, h, w]`; n may be 0.
        carry: State to go on from.
    """

    depth: Tensor
    carry: Carry


class DepthEngine:
    """A loaded checkpoint. Make one with `from_pretrained`.

    Attributes:
        files: Where the checkpoint came from.
        spec: What it expects.
        unet: The denoiser.
        codec: Pixels <-> latents.
        device: Where it runs.
        dtype: What the UNet computes in.
    """

    def __init__(
        self, files: CheckpointFiles, unet: DepthUNet, codec: Codec, embedder: Embedder, device: torch.device
    ) -> None:
        self.files, self.spec = files, files.spec
        self.unet, self.codec, self.embedder, self.device = unet, codec, embedder, device
        self.dtype = unet.dtype
        # Once, with the weights: it makes a thousand small tensors, and collecting garbage after those takes a while.
        self._scheduler = _load_scheduler(files)
        channels = codec.condition_channels + codec.depth_channels
        taken = int(unet.config["in_channels"])
        if taken != channels:
            raise ValueError(f"model: the UNet of {files.name} takes {taken} channels, its codec gives {channels}")

    @classmethod
    def from_pretrained(
        cls,
        name_or_folder: str | Path = "bundled",
        *,
        spec: str | CheckpointSpec | None = None,
        base: str | Path | None = None,
        device: str = "auto",
        dtype: str = "auto",
    ) -> DepthEngine:
        """Load a checkpoint.

        Args:
            name_or_folder: `bundled`, `chronodepth`, `depthcrafter`, a folder, or a hub id `owner/name[@revision]`.
            spec: What the checkpoint expects, by known name or in full; default: what it says itself.
            base: SVD folder or hub id that a UNet alone belongs to.
            device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
            dtype: `auto` (float16 on CUDA, else float32), `float32`, `float16`, `bfloat16`.

        Raises:
            ValueError: Unknown name, device or dtype; a damaged checkpoint.
            FileNotFoundError: No such folder, or a hub id that can't be fetched.
        """
        where = choose_device(device)
        precision = choose_dtype(dtype, where)
        files = resolve_checkpoint(name_or_folder, spec=spec, base=base)
        unet = load_model(DepthUNet, files.unet, precision, where)
        codec = load_codec(files, precision, where)
        width = unet.config["cross_attention_dim"]
        embedder = load_embedder(files, width[0] if isinstance(width, (list, tuple)) else width, where, precision)
        return cls(files, unet, codec, embedder, where)

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the UNet's weights."""
        return self.files.weights_sha256()

    def estimate(
        self,
        source: str | Path | Take | np.ndarray | Tensor | Iterable[Any],
        *,
        shots: bool | Collection[int] = True,
        noise: Noise | None = None,
        **options: Unpack[EngineOptions],
    ) -> DepthVideo:
        """Depth of a whole clip, in memory.

        Args:
            source: A video file or image sequence, or a part of one as `Take` says it; or frames, uint8
                `[T, H, W, 3]` or float `[T, 3, H, W]` in [0, 1]; or a list or iterator of frames, uint8 `[H, W, 3]`,
                float `[3, H, W]` in [0, 1] or PIL images.
            shots: Find cuts (True), take the clip as one shot (False), or a list of first frames.
            noise: Standard normals by (frame_index, draw, shape); default: keyed by the seed.
            **options: Of a file, the part to take: `start_s`, `end_s`, `fps`, `max_frames`, `stream`. And settings:
                `window`, `stride`, `steps`, `sigmas`, `strategy`, `sampler`, `max_res`, `seed`, `flow`.

        Returns:
            Depth with `.values` float32 `[T, H, W]` in [0, 1], of the checkpoint's kind.

        Raises:
            ValueError: Bad settings or frames; names the frame.
            TypeError: A keyword that is not known.
        """
        from depth_engine.depth.depth_video import DepthVideo
        from depth_engine.video.image_sequence import SEQUENCE_FPS

        part, given = _sort_options("estimate", options)
        chosen = choose_settings(self.spec, **given)
        take = _as_take(source, part)
        times_s: list[float] = []
        if take is not None:
            rate, frames = take.rate(take.info()), _note_times(take.frames(), times_s)
        else:
            rate, frames = SEQUENCE_FPS, frames_of(source)
        shot_starts: list[int] = []
        sized = self.sized(_note_shots(mark_frames(frames, shots), shot_starts), chosen)
        results = self.windows(sized, chosen, noise=noise)
        values = [depth for result in results for depth in sized.restore(result.depth)]
        if not values:
            raise ValueError("frames: the clip holds none")
        meta = {
            "checkpoint": {"name": self.files.name, "sha256": self.weights_sha256},
            "seed": chosen.seed,
            "settings": {**vars(chosen)},
            "source": None if take is None else str(take.source),
            "shots": shot_starts,
        }
        times = np.array(times_s or np.arange(len(values)) / float(rate), dtype=np.float64)
        return DepthVideo(values=np.stack(values), kind=self.spec.kind, times_s=times, fps=rate, meta=meta)

    def stream(
        self,
        frames: str | Path | Take | Iterable[Any],
        *,
        shots: bool | Collection[int] = True,
        noise: Noise | None = None,
        **options: Unpack[EngineOptions],
    ) -> Iterator[np.ndarray]:
        """Depth frame by frame, in bounded memory; the same values as `estimate`.

        Args:
            frames: As the `source` of `estimate`; an iterator that never ends will do.
            shots: As for `estimate`.
            noise: As for `estimate`.
            **options: As for `estimate`.

        Returns:
            Iterator of float32 `[H, W]` in [0, 1]; it lags the input by a window and a decode chunk at the most.

        Raises:
            ValueError: As for `estimate`; of frames that are there already, at once.
            TypeError: A keyword that is not known.
        """
        part, given = _sort_options("stream", options)
        chosen = choose_settings(self.spec, **given)
        take = _as_take(frames, part)
        pictures = frames_of(frames) if take is None else (frame.rgb for frame in take.frames())
        sized = self.sized(mark_frames(pictures, shots), chosen)
        results = self.windows(sized, chosen, noise=noise)
        return (depth for result in results for depth in sized.restore(result.depth))

    def size_of(self, height: int, width: int, settings: RunSettings) -> ModelSize:
        """The size that frames of a size are worked on at."""
        return fit_size(height, width, self.spec.multiple, settings.max_res, settings.area_px)

    def sized(self, marked: Iterable[tuple[Tensor, bool]], settings: RunSettings) -> SizedFrames:
        """Frames from `mark_frames` as `windows` takes them; brings the depth back to their size."""
        return SizedFrames(marked, lambda height, width: self.size_of(height, width, settings))

    def windows(
        self,
        marked: Iterable[tuple[Tensor, bool]],
        settings: RunSettings,
        *,
        noise: Noise | None = None,
        carry: Carry | None = None,
    ) -> Iterator[WindowResult]:
        """Run window after window; the core that `estimate`, `stream` and resumable runs share.

        Args:
            marked: Frames of the model's size with True where a shot starts (see `sized`), from frame
                `carry.frames_read` on.
            settings: From `choose_settings`.
            noise: Standard normals by (frame_index, draw, shape); default: keyed by the seed.
            carry: Where an earlier run stopped.
        """
        noise = noise or seeded_noise(settings.seed)
        carry = (carry or Carry()).to(self.device)
        levels = self._noise_levels(settings)
        frames = _Lookahead(marked)
        while frames.has_next():
            wanted = frames_to_read(carry.window, settings.window, settings.stride)
            new: list[Tensor] = []
            while len(new) < wanted and frames.has_next() and not (frames.starts_shot() and (new or carry.window)):
                new.append(frames.take()[None])
            ended = not frames.has_next() or frames.starts_shot()
            depth, carry = self._run_window(new, carry, settings, noise, levels, ended)
            yield WindowResult(depth=depth, carry=carry)

    # Not around `windows`: torch would wrap that generator, and one that nobody ends fails as Python shuts down.
    @torch.inference_mode()
    def _run_window(
        self,
        new: list[Tensor],
        carry: Carry,
        settings: RunSettings,
        noise: Noise,
        levels: tuple[list[float], float],
        ended: bool,
    ) -> tuple[Tensor, Carry]:
        """Depth that a window with these new frames settles, and what the next one needs."""
        window = next_window(carry.window, len(new), settings.window, settings.stride, settings.layout)
        condition, embedding = self._encode(new, carry.frames_read, noise)
        condition = _append(carry.condition, condition)[-window.length :]
        embedding = _append(carry.embedding, embedding)[-window.length :]
        known = carry.latents[-window.context :] if carry.latents is not None and window.context else None
        sigmas, initial_scale = levels
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
        return self._finish(carry, window, latents, condition, embedding, settings, ended)

    def _follow_flow(self, condition: Tensor, latents: Tensor, known: int) -> Tensor:
        """Latents of a window with its new frames' depth carried along the flow of the pictures."""
        if not isinstance(self.codec, PatchCodec):
            raise ValueError("flow: True is not accepted; it needs a lossless codec, a patch codec")
        before = max(0, known - 1)  # the last known frame is what the first new one follows
        rgb, depth = self.codec.decode_condition(condition[before:]), self.codec.decode_pixels(latents[before:])
        depth = follow_flow(rgb, depth, settled=known > 0)
        return torch.cat([latents[:before], self.codec.encode_depth(depth)])

    def _finish(
        self,
        carry: Carry,
        window: Window,
        latents: Tensor,
        condition: Tensor,
        embedding: Tensor,
        settings: RunSettings,
        ended: bool,
    ) -> tuple[Tensor, Carry]:
        """Decode what the window settled and say what the next one needs."""
        # A crossfade still changes its overlap in the next window; the other strategies never touch a frame twice.
        unsettled = settings.overlap if settings.layout == "cut" and not ended else 0
        first_settled = 0 if settings.layout == "cut" else window.context
        decoder = ChunkedDecoder(self.codec, self.spec.decode_chunk, carry.pending)
        chunks = decoder.push(latents[first_settled : window.length - unsettled])
        if ended:
            chunks += decoder.flush()
        depth = torch.cat(chunks).float().cpu() if chunks else torch.zeros(0)
        frames_read = carry.frames_read + window.new
        frames_done = carry.frames_done + len(depth)
        if ended:
            return depth, Carry(frames_read=frames_read, frames_done=frames_done, shot_start=frames_read)
        keep = settings.window - 1
        return depth, replace(
            carry,
            frames_read=frames_read,
            frames_done=frames_done,
            window=window,
            condition=_last(condition, keep),
            embedding=_last(embedding, keep),
            latents=_last(_join_latents(carry.latents, latents, window), keep),
            pending=decoder.pending,
        )

    def _encode(self, frames: list[Tensor], first: int, noise: Noise) -> tuple[Tensor, Tensor]:
        """Condition latents `[n, C, h, w]` and embeddings `[n, D]`; frame by frame, so memory is one frame's."""
        conditions, embeddings = [], []
        for index, frame in enumerate(frames, start=first):
            rgb = to_pixels(frame).to(self.device)
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


def _load_scheduler(files: CheckpointFiles) -> Any:
    from diffusers import EulerDiscreteScheduler

    return EulerDiscreteScheduler.from_config(read_json(files.base / "scheduler" / "scheduler_config.json"))


class _Lookahead:
    """An iterator of marked frames that can say what comes next."""

    def __init__(self, marked: Iterable[tuple[Tensor, bool]]) -> None:
        self._marked = iter(marked)
        self._next: tuple[Any, bool] | None = next(self._marked, None)

    def has_next(self) -> bool:
        return self._next is not None

    def starts_shot(self) -> bool:
        return self._next is not None and self._next[1]

    def take(self) -> Any:
        if self._next is None:
            raise ValueError("frames: no frame is left")
        frame = self._next[0]
        self._next = next(self._marked, None)
        return frame


def _sort_options(method: str, options: EngineOptions) -> tuple[TakeOptions, SettingOptions]:
    """The part of a file that is asked for, and the settings; what is not given is left out.

    Raises:
        TypeError: A keyword is not known; names the nearest.
    """
    known = [*SettingOptions.__annotations__, *TAKE_FIELDS]
    check_keywords(method, options, ["source" if method == "estimate" else "frames", "shots", "noise", *known])
    given = {name: value for name, value in options.items() if value is not None}
    part = {name: given.pop(name) for name in TAKE_FIELDS if name in given}
    return cast("TakeOptions", part), cast("SettingOptions", given)


def _as_take(source: Any, part: TakeOptions) -> Take | None:
    """The part of a file that is meant; None of frames."""
    if isinstance(source, (str, Path)):
        return Take(source, **part)
    for name, value in part.items():
        raise ValueError(f"{name}: {value} is for files; cut frames, or the Take, yourself")
    return source if isinstance(source, Take) else None


def _note_times(frames: Iterable, times_s: list[float]) -> Iterator[np.ndarray]:
    for frame in frames:
        times_s.append(frame.time_s)
        yield frame.rgb


def _note_shots(marked: Iterable[tuple[Tensor, bool]], shot_starts: list[int]) -> Iterator[tuple[Tensor, bool]]:
    for index, (frame, starts) in enumerate(marked):
        if starts:
            shot_starts.append(index)
        yield frame, starts


def _append(before: Tensor | None, new: Tensor) -> Tensor:
    return new if before is None else torch.cat([before, new])


def _join_latents(before: Tensor | None, latents: Tensor, window: Window) -> Tensor:
    """Latents of the last frames: older ones, then this window's (whose overlap a crossfade may have changed)."""
    if before is None or len(before) <= window.context:
        return latents
    return torch.cat([before[: len(before) - window.context], latents])


def _last(tensor: Tensor, count: int) -> Tensor:
    return tensor[len(tensor) - min(count, len(tensor)) :].clone()
