"""What `depth2video control` does: check everything, get the depth, write the control video."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depth2video.control import ClipHistogram, ControlStream, choose_range, control_frames
from depth2video.plan.asked import AskedControl
from depth2video.plan.choices import choose_size, find_generator, parse_size
from depth2video.plan.depth_origin import choose_clip_depth, choose_normalization, get_depth
from depth2video.plan.memory import memory_told
from depth_engine.depth.input import DepthInput
from depth_engine.runs.derived_clip import ClipJob, ClipRun, check_clip_job
from depth_engine.runs.pieces import Piece
from depth_engine.runs.resumable import Progress, Source, already_finished
from depth_engine.video.probe import VideoInfo
from depth_engine.video.take import check_source

if TYPE_CHECKING:
    from torch import Tensor


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
    depth: DepthInput
    normalize: str
    height: int
    width: int
    settings: dict[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed."""
        return {**self.settings, **self.depth.identity()}

    @property
    def notes(self) -> tuple[str, ...]:
        """For the user."""
        return self.depth.notes

    def run(self, on_depth: Progress, on_frames: Progress) -> tuple[list[Path], list[str]]:
        """Write the control; the finished files, and notes.

        Raises:
            RuntimeError: Memory ran out; says what to lower.
        """
        if already_finished(self.job):
            return self.job.outputs, []
        with memory_told("--depth-max-res or --depth-window"):
            source = get_depth(self.depth, on_depth, seen := ClipHistogram())
        span = choose_range(source, self.normalize, self.job.expected_frames(self.info), seen)
        notes = list(self.notes)
        settings = {**self.settings, **self.depth.to_json()}
        if span is not None:
            settings["disparity_range"] = [span.low, span.high]

        def make(clip: Source, first: int, state: dict[str, Tensor]) -> Iterator[Piece]:
            control = ControlStream(clip.frames(), control_frames(source, span, self.height, self.width), first)
            for _ in control:
                yield Piece(control.taken(1))
            control.end(notes)

        outputs = ClipRun(self.job, self.identity, make, settings=settings, notes=notes, on_frames=on_frames).run()
        return outputs, notes


def plan_control(
    job: ClipJob, control: AskedControl, *, generator: str | None = None, size: str | None = None
) -> ControlPlan:
    """Check all that can be checked before anything heavy loads.

    Args:
        job: Source and outputs.
        control: How it is made.
        generator: The generator whose size it shall have.
        size: `WIDTHxHEIGHT`; None: the generator's, or the clip's.

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
    origin = choose_clip_depth(control, job, info, job.output)
    chosen = choose_normalization(control.normalize, origin)
    seed = control.depth.seed
    settings = {"control": "near is white", "normalize": chosen, "size": f"{width}x{height}", "seed": seed}
    plan = ControlPlan(job, info, origin, chosen, height, width, settings)
    check_clip_job(job, plan.identity)
    return plan
