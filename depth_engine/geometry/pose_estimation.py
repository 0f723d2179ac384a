"""From a clip and its depth to cameras: structure from motion by pycolmap, or odometry over pictures with depth."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from depth_engine.checks import known_name
from depth_engine.depth.source import DepthSource
from depth_engine.geometry.alignment import Alignment, Samples, align, depth_error
from depth_engine.geometry.cameras import intrinsics
from depth_engine.geometry.odometry import Odometry
from depth_engine.geometry.placement import Placement
from depth_engine.geometry.poses import METHODS, PoseResult, between, mixed
from depth_engine.geometry.structure import WORK_SIDE_PX, Structure, map_pictures, picture_name
from depth_engine.geometry.tracking import follow, locate, project, sample, work_picture
from depth_engine.video.frame import Frame
from depth_engine.video.probe import VideoInfo
from depth_engine.video.take import Take

_MAPPED_PER_S = 6.0  # frames that are matched, per second of the clip; those between are located by their points
_SAMPLES_PER_FRAME = 500
# A way shorter than this share of the points' median distance tells nothing of depth.
_MIN_BASELINE = 0.005
# A median error of depth above which it is not the depth of this clip, or no depth at all.
_MAX_ERROR = 0.6
Progress = Callable[[str, int], None]


@dataclass(frozen=True)
class PoseSearch:
    """How cameras are looked for.

    Attributes:
        method: `colmap` or `odometry`.
        fov_deg: Vertical field of view; None: found by `colmap`. `odometry` needs it.
        every: One frame in so many is matched with others by `colmap`; None: about 6 in a second.
        placement: Where `odometry` puts depth in space.
    """

    method: str = "colmap"
    fov_deg: float | None = None
    every: int | None = None
    placement: Placement | None = None


@dataclass(frozen=True)
class _Found:
    """Cameras in the unit that they were found in; fields as in `PoseResult`."""

    K: np.ndarray
    fov_by: str
    world_from_camera: dict[int, np.ndarray]
    times_s: np.ndarray
    reprojection_px: float
    points: np.ndarray
    colors: np.ndarray


def estimate_poses(
    take: Take,
    info: VideoInfo,
    depth: DepthSource,
    search: PoseSearch,
    *,
    work: Path,
    on_progress: Progress = lambda stage, done: None,
) -> PoseResult:
    """Find the camera of every frame, and how depth fits the scene.

    Args:
        take: The part of the clip.
        info: Of the clip.
        depth: Of the take, frame by frame.
        search: How cameras are looked for.
        work: Folder for `colmap`'s files; it is emptied first.
        on_progress: Told a stage and how many frames it has done.

    Raises:
        ImportError: pycolmap is not installed.
        ValueError: The camera did not move, no cameras were found, or depth is not this clip's.
    """
    known_name("method", search.method, METHODS)
    if search.method == "odometry":
        if search.fov_deg is None or search.placement is None:
            raise ValueError("fov, placement: odometry needs both")
        return _by_odometry(take, info, depth, search.fov_deg, search.placement, on_progress)
    step = search.every or max(1, round(float(take.rate(info)) / _MAPPED_PER_S))
    return _by_colmap(take, info, depth, search.fov_deg, step, work, on_progress)


def frames_with_depth(take: Take, depth: DepthSource) -> Iterator[tuple[Frame, np.ndarray]]:
    """Frames of a take with their raw depth values, of the depth's own size.

    Raises:
        ValueError: The depth ends before the clip.
    """
    with closing(depth.open()) as held:  # type: ignore[type-var]
        for frame in take.frames():
            values = next(held, None)
            if values is None:
                raise ValueError(f"depth: it ends after {frame.index} frames; give --max-frames {frame.index}")
            yield frame, values


def _by_colmap(
    take: Take, info: VideoInfo, depth: DepthSource, fov_deg: float | None, step: int, work: Path, on_progress: Progress
) -> PoseResult:
    shutil.rmtree(work, ignore_errors=True)
    (work / "images").mkdir(parents=True)
    height, width, mapped = _write_pictures(take, info, step, work / "images", on_progress)
    structure = map_pictures(work, mapped, height, width, fov_deg, on_progress)
    poses, times_s, samples = _follow_all(take, info, depth, structure, on_progress)
    try:
        alignment = align(depth.kind, Samples(*(np.concatenate(parts) for parts in zip(*samples, strict=True))))
    except ValueError as error:
        raise ValueError(f"poses: {error}") from error
    _check_way(poses, structure.points)
    world_from_camera = {index: np.linalg.inv(pose) for index, pose in poses.items()}
    found = _Found(
        _at_clip_size(structure.K, (height, width), info),
        structure.fov_by,
        world_from_camera,
        times_s,
        structure.reprojection_px * info.height / height,
        structure.points,
        structure.colors,
    )
    return _result("colmap", info, found, alignment)


def _write_pictures(
    take: Take, info: VideoInfo, step: int, folder: Path, on_progress: Progress
) -> tuple[int, int, list[int]]:
    """One frame in `step`, and the last; their height, width and indices."""
    written: list[int] = []
    height = width = 0
    last = None
    for frame in take.frames():
        last = frame
        if frame.index % step == 0:
            height, width = _write_picture(folder, frame, info)
            written.append(frame.index)
        on_progress("read", frame.index + 1)
    if last is not None and written[-1] != last.index:
        _write_picture(folder, last, info)
        written.append(last.index)
    if len(written) < 3:
        raise ValueError(
            f"poses: {len(written)} frames are too few to match; take more of the clip or lower --match-every"
        )
    return height, width, written


def _write_picture(folder: Path, frame: Frame, info: VideoInfo) -> tuple[int, int]:
    import cv2

    picture = work_picture(frame.rgb, WORK_SIDE_PX, info.sample_aspect)
    cv2.imwrite(str(folder / picture_name(frame.index)), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return picture.shape[0], picture.shape[1]


def _follow_all(
    take: Take, info: VideoInfo, depth: DepthSource, structure: Structure, on_progress: Progress
) -> tuple[dict[int, np.ndarray], np.ndarray, list[Samples]]:
    """Cameras of the frames between the mapped ones, times of all, and depth where points were seen."""
    import cv2

    followed = _Followed(structure)
    times, samples = [], []
    for frame, values in frames_with_depth(take, depth):
        times.append(frame.time_s)
        grey = cv2.cvtColor(work_picture(frame.rgb, WORK_SIDE_PX, info.sample_aspect), cv2.COLOR_RGB2GRAY)
        followed.add(frame.index, grey)
        seen = structure.observations.get(frame.index)
        if seen is not None:
            some = np.random.default_rng(frame.index).permutation(len(seen.points))[:_SAMPLES_PER_FRAME]
            pose = structure.camera_from_world[frame.index]
            _, true_depth = project(structure.points[seen.points[some]], pose, structure.K)
            samples.append(Samples(sample(values, seen.pixels[some], *grey.shape), true_depth))
        on_progress("follow", frame.index + 1)
    return followed.camera_from_world, np.array(times), samples


class _Followed:
    """Cameras of frames between mapped ones: the points of the mapped frame before are followed.

    Where the next mapped frame comes, what following had it off by is taken back, in proportion, from those between.
    """

    def __init__(self, structure: Structure) -> None:
        self.camera_from_world = dict(structure.camera_from_world)
        self._structure = structure
        self._grey = np.zeros((0, 0), np.uint8)
        self._pixels, self._points = np.zeros((0, 2)), np.zeros((0, 3))
        self._between: list[int] = []
        self._mapped = -1

    def add(self, index: int, grey: np.ndarray) -> None:
        """Go on with a frame, uint8 `[H, W]`."""
        pose = self._located(grey)
        seen = self._structure.observations.get(index)
        if seen is None and pose is not None:
            self.camera_from_world[index] = pose
            self._between.append(index)
        if seen is not None:
            if pose is not None:
                self._take_back(index, self._structure.camera_from_world[index] @ np.linalg.inv(pose))
            self._pixels, self._points = seen.pixels, self._structure.points[seen.points]
            self._between, self._mapped = [], index
        self._grey = grey

    def _located(self, grey: np.ndarray) -> np.ndarray | None:
        if not len(self._points):
            return None
        pixels, found = follow(self._grey, grey, self._pixels)
        self._pixels, self._points = pixels[found], self._points[found]
        located = locate(self._points, self._pixels, self._structure.K)
        return None if located is None else located[0]

    def _take_back(self, index: int, off: np.ndarray) -> None:
        for between_index in self._between:
            share = (between_index - self._mapped) / (index - self._mapped)
            self.camera_from_world[between_index] = mixed(np.eye(4), off, share) @ self.camera_from_world[between_index]


def _by_odometry(
    take: Take, info: VideoInfo, depth: DepthSource, fov_deg: float, placement: Placement, on_progress: Progress
) -> PoseResult:
    odometry = None
    times = []
    height = info.height
    for frame, values in frames_with_depth(take, depth):
        picture = work_picture(frame.rgb, WORK_SIDE_PX, info.sample_aspect)
        if odometry is None:
            height = picture.shape[0]
            odometry = Odometry(intrinsics(fov_deg, *picture.shape[:2]), placement)
        odometry.add(frame.index, picture, values)
        times.append(frame.time_s)
        on_progress("follow", frame.index + 1)
    if odometry is None or len(odometry.camera_from_world) < 2:
        raise ValueError("poses: no frame could be followed from the first one; try --method colmap")
    points, colors = odometry.points
    _check_way(odometry.camera_from_world, points)
    samples = Samples(*(np.concatenate(parts) for parts in zip(*odometry.samples, strict=True)))
    error = depth_error(placement, samples)
    found = _Found(
        intrinsics(fov_deg, info.height, info.width, info.sample_aspect),
        "given",
        {index: np.linalg.inv(pose) for index, pose in odometry.camera_from_world.items()},
        np.array(times),
        float(np.mean(odometry.reprojection_px)) * info.height / height,
        points,
        colors,
    )
    return _result("odometry", info, found, Alignment(placement, error))


def _check_way(camera_from_world: dict[int, np.ndarray], points: np.ndarray) -> None:
    """Refuse cameras that stand in one place.

    Raises:
        ValueError: Says how far they moved.
    """
    first, *_ = camera_from_world.values()
    centres = np.stack([np.linalg.inv(pose)[:3, 3] for pose in camera_from_world.values()])
    distance = float(np.median(project(points, first, np.eye(3))[1]))
    reach = float(np.linalg.norm(centres - centres[0], axis=1).max()) / abs(distance)
    if reach < _MIN_BASELINE:
        raise ValueError(
            f"poses: the camera did not move: it goes {100 * reach:.2f} % of the scene's distance, "
            f"{100 * _MIN_BASELINE:g} % are needed; a clip filmed from a place that changes is needed"
        )


def _at_clip_size(K: np.ndarray, size: tuple[int, int], info: VideoInfo) -> np.ndarray:
    return np.diag([info.width / size[1], info.height / size[0], 1.0]) @ K


def _result(method: str, info: VideoInfo, found: _Found, alignment: Alignment) -> PoseResult:
    """Everything in one unit: metres, or the points' median distance."""
    if alignment.error > _MAX_ERROR:
        raise ValueError(
            f"poses: depth is {100 * alignment.error:.0f} % off the scene's points (median): it is not the depth of "
            "this clip, or not of the kind that it is called; check --depth and --depth-kind"
        )
    placement = alignment.placement
    if placement.kind == "metric":
        unit = 1 / placement.scale
    else:
        first = found.world_from_camera[min(found.world_from_camera)]
        unit = 1 / abs(float(np.median(project(found.points, np.linalg.inv(first), np.eye(3))[1])))
    of_values = 1 / unit if placement.kind == "disparity" else unit
    poses = between(found.world_from_camera, found.times_s)
    poses[:, :3, 3] *= unit
    return PoseResult(
        method=method,
        height=info.height,
        width=info.width,
        K=found.K,
        fov_by=found.fov_by,
        world_from_camera=poses,
        times_s=found.times_s,
        registered=tuple(sorted(found.world_from_camera)),
        depth_kind=placement.kind,
        scale=placement.scale * of_values,
        shift=placement.shift * of_values,
        alignment_error=alignment.error,
        reprojection_px=found.reprojection_px,
        points=found.points * unit,
        colors=found.colors,
    )
