"""The depth that a run of depth2video works from: the engine's, a file's, or an annotator's."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from depth2video.annotators import ANNOTATORS, AnnotatorMethod, choose_annotator
from depth2video.control import NORMALIZATIONS, ClipHistogram, to_disparity
from depth2video.plan.asked import AskedControl
from depth_engine.checks import known_name
from depth_engine.depth.input import DepthInput, choose_depth
from depth_engine.depth.source import DepthSource
from depth_engine.runs.resumable import Progress
from depth_engine.video.probe import VideoInfo
from depth_engine.video.take import Take


def choose_clip_depth(asked: AskedControl, take: Take, info: VideoInfo, output: Path) -> DepthInput:
    """As `choose_depth`, with the annotators.

    Raises:
        ValueError: Depth and clip do not belong together, or an option is of another source of depth.
        OSError: A file is missing.
    """
    request = asked.depth
    of_annotators = {"--annotator-weights": asked.annotator_weights, "--detect-resolution": asked.detect_resolution}
    for option, value in of_annotators.items():
        if value is not None and request.source not in ANNOTATORS:
            raise ValueError(f"{option}: only applies to --depth {', '.join(ANNOTATORS)}")
    choose = partial(
        choose_annotator,
        weights=asked.annotator_weights,
        device=request.device,
        detect_resolution=asked.detect_resolution,
        shots=request.shots,
    )
    methods = {name: partial(choose, name) for name in ANNOTATORS}
    depth = choose_depth(request, take, info, output, methods, prefix="depth-")
    return replace(depth, notes=(depth.method.note,)) if isinstance(depth.method, AnnotatorMethod) else depth


def get_depth(depth: DepthInput, on_frames: Progress, seen: ClipHistogram) -> DepthSource:
    """The depth, made now if need be; what is made now is added to `seen`, which spares a pass for its range."""
    return depth.get(on_frames, lambda values: seen.add(to_disparity(values, depth.kind)))


def choose_normalization(normalize: str | None, depth: DepthInput) -> str:
    """`clip` unless the user says otherwise; annotators scale their maps themselves: `none`."""
    if normalize is None:
        return "none" if isinstance(depth.method, AnnotatorMethod) else "clip"
    return known_name("--normalize", normalize, NORMALIZATIONS)
