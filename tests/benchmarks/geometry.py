"""What a clip's own parallax brings to the bundled network's depth, clip by clip, by true cameras.

    python -m tests.benchmarks.geometry

Held-out procedural scenes with a moving camera and moving things. delta1 and AbsRel after one scale and shift per clip
in disparity; TAE in per cent and MFC in metres by the true cameras (`depth/consistency_metrics.py`).
"""

from __future__ import annotations

from typing import NamedTuple

import click
import cv2
import numpy as np
from depth_train.data.held_out import MAX_DEPTH_M, HeldOut, HeldOutClip

from depth_engine import DepthEngine
from depth_engine.depth.consistency_metrics import multi_frame_consistency, temporal_alignment_error
from depth_engine.depth.metrics import depth_from_disparity, evaluate_disparity
from depth_engine.geometry.shot_depth import ShotDepth, agree_with_geometry

WORK_SIDE_PX = 384  # that flow is looked for at: finer than the network's own depth


class Scores(NamedTuple):
    """Of one clip."""

    delta1: float
    abs_rel: float
    tae: float
    mfc_m: float


def score(disparity: np.ndarray, clip: HeldOutClip) -> Scores:
    """Scores of disparity `[T, h, w]` of any size and unit."""
    height, width = clip.depth_m.shape[1:]
    fitted = np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR) for frame in disparity])
    fitted = np.maximum(fitted, 0) / float(np.quantile(fitted, 0.999))  # the protocol clips what is below 1e-3
    fit = evaluate_disparity(fitted, clip.capped_m, clip.known, MAX_DEPTH_M)
    aligned_m = depth_from_disparity(fitted, fit.scale, fit.shift, MAX_DEPTH_M)
    tae = temporal_alignment_error(aligned_m, clip.K, clip.world_from_camera)
    mfc_m = multi_frame_consistency(aligned_m, clip.K, clip.world_from_camera)
    return Scores(fit.delta1, fit.abs_rel, tae, mfc_m)


def with_geometry(network: np.ndarray, clip: HeldOutClip) -> ShotDepth:
    """The network's disparity `[T, H, W]` made to agree with the clip's parallax, by its true cameras."""
    height, width = clip.rgb.shape[1:3]
    share = WORK_SIDE_PX / max(height, width)
    size = (round(width * share), round(height * share))
    how = cv2.INTER_AREA if share < 1 else cv2.INTER_CUBIC
    greys = [cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), size, interpolation=how) for frame in clip.rgb]
    values = np.stack([cv2.resize(frame, size, interpolation=cv2.INTER_LINEAR) for frame in network])
    K = np.diag([size[0] / width, size[1] / height, 1.0]) @ clip.K
    typical = float(np.median(1 / clip.depth_m[clip.known]))
    return agree_with_geometry(greys, values, K, np.linalg.inv(clip.world_from_camera), typical)


@click.command()
@click.option("--clips", default=20, show_default=True)
@click.option("--frames", default=36, show_default=True)
@click.option("--height", default=288, show_default=True)
@click.option("--width", default=512, show_default=True)
@click.option("--first-seed", default=0, show_default=True, help="Of the scenes; other seeds to choose constants by.")
def main(clips: int, frames: int, height: int, width: int, first_seed: int) -> None:
    """Depth with and without the clip's geometry."""
    engine = DepthEngine.from_pretrained("bundled")
    rows = []
    click.echo("clip   without: delta1 AbsRel TAE % MFC m   with: delta1 AbsRel TAE % MFC m   step, note")
    for number, clip in enumerate(HeldOut(clips, frames, height, width, first_seed)):
        network = engine.estimate(clip.rgb, shots=False).values
        made = with_geometry(network, clip)
        without = score(network, clip)
        after = without if made.step == "none" else score(made.disparity, clip)
        rows.append([without, after])
        click.echo(f"{first_seed + number:4d}   {_row(without)}   {_row(after)}   {made.step} {made.note}")
    before, after = np.array(rows).mean(axis=0)
    click.echo(f"mean   {_row(before)}   {_row(after)}")
    worse = int(sum(pair[1].delta1 < pair[0].delta1 - 0.01 for pair in rows))
    click.echo(
        f"delta1 {after[0] - before[0]:+.3f}, AbsRel x{after[1] / before[1]:.2f}, TAE x{after[2] / before[2]:.2f}, "
        f"MFC x{after[3] / before[3]:.2f}; {worse} clips worse by more than .01"
    )


def _row(scores: Scores | np.ndarray) -> str:
    return "{:.3f} {:.3f} {:.2f} {:.3f}".format(*scores)


if __name__ == "__main__":
    main()
