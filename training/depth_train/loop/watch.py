"""What a run shows while it goes: a bar or lines, TensorBoard's curves and pictures, held-out scores."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from depth_train.checkpoints.state import Progress
from depth_train.config import Stage, TrainConfig
from depth_train.data.held_out import MAX_DEPTH_M, describe_judging, judging_clips
from depth_train.loop.trainer import Stepped

_EVERY = 50  # steps between lines and points of the curves


@dataclass(frozen=True)
class Show:
    """Where a run tells how it goes.

    Attributes:
        report: Takes lines of text.
        bar: Show a progress bar in place of a line every 50 steps.
        log_folder: Where TensorBoard's logs go; None: nowhere.
    """

    report: Callable[[str], None] = print
    bar: bool = False
    log_folder: Path | None = None


class Watch:
    """Reports of the main process; another process's does nothing.

    Args:
        config: The run.
        device: Where held-out scores are computed.
        show: Where it tells.
        budget_minutes: Length of the bar, where the clock decides.
        began: Where a resumed run stood; None: at the beginning.
        enabled: Whether this is the main process.
    """

    def __init__(
        self,
        config: TrainConfig,
        device: torch.device,
        show: Show,
        *,
        budget_minutes: float | None,
        began: Progress | None = None,
        enabled: bool,
    ) -> None:
        self.config, self.report, self._device, self._enabled = config, show.report, device, enabled
        self._budget_minutes = budget_minutes
        self._losses: list[float] = []
        self._waited_s, self._minutes = 0.0, began.minutes if began else 0.0
        self._show_rest: Callable[[], None] | None = None  # steps since the last line
        self._judged_by = judging_clips(config) if enabled else []
        self._writer: Any = None
        if show.log_folder is not None and enabled:
            from torch.utils.tensorboard import SummaryWriter

            # Points of steps that a kill undid are taken back.
            self._writer = SummaryWriter(str(show.log_folder), purge_step=began.step if began else None)
        self._bar: Any = None
        if show.bar and enabled:
            by_clock = budget_minutes is not None
            shape = "{percentage:3.0f}%|{bar}| {elapsed}<{remaining} {postfix}"
            self._bar = tqdm(
                total=1.0 if by_clock else config.steps, bar_format=shape if by_clock else None, unit="step"
            )

    def stepped(self, now: Progress, stage: Stage, stepped: Stepped, waited_s: float, share: float) -> None:
        """Take note of a step."""
        if not self._enabled:
            return
        self._losses.append(stepped.loss)
        self._waited_s += waited_s
        if self._bar is not None:
            self._bar.update((min(share, 1.0) if self._budget_minutes else now.step) - self._bar.n)
        self._show_rest = partial(self._show, replace(now), stage, stepped.norm, share)
        if now.step % _EVERY == 0:
            self._show_rest()

    def _show(self, now: Progress, stage: Stage, norm: float, share: float) -> None:
        """A line, or the bar's text, and points of the curves, of the steps since the last ones."""
        self._show_rest = None
        mean = sum(self._losses) / len(self._losses)
        seconds = max((now.minutes - self._minutes) * 60, 1e-9)
        rate, waited = len(self._losses) / seconds, self._waited_s / seconds
        text = f"loss {mean:.4f}, {rate:.2f} steps/s, {stage.width}x{stage.height}"
        if self._bar is not None:
            self._bar.set_postfix_str(f"step {now.step}, {text}")
        else:
            left = f", {_minutes_left(now, share):.0f} min left" if share > 0 else ""
            self.report(f"step {now.step}: {text}, {now.minutes:.1f} min{left}")
        if self._writer is not None:
            curves = {"loss": mean, "gradient norm": norm, "steps per second": rate, "share waiting for data": waited}
            for name, value in curves.items():
                self._writer.add_scalar(name, value, now.step)
        self._losses.clear()
        self._waited_s, self._minutes = 0.0, now.minutes

    def validate(self, folder: Path, step: int) -> float:
        """Mean held-out AbsRel of a saved checkpoint, run by the engine; logs curve and pictures."""
        from depth_engine import DepthEngine
        from depth_engine.depth.metrics import evaluate_depth, evaluate_disparity

        # One of several processes calls its CPU cpu:0.
        device = "cpu" if self._device.type == "cpu" else str(self._device)
        engine = DepthEngine.from_pretrained(folder, device=device)
        evaluate = evaluate_disparity if engine.spec.kind == "disparity" else evaluate_depth
        scores, panels = [], []
        for clip in itertools.chain.from_iterable(self._judged_by):
            # Of the network alone, which is what is trained; optical flow also needs more than a bare checkout has.
            values = engine.estimate(clip.rgb, shots=False, flow=False).values
            scores.append(evaluate(values, clip.capped_m, clip.known, MAX_DEPTH_M).abs_rel)
            depth_m = np.where(clip.known[-1], clip.depth_m[-1], np.inf)
            near = 1 / depth_m if engine.spec.kind == "disparity" else np.minimum(depth_m, MAX_DEPTH_M)
            panels.append(np.concatenate([clip.rgb[-1], _grey(near), _grey(values[-1])], axis=1))
        if not scores:
            raise ValueError(f"{describe_judging(self.config)}: none of them can be read")
        mean = float(np.mean(scores))
        if self._writer is not None:
            self._writer.add_scalar("held-out AbsRel", mean, step)
            self._writer.add_image("picture, truth, prediction", np.concatenate(panels), step, dataformats="HWC")
        return mean

    def close(self) -> None:
        """Finish bar and logs."""
        if self._show_rest is not None:
            self._show_rest()
        if self._bar is not None:
            self._bar.close()
        if self._writer is not None:
            self._writer.close()


def _minutes_left(now: Progress, share: float) -> float:
    return now.minutes / share - now.minutes


def _grey(values: np.ndarray) -> np.ndarray:
    """A map stretched between its 2 % and 98 % quantiles as uint8 RGB."""
    low, high = np.quantile(values, [0.02, 0.98])
    unit = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
    return np.repeat((unit * 255).astype(np.uint8)[..., None], 3, axis=2)
