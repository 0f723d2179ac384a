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

import numpy as np

from depth2video.control import (
    IMAGE_FITS,
    ClipHistogram,
    ControlStream,
    DisparityRange,
    choose_range,
    contain,
    control_frames,
    cover,
)
from depth2video.generators.catalogue import GENERATORS
from depth2video.generators.interface import Generator, Offload, Request
from depth2video.generators.loading import find_parts, load_generator, weights_identity
from depth2video.plan.choices import check_device, check_request, choose_size, choose_windows, find_generator
from depth2video.plan.depth_origin import choose_clip_depth, choose_normalization, get_depth
from depth2video.plan.memory import memory_told
from depth_engine.checks import known_name
from depth_engine.depth.input import DepthInput, DepthRequest
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
            notes = [*self.depth.notes, *self.notes]
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
    *,
    generator: str | None,
    parts: Mapping[str, str | None],
    prompt: str | None,
    negative_prompt: str | None,
    image: Path | None,
    image_fit: str,
    control_scale: float,
    control_start: float,
    control_end: float,
    steps: int | None,
    guidance: float | None,
    strength: float | None,
    size: str | None,
    window: int | None,
    stride: int | None,
    normalize: str | None,
    depth: DepthRequest,
    annotator_weights: str | None,
    detect_resolution: int | None,
    offload: str,
) -> VideoPlan:
    """Check all that can be checked before anything heavy loads.

    Raises:
        ValueError: Names the option, the value and what is accepted.
        OSError: A file is missing or in the way.
    """
    device, dtype, seed = depth.device, depth.dtype, depth.seed  # the generator's too
    spec = find_generator(generator, parts)
    window, stride = choose_windows(spec, window, stride)
    info = check_source(job)
    height, width = choose_size(spec, size, info.height, info.width)
    request = Request(
        prompt=prompt,
        negative_prompt=negative_prompt,
        control_scale=control_scale,
        control_start=control_start,
        control_end=control_end,
        steps=steps,
        guidance=guidance,
        strength=strength,
        seed=seed,
        fps=float(job.rate(info)),
    )
    check_request(spec, request)
    check_device(spec, device, dtype, offload)
    picture, image_notes = read_image(image, image_fit, height, width)
    if parts.get("ip_adapter") is not None and picture is None:
        raise ValueError("--image: is missing; --ip-adapter reads it")
    needed = ("ip_adapter",) if spec.image == "style" and picture is not None else ()
    folders = find_parts(spec.name, parts, optional=needed)
    origin = choose_clip_depth(
        depth, job, info, job.output, annotator_weights=annotator_weights, detect_resolution=detect_resolution
    )
    chosen = choose_normalization(normalize, origin)
    settings = {
        "generator": spec.name,
        "parts": {part: str(folder) for part, folder in folders.items()},
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "image": None if image is None else str(image),
        "image_fit": image_fit,
        "image_sha256": None if picture is None else hashlib.sha256(picture.tobytes()).hexdigest(),
        "control_scale": control_scale,
        "control_start": control_start,
        "control_end": control_end,
        "steps": steps or spec.steps,
        "guidance": spec.guidance if guidance is None else guidance,
        "strength": strength,
        "seed": seed,
        "size": f"{width}x{height}",
        "window": window,
        "stride": stride,
        "normalize": chosen,
        "dtype": dtype,
    }
    plan = VideoPlan(
        job=job,
        info=info,
        depth=origin,
        normalize=chosen,
        generator=spec.name,
        folders=folders,
        window=window,
        stride=stride,
        height=height,
        width=width,
        request=replace(request, image=picture),
        device=device,
        dtype=dtype,
        offload=cast(Offload, offload),
        settings=settings,
        notes=(*_size_notes(info, height, width), *image_notes),
    )
    check_clip_job(job, plan.identity)
    return plan


def _size_notes(info: VideoInfo, height: int, width: int) -> tuple[str, ...]:
    """Says what of the clip is cropped away, where it is more than the rounding of a size."""
    seen = min(width / info.width, height / info.height) / max(width / info.width, height / info.height)
    if seen > 0.9:
        return ()
    return (f"{width}x{height} is of other proportions than the clip: {1 - seen:.0%} of each frame is cropped away",)


def read_image(path: Path | None, fit: str, height: int, width: int) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The picture that gives the look, at generation size.

    Args:
        path: File; None: none.
        fit: `crop`: scaled until it covers the size, what is over cropped evenly; `pad`: scaled until it fits in, its
            edge pixels repeated around it.
        height: Of the new clip.
        width: Of the new clip.

    Returns:
        uint8 `[height, width, 3]` or None, and notes.

    Raises:
        ValueError: The rule is not known, or the file is no picture.
        FileNotFoundError: There is no such file.
    """
    known_name("--image-fit", fit, IMAGE_FITS)
    if path is None:
        return None, ()
    from PIL import Image, ImageOps

    if not path.is_file():
        raise FileNotFoundError(f"--image: no such file: {path}")
    try:
        with Image.open(path) as opened:
            held = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"--image: {path} can't be read as a picture ({' '.join(str(error).split())})") from error
    picture = (cover if fit == "crop" else contain)(held, height, width)
    stretch = (held.shape[1] / width) / (held.shape[0] / height)
    notes = ()
    if not 0.9 < stretch < 1.1:
        done = "cropped" if fit == "crop" else "padded with its edge pixels"
        notes = (f"image of {held.shape[1]}x{held.shape[0]} was scaled and {done} to {width}x{height} (--image-fit)",)
    return picture, notes
