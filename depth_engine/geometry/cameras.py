"""Pinhole cameras and their conventions: OpenCV axes inside (x right, y down, z forward), pixel centres at +0.5."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

# OpenGL's camera looks along -z with y up; the conversion is its own inverse.
_FLIP_YZ = np.diag([1.0, -1.0, -1.0, 1.0])


@dataclass(frozen=True)
class Camera:
    """A pinhole camera.

    Attributes:
        K: Intrinsics `[3, 3]` in pixels of an image of `height` x `width`.
        world_from_camera: Pose `[4, 4]`, OpenCV axes.
        height: Image height in pixels.
        width: Image width in pixels.
    """

    K: np.ndarray
    world_from_camera: np.ndarray
    height: int
    width: int

    def __post_init__(self) -> None:
        for name, shape in (("K", (3, 3)), ("world_from_camera", (4, 4))):
            value = np.asarray(getattr(self, name), dtype=np.float64)
            if value.shape != shape or not np.isfinite(value).all():
                raise ValueError(f"{name}: give finite numbers of shape {list(shape)}, not {getattr(self, name)!r}")
            object.__setattr__(self, name, value)
        for name in ("height", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: {getattr(self, name)} is not accepted; give pixels from 1 up")


def intrinsics(fov_deg: float, height: int, width: int, sample_aspect: Fraction | float = 1) -> np.ndarray:
    """K `[3, 3]` of a picture with this vertical field of view, the principal point in its middle.

    Args:
        fov_deg: Vertical field of view, degrees.
        height: Of the picture, pixels.
        width: Of the picture, pixels.
        sample_aspect: Width / height of one pixel.

    Raises:
        ValueError: The field of view is not between 0 and 180 degrees.
    """
    if not 0 < fov_deg < 180:
        raise ValueError(f"fov: {fov_deg:g} is not accepted; give degrees between 0 and 180")
    focal_px = height / 2 / math.tan(math.radians(fov_deg) / 2)
    return np.array([[focal_px / float(sample_aspect), 0, width / 2], [0, focal_px, height / 2], [0, 0, 1]])


def opengl_from_opencv(world_from_camera: np.ndarray) -> np.ndarray:
    """A pose `[..., 4, 4]` with the camera's axes turned from OpenCV's to OpenGL's (nerfstudio, Blender), or back."""
    return world_from_camera @ _FLIP_YZ


def look_at(position: np.ndarray, target: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Pose `[4, 4]` of a camera at `position` that looks at `target`.

    Args:
        position: `[3]`.
        target: `[3]`, elsewhere than the position.
        down: `[3]`, the picture's down direction as far as possible; not along the line of sight.

    Raises:
        ValueError: The camera has no direction, or looks straight along `down`.
    """
    forward = np.asarray(target, dtype=np.float64) - position
    right = np.cross(down, forward)
    if np.linalg.norm(forward) == 0 or np.linalg.norm(right) < 1e-9 * np.linalg.norm(forward) * np.linalg.norm(down):
        raise ValueError(f"target: {list(target)} gives a camera at {list(position)} no upright view")
    forward = forward / np.linalg.norm(forward)
    right = right / np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(forward, right), forward], axis=1)
    pose[:3, 3] = position
    return pose
