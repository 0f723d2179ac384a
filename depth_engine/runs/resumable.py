"""The one resumable run: how every command that makes files of a clip goes from source to finished files.

The source is decoded once. What is made of it arrives in pieces; each is kept on disk before the next is begun, with
what that one needs. Every output is written in step under the work folder and gets its name at the end. A run that was
killed feeds the frames that were kept to fresh output files and goes on after them, so the bytes are those of an
unbroken run. A source that breaks off gives what was made of it up to there. A run that has to know all of what is made
before it can write any reads the source a second time.

    WORK/state.json   what the run is
    WORK/piece-...    see `pieces`
    WORK/...          outputs in the making
    WORK-done         the work folder once every output has its name, while it is deleted
    WORK.lock         held while a run works here
"""

from __future__ import annotations

import json
import os
import shutil
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depth_engine.depth.metrics import mean_abs_change
from depth_engine.report.colours import shrink_to_width
from depth_engine.runs.atomic import check_writable, publish
from depth_engine.runs.background import WriteBehind
from depth_engine.runs.lock import only_run
from depth_engine.runs.pieces import PIECE_FILES, Piece, PieceStore, gathered
from depth_engine.video.frame import Frame
from depth_engine.video.marks import Marks, TwoEyes
from depth_engine.video.probe import DecodeError, VideoInfo
from depth_engine.video.shots import mark_known, mark_shots
from depth_engine.video.take import TAKE_FIELDS, Take
from depth_engine.video.write import VideoWriter

if TYPE_CHECKING:
    from torch import Tensor

_STATE = "state.json"
_BROKE_OFF = "The source broke off: "  # begins the note that says so in the sidecar
# A run that is whole stays as it is, wherever it was computed.
_OF_THE_MACHINE = ("device", "software")

Progress = Callable[[int], None]  # told how many frames are done


@dataclass(frozen=True)
class Job(Take, ABC):
    """What to make of which part of a source.

    Attributes:
        overwrite: Replace outputs that exist.
        resume: Go on with a run that was interrupted.
    """

    overwrite: bool = False
    resume: bool = False

    @property
    @abstractmethod
    def work(self) -> Path:
        """Where unfinished files lie."""

    @property
    @abstractmethod
    def sidecar(self) -> Path:
        """How the outputs were made, JSON; one of them."""

    @property
    @abstractmethod
    def outputs(self) -> list[Path]:
        """Every finished file and folder, the report last."""

    @property
    def stale(self) -> list[Path]:
        """Files of other runs that would not fit this one's: in the way like outputs, and deleted by `overwrite`."""
        return []

    @property
    def work_done(self) -> Path:
        """The work folder's name once every output has its own."""
        return self.work.with_name(f"{self.work.name}-done")

    @property
    def finished(self) -> bool:
        """Whether an earlier run ended."""
        return not self.work.exists() and all(path.exists() for path in self.outputs)

    def in_work(self, path: Path) -> Path:
        """Where an output lies while it is in the making."""
        return self.work / path.name

    def taken(self) -> dict[str, Any]:
        """The part of the source, as keywords of another job."""
        return {name: getattr(self, name) for name in TAKE_FIELDS}


def check_job(job: Job, identity: Mapping[str, Any]) -> None:
    """See that nothing is in the way of a job, and make its folders.

    Args:
        job: What is asked for.
        identity: What must be the same for a run to be resumed; plain JSON data.

    Raises:
        ValueError: The run to resume was another one.
        FileExistsError: Outputs, or an interrupted run, are in the way.
        OSError: A folder can't be written.
    """
    if job.resume:
        _check_same_run(job, identity)
    interrupted = job.work.exists()
    in_the_way = [path for path in [*job.outputs, *job.stale] if os.path.lexists(path)]
    if in_the_way and not job.overwrite and not (job.resume and (interrupted or job.finished)):
        raise FileExistsError(f"output: {in_the_way[0]} exists; --overwrite replaces it, or choose another -o/--output")
    if interrupted and not job.overwrite and not job.resume:
        raise FileExistsError(
            f"output: an interrupted run is in {job.work.parent}; --resume goes on with it, --overwrite starts anew"
        )
    for folder in {path.parent for path in job.outputs}:
        check_writable(folder)


def already_finished(job: Job) -> bool:
    """Whether a job that may resume has nothing left to do. Takes away what a kill left at the very end.

    Raises:
        DecodeError: All is finished, and the source broke off: ends as it did the first time.
    """
    if not (job.resume and job.finished):
        return False
    with only_run(job.work):  # and takes away what a kill left of the lock
        shutil.rmtree(job.work_done, ignore_errors=True)
    made = _read_json(job.sidecar)
    for note in made.get("notes", []):
        if note.startswith(_BROKE_OFF):
            raise DecodeError(note.removeprefix(_BROKE_OFF), made["frame_count"])
    return True


class Source:
    """The source of a run, decoded once: whole frames go to the maker, small copies of them wait for the writer.

    Attributes:
        info: What it is.
        broken: The fault that ended it early, if any.
    """

    def __init__(self, run: ResumableRun, kept: int, write_kept: Callable[[Frame], None]) -> None:
        """Args: whose source it is, how many frames are made already, and what writes one of those."""
        self._run, self._kept, self._write_kept = run, kept, write_kept
        self.info = run.info
        self._waiting: deque[Frame] = deque()
        self.broken: DecodeError | None = None

    def frames(self) -> Iterator[Frame]:
        """The frames from the first on, once, with shots marked; no error where the source breaks off."""
        shots = self._run.shots
        with closing(self._whole()) as whole:  # type: ignore[type-var]
            for frame in mark_shots(whole, shots) if isinstance(shots, bool) else mark_known(whole, shots):
                small = replace(frame, rgb=shrink_to_width(frame.rgb, self._run.preview_width))
                if frame.index < self._kept:
                    self._write_kept(small)
                else:
                    self._waiting.append(small)
                yield frame

    def next_small(self) -> Frame:
        """The next frame that the maker was given; its picture is a small copy."""
        return self._waiting.popleft()

    def _whole(self) -> Iterator[Frame]:
        with closing(self._run.job.frames()) as frames:  # type: ignore[type-var]
            while True:
                try:
                    frame = next(frames, None)
                except DecodeError as error:
                    self.broken = error
                    return
                if frame is None:
                    return
                yield frame


class ResumableRun(ABC):
    """A run of a checked job. A subclass says what is made, and how it is written.

    Args:
        job: What to do.
        identity: As for `check_job`.
        on_frames: Told how many frames are done.

    Attributes:
        info: Of the source.
        times_s: When the frames written so far are shown.
        first_frames: Of the shots so far.
        change: Mean absolute change from each frame to the next, of what `note_change` was given.
    """

    preview_width: int  # of each panel
    writes_last: bool = False  # nothing is written before all is made
    shots: bool | Collection[int] = False  # cuts are looked for, or not, or known

    def __init__(self, job: Job, identity: Mapping[str, Any], on_frames: Progress) -> None:
        self.job, self.identity, self.on_frames = job, dict(identity), on_frames
        self.info: VideoInfo = job.info()
        self.times_s: list[float] = []
        self.first_frames: list[int] = []
        self.change: list[float] = []
        self._previous: np.ndarray | None = None
        self._videos: dict[Path, VideoWriter] = {}
        self.open_files = ExitStack()

    @abstractmethod
    def make(self, source: Source, first: int, state: dict[str, Tensor]) -> Iterator[Piece]:
        """Pieces from frame `first` on; `state` is that of the piece before it. Reads `source` from its first frame."""

    def begin_writing(self, store: PieceStore) -> None:
        """With `writes_last`: all that is made is in `store`, and the writing begins."""
        raise NotImplementedError

    @abstractmethod
    def write_frame(self, made: np.ndarray, companions: dict[str, np.ndarray], frame: Frame) -> None:
        """Give what was made of a frame to every output, in the work folder; `frame` has a small picture."""

    @abstractmethod
    def write_texts(self, notes: list[str]) -> None:
        """Write sidecar and report into the work folder; `notes` are of the source."""

    def run(self) -> list[Path]:
        """Run to the finished files.

        Returns:
            The finished files and folders.

        Raises:
            DecodeError: The source broke off; what was made up to there is finished and kept.
            ValueError: The interrupted run was another one, or lost data.
            OSError: Writing failed; the finished pieces stay for `--resume`.
        """
        job = self.job
        if already_finished(job):
            return job.outputs
        job.work.parent.mkdir(parents=True, exist_ok=True)
        with only_run(job.work):
            if job.overwrite and not job.resume:
                _discard(job)
            job.work.mkdir(exist_ok=True)
            replaces = self._begin()
            store = PieceStore(job.work)
            try:
                broken = self._write_all(store)
            except BaseException:
                _remove_unfinished(job.work)
                if not store.count:
                    _discard(job)
                raise
            for path in job.outputs:
                publish(job.in_work(path), path, overwrite=True)
            for path in job.stale if replaces else ():
                _remove(path)
            _discard(job)
        if broken is not None:
            raise broken
        return job.outputs

    def video(
        self,
        path: Path,
        frame: np.ndarray,
        time_s: float,
        *,
        codec: str = "h264",
        sound: bool = True,
        eyes: TwoEyes | None = None,
    ) -> None:
        """Add a frame to an output video, which begins with its first, beside the source's sound.

        Args:
            path: The output's finished name.
            frame: uint8 `[H, W, 3]`.
            time_s: When it is shown.
            codec: As `VideoWriter` takes it.
            sound: Put the source's sound beside it.
            eyes: How two eyes lie in the frame.
        """
        if path not in self._videos:
            job, info = self.job, self.info
            writer = VideoWriter(
                job.in_work(path),
                width=frame.shape[1],
                height=frame.shape[0],
                fps=job.rate(info),
                codec=codec,
                sound=job.sound_beside(info) if sound else None,
                marks=Marks(info.sample_aspect, job.timecode(info), eyes),
                overwrite=True,
            )
            self._videos[path] = self.open_files.enter_context(writer)
        self._videos[path].write(frame, time_s)

    def note_change(self, values: np.ndarray) -> None:
        """Compare with the frame before."""
        if self._previous is not None:
            self.change.append(mean_abs_change(self._previous, values))
        self._previous = values

    def _begin(self) -> bool:
        """Say in the work folder what the run is, or see that it is the same; whether it replaces another's files."""
        state = self.job.work / _STATE
        _remove_unfinished(self.job.work)
        if state.exists():
            _check_same_run(self.job, self.identity)
            return bool(_read_json(state).get("overwrite"))
        partial = state.with_suffix(".partial")
        partial.write_text(json.dumps({**self.identity, "overwrite": self.job.overwrite}, indent=2) + "\n")
        os.replace(partial, state)
        return self.job.overwrite

    def _write_all(self, store: PieceStore) -> DecodeError | None:
        """Write every output into the work folder; the fault that ended the source early, if any."""
        if self.writes_last:
            self._make_all(store)
            self.begin_writing(store)
        kept, made = store.frames, store.kept()
        source = Source(self, kept, lambda frame: self._write(*next(made), frame))

        def keep(piece: Piece) -> None:
            store.append(piece)
            for values, companions in piece.one_by_one():
                self._write(values, companions, source.next_small())

        with self.open_files:
            if self.writes_last:
                for _ in source.frames():
                    pass
            else:
                self._make_rest(source, store, keep)
            if len(self.times_s) < kept:
                raise ValueError(f"resume: {self.job.source} has fewer frames than when the run began")
            if not self.times_s:
                raise source.broken or ValueError(f"input: no frame could be read from {self.job.source}")
        broke_off = [] if source.broken is None else [f"{_BROKE_OFF}{source.broken}"]
        self.write_texts([*self.info.notes, *broke_off])
        return source.broken

    def _make_all(self, store: PieceStore) -> None:
        """Make what is not in `store` yet, and write nothing."""
        source = Source(self, store.frames, lambda frame: None)

        def keep(piece: Piece) -> None:
            store.append(piece)
            for _ in piece.frames:
                source.next_small()
            self.on_frames(store.frames)

        self._make_rest(source, store, keep)

    def _make_rest(self, source: Source, store: PieceStore, keep: Callable[[Piece], None]) -> None:
        """Make what is not in `store` yet; each piece goes to `keep`, in another thread."""
        with (
            closing(gathered(self.make(source, store.frames, store.state))) as pieces,  # type: ignore[type-var]
            WriteBehind[Piece](keep, items=2, dropped=store.append) as behind,
        ):
            for piece in pieces:
                behind.put(piece)

    def _write(self, made: np.ndarray, companions: dict[str, np.ndarray], frame: Frame) -> None:
        self.write_frame(made, companions, frame)
        self.times_s.append(frame.time_s)
        if frame.starts_shot:
            self.first_frames.append(frame.index)
        if not self.writes_last:
            self.on_frames(len(self.times_s))


def _check_same_run(job: Job, identity: Mapping[str, Any]) -> None:
    """Compare with the run that is interrupted, or finished, in the job's place.

    Raises:
        ValueError: Names the first thing that differs.
    """
    if (job.work / _STATE).exists():
        compare_runs(_read_json(job.work / _STATE), identity, job.work.parent)
    elif job.finished:
        identity = {name: value for name, value in identity.items() if name not in _OF_THE_MACHINE}
        compare_runs(_read_json(job.sidecar).get("run", {}), identity, job.work.parent)


def compare_runs(held: Mapping[str, Any], wanted: Mapping[str, Any], where: Path) -> None:
    """Compare a run with the one that is to be resumed.

    Raises:
        ValueError: Names the first thing that differs.
    """
    for name, value in wanted.items():
        if held.get(name) != value:
            raise ValueError(
                f"resume: the run in {where} had {name} {held.get(name)}, not {value}; "
                "give the same clip and settings, or --overwrite to start anew"
            )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"resume: {path} can't be read ({error}); --overwrite starts anew") from error
    return held if isinstance(held, dict) else {}


def _discard(job: Job) -> None:
    """Delete the work folder. It is renamed first: half of one must not look like an interrupted run."""
    shutil.rmtree(job.work_done, ignore_errors=True)  # left by a kill
    if job.work.exists():
        os.replace(job.work, job.work_done)
        shutil.rmtree(job.work_done)


def _remove_unfinished(work: Path) -> None:
    """Delete outputs in the making; what the run is and its pieces stay."""
    kept = {work / _STATE, *work.glob(PIECE_FILES)}
    for path in [path for path in work.iterdir() if path not in kept]:
        _remove(path)


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def plain(identity: Mapping[str, Any]) -> dict[str, Any]:
    """An identity as JSON gives it back."""
    return json.loads(json.dumps(identity))
