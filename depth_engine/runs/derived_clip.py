"""A new clip made of an old one: its frames in, new frames out, with the source's sound and frame times.

What novel views and generated videos share. How a run goes is in `resumable`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depth_engine.report.colours import shrink_to_width, side_by_side
from depth_engine.report.page import Report, write_report
from depth_engine.runs.pieces import Piece
from depth_engine.runs.resumable import Job, Progress, ResumableRun, Source, check_job, plain
from depth_engine.video.frame import Frame
from depth_engine.video.marks import TwoEyes
from depth_engine.video.probe import VideoInfo
from depth_engine.video.take import check_source
from depth_engine.video.write import check_format

if TYPE_CHECKING:
    from torch import Tensor

# (the source, index of the first frame to make, state of the piece before it) -> pieces from there on
Maker = Callable[[Source, int, "dict[str, Tensor]"], Iterator[Piece]]


@dataclass(frozen=True)
class ClipJob(Job):
    """What to make of which part of a source.

    Attributes:
        output: Video file to write.
        codec: `h264`, `prores` or `ffv1`.
        sound: Keep the source's sound.
        alike: Companions that are written as the output is, with its codec and sound.
        eyes: How two eyes lie in a frame of the output.
        companions: Name of a companion clip -> video file to write it to, lossless where that is an `.mkv`.
    """

    output: Path = Path()
    codec: str = "h264"
    sound: bool = True
    companions: Mapping[str, Path] = field(default_factory=dict)
    eyes: TwoEyes | None = None
    alike: Collection[str] = ()

    @property
    def work(self) -> Path:
        """Where unfinished files lie."""
        return self.output.with_name(f".{self.output.name}.work")

    @property
    def sidecar(self) -> Path:
        """How the clip was made, JSON."""
        return self.output.with_suffix(".json")

    @property
    def preview(self) -> Path:
        """Source and result side by side."""
        return self.output.with_suffix(".preview.mp4")

    @property
    def report(self) -> Path:
        """The page that plays them in step."""
        return self.output.with_suffix(".report.html")

    @property
    def outputs(self) -> list[Path]:
        """Every finished file, the report last."""
        return [self.output, *self.companions.values(), self.sidecar, self.preview, self.report]


def clip_identity(job: ClipJob, info: VideoInfo, identity: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same for a run to be resumed; plain data."""
    companions = {name: path.name for name, path in job.companions.items()}
    return plain({**job.identity(info), "codec": job.codec, "sound": job.sound, "companions": companions, **identity})


def check_clip_job(job: ClipJob, identity: Mapping[str, Any]) -> VideoInfo:
    """Check source and outputs before anything heavy loads, and make the output's folder.

    Args:
        job: What is asked for.
        identity: What else must be the same for a run to be resumed; plain data.

    Raises:
        ValueError: The source can't be used, the codec does not fit the name, or the run to resume was another one.
        FileExistsError: Outputs, or an interrupted run, are in the way.
        OSError: The folder can't be written.
    """
    check_format(job.output, job.codec)
    for name, path in job.companions.items():
        check_format(path, job.codec if name in job.alike else _companion_codec(path))
    names = [path.name for path in job.outputs]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"output: {name} would be written twice; give companions names of their own")
    if Path(job.source).exists() and Path(job.source).resolve() in [path.resolve() for path in job.outputs]:
        raise ValueError(f"output: {job.output} is the source; give another name")
    info = check_source(job)
    check_job(job, clip_identity(job, info, identity))
    return info


class ClipRun(ResumableRun):
    """A new clip with its companions, preview and report.

    Args:
        job: What to do, checked.
        identity: As for `check_clip_job`.
        make: Makes the pieces.
        settings: Shown in the report and kept in the sidecar.
        shots: Look for cuts, or their first frames where they are known.
        panels: Companion -> caption: shown in the preview and the report between the source and the result.
        notes: Sentences for the sidecar and the report; read when all is made.
        on_frames: Told how many frames are done.
    """

    preview_width = 640  # of each panel; there are up to three

    def __init__(
        self,
        job: ClipJob,
        identity: Mapping[str, Any],
        make: Maker,
        *,
        settings: Mapping[str, Any],
        shots: bool | Collection[int] = False,
        panels: Mapping[str, str] | None = None,
        notes: Sequence[str] = (),
        on_frames: Progress = lambda done: None,
    ) -> None:
        super().__init__(job, {}, on_frames)
        self.identity = clip_identity(job, self.info, identity)
        self.clip_job, self._make, self._settings, self._notes = job, make, settings, notes
        self._panels = dict(panels or {})
        self.shots = shots
        self._size = (0, 0)
        self._names: list[str] = []  # of the images of a sequence, in order

    def make(self, source: Source, first: int, state: dict[str, Tensor]) -> Iterator[Piece]:
        """See `ResumableRun.make`."""
        return self._make(source, first, state)

    def write_frame(self, made: np.ndarray, companions: dict[str, np.ndarray], frame: Frame) -> None:
        """See `ResumableRun.write_frame`."""
        job = self.clip_job
        self.video(job.output, made, frame.time_s, codec=job.codec, sound=job.sound, eyes=job.eyes)
        for name, path in job.companions.items():
            if name in job.alike:
                self.video(path, companions[name], frame.time_s, codec=job.codec, sound=job.sound)
            else:
                self.video(path, companions[name], frame.time_s, codec=_companion_codec(path), sound=False)
        shown = [companions[name] for name in self._panels]
        row = side_by_side(frame.rgb, *shown, made, max_width_each=self.preview_width)
        self.video(job.preview, row, frame.time_s, sound=job.sound)
        self.note_change(shrink_to_width(made, self.preview_width).mean(axis=2) / 255)
        self._size = (made.shape[0], made.shape[1])
        self._names += [frame.name] if frame.name is not None else []

    def write_texts(self, notes: list[str]) -> None:
        """See `ResumableRun.write_texts`."""
        job, rate = self.clip_job, self.job.rate(self.info)
        taken = {name: value for name, value in job.taken().items() if value is not None}
        sidecar = {
            "source": str(job.source),
            "settings": {**self._settings, **taken, "codec": job.codec},
            "fps": f"{rate.numerator}/{rate.denominator}",
            "height": self._size[0],
            "width": self._size[1],
            "frame_count": len(self.times_s),
            "times_s": self.times_s,
            "timecode": job.timecode(self.info),
            **({"frame_names": self._names} if self._names else {}),
            "notes": [*self._notes, *notes],
            "run": self.identity,
        }
        job.in_work(job.sidecar).write_text(json.dumps(sidecar, indent=2) + "\n", encoding="utf-8")
        report = Report(
            title=f"{Path(job.source).name} -> {job.output.name}",
            settings=sidecar["settings"],
            times_s=self.times_s,
            change=self.change,
            shots=self.first_frames,
            notes=sidecar["notes"],
            outputs=[job.in_work(path) for path in job.outputs[:-1]],
            panels=["Source", *self._panels.values(), "Result"],
            change_of="Result",
        )
        write_report(job.in_work(job.report), report, preview_mp4=job.in_work(job.preview), overwrite=True)


def _companion_codec(path: Path) -> str:
    """Masks and controls are data: lossless where the container can."""
    return "ffv1" if path.suffix.lower() == ".mkv" else "h264"
