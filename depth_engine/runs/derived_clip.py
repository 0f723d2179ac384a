"""A new clip made of an old one: its frames in, new frames out, with the source's sound and frame times.

What novel views and generated videos share. Work arrives in pieces; each piece is kept losslessly before the next is
made, with what the next one needs, so that a run that was killed goes on at its last piece and ends in the same bytes.

    DIR/.OUT.mp4.work/state.json         what the run is
    DIR/.OUT.mp4.work/piece-000000.mkv   frames of a piece, FFV1; `piece-000000.NAME.mkv` of its companions
    DIR/.OUT.mp4.work/next.safetensors   pieces and frames that count, and what the next piece needs
    DIR/.OUT.mp4.work/...                outputs in the making
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from depth_engine.depth.metrics import mean_abs_change
from depth_engine.report.colours import shrink_to_width, side_by_side
from depth_engine.report.page import Report, write_report
from depth_engine.runs.atomic import check_writable, publish, refuse_existing
from depth_engine.runs.background import WriteBehind
from depth_engine.runs.lock import only_run
from depth_engine.video.probe import DecodeError, VideoInfo
from depth_engine.video.read import probe, read_frames
from depth_engine.video.take import TAKE_FIELDS, Take, check_same_run, check_source
from depth_engine.video.write import VideoWriter, check_format

if TYPE_CHECKING:
    from torch import Tensor

PREVIEW_WIDTH = 640  # of each panel; there are up to three
_PIECES_FPS = 24  # pieces are read by their order alone; FFV1 wants a rate


class Piece(NamedTuple):
    """Finished frames of the new clip.

    Attributes:
        frames: uint8 `[n, H, W, 3]`, n >= 1.
        state: What the maker needs to go on after this piece, in another process if need be.
        companions: Name -> uint8 `[n, h, w, 3]`: clips that belong to it, such as a mask or the control.
    """

    frames: np.ndarray
    state: dict[str, Tensor] = {}
    companions: dict[str, np.ndarray] = {}


# (index of the first frame to make, state of the piece before it) -> pieces from there on
Maker = Callable[[int, dict[str, "Tensor"]], Iterator[Piece]]


@dataclass(frozen=True)
class ClipJob(Take):
    """What to make of which part of a source.

    Attributes:
        output: Video file to write.
        codec: `h264`, `prores` or `ffv1`.
        sound: Keep the source's sound.
        companions: Name of a companion clip -> video file to write it to, lossless where that is an `.mkv`.
        overwrite: Replace outputs that exist.
        resume: Go on with a run that was interrupted.
    """

    output: Path
    codec: str = "h264"
    sound: bool = True
    companions: Mapping[str, Path] = field(default_factory=dict)
    overwrite: bool = False
    resume: bool = False

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

    @property
    def finished(self) -> bool:
        """Whether an earlier run ended."""
        return not self.work.exists() and all(path.exists() for path in self.outputs)


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
    for path in job.companions.values():
        check_format(path, _companion_codec(path))
    names = [path.resolve() for path in job.outputs]
    for path in names:
        if names.count(path) > 1:
            raise ValueError(f"output: {path.name} would be written twice; give companions names of their own")
    if Path(job.source).exists() and Path(job.source).resolve() in names:
        raise ValueError(f"output: {job.output} is the source; give another name")
    info = check_source(job)
    if job.resume:
        held = _read_identity(job.work)
        if held is None and job.finished:
            held = json.loads(job.sidecar.read_text()).get("run", {})
        check_same_run(held, _whole_identity(job, info, identity), job.output)
    elif not job.overwrite:
        for path in job.outputs:
            refuse_existing(path, overwrite=False)
        if job.work.exists():
            raise FileExistsError(
                f"output: an interrupted run began {job.output}; --resume goes on with it, --overwrite starts anew"
            )
    for folder in {path.parent for path in job.outputs}:
        check_writable(folder)
    return info


def run_clip_job(
    job: ClipJob,
    identity: Mapping[str, Any],
    make: Maker,
    *,
    settings: Mapping[str, Any],
    panels: Mapping[str, str] | None = None,
    notes: Sequence[str] = (),
    on_frames: Callable[[int], None] = lambda done: None,
) -> list[Path]:
    """Run a checked job to its finished files.

    Args:
        job: What to do.
        identity: As for `check_clip_job`.
        make: Makes the pieces; it reads the source itself.
        settings: Shown in the report and kept in the sidecar.
        panels: Companion -> caption: shown in the preview and the report between the source and the result.
        notes: Sentences for the sidecar and the report.
        on_frames: Told how many frames are done.

    Returns:
        The finished files.

    Raises:
        DecodeError: The source broke off; what was made up to there is finished and kept.
        ValueError: The interrupted run was another one, or lost data.
        OSError: Writing failed; the finished pieces stay for `--resume`.
    """
    if job.resume and job.finished:
        return job.outputs
    info = probe(job.source)
    whole = _whole_identity(job, info, identity)
    job.work.parent.mkdir(parents=True, exist_ok=True)
    with only_run(job.work):
        if job.overwrite and not job.resume:
            shutil.rmtree(job.work, ignore_errors=True)
        job.work.mkdir(exist_ok=True)
        pieces = _Pieces(job.work, whole)
        run = _Run(job, info, pieces, dict(panels or {}), on_frames)
        with ExitStack() as stack:
            try:
                broken = run.write_all(make, stack)
            except BaseException:
                stack.close()
                run.remove_unfinished()  # the pieces stay: --resume needs them
                raise
            run.write_texts(whole, settings, list(notes))
        for path in job.outputs:
            publish(job.work / path.name, path, overwrite=True)
        shutil.rmtree(job.work)
    if broken is not None:
        raise broken
    return job.outputs


class _Pieces:
    """The pieces of a run on disk. Those count that `next.safetensors` says, which is replaced in one step."""

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self._folder, self._next = folder, folder / "next.safetensors"
        self.count, self.frames, self.companions, self.state = 0, 0, [], {}
        held = _read_identity(folder)
        if held is None:
            partial = folder / "state.partial"
            partial.write_text(json.dumps(identity, indent=2) + "\n")
            os.replace(partial, folder / "state.json")
        else:
            check_same_run(held, identity, folder)
        if self._next.exists():
            self._read_next()

    def append(self, piece: Piece) -> None:
        """Keep a piece."""
        from safetensors.torch import save_file

        names = {"": piece.frames, **piece.companions}
        for name, frames in names.items():
            height, width = frames.shape[1:3]
            path = self._path(self.count, name)
            with VideoWriter(path, width=width, height=height, fps=_PIECES_FPS, codec="ffv1", overwrite=True) as writer:
                for index, frame in enumerate(frames):
                    writer.write(frame, index / _PIECES_FPS)
        self.count, self.frames, self.companions = (
            self.count + 1,
            self.frames + len(piece.frames),
            list(piece.companions),
        )
        numbers = {"count": self.count, "frames": self.frames, "companions": self.companions}
        partial = self._next.with_suffix(".partial")
        tensors = {name: tensor.contiguous().cpu() for name, tensor in piece.state.items()}
        save_file(tensors, partial, metadata={"pieces": json.dumps(numbers)})
        os.replace(partial, self._next)

    def kept(self) -> Iterator[Piece]:
        """The pieces that were there when the run began."""
        for number in range(self.count):
            clips = {name: self._read(number, name) for name in ["", *self.companions]}
            yield Piece(clips.pop(""), companions=clips)

    def _read(self, number: int, name: str) -> np.ndarray:
        path = self._path(number, name)
        if not path.exists():
            raise ValueError(f"resume: {path} is missing; --overwrite starts anew")
        return np.stack([frame.rgb for frame in read_frames(path)])

    def _path(self, number: int, name: str) -> Path:
        return self._folder / f"piece-{number:06d}{'.' * bool(name)}{name}.mkv"

    def _read_next(self) -> None:
        from safetensors import safe_open

        with safe_open(self._next, framework="pt") as file:
            numbers = json.loads(file.metadata()["pieces"])
            self.state = {name: file.get_tensor(name) for name in file.keys()}
        self.count, self.frames, self.companions = numbers["count"], numbers["frames"], numbers["companions"]


class _Run:
    """The pass that writes every output, from kept pieces first, then from new ones."""

    def __init__(
        self,
        job: ClipJob,
        info: VideoInfo,
        pieces: _Pieces,
        panels: dict[str, str],
        on_frames: Callable[[int], None],
    ) -> None:
        self._job, self._info, self._pieces, self._panels, self._on_frames = job, info, pieces, panels, on_frames
        self._writers: dict[Path, VideoWriter] = {}
        self._times_s: list[float] = []
        self._change: list[float] = []
        self._previous: np.ndarray | None = None
        self._size = (0, 0)
        self._broken: DecodeError | None = None

    def write_all(self, make: Maker, stack: ExitStack) -> DecodeError | None:
        """Write the videos into the work folder; return the fault that ended the source early, if any."""
        self._stack = stack
        source = stack.enter_context(closing(self._job.frames()))  # type: ignore[type-var]
        for piece in self._pieces.kept():
            self._write(piece, source)
        new = self._until_a_fault(make(self._pieces.frames, self._pieces.state))
        try:
            with WriteBehind[Piece](lambda piece: self._keep(piece, source), items=1) as behind:
                for piece in new:
                    behind.put(piece)
        except DecodeError as error:  # met while writing: the source is read for the preview too
            self._broken = error
        if not self._times_s:
            raise self._broken or ValueError(f"input: no frame could be read from {self._job.source}")
        for writer in self._writers.values():
            writer.close()
        return self._broken

    def _until_a_fault(self, pieces: Iterator[Piece]) -> Iterator[Piece]:
        """The pieces that there are; what ended the source early is noted, and those before it are kept."""
        try:
            yield from pieces
        except DecodeError as error:
            self._broken = error

    def _keep(self, piece: Piece, source: Iterator[Any]) -> None:
        self._pieces.append(piece)
        self._write(piece, source)

    def write_texts(self, identity: dict[str, Any], settings: Mapping[str, Any], notes: list[str]) -> None:
        """Sidecar and report."""
        job, rate = self._job, self._job.rate(self._info)
        notes = [*self._info.notes, *notes] + ([f"The source broke off: {self._broken}"] if self._broken else [])
        taken = {name: getattr(job, name) for name in TAKE_FIELDS if getattr(job, name) is not None}
        sidecar = {
            "source": str(job.source),
            "settings": {**settings, **taken, "codec": job.codec},
            "fps": f"{rate.numerator}/{rate.denominator}",
            "height": self._size[0],
            "width": self._size[1],
            "frame_count": len(self._times_s),
            "times_s": self._times_s,
            "notes": notes,
            "run": identity,
        }
        (job.work / job.sidecar.name).write_text(json.dumps(sidecar, indent=2) + "\n")
        report = Report(
            title=f"{Path(job.source).name} -> {job.output.name}",
            settings=sidecar["settings"],
            times_s=self._times_s,
            change=self._change,
            shots=[0],
            notes=notes,
            outputs=[job.work / path.name for path in job.outputs[:-1]],
            panels=["Source", *self._panels.values(), "Result"],
            change_of="Result",
        )
        page, preview = job.work / job.report.name, job.work / job.preview.name
        write_report(page, report, preview_mp4=preview, overwrite=True)

    def remove_unfinished(self) -> None:
        """Delete outputs in the making."""
        for path in self._job.outputs:
            (self._job.work / path.name).unlink(missing_ok=True)

    def _write(self, piece: Piece, source: Iterator[Any]) -> None:
        for index, frame in enumerate(piece.frames):
            original = next(source, None)
            if original is None:
                raise ValueError(f"input: {self._job.source} has fewer frames than when the run began")
            time_s = original.time_s
            self._writer(self._job.output, frame, self._job.codec, sound=self._job.sound).write(frame, time_s)
            for name, path in self._job.companions.items():
                companion = piece.companions[name][index]
                self._writer(path, companion, _companion_codec(path), sound=False).write(companion, time_s)
            shown = [piece.companions[name][index] for name in self._panels]
            small = shrink_to_width(original.rgb, PREVIEW_WIDTH)
            row = side_by_side(small, *shown, frame, max_width_each=PREVIEW_WIDTH)
            self._writer(self._job.preview, row, "h264", sound=self._job.sound).write(row, time_s)
            self._note_change(frame)
            self._times_s.append(time_s)
            self._on_frames(len(self._times_s))

    def _writer(self, path: Path, frame: np.ndarray, codec: str, *, sound: bool) -> VideoWriter:
        """The writer of an output, begun with its first frame."""
        if path not in self._writers:
            job, info = self._job, self._info
            self._writers[path] = self._stack.enter_context(
                VideoWriter(
                    job.work / path.name,
                    width=frame.shape[1],
                    height=frame.shape[0],
                    fps=job.rate(info),
                    codec=codec,
                    audio_from=Path(job.source) if sound and info.has_audio else None,
                    audio_start_s=job.start_s or 0.0,
                    audio_end_s=job.sound_end_s(info),
                    sample_aspect=info.sample_aspect,
                    overwrite=True,
                )
            )
        return self._writers[path]

    def _note_change(self, frame: np.ndarray) -> None:
        small = shrink_to_width(frame, PREVIEW_WIDTH).mean(axis=2) / 255
        if self._previous is not None:
            self._change.append(mean_abs_change(self._previous, small))
        self._previous, self._size = small, (frame.shape[0], frame.shape[1])


def _companion_codec(path: Path) -> str:
    """Masks and controls are data: lossless where the container can."""
    return "ffv1" if path.suffix.lower() == ".mkv" else "h264"


def _whole_identity(job: ClipJob, info: VideoInfo, identity: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same for a run to be resumed, as JSON gives it back."""
    companions = {name: path.name for name, path in job.companions.items()}
    whole = {**job.identity(info), "codec": job.codec, "sound": job.sound, "companions": companions, **identity}
    return json.loads(json.dumps(whole))


def _read_identity(folder: Path) -> dict[str, Any] | None:
    state = folder / "state.json"
    return json.loads(state.read_text()) if state.exists() else None
