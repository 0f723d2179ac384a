"""Cameras for other programs: COLMAP's text model, and glTF, which Blender and most 3D programs import as it is."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from depth_engine.geometry.cameras import Camera, opengl_from_opencv

# glTF's world has y up, ours y down: half a turn about x.
_GLTF_FROM_WORLD = np.diag([1.0, -1.0, -1.0, 1.0])
_FLOAT = 5126
_NEAR_M, _FAR_M = 0.01, 1000.0


def quaternions(rotations: np.ndarray) -> np.ndarray:
    """Unit quaternions `[N, 4]` x, y, z, w with w >= 0 of rotations `[N, 3, 3]`."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(rotations).as_quat(canonical=True)


def write_colmap(
    folder: Path, cameras: Sequence[Camera], names: Sequence[str], points: np.ndarray, colors: np.ndarray
) -> None:
    """Write `cameras.txt`, `images.txt` and `points3D.txt`; the points come without their tracks.

    Args:
        folder: Where to; it is made.
        cameras: One to a picture, all of one K and size.
        names: Of the pictures.
        points: `[M, 3]`.
        colors: uint8 `[M, 3]`.
    """
    folder.mkdir(parents=True)
    K, first = cameras[0].K, cameras[0]
    lens = " ".join(f"{number:.17g}" for number in (K[0, 0], K[1, 1], K[0, 2], K[1, 2]))
    (folder / "cameras.txt").write_text(f"1 PINHOLE {first.width} {first.height} {lens}\n")
    lines = []
    poses = np.linalg.inv(np.stack([camera.world_from_camera for camera in cameras]))
    turns = np.roll(quaternions(poses[:, :3, :3]), 1, axis=1)  # w first
    for number, (pose, turn, name) in enumerate(zip(poses, turns, names, strict=True), 1):
        numbers = " ".join(f"{value:.17g}" for value in [*turn, *pose[:3, 3]])
        lines += [f"{number} {numbers} 1 {name}", ""]  # the empty line: points seen in the picture
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    rows = [
        f"{number} {x:.9g} {y:.9g} {z:.9g} {r} {g} {b} 0"
        for number, ((x, y, z), (r, g, b)) in enumerate(zip(points, colors, strict=True), 1)
    ]
    (folder / "points3D.txt").write_text("\n".join(rows) + "\n")


def write_gltf(path: Path, cameras: Sequence[Camera], times_s: Sequence[float]) -> None:
    """Write one camera that moves as the clip's did, as a `.gltf` file that holds all it needs.

    Args:
        path: Where to.
        cameras: In order, all of one K and size.
        times_s: When each is.
    """
    poses = [_GLTF_FROM_WORLD @ opengl_from_opencv(camera.world_from_camera) for camera in cameras]
    turns = _continuous(quaternions(np.stack([pose[:3, :3] for pose in poses])))
    times = np.asarray(times_s, "<f4")
    blocks = [times, np.stack([pose[:3, 3] for pose in poses]).astype("<f4"), turns.astype("<f4")]
    views, accessors, offset = [], [], 0
    for number, (block, shape) in enumerate(zip(blocks, ("SCALAR", "VEC3", "VEC4"), strict=True)):
        views.append({"buffer": 0, "byteOffset": offset, "byteLength": block.nbytes})
        accessors.append({"bufferView": number, "componentType": _FLOAT, "count": len(block), "type": shape})
        offset += block.nbytes
    accessors[0] |= {"min": [float(times.min())], "max": [float(times.max())]}
    data = base64.b64encode(b"".join(block.tobytes() for block in blocks)).decode()
    channels = [
        {"sampler": number, "target": {"node": 0, "path": name}}
        for number, name in enumerate(("translation", "rotation"))
    ]
    first = cameras[0]
    content: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "depth-engine novel-view"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [
            {"name": "clip camera", "camera": 0, "translation": blocks[1][0].tolist(), "rotation": turns[0].tolist()}
        ],
        "cameras": [
            {
                "type": "perspective",
                "perspective": {
                    "yfov": float(2 * np.arctan(first.height / 2 / first.K[1, 1])),
                    "aspectRatio": first.width / first.height,
                    "znear": _NEAR_M,
                    "zfar": _FAR_M,
                },
            }
        ],
        "animations": [
            {
                "name": "clip camera",
                "samplers": [{"input": 0, "output": output, "interpolation": "LINEAR"} for output in (1, 2)],
                "channels": channels,
            }
        ],
        "buffers": [{"byteLength": offset, "uri": f"data:application/octet-stream;base64,{data}"}],
        "bufferViews": views,
        "accessors": accessors,
    }
    path.write_text(json.dumps(content) + "\n")


def _continuous(turns: np.ndarray) -> np.ndarray:
    """Quaternions with signs such that each is near the one before: q and -q are the same turn."""
    signs = np.where((turns[1:] * turns[:-1]).sum(axis=1) < 0, -1.0, 1.0)
    return turns * np.cumprod([1.0, *signs])[:, None]
