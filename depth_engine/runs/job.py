"""One clip from source to finished files: what `depth-engine estimate` does for each input.

Every window's depth goes to a spool at the model's size, and the carry beside it, before anything else. Output files
are written from the first frame on under a hidden work folder and get their names at the end. A run that was killed
goes on from the spool: its frames are fed to fresh output files, so the bytes are those of an unbroken run.

    DIR/<clip>/.work/state.json        what the run is, frames spooled
    DIR/<clip>/.work/carry.safetensors what the next window needs
    DIR/<clip>/.work/spool.f32         depth at the model's size
    DIR/<clip>/.work/depth.mkv ...     outputs in the making
"""

from __future__ import annotations

import json
import os
import shutil
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depth_engine.depth.formats import DEPTH_FORMATS, depth_path, open_depth_sink
from depth_engine.depth.metrics import mean_abs_change
from depth_engine.depth.sidecar import make_sidecar, read_sidecar, sidecar_path, write_sidecar
from depth_engine.report.colours import colorize, shrink_to_width, side_by_side
from depth_engine.report.page import Report, write_report
from depth_engine.runs.atomic import check_writable, publish
from depth_engine.runs.background import WriteBehind, read_ahead
from depth_engine.runs.lock import only_run
from depth_engine.settings import RunSettings
from depth_engine.video.probe import DecodeError, VideoInfo
from depth_engine.video.read import probe
from depth_engine.video.take import TAKE_FIELDS, Take, check_same_run
from depth_engine.video.write import VideoWriter

if TYPE_CHECKING:
    from depth_engine.engine import Carry, DepthEngine
    from depth_engine.models.loading import CheckpointFiles
    from depth_engine.models.resize import ModelSize
    from depth_engine.runs.spool import Spool

READ_AHEAD_BYTES = 128 * 2**20  # of frames at the model's size: several windows of most
_BROKE_OFF = "The source broke off: "  # begins the note that says so in the sidecar
PREVIEW_WIDTH = 960  # each half; the preview is for looking, the archive for working


@dataclass(frozen=True)
class Job(Take):
    """What to do with one clip.

    Attributes:
        folder: Output folder of this clip.
        formats: Depth formats to write.
        shots: Find cuts.
        overwrite: Replace outputs that exist.
        resume: Go on with a run that was interrupted.
    """

    folder: Path
    formats: tuple[str, ...] = ("mkv",)
    shots: bool = True
    overwrite: bool = False
    resume: bool = False

    @property
    def work(self) -> Path:
        """Where unfinished files lie."""
        return self.folder / ".work"

    @property
    def work_done(self) -> Path:
        """The work folder's name once every output has its own, while it is deleted."""
        return self.folder / ".work-done"

    @property
    def outputs(self) -> list[Path]:
        """Every finished file and folder, the report last."""
        depth = [depth_path(self.folder / "depth", name) for name in self.formats]
        return [*depth, sidecar_path(self.folder / "depth"), self.folder / "preview.mp4", self.folder / "report.html"]

    @property
    def finished(self) -> bool:
        """Whether an earlier run ended."""
        return not self.work.exists() and all(path.exists() for path in self.outputs)


def check_output(job: Job, identity: dict[str, Any]) -> None:
    """Make the output folder and see that nothing is in the way.

    Args:
        job: What is asked for.
        identity: From `run_identity`.

    Raises:
        ValueError: The run to resume was made with other settings or of another clip.
        FileExistsError: Outputs, or an interrupted run, are in the way.
        OSError: The output folder can't be written.
    """
    if job.resume:
        _check_same_run(job, identity)
    # Depth of any format: it would not fit the new sidecar.
    depth = [depth_path(job.folder / "depth", name) for name in DEPTH_FORMATS]
    in_the_way = [path for path in [*job.outputs, *depth] if path.exists()]
    if in_the_way and not job.overwrite and not (job.resume and (job.finished or job.work.exists())):
        raise FileExistsError(f"output: {in_the_way[0]} exists; --overwrite replaces it, -o takes another folder")
    if not job.overwrite and not job.resume:
        if job.work.exists():
            raise FileExistsError(
                f"output: {job.folder} holds an interrupted run; --resume goes on with it, --overwrite starts anew"
            )
    check_writable(job.folder)


def run_job(
    engine: DepthEngine,
    job: Job,
    settings: RunSettings,
    on_frames: Callable[[int], None] = lambda done: None,
    on_depth: Callable[[np.ndarray], None] | None = None,
) -> list[Path]:
    """Run a job, checked by `check_source` and `check_output`, to its finished files.

    Args:
        engine: Loaded checkpoint.
        job: What to do.
        settings: From `choose_settings`.
        on_frames: Told how many frames are done.
        on_depth: Given each frame's depth as it is written, float32 `[H, W]`, in the writing thread; none where all is
            finished already.

    Returns:
        The finished files and folders.

    Raises:
        DecodeError: The source broke off; what was read up to there is finished and kept.
        ValueError: The interrupted run to resume was made with other settings.
        OSError: Writing failed; the finished windows stay for `--resume`.
    """
    from depth_engine.runs.spool import Spool

    job.folder.mkdir(parents=True, exist_ok=True)
    with only_run(job.work):  # and takes away what a kill left of the lock
        shutil.rmtree(job.work_done, ignore_errors=True)  # left by a kill at the very end
    if job.resume and job.finished:
        _tell_broken_again(job)
        return job.outputs
    info = probe(job.source)
    dtype = str(engine.dtype).removeprefix("torch.")
    identity = run_identity(job, info, engine.files, settings, device=engine.device.type, dtype=dtype)
    with only_run(job.work):
        if job.overwrite and not job.resume:
            shutil.rmtree(job.work, ignore_errors=True)
        job.work.mkdir(exist_ok=True)
        with closing(Spool(job.work, identity)) as spool, ExitStack() as on_error:
            on_error.callback(_remove_failed, job, spool)
            _remove_unfinished(job)
            run = _Run(engine, job, settings, info, spool, identity, on_frames, on_depth)
            broken = run.write_all()
            on_error.pop_all()
        _publish(job)
    if broken is not None:
        raise broken
    return job.outputs


def _tell_broken_again(job: Job) -> None:
    """A finished run of a source that broke off ends as it did the first time.

    Raises:
        DecodeError: The source broke off.
    """
    sidecar = read_sidecar(sidecar_path(job.folder / "depth"))
    for note in sidecar.get("notes", []):
        if note.startswith(_BROKE_OFF):
            raise DecodeError(note.removeprefix(_BROKE_OFF), len(sidecar["times_s"]))


def _publish(job: Job) -> None:
    """Give every output its name. Depth files of an earlier run would not fit the new sidecar, so they go."""
    for path in job.outputs:
        publish(job.work / path.name, path, overwrite=True)
    for name in DEPTH_FORMATS:
        stale = depth_path(job.folder / "depth", name)
        if job.overwrite and name not in job.formats and stale.exists():
            shutil.rmtree(stale) if stale.is_dir() else stale.unlink()
    # Renamed first: a half-deleted work folder must not look like an interrupted run.
    shutil.rmtree(job.work_done, ignore_errors=True)
    os.replace(job.work, job.work_done)
    shutil.rmtree(job.work_done)


class _Run:
    """The pass over a clip: frames in, depth spooled, files written in step."""

    def __init__(
        self,
        engine: DepthEngine,
        job: Job,
        settings: RunSettings,
        info: VideoInfo,
        spool: Spool,
        identity: dict[str, Any],
        on_frames: Callable[[int], None],
        on_depth: Callable[[np.ndarray], None] | None,
    ) -> None:
        self.engine, self.job, self.settings, self.info, self.spool = engine, job, settings, info, spool
        self.identity, self.on_frames, self.on_depth = identity, on_frames, on_depth
        self.rate = job.rate(info)
        self.waiting: deque[tuple[float, np.ndarray]] = deque()  # time and small picture of frames without depth yet
        self.times_s: list[float] = []
        self.shots: list[int] = []
        self.change: list[float] = []
        self.previous: np.ndarray | None = None
        self.broken: DecodeError | None = None

    def write_all(self) -> DecodeError | None:
        """Write every output into the work folder; return the fault that ended the source early, if any."""
        from depth_engine.engine import mark_frames
        from depth_engine.models.resize import fit_size

        size = fit_size(self.info.height, self.info.width, self.engine.spec.multiple, self.settings.max_res)
        carry, done = self.spool.carry, self.spool.carry.frames_done
        with ExitStack() as stack:
            # Decoding, cuts and shrinking run ahead of the network, writing behind it, each by a window or so.
            frame_bytes = 3 * size.model_height * size.model_width
            ahead = max(1, min(self.settings.window, READ_AHEAD_BYTES // frame_bytes))
            pictures = stack.enter_context(closing(self._note_shots(mark_frames(self._pictures(), self.job.shots))))
            small = ((size.shrink(frame[None])[0], starts) for frame, starts in pictures)
            marked = stack.enter_context(closing(read_ahead(small, ahead)))
            self._open_outputs(stack)
            spooled = self.spool.frames((size.model_height, size.model_width))
            with WriteBehind(partial(self._keep, size=size), 2, dropped=self._spool) as behind:
                for index in range(carry.frames_read):
                    if next(marked, None) is None:
                        raise ValueError(f"resume: {self.job.source} has fewer frames than when the run began")
                    if index < done:
                        behind.put((next(spooled)[None], None))
                for result in self.engine.windows(marked, self.settings, carry=carry):
                    behind.put((result.depth.numpy(), result.carry))
            self._close_outputs()
        self._write_texts(size)
        return self.broken

    def _pictures(self) -> Iterator[np.ndarray]:
        """Frames for the engine, in the reading thread; keeps time and a small picture of each for the preview."""
        try:
            for frame in self.job.frames():
                self.waiting.append((frame.time_s, shrink_to_width(frame.rgb, PREVIEW_WIDTH)))
                yield frame.rgb
        except DecodeError as error:
            self.broken = error

    def _note_shots(self, marked: Iterator[tuple[Any, bool]]) -> Generator[tuple[Any, bool], None, None]:
        for index, (frame, starts) in enumerate(marked):
            if starts:
                self.shots.append(index)
            yield frame, starts

    def _open_outputs(self, stack: ExitStack) -> None:
        base, info = self.job.work / "depth", self.info
        self.sinks = [
            stack.enter_context(
                open_depth_sink(
                    base, name, height=info.height, width=info.width, fps=self.rate, kind=self.engine.spec.kind
                )
            )
            for name in self.job.formats
        ]
        self.preview: VideoWriter | None = None
        self.stack = stack

    def _keep(self, finished: tuple[np.ndarray, Carry | None], size: ModelSize) -> None:
        """Spool a window's depth `[n, h, w]`, unless it came from there, then write it. Runs in the writing thread."""
        self._spool(finished)
        for frame_depth in finished[0]:
            self._write_frame(frame_depth, size)

    def _spool(self, finished: tuple[np.ndarray, Carry | None]) -> None:
        """What the network finished is kept whatever ends the run."""
        depth, carry = finished
        if carry is not None:
            self.spool.append(depth, carry)

    def _write_frame(self, depth: np.ndarray, size: ModelSize) -> None:
        """Give one frame's depth `[h, w]` to every output."""
        import torch

        full = size.restore(torch.from_numpy(depth)[None])[0].numpy()
        time_s, picture = self.waiting.popleft()
        for sink in self.sinks:
            sink.write(full, time_s)
        if self.on_depth is not None:
            self.on_depth(full)
        pair = side_by_side(picture, colorize(depth, self.engine.spec.kind), max_width_each=PREVIEW_WIDTH)
        if self.preview is None:
            audio = self.job.source if self.info.has_audio else None
            self.preview = self.stack.enter_context(
                VideoWriter(
                    self.job.work / "preview.mp4",
                    width=pair.shape[1],
                    height=pair.shape[0],
                    fps=self.rate,
                    audio_from=Path(audio) if audio else None,
                    audio_start_s=self.job.start_s or 0.0,
                    audio_end_s=self.job.sound_end_s(self.info),
                    sample_aspect=self.info.sample_aspect,
                )
            )
        self.preview.write(pair, time_s)
        if self.previous is not None:
            self.change.append(mean_abs_change(self.previous, depth))
        self.previous = depth
        self.times_s.append(time_s)
        self.on_frames(len(self.times_s))

    def _close_outputs(self) -> None:
        if not self.times_s:
            raise self.broken or ValueError(f"input: no frame could be read from {self.job.source}")
        for sink in self.sinks:
            sink.close()
        if self.preview is not None:
            self.preview.close()

    def _write_texts(self, size: ModelSize) -> None:
        """Sidecar and report."""
        engine, job = self.engine, self.job
        taken = {name: getattr(job, name) for name in TAKE_FIELDS}
        settings = {
            **asdict(self.settings),
            "shots": job.shots,
            **taken,
            "model_size": [size.model_width, size.model_height],
            "device": engine.device.type,
            "dtype": str(engine.dtype).removeprefix("torch."),
            "spec": engine.files.spec_name,
            "base": engine.files.base_name,
        }
        notes = list(self.info.notes)
        if self.broken is not None:
            notes.append(f"{_BROKE_OFF}{self.broken}")
        checkpoint = {"name": engine.files.name, "sha256": engine.weights_sha256}
        sidecar = make_sidecar(
            kind=engine.spec.kind,
            fps=self.rate,
            times_s=self.times_s,
            height=self.info.height,
            width=self.info.width,
            checkpoint=checkpoint,
            seed=self.settings.seed,
            settings=settings,
            source=str(job.source),
            shots=self.shots,
            clipped={name: sink.clipped for name, sink in zip(job.formats, self.sinks, strict=True)},
        )
        write_sidecar(
            sidecar_path(job.work / "depth"), {**sidecar, "notes": notes, "run": self.identity}, overwrite=True
        )
        report = Report(
            title=Path(job.source).name,
            settings={"checkpoint": engine.files.name, "kind": engine.spec.kind, **settings},
            times_s=self.times_s,
            change=self.change,
            shots=self.shots,
            notes=notes,
            outputs=[job.work / path.name for path in job.outputs[:-1]],
        )
        write_report(job.work / "report.html", report, preview_mp4=job.work / "preview.mp4", overwrite=True)


def run_identity(
    job: Job, info: VideoInfo, files: CheckpointFiles, settings: RunSettings, *, device: str, dtype: str
) -> dict[str, Any]:
    """What must be the same for a run to be resumed: clip, checkpoint, settings, what computes. Plain JSON data."""
    identity = {
        **job.identity(info),
        "checkpoint_sha256": files.weights_sha256(),
        "spec": files.spec.to_json(),
        "base": str(files.base),
        "base_sha256": files.base_sha256(),
        "dtype": dtype,
        **asdict(settings),
        "shots": job.shots,
        "device": device,
        "software": {name: _version(name) for name in ("depth-engine", "torch", "diffusers")},
    }
    return json.loads(json.dumps(identity))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # a checkout that is not installed
        return None


def _check_same_run(job: Job, identity: dict[str, Any]) -> None:
    """Compare with the run that is interrupted, or finished, in the folder.

    Raises:
        ValueError: Names the first thing that differs.
    """
    from depth_engine.runs.spool import read_identity

    held = read_identity(job.work)
    if held is None and job.finished:
        held = read_sidecar(sidecar_path(job.folder / "depth")).get("run", {})
        # What is whole stays as it is, wherever it was computed.
        identity = {name: value for name, value in identity.items() if name not in ("device", "software")}
    check_same_run(held, identity, job.folder)


def _remove_failed(job: Job, spool: Spool) -> None:
    """Delete what a run that failed leaves; windows that were finished stay, for --resume."""
    _remove_unfinished(job)
    if spool.carry.frames_read == 0:
        shutil.rmtree(job.work, ignore_errors=True)


def _remove_unfinished(job: Job) -> None:
    """Delete outputs in the making; the spool stays."""
    from depth_engine.runs.spool import SPOOL_FILES

    for path in job.work.iterdir() if job.work.exists() else ():
        if path.name in SPOOL_FILES:
            continue
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def output_folders(sources: Sequence[str | Path], folder: Path) -> list[Path]:
    """One folder per clip, named after it.

    Raises:
        ValueError: If two clips would share one, or one is a clip's own.
    """
    folders: dict[Path, str | Path] = {}
    for source in sources:
        path = Path(source)
        # A pattern such as frames/%05d.png is named after its folder.
        stem = (
            path.parent.name if "%" in path.name and not path.exists() else path.stem if path.is_file() else path.name
        )
        target = folder / (stem or Path(source).resolve().name or "clip")
        if path.is_dir() and target.resolve() == path.resolve():
            raise ValueError(f"output: {source} would hold both the source and its results; give another -o")
        if target in folders:
            raise ValueError(f"input: {folders[target]} and {source} would both be written to {target}; run them apart")
        folders[target] = source
    return list(folders)
