"""The engine's depth for a command that works from depth: made once into a folder, kept, and used again.

The folder is what `depth-engine estimate` leaves for a clip, so it can be looked at, moved and given by name later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from depth_engine.depth.formats import as_read_back
from depth_engine.depth.source import DepthSource, open_depth
from depth_engine.models.loading import CheckpointFiles, resolve_checkpoint
from depth_engine.runs.job import Job, check_output, run_identity, run_job
from depth_engine.settings import RunSettings, choose_settings
from depth_engine.video.take import TAKE_FIELDS, Take, check_source

_OPTIONS: tuple[tuple[str, Any, str], ...] = (
    ("model", str, "Depth checkpoint: bundled, chronodepth, depthcrafter, a folder, or owner/name[@revision]."),
    ("spec", str, "What the checkpoint in a folder expects: chronodepth or depthcrafter."),
    ("base", str, "SVD folder or hub id that a UNet alone belongs to."),
    ("window", int, "Frames per depth window."),
    ("stride", int, "New frames per depth window."),
    ("steps", int, "Denoising steps of depth."),
    ("strategy", str, "How depth windows meet: context, replacement, independent or crossfade."),
    ("sampler", str, "euler or reference."),
    ("max-res", int, "Longest side in pixels that the depth model works at."),
)


def engine_options(prefix: str = "") -> Callable[[Callable], Callable]:
    """The engine's options for another command, as click options named `--PREFIXmodel` and so on.

    Args:
        prefix: Such as `depth-`, where the command has options of the same names.
    """

    def add(command: Callable) -> Callable:
        for name, kind, text in reversed(_OPTIONS):
            command = click.option(f"--{prefix}{name}", f"engine_{name.replace('-', '_')}", type=kind, help=text)(
                command
            )
        switch = click.option(
            f"--{prefix}flow/--no-{prefix}flow",
            "engine_flow",
            default=None,
            help="Carry depth along optical flow (bundled and its like).",
        )
        return switch(command)

    return add


def take_engine_options(given: dict[str, Any]) -> dict[str, Any]:
    """Take what `engine_options` added out of a command's arguments."""
    return {name.removeprefix("engine_"): given.pop(name) for name in list(given) if name.startswith("engine_")}


@dataclass(frozen=True)
class DepthPlan:
    """Depth to be estimated, all of it checked.

    Attributes:
        job: What `depth-engine estimate` would do.
        files: The checkpoint.
        settings: Of the engine.
        device: Where it runs.
        dtype: In which it computes.
    """

    job: Job
    files: CheckpointFiles
    settings: RunSettings
    device: str
    dtype: str

    @property
    def identity(self) -> dict[str, Any]:
        """What makes the depth; plain data."""
        from depth_engine.devices import computes_as

        how = computes_as(self.device, self.dtype)
        return run_identity(self.job, check_source(self.job), self.files, self.settings, **how)

    def run(
        self,
        on_frames: Callable[[int], None] = lambda done: None,
        on_depth: Callable[[np.ndarray], None] | None = None,
    ) -> DepthSource:
        """Estimate the depth, or use what an earlier run of the same settings left.

        Args:
            on_frames: Told how many frames are done.
            on_depth: Given each frame's depth as the source will give it; none of what an earlier run finished.
        """
        if not (self.job.resume and self.job.finished):
            from depth_engine.engine import DepthEngine

            files = self.files
            engine = DepthEngine.from_pretrained(
                files.name, spec=files.spec_name, base=files.base_name, device=self.device, dtype=self.dtype
            )
            seen = None if on_depth is None else lambda values: on_depth(as_read_back(values))
            run_job(engine, self.job, self.settings, on_frames, seen)
        return open_depth(self.job.folder)


def plan_depth(
    take: Take,
    folder: Path,
    options: Mapping[str, Any],
    *,
    device: str = "auto",
    dtype: str = "auto",
    seed: int = 0,
    shots: bool = True,
) -> DepthPlan:
    """Check what can be checked before weights load.

    Args:
        take: The part of the clip.
        folder: Where the depth is kept. What an earlier run of other settings left there is replaced.
        options: From `take_engine_options`.
        device: As `depth-engine estimate` takes it.
        dtype: Likewise.
        seed: Of the noise.
        shots: Find cuts.

    Raises:
        ValueError: A setting, the device or the checkpoint can't be used.
        OSError: The folder can't be written.
    """
    options = dict(options)
    model, spec, base = options.pop("model") or "bundled", options.pop("spec"), options.pop("base")
    files = resolve_checkpoint(model, spec=spec, base=base)
    settings = choose_settings(files.spec, seed=seed, **options)
    taken = {name: getattr(take, name) for name in TAKE_FIELDS}
    job = Job(take.source, folder=folder, shots=shots, resume=True, **taken)
    plan = DepthPlan(job, files, settings, device, dtype)
    identity = plan.identity
    try:
        check_output(job, identity)
    except (ValueError, FileExistsError):
        job = Job(take.source, folder=folder, shots=shots, overwrite=True, **taken)
        check_output(job, identity)
        plan = DepthPlan(job, files, settings, device, dtype)
    return plan
