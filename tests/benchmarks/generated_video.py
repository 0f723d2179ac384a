"""What the bundled generator does with depth, on held-out procedural scenes.

    python -m tests.benchmarks.generated_video fidelity   # does the generated clip have the depth it was asked for?
    python -m tests.benchmarks.generated_video worth      # what is consistent depth worth to it?

`fidelity`: the clip's true disparity is the control, its first frame the look. The depth of what is generated is
estimated again (bundled engine) and correlated with the control over the clip, the given first frame left out; beside
it the same with control scale 0, for the first frame held still, and for the true clip: as far as the engine can see.

`worth`: the control is the engine's depth of the true clip, by how it was made. Warping error: mean absolute difference
(of 255) between each generated frame and the one before moved by the scene's true flow, where both see the same still
point. Flicker: mean absolute difference, of 255, between the generated clip's change from frame to frame and the true
one's. Picture error: mean absolute difference to the true clip, of 255. True depth is shown as it is and carried along
optical flow (`consistency/flow.py`) as `context` windows are: what carrying alone is worth to this generator.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import click
import numpy as np
import torch
from depth2video.control import clip_range, frame_range, to_control
from depth2video.generators.catalogue import SMALL_FOLDER
from depth2video.generators.interface import Request
from depth2video.generators.small import SmallGenerator, load_small, sample_at
from depth_train.data.clip_pool import world_from_pixel
from depth_train.scenes.procedural.clips import SceneClip, make_clips
from depth_train.score import RUNS
from depth_train.tasks.generator import true_flow

from depth_engine import DepthEngine
from depth_engine.consistency.flow import follow_flow

HEIGHT, WIDTH = 96, 160


def control_of(disparity: np.ndarray, per_frame: bool = False) -> list[np.ndarray]:
    """Control frames of a clip's disparity `[T, H, W]`."""
    whole = clip_range(disparity)
    return [to_control(frame, frame_range(frame) if per_frame else whole) for frame in disparity]


def generate(generator: SmallGenerator, control: Iterable[np.ndarray], image: np.ndarray, scale: float) -> np.ndarray:
    """uint8 `[T, H, W, 3]`."""
    request = Request(image=image, control_scale=scale)
    return np.concatenate([piece.frames for piece in generator.generate(iter(control), request, state=None)])


def true_disparity(clip: SceneClip) -> np.ndarray:
    """float32 `[T, H, W]`, 0 of the sky."""
    return (1 / clip.depth_m).numpy()


def carried(disparity: np.ndarray, rgb: np.ndarray) -> np.ndarray:
    """Disparity `[T, H, W]` of a clip, uint8 `[T, H, W, 3]`, drawn along the flow of its pictures, in [0, 1]."""
    pixels = torch.from_numpy(rgb).movedim(-1, 1).float() / 127.5 - 1
    span = clip_range(disparity)
    depth = torch.from_numpy(np.clip((disparity - span.low) / (span.high - span.low), 0, 1)) * 2 - 1
    return (follow_flow(pixels, depth, settled=False).numpy() + 1) / 2


def correlation(engine: DepthEngine, frames: np.ndarray, control: list[np.ndarray]) -> float:
    """Between the depth seen in a clip and its control, the first frame left out."""
    seen = engine.estimate(frames, shots=False).values[1:]
    wanted = np.stack(control)[1:, ..., 0]
    return float(np.corrcoef(seen.ravel(), wanted.ravel())[0, 1])


def warping_error(frames: np.ndarray, clip: SceneClip) -> float:
    """See the top."""
    cameras = world_from_pixel(clip.K, clip.world_from_camera)
    pictures = torch.from_numpy(frames).movedim(-1, 1).float()
    errors = []
    for index in range(1, len(frames)):
        pair = slice(index - 1, index + 1)
        flow, seen = true_flow(clip.depth_m[pair][None], cameras[pair][None], 0)
        moved = sample_at(pictures[index - 1 : index], flow[0, 1:])
        errors.append((moved - pictures[index]).abs().mean(1)[0][seen[0, 1]].mean())
    return float(torch.stack(errors).mean())


def picture_error(frames: np.ndarray, clip: SceneClip) -> float:
    """Mean absolute difference to the true clip, of 255, the given first frame left out."""
    return float(np.abs(frames[1:].astype(np.float32) - clip.rgb.numpy()[1:]).mean())


def flicker(frames: np.ndarray, clip: SceneClip) -> float:
    """See the top."""
    change = np.diff(frames.astype(np.float32), axis=0) - np.diff(clip.rgb.numpy().astype(np.float32), axis=0)
    return float(np.abs(change).mean())


@click.group()
def main() -> None:
    """The bundled generator on procedural scenes."""


_CHECKPOINT = click.option("--generator", "folder", default=str(SMALL_FOLDER), help="A small generator's folder.")


@main.command()
@_CHECKPOINT
@click.option("--clips", default=50, show_default=True)
@click.option("--frames", default=15, show_default=True)
def fidelity(folder: str, clips: int, frames: int) -> None:
    """Depth of what is generated against the control."""
    generator, engine = _load(folder)
    rows = []
    for seed in range(clips):
        clip = make_clips([seed], frames, HEIGHT, WIDTH)[0]
        rgb, control = clip.rgb.numpy(), control_of(true_disparity(clip))
        made = {scale: generate(generator, control, rgb[0], scale) for scale in (1.0, 0.0)}
        rows.append(
            [
                correlation(engine, shown, control)
                for shown in (made[1.0], made[0.0], np.repeat(rgb[:1], frames, axis=0), rgb)
            ]
            + [picture_error(shown, clip) for shown in (made[1.0], made[0.0], np.repeat(rgb[:1], frames, axis=0))]
        )
        click.echo(f"  clip {seed + 1}/{clips}", err=True)
    mean = np.mean(rows, axis=0)
    click.echo(
        f"{clips} held-out clips, {frames} frames of {WIDTH}x{HEIGHT}; correlation of re-estimated depth and control"
    )
    names = ("control scale 1", "control scale 0", "first frame held", "true clip")
    for name, value in zip(names, mean, strict=False):
        click.echo(f"{name:18s} {value:.3f}")
    click.echo(
        f"mean absolute error to the true clip, of 255: {mean[4]:.1f} with control, {mean[5]:.1f} without, "
        f"{mean[6]:.1f} for the first frame held"
    )


@main.command()
@_CHECKPOINT
@click.option("--clips", default=20, show_default=True)
@click.option("--frames", default=22, show_default=True)
def worth(folder: str, clips: int, frames: int) -> None:
    """Warping error and flicker by where the control comes from."""
    generator, engine = _load(folder)
    runs: dict[str, dict[str, Any]] = dict(RUNS)
    rows: dict[str, list[tuple[float, ...]]] = {}
    for seed in range(clips):
        clip = make_clips([seed], frames, HEIGHT, WIDTH)[0]
        rgb = clip.rgb.numpy()
        depth = {name: engine.estimate(rgb, shots=False, **settings).values for name, settings in runs.items()}
        controls = {name: control_of(values) for name, values in depth.items()}
        controls["context, normalised per frame"] = control_of(depth["context windows"], per_frame=True)
        controls["single frames, normalised per frame"] = control_of(depth["single frames"], per_frame=True)
        controls["true depth"] = control_of(true_disparity(clip))
        controls["true depth, carried along flow"] = control_of(carried(true_disparity(clip), rgb))
        for name, control in controls.items():
            made = generate(generator, control, rgb[0], 1.0)
            rows.setdefault(name, []).append(
                (warping_error(made, clip), flicker(made, clip), picture_error(made, clip))
            )
        rows.setdefault("(the true clip itself)", []).append((warping_error(rgb, clip), 0.0, 0.0))
        click.echo(f"  clip {seed + 1}/{clips}", err=True)
    click.echo(f"{clips} held-out clips, {frames} frames of {WIDTH}x{HEIGHT}")
    click.echo(f"{'control from':38s} {'warping error':>14s} {'flicker':>8s} {'picture error':>14s}")
    for name, values in rows.items():
        mean = np.mean(values, axis=0)
        click.echo(f"{name:38s} {mean[0]:14.2f} {mean[1]:8.2f} {mean[2]:14.2f}")


def _load(folder: str) -> tuple[SmallGenerator, DepthEngine]:
    from pathlib import Path

    return load_small(Path(folder), device=torch.device("cpu")), DepthEngine.from_pretrained("bundled")


if __name__ == "__main__":
    main()
