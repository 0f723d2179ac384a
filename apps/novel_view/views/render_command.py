"""What `novel-view render` and `novel-view stereo` do: check everything, get the depth, make the clip."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path as File
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from depth_engine.checks import known_name
from depth_engine.depth.input import DepthInput, DepthRequest, choose_depth
from depth_engine.depth.source import DepthSource
from depth_engine.geometry.cameras import Camera, intrinsics
from depth_engine.geometry.placement import Placement, fitted_frames, place, survey
from depth_engine.runs.derived_clip import ClipJob, ClipRun, check_clip_job
from depth_engine.runs.pieces import Piece
from depth_engine.runs.resumable import Progress, Source, already_finished
from depth_engine.video.marks import TwoEyes
from depth_engine.video.probe import VideoInfo
from depth_engine.video.take import check_source
from novel_view.nerf.dataset import world_from_dataset
from novel_view.path_files import load_path, out_of_training
from novel_view.paths import PATHS, NamedPath, Path, stabilized
from novel_view.views.rendering import (
    FILLS,
    NEIGHBOURS,
    Borders,
    Fill,
    last_view,
    piece_of,
    render_views,
    source_frames,
    view_camera,
)
from novel_view.views.stereo import LAYOUTS, Eyes, eye_cameras, pack
from novel_view.warp.fill import fill_spatial, steady
from novel_view.warp.reproject import Warped, warp

if TYPE_CHECKING:
    from torch import Tensor

    from depth_engine.geometry.poses import PoseResult
    from novel_view.views.rendering import SourceFrame

DEFAULT_FOV_DEG = 50.0  # vertical; a phone held level, a normal lens

_NOTHING_SHOWN = (
    "no frame shows anything of the clip: the camera path looks away from the scene, or lies in another world than "
    "--poses (nerfstudio's viewer saves paths in the frame that it trained in: give --transforms "
    "dataparser_transforms.json, from beside its checkpoint)"
)


def warp_device(device: str) -> str:
    """Where views are made: on the GPU if it is one of CUDA's, else by the CPU's loops.

    Raises:
        ValueError: It is unknown or absent.
    """
    from depth_engine.devices import choose_device

    chosen = choose_device(device)
    return str(chosen) if chosen.type == "cuda" else "cpu"


def fov_of(job: ClipJob, fov: float | None, focal: float | None) -> float | None:
    """The vertical field of view that was asked for, by itself or by a focal length in pixels.

    Raises:
        ValueError: Both were given, or the focal length is not above 0.
    """
    if focal is None:
        return fov
    if fov is not None:
        raise ValueError("--focal: give it or --fov, not both")
    if not (math.isfinite(focal) and focal > 0):
        raise ValueError(f"--focal: {focal:g} is not accepted; give pixels above 0")
    return math.degrees(2 * math.atan(check_source(job).height / 2 / focal))


@dataclass(frozen=True)
class RenderPlan:
    """`novel-view render`, checked.

    Attributes:
        job: Source and outputs.
        info: Of the source.
        depth: Where it comes from.
        path: Where the camera goes.
        near: Distance of the nearest value; None: see `placement`.
        far: Distance of the farthest value.
        fov_deg: Vertical field of view of the source.
        poses: Of the clip, if given.
        fill: What becomes of holes.
        borders: What is done to depth borders.
        detect_shots: Look for cuts.
        device: Where views are made.
        settings: What the user chose, for the sidecar.
    """

    job: ClipJob
    info: VideoInfo
    depth: DepthInput
    path: Path
    near: float | None
    far: float | None
    fov_deg: float
    poses: PoseResult | None
    fill: Fill
    borders: Borders
    detect_shots: bool
    device: str
    settings: dict[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed."""
        return {**self.settings, **self.depth.identity()}

    def run(self, on_depth: Progress, on_frames: Progress) -> tuple[list[File], list[str]]:
        """Make the clip; the finished files, and notes."""
        if already_finished(self.job):
            return self.job.outputs, []
        depth = self.depth.get(on_depth)
        placement = self._placement(depth)
        facts = survey(depth, placement)
        notes = [*self.depth.notes]
        if facts.odd:
            notes.append(
                f"depth of {facts.odd} frames has values that are not finite or not before the camera: left out"
            )
        if placement.by == "default":
            notes.append(
                "relative depth was placed by default: nearest 1, farthest 10, in a unit of its own; "
                "--near and --far say otherwise"
            )
        settings = {
            **self.settings,
            **self.depth.to_json(),
            "placement": placement.to_json(),
            "median_depth": round(facts.median, 6),
        }

        def make(clip: Source, first: int, state: dict[str, Tensor]) -> Iterator[Piece]:
            shown = _has_shown(state)
            for piece in self._make(depth, placement, facts.median, clip, first, state):
                shown = _has_shown(piece.state)
                yield piece
            if not shown:
                notes.append(_NOTHING_SHOWN)

        outputs = ClipRun(
            self.job,
            self.identity,
            make,
            settings=settings,
            shots=depth.shots if depth.shots is not None else self.detect_shots,
            notes=notes,
            on_frames=on_frames,
        ).run()
        return outputs, notes

    def _placement(self, depth: DepthSource) -> Placement:
        if self.poses is not None:
            return self.poses.placement
        return place(depth.kind, self.near, self.far)

    def _make(
        self,
        depth: DepthSource,
        placement: Placement,
        median: float,
        clip: Source,
        first: int,
        state: dict[str, Tensor],
    ) -> Iterator[Piece]:
        import torch

        height, width = self.info.height, self.info.width
        if self.poses is not None:
            camera_of = self.poses.camera
        else:
            camera = Camera(intrinsics(self.fov_deg, height, width), np.eye(4), height, width)
            camera_of = lambda index: camera  # noqa: E731
        back = NEIGHBOURS if self.fill == "temporal" else 0
        with closing(depth.open()) as values:  # type: ignore[type-var]
            placed = (placement.depth(frame) for frame in fitted_frames(values, height, width))
            frames = source_frames(
                clip.frames(),
                placed,
                camera_of,
                borders=self.borders,
                first=max(0, first - back),
            )
            views = render_views(
                frames,
                lambda frame: view_camera(frame, self.path, median),
                self.fill,
                first,
                last_view(state),
                device=self.device,
            )
            shown = _has_shown(state)
            for _, view in views:
                shown |= not view.hole.all()
                piece = piece_of(view.rgb, view.hole, view)
                yield piece._replace(state={**piece.state, "shown": torch.tensor(shown)})


def _has_shown(state: dict[str, Tensor]) -> bool:
    """Whether a frame up to here showed anything of the clip."""
    return "shown" in state and bool(state["shown"])


def plan_render(
    job: ClipJob,
    *,
    path: str,
    amplitude: float | None,
    period: float | None,
    easing: str | None,
    near: float | None,
    far: float | None,
    fov: float | None,
    poses: File | None,
    fill: str,
    smooth: float,
    transforms: File | None,
    borders: Borders,
    depth: DepthRequest,
) -> RenderPlan:
    """Check all that can be checked before anything heavy loads.

    Raises:
        ValueError: Names the option, the value and what is accepted.
        OSError: A file is missing or in the way.
    """
    known_name("--fill", fill, FILLS)
    fov_deg = DEFAULT_FOV_DEG if fov is None else fov
    intrinsics(fov_deg, 2, 2)
    if poses is None and (path == "stabilize" or fill == "temporal"):
        wish = "--path stabilize" if path == "stabilize" else "--fill temporal"
        raise ValueError(f"--poses: is missing; {wish} needs the clip's cameras: novel-view poses INPUT -o poses.json")
    held = None
    if poses is not None:
        from depth_engine.geometry.poses import load_poses

        if fov is not None or near is not None or far is not None:
            raise ValueError("--fov, --near, --far: the poses say them already; leave them out")
        held = load_poses(poses)
    settings: dict[str, Any] = {
        "path": path,
        "fill": fill,
        **asdict(borders),
        "shots": depth.shots,
        "seed": depth.seed,
    }
    if held is None:
        settings["fov_deg"] = fov_deg
    camera_path = _camera_path(path, amplitude, period, easing, depth.seed, held, smooth, settings)
    if transforms is not None:
        if held is None:
            raise ValueError("--poses: is missing; --transforms needs the cameras that the data set was made with")
        if not (path.lower().endswith(".json") and camera_path(0.0).in_world):
            raise ValueError(f"--transforms: is for camera paths of nerfstudio's viewer, not for --path {path}")
        camera_path = out_of_training(camera_path, transforms, world_from_dataset(held))
        settings["transforms_sha256"] = hashlib.sha256(transforms.read_bytes()).hexdigest()
    info = check_source(job)
    if held is not None and (held.height, held.width) != (info.height, info.width):
        raise ValueError(
            f"--poses: {poses} are of a clip of {held.width}x{held.height}, this one is {info.width}x{info.height}"
        )
    choice = choose_depth(depth, job, info, job.output)
    if held is None:
        place(choice.kind, near, far)
    where = warp_device(depth.device)
    settings |= {"near": near, "far": far, "poses": None if poses is None else str(poses), "device": where}
    plan = RenderPlan(
        job=job,
        info=info,
        depth=choice,
        path=camera_path,
        near=near,
        far=far,
        fov_deg=fov_deg,
        poses=held,
        fill=cast(Fill, fill),
        borders=borders,
        detect_shots=depth.shots,
        device=where,
        settings=settings,
    )
    check_clip_job(job, plan.identity)
    return plan


def _camera_path(
    path: str,
    amplitude: float | None,
    period: float | None,
    easing: str | None,
    seed: int,
    poses: PoseResult | None,
    smooth: float,
    settings: dict[str, Any],
) -> Path:
    """The path by its name or file; what decides it is noted in the settings."""
    swing = {"amplitude_percent": amplitude, "period_s": period, "easing": easing}
    given = {name: value for name, value in swing.items() if value is not None}
    if path.lower().endswith(".json") or path == "stabilize":
        if given:
            name = next(iter(given)).removesuffix("_percent").removesuffix("_s")
            raise ValueError(f"--{name}: is for named paths ({', '.join(PATHS)}), not for --path {path}")
        if path == "stabilize":
            if poses is None:
                raise ValueError("--poses: is missing")
            settings["smooth_s"] = smooth
            return stabilized(poses.world_from_camera, poses.times_s, smooth)
        settings["path_sha256"] = hashlib.sha256(File(path).read_bytes()).hexdigest() if File(path).exists() else None
        return load_path(File(path))
    named = NamedPath(known_name("--path", path, [*PATHS, "stabilize", "a .json file"]), seed=seed, **given)
    settings |= {name: getattr(named, name) for name in swing}
    return named


@dataclass(frozen=True)
class StereoPlan:
    """`novel-view stereo`, checked.

    Attributes:
        job: Source and outputs.
        info: Of the source.
        depth: Where it comes from.
        eyes: How they stand.
        layout: How the two views are put into one picture.
        borders: What is done to depth borders.
        detect_shots: Look for cuts.
        device: Where views are made.
        settings: What the user chose, for the sidecar.
    """

    job: ClipJob
    info: VideoInfo
    depth: DepthInput
    eyes: Eyes
    layout: str
    borders: Borders
    detect_shots: bool
    device: str
    settings: dict[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same for a run to be resumed."""
        return {**self.settings, **self.depth.identity()}

    def run(self, on_depth: Progress, on_frames: Progress) -> tuple[list[File], list[str]]:
        """Make the clip; the finished files, and notes."""
        if already_finished(self.job):
            return self.job.outputs, []
        depth = self.depth.get(on_depth)
        placement = self._placement(depth)
        outputs = ClipRun(
            self.job,
            self.identity,
            lambda clip, first, state: self._make(depth, placement, clip, first, state),
            settings={**self.settings, **self.depth.to_json(), "placement": placement.to_json()},
            shots=depth.shots if depth.shots is not None else self.detect_shots,
            notes=self.depth.notes,
            on_frames=on_frames,
        ).run()
        return outputs, list(self.depth.notes)

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
            yield from (piece_of(*view) for view in self._pairs(frames, left, right, state))

    def _pairs(
        self, frames: Iterator[SourceFrame], left: Camera, right: Camera, state: dict[str, Tensor]
    ) -> Iterator[tuple[np.ndarray, np.ndarray, Warped]]:
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
            yield pack(last.rgb[:, :width], last.rgb[:, width:], self.layout), last.hole, last


def plan_stereo(
    job: ClipJob,
    *,
    layout: str,
    separation: float,
    convergence: float,
    borders: Borders,
    depth: DepthRequest,
) -> StereoPlan:
    """Check all that can be checked before anything heavy loads.

    Raises:
        ValueError: Names the option, the value and what is accepted.
        OSError: A file is missing or in the way.
    """
    known_name("--layout", layout, LAYOUTS)
    eyes = Eyes(separation, convergence)
    if layout not in ("left", "right"):
        job = replace(job, eyes=TwoEyes(layout))
    settings: dict[str, Any] = {
        "layout": layout,
        "separation_percent": separation,
        "convergence": convergence,
        **asdict(borders),
        "shots": depth.shots,
        "device": warp_device(depth.device),
    }
    info = check_source(job)
    choice = choose_depth(depth, job, info, job.output)
    plan = StereoPlan(job, info, choice, eyes, layout, borders, depth.shots, settings["device"], settings)
    check_clip_job(job, plan.identity)
    return plan
