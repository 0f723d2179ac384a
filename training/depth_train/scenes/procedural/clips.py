"""Procedural video with exact depth: random scenes, ray-cast in plain torch, a pure function of their seed.

The world has OpenCV axes too: x right, y down, z forward, in metres, so a height `up` above the ground is y = -up.
Every primitive is a unit shape (plane y = 0, cube, sphere, cylinder along y) scaled, rotated and placed. Rays leave the
camera with z = 1, so the ray parameter of a hit *is* its planar depth.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from depth_train.scenes.procedural.description import Scene, intrinsics_from_fov
from depth_train.scenes.procedural.layouts import build_scene
from depth_train.scenes.procedural.motion import camera_path, object_poses
from depth_train.scenes.procedural.shading import shade_hits
from depth_train.scenes.procedural.tracing import Geometry, trace_rays

# Held-out scenes never share a seed with training ones: training counts up from here, validation from 0.
FIRST_TRAINING_SEED = 1_000_000


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
        scene = build_scene(seed)
        times = np.arange(frames, dtype=np.float64)
        K = intrinsics_from_fov(scene.fov_deg, height, width)
        clips.append(_render(scene, times, K, camera_path(scene, times), height, width, device, supersample))
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
        build_scene(seed), times, K.detach().cpu().double().numpy(), poses, height, width, device, supersample
    )


def _check_positive(**sizes: int) -> None:
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name}: got {value}; expected a positive integer")


def _geometry(
    scene: Scene, times: np.ndarray, K: np.ndarray, poses: np.ndarray, height: int, width: int, device: str
) -> Geometry:
    return Geometry(scene, *object_poses(scene, times), K, poses, height, width, device)


@functools.lru_cache(maxsize=256)
def _exposure_gain(seed: int, device: str) -> float:
    """Expose for the clip's first frame, on a thumbnail, so that size, view and length do not change it."""
    scene, times, height, width = build_scene(seed), np.zeros(1), 18, 24
    K = intrinsics_from_fov(scene.fov_deg, height, width)
    g = _geometry(scene, times, K, camera_path(scene, times), height, width, device)
    radiance, _ = shade_hits(g, *trace_rays(g), None)
    return scene.look.exposure / float(torch.exp(torch.log(radiance.mean(dim=1) + 0.01).mean()))


def _render(
    scene: Scene,
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
    depth, owner = trace_rays(g)
    radiance, lit = shade_hits(g, depth, owner, None)
    if supersample > 1:
        fine_K = np.diag([supersample, supersample, 1.0]) @ K
        fine = Geometry(scene, g.rotation, g.center, fine_K, poses, height * supersample, width * supersample, device)
        radiance = F.avg_pool2d(shade_hits(fine, *trace_rays(fine), lit)[0], supersample)
    rgb = _develop(radiance * _exposure_gain(scene.seed, device), scene, times)
    return SceneClip(rgb, depth, torch.from_numpy(K.copy()), torch.from_numpy(poses.copy()))


def _develop(radiance: Tensor, scene: Scene, times: np.ndarray) -> Tensor:
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
