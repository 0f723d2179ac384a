"""DepthEngine: frames in, depth out, one window at a time, by any network that keeps `models.contract`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from depth_engine.checks import check_keywords
from depth_engine.devices import choose_device, choose_dtype
from depth_engine.models.contract import Carry, Checkpoint, DepthNetwork, Kind, WindowResult
from depth_engine.models.families import find_checkpoint
from depth_engine.models.resize import ModelSize, SizedFrames
from depth_engine.models.svd.noise import Noise, seeded_noise
from depth_engine.models.svd.spec import CheckpointSpec
from depth_engine.settings import SettingOptions
from depth_engine.video.in_memory import frames_of, mark_frames
from depth_engine.video.take import TAKE_FIELDS, Take, TakeOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from depth_engine.depth.depth_video import DepthVideo


class EngineOptions(TakeOptions, SettingOptions, total=False):
    """What `estimate` and `stream` take by keyword: the part of a file, and settings."""


class DepthEngine:
    """A loaded checkpoint. Make one with `from_pretrained`.

    Attributes:
        checkpoint: Where it came from, and what is known of it.
        model: Its network.
    """

    def __init__(self, checkpoint: Checkpoint, model: DepthNetwork) -> None:
        self.checkpoint, self.model = checkpoint, model

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
        checkpoint = find_checkpoint(name_or_folder, spec=spec, base=base)
        return cls(checkpoint, checkpoint.load(where, precision))

    @property
    def kind(self) -> Kind:
        """`disparity`, `depth` or `metric`."""
        return self.checkpoint.kind

    @property
    def spec(self) -> Any:
        """What the checkpoint expects, as its family says it."""
        return self.checkpoint.spec

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """What the network computes in."""
        return self.model.dtype

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the network's weights."""
        return self.checkpoint.weights_sha256()

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
        chosen = self.checkpoint.choose_settings(**given)
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
            "checkpoint": {"name": self.checkpoint.name, "sha256": self.weights_sha256},
            "seed": chosen.seed,
            "settings": {**vars(chosen)},
            "source": None if take is None else str(take.source),
            "shots": shot_starts,
        }
        times = np.array(times_s or np.arange(len(values)) / float(rate), dtype=np.float64)
        return DepthVideo(values=np.stack(values), kind=self.kind, times_s=times, fps=rate, meta=meta)

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
        chosen = self.checkpoint.choose_settings(**given)
        take = _as_take(frames, part)
        pictures = frames_of(frames) if take is None else (frame.rgb for frame in take.frames())
        sized = self.sized(mark_frames(pictures, shots), chosen)
        results = self.windows(sized, chosen, noise=noise)
        return (depth for result in results for depth in sized.restore(result.depth))

    def size_of(self, height: int, width: int, settings: Any) -> ModelSize:
        """The size that frames of a size are worked on at."""
        return self.checkpoint.size_of(height, width, settings)

    def sized(self, marked: Iterable[tuple[Tensor, bool]], settings: Any) -> SizedFrames:
        """Frames from `mark_frames` as `windows` takes them; brings the depth back to their size."""
        return SizedFrames(marked, lambda height, width: self.size_of(height, width, settings), self.model)

    def windows(
        self,
        marked: Iterable[tuple[Tensor, bool]],
        settings: Any,
        *,
        size: ModelSize | None = None,
        noise: Noise | None = None,
        carry: Carry | None = None,
    ) -> Iterator[WindowResult]:
        """Run window after window; the core that `estimate`, `stream` and resumable runs share.

        Args:
            marked: Frames as the network takes them up, with True where a shot starts (see `sized`), from frame
                `carry.frames_read` on.
            settings: From the checkpoint's `choose_settings`.
            size: Of the frames; None: `marked` is from `sized`, or the frames had the size that the network works at.
            noise: Standard normals by (frame_index, draw, shape); default: keyed by the seed.
            carry: Where an earlier run stopped.
        """
        noise = noise or seeded_noise(settings.seed)
        carry = (carry or Carry()).to(self.device)
        frames = _Lookahead(marked)
        while frames.has_next():
            wanted = self.model.frames_wanted(carry, settings)
            new: list[Tensor] = []
            while len(new) < wanted and frames.has_next() and not (frames.starts_shot() and (new or carry.state)):
                new.append(frames.take())
            ended = not frames.has_next() or frames.starts_shot()
            at = size or (marked.size if isinstance(marked, SizedFrames) else ModelSize(*new[0].shape[-2:] * 2))
            # Not around `windows`: torch would wrap that generator, and one that nobody ends fails as Python ends.
            with torch.inference_mode():
                result = self.model.run_window(new, at, carry, settings, noise, ended)
            carry = result.carry
            yield result


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
