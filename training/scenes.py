"""Procedural video with exact depth: random scenes, ray-cast in plain torch, a pure function of their seed.

The world has OpenCV axes too: x right, y down, z forward, in metres, so a height `up` above the ground is y = -up.
Every primitive is a unit shape (plane y = 0, cube, sphere, cylinder along y) scaled, rotated and placed. Rays leave the
camera with z = 1, so the ray parameter of a hit *is* its planar depth.
"""

from __future__ import annotations

import colorsys
import functools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

PLANE, BOX, ELLIPSOID, CYLINDER = range(4)
MAX_DEPTH_M = 1000.0  # beyond, the ground melts into the sky: its depth is inf
_NEAR_M = 0.02
_FREE_M = 0.4  # nothing comes closer to the camera's track
_TRACK_FRAMES = np.arange(0.0, 300.0, 3.0)  # the times at which that is checked; all motion is periodic
_VOLUME_SIZE = 64  # texels along the side of the noise volume
_TEXELS_PER_FEATURE = 10.0  # its dominant wavelength


@dataclass(frozen=True)
class SceneClip:
    """One clip: what a camera saw, and the truth behind it.

    Attributes:
        rgb: uint8 `[T, H, W, 3]`.
        depth_m: float32 `[T, H, W]`, planar z-depth at pixel centres in metres, sky = inf.
        K: float64 `[3, 3]`, pixels of this image size, pixel centres at +0.5.
        world_from_camera: float64 `[T, 4, 4]`, OpenCV axes.
    """

    rgb: Tensor
    depth_m: Tensor
    K: Tensor
    world_from_camera: Tensor


@dataclass(frozen=True)
class SceneBatch:
    """Clips of one size; the fields of `SceneClip` with a leading batch dimension, `batch[i]` is clip i."""

    rgb: Tensor
    depth_m: Tensor
    K: Tensor
    world_from_camera: Tensor

    def __len__(self) -> int:
        """Return the number of clips."""
        return len(self.rgb)

    def __getitem__(self, index: int) -> SceneClip:
        """Return one clip."""
        return SceneClip(self.rgb[index], self.depth_m[index], self.K[index], self.world_from_camera[index])


def make_clips(
    seeds: Sequence[int], frames: int, height: int, width: int, device: str = "cpu", supersample: int = 1
) -> SceneBatch:
    """Make one clip for each seed; a clip depends on its own seed alone.

    Args:
        seeds: One non-negative integer per clip.
        frames: Frames per clip; a longer clip starts with the shorter one's frames.
        height: Image height in pixels.
        width: Image width in pixels; the vertical field of view is the seed's, whatever the width.
        device: Torch device to render on.
        supersample: RGB is averaged over this many rays along each side of a pixel; depth never is.

    Raises:
        ValueError: If `seeds` is empty or a size is not positive.
    """
    if not seeds:
        raise ValueError("seeds: got none; one integer per clip is needed")
    _check_positive(frames=frames, height=height, width=width, supersample=supersample)
    clips = []
    for seed in seeds:
        scene = _build_scene(seed)
        times = np.arange(frames, dtype=np.float64)
        K = _intrinsics(scene.fov_deg, height, width)
        clips.append(_render(scene, times, K, _camera_path(scene, times), height, width, device, supersample))
    return SceneBatch(
        torch.stack([clip.rgb for clip in clips]),
        torch.stack([clip.depth_m for clip in clips]),
        torch.stack([clip.K for clip in clips]),
        torch.stack([clip.world_from_camera for clip in clips]),
    )


def render_view(
    seed: int,
    frame_indices: Sequence[float],
    K: Tensor,
    world_from_camera: Tensor,
    height: int,
    width: int,
    device: str = "cpu",
    supersample: int = 1,
) -> SceneClip:
    """Render the scene of a seed from other cameras: the truth for novel views.

    Args:
        seed: The clip's seed.
        frame_indices: T moments, in frames of the clip; objects stand where they stood then.
        K: `[3, 3]` intrinsics in pixels of the image asked for.
        world_from_camera: `[T, 4, 4]` poses, OpenCV axes.
        height: Image height in pixels.
        width: Image width in pixels.
        device: Torch device to render on.
        supersample: As in `make_clips`.

    Raises:
        ValueError: If shapes disagree or a size is not positive.
    """
    _check_positive(height=height, width=width, supersample=supersample)
    if tuple(world_from_camera.shape) != (len(frame_indices), 4, 4):
        wanted = f"[{len(frame_indices)}, 4, 4], one pose per frame index"
        raise ValueError(f"world_from_camera: got shape {list(world_from_camera.shape)}; expected {wanted}")
    if tuple(K.shape) != (3, 3):
        raise ValueError(f"K: got shape {list(K.shape)}; expected [3, 3]")
    times = np.asarray(frame_indices, dtype=np.float64)
    poses = world_from_camera.detach().cpu().double().numpy()
    return _render(
        _build_scene(seed), times, K.detach().cpu().double().numpy(), poses, height, width, device, supersample
    )


def _check_positive(**sizes: int) -> None:
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name}: got {value}; expected a positive integer")


# ------------------------------------------------------------------------------------------------ scene description


@dataclass
class _Material:
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
        """Flatten to the order of `_COLUMN_WIDTHS`."""
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


_COLUMN_WIDTHS = {
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
class _Primitive:
    shape: int
    center: np.ndarray  # [3]
    half: np.ndarray  # [3] half extents or radii, metres
    rotation: np.ndarray  # [3, 3] world_from_object
    material: int
    thing: int  # the compound it belongs to: parts are removed and moved together
    leaf_m: float = 0.0  # > 0: perforated like foliage, holes of about this size
    emits: bool = False


@dataclass
class _Motion:
    """How a thing moves: to and fro along a line, turning a little."""

    pivot: np.ndarray
    direction: np.ndarray
    travel_m: float
    speed_m: float  # per frame
    phase: float
    sway_rad: float
    sway_rate: float  # radians of phase per frame


@dataclass
class _CameraMotion:
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
class _Scene:
    seed: int
    fov_deg: float
    indoor: bool
    camera: _CameraMotion
    slope: tuple[float, float]
    primitives: list[_Primitive]
    materials: list[_Material]
    motions: dict[int, _Motion]
    path: tuple[float, float, float, float, int] | None  # half width, amplitude, wave number, phase, material
    look: _Look


@dataclass
class _Look:
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


def _rotation(yaw: float, pitch: float = 0.0, roll: float = 0.0) -> np.ndarray:
    """World-from-object rotation; yaw turns right, pitch lifts the forward axis, roll leans to the right."""
    cy, sy, cp, sp, cr, sr = (f(a) for a in (yaw, pitch, roll) for f in (math.cos, math.sin))
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    about_z = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return about_y @ about_x @ about_z


def _intrinsics(fov_deg: float, height: int, width: int) -> np.ndarray:
    focal_px = height / 2 / math.tan(math.radians(fov_deg) / 2)
    return np.array([[focal_px, 0, width / 2], [0, focal_px, height / 2], [0, 0, 1]])


# ------------------------------------------------------------------------------------------------------- materials


def _linear(rgb: Sequence[float]) -> tuple[float, float, float]:
    r, g, b = (min(max(c, 0.0), 1.0) ** 2.2 for c in rgb)
    return (r, g, b)


def _hsv(rng: random.Random, hue: tuple[float, float], sat: tuple[float, float], val: tuple[float, float]):
    return _linear(colorsys.hsv_to_rgb(rng.uniform(*hue) % 1.0, rng.uniform(*sat), rng.uniform(*val)))


def _any_color(rng: random.Random) -> tuple[float, float, float]:
    """Mostly greys, whites and muted tones, as in made things; now and then a saturated one."""
    u = rng.random()
    if u < 0.35:
        return _hsv(rng, (0.02, 0.16), (0.0, 0.15), (0.15, 0.95))
    if u < 0.6:
        return _hsv(rng, (0.02, 0.12), (0.2, 0.6), (0.2, 0.8))
    if u < 0.82:
        return _hsv(rng, (0.0, 1.0), (0.1, 0.45), (0.2, 0.85))
    return _hsv(rng, (0.0, 1.0), (0.55, 0.95), (0.3, 0.9))


# name: hue, saturation and value ranges of the colours, feature size, contrast, fine weight, bump ranges
_NATURAL: dict[str, tuple[tuple[float, float], ...]] = {
    "grass": ((0.17, 0.33), (0.25, 0.65), (0.22, 0.65), (0.3, 2.0), (0.3, 0.8), (0.6, 1.4), (0.1, 0.4)),
    "soil": ((0.04, 0.11), (0.15, 0.5), (0.25, 0.7), (0.3, 2.5), (0.2, 0.7), (0.3, 1.0), (0.05, 0.3)),
    "asphalt": ((0.05, 0.65), (0.0, 0.08), (0.2, 0.55), (0.5, 4.0), (0.1, 0.4), (0.2, 0.8), (0.02, 0.1)),
    "leaves": ((0.15, 0.36), (0.3, 0.7), (0.15, 0.55), (0.2, 0.8), (0.4, 1.0), (0.7, 1.5), (0.4, 0.9)),
    "bark": ((0.03, 0.12), (0.1, 0.45), (0.15, 0.5), (0.1, 0.4), (0.4, 0.9), (0.5, 1.2), (0.2, 0.6)),
    "rock": ((0.03, 0.15), (0.0, 0.2), (0.25, 0.7), (0.3, 1.5), (0.3, 0.8), (0.5, 1.2), (0.3, 0.7)),
    "fur": ((0.02, 0.11), (0.05, 0.55), (0.12, 0.8), (0.15, 0.8), (0.15, 0.7), (0.3, 1.0), (0.1, 0.3)),
    "skin": ((0.02, 0.08), (0.25, 0.6), (0.35, 0.9), (0.1, 0.3), (0.05, 0.15), (0.2, 0.5), (0.02, 0.08)),
    "hill": ((0.15, 0.55), (0.1, 0.4), (0.25, 0.55), (8.0, 30.0), (0.3, 0.7), (0.6, 1.2), (0.1, 0.4)),
}


def _material(rng: random.Random, kind: str) -> _Material:
    """Draw a material of a natural kind, or one of plain, wood, masonry, tiles, facade, stripes, picture, any."""
    if kind == "any":
        kind = rng.choice(("plain", "plain", "wood", "stripes", "picture", "tiles", "masonry", "fur"))
    if kind in _NATURAL:
        hue, sat, val, feature, contrast, fine, bump = _NATURAL[kind]
        center = rng.uniform(*hue)
        near_hue = (max(hue[0], center - 0.05), min(hue[1], center + 0.05))  # two close hues: one material
        colors = _hsv(rng, near_hue, sat, val), _hsv(rng, near_hue, sat, val)
        draws = [rng.uniform(*span) for span in (contrast, fine, bump)]
        size = math.exp(rng.uniform(math.log(feature[0]), math.log(feature[1])))
        stretch = (2.0, 0.4, 2.0) if kind == "bark" else (1.0, 1.0, 1.0)
        return _Material(*colors, size, *draws, stretch=stretch)
    color = _any_color(rng)
    other = tuple(min(1.0, c * rng.uniform(0.5, 1.4)) for c in color)
    base = _Material(color, other, rng.uniform(0.2, 2.0), rng.uniform(0.02, 0.2), rng.uniform(0.2, 1.0), 0.03)  # type: ignore[arg-type]
    base.gloss = rng.uniform(0.0, 0.3) if rng.random() < 0.3 else 0.0
    base.mortar = tuple(c * rng.choice((0.3, 0.6, 1.4)) for c in color)  # type: ignore[assignment]
    if kind == "wood":
        base.color_a = _hsv(rng, (0.05, 0.11), (0.3, 0.65), (0.25, 0.8))
        base.color_b = tuple(c * rng.uniform(0.4, 0.8) for c in base.color_a)  # type: ignore[assignment]
        base.contrast, base.feature_m = rng.uniform(0.15, 0.4), rng.uniform(0.1, 0.3)
        base.stretch = rng.choice(((0.15, 2.0, 2.0), (2.0, 2.0, 0.15)))
        if rng.random() < 0.5:
            base.pattern, base.period_m, base.gap = 1, (rng.uniform(0.08, 0.2), rng.uniform(0.8, 2.0)), (0.05, 0.01)
            base.tone, base.mortar = rng.uniform(0.05, 0.3), tuple(0.4 * c for c in base.color_b)  # type: ignore[assignment]
    elif kind == "masonry":
        base.color_a = _hsv(rng, (0.01, 0.1), (0.05, 0.6), (0.3, 0.8))
        base.color_b = tuple(c * rng.uniform(0.5, 0.9) for c in base.color_a)  # type: ignore[assignment]
        size = rng.uniform(0.15, 0.6)
        base.pattern, base.period_m, base.stagger = 1, (size, size * rng.uniform(0.3, 0.6)), 0.5
        base.gap, base.tone, base.bump = (0.06, 0.12), rng.uniform(0.1, 0.5), 0.15
        base.mortar = _hsv(rng, (0.05, 0.1), (0.0, 0.1), (0.4, 0.8))
    elif kind == "tiles":
        size = rng.uniform(0.1, 0.8)
        base.pattern, base.period_m = (2 if rng.random() < 0.4 else 1), (size, size)
        joint = rng.uniform(0.02, 0.06)
        base.gap, base.tone = (joint, joint), rng.uniform(0.0, 0.25)
    elif kind == "facade":
        base.pattern, base.period_m = 1, (rng.uniform(1.2, 3.5), rng.uniform(2.4, 3.6))
        base.gap, base.tone = (rng.uniform(0.4, 0.7), rng.uniform(0.35, 0.6)), 0.6
        base.mortar = color if rng.random() < 0.5 else _hsv(rng, (0.03, 0.12), (0.05, 0.45), (0.4, 0.9))
        base.color_a, base.color_b = (_hsv(rng, (0.5, 0.65), (0.05, 0.3), (0.1, 0.45)) for _ in range(2))
    elif kind == "stripes":
        base.pattern, base.period_m = 1, (math.exp(rng.uniform(math.log(0.03), math.log(0.5))), 10.0)
        base.gap, base.tone, base.mortar = (rng.uniform(0.1, 0.6), 0.0), rng.uniform(0.0, 0.4), _any_color(rng)
    elif kind == "picture":
        base.color_b, base.contrast = _any_color(rng), rng.uniform(0.4, 1.0)
        base.feature_m = rng.uniform(0.1, 0.5)
    return base


# --------------------------------------------------------------------------------------------------- scene building


class _Builder:
    """Collects primitives; a thing is a group of them that stands on the ground at one place."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.primitives: list[_Primitive] = []
        self.materials: list[_Material] = []
        self.motions: dict[int, _Motion] = {}
        self.slope = (0.0, 0.0)
        self.path: tuple[float, float, float, float, int] | None = None
        self.taken: list[tuple[float, float, float]] = []  # x, z, radius of what stands already
        self.thing = 0
        self.at(0.0, 0.0)

    def mat(self, kind: str, **changes: object) -> int:
        material = _material(self.rng, kind)
        for name, value in changes.items():
            setattr(material, name, value)
        self.materials.append(material)
        return len(self.materials) - 1

    def ground_y(self, x: float, z: float) -> float:
        return self.slope[0] * x + self.slope[1] * z

    def at(self, x: float, z: float, yaw: float = 0.0, base_up: float = 0.0) -> None:
        """Begin a thing whose own origin is on the ground at (x, z), lifted by base_up."""
        self.thing += 1
        self.origin = np.array([x, self.ground_y(x, z) - base_up, z])
        self.yaw = yaw

    def add(
        self,
        shape: int,
        place: tuple[float, float, float],
        size: tuple[float, float, float],
        material: int,
        turn: tuple[float, float, float] = (0.0, 0.0, 0.0),
        leaf_m: float = 0.0,
    ) -> None:
        """Add a part: `place` is (right, up, forward) of its centre in the thing's frame, `size` its full extents."""
        offset = _rotation(self.yaw) @ np.array([place[0], -place[1], place[2]])
        rotation = _rotation(self.yaw) @ _rotation(*turn)
        half = np.maximum(np.array(size) / 2, 0.004)
        emits = self.materials[material].emission > 0
        self.primitives.append(
            _Primitive(shape, self.origin + offset, half, rotation, material, self.thing, leaf_m, emits)
        )

    def plane(self, center: np.ndarray, rotation: np.ndarray, material: int) -> None:
        """Add an infinite plane; its normal is its own y axis."""
        self.thing += 1
        self.primitives.append(_Primitive(PLANE, center, np.ones(3), rotation, material, self.thing))

    def claim(self, x: float, z: float, radius: float) -> bool:
        """Take a disc of ground unless something stands there."""
        if any(math.hypot(x - tx, z - tz) < 0.8 * (radius + tr) for tx, tz, tr in self.taken):
            return False
        self.taken.append((x, z, radius))
        return True

    def move(self, speed_m: float, sway_rad: float) -> None:
        """Let the current thing go to and fro along its forward axis."""
        rng = self.rng
        forward = _rotation(self.yaw) @ np.array([0.0, 0.0, 1.0])
        forward[1] = self.slope[0] * forward[0] + self.slope[1] * forward[2]
        self.motions[self.thing] = _Motion(
            self.origin.copy(),
            forward,
            rng.uniform(0.5, 3.0),
            speed_m * rng.choice((-1, 1)),
            rng.uniform(-0.8, 0.8),
            sway_rad,
            rng.uniform(0.1, 0.5),
        )


def _tree(b: _Builder, x: float, z: float, size: float) -> None:
    rng = b.rng
    b.at(x, z, rng.uniform(0, 6.28))
    height, width = size * rng.uniform(2.5, 7.0), size * rng.uniform(0.12, 0.5)
    lean = (0.0, rng.gauss(0, 0.06), rng.gauss(0, 0.06))
    b.add(CYLINDER, (0, height / 2 - 0.2, 0), (width, height, width), b.mat("bark"), lean)
    leaves = b.mat("leaves")
    conifer = rng.random() < 0.25
    for i in range(rng.randint(1, 3)):
        spread = size * rng.uniform(1.5, 3.5)
        place = (0.0, height * (0.6 + 0.3 * i), 0.0)
        if not conifer:
            place = (rng.gauss(0, 0.25) * spread, height * rng.uniform(0.75, 1.15), rng.gauss(0, 0.25) * spread)
        extent = (spread * (1 - 0.25 * i * conifer), spread * rng.uniform(0.6, 1.2) * (1.5 if conifer else 1), spread)
        b.add(ELLIPSOID, place, extent, leaves, leaf_m=rng.uniform(0.08, 0.2) * spread)


def _trunk(b: _Builder, x: float, z: float, size: float) -> None:
    """A tree whose crown is above the picture, with a root swelling."""
    rng = b.rng
    b.at(x, z, rng.uniform(0, 6.28))
    width, bark = size * rng.uniform(0.12, 0.5), b.mat("bark")
    lean = (0.0, rng.gauss(0, 0.07), rng.gauss(0, 0.07))
    b.add(CYLINDER, (0, 5.8, 0), (width, 12.0, width), bark, lean)
    b.add(ELLIPSOID, (0, 0, 0), (width * 1.7, width * 1.5, width * 1.7), bark)
    if rng.random() < 0.4:
        spread = rng.uniform(1.5, 4.0)
        b.add(ELLIPSOID, (0, rng.uniform(3, 5), 0), (spread, spread, spread), b.mat("leaves"), leaf_m=0.1 * spread)


def _bush(b: _Builder, x: float, z: float, size: float) -> None:
    rng = b.rng
    b.at(x, z, rng.uniform(0, 6.28))
    leaves = b.mat("leaves")
    for _ in range(rng.randint(1, 3)):
        w, h = size * rng.uniform(0.6, 1.6), size * rng.uniform(0.5, 1.3)
        place = (rng.gauss(0, 0.3) * size, 0.3 * h, rng.gauss(0, 0.3) * size)
        b.add(ELLIPSOID, place, (w, h, w), leaves, leaf_m=rng.uniform(0.08, 0.2) * size)


def _rock(b: _Builder, x: float, z: float, size: float) -> None:
    rng = b.rng
    b.at(x, z, rng.uniform(0, 6.28))
    w, h = size * rng.uniform(0.5, 1.5), size * rng.uniform(0.3, 0.9)
    turn = (0.0, rng.gauss(0, 0.15), rng.gauss(0, 0.15))
    b.add(
        rng.choice((ELLIPSOID, ELLIPSOID, BOX)), (0, 0.3 * h, 0), (w, h, w * rng.uniform(0.6, 1.2)), b.mat("rock"), turn
    )


def _log(b: _Builder, x: float, z: float, size: float) -> None:
    rng, width = b.rng, b.rng.uniform(0.15, 0.5) * size
    b.at(x, z, rng.uniform(0, 6.28))
    b.add(CYLINDER, (0, 0.4 * width, 0), (width, rng.uniform(1, 4), width), b.mat("bark"), (0, 0, math.pi / 2))


def _person(b: _Builder, x: float, z: float, size: float) -> None:
    rng = b.rng
    b.at(x, z, rng.uniform(0, 6.28))
    h = rng.uniform(1.45, 1.95)
    top, legs, skin = b.mat(rng.choice(("plain", "plain", "stripes"))), b.mat("plain"), b.mat("skin")
    stride = rng.uniform(0.0, 0.35)
    for side in (-1, 1):
        b.add(
            CYLINDER, (0.09 * side, 0.25 * h, 0.12 * side * stride), (0.15, 0.5 * h, 0.16), legs, (0, side * stride, 0)
        )
        b.add(ELLIPSOID, (0.24 * side, 0.62 * h, 0), (0.11, 0.4 * h, 0.12), top, (0, -side * stride, 0.15 * side))
    b.add(ELLIPSOID, (0, 0.66 * h, 0), (0.42, 0.42 * h, 0.27), top)
    b.add(ELLIPSOID, (0, 0.92 * h, 0), (0.17, 0.15 * h, 0.2), skin)
    b.add(ELLIPSOID, (0, 0.95 * h, -0.02), (0.19, 0.12 * h, 0.2), b.mat("fur"))


def _animal(b: _Builder, x: float, z: float, size: float) -> None:
    """Four legs, a body, a neck, a head: from cat to elephant by its proportions."""
    rng = b.rng
    b.at(x, z, rng.uniform(0, 6.28))
    s = size * rng.uniform(0.5, 1.6)
    fur = b.mat("fur")
    length, girth, leg = s * rng.uniform(0.9, 1.3), s * rng.uniform(0.4, 0.7), s * rng.uniform(0.3, 0.7)
    up = leg + 0.35 * girth
    b.add(ELLIPSOID, (0, up, 0), (girth * 0.9, girth, length), fur, (0, rng.gauss(0, 0.05), 0))
    thick = girth * rng.uniform(0.15, 0.36)
    for side in (-1, 1):
        for end in (-1, 1):
            place = (side * girth * 0.28, up / 2, end * length * 0.32)
            b.add(CYLINDER, place, (thick, up, thick), fur, (0, rng.gauss(0, 0.15), 0))
    head, rise, reach = girth * rng.uniform(0.45, 0.75), rng.uniform(-0.1, 0.6) * girth, length * rng.uniform(0.5, 0.7)
    b.add(ELLIPSOID, (0, up + 0.6 * rise, 0.42 * length), (head * 0.7, head * 0.8, 0.45 * length), fur, (0, rise, 0))
    b.add(ELLIPSOID, (0, up + rise + 0.1 * s, reach), (head * 0.8, head, head * 1.2), fur)
    if rng.random() < 0.5:  # trunk or muzzle, ears
        nose = head * rng.uniform(0.25, 0.4)
        drop = rng.uniform(0.2, 0.8) * up
        b.add(ELLIPSOID, (0, up + rise - drop / 2, reach + 0.55 * head), (nose, drop + head, nose), fur, (0, 0.15, 0))
        for side in (-1, 1):
            place = (side * head * 0.5, up + rise + 0.2 * s, reach - 0.2 * head)
            b.add(ELLIPSOID, place, (0.15 * head, head, head * rng.uniform(0.4, 0.9)), fur, (0.5 * side, 0, 0))
    b.add(CYLINDER, (0, up, -0.52 * length), (0.08 * girth, leg, 0.08 * girth), fur, (0, rng.uniform(-0.6, 0.2), 0))


def _car(b: _Builder, x: float, z: float, size: float) -> None:
    rng = b.rng
    b.at(x, z, rng.choice((0.0, math.pi)) + rng.gauss(0, 0.1))
    paint, glass = (
        b.mat("plain", gloss=0.4, contrast=0.02),
        b.mat("plain", color_a=(0.02,) * 3, color_b=(0.06,) * 3, gloss=0.5),
    )
    rubber = b.mat("plain", color_a=(0.02,) * 3, color_b=(0.04,) * 3)
    length, roof = rng.uniform(3.6, 5.0), rng.uniform(0.45, 0.9)
    b.add(BOX, (0, 0.62, 0), (1.75, 0.65, length), paint)
    b.add(BOX, (0, 0.95 + roof / 2, -0.1 * length), (1.5, roof, length * rng.uniform(0.45, 0.7)), glass)
    b.add(BOX, (0, 0.95 + roof, -0.1 * length), (1.45, 0.06, length * 0.45), paint)
    for side in (-1, 1):
        for end in (-1, 1):
            b.add(CYLINDER, (0.8 * side, 0.32, 0.31 * end * length), (0.64, 0.22, 0.64), rubber, (0, 0, math.pi / 2))


def _house(b: _Builder, x: float, z: float, size: float) -> None:
    rng = b.rng
    b.at(x, z, rng.uniform(-0.6, 0.6))
    w, h, d = rng.uniform(4, 12), rng.uniform(2.5, 8), rng.uniform(4, 10)
    b.add(BOX, (0, h / 2 - 0.5, 0), (w, h + 1, d), b.mat(rng.choice(("facade", "masonry", "plain", "facade"))))
    if rng.random() < 0.6:  # a gable: a cube on its edge, sunk into the walls
        roof = b.mat("tiles", color_a=_hsv(rng, (0.0, 0.1), (0.1, 0.6), (0.2, 0.6)))
        side = w / math.sqrt(2) * 1.04
        b.add(BOX, (0, h, 0), (side, side, d * 1.05), roof, (0, 0, math.pi / 4))


def _fence(b: _Builder, x: float, z: float, size: float) -> None:
    rng = b.rng
    b.at(x, z, rng.gauss(0, 0.5))
    h, length = rng.uniform(0.6, 2.4), rng.uniform(3, 20)
    b.add(
        BOX,
        (0, h / 2, 0),
        (length, h, rng.uniform(0.05, 0.4)),
        b.mat(rng.choice(("stripes", "masonry", "wood", "plain"))),
    )


def _pole(b: _Builder, x: float, z: float, size: float) -> None:
    rng, width = b.rng, b.rng.uniform(0.06, 0.25)
    b.at(x, z)
    h = rng.uniform(2, 8)
    b.add(CYLINDER, (0, h / 2, 0), (width, h, width), b.mat("plain"))
    if rng.random() < 0.6:
        b.add(
            rng.choice((BOX, ELLIPSOID)), (0, h, 0), (rng.uniform(0.3, 0.9), rng.uniform(0.2, 0.7), 0.1), b.mat("any")
        )


def _table(b: _Builder, x: float, z: float, size: float, yaw: float | None = None) -> None:
    rng = b.rng
    b.at(x, z, rng.uniform(0, 6.28) if yaw is None else yaw)
    wood, h = b.mat(rng.choice(("wood", "plain"))), rng.uniform(0.4, 0.85)
    w, d = rng.uniform(0.6, 1.8), rng.uniform(0.5, 1.0)
    if rng.random() < 0.25:
        b.add(CYLINDER, (0, h, 0), (w, 0.04, w), wood)
        b.add(CYLINDER, (0, h / 2, 0), (0.1, h, 0.1), wood)
        d = w
    else:
        b.add(BOX, (0, h, 0), (w, rng.uniform(0.03, 0.08), d), wood)
        for side in (-1, 1):
            for end in (-1, 1):
                b.add(BOX, (side * (w / 2 - 0.06), h / 2, end * (d / 2 - 0.06)), (0.06, h, 0.06), wood)
    _clutter(b, w, d, h + 0.03, rng.randint(1, 4))


def _clutter(b: _Builder, w: float, d: float, up: float, count: int) -> None:
    """Small things standing on a w x d surface of the current thing."""
    rng = b.rng
    for i in range(count):
        px, pz = ((i + rng.uniform(0.2, 0.8)) / count - 0.5) * w * 0.8, rng.uniform(-0.35, 0.35) * d
        h, s = rng.uniform(0.05, 0.35), rng.uniform(0.06, 0.22)
        shape = rng.choice((BOX, CYLINDER, ELLIPSOID))
        extent = (s, s if shape == ELLIPSOID else h, s if shape != BOX else rng.uniform(0.06, 0.3))
        b.add(shape, (px, up + extent[1] / 2, pz), extent, b.mat("any"), (rng.uniform(0, 3), 0, 0))


def _chair(b: _Builder, x: float, z: float, size: float, yaw: float | None = None) -> None:
    rng = b.rng
    b.at(x, z, rng.uniform(0, 6.28) if yaw is None else yaw)
    seat, frame, h, w = (
        b.mat("any"),
        b.mat(rng.choice(("wood", "plain"))),
        rng.uniform(0.4, 0.5),
        rng.uniform(0.38, 0.5),
    )
    b.add(BOX, (0, h, 0), (w, 0.06, w), seat)
    b.add(BOX, (0, h + 0.28, -w / 2), (w, rng.uniform(0.3, 0.55), 0.05), seat, (0, rng.uniform(0, 0.15), 0))
    for side in (-1, 1):
        for end in (-1, 1):
            b.add(BOX, (side * 0.43 * w, h / 2, end * 0.43 * w), (0.04, h, 0.04), frame)


def _sofa(b: _Builder, x: float, z: float, size: float, yaw: float | None = None) -> None:
    rng = b.rng
    b.at(x, z, rng.uniform(0, 6.28) if yaw is None else yaw)
    cloth, w, d = b.mat(rng.choice(("plain", "any"))), rng.uniform(0.8, 2.2), rng.uniform(0.75, 0.95)
    b.add(BOX, (0, 0.22, 0), (w, 0.44, d), cloth)
    b.add(BOX, (0, 0.45, -d / 2 + 0.1), (w, rng.uniform(0.7, 0.95), 0.2), cloth, (0, 0.06, 0))
    for side in (-1, 1):
        b.add(BOX, (side * (w / 2 - 0.08), 0.3, 0), (0.16, 0.62, d), cloth)
    b.add(ELLIPSOID, (rng.uniform(-0.3, 0.3) * w, 0.55, -0.1), (0.45, 0.4, 0.2), b.mat("any"), (0, 0.3, 0))


def _cabinet(b: _Builder, x: float, z: float, size: float, yaw: float | None = None) -> None:
    rng = b.rng
    b.at(x, z, rng.uniform(0, 6.28) if yaw is None else yaw)
    w, h, d = rng.uniform(0.4, 1.8), rng.uniform(0.4, 2.1), rng.uniform(0.25, 0.6)
    if rng.random() < 0.35:  # a shelf of books: narrow cells of different tone
        body = b.mat("stripes", pattern=1, period_m=(0.05, 0.32), gap=(0.1, 0.15), tone=0.9)
    else:
        body = b.mat(rng.choice(("wood", "plain", "tiles")))
    b.add(BOX, (0, h / 2, 0), (w, h, d), body)
    if h < 1.3:
        _clutter(b, w, d, h, rng.randint(0, 3))


def _bed(b: _Builder, x: float, z: float, size: float, yaw: float | None = None) -> None:
    rng = b.rng
    b.at(x, z, rng.uniform(0, 6.28) if yaw is None else yaw)
    w = rng.uniform(0.9, 1.8)
    b.add(BOX, (0, 0.25, 0), (w, 0.5, 2.0), b.mat("any"))
    b.add(BOX, (0, 0.5, -0.98), (w + 0.1, 1.0, 0.06), b.mat("wood"))
    b.add(ELLIPSOID, (0, 0.55, -0.7), (w * 0.7, 0.2, 0.4), b.mat("plain"))


def _lamp(b: _Builder, x: float, z: float, size: float, yaw: float | None = None) -> None:
    rng = b.rng
    b.at(x, z)
    h = rng.uniform(1.2, 1.8)
    b.add(CYLINDER, (0, h / 2, 0), (0.03, h, 0.03), b.mat("plain"))
    b.add(CYLINDER, (0, 0.02, 0), (0.3, 0.04, 0.3), b.mat("plain"))
    b.add(CYLINDER, (0, h, 0), (0.4, 0.3, 0.4), b.mat("plain", emission=rng.choice((0.0, 0.6, 1.2))))


def _plant(b: _Builder, x: float, z: float, size: float, yaw: float | None = None) -> None:
    rng = b.rng
    b.at(x, z)
    w, h = rng.uniform(0.2, 0.45), rng.uniform(0.2, 0.45)
    b.add(CYLINDER, (0, h / 2, 0), (w, h, w), b.mat("plain"))
    s, leaves = rng.uniform(0.4, 1.0), b.mat("leaves", feature_m=0.1)
    b.add(ELLIPSOID, (0, h + 0.45 * s, 0), (s, 1.1 * s, s), leaves, leaf_m=0.15 * s)


def _toy(b: _Builder, x: float, z: float, size: float, yaw: float | None = None) -> None:
    """A ball, crate or drum on the floor."""
    rng, s = b.rng, b.rng.uniform(0.15, 0.8)
    b.at(x, z, rng.uniform(0, 6.28))
    h = s if rng.random() < 0.5 else s * rng.uniform(0.3, 1.5)
    b.add(rng.choice((BOX, CYLINDER, ELLIPSOID)), (0, h / 2, 0), (s, h, s), b.mat("any"))


_Maker = Callable[..., None]


def _wall_things(b: _Builder, w: float, d: float, h: float, count: int) -> None:
    """Pictures, doors, windows and curtains: flat boxes on the walls of a room centred at the origin."""
    rng = b.rng
    for _ in range(count):
        yaw = rng.choice((0, 1, 1, 2, 3)) * math.pi / 2 if d > 2 * w else rng.randrange(4) * math.pi / 2
        along_z = yaw in (0, math.pi)  # the wall faces along z
        run, reach = (w, d / 2) if along_z else (d, w / 2)
        b.at(0, 0, yaw)
        slide, kind = rng.uniform(-0.42, 0.42) * run, rng.random()
        if kind < 0.45:
            size = (rng.uniform(0.3, 1.4), rng.uniform(0.3, 0.9), 0.04)
            b.add(BOX, (slide, rng.uniform(1.3, 1.7), reach - 0.02), size, b.mat("picture"))
        elif kind < 0.7:
            door = b.mat(rng.choice(("plain", "wood")))
            b.add(BOX, (slide, 1.0, reach - 0.02), (rng.uniform(0.75, 1.0), 2.0, 0.08), door)
        elif kind < 0.88:
            size = (rng.uniform(0.7, 1.6), rng.uniform(0.8, 1.5), 0.03)
            glow = b.mat("tiles", emission=rng.uniform(0.8, 3.0), period_m=(0.5, 0.6), pattern=1, gap=(0.08, 0.08))
            b.add(BOX, (slide, 1.45, reach - 0.01), size, glow)
        else:
            b.add(BOX, (slide, h / 2, reach - 0.08), (rng.uniform(0.4, 1.2), h * 0.95, 0.12), b.mat("stripes"))


def _indoor(b: _Builder, camera: _CameraMotion) -> float:
    """A room, a corridor or a tabletop; returns the field of view in degrees."""
    rng = b.rng
    kind = rng.choice(("room", "room", "room", "corridor", "table"))
    w, d, h = rng.uniform(2.8, 8), rng.uniform(3, 9), rng.uniform(2.3, 3.4)
    if kind == "corridor":
        w, d = rng.uniform(1.6, 3.2), rng.uniform(8, 22)
    wall = b.mat(rng.choice(("plain", "plain", "plain", "masonry", "picture", "stripes")))
    if b.materials[wall].pattern == 0:
        b.materials[wall].contrast *= 0.6
    floor = b.mat(rng.choice(("wood", "wood", "tiles", "plain", "soil", "asphalt", "picture")))
    ceiling = b.mat("plain", color_a=_hsv(rng, (0.05, 0.15), (0.0, 0.1), (0.6, 0.95)))
    b.plane(np.zeros(3), np.eye(3), floor)
    b.plane(np.array([0, -h, 0.0]), np.eye(3), ceiling)
    for quarter in range(4):
        yaw = quarter * math.pi / 2
        reach = d / 2 if quarter % 2 == 0 else w / 2
        # Local y must be the wall's normal and local z must run up: patterns then lie level.
        upright = _rotation(yaw) @ np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0.0]])
        other = wall if rng.random() < 0.75 else b.mat("plain")
        b.plane(_rotation(yaw) @ np.array([0, 0, reach]), upright, other)

    margin = 0.55
    camera.position = np.array(
        [rng.uniform(-1, 1) * (w / 2 - margin), rng.uniform(0.5, 1.8), -rng.uniform(0.3, 1.0) * (d / 2 - margin)]
    )
    aim = np.array([rng.uniform(-0.4, 0.4) * w, rng.uniform(0.0, 0.4) * d])
    camera.yaw = math.atan2(aim[0] - camera.position[0], aim[1] - camera.position[2])
    camera.pitch = math.radians(rng.uniform(-22, 6) - (8 if camera.position[1] > 1.4 else 0))
    fov_deg = rng.uniform(35, 75)
    b.taken.append((camera.position[0], camera.position[2], 0.5))
    if kind == "corridor":
        camera.yaw, camera.pitch = rng.gauss(0, 0.15), math.radians(rng.uniform(-12, 4))
    if kind == "table":
        distance = rng.uniform(0.7, 1.3)
        heading = np.array([math.sin(camera.yaw), math.cos(camera.yaw)])
        tx, tz = camera.position[0] + distance * heading[0], camera.position[2] + distance * heading[1]
        camera.position[1] = rng.uniform(1.1, 1.5)
        camera.pitch = -math.atan2(camera.position[1] - 0.75, distance) + rng.uniform(0.0, 0.25)
        b.at(tx, tz, camera.yaw + rng.gauss(0, 0.3))
        top, up, tw, td = (
            b.mat(rng.choice(("wood", "plain", "tiles", "picture"))),
            rng.uniform(0.6, 0.8),
            rng.uniform(0.9, 1.8),
            rng.uniform(0.6, 0.9),
        )
        b.add(BOX, (0, up, 0), (tw, 0.05, td), top)
        b.add(BOX, (0, up / 2, 0), (tw * 0.8, up, td * 0.5), b.mat("wood"))
        _clutter(b, tw, td, up + 0.025, rng.randint(3, 7))
        b.taken.append((tx, tz, 0.8))

    makers: list[_Maker] = [_table, _chair, _chair, _sofa, _cabinet, _cabinet, _bed, _lamp, _plant, _toy, _toy, _person]
    things = rng.randint(2, 7)
    for _ in range(things):
        maker, yaw = rng.choice(makers), None
        for _attempt in range(8):
            if rng.random() < 0.55:  # with its back against a wall
                quarter = rng.randrange(4)
                yaw = quarter * math.pi / 2
                run, reach = (w, d / 2) if quarter % 2 == 0 else (d, w / 2)
                depth = 1.05 if maker is _bed else 0.45
                spot = _rotation(yaw + math.pi) @ np.array([rng.uniform(-0.4, 0.4) * run, 0, reach - depth])
                x, z = float(spot[0]), float(spot[2])
            else:
                yaw = None
                x, z = rng.uniform(-0.5, 0.5) * (w - 1.0), rng.uniform(-0.5, 0.5) * (d - 1.0)
            if b.claim(x, z, 0.75 if maker in (_table, _sofa, _bed) else 0.45):
                maker(b, x, z, 1.0) if maker is _person else maker(b, x, z, 1.0, yaw)
                if maker in (_person, _toy) and rng.random() < 0.6:
                    b.move(rng.uniform(0.01, 0.06), rng.uniform(0.0, 0.4))
                    b.motions[b.thing].travel_m = rng.uniform(0.2, 0.7)
                break
    _wall_things(b, w, d, h, rng.randint(1, 6) + 3 * (kind == "corridor"))
    if rng.random() < 0.4:
        b.at(rng.uniform(-0.2, 0.2) * w, rng.uniform(-0.1, 0.3) * d)
        b.add(BOX, (0, 0.008, 0), (w * 0.5, 0.016, min(d, 4) * 0.5), b.mat(rng.choice(("picture", "stripes", "tiles"))))
    if rng.random() < 0.3:
        b.at(0, rng.uniform(0, 0.3) * d)
        b.add(CYLINDER, (0, h - 0.06, 0), (0.5, 0.1, 0.5), b.mat("plain", emission=1.5))
    travel = rng.uniform(0.2, min(w, d) / 3)
    camera.travel_m, camera.speed_m = travel, rng.uniform(0.0, 0.08)
    camera.limits_m = (w / 2 - margin, d / 2 - margin)
    return fov_deg


def _scatter(b: _Builder, makers: Sequence[_Maker], count: int, half_angle: float, near: float, far: float) -> None:
    """Stand things on the ground ahead of the camera, more of them near than far."""
    rng = b.rng
    for _ in range(count):
        for _attempt in range(6):
            distance = math.exp(rng.uniform(math.log(near), math.log(far)))
            angle = rng.uniform(-half_angle, half_angle)
            x, z = distance * math.sin(angle), distance * math.cos(angle)
            maker = rng.choice(makers)
            radius = {_house: 6.0, _car: 2.3, _tree: 0.9, _fence: 1.5}.get(maker, 0.7)
            if maker is _house and distance < 9 or not b.claim(x, z, radius):
                continue
            maker(b, x, z, rng.uniform(0.6, 1.4))
            mobile = maker in (_person, _animal, _car)
            if mobile and len(b.motions) < 3 and rng.random() < 0.45:
                b.move(rng.uniform(0.02, 0.3 if maker is _car else 0.12), rng.uniform(0.0, 0.3) * (maker is not _car))
            break


def _background(b: _Builder) -> None:
    """What ends the ground before the horizon: hills, a line of trees, far houses; sometimes nothing."""
    rng = b.rng
    if rng.random() < 0.5:
        for _ in range(rng.randint(1, 3)):
            distance, angle = rng.uniform(120, 600), rng.uniform(-0.9, 0.9)
            b.at(distance * math.sin(angle), distance * math.cos(angle), rng.uniform(0, 3))
            size = (
                distance * rng.uniform(0.5, 1.6),
                distance * rng.uniform(0.1, 0.6),
                distance * rng.uniform(0.5, 1.0),
            )
            b.add(ELLIPSOID, (0, 0, 0), size, b.mat("hill"))
    if rng.random() < 0.6:
        leaves, distance = b.mat("leaves", feature_m=3.0), math.exp(rng.uniform(math.log(15), math.log(100)))
        for i in range(rng.randint(3, 6)):
            x = (i / 2 - 1.2 + rng.uniform(-0.2, 0.2)) * distance * 0.7
            b.at(x, distance * rng.uniform(0.85, 1.2))
            w, h = distance * rng.uniform(0.4, 0.9), rng.uniform(4, 14)
            b.add(ELLIPSOID, (0, 0.35 * h, 0), (w, h, 0.3 * w), leaves, leaf_m=0.08 * h)
    if rng.random() < 0.25:
        _scatter(b, [_house], rng.randint(1, 4), 0.7, 25.0, 90.0)


def _outdoor(b: _Builder, camera: _CameraMotion) -> float:
    """A park, a street, a trail in a wood or an enclosure; returns the field of view in degrees."""
    rng = b.rng
    kind = rng.choice(("park", "park", "street", "street", "trail", "trail", "enclosure", "enclosure"))
    steep = {"trail": 0.12, "park": 0.05, "enclosure": 0.03, "street": 0.01}[kind]
    b.slope = (rng.gauss(0, steep), rng.gauss(0, steep))
    fov_deg = rng.uniform(32, 68) if kind != "trail" else rng.uniform(50, 75)
    ground_kind = {"street": "asphalt", "trail": rng.choice(("soil", "grass", "leaves"))}.get(
        kind, rng.choice(("grass", "grass", "soil"))
    )
    normal = np.array([-b.slope[0], 1.0, -b.slope[1]])
    normal /= np.linalg.norm(normal)
    right = np.cross(normal, np.array([0, 0, 1.0]))
    right /= np.linalg.norm(right)
    b.plane(np.zeros(3), np.stack([right, normal, np.cross(right, normal)], axis=1), b.mat(ground_kind))
    camera.position = np.array([rng.uniform(-0.3, 0.3), math.exp(rng.uniform(math.log(0.5), math.log(2.2))), 0.0])
    if rng.random() < 0.12:
        camera.position[1] = rng.uniform(2.5, 6.0)
    camera.pitch = math.radians(rng.uniform(-18, 6) - 3 * max(camera.position[1] - 2, 0))
    camera.yaw = rng.gauss(0, 0.12)
    half_angle = math.radians(fov_deg) * 0.75

    if kind in ("park", "enclosure") and rng.random() < 0.6:
        for _ in range(rng.randint(1, 3)):
            distance, angle, w = rng.uniform(8, 40), rng.uniform(-0.8, 0.8), rng.uniform(5, 25)
            b.at(distance * math.sin(angle), distance * math.cos(angle))
            b.add(
                ELLIPSOID,
                (0, 0, 0),
                (w, rng.uniform(0.05, 0.25) * w, w * rng.uniform(0.6, 1.2)),
                b.primitives[0].material,
            )
    if kind == "park":
        if rng.random() < 0.5:
            path = b.mat(rng.choice(("soil", "asphalt")))
            b.path = (rng.uniform(0.6, 2.0), rng.uniform(0, 3), rng.uniform(0.05, 0.2), rng.uniform(0, 6.28), path)
        _scatter(b, [_animal, _person, _bush, _tree], rng.randint(1, 2), half_angle * 0.6, 2.0, 5.0)
        makers = [_tree, _tree, _tree, _bush, _bush, _rock, _person, _animal, _fence, _pole, _house]
        _scatter(b, makers, rng.randint(4, 9), half_angle, 3.0, 40.0)
    elif kind == "enclosure":
        distance = rng.uniform(6, 22)
        b.at(rng.uniform(-3, 3), distance, rng.gauss(0, 0.25))
        backs = ("masonry", "rock", "plain", "wood", "leaves", "stripes")
        h = rng.uniform(1.0, 5.0)
        b.add(BOX, (0, h / 2 - 0.3, 0), (rng.uniform(12, 50), h + 0.6, rng.uniform(0.4, 3)), b.mat(rng.choice(backs)))
        _scatter(b, [_animal], rng.randint(1, 2), half_angle * 0.5, 2.2, 6.0)
        if len(b.motions) == 0 and rng.random() < 0.5 and b.thing and any(p.thing == b.thing for p in b.primitives):
            b.move(rng.uniform(0.01, 0.06), rng.uniform(0.0, 0.3))
        makers = [_rock, _rock, _log, _trunk, _tree, _bush, _pole, _fence]
        _scatter(b, makers, rng.randint(4, 9), half_angle, 2.0, distance)
    elif kind == "trail":
        path = b.mat(rng.choice(("soil", "soil", "rock")))
        b.path = (rng.uniform(0.3, 1.0), rng.uniform(0, 1.2), rng.uniform(0.1, 0.4), rng.uniform(0, 6.28), path)
        camera.pitch = math.radians(rng.uniform(-18, 0))
        for _ in range(rng.randint(5, 11)):
            z, side = math.exp(rng.uniform(math.log(2), math.log(35))), rng.choice((-1, 1))
            x = side * (1.2 + rng.random() ** 1.5 * z * 0.8)
            if b.claim(x, z, 0.5):
                rng.choice((_trunk, _trunk, _trunk, _tree, _bush, _bush))(b, x, z, rng.uniform(0.6, 1.5))
        _scatter(b, [_rock, _rock, _log, _bush, _person], rng.randint(1, 5), half_angle, 1.5, 15.0)
        if rng.random() < 0.6:  # banks on the sides
            for side in (-1, 1):
                b.at(side * rng.uniform(5, 12), rng.uniform(5, 25))
                b.add(ELLIPSOID, (0, -0.3, 0), (rng.uniform(6, 12), rng.uniform(1, 5), 40), b.primitives[0].material)
    else:
        half_road = rng.uniform(2.5, 7.0)
        walk = b.mat(rng.choice(("tiles", "asphalt", "masonry")))
        b.materials.append(b.materials[b.primitives[0].material])
        b.primitives[0].material = walk  # the plane is the pavement, the road is its path
        b.path = (half_road * 0.6, 0.0, 0.1, 0.0, len(b.materials) - 1)
        for side in (-1, 1):
            z = rng.uniform(-8, 2)
            for _ in range(rng.randint(2, 4)):
                length, h = rng.uniform(5, 16), rng.uniform(2.8, 16)
                b.at(side * (half_road + rng.uniform(0, 1.5) + 4), z + length / 2)
                b.add(
                    BOX,
                    (0, h / 2 - 0.5, 0),
                    (8, h + 1, length),
                    b.mat(rng.choice(("facade", "facade", "masonry", "plain"))),
                )
                z += length + rng.choice((0.0, 0.0, 1.0, 5.0))
        camera.position[0] = rng.uniform(-0.6, 0.6) * half_road
        camera.pitch = math.radians(rng.uniform(-12, 5))
        for _ in range(rng.randint(3, 8)):
            side, z = rng.choice((-1, 1)), math.exp(rng.uniform(math.log(3), math.log(40)))
            maker = rng.choice((_car, _car, _person, _person, _pole, _tree, _animal))
            x = side * half_road * (rng.uniform(0.2, 0.55) if maker is _car else rng.uniform(0.5, 0.95))
            if b.claim(x, z, 2.3 if maker is _car else 0.5):
                maker(b, x, z, rng.uniform(0.6, 1.2) if maker is not _animal else 0.6)
                if maker in (_car, _person, _animal) and len(b.motions) < 3 and rng.random() < 0.35:
                    b.move(rng.uniform(0.02, 0.25 if maker is _car else 0.08), 0.0)
    if kind != "street" or rng.random() < 0.5:
        _background(b)
    camera.travel_m, camera.speed_m = rng.uniform(2.0, 6.0), rng.uniform(0.0, 0.25)
    if kind == "trail":
        camera.speed_m = rng.uniform(0.05, 0.25)
    return fov_deg


def _animate_camera(rng: random.Random, camera: _CameraMotion) -> None:
    """Choose how the camera moves: still, dolly, truck, pan, orbit, hand-held, and mixes of them."""
    camera.roll = rng.gauss(0, 0.03)
    camera.phase = rng.uniform(-0.6, 0.6)
    forward, right = _rotation(camera.yaw)[:, 2], _rotation(camera.yaw)[:, 0]
    mode = rng.choice(("still", "dolly", "dolly", "truck", "mix", "mix", "orbit"))
    weights = {
        "dolly": (1.0, rng.gauss(0, 0.1)),
        "truck": (rng.gauss(0, 0.1), 1.0),
        "mix": (rng.gauss(0, 1), rng.gauss(0, 1)),
    }
    ahead, aside = weights.get(mode, (0.0, 0.0))
    length = math.hypot(ahead, aside) or 1.0
    camera.direction = (ahead * forward + aside * right) / length * rng.choice((-1, 1, 1))
    camera.direction[1] = -rng.gauss(0, 0.1) * (mode != "still")
    if mode in ("mix", "still", "truck") and rng.random() < 0.6:
        camera.pan = (rng.uniform(0.05, 0.4), rng.uniform(0.02, 0.12), rng.uniform(-0.8, 0.8))
    if rng.random() < 0.3:
        camera.tilt = (rng.uniform(0.02, 0.12), rng.uniform(0.02, 0.12), rng.uniform(-0.8, 0.8))
    if mode == "orbit":
        camera.orbit_distance_m = rng.uniform(1.5, 6.0) if math.isinf(camera.limits_m[0]) else rng.uniform(0.8, 2.0)
        rate = camera.speed_m / camera.orbit_distance_m
        amplitude = rng.uniform(0.15, 0.5)
        camera.orbit = (amplitude, rate / amplitude * rng.choice((-1, 1)), rng.uniform(-0.6, 0.6))
    shake = rng.choice((0.0, 0.0, 0.3, 1.0, 1.0, 2.5))
    scales = (0.006, 0.006, 0.004, 0.004, 0.004)  # x, up, z in metres; yaw, pitch in radians... at shake = 1
    camera.jitter = [
        (shake * scale * rng.gauss(0, 1), rng.uniform(0.15, 1.2), rng.uniform(0, 6.28))
        for scale in scales
        for _ in range(3)
    ]


def _draw_look(rng: random.Random, indoor: bool, height_m: float) -> _Look:
    """Draw light, sky, haze and the camera's rendition."""
    azimuth, elevation = rng.uniform(0, 2 * math.pi), math.radians(rng.uniform(20, 75))
    to_light = (
        math.cos(elevation) * math.sin(azimuth),
        -math.sin(elevation),
        math.cos(elevation) * math.cos(azimuth),
    )
    overcast = rng.random() < 0.4
    power = (rng.uniform(0.1, 0.6) if indoor else rng.uniform(0.0, 0.35)) if overcast else rng.uniform(0.6, 2.0)
    warmth = rng.uniform(0.0, 0.25)
    sky_white = rng.uniform(0.0, 0.4) if not overcast else rng.uniform(0.75, 1.0)
    blue, gray = np.array((0.16, 0.33, 0.75)), np.full(3, rng.uniform(0.6, 1.0))
    zenith = (blue * rng.uniform(0.6, 1.2) * (1 - sky_white) + gray * sky_white) * rng.uniform(0.7, 1.5)
    horizon = (0.4 * zenith + 0.6 * np.array((0.85, 0.9, 1.0)) * rng.uniform(0.8, 1.3)) * np.array(
        (1 + warmth, 1, 1 - warmth)
    )
    ambient = rng.uniform(0.25, 0.6)
    up = np.full(3, ambient) if indoor else ambient * (0.6 * zenith / zenith.mean() + 0.4)
    lamp = None
    if indoor and rng.random() < 0.8:
        lamp = (rng.uniform(-1.5, 1.5), -rng.uniform(1.6, height_m), rng.uniform(-1.5, 2.5), rng.uniform(0.3, 1.5))
    balance = np.exp(np.array([rng.gauss(0, 0.1), 0.0, rng.gauss(0, 0.1)]))
    return _Look(
        to_light,
        (power * (1 + 0.6 * warmth), power, power * (1 - 0.8 * warmth)),
        tuple(up),
        tuple(up * rng.uniform(0.3, 0.8)),
        shadows=not overcast or indoor,
        dapple=rng.uniform(0.3, 1.0) if not indoor and rng.random() < 0.25 else 0.0,
        lamp=lamp,
        sky_zenith=tuple(zenith),
        sky_horizon=tuple(horizon),
        cloud=rng.uniform(0.0, 0.9) if rng.random() < 0.7 else 0.0,
        haze_m=math.exp(rng.uniform(math.log(40), math.log(500))) if not indoor and rng.random() < 0.45 else math.inf,
        exposure=math.exp(rng.uniform(math.log(0.10), math.log(0.38))),
        white_balance=tuple(balance),
        gamma=rng.uniform(1.9, 2.5),
        contrast=rng.uniform(0.0, 1.0),
        saturation=rng.uniform(0.5, 1.2),
        vignette=rng.uniform(0.0, 0.5) if rng.random() < 0.4 else 0.0,
        blur=rng.uniform(0.1, 0.8) if rng.random() < 0.4 else 0.0,
        noise=rng.uniform(0.002, 0.03) if rng.random() < 0.7 else 0.0,
    )


@functools.lru_cache(maxsize=64)
def _build_scene(seed: int) -> _Scene:
    """Draw the whole scene of a seed; treat the result as constant."""
    rng = random.Random(seed)
    b = _Builder(rng)
    camera = _CameraMotion(np.zeros(3))
    indoor = rng.random() < 0.5
    fov_deg = (_indoor if indoor else _outdoor)(b, camera)
    _animate_camera(rng, camera)
    if rng.random() < 0.25:  # with the scenes that drew none, about six clips of ten show a still world
        b.motions.clear()
    look = _draw_look(rng, indoor, 2.2)
    scene = _Scene(seed, fov_deg, indoor, camera, b.slope, b.primitives, b.materials, b.motions, b.path, look)
    _clear_the_track(scene)
    return scene


# ----------------------------------------------------------------------------------------------------------- motion


def _wave(amplitude: float, rate: float, phase: float, times: np.ndarray) -> np.ndarray:
    """A swing that starts from zero."""
    return amplitude * (np.sin(rate * times + phase) - math.sin(phase))


def _camera_path(scene: _Scene, times: np.ndarray) -> np.ndarray:
    """Poses `[T, 4, 4]`, world_from_camera, at times in frames."""
    camera = scene.camera
    along = _wave(camera.travel_m, camera.speed_m / camera.travel_m, camera.phase, times)
    position = (
        np.array([camera.position[0], -camera.position[1], camera.position[2]]) + along[:, None] * camera.direction
    )
    turned = _wave(*camera.orbit, times)
    ahead = camera.orbit_distance_m * _rotation(camera.yaw)[:, 2]
    center = position + ahead
    orbiting = np.stack([center[i] - _rotation(turned[i]) @ ahead for i in range(len(times))])
    position = np.where(camera.orbit[0] > 0, orbiting, position)
    limit_x, limit_z = camera.limits_m
    position[:, 0] = np.clip(position[:, 0], -limit_x, limit_x)
    position[:, 2] = np.clip(position[:, 2], -limit_z, limit_z)
    position[:, 1] = np.minimum(position[:, 1], -0.35)
    waves = np.stack([_wave(*wave, times) for wave in camera.jitter])  # [15, T]
    jitter = waves.reshape(5, 3, -1).sum(axis=1)
    position = position + jitter[:3].T
    position[:, 1] += scene.slope[0] * position[:, 0] + scene.slope[1] * position[:, 2]
    yaw = camera.yaw + turned + _wave(*camera.pan, times) + jitter[3]
    pitch = camera.pitch + _wave(*camera.tilt, times) + jitter[4]
    poses = np.tile(np.eye(4), (len(times), 1, 1))
    for i in range(len(times)):
        poses[i, :3, :3] = _rotation(yaw[i], pitch[i], camera.roll + 0.5 * jitter[4][i])
    poses[:, :3, 3] = position
    return poses


def _object_poses(scene: _Scene, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotations `[T, P, 3, 3]` and centres `[T, P, 3]` of all primitives."""
    rotation = np.tile(np.stack([p.rotation for p in scene.primitives]), (len(times), 1, 1, 1))
    center = np.tile(np.stack([p.center for p in scene.primitives]), (len(times), 1, 1))
    for thing, motion in scene.motions.items():
        members = [i for i, p in enumerate(scene.primitives) if p.thing == thing]
        along = _wave(motion.travel_m, motion.speed_m / motion.travel_m, motion.phase, times)
        sway = _wave(motion.sway_rad, motion.sway_rate, 0.0, times)
        for t in range(len(times)):
            turn = _rotation(sway[t])
            moved = motion.pivot + along[t] * motion.direction
            for i in members:
                rotation[t, i] = turn @ scene.primitives[i].rotation
                center[t, i] = moved + turn @ (scene.primitives[i].center - motion.pivot)
    return rotation, center


def _clear_the_track(scene: _Scene) -> None:
    """Remove whatever the camera would touch at any time."""
    position = _camera_path(scene, _TRACK_FRAMES)[:, :3, 3]
    rotation, center = _object_poses(scene, _TRACK_FRAMES)
    local = np.abs(np.einsum("tpji,tpj->tpi", rotation, position[:, None] - center))
    half = np.stack([p.half for p in scene.primitives])
    to_box = np.linalg.norm(np.maximum(local - half, 0.0), axis=-1)
    to_ball = (np.linalg.norm(local / half, axis=-1) - 1.0) * half.min(axis=-1)
    shapes = np.array([p.shape for p in scene.primitives])
    distance = np.where(shapes == ELLIPSOID, np.maximum(to_ball, to_box), to_box).min(axis=0)
    hit = {p.thing for p, d in zip(scene.primitives, distance, strict=True) if p.shape != PLANE and d < _FREE_M}
    scene.primitives = [p for p in scene.primitives if p.thing not in hit]
    left = {p.thing for p in scene.primitives}
    scene.motions = {thing: motion for thing, motion in scene.motions.items() if thing in left}


# -------------------------------------------------------------------------------------------------------- rendering

_Vector = tuple[Tensor, Tensor, Tensor]


@functools.lru_cache(maxsize=4)
def _noise_pyramid(device: str) -> tuple[Tensor, list[int]]:
    """A periodic volume of four independent 1/f noises with unit variance, box-filtered into a pyramid.

    Returns the texels `[V, 4]` of all levels and the offset of each level.
    """
    n = _VOLUME_SIZE
    generator = torch.Generator().manual_seed(20240607)
    spectrum = torch.fft.fftn(torch.randn(4, n, n, n, generator=generator), dim=(1, 2, 3))
    k = torch.fft.fftfreq(n) * n
    radius = torch.sqrt(k[:, None, None] ** 2 + k[None, :, None] ** 2 + k[None, None, :] ** 2)
    lowest = n / _TEXELS_PER_FEATURE
    gain = torch.where(radius > 0, radius.clamp_min(lowest) ** -2.2 * (radius / lowest).clamp_max(1.0) ** 2, 0.0)
    volume = torch.fft.ifftn(spectrum * gain, dim=(1, 2, 3)).real
    volume = volume / volume.std(dim=(1, 2, 3), keepdim=True)
    levels, offsets, offset = [], [], 0
    while volume.shape[-1] >= 2:
        levels.append(volume.permute(1, 2, 3, 0).reshape(-1, 4))
        offsets.append(offset)
        offset += len(levels[-1])
        volume = F.avg_pool3d(volume, 2)
    return torch.cat(levels).contiguous().to(device), offsets


def _noise(point: _Vector, texels_per_pixel: Tensor | None, device: str) -> Tensor:
    """Look up noise `[N, 4]` at points in features, blurred to a footprint so that it does not alias."""
    table, offsets = _noise_pyramid(device)
    if texels_per_pixel is None:
        level = torch.zeros((), dtype=torch.int32, device=device)
    else:
        level = torch.log2(texels_per_pixel.clamp_min(1.0)).round_().clamp_max_(len(offsets) - 1.0).int()
    scale = _TEXELS_PER_FEATURE * torch.exp2(-level.float())
    size = _VOLUME_SIZE >> level
    base = torch.tensor(offsets, dtype=torch.int32, device=device)[level.long()]
    # Wrapped before the cast: far points would overflow int32.
    low, fraction = [], []
    for axis in point:
        x = axis * scale - 0.5
        cell = torch.floor(x)
        fraction.append(x - cell)
        low.append(torch.remainder(cell, size).int())
    high = [torch.where(cell + 1 == size, 0, cell + 1) for cell in low]
    indices, weights = [], []
    for z, wz in ((low[2], 1 - fraction[2]), (high[2], fraction[2])):
        for y, wy in ((low[1], 1 - fraction[1]), (high[1], fraction[1])):
            row, wzy = base + (z * size + y) * size, wz * wy
            for x, wx in ((low[0], 1 - fraction[0]), (high[0], fraction[0])):
                indices.append(row + x)
                weights.append(wzy * wx)
    return F.embedding_bag(
        torch.stack(indices, dim=-1), table, mode="sum", per_sample_weights=torch.stack(weights, dim=-1)
    )


def _hit(shape: int, o: _Vector, d: _Vector) -> tuple[Tensor, Tensor | None]:
    """Intersect rays with a unit shape; inf where they miss. Gives the nearest hit and, for ellipsoids, the second."""
    inf = math.inf
    if shape == PLANE:
        t = -o[1] / d[1]
        return torch.where(t > _NEAR_M, t, inf), None
    if shape == BOX:
        inverse = [1 / axis for axis in d]
        middle = [-a * b for a, b in zip(o, inverse, strict=True)]
        reach = [axis.abs() for axis in inverse]
        enter = torch.maximum(torch.maximum(middle[0] - reach[0], middle[1] - reach[1]), middle[2] - reach[2])
        leave = torch.minimum(torch.minimum(middle[0] + reach[0], middle[1] + reach[1]), middle[2] + reach[2])
        return torch.where((enter < leave) & (enter > _NEAR_M), enter, inf), None
    if shape == ELLIPSOID:
        a = d[0] * d[0] + d[1] * d[1] + d[2] * d[2]
        b = o[0] * d[0] + o[1] * d[1] + o[2] * d[2]
        c = o[0] * o[0] + o[1] * o[1] + o[2] * o[2] - 1
        square = b * b - a * c
        meets = square >= 0
        root = torch.sqrt(square.clamp_min(0.0))  # the root of a negative is some fifty times slower
        first, second = (-b - root) / a, (-b + root) / a
        return torch.where(meets & (first > _NEAR_M), first, inf), torch.where(meets & (second > _NEAR_M), second, inf)
    a = d[0] * d[0] + d[2] * d[2]
    b = o[0] * d[0] + o[2] * d[2]
    c = o[0] * o[0] + o[2] * o[2] - 1
    square = b * b - a * c
    root = torch.sqrt(square.clamp_min(0.0))
    middle, reach = -o[1] / d[1], (1 / d[1]).abs()
    enter = torch.maximum((-b - root) / a, middle - reach)
    leave = torch.minimum((-b + root) / a, middle + reach)
    return torch.where((square >= 0) & (enter < leave) & (enter > _NEAR_M), enter, inf), None


def _through_leaves(primitive: _Primitive, t: Tensor, second: Tensor, o: _Vector, d: _Vector, device: str) -> Tensor:
    """Let rays pass the holes of foliage: to its inner side, or through both."""
    kept = torch.full_like(t, math.inf).reshape(-1)
    flat_o, flat_d = ([axis.expand(t.shape).reshape(-1) for axis in v] for v in (o, d))
    pending = torch.isfinite(t).reshape(-1)
    for candidate in (t.reshape(-1), second.reshape(-1)):
        index = pending.nonzero()[:, 0]
        if not len(index):
            break
        at = candidate[index]
        frequency = (float(h) / primitive.leaf_m / 2 for h in primitive.half)
        x, y, z = ((flat_o[i][index] + at * flat_d[i][index]) * f for i, f in enumerate(frequency))
        solid = _noise((x, y, z), None, device)[:, 0] > -0.35
        kept[index] = torch.where(solid, at, math.inf)
        pending[index] = ~solid
    return kept.reshape(t.shape)


def _screen_rect(
    center: np.ndarray, radius: float, K: np.ndarray, height: int, width: int
) -> tuple[int, int, int, int]:
    """Bound the pixels (top, bottom, left, right) that a ball can cover in any frame; centre `[T, 3]` in the camera."""
    near, far = center[:, 2] - radius, center[:, 2] + radius
    if far.max() <= _NEAR_M:
        return 0, 0, 0, 0
    if near.min() <= 0.05:
        return 0, height, 0, width
    bounds = []
    for axis, limit in ((1, height), (0, width)):
        low, high = center[:, axis] - radius, center[:, axis] + radius
        low_px = np.minimum(low / near, low / far).min() * K[axis, axis] + K[axis, 2]
        high_px = np.maximum(high / near, high / far).max() * K[axis, axis] + K[axis, 2]
        bounds += [int(np.clip(math.floor(low_px) - 1, 0, limit)), int(np.clip(math.ceil(high_px) + 1, 0, limit))]
    return bounds[0], bounds[1], bounds[2], bounds[3]


@dataclass
class _Geometry:
    """A scene at T moments, ready for the device: poses of its primitives, and the rays of one image size."""

    scene: _Scene
    rotation: np.ndarray  # [T, P, 3, 3]
    center: np.ndarray  # [T, P, 3]
    K: np.ndarray
    poses: np.ndarray  # [T, 4, 4]
    height: int
    width: int
    device: str

    def tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).float().to(self.device)

    def pixel_axes(self) -> tuple[Tensor, Tensor]:
        """Ray slopes y `[H, 1]` and x `[W]` at pixel centres."""
        y = (np.arange(self.height) + 0.5 - self.K[1, 2]) / self.K[1, 1]
        x = (np.arange(self.width) + 0.5 - self.K[0, 2]) / self.K[0, 0]
        return self.tensor(y)[:, None], self.tensor(x)


def _trace(g: _Geometry) -> tuple[Tensor, Tensor]:
    """Find the nearest hit of every pixel's ray: depth `[T, H, W]` (inf = none) and primitive index (-1 = none)."""
    frames = len(g.poses)
    depth = torch.full((frames, g.height, g.width), MAX_DEPTH_M, device=g.device)
    owner = torch.full((frames, g.height, g.width), -1, dtype=torch.int32, device=g.device)
    slope_y, slope_x = g.pixel_axes()
    camera_rotation, camera_center = g.poses[:, :3, :3], g.poses[:, :3, 3]
    for index, primitive in enumerate(g.scene.primitives):
        away = g.center[:, index] - camera_center
        top, bottom, left, right = 0, g.height, 0, g.width
        if primitive.shape != PLANE:
            in_camera = np.einsum("tji,tj->ti", camera_rotation, away)
            radius = (
                float(np.linalg.norm(primitive.half)) if primitive.shape != ELLIPSOID else float(primitive.half.max())
            )
            top, bottom, left, right = _screen_rect(in_camera, radius, g.K, g.height, g.width)
            if top >= bottom or left >= right:
                continue
        rotation = g.rotation[:, index].transpose(0, 2, 1)
        to_unit = g.tensor((rotation @ camera_rotation) / primitive.half[:, None])[..., None, None]  # [T, 3, 3, 1, 1]
        origin = g.tensor(-np.einsum("tij,tj->ti", rotation, away) / primitive.half)[..., None, None]
        x, y = slope_x[left:right], slope_y[top:bottom]
        d = tuple(to_unit[:, i, 0] * x + (to_unit[:, i, 1] * y + to_unit[:, i, 2]) for i in range(3))
        o = (origin[:, 0], origin[:, 1], origin[:, 2])
        t, second = _hit(primitive.shape, o, d)  # type: ignore[arg-type]
        if primitive.leaf_m > 0 and second is not None:
            t = _through_leaves(primitive, t, second, o, d, g.device)  # type: ignore[arg-type]
        window = depth[:, top:bottom, left:right]
        nearer = t < window
        window.copy_(torch.where(nearer, t, window))
        owner[:, top:bottom, left:right].masked_fill_(nearer, index)
    return torch.where(owner >= 0, depth, math.inf), owner


@dataclass
class _Surface:
    """The N hit pixels of an image, flattened."""

    index: Tensor  # [N] position in [T * H * W]
    frame: Tensor  # [N]
    primitive: Tensor  # [N]
    depth: Tensor  # [N]
    world: _Vector
    local: _Vector  # object coordinates in metres
    normal: _Vector  # world, towards the camera
    axes: Tensor  # [9, N] world_from_object, row major
    face: Tensor  # [N] object axis that the face looks along
    cosine: Tensor  # [N] between the normal and the ray
    view: _Vector  # [N] from the surface to the camera, unit


def _surface(g: _Geometry, depth: Tensor, owner: Tensor) -> _Surface:
    """Recover points, local coordinates and normals from depth and owner."""
    primitives, pixels = len(g.scene.primitives), g.height * g.width
    index = (owner.reshape(-1) >= 0).nonzero()[:, 0]
    frame = index // pixels
    primitive = owner.reshape(-1)[index].long()
    t = depth.reshape(-1)[index]
    slope_y, slope_x = g.pixel_axes()
    within = index % pixels
    y, x = slope_y[:, 0][within // g.width], slope_x[within % g.width]
    pose = g.tensor(g.poses[:, :3].reshape(-1, 12).T).index_select(1, frame)
    ray = [pose[4 * i] * x + pose[4 * i + 1] * y + pose[4 * i + 2] for i in range(3)]
    away = [t * ray[i] for i in range(3)]  # from the camera: keeps float32 precise where the camera is far out
    world = (pose[3] + away[0], pose[7] + away[1], pose[11] + away[2])
    row = frame * primitives + primitive
    axes = g.tensor(g.rotation.reshape(-1, 9).T).index_select(1, row)
    center = g.tensor(g.center.reshape(-1, 3).T).index_select(1, row)
    offset = [world[i] - center[i] for i in range(3)]
    local = tuple(axes[i] * offset[0] + axes[3 + i] * offset[1] + axes[6 + i] * offset[2] for i in range(3))

    half = g.tensor(np.stack([p.half for p in g.scene.primitives]).T).index_select(1, primitive)
    shape = torch.tensor([p.shape for p in g.scene.primitives], device=g.device)[primitive]
    unit = [local[i] / half[i] for i in range(3)]
    size = [axis.abs() for axis in unit]
    flat = (shape == PLANE) | ((shape == CYLINDER) & (size[1] * size[1] >= unit[0] * unit[0] + unit[2] * unit[2]))
    face_y = flat | ((shape == BOX) & (size[1] >= size[0]) & (size[1] >= size[2]))
    face_x = (shape == BOX) & ~face_y & (size[0] >= size[2])
    face_z = (shape == BOX) & ~face_y & ~face_x
    round_ = ~(face_x | face_y | face_z)
    gradient = [unit[i] / half[i] for i in range(3)]
    gradient[1] = torch.where(shape == CYLINDER, 0.0, gradient[1])
    n = [torch.where(round_, gradient[i], (f * torch.sign(unit[i]))) for i, f in enumerate((face_x, face_y, face_z))]
    n[1] = torch.where(shape == PLANE, 1.0, n[1])
    world_n = [axes[3 * i] * n[0] + axes[3 * i + 1] * n[1] + axes[3 * i + 2] * n[2] for i in range(3)]
    inverse = torch.rsqrt(world_n[0] ** 2 + world_n[1] ** 2 + world_n[2] ** 2 + 1e-20)
    ray_inverse = torch.rsqrt(ray[0] ** 2 + ray[1] ** 2 + ray[2] ** 2)
    view = tuple(-axis * ray_inverse for axis in ray)
    facing = (world_n[0] * view[0] + world_n[1] * view[1] + world_n[2] * view[2]) * inverse
    signed = inverse * torch.where(facing < 0, -1.0, 1.0)
    normal = tuple(axis * signed for axis in world_n)
    # A round side is unrolled about y; a ball takes the axis it faces most.
    side_x = round_ & (n[0].abs() > n[2].abs())
    face = torch.where(face_y, 1, torch.where(face_x | side_x, 0, 2))
    return _Surface(index, frame, primitive, t, world, local, normal, axes, face, facing.abs(), view)  # type: ignore[arg-type]


def _light(g: _Geometry, s: _Surface) -> tuple[Tensor, Tensor]:
    """How much of the sun and of the sky reach every point of a surface: two `[N]` in 0..1."""
    look = g.scene.look
    sun = torch.ones_like(s.depth)
    sky = torch.ones_like(s.depth)
    to_light = look.to_light
    lift = 0.002 * s.depth + 0.005
    start = [s.world[i] + lift * s.normal[i] for i in range(3)]
    toward = s.normal[0] * to_light[0] + s.normal[1] * to_light[1] + s.normal[2] * to_light[2]
    lit = toward > 0
    for index, p in enumerate(g.scene.primitives):
        moving = p.thing in g.scene.motions
        center = g.tensor(g.center[:, index].T)
        c = center.index_select(1, s.frame) if moving else center[:, :1]
        v = [c[i] - start[i] for i in range(3)]
        if p.shape == PLANE:
            if g.scene.indoor:  # corners of a room are dim
                normal = g.rotation[0, index, :, 1]
                distance = (v[0] * normal[0] + v[1] * normal[1] + v[2] * normal[2]).abs()
                corner = 1 - 0.35 * torch.exp(distance * -2.5)
                sky = sky * torch.where(s.primitive == index, 1.0, corner)
            continue
        squared = v[0] * v[0] + v[1] * v[1] + v[2] * v[2]
        bulk = float(np.prod(p.half)) ** (2 / 3)
        above = (s.normal[0] * v[0] + s.normal[1] * v[1] + s.normal[2] * v[2]).clamp_min_(0)
        cover = above * torch.rsqrt(squared) * (bulk / squared.clamp_min(bulk))
        sky = sky * (1 - 0.6 * torch.where(s.primitive == index, 0.0, cover))
        if not look.shadows:
            continue
        along = v[0] * to_light[0] + v[1] * to_light[1] + v[2] * to_light[2]
        radius = float(np.linalg.norm(p.half))
        close = (lit & (squared - along * along < radius * radius) & (along > -radius)).nonzero()[:, 0]
        if not len(close):
            continue
        rotation = g.tensor(g.rotation[:, index].reshape(-1, 9).T)
        r = rotation.index_select(1, s.frame[close]) if moving else rotation[:, :1]
        w = [-axis[close] for axis in v]
        o = tuple((r[i] * w[0] + r[3 + i] * w[1] + r[6 + i] * w[2]) / float(p.half[i]) for i in range(3))
        d = tuple(
            (r[i] * to_light[0] + r[3 + i] * to_light[1] + r[6 + i] * to_light[2]) / float(p.half[i]) for i in range(3)
        )
        t, second = _hit(p.shape, o, d)  # type: ignore[arg-type]
        if p.leaf_m > 0 and second is not None:
            t = _through_leaves(p, t, second, o, d, g.device)  # type: ignore[arg-type]
        sun[close] = sun[close] * torch.isinf(t)
    if look.dapple > 0:  # light through a canopy that is not in the scene
        e = _light_plane(to_light)
        u, w = ((s.world[0] * a[0] + s.world[1] * a[1] + s.world[2] * a[2]) * 0.8 for a in e)
        spots = _noise((u, w, torch.zeros_like(u)), None, g.device)[:, 0]
        sun = sun * (1 - look.dapple * torch.sigmoid(4 * spots))
    return sun, sky


def _light_plane(to_light: tuple[float, float, float]) -> np.ndarray:
    """Two unit vectors `[2, 3]` at right angles to the light."""
    direction = np.array(to_light)
    first = np.cross(direction, (0.3, 0.2, 0.9))
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(direction, first)])


def _pulse(x: Tensor, gap: Tensor, blur: Tensor) -> Tensor:
    """Cover of a periodic cell that leaves a gap, box-filtered to a footprint (all in periods)."""
    phase = x - torch.floor(x)
    inside = torch.minimum(phase, 1 - phase) - gap / 2
    sharp = (inside / blur + 0.5).clamp(0, 1)
    return torch.where(gap > 0, torch.lerp(sharp, 1 - gap, ((blur - 0.3) / 0.4).clamp(0, 1)), 1.0)


def _albedo(g: _Geometry, s: _Surface) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Colour `[3, N]`, emission `[N]`, gloss `[N]` and bump `[3, N]` of a surface."""
    scene = g.scene
    material = torch.tensor([p.material for p in scene.primitives], device=g.device)[s.primitive]
    if scene.path is not None:
        half_width, amplitude, wave, phase, path = scene.path
        x, z = s.local[0], s.local[2]
        winding = x - amplitude * torch.sin(z * wave + phase)
        edge = half_width * (1 + 0.08 * torch.sin(z * 5.1) + 0.05 * torch.sin(z * 13.7 + x))
        material = torch.where((s.primitive == 0) & (winding.abs() < edge), path, material)
    table = g.tensor(np.array([m.row() for m in scene.materials]).T)
    m = _columns(table, material)
    footprint = s.depth / (g.K[1, 1] * s.cosine.clamp_min(0.1).sqrt())  # metres a pixel
    # Each primitive cuts another part of the noise, or all trees would be one tree.
    where = [s.local[i] * m["frequency"][i] + (s.primitive * (7.31, 3.77, 5.13)[i]) for i in range(3)]
    texels = footprint * m["frequency"].amax(dim=0) * _TEXELS_PER_FEATURE
    coarse = _noise((where[0], where[1], where[2]), texels, g.device)
    # The second lookup is turned against the first so that their periods do not show.
    u, v, w = ((a * where[0] + b * where[1] + c * where[2]) * 9.1 for a, b, c in _rotation(0.5, 0.6, 0.7))
    fine = _noise((u, v, w), texels * 9.1, g.device)
    contrast, detail = m["contrast"][0], m["fine"][0]
    mix = (0.5 + contrast * (coarse[:, 0] + detail * fine[:, 0])).clamp(0, 1)
    color = m["color_a"] + (m["color_b"] - m["color_a"]) * mix
    color = color * (1 + 0.5 * contrast * detail * fine[:, 1] + 0.4 * contrast * coarse[:, 1]).clamp(0.15, 2.5)
    bump = m["bump"] * fine.T[1:4]

    patterned = (m["pattern"][0] > 0).nonzero()[:, 0]
    if len(patterned):
        cells = _columns(table, material[patterned])
        color[:, patterned] = _pattern(cells, color.index_select(1, patterned), s, patterned, footprint[patterned])
    return color, m["emission"][0], m["gloss"][0], bump


def _columns(table: Tensor, material: Tensor) -> dict[str, Tensor]:
    """Look up the material of every point: its named columns, each `[width, N]`."""
    parts = table.index_select(1, material).split(list(_COLUMN_WIDTHS.values()))
    return dict(zip(_COLUMN_WIDTHS, parts, strict=True))


def _pattern(m: dict[str, Tensor], color: Tensor, s: _Surface, index: Tensor, footprint: Tensor) -> Tensor:
    """Lay cells in mortar, or a checker, over a colour `[3, N]`."""
    x, y, z = (axis[index] for axis in s.local)
    face = s.face[index]
    period_u, period_v = m["period_m"]
    u = torch.where(face == 0, z, x) / period_u
    v = torch.where(face == 1, z, y) / period_v
    row = torch.floor(v)
    u = u + m["stagger"][0] * torch.remainder(row, 2)
    blur_u, blur_v = (footprint / period_u).clamp(0.01, 1), (footprint / period_v).clamp(0.01, 1)
    cell = torch.sin(torch.floor(u) * 12.9898 + row * 78.233) * 43.7585
    fade = 1 - blur_u.clamp_max(0.5) * 2
    tone = 1 + m["tone"][0] * fade * 2 * (cell - torch.floor(cell) - 0.5)
    cover = _pulse(u, m["gap"][0], blur_u) * _pulse(v, m["gap"][1], blur_v)
    checker = torch.remainder(torch.floor(u) + row, 2) * fade + 0.5 * (1 - fade)
    cover = torch.where(m["pattern"][0] == 2, checker, cover)
    return m["mortar"] * (1 - cover) + color * tone.clamp_min(0.05) * cover


def _sky(g: _Geometry, ray: _Vector) -> Tensor:
    """Sky radiance `[3, N]` along world directions."""
    look = g.scene.look
    inverse = torch.rsqrt(ray[0] ** 2 + ray[1] ** 2 + ray[2] ** 2)
    up = (-ray[1] * inverse).clamp_min(0.0)
    zenith, horizon = (g.tensor(np.array(c))[:, None] for c in (look.sky_zenith, look.sky_horizon))
    color = torch.lerp(horizon, zenith, (up * 2.2).clamp_max(1.0).sqrt())
    if look.cloud > 0:
        spread = inverse / (up + 0.15)
        cloud = _noise((ray[0] * spread * 0.5, ray[2] * spread * 0.5, up), None, g.device)[:, 0]
        cover = torch.sigmoid(2.5 * (cloud + 2 * look.cloud - 1.2)) * look.cloud
        color = torch.lerp(color, horizon.mean() * torch.ones_like(color) * (1.05 - 0.15 * cloud), cover)
    return color


def _shade(g: _Geometry, depth: Tensor, owner: Tensor, lit: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple]:
    """Colour every pixel: radiance `[T, 3, H, W]`, and the maps of sun and sky light `[T, H, W]` behind it."""
    look, frames = g.scene.look, len(g.poses)
    s = _surface(g, depth, owner)
    if lit is None:
        maps = []
        for values in _light(g, s):
            light_map = torch.ones(depth.numel(), device=g.device)
            light_map[s.index] = values
            maps.append(light_map)
        sun, sky = maps[0][s.index], maps[1][s.index]
        lit = (maps[0].reshape(depth.shape), maps[1].reshape(depth.shape))
    else:
        repeat = g.height // lit[0].shape[1]
        sun, sky = (m.repeat_interleave(repeat, 1).repeat_interleave(repeat, 2).reshape(-1)[s.index] for m in lit)
    color, emission, gloss, bump = _albedo(g, s)
    n = [s.normal[i] + bump[i] for i in range(3)]
    inverse = torch.rsqrt(n[0] ** 2 + n[1] ** 2 + n[2] ** 2 + 1e-12)
    n = [axis * inverse for axis in n]
    to_light = look.to_light
    direct = (n[0] * to_light[0] + n[1] * to_light[1] + n[2] * to_light[2]).clamp_min(0.0) * sun
    hemisphere = 0.5 - 0.5 * n[1]
    up, down, sun_color = (g.tensor(np.array(c))[:, None] for c in (look.ambient_up, look.ambient_down, look.sun))
    light = torch.lerp(down, up, hemisphere) * sky + sun_color * direct
    if look.lamp is not None:
        v = [look.lamp[i] - s.world[i] for i in range(3)]
        squared = v[0] ** 2 + v[1] ** 2 + v[2] ** 2
        toward = ((n[0] * v[0] + n[1] * v[1] + n[2] * v[2]) * torch.rsqrt(squared + 1e-6)).clamp_min(0.0)
        light = light + look.lamp[3] * (0.2 + 0.8 * toward) * sky / (1 + 0.4 * squared)
    halfway = [s.view[i] + to_light[i] for i in range(3)]
    along = n[0] * halfway[0] + n[1] * halfway[1] + n[2] * halfway[2]
    size = halfway[0] ** 2 + halfway[1] ** 2 + halfway[2] ** 2
    shine = gloss * (along.clamp_min(0.0) ** 2 / size.clamp_min(1e-6)) ** 16 * sun
    radiance = color * light + sun_color * shine + color * emission
    if math.isfinite(look.haze_m):
        veil = 1 - torch.exp(s.depth / -look.haze_m)
        radiance = torch.lerp(radiance, g.tensor(np.array(look.sky_horizon))[:, None], veil)

    image = torch.empty(3, depth.numel(), device=g.device)
    image[:, s.index] = radiance
    missed = (owner.reshape(-1) < 0).nonzero()[:, 0]
    if len(missed):
        slope_y, slope_x = g.pixel_axes()
        within = missed % (g.height * g.width)
        x, y = slope_x[within % g.width], slope_y[:, 0][within // g.width]
        pose = g.tensor(g.poses[:, :3, :3].reshape(-1, 9).T).index_select(1, missed // (g.height * g.width))
        ray = [pose[3 * i] * x + pose[3 * i + 1] * y + pose[3 * i + 2] for i in range(3)]
        image[:, missed] = _sky(g, (ray[0], ray[1], ray[2]))
    return image.reshape(3, frames, g.height, g.width).permute(1, 0, 2, 3), lit


def _geometry(
    scene: _Scene, times: np.ndarray, K: np.ndarray, poses: np.ndarray, height: int, width: int, device: str
) -> _Geometry:
    return _Geometry(scene, *_object_poses(scene, times), K, poses, height, width, device)


@functools.lru_cache(maxsize=256)
def _exposure_gain(seed: int, device: str) -> float:
    """Expose for the clip's first frame, on a thumbnail, so that size, view and length do not change it."""
    scene, times, height, width = _build_scene(seed), np.zeros(1), 18, 24
    K = _intrinsics(scene.fov_deg, height, width)
    g = _geometry(scene, times, K, _camera_path(scene, times), height, width, device)
    radiance, _ = _shade(g, *_trace(g), None)
    return scene.look.exposure / float(torch.exp(torch.log(radiance.mean(dim=1) + 0.01).mean()))


def _render(
    scene: _Scene,
    times: np.ndarray,
    K: np.ndarray,
    poses: np.ndarray,
    height: int,
    width: int,
    device: str,
    supersample: int,
) -> SceneClip:
    """Trace, light, shade and develop one clip."""
    g = _geometry(scene, times, K, poses, height, width, device)
    depth, owner = _trace(g)
    radiance, lit = _shade(g, depth, owner, None)
    if supersample > 1:
        fine_K = np.diag([supersample, supersample, 1.0]) @ K
        fine = _Geometry(scene, g.rotation, g.center, fine_K, poses, height * supersample, width * supersample, device)
        radiance = F.avg_pool2d(_shade(fine, *_trace(fine), lit)[0], supersample)
    rgb = _develop(radiance * _exposure_gain(scene.seed, device), scene, times)
    return SceneClip(rgb, depth, torch.from_numpy(K.copy()), torch.from_numpy(poses.copy()))


def _develop(radiance: Tensor, scene: _Scene, times: np.ndarray) -> Tensor:
    """Turn linear radiance `[T, 3, H, W]` into a camera's uint8 `[T, H, W, 3]`: lens, colour, tone, noise."""
    look, (_, _, height, width) = scene.look, radiance.shape
    if look.blur > 0:
        side = look.blur / 4
        padded = F.pad(radiance, (1, 1, 1, 1), mode="replicate")
        across = side * (padded[..., :-2] + padded[..., 2:]) + (1 - 2 * side) * padded[..., 1:-1]
        radiance = side * (across[..., :-2, :] + across[..., 2:, :]) + (1 - 2 * side) * across[..., 1:-1, :]
    if look.vignette > 0:
        y, x = (torch.linspace(-1, 1, n, device=radiance.device) for n in (height, width))
        radiance = radiance * (1 - look.vignette * 0.5 * (y[:, None] ** 2 + x**2))
    radiance = radiance * torch.tensor(look.white_balance, dtype=torch.float32, device=radiance.device).view(1, 3, 1, 1)
    gray = radiance.mean(dim=1, keepdim=True)
    radiance = torch.lerp(gray, radiance, look.saturation).clamp_min(0.0)
    toned = radiance * (1 + radiance / 4) / (1 + radiance)  # linear in the shadows, white at 2
    image = toned.clamp(0.0, 1.0) ** (1 / look.gamma)
    image = torch.lerp(image, image * image * (3 - 2 * image), look.contrast)
    if look.noise > 0:
        grain = []
        for time in times:  # keyed by the moment, so that a frame's noise is its own
            generator = torch.Generator().manual_seed(scene.seed * 100_003 + round(float(time)) % 100_003)
            grain.append(torch.randn(3, height, width, generator=generator))
        image = image + look.noise * torch.stack(grain).to(image.device)
    return (image.clamp(0.0, 1.0) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
