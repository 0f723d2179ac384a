"""Mesh files as plain arrays at true size in this project's axes (x right, y down, z forward), prepared on disk."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from depth_train.scenes.models.catalog import LARGEST_M, ROLE_SIZE_M, SMALLEST_M, Model

# A model's picture is kept no larger: nothing is seen closer than a few texels a pixel.
LARGEST_TEXTURE = 512
# More triangles than this are too slow to cast rays at; such models are left out.
MOST_TRIANGLES = 400_000
# Files have y up and z towards the viewer.
_FROM_Y_UP = np.diag([1.0, -1.0, -1.0])
_FORMAT = 3  # of the prepared files; another number makes them anew


@dataclass(frozen=True)
class Surface:
    """What the triangles of one material look like.

    Attributes:
        color: Linear RGB that multiplies the texture.
        texture: uint8 `[h, w, 4]` sRGB and alpha, or None.
        opacity: Below 0.6 the surface is taken for glass.
        gloss: Strength of mirror-like reflection, 0 to 1.
        emission: Radiance that it gives off, times its colour.
        tile_m: Metres that one repeat of the texture covers, where coordinates are metres; 1 for a model's own.
    """

    color: tuple[float, float, float] = (0.7, 0.7, 0.7)
    texture: np.ndarray | None = None
    opacity: float = 1.0
    gloss: float = 0.0
    emission: float = 0.0
    tile_m: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True)
class Mesh:
    """Triangles with what covers them.

    Attributes:
        corners: float32 `[N, 3, 3]`, metres.
        uv: float32 `[N, 3, 2]`, in repeats of the texture; v grows downwards.
        normals: float32 `[N, 3, 3]`, per corner, unit length.
        surface: int32 `[N]`, index into `surfaces`.
        surfaces: The materials.
    """

    corners: np.ndarray
    uv: np.ndarray
    normals: np.ndarray
    surface: np.ndarray
    surfaces: tuple[Surface, ...]

    @property
    def bounds(self) -> np.ndarray:
        """float32 `[2, 3]`: least and greatest corner."""
        points = self.corners.reshape(-1, 3)
        return np.stack([points.min(axis=0), points.max(axis=0)])

    def moved(self, rotation: np.ndarray, translation: Sequence[float] | np.ndarray, scale: float = 1.0) -> Mesh:
        """The mesh scaled, turned by `[3, 3]` and then shifted by `[3]`."""
        turn = np.asarray(rotation, dtype=np.float32)
        corners = self.corners @ (turn.T * np.float32(scale)) + np.asarray(translation, dtype=np.float32)
        return replace(self, corners=corners, normals=self.normals @ turn.T)

    def painted(self, surfaces: tuple[Surface, ...]) -> Mesh:
        """The mesh with other materials in the same order."""
        return replace(self, surfaces=surfaces)


def to_linear(srgb: np.ndarray) -> np.ndarray:
    """Linear light of sRGB values in [0, 1] (IEC 61966-2-1)."""
    srgb = np.asarray(srgb, dtype=np.float32)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def load_model(model: Model, cache: Path) -> Mesh:
    """A model at true size, its lowest point at y = 0 and its middle above the origin.

    The first time, trimesh reads the file and the arrays are kept under `cache`; after that they are read from there.

    Raises:
        ValueError: The file can't be read, has no triangles or too many.
    """
    stamp = f"{_FORMAT} {model} {model.path.stat().st_size} {model.path.stat().st_mtime_ns}"
    path = cache / f"{hashlib.sha256(stamp.encode()).hexdigest()[:24]}.npz"
    if path.is_file():
        return _read(path)
    mesh = _to_size(_load_file(model.path), model)
    cache.mkdir(parents=True, exist_ok=True)
    _write(mesh, path)
    return mesh


def flat_normals(corners: np.ndarray) -> np.ndarray:
    """Normals `[N, 3, 3]` of triangles `[N, 3, 3]`, alike at their corners."""
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    return np.repeat(normal[:, None], 3, axis=1).astype(np.float32)


def merge(meshes: list[Mesh]) -> Mesh:
    """One mesh of many."""
    first, surfaces = [], []
    for mesh in meshes:
        first.append(len(surfaces))
        surfaces.extend(mesh.surfaces)
    return Mesh(
        np.concatenate([mesh.corners for mesh in meshes]),
        np.concatenate([mesh.uv for mesh in meshes]),
        np.concatenate([mesh.normals for mesh in meshes]),
        np.concatenate([mesh.surface + start for mesh, start in zip(meshes, first, strict=True)]),
        tuple(surfaces),
    )


def load_texture(path: Path, largest: int = LARGEST_TEXTURE) -> np.ndarray:
    """A picture as uint8 `[h, w, 4]`, shrunk so that no side is above `largest`.

    Raises:
        ValueError: It can't be read.
    """
    try:
        with Image.open(path) as image:
            image.draft("RGB", (2 * largest, 2 * largest))
            image = image.convert("RGBA")
            if max(image.size) > largest:
                image.thumbnail((largest, largest), Image.Resampling.BILINEAR)
            return np.array(image)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: can't be read as a picture ({error})") from error


def _load_file(path: Path) -> Mesh:
    import trimesh

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            loaded: Any = trimesh.load(path, force="scene", process=False)
            parts = [part for part in loaded.dump() if isinstance(part, trimesh.Trimesh) and len(part.faces)]
        except Exception as error:  # readers of a dozen formats raise what they like
            raise ValueError(f"{path}: can't be read as a mesh ({type(error).__name__}: {error})") from error
    count = sum(len(part.faces) for part in parts)
    if count == 0:
        raise ValueError(f"{path}: holds no triangles")
    if count > MOST_TRIANGLES:
        raise ValueError(f"{path}: {count} triangles are too many (at most {MOST_TRIANGLES})")
    meshes = []
    for part in parts:
        corners = part.vertices[part.faces].astype(np.float32)
        uv = getattr(part.visual, "uv", None)
        if uv is None or len(uv) != len(part.vertices):
            coordinates = np.zeros((*corners.shape[:2], 2), dtype=np.float32)
        else:
            coordinates = np.asarray(uv, dtype=np.float32)[part.faces] * np.array([1, -1], dtype=np.float32) + np.array(
                [0, 1], dtype=np.float32
            )
        normals = part.vertex_normals[part.faces].astype(np.float32)
        flat = flat_normals(corners)
        # Normals of the file that are missing, or far from the triangle's own, would light it from behind.
        poor = ~np.isfinite(normals).all(axis=2) | (np.abs((normals * flat).sum(axis=2)) < 0.5)
        normals[poor] = flat[poor]
        surface = np.zeros(len(corners), dtype=np.int32)
        coordinates = np.nan_to_num(coordinates)
        meshes.append(Mesh(corners, coordinates, normals, surface, (_surface(part),)))
    whole = merge(meshes)
    good = np.isfinite(whole.corners).all(axis=(1, 2))
    return Mesh(whole.corners[good], whole.uv[good], whole.normals[good], whole.surface[good], whole.surfaces)


def _surface(part: object) -> Surface:
    """The material of a part that trimesh loaded."""
    material = getattr(part.visual, "material", None)  # type: ignore[attr-defined]
    if material is None:
        return Surface()
    image = getattr(material, "image", None) or getattr(material, "baseColorTexture", None)
    color = getattr(material, "diffuse", None)
    if color is None:
        color = getattr(material, "baseColorFactor", None)
    color = np.asarray([180, 180, 180, 255] if color is None else color, dtype=np.float32)
    color = color / 255 if color.max() > 1 else color
    opacity = float(color[3]) if len(color) > 3 else 1.0
    texture = None
    if image is not None:
        try:
            picture = image.convert("RGBA")
            picture.thumbnail((LARGEST_TEXTURE, LARGEST_TEXTURE), Image.Resampling.BILINEAR)
            texture = np.array(picture)
            color = np.maximum(color, 0.8)  # files that darken their own picture mean the picture
        except (OSError, ValueError):
            texture = None
    specular = getattr(material, "specular", None)
    gloss = 0.0 if specular is None else float(np.mean(np.asarray(specular[:3], dtype=np.float32)) / 255)
    kwargs = getattr(material, "kwargs", None) or {}
    if "d" in kwargs:
        try:
            opacity = float(kwargs["d"][0])
        except (TypeError, ValueError, IndexError):
            opacity = 1.0
    linear = tuple(float(value) for value in np.clip(to_linear(color[:3]), 0.02, 0.95))
    return Surface(linear, texture, opacity if opacity > 0.02 else 1.0, min(gloss, 1.0) * 0.3)  # type: ignore[arg-type]


def _to_size(mesh: Mesh, model: Model) -> Mesh:
    """Turn as the catalogue says, scale to its size, bring into this project's axes and set it on the ground."""
    corners = mesh.corners @ np.array(model.rotation, dtype=np.float32).reshape(3, 3).T
    normals = mesh.normals @ np.array(model.rotation, dtype=np.float32).reshape(3, 3).T
    low, high = corners.reshape(-1, 3).min(axis=0), corners.reshape(-1, 3).max(axis=0)
    extent = np.maximum(high - low, 1e-6)
    if model.size_m is not None:
        scale = np.array(model.size_m, dtype=np.float32) / extent
        scale[extent < 1e-5] = 1.0
    else:
        longest = float(extent.max())
        # Metres are believed where they are possible for any model; else the role's own size is taken.
        wanted = longest if SMALLEST_M <= longest <= LARGEST_M else ROLE_SIZE_M.get(model.role, 1.0)
        scale = np.full(3, wanted / longest, dtype=np.float32)
    corners = (corners - (low + high) / 2) * scale
    normals = normals / scale
    turn = _FROM_Y_UP.astype(np.float32)
    corners, normals = corners @ turn.T, normals @ turn.T
    corners[..., 1] -= corners[..., 1].max()
    normals /= np.maximum(np.linalg.norm(normals, axis=2, keepdims=True), 1e-9)
    return replace(mesh, corners=corners.astype(np.float32), normals=normals.astype(np.float32))


def _write(mesh: Mesh, path: Path) -> None:
    held: dict[str, np.ndarray] = {
        "corners": mesh.corners,
        "uv": mesh.uv,
        "normals": mesh.normals.astype(np.float16),
        "surface": mesh.surface,
        "numbers": np.array([[*s.color, s.opacity, s.gloss, s.emission] for s in mesh.surfaces], dtype=np.float32),
    }
    for index, surface in enumerate(mesh.surfaces):
        if surface.texture is not None:
            held[f"texture{index}"] = surface.texture
    unfinished = path.with_suffix(f".{np.random.default_rng().integers(1 << 30)}.tmp.npz")
    np.savez(unfinished, **held)  # type: ignore[arg-type]
    unfinished.replace(path)


def _read(path: Path) -> Mesh:
    with np.load(path) as held:
        surfaces = tuple(
            Surface(
                (float(row[0]), float(row[1]), float(row[2])),
                held[f"texture{index}"] if f"texture{index}" in held else None,
                float(row[3]),
                float(row[4]),
                float(row[5]),
            )
            for index, row in enumerate(held["numbers"])
        )
        normals = held["normals"].astype(np.float32)
        return Mesh(held["corners"], held["uv"], normals, held["surface"], surfaces)
