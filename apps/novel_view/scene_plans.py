"""What `novel-view poses`, `export` and `nerf` do: check everything, then run."""

from __future__ import annotations

import importlib.util
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depth_engine.checks import known_name
from depth_engine.depth.input import DepthInput, DepthRequest, choose_depth
from depth_engine.depth.source import DepthSource
from depth_engine.geometry.cameras import Camera, intrinsics
from depth_engine.geometry.placement import place
from depth_engine.geometry.pose_estimation import PoseSearch, estimate_poses
from depth_engine.geometry.poses import METHODS, PoseResult, load_poses
from depth_engine.runs.atomic import check_writable, refuse_existing
from depth_engine.runs.derived_clip import ClipJob
from depth_engine.video.probe import VideoInfo
from depth_engine.video.read import probe
from depth_engine.video.take import check_source
from novel_view.nerf.dataset import (
    Dataset,
    DatasetOptions,
    check_same_depth,
    dataset_cameras,
    export_dataset,
    read_dataset,
)
from novel_view.path_files import load_path
from novel_view.paths import PATHS, NamedPath
from novel_view.paths import Path as CameraPath
from novel_view.views.render_command import DEFAULT_FOV_DEG
from novel_view.views.rendering import SourceFrame, view_camera

if TYPE_CHECKING:
    from novel_view.nerf.command import NerfResult, NerfTraining

# name of a stage -> told how many frames it has done
Begin = Callable[[str], Callable[[int], None]]
CLIP_PATH = "clip"


@dataclass(frozen=True)
class Finding:
    """How cameras are to be found, as the options say it.

    Attributes:
        method: `colmap` or `odometry`.
        fov: Vertical field of view, degrees; None: found, or the default.
        every: One frame in so many is matched; None: about 6 in a second.
        near: Distance of the nearest depth value, of `odometry`; None: see `placement`.
        far: Distance of the farthest.
    """

    method: str = "colmap"
    fov: float | None = None
    every: int | None = None
    near: float | None = None
    far: float | None = None

    def search(self, kind: str) -> tuple[PoseSearch, list[str]]:
        """What the search is given for depth of this kind, and notes on what was taken for granted."""
        if self.method != "odometry":
            return PoseSearch(self.method, self.fov, self.every), []
        placement, notes, fov_deg = place(kind, self.near, self.far), [], self.fov
        if placement.by == "default":
            notes.append("relative depth was placed by default, nearest 1, farthest 10; --near and --far say otherwise")
        if fov_deg is None:
            fov_deg = DEFAULT_FOV_DEG
            notes.append(f"the field of view was taken for {fov_deg:g} degrees; --fov says otherwise")
        return PoseSearch(self.method, fov_deg, self.every, placement), notes


@dataclass(frozen=True)
class PosesPlan:
    """`novel-view poses`, checked.

    Attributes:
        job: The part of the clip; its output is the poses file.
        info: Of the clip.
        depth: Where it comes from.
        search: How cameras are looked for.
        notes: For the user.
    """

    job: ClipJob
    info: VideoInfo
    depth: DepthInput
    search: PoseSearch
    notes: tuple[str, ...]

    def run(self, begin: Begin) -> tuple[PoseResult, DepthSource]:
        """Find the cameras and save them; they, and the depth they go with."""
        depth = self.depth.get(begin("depth"))
        output = self.job.output
        with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.parent) as work:
            poses = estimate_poses(
                self.job,
                self.info,
                depth,
                self.search,
                work=Path(work) / "colmap",
                on_progress=_stages(begin),
            )
        poses.save(output, overwrite=self.job.overwrite)
        return poses, depth


def _stages(begin: Begin) -> Callable[[str, int], None]:
    bars: dict[str, Callable[[int], None]] = {}

    def on_progress(stage: str, done: int) -> None:
        if stage not in bars:
            bars[stage] = begin(stage)
        bars[stage](done)

    return on_progress


def plan_poses(job: ClipJob, finding: Finding, depth: DepthRequest) -> PosesPlan:
    """Check all that can be checked before anything heavy loads.

    Raises:
        ValueError: Names the option, the value and what is accepted.
        OSError: A file is missing or in the way.
    """
    known_name("--method", finding.method, METHODS)
    if finding.fov is not None:
        intrinsics(finding.fov, 2, 2)
    if finding.every is not None and finding.every < 1:
        raise ValueError(f"--match-every: {finding.every} is not accepted; give a number of frames from 1 up")
    _check_json(job)
    if finding.method == "colmap" and importlib.util.find_spec("pycolmap") is None:
        raise ValueError("pycolmap is not installed: pip install 'depth-engine[nerf]', or use --method odometry")
    if finding.method == "colmap" and (finding.near is not None or finding.far is not None):
        raise ValueError("--near, --far: are for --method odometry; colmap finds where depth lies")
    info = check_source(job)
    choice = choose_depth(depth, job, info, job.output)
    search, notes = finding.search(choice.kind)
    check_writable(job.output.parent)
    return PosesPlan(job, info, choice, search, (*choice.notes, *notes))


def _check_json(job: ClipJob) -> None:
    if job.output.suffix.lower() != ".json":
        raise ValueError(f"-o/--output: {job.output.name!r} does not end in .json, what poses are written to")
    refuse_existing(job.output, job.overwrite)


@dataclass(frozen=True)
class ExportPlan:
    """`novel-view export`, checked.

    Attributes:
        poses: Cameras, or how they are to be found.
        depth: Where it comes from, if the cameras are known.
        job: The part of the clip; its output is the folder.
        options: What is written.
    """

    poses: PoseResult | PosesPlan
    depth: DepthInput
    job: ClipJob
    options: DatasetOptions

    @property
    def notes(self) -> tuple[str, ...]:
        """For the user."""
        return self.poses.notes if isinstance(self.poses, PosesPlan) else self.depth.notes

    def run(self, begin: Begin) -> tuple[Dataset, PoseResult]:
        """Write the data set."""
        if isinstance(self.poses, PosesPlan):
            poses, depth = self.poses.run(begin)
        else:
            poses, depth = self.poses, self.depth.get(begin("depth"))
        dataset = export_dataset(
            self.job,
            depth,
            poses,
            self.job.output,
            self.options,
            overwrite=self.job.overwrite,
            on_frames=begin("export"),
        )
        return dataset, poses


def plan_export(
    job: ClipJob, poses: Path | None, finding: Finding, options: DatasetOptions, depth: DepthRequest
) -> ExportPlan:
    """Check all that can be checked before anything heavy loads.

    Args:
        job: The part of the clip; its output is a folder.
        poses: File of poses; None: they are found, and left beside the folder.
        finding: How.
        options: What is written.
        depth: Where it comes from.

    Raises:
        ValueError: Names the option, the value and what is accepted.
        OSError: A file is missing or in the way.
    """
    refuse_existing(job.output, job.overwrite)
    if options.masks is not None:
        probe(options.masks)
    if poses is None:
        output = job.output.with_name(f"{job.output.name}.poses.json")
        found = plan_poses(_renamed(job, output), finding, depth)
        return ExportPlan(found, found.depth, job, options)
    given = [name for name in ("fov", "near", "far") if getattr(finding, name) is not None]
    if given:
        raise ValueError(f"--{given[0]}: the poses say it already; leave it out")
    held = load_poses(poses)
    info = check_source(job)
    choice = choose_depth(depth, job, info, job.output)
    if choice.file is not None:
        check_same_depth(choice.file, held)
    if (info.height, info.width) != (held.height, held.width):
        raise ValueError(f"--poses: are of {held.width}x{held.height}, the clip is {info.width}x{info.height}")
    check_writable(job.output.parent)
    return ExportPlan(held, choice, job, options)


def _renamed(job: ClipJob, output: Path) -> ClipJob:
    return ClipJob(job.source, output=output, overwrite=job.overwrite, **job.taken())


@dataclass(frozen=True)
class ShownPath:
    """The path that a trained scene is rendered along, as the options say it.

    Attributes:
        path: `clip`, a path's name, or a file of key frames or of nerfstudio's viewer.
        amplitude: Of a path by its name, per cent of the median depth; None: its own default.
        period: Likewise, seconds.
    """

    path: str = CLIP_PATH
    amplitude: float | None = None
    period: float | None = None

    def read(self) -> tuple[CameraPath | None, Path | None]:
        """A path to make cameras of, or the viewer's file, or neither: the clip's own cameras.

        Raises:
            ValueError: The name is not known, or options do not go with the path.
            OSError: The file can't be read.
        """
        swing = {"amplitude_percent": self.amplitude, "period_s": self.period}
        given: dict[str, Any] = {name: value for name, value in swing.items() if value is not None}
        camera_path: CameraPath | None = None
        viewer_path: Path | None = None
        if self.path.lower().endswith(".json"):
            camera_path = load_path(Path(self.path))
            if "camera_path" in json.loads(Path(self.path).read_text()):
                camera_path, viewer_path = None, Path(self.path)
        elif self.path != CLIP_PATH:
            camera_path = NamedPath(known_name("--path", self.path, [CLIP_PATH, *PATHS, "a .json file"]), **given)
        if given and not isinstance(camera_path, NamedPath):
            raise ValueError(
                f"--amplitude, --period: are for named paths ({', '.join(PATHS)}), not for --path {self.path}"
            )
        return camera_path, viewer_path


@dataclass(frozen=True)
class NerfPlan:
    """`novel-view nerf`, checked.

    Attributes:
        data: A data set, or how it is to be made.
        output: Folder to write.
        training: How.
        path: Camera path; None: the clip's own cameras.
        viewer_path: Camera path of nerfstudio's viewer, instead.
        overwrite: Replace an earlier result.
        resume: Go on with an interrupted training.
    """

    data: Path | ExportPlan
    output: Path
    training: NerfTraining
    path: CameraPath | None
    viewer_path: Path | None
    overwrite: bool
    resume: bool

    @property
    def notes(self) -> tuple[str, ...]:
        """For the user."""
        return self.data.notes if isinstance(self.data, ExportPlan) else ()

    def run(self, begin: Begin, on_training: Callable[[str, int, int], None]) -> NerfResult:
        """Make the data set if need be, train, render."""
        from novel_view.nerf.command import train_nerf

        folder = self.data.run(begin)[0].folder if isinstance(self.data, ExportPlan) else self.data
        return train_nerf(
            folder,
            self.output,
            self.training,
            path_json=self.viewer_path,
            cameras=None if self.path is None else moved_cameras(folder, self.path),
            overwrite=self.overwrite,
            resume=self.resume,
            on_progress=on_training,
        )


def plan_nerf(
    data: Path | ExportPlan,
    output: Path,
    training: NerfTraining,
    shown: ShownPath,
    *,
    overwrite: bool = False,
    resume: bool = False,
) -> NerfPlan:
    """Check all that can be checked before anything heavy loads.

    Args:
        data: A data set, or how it is to be made.
        output: Folder to write.
        training: How.
        shown: The path to render.
        overwrite: Replace an earlier result.
        resume: Go on with an interrupted training.

    Raises:
        ValueError: Names the option, the value and what is accepted.
        OSError: A file is missing or in the way.
    """
    refuse_existing(output, overwrite)
    if importlib.util.find_spec("nerfstudio") is None:
        raise ValueError("nerfstudio is not installed: pip install 'depth-engine[nerf]'")
    from depth_engine.devices import choose_device

    choose_device(training.device)
    path, viewer_path = shown.read()
    if isinstance(data, Path):
        read_dataset(data, for_path=path is not None)
    check_writable(output.parent)
    return NerfPlan(data, output, training, path, viewer_path, overwrite, resume)


def moved_cameras(folder: Path, path: CameraPath) -> list[Camera]:
    """A path along the cameras of a data set: one camera to each of its frames, in its world."""
    meta = read_dataset(folder, for_path=True)
    frames = (
        SourceFrame(row["frame"], row["time_s"], np.empty(0), np.empty(0), here, False)
        for row, here in zip(meta["frames"], dataset_cameras(meta), strict=True)
    )
    return [view_camera(frame, path, meta["median_depth"]) for frame in frames]
