"""Cameras of a clip, and its depth in their unit: what `novel-view poses` finds and keeps."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from depth_engine.geometry.cameras import Camera
from depth_engine.geometry.placement import Placement
from depth_engine.runs.atomic import part_path, refuse_existing

FORMAT = "novel-view poses 1"
METHODS = ("colmap", "odometry")


# Of a scene's extent: points that lie no farther from one plane tell nothing but the plane.
_FLAT = 0.025
_PLANES = 50  # tried


@dataclass(frozen=True)
class PoseResult:
    """Cameras of every frame of a take, and the map from its depth's values to their unit.

    The unit is the metre where the depth is metric; else the median distance of the points is 1.

    Attributes:
        method: `colmap` or `odometry`.
        height: Of the clip's pictures.
        width: Of the clip's pictures.
        K: Intrinsics `[3, 3]` in pixels of the clip.
        fov_by: Where K comes from: `given`, `found`, or `assumed` where the clip did not tell it.
        world_from_camera: float64 `[T, 4, 4]`, OpenCV axes; those that are not registered lie between their neighbours.
        times_s: float64 `[T]`, when the frames are shown.
        registered: Indices of the frames whose camera was found, rising.
        depth_kind: Of the depth: `disparity`, `depth` or `metric`.
        scale: See `placement.Placement`.
        shift: See `placement.Placement`.
        alignment_error: Median of |depth / depth of the points - 1|.
        reprojection_px: Mean distance, in pixels of the clip, of points from where they were seen.
        points: `[M, 3]` of the scene.
        colors: uint8 `[M, 3]` of the points.
    """

    method: str
    height: int
    width: int
    K: np.ndarray
    fov_by: str
    world_from_camera: np.ndarray
    times_s: np.ndarray
    registered: tuple[int, ...]
    depth_kind: str
    scale: float
    shift: float
    alignment_error: float
    reprojection_px: float
    points: np.ndarray
    colors: np.ndarray

    @property
    def frame_count(self) -> int:
        """Frames of the take."""
        return len(self.world_from_camera)

    @property
    def interpolated(self) -> tuple[int, ...]:
        """Frames whose camera was not found."""
        found = set(self.registered)
        return tuple(index for index in range(self.frame_count) if index not in found)

    @property
    def placement(self) -> Placement:
        """From the depth's values to planar depth in the poses' unit."""
        return Placement(self.depth_kind, self.scale, self.shift, "poses")

    def camera(self, index: int) -> Camera:
        """The camera of a frame.

        Raises:
            ValueError: The poses end before it.
        """
        if not 0 <= index < self.frame_count:
            raise ValueError(f"poses: there are {self.frame_count} cameras, none for frame {index}; make them anew")
        return Camera(self.K, self.world_from_camera[index], self.height, self.width)

    def report(self) -> list[str]:
        """What was found, for a person."""
        positions = self.world_from_camera[:, :3, 3]
        length = float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum())
        unit = "m" if self.depth_kind == "metric" else "times the median distance of the points"
        fov_deg = float(np.degrees(2 * np.arctan(self.height / 2 / self.K[1, 1])))
        lines = [
            f"{len(self.registered)} of {self.frame_count} frames registered ({self.method})",
            f"{len(self.points)} points, {self.reprojection_px:.2f} px mean reprojection error",
            f"field of view {fov_deg:.1f} degrees (focal length {self.K[1, 1]:.1f} px), {self.fov_by}",
            f"camera path length {length:.3g} {unit}",
            f"depth fits the points within {100 * self.alignment_error:.1f} % (median)",
        ]
        if self.interpolated:
            lines.append(f"cameras of {len(self.interpolated)} frames were put between their neighbours")
        if self.fov_by != "given" and _is_flat(self.points):
            lines.append(
                "the scene is flat, which leaves the lens unsure: a camera with a longer one that only turns sees the "
                "same; give --fov if you know it"
            )
        return lines

    def save(self, path: Path, overwrite: bool = False) -> Path:
        """Write to a `.json` file, whole or not at all.

        Raises:
            FileExistsError: It exists and `overwrite` is off.
        """
        refuse_existing(path, overwrite)
        part = part_path(path)
        part.write_text(json.dumps(self._plain()) + "\n")
        os.replace(part, path)
        return path

    def _plain(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "method": self.method,
            "height": self.height,
            "width": self.width,
            "K": self.K.tolist(),
            "fov_by": self.fov_by,
            "depth_kind": self.depth_kind,
            "scale": self.scale,
            "shift": self.shift,
            "alignment_error": self.alignment_error,
            "reprojection_px": self.reprojection_px,
            "registered": list(self.registered),
            "interpolated": list(self.interpolated),
            "times_s": self.times_s.tolist(),
            "world_from_camera": self.world_from_camera.tolist(),
            "points": np.round(self.points, 6).tolist(),
            "colors": self.colors.tolist(),
        }


def load_poses(path: str | Path) -> PoseResult:
    """Read what `PoseResult.save` wrote.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such file, or broken; the message says what.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"poses: {path} does not exist; make it by: novel-view poses INPUT -o {path.name}")
    try:
        held = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"poses: {path} is no JSON ({error})") from error
    if not isinstance(held, dict) or held.get("format") != FORMAT:
        raise ValueError(f"poses: {path} was not written by novel-view poses (format {FORMAT!r} is read)")
    try:
        result = PoseResult(
            method=str(held["method"]),
            height=int(held["height"]),
            width=int(held["width"]),
            K=np.array(held["K"], dtype=np.float64),
            fov_by=str(held["fov_by"]),
            world_from_camera=np.array(held["world_from_camera"], dtype=np.float64),
            times_s=np.array(held["times_s"], dtype=np.float64),
            registered=tuple(int(index) for index in held["registered"]),
            depth_kind=str(held["depth_kind"]),
            scale=float(held["scale"]),
            shift=float(held["shift"]),
            alignment_error=float(held["alignment_error"]),
            reprojection_px=float(held["reprojection_px"]),
            points=np.array(held["points"], dtype=np.float64).reshape(-1, 3),
            colors=np.array(held["colors"], dtype=np.uint8).reshape(-1, 3),
        )
    except KeyError as error:
        raise ValueError(f"poses: {path}: {error.args[0]} is missing") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"poses: {path} is broken ({error})") from error
    _check(path, result)
    return result


def _check(path: Path, poses: PoseResult) -> None:
    count = len(poses.times_s)
    wanted = {"K": (3, 3), "world_from_camera": (count, 4, 4), "times_s": (count,), "colors": poses.points.shape}
    for name, shape in wanted.items():
        value = getattr(poses, name)
        if value.shape != shape or not np.isfinite(value).all() or not count:
            raise ValueError(f"poses: {path}: {name} is not finite numbers of shape {list(shape)}")
    if not np.isfinite([poses.scale, poses.shift]).all() or poses.scale <= 0:
        raise ValueError(f"poses: {path}: scale {poses.scale} and shift {poses.shift} are no map of depth")


def _is_flat(points: np.ndarray) -> bool:
    """Whether nine tenths of the points lie in one plane. The plane is the best of many through three of them."""
    if len(points) < 10:
        return False
    rng = np.random.default_rng(0)
    corners = points[np.stack([rng.permutation(len(points))[:3] for _ in range(_PLANES)])]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    off = np.abs(points @ normals.T - (corners[:, 0] * normals).sum(axis=1))
    extent = np.linalg.norm(points - np.median(points, axis=0), axis=1)
    return bool(np.quantile(off, 0.9, axis=0).min() < _FLAT * np.median(extent))


def between(found: dict[int, np.ndarray], times_s: np.ndarray) -> np.ndarray:
    """Poses of all frames from those of some: turned evenly about one axis (slerp), moved on a line.

    Before the first and after the last the camera stands.

    Args:
        found: Frame index -> pose `[4, 4]`.
        times_s: `[T]`.

    Returns:
        `[T, 4, 4]`.
    """
    from scipy.spatial.transform import Rotation, Slerp

    indices = sorted(found)
    held, known_s = np.stack([found[index] for index in indices]), times_s[indices]
    poses = np.tile(held[0], (len(times_s), 1, 1))
    if len(indices) > 1:
        inside_s = np.clip(times_s, known_s[0], known_s[-1])
        poses[:, :3, :3] = Slerp(known_s, Rotation.from_matrix(held[:, :3, :3]))(inside_s).as_matrix()
        poses[:, :3, 3] = np.stack([np.interp(inside_s, known_s, held[:, axis, 3]) for axis in range(3)], axis=1)
    poses[indices] = held  # the very numbers
    return poses


def mixed(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """The pose `[4, 4]` that is a share, 0 to 1, of the way from the first to the second."""
    return between({0: first, 2: second}, np.array([0.0, min(max(share, 0.0), 1.0), 1.0]))[1]
