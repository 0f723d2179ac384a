"""Where the camera and the moving objects of a scene are at any time."""

from __future__ import annotations

import math

import numpy as np

from depth_train.scenes.procedural.description import (
    ELLIPSOID,
    FREE_M,
    PLANE,
    TRACK_FRAMES,
    Scene,
    rotation_from_angles,
)


def _wave(amplitude: float, rate: float, phase: float, times: np.ndarray) -> np.ndarray:
    """A swing that starts from zero."""
    return amplitude * (np.sin(rate * times + phase) - math.sin(phase))


def camera_path(scene: Scene, times: np.ndarray) -> np.ndarray:
    """Poses `[T, 4, 4]`, world_from_camera, at times in frames."""
    camera = scene.camera
    along = _wave(camera.travel_m, camera.speed_m / camera.travel_m, camera.phase, times)
    position = (
        np.array([camera.position[0], -camera.position[1], camera.position[2]]) + along[:, None] * camera.direction
    )
    turned = _wave(*camera.orbit, times)
    ahead = camera.orbit_distance_m * rotation_from_angles(camera.yaw)[:, 2]
    center = position + ahead
    orbiting = np.stack([center[i] - rotation_from_angles(turned[i]) @ ahead for i in range(len(times))])
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
        poses[i, :3, :3] = rotation_from_angles(yaw[i], pitch[i], camera.roll + 0.5 * jitter[4][i])
    poses[:, :3, 3] = position
    return poses


def object_poses(scene: Scene, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotations `[T, P, 3, 3]` and centres `[T, P, 3]` of all primitives."""
    rotation = np.tile(np.stack([p.rotation for p in scene.primitives]), (len(times), 1, 1, 1))
    center = np.tile(np.stack([p.center for p in scene.primitives]), (len(times), 1, 1))
    for thing, motion in scene.motions.items():
        members = [i for i, p in enumerate(scene.primitives) if p.thing == thing]
        along = _wave(motion.travel_m, motion.speed_m / motion.travel_m, motion.phase, times)
        sway = _wave(motion.sway_rad, motion.sway_rate, 0.0, times)
        for t in range(len(times)):
            turn = rotation_from_angles(sway[t])
            moved = motion.pivot + along[t] * motion.direction
            for i in members:
                rotation[t, i] = turn @ scene.primitives[i].rotation
                center[t, i] = moved + turn @ (scene.primitives[i].center - motion.pivot)
    return rotation, center


def clear_the_track(scene: Scene) -> None:
    """Remove whatever the camera would touch at any time."""
    position = camera_path(scene, TRACK_FRAMES)[:, :3, 3]
    rotation, center = object_poses(scene, TRACK_FRAMES)
    local = np.abs(np.einsum("tpji,tpj->tpi", rotation, position[:, None] - center))
    half = np.stack([p.half for p in scene.primitives])
    to_box = np.linalg.norm(np.maximum(local - half, 0.0), axis=-1)
    to_ball = (np.linalg.norm(local / half, axis=-1) - 1.0) * half.min(axis=-1)
    shapes = np.array([p.shape for p in scene.primitives])
    distance = np.where(shapes == ELLIPSOID, np.maximum(to_ball, to_box), to_box).min(axis=0)
    hit = {p.thing for p, d in zip(scene.primitives, distance, strict=True) if p.shape != PLANE and d < FREE_M}
    scene.primitives = [p for p in scene.primitives if p.thing not in hit]
    left = {p.thing for p in scene.primitives}
    scene.motions = {thing: motion for thing, motion in scene.motions.items() if thing in left}
