"""How the new camera moves: named paths, key frames from a file, and a steadied version of the clip's own path.

A path gives, for each frame, where the new camera stands. Named paths and key frames are relative to the clip's own
camera of that frame (`source_from_target`), nerfstudio's are in the world. Lengths of named paths are shares of the
scene's median depth, so that the same amplitude looks alike whatever the unit of the depth.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from depth_engine.checks import known_name
from depth_engine.geometry.cameras import look_at

EASINGS = ("smooth", "linear", "sine")
# A camera that moves this share of the median depth stands in what it looks at.
_MAX_AMPLITUDE_PERCENT = 100.0
_DOWN = np.array([0.0, 1.0, 0.0])


class View(NamedTuple):
    """A new camera for one frame.

    Attributes:
        pose: `[4, 4]`, OpenCV axes: `source_from_target`, lengths in median depths; or `world_from_camera`.
        zoom: Factor of the focal length.
        fov_deg: Vertical field of view; None: the source's times the zoom.
        in_world: Whether the pose is in the world.
    """

    pose: np.ndarray
    zoom: float = 1.0
    fov_deg: float | None = None
    in_world: bool = False


# Time in seconds from the first frame -> view
Path = Callable[[float], View]


@dataclass(frozen=True)
class NamedPath:
    """A path by its name.

    Attributes:
        name: One of `PATHS`.
        amplitude_percent: How far the camera goes, per cent of the median depth; for `zoom` per cent of the focal
            length; for `handheld` the size of its sway.
        period_s: Length of one swing, or of a one-way move, in seconds.
        easing: One of `EASINGS`; how one-way moves start and stop.
        seed: Of `handheld`.

    Raises:
        ValueError: A name is unknown, or a number is not accepted.
    """

    name: str
    amplitude_percent: float = 8.0
    period_s: float = 4.0
    easing: str = "smooth"
    seed: int = 0

    def __post_init__(self) -> None:
        known_name("path", self.name, PATHS)
        known_name("easing", self.easing, EASINGS)
        if not 0 < abs(self.amplitude_percent) < _MAX_AMPLITUDE_PERCENT:
            raise ValueError(
                f"amplitude: {self.amplitude_percent:g} is not accepted; give per cent of the median depth between "
                f"-{_MAX_AMPLITUDE_PERCENT:g} and {_MAX_AMPLITUDE_PERCENT:g}, not 0: farther, the view turns inside out"
            )
        if not (math.isfinite(self.period_s) and self.period_s > 0):
            raise ValueError(f"period: {self.period_s:g} is not accepted; give seconds above 0")

    def __call__(self, time_s: float) -> View:
        """The view at a time."""
        return _PATHS[self.name](self, time_s)

    @property
    def amplitude(self) -> float:
        """In median depths."""
        return self.amplitude_percent / 100

    def swing(self, time_s: float) -> float:
        """There and back, -1 to 1, from 0."""
        return math.sin(2 * math.pi * time_s / self.period_s)

    def advance(self, time_s: float) -> float:
        """One way, 0 to 1, then standing."""
        return ease(min(time_s / self.period_s, 1.0), self.easing)


def ease(share: float, easing: str) -> float:
    """A share of a way, 0 to 1, with a soft start and stop unless `linear`."""
    if easing == "linear":
        return share
    if easing == "sine":
        return 0.5 - 0.5 * math.cos(math.pi * share)
    return share * share * (3 - 2 * share)


def _moved(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, 3] = (x, y, z)
    return pose


def _aimed(x: float, y: float, z: float = 0.0) -> np.ndarray:
    """Moved, and still looking at the point on the axis at the median depth."""
    return look_at(np.array([x, y, z]), np.array([0.0, 0.0, 1.0]), _DOWN)


def _orbit(path: NamedPath, time_s: float) -> View:
    """A small circle before the scene, begun and ended at rest in the middle."""
    angle = 2 * math.pi * time_s / path.period_s
    reach = path.amplitude * ease(min(1.0, 4 * time_s / path.period_s), "smooth")
    return View(_aimed(reach * math.sin(angle), -0.5 * reach * math.sin(2 * angle)))


def _lateral(path: NamedPath, time_s: float) -> View:
    return View(_moved(x=path.amplitude * path.swing(time_s)))


def _dolly(path: NamedPath, time_s: float) -> View:
    return View(_moved(z=path.amplitude * path.advance(time_s)))


def _zoom(path: NamedPath, time_s: float) -> View:
    return View(np.eye(4), zoom=1 + path.amplitude * path.advance(time_s))


def _dolly_zoom(path: NamedPath, time_s: float) -> View:
    """Forward while the focal length falls, so that what lies at the median depth keeps its size."""
    forward = path.amplitude * path.advance(time_s)
    return View(_moved(z=forward), zoom=1 - forward)


def _arc(path: NamedPath, time_s: float) -> View:
    """Round the scene on a level arc, at one distance."""
    angle = 2 * math.asin(path.amplitude / 2) * path.swing(time_s)
    return View(_aimed(math.sin(angle), 0.0, 1 - math.cos(angle)))


def _handheld(path: NamedPath, time_s: float) -> View:
    """Sway of a camera in the hand: three sines of unrelated frequency for each axis of motion and turn."""
    rng = np.random.default_rng(path.seed)
    frequency_hz = rng.uniform(0.15, 0.9, (5, 3)) * 4 / path.period_s
    phase = rng.uniform(0, 2 * math.pi, (5, 3))
    weight = 1 / (1 + 3 * frequency_hz)
    sway = (np.sin(2 * math.pi * frequency_hz * time_s + phase) * weight).sum(1) / weight.sum(1)
    x, y, z = path.amplitude * sway[:3] * (1.0, 0.7, 0.4)
    # It looks about where it looked before: the turn is a part of what aiming would be.
    aim = np.array([0.3 * x + 0.15 * path.amplitude * sway[3], 0.3 * y + 0.15 * path.amplitude * sway[4], 1.0])
    return View(look_at(np.array([x, y, z]), aim, _DOWN))


_PATHS: dict[str, Callable[[NamedPath, float], View]] = {
    "orbit": _orbit,
    "lateral": _lateral,
    "dolly": _dolly,
    "zoom": _zoom,
    "dolly-zoom": _dolly_zoom,
    "arc": _arc,
    "handheld": _handheld,
}
PATHS = tuple(_PATHS)
ONE_WAY = ("dolly", "zoom", "dolly-zoom")  # what `easing` applies to


def stabilized(world_from_camera: np.ndarray, times_s: np.ndarray, smooth_s: float) -> Path:
    """A steady camera along a shaken one: the clip's own path, averaged over time.

    Args:
        world_from_camera: `[T, 4, 4]`, poses of the clip's frames.
        times_s: `[T]`, increasing.
        smooth_s: Standard deviation of the Gaussian over time, seconds.

    Raises:
        ValueError: The numbers do not fit, or `smooth_s` is not above 0.
    """
    poses, times = np.asarray(world_from_camera, np.float64), np.asarray(times_s, np.float64)
    if poses.ndim != 3 or poses.shape[1:] != (4, 4) or times.shape != (len(poses),) or len(poses) == 0:
        raise ValueError(f"poses: {poses.shape} at {times.shape} times do not fit")
    if not (math.isfinite(smooth_s) and smooth_s > 0):
        raise ValueError(f"smooth: {smooth_s:g} is not accepted; give seconds above 0")
    from scipy.spatial.transform import Rotation

    rotations = Rotation.from_matrix(poses[:, :3, :3])

    def view(time_s: float) -> View:
        # The window is cut evenly on both sides: at the ends the mean must not lag behind.
        reach = min(3 * smooth_s, max(time_s - times[0], 0.0), max(times[-1] - time_s, 0.0))
        weight = np.exp(-0.5 * ((times - time_s) / smooth_s) ** 2) * (np.abs(times - time_s) <= reach + 1e-6)
        if not weight.any():
            weight = (np.arange(len(times)) == np.abs(times - time_s).argmin()).astype(float)
        weight = weight / weight.sum()
        pose = np.eye(4)
        pose[:3, :3] = rotations.mean(weight).as_matrix()
        pose[:3, 3] = weight @ poses[:, :3, 3]
        return View(pose, in_world=True)

    return view
