"""Trains the bundled checkpoint: draw clips, step, average, save. Every draw is keyed by (seed, step)."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from depth_engine.checkpoints import CheckpointSpec, load_model
from depth_engine.codec import PatchCodec, to_pixels
from depth_engine.unet import DepthUNet
from training.config import Stage, TrainConfig
from training.loss import OneStepModel, depth_loss
from training.optimizers import make_optimizers, set_rate
from training.precision import convolve_time_in_2d
from training.scenes import FIRST_TRAINING_SEED, make_clips
from training.spatial import silence_temporal, spatial_only
from training.state import STATE_FOLDER, Progress, load_state, save_state

ADDED_TIME_IDS = (6.0, 127.0, 0.0)
# Steps left out because half precision overflowed; more of them mean that something else is wrong.
MAX_SKIPPED = 50


def build_unet(config: TrainConfig) -> DepthUNet:
    """A small UNet of SVD's class for the patch codec."""
    down = tuple(f"{'CrossAttn' if attends else ''}DownBlockSpatioTemporal" for attends in config.attention)
    up = tuple(f"{'CrossAttn' if attends else ''}UpBlockSpatioTemporal" for attends in reversed(config.attention))
    codec = PatchCodec(config.patch)
    return DepthUNet(
        sample_size=24,
        in_channels=codec.condition_channels + codec.depth_channels,
        out_channels=codec.depth_channels,
        down_block_types=down,
        up_block_types=up,
        block_out_channels=config.channels,
        layers_per_block=1,
        cross_attention_dim=config.embedding_dim,
        num_attention_heads=config.heads,
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=3 * 32,
        num_frames=config.max_frames,
    )


def bundled_spec(config: TrainConfig) -> CheckpointSpec:
    """What the trained model expects of the engine."""
    return CheckpointSpec(
        kind="disparity",
        condition_first=True,
        scale_condition=False,
        embedding="none",
        added_time_ids=ADDED_TIME_IDS,
        condition_noise=0.0,
        start="zero",
        to_depth="mean_then_clip",
        decode_chunk=1,
        context_c_noise=config.context_c_noise,
        sampler="euler",
        strategy="context",
        window=config.max_frames,
        stride=config.max_frames // 2,
        steps=1,
        multiple=config.multiple,
        max_res=config.max_res,
    )


def normalized_disparity(depth_m: Tensor) -> Tensor:
    """Disparity of clips, affine-normalised: 2 % and 98 % quantiles of the clip at -1 and 1, clipped.

    The quantiles are Marigold's (config/train_marigold_depth.yaml), taken per clip so that one scale holds for all
    frames.

    Args:
        depth_m: Planar depth in metres, `[B, T, H, W]`; infinite for sky.
    """
    disparity = depth_m.reciprocal()  # sky -> 0
    # Every fourth pixel is plenty for a quantile, and torch.quantile takes 16 M values at the most.
    sample = disparity[..., ::4, ::4].flatten(1)
    low, high = torch.quantile(sample, torch.tensor([0.02, 0.98], device=sample.device), dim=1)
    low, high = (edge[:, None, None, None] for edge in (low, high))
    unit = (disparity - low) / (high - low).clamp_min(1e-6)
    return unit.clamp(0, 1) * 2 - 1


class ClipPool:
    """Rendered clips, reused a few times; each step replaces the oldest. Its content depends on the step alone."""

    def __init__(self, stage: Stage, seed: int, device: torch.device) -> None:
        # Runs of other seeds see other scenes: a million each, counted from the first training seed.
        self.first_seed = FIRST_TRAINING_SEED * (1 + seed)
        self.stage, self.frames, self.device = stage, stage.clip_frames, device
        shape = (stage.pool, stage.clip_frames, stage.height, stage.width)
        self.rgb = torch.zeros(*shape, 3, dtype=torch.uint8)
        self.depth_m = torch.zeros(*shape, dtype=torch.float32)
        self.rendered = 0

    def fill(self, count: int) -> None:
        """Render `count` more clips."""
        for first in range(self.rendered, self.rendered + count, 8):
            numbers = range(first, min(first + 8, self.rendered + count))
            seeds = [self.first_seed + number for number in numbers]
            clips = make_clips(seeds, self.frames, self.stage.height, self.stage.width, device=str(self.device))
            slots = torch.tensor([number % self.stage.pool for number in numbers])
            self.rgb[slots], self.depth_m[slots] = clips.rgb.cpu(), clips.depth_m.cpu()
        self.rendered += count

    def refill(self, rendered: int) -> None:
        """Render again what a pool holds after so many clips."""
        self.rendered = max(0, rendered - self.stage.pool)
        self.fill(rendered - self.rendered)

    def draw(self, frames: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """A batch of uint8 RGB `[B, T, H, W, 3]` and depth in metres `[B, T, H, W]`, strided and perhaps reversed."""
        held = min(self.rendered, self.stage.pool)
        rgb, depth_m = [], []
        for index in torch.randint(held, (self.stage.batch,), generator=generator).tolist():
            longest_stride = max(1, (self.frames - 1) // max(1, frames - 1))
            stride = int(torch.randint(1, min(longest_stride, 3) + 1, (), generator=generator))
            start = int(torch.randint(self.frames - (frames - 1) * stride, (), generator=generator))
            places = torch.arange(frames) * stride + start
            if torch.rand((), generator=generator) < 0.5:
                places = places.flip(0)
            rgb.append(self.rgb[index, places])
            depth_m.append(self.depth_m[index, places])
        return torch.stack(rgb).to(self.device), torch.stack(depth_m).to(self.device)


def augment(rgb: Tensor, target: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirror both; jitter the colours of RGB alone, alike over a clip.

    Args:
        rgb: `[B, T, 3, H, W]` in [-1, 1].
        target: `[B, T, H, W]`.
        generator: On the CPU.
    """
    batch = len(rgb)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return (low + (high - low) * torch.rand(batch, *shape, generator=generator)).to(rgb.device)

    mirror = uniform(0, 1, 1, 1, 1) < 0.5
    target = torch.where(mirror, target.flip(-1), target)
    rgb = torch.where(mirror[..., None], rgb.flip(-1), rgb)

    gain, offset = uniform(0.8, 1.25, 1, 3, 1, 1), uniform(-0.15, 0.15, 1, 1, 1, 1)
    grey = rgb.mean(dim=2, keepdim=True)
    saturation = uniform(0, 1.3, 1, 1, 1, 1)
    rgb = (grey + (rgb - grey) * saturation) * gain + offset
    noise = torch.randn(rgb.shape, generator=generator).to(rgb.device) * uniform(0, 0.04, 1, 1, 1, 1)
    return (rgb + noise).clamp(-1, 1), target


def crop(rgb: Tensor, depth_m: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cut every other batch to another shape, down to two thirds of one side, in steps of 16 pixels.

    Args:
        rgb: `[B, T, H, W, 3]`.
        depth_m: `[B, T, H, W]`.
        generator: On the CPU.
    """
    size = list(depth_m.shape[2:])
    if torch.rand((), generator=generator) < 0.5:
        side = int(torch.randint(2, (), generator=generator))
        least = -(-size[side] * 2 // 48)  # two thirds, rounded up to a multiple of 16
        size[side] = 16 * int(torch.randint(least, size[side] // 16 + 1, (), generator=generator))
    top, left = (
        int(torch.randint(whole - part + 1, (), generator=generator))
        for whole, part in zip(depth_m.shape[2:], size, strict=True)
    )
    cut = (..., slice(top, top + size[0]), slice(left, left + size[1]))
    return rgb.movedim(-1, 2)[cut].movedim(2, -1), depth_m[cut]


def follow_context(target: Tensor, context: Tensor) -> Tensor:
    """The target in the scale and shift that the context already has, so that the model learns to go on in it.

    One least-squares fit per clip over the context frames; the scale is held near 1, or else a flat context would teach
    flat depth.

    Args:
        target: Normalised truth, `[B, T, H, W]`.
        context: Depth of the first k frames as given to the model, `[B, k, H, W]`.
    """
    truth = target[:, : context.shape[1]].flatten(1)
    given = context.flatten(1)
    truth_mean, given_mean = truth.mean(1, keepdim=True), given.mean(1, keepdim=True)
    covariance = ((truth - truth_mean) * (given - given_mean)).mean(1, keepdim=True)
    scale = (covariance / truth.var(1, unbiased=False, keepdim=True).clamp_min(1e-4)).clamp(0.85, 1.15)
    shift = given_mean - scale * truth_mean
    return target * scale[..., None, None] + shift.clamp(-0.2, 0.2)[..., None, None]


def training_loss(
    model: OneStepModel, rgb: Tensor, target: Tensor, config: TrainConfig, rng: torch.Generator
) -> Tensor:
    """Loss of one batch: without context, with true context, or with the model's own prediction as context."""
    frames = rgb.shape[1]
    known = 0
    if frames > 1 and torch.rand((), generator=rng) < config.context_probability:
        known = int(torch.randint(1, frames, (), generator=rng))
    own = bool(torch.rand((), generator=rng) < config.own_context_probability)

    if known and own:
        with torch.no_grad():
            context = model.predict(rgb[:, :known], target[:, :0]).clamp(-1, 1)
        target = follow_context(target, context)
    else:
        scale = (0.9 + 0.2 * torch.rand(len(rgb), 1, 1, 1, generator=rng)).to(target)
        shift = (0.1 * torch.randn(len(rgb), 1, 1, 1, generator=rng)).clamp(-0.2, 0.2).to(target)
        target = target * scale + shift if known else target
        context = target[:, :known]

    prediction = model.predict(rgb, context)
    last_known = context[:, -1:] if known else None
    return depth_loss(
        prediction,
        target[:, known:],
        last_known,
        affine_weight=config.affine_weight,
        gradient_weight=config.gradient_weight,
        temporal_weight=config.temporal_weight,
    )


def rate_share(config: TrainConfig, step: int, progress: float) -> float:
    """Share of the peak rate: linear warm-up, a plateau, then a cosine to zero at the end of the run."""
    falling = max(0.0, min(progress, 1.0) - config.decay_from) / (1 - config.decay_from)
    return min(1, (step + 1) / config.warmup) * 0.5 * (1 + math.cos(math.pi * falling))


def save_checkpoint(
    folder: Path, unet: DepthUNet, config: TrainConfig, write_state: Callable[[Path], None] | None = None
) -> None:
    """Write a folder that the engine loads; weights in float16. The old folder stays until the new one is whole.

    Args:
        folder: Where.
        unet: Weights to keep, the running average.
        config: Written beside them.
        write_state: Writes what `resume` needs into a folder within; None at the end of the run.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    weights = build_unet(config)
    weights.load_state_dict(unet.state_dict())
    weights.half().save_pretrained(partial / "unet")
    (partial / "codec").mkdir()
    codec = {"_class_name": "PatchCodec", "patch": config.patch}
    (partial / "codec" / "config.json").write_text(json.dumps(codec, indent=2) + "\n")
    scheduler = {"_class_name": "EulerDiscreteScheduler", "sigma_min": 0.002, "sigma_max": config.sigma}
    (partial / "scheduler").mkdir()
    settings = {
        **scheduler,
        "prediction_type": "v_prediction",
        "timestep_type": "continuous",
        "timestep_spacing": "leading",
        "use_karras_sigmas": True,
    }
    (partial / "scheduler" / "scheduler_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    (partial / "depth_engine.json").write_text(json.dumps(bundled_spec(config).to_json(), indent=2) + "\n")
    (partial / "train_config.json").write_text(json.dumps(asdict(config), indent=2) + "\n")
    if write_state is not None:
        write_state(partial / STATE_FOLDER)
    previous = folder.with_name(folder.name + ".previous")
    shutil.rmtree(previous, ignore_errors=True)  # left by a kill between the two renames below
    if folder.exists():
        os.replace(folder, previous)
    os.replace(partial, folder)
    shutil.rmtree(previous, ignore_errors=True)


def train(
    config: TrainConfig,
    folder: Path,
    *,
    budget_minutes: float | None = None,
    init: Path | None = None,
    device: str = "cpu",
    resume: bool = False,
    save_every_s: float = 300,
    report: Callable[[str], None] = print,
) -> None:
    """Train until the steps or the minutes are up, leaving a loadable checkpoint from time to time.

    A run that was killed goes on from its last checkpoint with `resume`: the draws depend on the step alone, so on the
    same hardware the weights are those of an unbroken run (with a budget in minutes, up to the clock).

    Args:
        config: The run.
        folder: Checkpoint folder to write.
        init: Checkpoint folder of the same shape to start from, instead of random weights.
        budget_minutes: Wall-clock budget; the schedule follows it. None: `config.steps` decides alone.
        device: Where to train.
        resume: Go on with the interrupted run in `folder`.
        save_every_s: Seconds between checkpoints.
        report: Takes progress lines.

    Raises:
        ValueError: There is no interrupted run to resume, or it had another config.
        FloatingPointError: The run diverged.
    """
    if resume:
        check_same_config(config, folder)
    where = torch.device(device)
    torch.set_flush_denormal(True)  # the running average makes denormals, and they are slow on a CPU
    torch.manual_seed(config.seed)
    unet, average = build_unet(config), build_unet(config)
    for model_part in (unet, average):
        torch.nn.Module.to(model_part, where)
    if init is not None:
        start = load_model(DepthUNet, init / "unet", torch.float32, where)
        unet.load_state_dict(start.state_dict())
    else:
        silence_temporal(unet)
    convolve_time_in_2d(unet)
    average.requires_grad_(False)
    average.load_state_dict(unet.state_dict())
    model = OneStepModel(
        unet, PatchCodec(config.patch), config.sigma, config.context_c_noise, ADDED_TIME_IDS, config.bfloat16
    )
    optimizers = make_optimizers(unet, config)

    now = load_state(folder / STATE_FOLDER, unet, average, optimizers) if resume else Progress()
    pool = ClipPool(config.stages[now.stage], config.seed, where) if resume else None
    if pool is not None:
        pool.refill(now.rendered)

    def write_state(target: Path) -> None:
        save_state(target, unet, average, optimizers, now)

    began, saved = time.monotonic() - now.minutes * 60, time.monotonic()
    recent: list[float] = []
    while True:
        now.minutes = (time.monotonic() - began) / 60
        share = max(now.step / config.steps, now.minutes / budget_minutes if budget_minutes else 0.0)
        if share >= 1:
            break
        stage = next(stage for stage in config.stages if share < stage.until)
        if pool is None or pool.stage is not stage:
            pool = ClipPool(stage, config.seed, where)
            pool.fill(stage.pool // 4)
        step = now.step
        pool.fill(int((step + 1) * stage.fresh) - int(step * stage.fresh))
        now.stage, now.rendered = config.stages.index(stage), pool.rendered

        rng = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        frames = int(torch.randint(1, stage.max_frames + 1, (), generator=rng))
        rgb_uint8, depth_m = crop(*pool.draw(frames, rng), rng)
        rgb, target = augment(to_pixels(rgb_uint8.movedim(-1, 2)), normalized_disparity(depth_m), rng)
        with spatial_only(unet) if stage.spatial else contextlib.nullcontext():
            loss = training_loss(model, rgb, target, config, rng)
            loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(unet.parameters(), config.clip_norm)
        set_rate(optimizers.values(), rate_share(config, step, share))
        if torch.isfinite(norm):
            for optimizer in optimizers.values():
                optimizer.step()
        else:
            now.skipped += 1
            if now.skipped > MAX_SKIPPED:
                raise FloatingPointError(f"step {step}: the gradient was not finite {now.skipped} times; it diverged")
        unet.zero_grad(set_to_none=True)
        # An average over all steps at first, over the half-life later.
        keep = min(0.5 ** (1 / config.ema_half_life), (1 + step) / (10 + step))
        with torch.no_grad():
            for mean, weight in zip(average.parameters(), unet.parameters(), strict=True):
                mean.lerp_(weight, 1 - keep)

        recent.append(loss.item())
        now.step += 1
        if now.step % 50 == 0:
            mean = sum(recent) / len(recent)
            report(f"step {now.step}  loss {mean:.4f}  {now.minutes:.1f} min  {stage.height}x{stage.width}")
            recent.clear()
        if time.monotonic() - saved > save_every_s:
            now.minutes = (time.monotonic() - began) / 60
            save_checkpoint(folder, average, config, write_state)
            saved = time.monotonic()
    save_checkpoint(folder, average, config)
    left_out = f", {now.skipped} left out for a gradient that was not finite" if now.skipped else ""
    report(f"{now.step} steps{left_out}; checkpoint in {folder}")


def check_same_config(config: TrainConfig, folder: Path) -> None:
    """See that `folder` holds an interrupted run of this config.

    Raises:
        ValueError: One line that says what is there instead.
    """
    if not (folder / STATE_FOLDER).is_dir():
        raise ValueError(f"resume: {folder} holds no interrupted run")
    held = json.loads((folder / "train_config.json").read_text())
    wanted = json.loads(json.dumps(asdict(config)))
    differing = [key for key in wanted if held.get(key) != wanted[key]]
    if differing:
        key = differing[0]
        raise ValueError(f"resume: the run in {folder} had {key} {held.get(key)}, not {wanted[key]}")
