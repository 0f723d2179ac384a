"""Scenes for other programs: COLMAP's text model, and glTF, which Blender and most 3D programs import as it is."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from depth_engine.geometry.cameras import Camera, opengl_from_opencv

_FLOAT, _BYTE = 5126, 5121  # numbers of an accessor
_POINTS = 0  # how a primitive is drawn
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


def write_gltf(
    path: Path, cameras: Sequence[Camera], times_s: Sequence[float], points: np.ndarray, colors: np.ndarray
) -> None:
    """Write a cloud of points and one camera that moves as the clip's did, as a `.gltf` file that holds all it needs.

    Args:
        path: Where to.
        cameras: In order, all of one K and size, in a world with y up.
        times_s: When each is.
        points: `[N, 3]`, in the same world.
        colors: uint8 `[N, 3]`, sRGB.
    """
    poses = opengl_from_opencv(np.stack([camera.world_from_camera for camera in cameras]))
    turns = _continuous(quaternions(poses[:, :3, :3]))
    blocks = _Blocks()
    times = blocks.add(np.asarray(times_s, "<f4"), "SCALAR", bounds=True)
    moves = blocks.add(poses[:, :3, 3].astype("<f4"), "VEC3")
    rotations = blocks.add(turns.astype("<f4"), "VEC4")
    first = cameras[0]
    half_width, half_height = first.width / 2 / first.K[0, 0], first.height / 2 / first.K[1, 1]
    lens = {
        "yfov": float(2 * np.arctan(half_height)),
        "aspectRatio": float(half_width / half_height),
        "znear": _NEAR_M,
        "zfar": _FAR_M,
    }
    samplers = [{"input": times, "output": output, "interpolation": "LINEAR"} for output in (moves, rotations)]
    channels = [
        {"sampler": number, "target": {"node": 0, "path": name}}
        for number, name in enumerate(("translation", "rotation"))
    ]
    nodes: list[dict[str, Any]] = [
        {"name": "clip camera", "camera": 0, "translation": poses[0, :3, 3].tolist(), "rotation": turns[0].tolist()}
    ]
    content: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "depth-engine novel-view"},
        "scene": 0,
        "nodes": nodes,
        "cameras": [{"type": "perspective", "perspective": lens}],
        "animations": [{"name": "clip camera", "samplers": samplers, "channels": channels}],
    }
    if len(points):
        opaque = np.column_stack([colors, np.full(len(colors), 255, np.uint8)])  # rows of four bytes, as glTF wants
        cloud = {
            "POSITION": blocks.add(np.asarray(points, "<f4"), "VEC3", bounds=True),
            "COLOR_0": blocks.add(opaque, "VEC4"),
        }
        content["meshes"] = [{"name": "points", "primitives": [{"attributes": cloud, "mode": _POINTS}]}]
        nodes.append({"name": "points", "mesh": 0})
    content["scenes"] = [{"nodes": list(range(len(nodes)))}]
    path.write_text(json.dumps({**content, **blocks.content()}) + "\n")


class _Blocks:
    """The numbers of a glTF file, one after the other in one buffer."""

    def __init__(self) -> None:
        self._data: list[bytes] = []
        self._views: list[dict[str, int]] = []
        self._accessors: list[dict[str, Any]] = []
        self._size = 0

    def add(self, values: np.ndarray, kind: str, *, bounds: bool = False) -> int:
        """The number of the accessor of these values; bytes are taken for shares of 255."""
        held = values.tobytes()
        accessor: dict[str, Any] = {"bufferView": len(self._views), "count": len(values), "type": kind}
        accessor["componentType"] = _BYTE if values.dtype == np.uint8 else _FLOAT
        if values.dtype == np.uint8:
            accessor["normalized"] = True
        if bounds:
            accessor |= {"min": np.atleast_1d(values.min(0)).tolist(), "max": np.atleast_1d(values.max(0)).tolist()}
        self._views.append({"buffer": 0, "byteOffset": self._size, "byteLength": len(held)})
        self._accessors.append(accessor)
        self._data.append(held)
        self._size += len(held)
        return len(self._accessors) - 1

    def content(self) -> dict[str, Any]:
        """Buffer, views and accessors."""
        data = base64.b64encode(b"".join(self._data)).decode()
        buffer = {"byteLength": self._size, "uri": f"data:application/octet-stream;base64,{data}"}
        return {"buffers": [buffer], "bufferViews": self._views, "accessors": self._accessors}


def _continuous(turns: np.ndarray) -> np.ndarray:
    """Quaternions with signs such that each is near the one before: q and -q are the same turn."""
    signs = np.where((turns[1:] * turns[:-1]).sum(axis=1) < 0, -1.0, 1.0)
    return turns * np.cumprod([1.0, *signs])[:, None]
