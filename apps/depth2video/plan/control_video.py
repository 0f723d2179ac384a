"""What `depth2video control` does: check everything, get the depth, write the control video."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depth2video.control import ClipHistogram, ControlStream, choose_range, control_frames
from depth2video.plan.choices import choose_size, find_generator, parse_size
from depth2video.plan.depth_origin import DepthOrigin, Progress, choose_depth, choose_normalization
from depth2video.plan.memory import memory_told
from depth_engine.runs.derived_clip import ClipJob, Piece, check_clip_job, run_clip_job
from depth_engine.video.probe import VideoInfo
from depth_engine.video.take import check_source

if TYPE_CHECKING:
    from torch import Tensor

_PIECE_FRAMES = 48  # what a killed run loses at the most


@dataclass(frozen=True)
class ControlPlan:
    """`depth2video control`, checked.

    Attributes:
        job: Source and outputs.
        info: Of the source.
        depth: Where it comes from.
        normalize: How depth becomes control.
        height: Of the control.
        width: Of the control.
        settings: What the user chose, for the sidecar.
    """

    job: ClipJob
    info: VideoInfo
    depth: DepthOrigin
    normalize: str
    height: int
    width: int
    settings: dict[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed."""
        return {**self.settings, **self.depth.identity()}

    def run(self, on_depth: Progress, on_frames: Progress) -> tuple[list[Path], list[str]]:
        """Write the control; the finished files, and notes.

        Raises:
            RuntimeError: Memory ran out; says what to lower.
        """
        if self.job.resume and self.job.finished:
            return self.job.outputs, []
        with memory_told("--depth-max-res or --depth-window"):
            source = self.depth.get(on_depth, seen := ClipHistogram())
        span = choose_range(source, self.normalize, self.job.expected_frames(self.info), seen)
        notes = list(self.depth.notes)
        settings = {**self.settings, **self.depth.to_json()}
        if span is not None:
            settings["disparity_range"] = [span.low, span.high]

        def make(first: int, state: dict[str, Tensor]) -> Iterator[Piece]:
            control = ControlStream(self.job, control_frames(source, span, self.height, self.width), first)
            frames = iter(control)
            while count := len(list(islice(frames, _PIECE_FRAMES))):
                yield Piece(control.taken(count))
            control.end(notes)

        outputs = run_clip_job(self.job, self.identity, make, settings=settings, notes=notes, on_frames=on_frames)
        return outputs, notes


def plan_control(
    job: ClipJob,
    *,
    generator: str | None,
    size: str | None,
    normalize: str | None,
    depth: str | None,
    depth_kind: str | None,
    annotator_weights: str | None,
    detect_resolution: int | None,
    engine: Mapping[str, Any],
    shots: bool,
    seed: int,
    device: str,
    dtype: str,
) -> ControlPlan:
    """Check all that can be checked before anything heavy loads.

    Raises:
        ValueError: Names the option, the value and what is accepted.
        OSError: A file is missing or in the way.
    """
    info = check_source(job)
    if generator is not None:
        height, width = choose_size(find_generator(generator, {}), size, info.height, info.width)
    elif size is not None:
        width, height = parse_size(size)
    else:
        height, width = info.height, info.width
    origin = choose_depth(
        job,
        info,
        depth,
        depth_kind,
        engine,
        annotator_weights=annotator_weights,
        detect_resolution=detect_resolution,
        shots=shots,
        device=device,
        dtype=dtype,
        seed=seed,
    )
    chosen = choose_normalization(normalize, origin)
    settings = {"control": "near is white", "normalize": chosen, "size": f"{width}x{height}", "seed": seed}
    plan = ControlPlan(job, info, origin, chosen, height, width, settings)
    check_clip_job(job, plan.identity)
    return plan
