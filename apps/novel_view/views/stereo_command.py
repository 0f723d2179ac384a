"""What `novel-view stereo` does: check everything, get the depth, make the clip."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from depth_engine.checks import known_name
from depth_engine.depth.input import DepthRequest, choose_depth
from depth_engine.depth.source import DepthSource
from depth_engine.geometry.cameras import Camera
from depth_engine.geometry.placement import Placement, fitted_frames, place, survey
from depth_engine.runs.derived_clip import ClipJob, Maker, check_clip_job
from depth_engine.runs.pieces import Piece
from depth_engine.runs.resumable import Source
from depth_engine.video.marks import TwoEyes
from depth_engine.video.take import check_source
from novel_view.views.plan import ViewsPlan
from novel_view.views.render_command import MASK_HOLDS, warp_device
from novel_view.views.rendering import Borders, last_view, mask_of, piece_of, source_frames
from novel_view.views.stereo import LAYOUTS, Eyes, eye_cameras, pack
from novel_view.warp.fill import fill_spatial, steady
from novel_view.warp.reproject import Warped, warp

if TYPE_CHECKING:
    from torch import Tensor

    from novel_view.views.rendering import SourceFrame


@dataclass(frozen=True)
class StereoPlan(ViewsPlan):
    """`novel-view stereo`, checked.

    Attributes:
        eyes: How they stand.
        layout: How the two views are put into one picture.
        swap_eyes: The right eye is put first.
        borders: What is done to depth borders.
    """

    eyes: Eyes
    layout: str
    swap_eyes: bool
    borders: Borders

    def _maker(self, depth: DepthSource, notes: list[str]) -> tuple[Maker, dict[str, Any]]:
        placement = self._placement(depth)
        if self.swap_eyes and self.job.output.suffix.lower() != ".mkv":
            notes.append("MP4 and MOV can't say that the right eye comes first: tell the player, or write an .mkv")

        def make(clip: Source, first: int, state: dict[str, Tensor]) -> Iterator[Piece]:
            return self._make(depth, placement, clip, first, state)

        return make, {"placement": placement.to_json()}

    def _placement(self, depth: DepthSource) -> Placement:
        """Depth whose inverse is disparity from 0 (farthest) to 1 (nearest): what the eyes' shifts are made of."""
        if depth.kind == "disparity":
            return Placement("disparity", 1.0, 0.0, "disparity as it is")
        placement = place(depth.kind) if depth.kind == "depth" else Placement("metric", 1.0, 0.0, "metric")
        nearest = survey(depth, placement).nearest
        return Placement(depth.kind, placement.scale / nearest, placement.shift / nearest, "nearest depth is 1")

    def _make(
        self, depth: DepthSource, placement: Placement, clip: Source, first: int, state: dict[str, Tensor]
    ) -> Iterator[Piece]:
        height, width = self.info.height, self.info.width
        source, left, right = eye_cameras(self.eyes, height, width)
        with closing(depth.open()) as values:  # type: ignore[type-var]
            placed = (placement.depth(frame) for frame in fitted_frames(values, height, width))
            frames = source_frames(
                clip.frames(),
                placed,
                lambda index: source,
                borders=self.borders,
                first=first,
            )
            yield from self._pairs(frames, left, right, state)

    def _pairs(
        self, frames: Iterator[SourceFrame], left: Camera, right: Camera, state: dict[str, Tensor]
    ) -> Iterator[Piece]:
        """Both eyes side by side in one view, so that one state holds both."""
        last = last_view(state)
        for frame in frames:
            eyes = [
                fill_spatial(warp(frame.rgb, frame.depth, frame.camera, eye, antialias=True, device=self.device))
                for eye in (left, right)
            ]
            both = Warped(*(np.concatenate(parts, axis=1) for parts in zip(*eyes, strict=True)))
            last = steady(both, None if frame.starts_shot else last)
            width = left.width
            seen = [last.rgb[:, :width], last.rgb[:, width:]]
            first, second = seen[::-1] if self.swap_eyes else seen
            beside = {"mask": mask_of(last.hole), "right": np.ascontiguousarray(seen[1])}
            wanted = {name: picture for name, picture in beside.items() if name in self.job.companions}
            yield piece_of(pack(first, second, self.layout), last, wanted)


def plan_stereo(
    job: ClipJob, eyes: Eyes, layout: str, borders: Borders, depth: DepthRequest, *, swap_eyes: bool = False
) -> StereoPlan:
    """Check all that can be checked before anything heavy loads.

    Raises:
        ValueError: Names the option, the value and what is accepted.
        OSError: A file is missing or in the way.
    """
    known_name("--layout", layout, LAYOUTS)
    one_eye = layout in ("left", "right")
    if swap_eyes and (one_eye or layout == "anaglyph"):
        raise ValueError(f"--swap-eyes: is for sbs, tb and their halves, not for --layout {layout}")
    if "right" in job.companions and layout != "left":
        raise ValueError(f"--right-out: is for --layout left, the left eye's file beside it, not for --layout {layout}")
    if not one_eye:
        job = replace(job, eyes=TwoEyes(layout, swap_eyes))
    settings: dict[str, Any] = {
        "layout": layout,
        "swap_eyes": swap_eyes,
        **asdict(eyes),
        **asdict(borders),
        "shots": depth.shots,
        "device": warp_device(depth.device),
    }
    if "mask" in job.companions:
        settings["mask"] = f"left eye, right eye: {MASK_HOLDS}"
    info = check_source(job)
    choice = choose_depth(depth, job, info, job.output)
    plan = StereoPlan(
        job=job,
        info=info,
        depth=choice,
        detect_shots=depth.shots,
        device=settings["device"],
        settings=settings,
        eyes=eyes,
        layout=layout,
        swap_eyes=swap_eyes,
        borders=borders,
    )
    check_clip_job(job, plan.identity)
    return plan
