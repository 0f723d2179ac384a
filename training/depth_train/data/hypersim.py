"""Hypersim (apple/ml-hypersim): photorealistic interiors, 1024x768, HDF5 files, distances to the camera centre."""

from __future__ import annotations

import csv
import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from depth_train.data.datasets import OPENCV_FROM_OPENGL, DatasetReader, FrameSequence, LoadedFrame, expect, pinhole

_FOCAL_PX = 886.81  # of the standard camera at 1024 pixels of width
_STANDARD_WIDTH = 1024
_GAMMA = 1 / 2.2
_BRIGHT_PERCENTILE, _BRIGHT_VALUE = 90, 0.8  # after tone-mapping


class Hypersim(DatasetReader):
    """`ai_VVV_NNN/{images/scene_cam_XX_{final,geometry}_hdf5,_detail/cam_XX}`, with the two metadata tables if there.

    `metadata_images_split_scene_v1.csv` in the root gives the splits and the frames that were released;
    `metadata_camera_parameters.csv` gives cameras that are not the standard one. Scenes with a skewed camera are left
    out, as CUT3R's reader does.
    """

    name = "hypersim"
    licence = "CC BY-SA 3.0"
    splits = ("all", "train", "val", "test")

    def sequences(self, root: Path, split: str) -> list[FrameSequence]:
        """List camera paths with the frames that are whole: colour, distance and entities."""
        _h5py()
        released = _read_splits(root / "metadata_images_split_scene_v1.csv")
        if released is None and split != "all":
            raise ValueError(f"hypersim: split {split} needs metadata_images_split_scene_v1.csv in {root}; found none")
        cameras = _read_cameras(root / "metadata_camera_parameters.csv")
        found = []
        for geometry in sorted(root.glob("ai_*/images/scene_cam_*_geometry_hdf5")):
            scene, camera = geometry.parents[1], geometry.name.removeprefix("scene_").removesuffix("_geometry_hdf5")
            projection = cameras.get(scene.name)
            if projection is not None and abs(projection[0, 1]) > 1e-6:
                continue
            final = geometry.with_name(f"scene_{camera}_final_hdf5")
            detail = scene / "_detail" / camera
            frames, numbers = [], []
            for depth in sorted(geometry.glob("frame.*.depth_meters.hdf5")):
                number = int(depth.name.split(".")[1])
                color = final / f"frame.{number:04d}.color.hdf5"
                entities = geometry / f"frame.{number:04d}.render_entity_id.hdf5"
                wanted = released is None or released.get((scene.name, camera, number)) in (
                    ("train", "val", "test") if split == "all" else (split,)
                )
                if wanted and color.is_file() and entities.is_file():
                    frames.append((number, color, depth, entities, detail, projection))
                    numbers.append(number)
            if frames:
                found.append(FrameSequence(f"{scene.name}/{camera}", tuple(frames), tuple(numbers)))
        expect(self, found, "ai_VVV_NNN/images/scene_cam_XX_{final,geometry}_hdf5/frame.*.hdf5", root)
        return found

    def load(self, sequence: FrameSequence, index: int) -> LoadedFrame:
        """Read a frame: tone-mapped colour, planar depth, camera."""
        number, color_path, distance_path, entity_path, detail, projection = sequence.frames[index]
        known = _read(entity_path) != -1
        distance_m = _read(distance_path).astype(np.float32)
        height, width = distance_m.shape
        K = _intrinsics(projection, height, width)
        valid = known & np.isfinite(distance_m) & (distance_m > 0)
        orientations, positions_m = _camera_path(detail)
        if number >= min(len(orientations), len(positions_m)):
            held = min(len(orientations), len(positions_m))
            raise ValueError(f"hypersim: {detail}: {held} key frames of the camera; the scene has a frame {number}")
        pose = np.eye(4)
        pose[:3, :3] = orientations[number]
        pose[:3, 3] = positions_m[number]
        return LoadedFrame(
            tone_map(_read(color_path).astype(np.float32), known),
            planar_depth(distance_m, K),
            valid,
            K,
            pose @ OPENCV_FROM_OPENGL,
        )


def planar_depth(distance_m: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Depth along the optical axis from the distance to the camera centre.

    z = distance / |ray|, where a pixel's ray has z = 1.

    Args:
        distance_m: `[H, W]`.
        K: `[3, 3]`, pixel centres at +0.5.
    """
    height, width = distance_m.shape
    x = (np.arange(width) + 0.5 - K[0, 2]) / K[0, 0]
    y = (np.arange(height) + 0.5 - K[1, 2]) / K[1, 1]
    return (distance_m / np.sqrt(1 + x**2 + y[:, None] ** 2)).astype(np.float32)


def tone_map(radiance: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Hypersim's preview tone curve: the 90th percentile of brightness becomes 0.8, with a gamma of 1 / 2.2.

    Args:
        radiance: `[H, W, 3]`, linear.
        known: `[H, W]`: pixels that show something; the others do not count.

    Returns:
        uint8 `[H, W, 3]`.
    """
    radiance = np.nan_to_num(radiance, nan=0.0, posinf=0.0, neginf=0.0)
    brightness = radiance @ np.array([0.3, 0.59, 0.11], dtype=np.float32)
    bright = float(np.percentile(brightness[known], _BRIGHT_PERCENTILE)) if known.any() else 0.0
    scale = _BRIGHT_VALUE ** (1 / _GAMMA) / bright if bright > 1e-4 else 0.0
    image = np.clip(radiance * scale, 0, None) ** _GAMMA
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


def _intrinsics(projection: np.ndarray | None, height: int, width: int) -> np.ndarray:
    """K of an OpenGL projection matrix, or of the standard camera."""
    if projection is None:
        focal = _FOCAL_PX * width / _STANDARD_WIDTH
        return pinhole(focal, focal, width / 2, height / 2)
    return pinhole(
        projection[0, 0] * width / 2,
        projection[1, 1] * height / 2,
        (1 - projection[0, 2]) * width / 2,
        (1 + projection[1, 2]) * height / 2,
    )


def _h5py():
    try:
        import h5py
    except ImportError:
        raise ValueError("hypersim: needs h5py: pip install 'depth-engine[train]'") from None
    return h5py


def _read(path: Path) -> np.ndarray:
    try:
        with _h5py().File(path) as file:
            return file["dataset"][:]  # type: ignore[index]
    except (OSError, KeyError) as error:
        raise ValueError(f"hypersim: {path}: not an HDF5 file with a dataset named dataset ({error})") from error


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="") as file:
        yield from csv.DictReader(file)


@functools.lru_cache(maxsize=16)  # a clip asks once per frame
def _camera_path(detail: Path) -> tuple[np.ndarray, np.ndarray]:
    """Orientations `[N, 3, 3]` and positions `[N, 3]` in metres of a camera's key frames."""
    metres_per_unit = _metres_per_unit(detail.parent / "metadata_scene.csv")
    positions = _read(detail / "camera_keyframe_positions.hdf5")
    return _read(detail / "camera_keyframe_orientations.hdf5"), positions * metres_per_unit


def _metres_per_unit(path: Path) -> float:
    for row in _rows(path):
        if row.get("parameter_name") == "meters_per_asset_unit":
            return float(row["parameter_value"])
    raise ValueError(f"hypersim: {path}: expected a row meters_per_asset_unit; found none")


def _read_splits(path: Path) -> dict[tuple[str, str, int], str] | None:
    """Split by (scene, camera, frame) of the frames that were released; None without the table."""
    if not path.is_file():
        return None
    return {
        (row["scene_name"], row["camera_name"], int(row["frame_id"])): row["split_partition_name"]
        for row in _rows(path)
        if row["included_in_public_release"].strip().lower() == "true"
    }


def _read_cameras(path: Path) -> dict[str, np.ndarray]:
    """OpenGL projection matrix by scene; empty without the table."""
    if not path.is_file():
        return {}
    names = [f"M_proj_{row}{column}" for row in range(4) for column in range(4)]
    return {
        row["scene_name"]: np.array([float(row[name]) for name in names]).reshape(4, 4)
        for row in _rows(path)
        if all(row.get(name) for name in names)
    }
