"""Camera paths from files: this project's key frames, and nerfstudio's camera-path JSON.

Key frames are relative to the clip's camera, lengths in per cent of the scene's median depth:

    {"keyframes": [{"time_s": 0, "position_percent": [0, 0, 0], "rotation_deg": [0, 0, 0], "fov_deg": 50}, ...],
     "easing": "smooth"}

Rotation is yaw (to the right), pitch (upwards), roll (clockwise). All but `time_s` may be left out.
"""

from __future__ import annotations

import json
from pathlib import Path as File
from typing import Any

import numpy as np

from depth_engine.checks import known_name
from depth_engine.geometry.cameras import opengl_from_opencv
from novel_view.paths import EASINGS, Path, View, ease

_KEYS = {"time_s", "position_percent", "rotation_deg", "fov_deg"}


def load_path(file: File) -> Path:
    """Read a path.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is neither kind of file, or a key frame is broken; the message names it.
    """
    if not file.exists():
        raise FileNotFoundError(f"path: {file} does not exist")
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"path: {file} is no JSON ({error})") from error
    if isinstance(content, dict) and "camera_path" in content:  # nerfstudio's viewer writes key frames of its own, too
        return _nerfstudio(file, content)
    if isinstance(content, dict) and "keyframes" in content:
        return _key_frames(file, content)
    raise ValueError(f"path: {file} holds neither keyframes nor nerfstudio's camera_path")


def _key_frames(file: File, content: dict[str, Any]) -> Path:
    easing = known_name("path: easing", content.get("easing", "smooth"), EASINGS)
    frames = content["keyframes"]
    if not isinstance(frames, list) or not frames:
        raise ValueError(f"path: {file}: keyframes must be a list of at least one")
    rows = [_key_frame(f"path: {file}: keyframe {number}", frame) for number, frame in enumerate(frames)]
    times = np.array([row[0] for row in rows])
    for number in range(1, len(times)):
        if times[number] <= times[number - 1]:
            raise ValueError(f"path: {file}: keyframe {number}: time_s {times[number]:g} is not after the one before")
    values = np.array([row[1] for row in rows])
    fovs = [row[2] for row in rows]
    if any(fov is None for fov in fovs) and any(fov is not None for fov in fovs):
        raise ValueError(f"path: {file}: keyframe {fovs.index(None)}: fov_deg is missing; give it in all or in none")
    fov_values = None if fovs[0] is None else np.array(fovs, dtype=np.float64)

    def view(time_s: float) -> View:
        before = int(np.clip(np.searchsorted(times, time_s, side="right") - 1, 0, max(len(times) - 2, 0)))
        after = min(before + 1, len(times) - 1)
        span = times[after] - times[before]
        share = ease(float(np.clip((time_s - times[before]) / span, 0, 1)), easing) if span else 0.0
        value = values[before] + share * (values[after] - values[before])
        fov = (
            None if fov_values is None else float(fov_values[before] + share * (fov_values[after] - fov_values[before]))
        )
        return View(_pose(value), fov_deg=fov)

    return view


def _key_frame(where: str, frame: Any) -> tuple[float, np.ndarray, float | None]:
    """Time, [position, rotation], field of view."""
    if not isinstance(frame, dict) or "time_s" not in frame:
        raise ValueError(f"{where}: has no time_s")
    unknown = sorted(set(frame) - _KEYS)
    if unknown:
        raise ValueError(f"{where}: {unknown[0]} is not one of {', '.join(sorted(_KEYS))}")
    position = _numbers(where, "position_percent", frame.get("position_percent", [0, 0, 0]), 3) / 100
    rotation = _numbers(where, "rotation_deg", frame.get("rotation_deg", [0, 0, 0]), 3)
    time_s = float(_numbers(where, "time_s", [frame["time_s"]], 1)[0])
    fov = frame.get("fov_deg")
    return time_s, np.concatenate([position, rotation]), None if fov is None else _fov(where, fov)


def _pose(value: np.ndarray) -> np.ndarray:
    """Position, and yaw, pitch, roll in degrees, as `source_from_target` (OpenCV axes: y down)."""
    from scipy.spatial.transform import Rotation

    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_euler("YXZ", value[3:], degrees=True).as_matrix()
    pose[:3, 3] = value[:3]
    return pose


def _nerfstudio(file: File, content: dict[str, Any]) -> Path:
    cameras = content["camera_path"]
    if not isinstance(cameras, list) or not cameras:
        raise ValueError(f"path: {file}: camera_path must be a list of at least one camera")
    duration_s = float(_numbers(f"path: {file}", "seconds", [content.get("seconds", len(cameras) / 24)], 1)[0])
    if duration_s <= 0:
        raise ValueError(f"path: {file}: seconds: {duration_s:g} is not above 0")
    views = []
    for number, camera in enumerate(cameras):
        where = f"path: {file}: camera {number}"
        if not isinstance(camera, dict) or "camera_to_world" not in camera:
            raise ValueError(f"{where}: has no camera_to_world")
        pose = _numbers(where, "camera_to_world", camera["camera_to_world"], 16).reshape(4, 4)
        if abs(np.linalg.det(pose[:3, :3]) - 1) > 1e-2:
            raise ValueError(f"{where}: camera_to_world is no rotation and position")
        views.append(View(opengl_from_opencv(pose), fov_deg=_fov(where, camera.get("fov", 50)), in_world=True))

    def view(time_s: float) -> View:
        return views[min(len(views) - 1, max(0, round(time_s / duration_s * (len(views) - 1))))]

    return view


def out_of_training(path: Path, transforms: File, world_from_data: np.ndarray) -> Path:
    """A path of nerfstudio's viewer, whose cameras stand in the frame that it trained in, in the world of the poses.

    Args:
        path: As `load_path` gives it.
        transforms: The `dataparser_transforms.json` that nerfstudio left beside its checkpoint.
        world_from_data: From the world of the data set that was trained on, `[4, 4]`; a rotation and a scale.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not of that kind.
    """
    where = f"--transforms: {transforms}"
    if not transforms.exists():
        raise FileNotFoundError(f"{where} does not exist")
    try:
        content = json.loads(transforms.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{where} is no JSON ({error})") from error
    if not isinstance(content, dict) or not {"transform", "scale"} <= set(content):
        raise ValueError(f"{where} has no transform and scale; give nerfstudio's dataparser_transforms.json")
    training_from_data = np.eye(4)
    training_from_data[:3] = _numbers(where, "transform", content["transform"], 12).reshape(3, 4)
    scale = float(_numbers(where, "scale", [content["scale"]], 1)[0])
    if scale <= 0 or abs(np.linalg.det(training_from_data[:3, :3]) - 1) > 1e-2:
        raise ValueError(f"{where}: transform is no rotation and position, or scale {scale:g} is not above 0")
    training_from_data[:3] *= scale
    world_from_training = world_from_data @ np.linalg.inv(training_from_data)
    size = np.cbrt(np.linalg.det(world_from_training[:3, :3]))

    def view(time_s: float) -> View:
        there = path(time_s)
        pose = world_from_training @ there.pose
        pose[:3, :3] /= size  # a camera turns and moves, it does not grow
        return there._replace(pose=pose)

    return view


def _fov(where: str, value: Any) -> float:
    fov_deg = float(_numbers(where, "fov", [value], 1)[0])
    if not 0 < fov_deg < 180:
        raise ValueError(f"{where}: fov: {fov_deg:g} is not accepted; give degrees between 0 and 180")
    return fov_deg


def _numbers(where: str, name: str, value: Any, count: int) -> np.ndarray:
    """`count` finite numbers, nested or not."""
    try:
        numbers = np.array(value, dtype=np.float64).reshape(-1)
    except (TypeError, ValueError):
        numbers = np.array([])
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise ValueError(f"{where}: {name}: {value!r} is not {count} finite number{'s' * (count > 1)}")
    return numbers
