"""What `depth-engine estimate` does between parsing and exit codes: prepare, load, run each clip."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from depth_engine.checks import known_name
from depth_engine.cli.group import show_notes
from depth_engine.cli.progress import frame_progress
from depth_engine.depth.formats import DEPTH_FORMATS
from depth_engine.errors import one_line
from depth_engine.models.families import find_checkpoint
from depth_engine.runs.depth_run import DepthJob, DepthRun, EngineMethod, output_folders
from depth_engine.runs.resumable import check_job, plain
from depth_engine.video.probe import DecodeError, VideoInfo
from depth_engine.video.read import expand_inputs
from depth_engine.video.take import check_source

if TYPE_CHECKING:
    from depth_engine.engine import DepthEngine


@dataclass(frozen=True)
class Plan:
    """Checked jobs, and how to load the engine for them."""

    jobs: list[DepthJob]
    infos: list[VideoInfo]
    method: EngineMethod
    piped: Path | None
    notes: tuple[str, ...]

    @property
    def settings(self) -> Any:
        """Of the engine."""
        return self.method.settings

    def load_engine(self) -> DepthEngine:
        """Load the checkpoint."""
        return self.method.load_engine()

    def identity(self, job: DepthJob, info: VideoInfo) -> dict[str, Any]:
        """What must be the same for a job's run to be resumed."""
        return plain({**job.identity(info), **self.method.identity()})

    def run(self, engine: DepthEngine, *, quiet: bool, trace: Callable[[], None]) -> int:
        """Run every job; one that fails does not stop the others. Returns how many failed."""
        failures = 0
        show_notes(self._all_notes(), quiet=quiet)
        for job, info in zip(self.jobs, self.infos, strict=True):
            try:
                with frame_progress(job.expected_frames(info), quiet=quiet) as begin:
                    maker = self.method.of(engine, job)
                    outputs = DepthRun(job, self.identity(job, info), maker, begin(Path(job.source).name)).run()
            except Exception as error:  # one clip's failure, of any kind, is told in a line and the next one runs
                trace()
                failures += 1
                line = one_line(error)
                named = line if line.startswith(f"{job.source}: ") else f"{job.source}: {line}"
                click.echo(f"depth-engine: {named}", err=True)
                if isinstance(error, DecodeError) and job.finished:
                    click.echo(f"depth-engine: what could be read is in {job.folder}", err=True)
            else:
                if not quiet:
                    click.echo(f"{job.source}: {', '.join(path.name for path in outputs)} in {job.folder}")
        return failures

    def _all_notes(self) -> list[str]:
        """Those of the options, and of each clip."""
        several = len(self.jobs) > 1
        of_clips = [
            f"{job.source}: {note}" if several else note
            for job, info in zip(self.jobs, self.infos, strict=True)
            for note in info.notes
        ]
        return [*self.notes, *of_clips]

    def close(self) -> None:
        """Delete what was kept of a pipe, and folders in which nothing came to lie."""
        for job in self.jobs:
            with suppress(OSError):  # it does not exist, or is not empty
                job.folder.rmdir()
        if self.piped is not None:
            shutil.rmtree(self.piped.parent, ignore_errors=True)

    def dry_run(self, engine: DepthEngine) -> int:
        """Print what a run would take, from two short windows run for real."""
        show_notes(self._all_notes(), quiet=False)
        for job, info in zip(self.jobs, self.infos, strict=True):
            frames = job.expected_frames(info)
            per_window_s, size = _warm_up(engine, job, self.settings)
            click.echo(f"{job.source}")
            click.echo(f"  picture   {info.width}x{info.height}, model works at {size.model_width}x{size.model_height}")
            if frames is None:
                click.echo("  frames    unknown, the file does not say")
            else:
                windows = engine.checkpoint.windows_of(frames, self.settings)
                click.echo(f"  frames    {frames}")
                click.echo(f"  windows   {windows} or more (a cut starts a new one)")
                click.echo(
                    f"  time      about {_duration(windows * per_window_s)} ({per_window_s:.2f} s a window here)"
                )
        click.echo(f"memory      {_peak_bytes() / 2**20:.0f} MiB at the peak; it does not grow with the clip")
        if engine.device.type == "cuda":
            import torch

            click.echo(f"GPU memory  {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB at the peak")
        return 0


def prepare(inputs: Sequence[str], options: dict[str, Any], *, dry_run: bool) -> Plan:
    """Check everything that can be checked without weights.

    Raises:
        ValueError: Names the option or the input that can't be used.
        OSError: A file or folder is missing, in the way or can't be written.
    """
    formats = tuple(dict.fromkeys(part.strip() for part in options["formats"].split(",") if part.strip()))
    for name in formats:
        known_name("--format", name, DEPTH_FORMATS)
    if not formats:
        raise ValueError(f"--format: is empty; accepted: {', '.join(DEPTH_FORMATS)}")
    checkpoint = find_checkpoint(options["model"], spec=options["spec"], base=options["base"])
    names = ("window", "stride", "steps", "strategy", "sampler", "max_res", "seed", "flow")
    chosen = {name: options[name] for name in names}
    settings = checkpoint.choose_settings(sigmas=_levels(options["sigmas"]), **chosen)
    method = EngineMethod(checkpoint, settings, options["shots"], options["device"], options["dtype"])
    notes = checkpoint.notes(settings)
    if "-" in inputs and options["resume"]:
        raise ValueError("--resume: - is a pipe, which can't be read again; save it to a file and give that")
    piped = _from_pipe() if "-" in inputs else None
    try:
        sources, left_out = expand_inputs([piped if piped and source == "-" else source for source in inputs])
        jobs = _jobs(sources, formats, options)
        plan = Plan(jobs, [check_source(job) for job in jobs], method, piped, (*notes, *left_out))
        for job, info in zip(plan.jobs, plan.infos, strict=True) if not dry_run else ():
            check_job(job, plan.identity(job, info))
    except BaseException:
        if piped is not None:
            shutil.rmtree(piped.parent, ignore_errors=True)
        raise
    return plan


def _jobs(sources: Sequence[str | Path], formats: tuple[str, ...], options: dict[str, Any]) -> list[DepthJob]:
    """One job per clip."""
    return [
        DepthJob(
            source,
            folder=folder,
            formats=formats,
            start_s=options["start"],
            end_s=options["end"],
            fps=options["fps"],
            max_frames=options["max_frames"],
            stream=options["stream"],
            transfer=options["transfer"],
            overwrite=options["overwrite"],
            resume=options["resume"],
        )
        for source, folder in zip(sources, output_folders(sources, options["output"] or Path("out")), strict=True)
    ]


def _levels(text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--sigmas: {text!r} is not accepted; give falling noise levels such as 700,15") from None


def _from_pipe() -> Path:
    """Keep standard input in a file: a pipe can be read only once, a run reads it more often."""
    if sys.stdin.isatty():
        raise ValueError("INPUT: - reads a pipe, and there is none")
    path = Path(tempfile.mkdtemp(prefix="depth-engine-")) / "stdin.video"
    with path.open("wb") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    return path


def _peak_bytes() -> int:
    """The most memory that the process has held."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return psutil.Process().memory_info().peak_wset  # type: ignore[attr-defined]
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _warm_up(engine: DepthEngine, job: DepthJob, settings: Any) -> tuple[float, Any]:
    """Seconds of a window once things are warm (of the only one, if the clip has no second), and the sizes."""
    from depth_engine.video.in_memory import mark_frames

    frames = (frame.rgb for frame in islice(job.frames(), settings.window + 2 * settings.stride))
    sized = engine.sized(mark_frames(frames, False), settings)
    results = engine.windows(sized, settings)
    began = time.monotonic()
    next(results)
    first_s = time.monotonic() - began
    began = time.monotonic()
    count = sum(1 for _ in results)
    return (time.monotonic() - began) / count if count else first_s, sized.size


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
