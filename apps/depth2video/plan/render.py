"""What `depth2video INPUT` does: check everything, get the depth, make the clip."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from depth2video.control import ClipHistogram, ControlStream, DisparityRange, choose_range, control_frames, cover
from depth2video.generators.catalogue import GENERATORS, GeneratorSpec
from depth2video.generators.interface import Generator, Offload, Request
from depth2video.generators.loading import find_parts, load_generator, weights_identity
from depth2video.generators.words import TOKENS, dropped_words
from depth2video.plan.asked import AskedControl, AskedGenerator, AskedPicture
from depth2video.plan.choices import (
    check_device,
    check_request,
    choose_motion,
    choose_size,
    choose_windows,
    find_generator,
)
from depth2video.plan.depth_origin import choose_clip_depth, choose_normalization, get_depth
from depth2video.plan.memory import memory_told
from depth2video.plan.picture import read_picture
from depth_engine.depth.input import DepthInput
from depth_engine.runs.background import read_ahead
from depth_engine.runs.derived_clip import ClipJob, ClipRun, check_clip_job
from depth_engine.runs.pieces import Piece
from depth_engine.runs.resumable import Progress, Source, already_finished
from depth_engine.video.probe import VideoInfo
from depth_engine.video.take import check_source

if TYPE_CHECKING:
    from torch import Tensor

    from depth_engine.depth.source import DepthSource

CONTROL = "control"  # the companion clip


@dataclass(frozen=True)
class VideoPlan:
    """`depth2video INPUT -o OUT`, checked.

    Attributes:
        job: Source and outputs.
        info: Of the source.
        depth: Where it comes from.
        normalize: How depth becomes control.
        generator: Its name.
        folders: Of its parts.
        window: Frames per window.
        stride: New frames per window.
        height: Of the new clip.
        width: Of the new clip.
        request: What to generate, all but the source's frames.
        device: Where it computes.
        dtype: In which.
        offload: `none`, `model` or `sequential`.
        settings: What the user chose, for the sidecar.
        notes: For the user.
    """

    job: ClipJob
    info: VideoInfo
    depth: DepthInput
    normalize: str
    generator: str
    folders: dict[str, Path]
    window: int
    stride: int
    height: int
    width: int
    request: Request
    device: str
    dtype: str
    offload: Offload
    settings: dict[str, Any]
    notes: tuple[str, ...]

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed; how memory is saved is not part of it."""
        return {**self.settings, **self.depth.identity(), "weights": weights_identity(self.folders)}

    def run(self, on_depth: Progress, on_frames: Progress) -> tuple[list[Path], list[str]]:
        """Make the clip; the finished files, and notes.

        Raises:
            RuntimeError: Memory ran out; says what to lower.
        """
        if already_finished(self.job):
            return self.job.outputs, []
        import depth_engine.models.svd.unet  # noqa: F401  # brings diffusers, which two threads can't import at once

        seen = ClipHistogram()
        with ThreadPoolExecutor(1) as beside:
            # The bundled one is small; larger ones do not share the memory with depth.
            loading = beside.submit(self._load) if self.generator == "bundled" else None
            with memory_told("--depth-max-res or --depth-window"):
                source = get_depth(self.depth, on_depth, seen)
            notes = list(self.notes)
            cuts = len(source.shots or (0,)) - 1
            if cuts:
                notes.append(
                    f"cuts in the clip: {cuts}; the generator knows nothing of them, so shots made apart are cleaner"
                )
            with memory_told("--size or --window, which starts anew, or give --offload model or sequential"):
                loading = loading or beside.submit(self._load)  # one looks through the depth meanwhile
                span = choose_range(source, self.normalize, self.job.expected_frames(self.info), seen)
                generator = loading.result()
                return self._generate(source, span, generator, notes, on_frames), notes

    def _load(self) -> Generator:
        return load_generator(
            self.generator,
            self.folders,
            window=self.window,
            stride=self.stride,
            device=self.device,
            dtype=self.dtype,
            offload=self.offload,
            video_to_video=self.request.strength is not None,
        )

    def _generate(
        self,
        source: DepthSource,
        span: DisparityRange | None,
        generator: Generator,
        notes: list[str],
        on_frames: Progress,
    ) -> list[Path]:
        """Make the clip from its depth; the finished files. What the user should know is added to `notes`."""
        settings = {**self.settings, **self.depth.to_json(), "offload": self.offload, "device": self.device}
        if span is not None:
            settings["disparity_range"] = [span.low, span.high]

        def make(clip: Source, first: int, state: dict[str, Tensor]) -> Iterator[Piece]:
            size, frames = (self.height, self.width), clip.frames()
            opening = list(islice(frames, 1))
            with_video = self.request.strength is not None
            control = ControlStream(
                chain(opening, frames), control_frames(source, span, *size), first, size if with_video else None
            )
            request = replace(self.request, video=control.video() if with_video else None)
            if request.image is None and GENERATORS[self.generator].image == "first frame":
                request = replace(request, image=cover(opening[0].rgb, *size) if opening else None)
            with closing(read_ahead(control, self.window)) as given:  # beside the network
                for piece in generator.generate(given, request, state=state or None):
                    yield piece._replace(companions={CONTROL: control.taken(len(piece.frames))})
            control.end(notes)

        run = ClipRun(
            self.job,
            self.identity,
            make,
            settings=settings,
            panels={CONTROL: "Control"},
            notes=notes,
            on_frames=on_frames,
        )
        return run.run()


def plan_video(
    job: ClipJob,
    control: AskedControl,
    asked: AskedGenerator,
    request: Request,
    picture: AskedPicture = AskedPicture(),  # noqa: B008  # frozen
) -> VideoPlan:
    """Check all that can be checked before anything heavy loads.

    Args:
        job: Source and outputs.
        control: How it is made.
        asked: Which generator, and how it works.
        request: What to generate, all but pictures; `fps_id` is the clip's rate where it is not given.
        picture: What gives the look.

    Raises:
        ValueError: Names the option, the value and what is accepted.
        OSError: A file is missing or in the way.
    """
    depth = control.depth  # device, dtype and seed are the generator's too
    spec = find_generator(asked.name, asked.parts)
    window, stride = choose_windows(spec, asked.window, asked.stride)
    info = check_source(job)
    height, width = choose_size(spec, asked.size, info.height, info.width)
    request = replace(request, seed=depth.seed)
    check_request(spec, request)
    request, motion_notes = choose_motion(spec, request, float(job.rate(info)))
    check_device(spec, depth.device, depth.dtype, asked.offload)
    image, image_notes = read_picture(picture, height, width)
    request = replace(request, image=image)
    if asked.parts.get("ip_adapter") is not None and image is None:
        raise ValueError("--image: is missing; --ip-adapter reads it")
    needed = ("ip_adapter",) if spec.image == "style" and image is not None else ()
    folders = find_parts(spec.name, asked.parts, optional=needed)
    dropped = _dropped(spec, folders, request)
    origin = choose_clip_depth(control, job, info, job.output)
    normalize = choose_normalization(control.normalize, origin)
    settings = {
        "generator": spec.name,
        "parts": {part: str(folder) for part, folder in folders.items()},
        **_settings_of(spec, request),
        "dropped_words": dropped,
        "image": None if picture.path is None else str(picture.path),
        "image_fit": picture.fit,
        "image_sha256": None if image is None else hashlib.sha256(image.tobytes()).hexdigest(),
        "size": f"{width}x{height}",
        "window": window,
        "stride": stride,
        "normalize": normalize,
        "dtype": depth.dtype,
    }
    plan = VideoPlan(
        job=job,
        info=info,
        depth=origin,
        normalize=normalize,
        generator=spec.name,
        folders=folders,
        window=window,
        stride=stride,
        height=height,
        width=width,
        request=request,
        device=depth.device,
        dtype=depth.dtype,
        offload=cast(Offload, asked.offload),
        settings=settings,
        notes=(
            *origin.notes,
            *_size_notes(info, height, width),
            *image_notes,
            *motion_notes,
            *_word_notes(spec, dropped),
        ),
    )
    check_clip_job(job, plan.identity)
    return plan


def _settings_of(spec: GeneratorSpec, request: Request) -> dict[str, Any]:
    """A request for the sidecar, but for its pictures."""
    told = ("prompt", "negative_prompt", "control_scale", "control_start", "control_end", "strength", "seed")
    motion = ("fps_id", "motion") if spec.told_motion else ()
    return {
        **{name: getattr(request, name) for name in (*told, *motion)},
        "steps": request.steps or spec.steps,
        "guidance": spec.guidance if request.guidance is None else request.guidance,
    }


def _dropped(spec: GeneratorSpec, folders: Mapping[str, Path], request: Request) -> dict[str, str]:
    """Option -> words that are beyond what the generator reads."""
    if spec.prompt == "none":
        return {}
    return dropped_words(spec.name, folders, {"--prompt": request.prompt, "--negative-prompt": request.negative_prompt})


def _word_notes(spec: GeneratorSpec, dropped: Mapping[str, str]) -> Iterator[str]:
    for option, words in dropped.items():
        yield f"{option}: {spec.name} reads {TOKENS[spec.name]} tokens; dropped at the end: {words}"


def _size_notes(info: VideoInfo, height: int, width: int) -> tuple[str, ...]:
    """Says what of the clip is cropped away, where it is more than the rounding of a size."""
    seen = min(width / info.width, height / info.height) / max(width / info.width, height / info.height)
    if seen > 0.9:
        return ()
    return (f"{width}x{height} is of other proportions than the clip: {1 - seen:.0%} of each frame is cropped away",)
