"""What a procedural scene is made of: primitives, materials, motion, look. No rendering, no drawing of lots."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

PLANE, BOX, ELLIPSOID, CYLINDER = range(4)
MAX_DEPTH_M = 1000.0  # beyond, the ground melts into the sky: its depth is inf
NEAR_M = 0.02
FREE_M = 0.4  # nothing comes closer to the camera's track
TRACK_FRAMES = np.arange(0.0, 300.0, 3.0)  # the times at which that is checked; all motion is periodic
VOLUME_SIZE = 64  # texels along the side of the noise volume
TEXELS_PER_FEATURE = 10.0  # its dominant wavelength


@dataclass
class Material:
    """Two linear colours mixed by noise, under an optional pattern of cells."""

    color_a: tuple[float, float, float]
    color_b: tuple[float, float, float]
    feature_m: float = 0.3  # wavelength of the coarse noise
    contrast: float = 0.3  # how far the noise mixes the two colours
    fine: float = 0.4  # weight of noise at a ninth of the wavelength
    bump: float = 0.1  # how much the fine noise turns the normal
    stretch: tuple[float, float, float] = (1.0, 1.0, 1.0)  # frequency along the object's axes
    pattern: int = 0  # 0 none, 1 cells in mortar, 2 checker
    period_m: tuple[float, float] = (1.0, 1.0)
    gap: tuple[float, float] = (0.0, 0.0)  # fraction of a period that is mortar
    stagger: float = 0.0  # shift of every other row, in periods
    tone: float = 0.0  # brightness differs from cell to cell
    mortar: tuple[float, float, float] = (0.5, 0.5, 0.5)
    emission: float = 0.0
    gloss: float = 0.0

    def row(self) -> list[float]:
        """Flatten to the order of `COLUMN_WIDTHS`."""
        return [
            *self.color_a,
            *self.color_b,
            *(frequency / self.feature_m for frequency in self.stretch),
            self.contrast,
            self.fine,
            self.bump,
            float(self.pattern),
            *self.period_m,
            *self.gap,
            self.stagger,
            self.tone,
            *self.mortar,
            self.emission,
            self.gloss,
        ]


COLUMN_WIDTHS = {
    "color_a": 3,
    "color_b": 3,
    "frequency": 3,
    "contrast": 1,
    "fine": 1,
    "bump": 1,
    "pattern": 1,
    "period_m": 2,
    "gap": 2,
    "stagger": 1,
    "tone": 1,
    "mortar": 3,
    "emission": 1,
    "gloss": 1,
}


@dataclass
class Primitive:
    """A unit shape, placed, turned and scaled."""

    shape: int
    center: np.ndarray  # [3]
    half: np.ndarray  # [3] half extents or radii, metres
    rotation: np.ndarray  # [3, 3] world_from_object
    material: int
    thing: int  # the compound it belongs to: parts are removed and moved together
    leaf_m: float = 0.0  # > 0: perforated like foliage, holes of about this size
    emits: bool = False


@dataclass
class Motion:
    """How a thing moves: to and fro along a line, turning a little."""

    pivot: np.ndarray
    direction: np.ndarray
    travel_m: float
    speed_m: float  # per frame
    phase: float
    sway_rad: float
    sway_rate: float  # radians of phase per frame


@dataclass
class CameraMotion:
    """Where the camera stands and how it moves."""

    position: np.ndarray  # x, height above ground, z
    yaw: float = 0.0
    pitch: float = 0.0
    roll: float = 0.0
    direction: np.ndarray = field(default_factory=lambda: np.zeros(3))
    speed_m: float = 0.0
    travel_m: float = 1.0
    phase: float = 0.0
    pan: tuple[float, float, float] = (0.0, 0.1, 0.0)  # amplitude (rad), rate (rad of phase per frame), phase
    tilt: tuple[float, float, float] = (0.0, 0.1, 0.0)
    orbit: tuple[float, float, float] = (0.0, 0.1, 0.0)
    orbit_distance_m: float = 3.0
    limits_m: tuple[float, float] = (math.inf, math.inf)  # |x| and |z| stay within, before the jitter
    jitter: list[tuple[float, float, float]] = field(default_factory=list)  # 3 waves for each of 5 channels


@dataclass
class Scene:
    """All that a seed decides."""

    seed: int
    fov_deg: float
    indoor: bool
    camera: CameraMotion
    slope: tuple[float, float]
    primitives: list[Primitive]
    materials: list[Material]
    motions: dict[int, Motion]
    path: tuple[float, float, float, float, int] | None  # half width, amplitude, wave number, phase, material
    look: SceneLook


@dataclass
class SceneLook:
    """Light, air and the camera's rendition."""

    to_light: tuple[float, float, float]
    sun: tuple[float, float, float]
    ambient_up: tuple[float, float, float]
    ambient_down: tuple[float, float, float]
    shadows: bool
    dapple: float
    lamp: tuple[float, float, float, float] | None  # position and power
    sky_zenith: tuple[float, float, float]
    sky_horizon: tuple[float, float, float]
    cloud: float
    haze_m: float
    exposure: float
    white_balance: tuple[float, float, float]
    gamma: float
    contrast: float  # weight of an S-curve
    saturation: float
    vignette: float
    blur: float
    noise: float


def rotation_from_angles(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """World-from-object rotation; yaw turns right, pitch lifts the forward axis, roll leans to the right."""
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (math.cos, math.sin))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def intrinsics_from_fov(fov_deg: float, height: int, width: int) -> np.ndarray:
    """K `[3, 3]` in pixels of a picture with this vertical field of view."""
    focal_px = height / 2 / math.tan(math.radians(fov_deg) / 2)
    return np.array([[focal_px, 0, width / 2], [0, focal_px, height / 2], [0, 0, 1]])
