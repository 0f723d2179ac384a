"""ChronoDepth's ablations (arXiv 2406.01493v4, table 2) at a size that a CPU can train, and one step against five.

Small UNets on the patch codec, from random weights, on procedural scenes: what is compared is the protocol, not the
level. Every training has the same wall-clock budget, stage 1 half of it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from depth_engine import DepthEngine
from depth_train.config import Context, Diffusion, Optimizer, Recommended, Stage, TrainConfig
from depth_train.data.held_out import HeldOut
from depth_train.loop.clock import Pace
from depth_train.loop.finetune import train
from depth_train.loop.watch import Show
from depth_train.score import Score, score_checkpoint

HEIGHT, WIDTH = 96, 160
LONGEST = 5  # the paper's F_max
WINDOW, STRIDE = 10, 5  # and its windows
STEPS = 5  # and its denoising steps


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        label: Letter of the paper's table, and what it is.
        training: Which training it comes from.
        strategy: How its windows follow each other.
        steps: Denoising steps.
    """

    label: str
    training: str
    strategy: str
    steps: int = STEPS


ROWS = (
    Row("A no single images", "no-images", "independent"),
    Row("B fixed clip length", "fixed-length", "independent"),
    Row("C joint, not sequential", "joint", "independent"),
    Row("D full, naive windows", "full", "independent"),
    Row("E full, replacement", "full", "replacement"),
    Row("F full, context", "full", "context"),
    Row("G full, one-step stage", "one-step", "context", 1),
)


def configs(seed: int) -> dict[str, TrainConfig]:
    """A config for each training; `one-step` goes on from `full`."""
    alone = Stage(
        0.5,
        HEIGHT,
        WIDTH,
        batch=16,
        max_frames=1,
        clip_frames=3,
        pool=1000,
        fresh=1,
        objective="diffusion",
        trains="spatial_alone",
    )
    clips = replace(
        alone, until=1.0, batch=4, max_frames=LONGEST, clip_frames=8, pool=400, fresh=0.5, trains="temporal"
    )
    full = TrainConfig(
        stages=(alone, clips),
        diffusion=Diffusion(noise_per_frame=True),
        # Clean frames by the flag that the context strategy sets: per-frame noise alone hardly ever comes that low.
        context=Context(probability=0.5),
        recommends=Recommended(window=WINDOW, stride=STRIDE, max_res=WIDTH),
        seed=seed,
        optimizer=Optimizer(decay_from=0.3, warmup=50),
    )
    first_clips = replace(clips, until=0.5, min_frames=2, trains="spatial")
    return {
        "full": full,
        "no-images": replace(full, stages=(first_clips, replace(clips, min_frames=2))),
        "fixed-length": replace(full, stages=(alone, replace(clips, min_frames=LONGEST))),
        "joint": replace(full, stages=(replace(clips, trains="all"),)),
        "one-step": replace(full, stages=(replace(clips, objective="one_step", trains="all"),)),
    }


def ablations(
    folder: Path,
    *,
    budget_minutes: float,
    clips: int,
    frames: int,
    seed: int,
    device: str,
    report: Callable[[str], None],
    trainings: Mapping[str, TrainConfig] | None = None,
) -> dict[str, Score]:
    """Train what is not there yet, score every row, write `ablation.json`.

    Args:
        folder: A checkpoint folder per training goes here.
        budget_minutes: For all trainings together.
        clips: Held-out scenes.
        frames: Frames per scene.
        seed: Of weights, draws and scenes.
        device: Where to train and run.
        report: Takes progress lines.
        trainings: Other configs of the same names, for other sizes.
    """
    trainings = trainings or configs(seed)
    share = budget_minutes / len(trainings)
    for name, config in trainings.items():
        target = folder / name
        if target.is_dir() and not (target / "resume").exists():
            held = json.loads((target / "train_config.json").read_text())
            if held != json.loads(json.dumps(asdict(config))):
                raise ValueError(f"--output: {target} was trained with another seed or config; give another folder")
            report(f"{name}: trained already")
            continue
        init = folder / "full" if name == "one-step" else None
        report(f"{name}: {share:.1f} minutes")
        train(
            config,
            target,
            init=init,
            device=device,
            resume=(target / "resume").exists(),
            pace=Pace(share),
            show=Show(lambda line, name=name: report(f"{name}: {line}")),
        )
    rows: dict[str, Score] = {}
    for row in ROWS:
        engine = DepthEngine.from_pretrained(folder / row.training, device=device)
        size = trainings[row.training].stages[0]
        settings = {"strategy": row.strategy, "steps": row.steps, "flow": False}  # the table is of networks
        scores = score_checkpoint(
            engine,
            HeldOut(clips, frames, size.height, size.width),
            {row.label: settings},
            report=lambda line: None,
        )
        report(f"{row.label}: AbsRel {scores[row.label].abs_rel:.3f}")
        rows = {"best constant": scores["best constant"], **rows, row.label: scores[row.label]}
    partial = folder / "ablation.json.partial"
    numbers = {
        label: {name: value if math.isfinite(value) else None for name, value in asdict(score).items()}
        for label, score in rows.items()
    }
    partial.write_text(json.dumps(numbers, indent=2) + "\n")
    os.replace(partial, folder / "ablation.json")
    return rows


def table(rows: Mapping[str, Score]) -> str:
    """The rows as aligned text."""
    lines = [f"{'':<26}{'AbsRel':>8}{'delta1':>8}{'MFC [m]':>9}"]
    lines += [
        f"{label:<26}{score.abs_rel:>8.3f}{score.delta1:>8.3f}{score.mfc_m:>9.3f}" for label, score in rows.items()
    ]
    return "\n".join(lines)


def plot(rows: Mapping[str, Score], path: Path) -> None:
    """Bars of the three scores, the best constant as a line."""
    from matplotlib.figure import Figure

    labels = [label for label in rows if label != "best constant"]
    figure = Figure(figsize=(11, 4), layout="constrained")
    parts = figure.subplots(1, 3, sharey=True)
    for axes, name, title in zip(parts, ("abs_rel", "delta1", "mfc_m"), ("AbsRel", "δ1", "MFC [m]"), strict=True):
        axes.barh(labels, [getattr(rows[label], name) for label in labels], color="#4477aa")
        axes.axvline(getattr(rows["best constant"], name), color="#cc3311", linewidth=1)
        axes.set_title(f"{title} ({'higher' if name == 'delta1' else 'lower'} is better)")
    parts[0].invert_yaxis()
    figure.savefig(path, dpi=110)
