"""Where the depth comes from that a command works from: a file, the engine, or another method; one way for all.

Depth that is made is kept in a folder beside the command's output, as `depth-engine estimate` leaves it, so that it can
be looked at, moved, given by name later, and used again by the next run of the same settings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from depth_engine.checks import known_name
from depth_engine.depth.formats import as_read_back, to_unit
from depth_engine.depth.source import DepthSource, open_depth
from depth_engine.models.families import find_checkpoint
from depth_engine.runs.depth_run import DepthJob, DepthMaker, DepthRun, EngineMethod
from depth_engine.runs.resumable import Job, Progress, already_finished, check_job, plain
from depth_engine.video.probe import DecodeError, VideoInfo
from depth_engine.video.take import TAKE_FIELDS, Take

ENGINE = "engine"


class DepthMethod(Protocol):
    """How depth is made, checked and not loaded."""

    @property
    def name(self) -> str:
        """Of its weights."""
        ...

    @property
    def kind(self) -> str:
        """`disparity`, `depth` or `metric`."""
        ...

    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed; plain data."""
        ...

    def load(self, job: Job) -> DepthMaker:
        """Load what makes the depth of a job."""
        ...


@dataclass(frozen=True)
class DepthRequest:
    """What a user asked for.

    Attributes:
        source: A depth file or folder, the name of a method, or None for the engine.
        kind: `disparity`, `depth` or `metric`, for a file whose sidecar does not say it.
        engine: Option of the engine -> value; None: not given.
        shots: Find cuts.
        device: As `DepthEngine.from_pretrained` takes it.
        dtype: Likewise.
        seed: Of the engine's noise.
    """

    source: str | Path | None = None
    kind: str | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)
    shots: bool = True
    device: str = "auto"
    dtype: str = "auto"
    seed: int = 0


@dataclass(frozen=True)
class DepthInput:
    """The depth of a clip, checked.

    Attributes:
        kind: `disparity`, `depth` or `metric`.
        file: Depth that was given.
        job: Else what is made,
        method: and how.
        info: Of the clip.
        notes: For the user.
        still_frames: How many frames show the single image that it is of; None: it is of a clip.
    """

    kind: str
    info: VideoInfo
    file: DepthSource | None = None
    job: DepthJob | None = None
    method: DepthMethod | None = None
    notes: tuple[str, ...] = ()
    still_frames: int | None = None

    def get(self, on_frames: Progress, on_depth: Callable[[np.ndarray], None] | None = None) -> DepthSource:
        """The depth, made now if need be; of a source that breaks off, as far as it could be read.

        Args:
            on_frames: Told how many frames are done.
            on_depth: Given each frame's depth as the source will give it; none of what was made before.

        Raises:
            DecodeError: Not one frame could be read.
        """
        if self.file is not None:
            return self._for_every_frame(self.file)
        job, method = self._made()

        def seen(values: np.ndarray, value_range: tuple[float, float]) -> None:
            stored = as_read_back(values, value_range)
            if on_depth is not None:
                on_depth(stored if self.kind == "metric" else to_unit(stored, *value_range))

        try:
            if not already_finished(job):
                DepthRun(job, self._identity(), method.load(job), on_frames, on_depth and seen).run()
        except DecodeError:  # told by the run that works from this depth and reads the same source
            if not job.finished:
                raise
        return self._for_every_frame(open_depth(job.folder))

    def _for_every_frame(self, depth: DepthSource) -> DepthSource:
        return depth if self.still_frames is None or depth.frame_count != 1 else depth.repeated(self.still_frames)

    def identity(self) -> dict[str, Any]:
        """What must be the same for a run that works from it to go on."""
        if self.file is not None:
            return {"depth": str(self.file.path), "depth_time_ns": self.file.path.stat().st_mtime_ns}
        return {"depth": self._identity()}

    def to_json(self) -> dict[str, Any]:
        """For the sidecar."""
        if self.file is not None:
            return {"depth": str(self.file.path)}
        job, method = self._made()
        return {"depth": str(job.folder), "depth_model": method.name}

    def _made(self) -> tuple[DepthJob, DepthMethod]:
        if self.job is None or self.method is None:
            raise ValueError("depth: neither a file nor a method is given")
        return self.job, self.method

    def _identity(self) -> dict[str, Any]:
        job, method = self._made()
        return plain({**job.identity(self.info), **method.identity()})


def choose_depth(
    request: DepthRequest,
    take: Take,
    info: VideoInfo,
    output: Path,
    methods: Mapping[str, Callable[[], DepthMethod]] | None = None,
    prefix: str = "",
) -> DepthInput:
    """Check where depth comes from, before anything heavy loads.

    Args:
        request: What was asked for.
        take: The part of the clip.
        info: Of the clip.
        output: What is made of the depth; made depth is kept in a folder beside it.
        methods: Name -> what checks another method than the engine.
        prefix: Of the engine's options, such as `depth-`.

    Raises:
        ValueError: An option is of another source of depth, or depth and clip do not belong together.
        OSError: A file is missing, or the folder can't be written.
    """
    name, methods = str(request.source or ENGINE), methods or {}
    given = sorted(option for option, value in request.engine.items() if value is not None)
    if given and name != ENGINE:
        raise ValueError(f"--{prefix}{given[0].replace('_', '-')}: only applies to --depth engine; --depth is {name}")
    still = None if take.duration_s is None else take.expected_frames(info)
    if name not in (ENGINE, *methods):
        if not Path(name).exists() and Path(name).name == name and not Path(name).suffix:
            known_name("--depth", name, [ENGINE, *methods, "a file"])
        file = open_depth(name, request.kind)
        return DepthInput(file.kind, info, file=file, notes=check_fit(file, take, info), still_frames=still)
    if request.kind is not None:
        raise ValueError(f"--depth-kind: is for --depth FILE; {name} knows its own")
    method = _engine(request) if name == ENGINE else methods[name]()
    folder = output.with_suffix(".depth" if name == ENGINE else f".{name}")
    clip = {name: getattr(take, name) for name in TAKE_FIELDS}
    job = DepthJob(take.source, folder=folder, resume=True, **clip)
    made = DepthInput(method.kind, info, job=job, method=method, still_frames=still)
    identity = made._identity()
    try:
        check_job(job, identity)
    except (ValueError, FileExistsError):  # of other settings: made anew
        job = replace(job, resume=False, overwrite=True)
        made = replace(made, job=job)
        check_job(job, identity)
    return made


def _engine(request: DepthRequest) -> EngineMethod:
    options = dict(request.engine)
    model, spec, base = (options.pop(name, None) for name in ("model", "spec", "base"))
    checkpoint = find_checkpoint(model or "bundled", spec=spec, base=base)
    settings = checkpoint.choose_settings(seed=request.seed, **options)
    return EngineMethod(checkpoint, settings, request.shots, request.device, request.dtype)


def check_fit(source: DepthSource, take: Take, info: VideoInfo) -> tuple[str, ...]:
    """See that depth and clip belong together; what is resized or left over is told.

    Args:
        source: The depth.
        take: The part of the clip.
        info: Of the clip.

    Returns:
        Notes for the user.

    Raises:
        ValueError: The proportions differ by more than the rounding of a size explains, or the numbers of frames
            differ and `--end` or `--max-frames` do not say why.
    """
    notes = list(source.notes)
    stretch = (source.width / info.width) / (source.height / info.height)
    # A side rounded to a multiple of 64, as annotators do, stretches small pictures by up to 32 / 256.
    if not 0.88 < stretch < 1.14:
        raise ValueError(
            f"--depth: {source.path} is {source.width}x{source.height}, the clip {info.width}x{info.height}: the "
            "proportions differ; give depth of this clip"
        )
    if (source.height, source.width) != (info.height, info.width):
        notes.append(f"depth of {source.width}x{source.height} was resized to the clip's {info.width}x{info.height}")
    held = source.frame_count
    if held == 1 and take.duration_s is not None:
        return tuple(notes)
    if held is None or held == take.expected_frames(info):
        return tuple(notes)
    wanted, whole = _count(take)  # what a container announces is a guess
    from_the_start = not take.start_s and take.fps is None
    if held < wanted:
        cut = f"--max-frames {held}, or " if from_the_start else ""
        raise ValueError(
            f"--depth: {source.path} has {held} frames, the clip {wanted}; give {cut}depth of all that is taken"
        )
    explained = not whole or (from_the_start and (take.max_frames is not None or take.end_s is not None))
    if held > wanted and not explained:
        # Of a part that begins later, or at a lower rate, the first frames of the depth are those of other pictures.
        cut = f", or --max-frames {wanted} to use its first frames" if from_the_start else ""
        raise ValueError(
            f"--depth: {source.path} has {held} frames, more than the {wanted} that are taken of the clip; give depth "
            f"of this part{cut}"
        )
    if held > wanted:
        notes.append(f"depth has {held} frames, {wanted} are taken of the clip; the rest of the depth is not used")
    return tuple(notes)


def _count(take: Take) -> tuple[int, bool]:
    """How many frames a clip has, and whether it could be read to its end."""
    count = 0
    try:
        for _ in take.frames():
            count += 1
    except DecodeError:
        return count, False
    return count, True
