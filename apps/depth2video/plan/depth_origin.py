"""Where a run's depth comes from: a file, the engine, or an annotator; checked, and made when it is wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depth2video.annotators import ANNOTATORS, AnnotatorPlan, plan_annotator
from depth2video.control import NORMALIZATIONS, ClipHistogram, check_control, to_disparity
from depth_engine.checks import known_name
from depth_engine.depth.source import DepthSource, open_depth
from depth_engine.runs.clip_depth import DepthPlan, plan_depth
from depth_engine.runs.derived_clip import ClipJob
from depth_engine.video.probe import DecodeError, VideoInfo

Progress = Callable[[int], None]


@dataclass(frozen=True)
class DepthOrigin:
    """Where depth comes from, checked.

    Attributes:
        origin: Depth that was given, or how it is to be made.
        notes: For the user.
    """

    origin: DepthSource | DepthPlan | AnnotatorPlan
    notes: tuple[str, ...] = ()

    def get(self, on_frames: Progress, seen: ClipHistogram | None = None) -> DepthSource:
        """The depth, made now if need be; of a source that breaks off, as far as it could be read.

        Args:
            on_frames: Told how many frames are done.
            seen: Is added what the engine makes now, so that the range of the clip needs no pass of its own.
        """
        if isinstance(self.origin, DepthSource):
            return self.origin
        if isinstance(self.origin, AnnotatorPlan):
            return self.origin.run(on_frames)
        kind = self.origin.files.spec.kind
        add = None if seen is None else lambda values: seen.add(to_disparity(values, kind))
        try:
            return self.origin.run(on_frames, add)
        except DecodeError:
            if self.origin.job.finished:
                return open_depth(self.origin.job.folder)
            raise

    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to go on."""
        if isinstance(self.origin, DepthSource):
            return {"depth": str(self.origin.path), "depth_time_ns": self.origin.path.stat().st_mtime_ns}
        return {"depth": self.origin.identity}

    def to_json(self) -> dict[str, Any]:
        """For the sidecar."""
        if isinstance(self.origin, DepthSource):
            return {"depth": str(self.origin.path)}
        if isinstance(self.origin, AnnotatorPlan):
            return {"depth": str(self.origin.folder), "depth_model": self.origin.name}
        return {"depth": str(self.origin.job.folder), "depth_model": self.origin.files.name}


def choose_depth(
    job: ClipJob,
    info: VideoInfo,
    depth: str | None,
    kind: str | None,
    engine: Mapping[str, Any],
    *,
    annotator_weights: str | None,
    detect_resolution: int | None,
    shots: bool,
    device: str,
    dtype: str,
    seed: int,
) -> DepthOrigin:
    """Depth of a file, of the engine, or of an annotator; the latter two into a folder beside the output.

    Raises:
        ValueError: Depth and clip do not belong together, or an option is of another source of depth.
        OSError: A file is missing.
    """
    name = depth or "engine"
    named = sorted(option for option, value in engine.items() if value is not None)
    if named and name != "engine":
        raise ValueError(f"--depth-{named[0].replace('_', '-')}: is of the engine, and --depth is {name}")
    for option, value in (("--annotator-weights", annotator_weights), ("--detect-resolution", detect_resolution)):
        if value is not None and name not in ANNOTATORS:
            raise ValueError(f"{option}: is of the annotators; it goes with --depth {', '.join(ANNOTATORS)}")
    if name in (*ANNOTATORS, "engine") and kind is not None:
        raise ValueError(f"--depth-kind: is for --depth FILE; {name} knows its own")
    if name == "engine":
        folder = job.output.with_suffix(".depth")
        plan = plan_depth(job, folder, engine, device=device, dtype=dtype, seed=seed, shots=shots)
        return DepthOrigin(plan)
    if name in ANNOTATORS:
        resolution = {} if detect_resolution is None else {"detect_resolution": detect_resolution}
        folder = job.output.with_suffix(f".{name}")
        annotator = plan_annotator(name, job, folder, weights=annotator_weights, device=device, **resolution)
        return DepthOrigin(annotator, (annotator.note,))
    if not Path(name).exists() and Path(name).name == name and not Path(name).suffix:
        known_name("--depth", name, ["engine", *ANNOTATORS, "a file"])
    source = open_depth(name, kind)
    return DepthOrigin(source, check_control(source, job, info))


def choose_normalization(normalize: str | None, origin: DepthOrigin) -> str:
    """`clip` unless the user says otherwise; annotators scale their maps themselves: `none`."""
    if normalize is None:
        return "none" if isinstance(origin.origin, AnnotatorPlan) else "clip"
    return known_name("--normalize", normalize, NORMALIZATIONS)
