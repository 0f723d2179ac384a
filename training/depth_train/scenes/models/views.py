"""Cameras in a place: where they stand, how they move, how wide they see, what shape their picture has."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from depth_train.scenes.models.builder import Place, Stand
from depth_train.scenes.models.shapes import turn_y
from depth_train.scenes.models.tracing import World

# Pictures of one area in shapes from a phone held upright to a very wide film: height, width in pixels.
SIZES = ((280, 160), (248, 184), (208, 208), (184, 248), (184, 248), (168, 288), (168, 288), (136, 320), (112, 416))
# The longer side's field of view in degrees: mostly usual lenses, some long and some very wide.
_FOV_DEG = (20.0, 110.0)
_TRIES = 30


@dataclass(frozen=True)
class View:
    """A camera over time.

    Attributes:
        K: `[3, 3]`, pixels, centres at +0.5.
        world_from_camera: `[T, 4, 4]`, OpenCV axes.
        size: Height and width in pixels.
        motion: Its name.
    """

    K: np.ndarray
    world_from_camera: np.ndarray
    size: tuple[int, int]
    motion: str


def choose_view(place: Place, world: World, frames: int, rng: np.random.Generator) -> View | None:
    """A camera that stands free all the time and sees something, or None after too many tries."""
    size = SIZES[int(rng.integers(len(SIZES)))]
    wide = float(np.clip(rng.normal(62, 18) if rng.random() < 0.8 else rng.uniform(*_FOV_DEG), *_FOV_DEG))
    focal = max(size) / 2 / math.tan(math.radians(wide) / 2)
    if max(size) / min(size) > 2.5:  # or the short side would look through a slit
        focal = min(focal, min(size) / 2 / math.tan(math.radians(16) / 2))
    K = np.array([[focal, 0, size[1] / 2], [0, focal, size[0] / 2], [0, 0, 1.0]])
    best, best_interest = None, -1.0
    wanted = 1 if rng.random() < 0.2 else 4  # a dull view now and then: white walls are part of the world
    for _ in range(_TRIES):
        stand = place.stands[int(rng.integers(len(place.stands)))]
        motion = stand.motions[int(rng.integers(len(stand.motions)))]
        poses = _track(stand, motion, frames, rng)
        interest = min(_interest(world, K, poses[i], size, place, i) for i in sorted({0, frames // 2, frames - 1}))
        if interest >= 0:
            wanted -= 1
            if interest > best_interest:
                best, best_interest = View(K, poses, size, motion), interest
            if wanted == 0:
                break
    return best


def _interest(world: World, K: np.ndarray, pose: np.ndarray, size: tuple[int, int], place: Place, time: int) -> float:
    """How many different surfaces are seen; -1 where the lens is blocked, or all is sky or one bare wall."""
    if place.movers:
        world.place([mover.pose(time) for mover in place.movers])
    y, x = np.meshgrid(np.linspace(0, size[0], 9), np.linspace(0, size[1], 12), indexing="ij")
    local = np.stack([(x.ravel() - K[0, 2]) / K[0, 0], (y.ravel() - K[1, 2]) / K[1, 1], np.ones(x.size)], axis=1)
    along = (local @ pose[:3, :3].T).astype(np.float32)
    origin = np.broadcast_to(pose[:3, 3].astype(np.float32), along.shape).copy()
    hits = world.cast(origin, along)
    depth = hits.distance
    seen = depth[np.isfinite(depth)]
    if len(seen) < 0.2 * len(depth) or seen.min() < 0.12:
        return -1.0
    low, high = np.percentile(1 / seen, [5, 95])
    if high < 1.25 * low or float(np.median(seen)) < 0.25:
        return -1.0
    return float(len(np.unique(world.surface[hits.primitive[hits.primitive >= 0]])))


def _track(stand: Stand, motion: str, frames: int, rng: np.random.Generator) -> np.ndarray:
    """Poses `[T, 4, 4]` of a motion."""
    start = np.array([rng.uniform(*stand.x), -rng.uniform(*stand.height), rng.uniform(*stand.z)])
    if stand.targets is not None:
        target = stand.targets[int(rng.integers(len(stand.targets)))] + rng.normal(0, 0.1, 3)
        toward = target - start
        yaw = math.atan2(toward[0], toward[2])
        pitch = -math.atan2(toward[1], math.hypot(toward[0], toward[2]))
    else:
        yaw = stand.yaw[0] + (rng.uniform(-math.pi, math.pi) if stand.yaw[1] >= 10 else rng.normal(0, stand.yaw[1]))
        pitch = rng.normal(*stand.pitch)
        target = start + 3.0 * np.array([math.sin(yaw), 0, math.cos(yaw)])
    roll = rng.normal(0, 0.04) if rng.random() < 0.9 else rng.normal(0, 0.35)
    sign = 1 if rng.random() < 0.5 else -1
    time = np.arange(frames, dtype=np.float64)
    position, yaws = np.repeat(start[None], frames, axis=0), np.full(frames, yaw)
    pitches, rolls = np.full(frames, pitch), np.full(frames, roll)
    forward, aside = np.array([math.sin(yaw), 0, math.cos(yaw)]), np.array([math.cos(yaw), 0, -math.sin(yaw)])
    shake = 0.0
    if motion == "drive":
        position = position + time[:, None] * forward * rng.uniform(0.1, 0.7)
        yaws = yaws + time * rng.normal(0, 0.006)
        shake = 0.004
    elif motion == "walk":
        position = position + time[:, None] * forward * rng.uniform(0.015, 0.06) * (sign if rng.random() < 0.3 else 1)
        bob = np.sin(time * 0.5 + rng.uniform(0, 6.3))
        position[:, 1] += 0.02 * bob
        rolls = rolls + 0.008 * bob
        shake = 0.01
    elif motion == "pan":
        yaws = yaws + sign * time * rng.uniform(0.005, 0.05)
        pitches = pitches + time * rng.normal(0, 0.004)
    elif motion == "orbit":
        angle = sign * time * rng.uniform(0.01, 0.05)
        offset = start - target
        turned = np.stack([turn_y(a) @ (offset * [1, 0, 1]) for a in angle])
        position = target * [1, 0, 1] + turned + start * [0, 1, 0]
        yaws = yaws + angle
        shake = 0.004
    elif motion in ("crane", "drone"):
        speed = rng.uniform(0.01, 0.05) * (1 if motion == "crane" else 6)
        position[:, 1] += sign * time * speed * 0.6
        position = position + time[:, None] * (forward * rng.uniform(0, 1) + aside * rng.normal(0, 0.4)) * speed
        pitches = pitches + sign * time * 0.006
    elif motion == "hand":
        position = position + time[:, None] * (aside * rng.normal(0, 0.02) + forward * rng.normal(0, 0.015))
        yaws = yaws + time * rng.normal(0, 0.01)
        shake = 0.012
    for values in (yaws, pitches, rolls):
        values += shake * _wobble(rng, time)
    position = position + shake * np.stack([_wobble(rng, time) for _ in range(3)], axis=1)
    poses = np.tile(np.eye(4), (frames, 1, 1))
    for i in range(frames):
        poses[i, :3, :3] = turn_y(yaws[i]) @ _turn_x(pitches[i]) @ _turn_z(rolls[i])
    poses[:, :3, 3] = position
    return poses


def _wobble(rng: np.random.Generator, time: np.ndarray) -> np.ndarray:
    """A hand's unrest: three slow waves that begin at 0."""
    total = np.zeros_like(time)
    for rate in (0.11, 0.27, 0.61):
        phase = rng.uniform(0, 2 * math.pi)
        total += np.sin(rate * rng.uniform(0.7, 1.4) * time + phase) - math.sin(phase)
    return total


def _turn_x(pitch: float) -> np.ndarray:
    c, s = math.cos(pitch), math.sin(pitch)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _turn_z(roll: float) -> np.ndarray:
    c, s = math.cos(roll), math.sin(roll)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
