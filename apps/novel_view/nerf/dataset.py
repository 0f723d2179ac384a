"""A clip with depth and cameras as a data set for nerfstudio, and for programs that read its parts.

    images/frame_00000.png ...   the pictures
    depths/frame_00000.png ...   planar depth, 16 bit, 0 unknown (or .npy, float32, the same counts)
    masks/frame_00000.png ...    if masks are given: black pixels are not trained on
    transforms.json              cameras with OpenGL axes, for nerfstudio; which frames are for training
    sparse_pc.ply                points that the cameras were found by
    points.ply                   a dense cloud, from the depth
    colmap_text/                 cameras and points as COLMAP's text model
    scene.gltf                   the moving camera and the dense cloud, for Blender

All of it lies in one world, the poses' with its y axis up (half a turn about x), as glTF wants it.

Nothing of nerfstudio is imported here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from depth_engine.checks import known_name
from depth_engine.depth.source import DepthSource
from depth_engine.geometry.cameras import Camera, opengl_from_opencv
from depth_engine.geometry.placement import fitted_frames
from depth_engine.geometry.pose_estimation import frames_with_depth
from depth_engine.geometry.poses import PoseResult
from depth_engine.plain_data import read_json
from depth_engine.runs.atomic import part_path, publish, refuse_existing
from depth_engine.video.take import Take
from novel_view.camera_files import write_colmap, write_gltf
from novel_view.nerf.point_cloud import cloud, write_ply
from novel_view.warp.edges import sharpen_borders

DEPTH_FORMATS = ("png16", "npy")
# One count of a depth file, in the data set's unit: what stock nerfstudio takes for granted.
DEPTH_UNIT = 1e-3
# A relative scene has its points' median distance at 1. Five times that uses 16 bits well: one count is 0.02 % of the
# median distance, and the farthest depth that fits lies 13 median distances away.
_RELATIVE_SCALE = 5.0
_MAX_COUNT = 65535
# The poses' world has y down.
_UP_FROM_WORLD = np.diag([1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True)
class DatasetOptions:
    """What is written.

    Attributes:
        every: One frame in so many.
        side_px: Longest side of the pictures at the most; None: the clip's size.
        depth_format: `png16` or `npy`.
        eval_every: One exported frame in so many is held out.
        masks: Clip or pictures, frame by frame those of the take: black is not trained on.
        sharpen: Move depth borders to the pictures'.
        cloud_points: Of the dense cloud, at the most; 0: none.

    Raises:
        ValueError: A number is not accepted.
    """

    every: int = 1
    side_px: int | None = None
    depth_format: str = "png16"
    eval_every: int = 8
    masks: Path | None = None
    sharpen: bool = True
    cloud_points: int = 500_000

    def __post_init__(self) -> None:
        known_name("depth-format", self.depth_format, DEPTH_FORMATS)
        for name, least in (("every", 1), ("eval_every", 2), ("cloud_points", 0), ("side_px", 16)):
            value = getattr(self, name)
            if value is not None and value < least:
                option = "size" if name == "side_px" else name.replace("_", "-")
                raise ValueError(f"{option}: {value} is not accepted; give a number from {least} up")


@dataclass(frozen=True)
class Dataset:
    """What was written.

    Attributes:
        folder: Where.
        frames: How many.
        held_out: How many of them are for evaluation.
        unknown_share: Share of pixels without depth.
    """

    folder: Path
    frames: int
    held_out: int
    unknown_share: float


def export_dataset(
    take: Take,
    depth: DepthSource,
    poses: PoseResult,
    folder: Path,
    options: DatasetOptions,
    *,
    overwrite: bool = False,
    on_frames: Callable[[int], None] = lambda done: None,
) -> Dataset:
    """Write the data set; the folder appears when it is whole.

    Only frames whose own camera was found are exported, not those that lie between others.

    Args:
        take: The part of the clip that the poses are of.
        depth: Of the same part.
        poses: Of the same part.
        folder: Where to.
        options: What.
        overwrite: Replace a folder that exists.
        on_frames: Told how many frames of the take are done.

    Raises:
        FileExistsError: The folder exists and `overwrite` is off.
        ValueError: Clip, depth, masks and poses do not belong together.
    """
    refuse_existing(folder, overwrite)
    check_same_depth(depth, poses)
    part = part_path(folder)
    part.mkdir(parents=True)
    try:
        writer = _Writer(part, poses, options)
        for frame in _frames(take, depth, poses, options, on_frames):
            writer.add(frame)
        dataset = writer.finish(folder)
        publish(part, folder, overwrite)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    return dataset


def check_same_depth(depth: DepthSource, poses: PoseResult) -> None:
    """See that poses were made with depth of this kind: their scale and shift are of its values.

    Raises:
        ValueError: They were not.
    """
    if depth.kind != poses.depth_kind:
        raise ValueError(
            f"poses: they were made with {poses.depth_kind}, the depth here is {depth.kind}; make them anew"
        )


def read_dataset(folder: Path, *, for_path: bool = False) -> dict[str, Any]:
    """The content of a data set's transforms.json, checked for what cameras are made of.

    Args:
        folder: The data set.
        for_path: Check for what a path along its cameras needs, too; not every data set has it.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is no data set of `export_dataset`.
    """
    file = folder / "transforms.json"
    if not file.exists():
        raise FileNotFoundError(f"data: {file} does not exist; make it by: novel-view export INPUT -o {folder}")
    meta = read_json(file)
    wanted = ("fl_x", "fl_y", "cx", "cy", "w", "h", "frames", *(("median_depth",) if for_path else ()))
    missing = [name for name in wanted if name not in meta]
    if not missing:
        frames = meta["frames"] if isinstance(meta["frames"], list) and meta["frames"] else [{}]
        of_frames = ("file_path", "transform_matrix", *(("frame", "time_s") if for_path else ()))
        missing = [name for name in of_frames if not all(name in frame for frame in frames)]
    if missing:
        raise ValueError(f"data: {file} lacks {', '.join(missing)}; accepted: a folder of novel-view export")
    return meta


def dataset_cameras(meta: Mapping[str, Any]) -> list[Camera]:
    """The cameras of a data set, in the order of its frames.

    Args:
        meta: Content of its transforms.json.
    """
    K = np.array([[meta["fl_x"], 0, meta["cx"]], [0, meta["fl_y"], meta["cy"]], [0, 0, 1]])
    return [
        Camera(K, opengl_from_opencv(np.array(frame["transform_matrix"])), int(meta["h"]), int(meta["w"]))
        for frame in meta["frames"]
    ]


@dataclass(frozen=True)
class _ExportFrame:
    """A frame to write: picture, planar depth in the data set's unit, camera, mask."""

    index: int
    rgb: np.ndarray
    depth: np.ndarray
    camera: Camera
    mask: np.ndarray | None


def _frames(
    take: Take, depth: DepthSource, poses: PoseResult, options: DatasetOptions, on_frames: Callable[[int], None]
) -> Iterator[_ExportFrame]:
    import cv2

    scale = scene_scale(poses)
    share = min(1.0, (options.side_px or max(poses.height, poses.width)) / max(poses.height, poses.width))
    height, width = (max(1, round(size * share)) for size in (poses.height, poses.width))
    size = np.diag([width / poses.width, height / poses.height, 1.0])
    registered = set(poses.registered)
    with closing(_masks(take, options.masks)) as masks:  # type: ignore[type-var]
        for frame, values in frames_with_depth(take, depth):
            if frame.index == 0 and frame.rgb.shape[:2] != (poses.height, poses.width):
                raise ValueError(
                    f"poses: they are of a clip of {poses.width}x{poses.height}, this one is "
                    f"{frame.rgb.shape[1]}x{frame.rgb.shape[0]}"
                )
            if frame.index >= poses.frame_count:
                raise ValueError(f"poses: there are {poses.frame_count}, and the clip goes on; make them anew")
            mask = next(masks, None)
            on_frames(frame.index + 1)
            if frame.index % options.every or frame.index not in registered:
                continue
            rgb = cv2.resize(frame.rgb, (width, height), interpolation=cv2.INTER_AREA) if share < 1 else frame.rgb
            planar = poses.placement.depth(next(fitted_frames([values], height, width)))
            if options.sharpen:
                planar = sharpen_borders(planar, rgb)
            pose = _UP_FROM_WORLD @ poses.world_from_camera[frame.index]
            pose[:3, 3] *= scale
            if mask is not None:
                grey = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST).mean(axis=2)
                mask = np.where(grey > 127, 255, 0).astype(np.uint8)
            camera = Camera(size @ poses.K, pose, height, width)
            yield _ExportFrame(frame.index, rgb, planar * np.float32(scale), camera, mask)


def _masks(take: Take, source: Path | None) -> Iterator[np.ndarray | None]:
    if source is None:
        return
    for frame in replace(Take(source), max_frames=take.max_frames).frames():
        yield frame.rgb
    raise ValueError(f"masks: {source} has fewer frames than the clip; give one mask to each frame")


def scene_scale(poses: PoseResult) -> float:
    """Units of the data set in one unit of the poses: metres stay metres."""
    return 1.0 if poses.depth_kind == "metric" else _RELATIVE_SCALE


def world_from_dataset(poses: PoseResult) -> np.ndarray:
    """From the world of a data set to the one of the poses that it was made with, `[4, 4]`: a rotation and a scale."""
    return np.linalg.inv(np.diag([*[scene_scale(poses)] * 3, 1.0]) @ _UP_FROM_WORLD)


class _Writer:
    """Writes frame by frame into an unfinished folder; then what is of all of them."""

    def __init__(self, folder: Path, poses: PoseResult, options: DatasetOptions) -> None:
        self._folder, self._poses, self._options = folder, poses, options
        self._rows: list[dict[str, Any]] = []
        self._cameras: list[Camera] = []
        self._clouds: list[tuple[np.ndarray, np.ndarray]] = []
        self._unknown = 0.0
        self._medians: list[float] = []
        self._expected = len([index for index in poses.registered if index % options.every == 0])
        for name in ("images", "depths", *(("masks",) if options.masks else ())):
            (folder / name).mkdir()

    def add(self, frame: _ExportFrame) -> None:
        import cv2

        name = f"frame_{frame.index:05d}"
        image = f"images/{name}.png"
        cv2.imwrite(str(self._folder / image), cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2BGR))
        row = {
            "file_path": image,
            "depth_file_path": self._write_depth(name, frame.depth),
            "transform_matrix": opengl_from_opencv(frame.camera.world_from_camera).tolist(),
            "frame": frame.index,
            "time_s": float(self._poses.times_s[frame.index]),
        }
        if frame.mask is not None:
            row["mask_path"] = f"masks/{name}.png"
            cv2.imwrite(str(self._folder / row["mask_path"]), frame.mask)
        self._rows.append(row)
        self._cameras.append(frame.camera)
        if self._options.cloud_points:
            quota = -(-self._options.cloud_points // self._expected)
            self._clouds.append(cloud(frame.rgb, frame.depth, frame.camera, quota, frame.index))

    def _write_depth(self, name: str, depth: np.ndarray) -> str:
        """Counts of `DEPTH_UNIT`; 0 where depth is unknown or too far to be held."""
        import cv2

        counts = np.nan_to_num(depth / np.float32(DEPTH_UNIT), nan=0.0, posinf=0.0, neginf=0.0)
        if self._options.depth_format == "npy":
            path = f"depths/{name}.npy"
            np.save(self._folder / path, np.maximum(counts, 0).astype(np.float32))
        else:
            path = f"depths/{name}.png"
            counts = np.where((counts > 0) & (counts <= _MAX_COUNT), counts, 0).round()
            cv2.imwrite(str(self._folder / path), counts.astype(np.uint16))
        self._unknown += float((counts <= 0).mean())
        if (counts > 0).any():
            self._medians.append(float(np.median(counts[counts > 0])) * DEPTH_UNIT)
        return path

    def _rate(self) -> float:
        """Exported frames per second of the clip."""
        times_s = [row["time_s"] for row in self._rows]
        return (len(times_s) - 1) / (times_s[-1] - times_s[0])

    def finish(self, folder: Path) -> Dataset:
        """Write what belongs to all frames."""
        if len(self._rows) < 4:
            raise ValueError(
                f"export: {len(self._rows)} frames with a camera of their own are too few; lower --every or take more"
            )
        if not self._medians:
            raise ValueError("depth: no pixel of the exported frames has one before the camera; check --depth-kind")
        held_out = [row["file_path"] for row in self._rows[self._options.eval_every // 2 :: self._options.eval_every]]
        self._write_transforms(held_out)
        points = self._poses.points @ _UP_FROM_WORLD[:3, :3] * scene_scale(self._poses)
        write_ply(self._folder / "sparse_pc.ply", points, self._poses.colors)
        dense = [np.concatenate(part) for part in zip(*self._clouds, strict=True)]
        if dense:
            write_ply(self._folder / "points.ply", *dense)
        names = [Path(row["file_path"]).name for row in self._rows]
        write_colmap(self._folder / "colmap_text", self._cameras, names, points, self._poses.colors)
        shown = dense or [points, self._poses.colors]
        write_gltf(self._folder / "scene.gltf", self._cameras, [row["time_s"] for row in self._rows], *shown)
        return Dataset(folder, len(self._rows), len(held_out), self._unknown / len(self._rows))

    def _write_transforms(self, held_out: list[str]) -> None:
        first = self._cameras[0]
        trained = [row["file_path"] for row in self._rows if row["file_path"] not in held_out]
        content = {
            "camera_model": "OPENCV",
            "fl_x": first.K[0, 0],
            "fl_y": first.K[1, 1],
            "cx": first.K[0, 2],
            "cy": first.K[1, 2],
            "w": first.width,
            "h": first.height,
            "k1": 0.0,
            "k2": 0.0,
            "p1": 0.0,
            "p2": 0.0,
            "ply_file_path": "sparse_pc.ply",
            "depth_unit_scale_factor": DEPTH_UNIT,
            "depth_kind": self._poses.depth_kind,
            "median_depth": float(np.median(self._medians)),
            "fps": self._rate(),
            "depth_error": self._poses.alignment_error,
            "scene_scale": scene_scale(self._poses),
            "train_filenames": trained,
            "val_filenames": held_out,
            "test_filenames": held_out,
            "frames": self._rows,
        }
        (self._folder / "transforms.json").write_text(json.dumps(content, indent=1) + "\n")
