"""How good novel views are, on procedural scenes with a known second camera.

    python -m tests.benchmarks.view_quality true          # true depth: PSNR, hole masks, halo
    python -m tests.benchmarks.view_quality estimated     # depth of the engine, by how windows meet

`true`: one frame of each scene is seen from a camera moved sideways by 5 and by 15 % of the median depth. PSNR over
co-visible pixels (what both cameras see, by the true geometry); intersection over union of the hole mask and the true
disocclusion, the picture's rim included; halo: mean absolute error, of 255, of co-visible pixels within 3 px of an
occlusion border, and the same elsewhere.

`estimated`: each clip's depth, brought to the truth by one scale and shift per clip, moves the camera by 5 % sideways.
PSNR and SSIM over co-visible pixels, and flicker: mean absolute change, from frame to frame, of the difference to the
true view, of 255.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import click
import cv2
import numpy as np
import torch
from depth_train.data.held_out import MAX_DEPTH_M
from depth_train.scenes.procedural.clips import SceneClip, make_clips, render_view
from depth_train.score import RUNS
from novel_view.warp.edges import give_mixed_to_near, sharpen_borders
from novel_view.warp.fill import fill_spatial
from novel_view.warp.reproject import warp

from depth_engine import DepthEngine
from depth_engine.depth.metrics import align_disparity_to_depth
from depth_engine.geometry.cameras import Camera

HEIGHT, WIDTH = 144, 256
_SAME_POINT = 0.03  # share of its depth by which the source may see a point nearer or farther than it is


class Truth(NamedTuple):
    """A frame's second view: picture, depth, and which of its pixels the first camera saw."""

    rgb: np.ndarray
    depth_m: np.ndarray
    visible: np.ndarray


def moved_cameras(clip: SceneClip, share: float) -> tuple[list[Camera], list[Camera]]:
    """The clip's cameras, and those moved to the right by a share of the median depth."""
    depth = clip.depth_m.numpy()
    step = np.eye(4)
    step[0, 3] = share * float(np.median(depth[np.isfinite(depth)]))
    here = [Camera(clip.K.numpy(), pose, HEIGHT, WIDTH) for pose in clip.world_from_camera.numpy()]
    return here, [Camera(camera.K, camera.world_from_camera @ step, HEIGHT, WIDTH) for camera in here]


def true_views(seed: int, clip: SceneClip, here: list[Camera], there: list[Camera]) -> Iterator[Truth]:
    """What the second camera sees."""
    poses = torch.from_numpy(np.stack([camera.world_from_camera for camera in there]))
    seen = render_view(seed, list(range(len(there))), clip.K, poses, HEIGHT, WIDTH)
    for index in range(len(there)):
        depth_m = seen.depth_m[index].numpy()
        visible = seen_by(depth_m, there[index], here[index], clip.depth_m[index].numpy())
        yield Truth(seen.rgb[index].numpy(), depth_m, visible)


def seen_by(depth_m: np.ndarray, camera: Camera, other: Camera, other_depth_m: np.ndarray) -> np.ndarray:
    """Which pixels of a camera the other one sees too: their points fall on a pixel of about their depth."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(camera.K).T
    far = np.where(np.isfinite(depth_m), depth_m, 1e6)
    turn = np.linalg.inv(other.world_from_camera) @ camera.world_from_camera
    points = (rays * far[..., None]) @ turn[:3, :3].T + turn[:3, 3]
    pixels = points @ other.K.T
    column, row = pixels[..., 0] / pixels[..., 2], pixels[..., 1] / pixels[..., 2]
    inside = (column >= 0) & (column < WIDTH) & (row >= 0) & (row < HEIGHT) & (pixels[..., 2] > 0)
    held = other_depth_m[np.clip(row.astype(int), 0, HEIGHT - 1), np.clip(column.astype(int), 0, WIDTH - 1)]
    return inside & (points[..., 2] <= np.where(np.isfinite(held), held, 1e9) * (1 + _SAME_POINT))


def near_borders(depth_m: np.ndarray, reach: int = 3) -> np.ndarray:
    """Pixels within reach of a depth border."""
    disparity = np.where(np.isfinite(depth_m), 1 / depth_m, 0).astype(np.float32)
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    high, low = cv2.dilate(disparity, kernel), cv2.erode(disparity, kernel)
    # A slope changes the disparity too, within 7 px; a border by more.
    return high - low > 0.25 * high


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Of 8-bit values, dB."""
    return float(10 * np.log10(255**2 / max(np.mean((first.astype(float) - second.astype(float)) ** 2), 1e-9)))


def ssim(first: np.ndarray, second: np.ndarray, mask: np.ndarray) -> float:
    """SSIM of luma (Wang et al. 2004: Gaussian window of 1.5 px, K1 .01, K2 .03), mean over the mask."""
    a, b = (cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float64) for picture in (first, second))

    def blur(values: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(values, (11, 11), 1.5)

    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, both = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return float(values[mask].mean())


@click.group()
def main() -> None:
    """Quality of novel views on procedural scenes."""


@main.command("true")
@click.option("--scenes", default=20, show_default=True)
@click.option("--supersample", default=2, show_default=True, help="Rays along each side of a pixel, for its colour.")
@click.option("--antialias/--no-antialias", default=True, show_default=True)
@click.option("--edge/--no-edge", default=True, show_default=True, help="Mixed pixels move with the near side.")
def true_depth(scenes: int, supersample: int, antialias: bool, edge: bool) -> None:
    """Views of true depth."""
    for share in (0.05, 0.15):
        rows = []
        for seed in range(scenes):
            clip = make_clips([seed], 1, HEIGHT, WIDTH, supersample=supersample)[0]
            here, there = moved_cameras(clip, share)
            poses = torch.from_numpy(there[0].world_from_camera)[None]
            seen = render_view(seed, [0.0], clip.K, poses, HEIGHT, WIDTH, supersample=supersample)
            rgb, depth_m = seen.rgb[0].numpy(), seen.depth_m[0].numpy()
            visible = seen_by(depth_m, there[0], here[0], clip.depth_m[0].numpy())
            picture, depth = clip.rgb[0].numpy(), clip.depth_m[0].numpy()
            depth = give_mixed_to_near(depth, picture) if edge else depth
            view = warp(picture, depth, here[0], there[0], antialias=antialias)
            both = visible & ~view.hole
            error = np.abs(view.rgb.astype(float) - rgb).mean(2)
            border = near_borders(depth_m)
            union = (~visible | view.hole).sum()
            rows.append(
                (
                    psnr(view.rgb[both], rgb[both]),
                    (~visible & view.hole).sum() / union if union else 1.0,
                    error[both & border].mean() if (both & border).any() else np.nan,
                    error[both & ~border].mean(),
                )
            )
            click.echo(f"  scene {seed:3d}  {rows[-1][0]:5.1f} dB  IoU {rows[-1][1]:.3f}", err=True)
        table = np.array(rows)
        worst = table[:, 0].min()
        click.echo(
            f"baseline {share:4.0%}: PSNR {table[:, 0].mean():.1f} dB (worst scene {worst:.1f}), hole IoU "
            f"{table[:, 1].mean():.3f} (worst {table[:, 1].min():.3f}), "
            f"error {np.nanmean(table[:, 2]):.1f} near borders, {table[:, 3].mean():.1f} elsewhere"
        )


@main.command("estimated")
@click.option("--scenes", default=20, show_default=True)
@click.option("--frames", default=16, show_default=True)
@click.option("--checkpoint", default="bundled", show_default=True)
@click.option("--share", default=0.05, show_default=True, help="Baseline, share of the median depth.")
def estimated_depth(scenes: int, frames: int, checkpoint: str, share: float) -> None:
    """Views of estimated depth, by how windows meet."""
    engine = DepthEngine.from_pretrained(checkpoint)
    runs: dict[str, dict[str, Any]] = {**RUNS, "replacement windows": {"strategy": "replacement"}}
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in [*runs, "true depth"]}
    for seed in range(scenes):
        clip = make_clips([seed], frames, HEIGHT, WIDTH)[0]
        here, there = moved_cameras(clip, share)
        truth = list(true_views(seed, clip, here, there))
        true_depth_m = clip.depth_m.numpy()
        depths = {"true depth": true_depth_m}
        for name, settings in runs.items():
            disparity = engine.estimate(clip.rgb.numpy(), shots=False, **settings).values
            depths[name] = _aligned(disparity, true_depth_m)
        for name, depth_m in depths.items():
            rows[name].append(_score(clip.rgb.numpy(), depth_m, here, there, truth, sharpen=name != "true depth"))
        click.echo(f"  scene {seed + 1}/{scenes}", err=True)
    click.echo(f"{'depth':20s} {'PSNR dB':>8s} {'SSIM':>7s} {'flicker':>8s}")
    for name, values in rows.items():
        mean = np.mean(values, axis=0)
        click.echo(f"{name:20s} {mean[0]:8.2f} {mean[1]:7.4f} {mean[2]:8.3f}")


def _aligned(disparity: np.ndarray, true_depth_m: np.ndarray) -> np.ndarray:
    """Planar depth by one scale and shift per clip; points beyond the cap are the sky."""
    capped = np.where(np.isfinite(true_depth_m), true_depth_m, MAX_DEPTH_M + 1)
    scale, shift = align_disparity_to_depth(disparity, capped, np.isfinite(true_depth_m), max_depth_m=MAX_DEPTH_M)
    aligned = scale * disparity + shift
    return np.where(aligned > 1 / MAX_DEPTH_M, 1 / np.maximum(aligned, 1e-6), np.inf).astype(np.float32)


def _score(
    rgb: np.ndarray, depth_m: np.ndarray, here: list[Camera], there: list[Camera], truth: list[Truth], *, sharpen: bool
) -> tuple[float, float, float]:
    """PSNR, SSIM, flicker."""
    errors, similar, noise = [], [], []
    before: tuple[np.ndarray, np.ndarray] | None = None
    for index, wanted in enumerate(truth):
        depth = sharpen_borders(depth_m[index], rgb[index]) if sharpen else depth_m[index]
        depth = give_mixed_to_near(depth, rgb[index])
        view = fill_spatial(warp(rgb[index], depth, here[index], there[index], antialias=True))
        error = view.rgb.astype(float) - wanted.rgb
        errors.append(np.mean(error[wanted.visible] ** 2))
        similar.append(ssim(view.rgb, wanted.rgb, wanted.visible))
        if before is not None:
            both = wanted.visible & before[1]
            noise.append(np.abs(error - before[0])[both].mean())
        before = error, wanted.visible
    return float(10 * np.log10(255**2 / max(np.mean(errors), 1e-9))), float(np.mean(similar)), float(np.mean(noise))


if __name__ == "__main__":
    main()
