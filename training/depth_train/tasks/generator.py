"""Training of the small generator: the next frames of a clip from its first ones and the depth of all.

The loop is that of depth (`loop/`); here is what one step sees and what it is judged by.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, cast

import torch
from depth2video.generators.controlnet import ControlledUNet, DepthControlNet, control_pixels
from depth2video.generators.small import FLOW_UNIT, OUT_CHANNELS, Predicted, SmallSpec, Steered, predict_frames
from torch import Tensor, nn

from depth_engine.models.loading import load_model
from depth_engine.models.svd.codec import PatchCodec, to_pixels
from depth_train.checkpoints.folder import save_half, write_json
from depth_train.config import Stage, TrainConfig
from depth_train.data.batch import crop, normalize
from depth_train.data.clip_pool import Clips
from depth_train.data.draws import uniform, whole
from depth_train.optim.precision import computes_bfloat16, convolve_time_in_2d
from depth_train.optim.spatial import silence_temporal
from depth_train.tasks.loss import masked_mean
from depth_train.tasks.start import unet_shape
from depth_train.tasks.task import Part, StepDraw, Task, TrainedModel

_FLOW_LIMIT = 6.0  # units
_SAME_POINT = 0.05  # share by which the anchor's disparity may differ from a still point's
_SOFT = 1e-3  # below this an error counts as its square: the loss is smooth at zero


class SteeredBatch(NamedTuple):
    """What one step sees.

    Attributes:
        rgb: `[B, T, 3, H, W]` in [-1, 1].
        control: `[B, T, 3, H, W]` in [-1, 1], as at inference.
        depth_m: `[B, T, H, W]`; sky is inf.
        world_from_pixel: See `Clips`.
    """

    rgb: Tensor
    control: Tensor
    depth_m: Tensor
    world_from_pixel: Tensor


@dataclass
class GeneratorModel(TrainedModel):
    """The networks, a `Steered` that is `trained`, and what they expect.

    Attributes:
        spec: What the checkpoint will say of itself.
        bfloat16: Run the networks under autocast.
    """

    spec: SmallSpec
    bfloat16: bool = False

    def predict(self, known: Tensor, control: Tensor, scale: float) -> Predicted:
        """See `predict_frames`."""
        with torch.autocast(known.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            return predict_frames(self.trained, self.spec, known, control, scale)


def small_spec(config: TrainConfig) -> SmallSpec:
    """What the trained generator will expect."""
    window = config.recommends.window or config.max_frames
    return SmallSpec(
        patch=config.network.patch,
        window=window,
        known=window - (config.recommends.stride or window - 2),
        sigma=config.sigma,
        context_c_noise=config.context.c_noise,
        multiple=config.multiple,
    )


def start_generator(config: TrainConfig, init: Path | None, device: torch.device) -> GeneratorModel:
    """A new generator, or a trained one of the same shape to go on with.

    Args:
        config: The run.
        init: Its folder.
        device: Where to train.

    Raises:
        ValueError: What is in `init` does not fit.
    """
    codec = PatchCodec(config.network.patch)
    pixels = codec.condition_channels
    shape = unet_shape(config, in_channels=2 * pixels, out_channels=OUT_CHANNELS * config.network.patch**2)
    unet = ControlledUNet(**shape)
    silence_temporal(unet)
    nn.init.zeros_(unet.conv_out.weight)  # at first nothing moves
    network = Steered(unet, DepthControlNet.from_unet(unet, config.control.channels, carries_motion=True))
    if init is None:
        _open_control(network.controlnet)
    if init is not None:
        cpu = torch.device("cpu")
        for part, kind in (("unet", ControlledUNet), ("controlnet", DepthControlNet)):
            held = load_model(kind, init / part, torch.float32, cpu).state_dict()
            try:
                getattr(network, part).load_state_dict(held)
            except RuntimeError as error:
                raise ValueError(f"--init: the {part} in {init} has another shape than the config's") from error
    network.to(device)
    convolve_time_in_2d(network)
    network.train().requires_grad_(True)
    return GeneratorModel(network, small_spec(config), computes_bfloat16(config.precision, device))


def _open_control(controlnet: DepthControlNet) -> None:
    """Give the zero convolutions of a new ControlNet weights, and let the control's motion through.

    Zeros keep a trained UNet from harm; where both learn from nothing, one zero behind the other only loses time.
    """
    for layer in (
        controlnet.controlnet_cond_embedding.conv_out,
        controlnet.controlnet_mid_block,
        *controlnet.controlnet_down_blocks,
    ):
        if isinstance(layer, nn.Conv2d):
            layer.reset_parameters()
    nn.init.ones_(controlnet.motion_gain)


def draw_generator(stage: Stage, config: TrainConfig, rng: torch.Generator) -> StepDraw:
    """Length and known frames of a step: a window from its first frame, from two, or from the model's own two."""
    overlap = small_spec(config).known
    two_windows = 2 * stage.max_frames - overlap
    whole_windows = stage.max_frames == small_spec(config).window and stage.clip_frames >= two_windows
    if whole_windows and uniform(rng) < config.context.own_probability:
        return StepDraw(two_windows, overlap, True)
    return StepDraw(stage.max_frames, whole(rng, 1, overlap), False)


def batch_generator(
    clips: Clips, config: TrainConfig, step_rng: torch.Generator, clip_rngs: Sequence[torch.Generator]
) -> SteeredBatch:
    """Cut, mirror, recolour; the control is made of true disparity as at inference."""
    cut = crop(clips, config.multiple, config.augmentation, step_rng, clip_rngs)
    disparity = normalize(cut.depth_m, cut.valid, "disparity")
    width = cut.rgb.shape[3]
    # What a mirrored pixel was: u' = width - u.
    mirror = torch.tensor([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]], device=disparity.device)
    rgbs = to_pixels(cut.rgb.movedim(-1, 2))
    parts = []
    for rgb, grey, depth_m, cameras, rng in zip(
        rgbs, disparity, cut.depth_m, cut.world_from_pixel, clip_rngs, strict=True
    ):
        if uniform(rng) < 0.5:
            rgb, grey, depth_m = rgb.flip(-1), grey.flip(-1), depth_m.flip(-1)
            cameras = torch.cat([cameras[:, :, :3] @ mirror, cameras[:, :, 3:]], dim=2)
        counts = ((grey + 1) * 127.5).round().to(torch.uint8)
        control = control_pixels(counts[..., None].expand(*counts.shape, 3))
        parts.append((recolor(rgb, rng), control, depth_m, cameras))
    return SteeredBatch(*(torch.stack(part) for part in zip(*parts, strict=True)))


def recolor(rgb: Tensor, rng: torch.Generator) -> Tensor:
    """A clip in other colours, alike for all its frames: what a frame looks like must come from the first one.

    Args:
        rgb: `[T, 3, H, W]` in [-1, 1].
        rng: Of the clip.
    """
    rgb = rgb[:, torch.randperm(3, generator=rng).to(rgb.device)]
    gain = torch.tensor([uniform(rng, 0.6, 1.3) for _ in range(3)])[:, None, None].to(rgb)
    offset, saturation = uniform(rng, -0.25, 0.25), uniform(rng, 0.0, 1.5)
    grey = rgb.mean(dim=1, keepdim=True)
    sign = -1 if uniform(rng) < 0.1 else 1
    return (sign * ((grey + (rgb - grey) * saturation) * gain + offset)).clamp(-1, 1)


def generator_loss(
    model: GeneratorModel,
    batch: SteeredBatch,
    draw: StepDraw,
    config: TrainConfig,
    rngs: Sequence[torch.Generator],
) -> Tensor:
    """Absolute error of the new frames, of their gradients, and of the flow where the truth has one.

    The control is left out of some steps.

    Args:
        model: What is trained.
        batch: Clips of `draw.frames` frames.
        draw: From `draw_generator`.
        config: Says how.
        rngs: One per clip; the first one draws for the step.
    """
    scale = 0.0 if uniform(rngs[0]) < config.control.dropout else 1.0
    rgb, control, depth_m, cameras = batch
    window = model.spec.window
    if draw.own:
        before = draw.frames - window
        with torch.no_grad():
            own = model.predict(rgb[:, :1], control[:, :window], scale).rgb.clamp(-1, 1)
        # Frames before .. before + known - 1 of the clip were the last new ones of the window before.
        known = own[:, before - 1 : before - 1 + draw.known]
        rgb, control, depth_m, cameras = (values[:, before:] for values in batch)
    else:
        known = rgb[:, : draw.known]
    new = model.predict(known, control, scale)
    error = new.rgb - rgb[:, draw.known :]
    loss = _absolute(error)
    truth, seen = true_flow(depth_m, cameras, draw.known - 1)
    off = (new.flow - truth[:, draw.known :]) / FLOW_UNIT
    # Far-off flow counts no more than linearly, and no pixel for more than a few units: it may be a thing that moved.
    loss = loss + config.generator.flow_weight * masked_mean(
        off.abs().clamp_max(_FLOW_LIMIT).mean(2), seen[:, draw.known :]
    )
    for axis in (-1, -2):
        loss = loss + config.loss.gradient_weight * _absolute(error.diff(dim=axis))
    if error.shape[1] > 1:
        loss = loss + 0.5 * config.loss.temporal_weight * _absolute(error.diff(dim=1))
    return loss


@torch.no_grad()
def true_flow(depth_m: Tensor, world_from_pixel: Tensor, anchor: int) -> tuple[Tensor, Tensor]:
    """Where in the anchor frame the still points of a clip are, relative to their own place.

    Args:
        depth_m: Planar depth `[B, T, H, W]`; sky is inf.
        world_from_pixel: See `Clips`.
        anchor: Index of the frame.

    Returns:
        `[B, T, 2, H, W]` in shares of the width, and bool `[B, T, H, W]`: whether the anchor saw the point, at the
        depth that a still point would have.
    """
    batch, frames, height, width = depth_m.shape
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)]).flatten(1).to(depth_m)  # [3, H W]
    turn, place = world_from_pixel[..., :3].double(), world_from_pixel[..., 3:].double()
    to_anchor = torch.linalg.inv(turn[:, anchor])[:, None]
    # In disparity, so that the sky is no exception: a pixel p of disparity d lies at A^-1 (B p + (t - t_a) d).
    disparity = depth_m.reciprocal().flatten(2)[:, :, None].double()
    points = to_anchor @ turn @ pixels.double() + (to_anchor @ (place - place[:, anchor][:, None])) * disparity
    before = points[:, :, 2] > 1e-6
    at = (points[:, :, :2] / points[:, :, 2:].clamp_min(1e-6)).float()
    flow = ((at - pixels[:2]) / width).unflatten(3, (height, width))
    column, row = at[:, :, 0].floor().long(), at[:, :, 1].floor().long()
    inside = before & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    there = depth_m[:, anchor].reciprocal().flatten(1)[:, None].expand(-1, frames, -1).gather(2, index)
    expected = (disparity[:, :, 0] / points[:, :, 2].clamp_min(1e-6)).float()
    same = (there - expected).abs() <= _SAME_POINT * torch.maximum(there, expected) + 1e-6
    seen = (inside & same).unflatten(2, (height, width)) & torch.isfinite(flow).all(2)
    return torch.nan_to_num(flow, posinf=0.0, neginf=0.0), seen


def _absolute(error: Tensor) -> Tensor:
    return (error**2 + _SOFT**2).sqrt().mean()


def check_generator(init: Path | None) -> None:
    """See that `init` holds a generator.

    Raises:
        ValueError: It does not.
    """
    if init is not None:
        SmallSpec.read(init)


def write_generator(folder: Path, weights: Steered, config: TrainConfig) -> None:
    """Write a folder that `depth2video` loads.

    Args:
        folder: Made here.
        weights: The networks to keep, the running average.
        config: Written beside them.
    """
    save_half(weights.unet, folder / "unet")
    save_half(weights.controlnet, folder / "controlnet")
    small_spec(config).write(folder)
    write_json(folder / "train_config.json", asdict(config))


class GeneratorTask(Task[GeneratorModel, SteeredBatch]):
    """The small generator of depth2video."""

    def check(self, init: Path | None) -> None:
        """See `check_generator`."""
        check_generator(init)

    def start(self, init: Path | None, device: torch.device) -> GeneratorModel:
        """See `start_generator`."""
        return start_generator(self.config, init, device)

    def draw(self, stage: Stage, rng: torch.Generator) -> StepDraw:
        """See `draw_generator`."""
        return draw_generator(stage, self.config, rng)

    def batch(self, clips: Clips, step_rng: torch.Generator, clip_rngs: Sequence[torch.Generator]) -> SteeredBatch:
        """See `batch_generator`."""
        return batch_generator(clips, self.config, step_rng, clip_rngs)

    def loss(self, model: GeneratorModel, part: Part[SteeredBatch]) -> Tensor:
        """See `generator_loss`."""
        return generator_loss(model, part.batch, part.draw, self.config, part.rngs)

    def write(self, folder: Path, weights: nn.Module) -> None:
        """See `write_generator`."""
        write_generator(folder, cast(Steered, weights), self.config)
