"""Training of the depth ControlNet at full size: SVD, frozen, is to make a clip of its first frame and its depth.

The loop is that of depth (`loop/`); here is what one step sees and what it is judged by. Preconditioning, time
ids, codec and control are those that depth2video's `svd` generates with. What the published training of such a network
did otherwise, by mistake (CiaraStrawberry/svd-temporal-controlnet): RGB was cut and mirrored without its depth; control
was in [0, 1]; time ids were in another order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from depth2video.control import clip_range, to_control, to_disparity
from depth2video.generators.controlnet import ControlledUNet, DepthControlNet, control_pixels, run_controlled
from depth2video.generators.svd import SVD_SPEC, added_time_ids, load_controlnet, load_svd_base
from torch import Tensor, nn

from depth_engine.models.loading import resolve_checkpoint
from depth_engine.models.svd.codec import VaeCodec, to_pixels
from depth_engine.models.svd.denoise import precondition, unet_input
from depth_engine.models.svd.embed import Embedder
from depth_train.checkpoints.folder import save_half, write_json
from depth_train.config import Stage, TrainConfig
from depth_train.data.batch import crop
from depth_train.data.clip_pool import Clips
from depth_train.data.draws import uniform, whole
from depth_train.optim.precision import computes_bfloat16, convolve_time_in_2d
from depth_train.tasks.depth import draw_sigma, noise_weight
from depth_train.tasks.task import Part, StepDraw, Task, TrainedModel

# SVD was trained at 3 to 30 frames a second. Clips are cut at strides, so no rate is truer than another: the ControlNet
# should take the motion from the control, whatever rate is asked for.
_LEAST_FPS, _MOST_FPS = 4, 30
_BLACK = -1.0  # control that says nothing: all is equally far


class ControlBatch(NamedTuple):
    """What one step sees.

    Attributes:
        rgb: `[B, T, 3, H, W]` in [-1, 1].
        control: `[B, T, 3, H, W]` in [-1, 1], as at inference.
    """

    rgb: Tensor
    control: Tensor


@dataclass
class ControlNetModel(TrainedModel):
    """The `DepthControlNet`, `trained`, with what it needs around it.

    Attributes:
        unet: SVD's, frozen, which the ControlNet steers.
        codec: SVD's VAE, frozen.
        embedder: CLIP's image tower, frozen.
        bfloat16: Run ControlNet and UNet under autocast.
    """

    unet: ControlledUNet
    codec: VaeCodec
    embedder: Embedder
    bfloat16: bool = False

    @property
    def frozen_parts(self) -> list[nn.Module]:
        """SVD's networks."""
        tower = getattr(self.embedder, "model", None)
        return [self.unet, self.codec.vae, *([] if tower is None else [tower])]

    def denoise(
        self, noisy: Tensor, sigma: Tensor, condition: Tensor, embedding: Tensor, ids: Tensor, control: Tensor
    ) -> Tensor:
        """Denoised latents `[B, T, C, h, w]`.

        Args:
            noisy: Scaled latents with noise, `[B, T, C, h, w]`.
            sigma: Its levels, `[B, T]`.
            condition: Unscaled latents of the first frame, `[B, C, h, w]`.
            embedding: Of the first frame, `[B, D]`.
            ids: From `added_time_ids`, `[B, 3]`.
            control: `[B, T, 3, H, W]` in [-1, 1].
        """
        scalings = precondition(sigma)
        first = condition[:, None].expand_as(noisy)
        sample = unet_input(scalings.scale(noisy), first, condition_first=SVD_SPEC.condition_first)
        inputs = (sample, scalings.c_noise, embedding[:, None], ids)
        with torch.autocast(noisy.device.type, dtype=torch.bfloat16, enabled=self.bfloat16):
            output = run_controlled(self.unet, cast(DepthControlNet, self.trained), inputs, control).float()
        return scalings.denoise(noisy, output)


def check_controlnet(config: TrainConfig, init: Path | None) -> None:
    """See that base and `init` are there.

    Raises:
        ValueError: A file is missing.
        FileNotFoundError: The base can't be found or fetched.
    """
    try:
        resolve_checkpoint(config.base, spec=SVD_SPEC)
    except (ValueError, FileNotFoundError) as error:
        raise type(error)(f"config: base: {str(error).removeprefix('model: ')}") from error
    if init is not None and not any((folder / "config.json").is_file() for folder in (init, init / "controlnet")):
        raise ValueError(f"--init: {init} holds no ControlNet: config.json is missing")


def start_controlnet(config: TrainConfig, init: Path | None, device: torch.device) -> ControlNetModel:
    """A new ControlNet that adds nothing yet, or a trained one to go on with, beside its SVD; all in float32.

    Args:
        config: The run.
        init: Folder of a ControlNet: one of this project's, or the public one.
        device: Where to train.

    Raises:
        ValueError: A file is missing or damaged, or the parts do not fit each other.
        FileNotFoundError: The base can't be found or fetched.
    """
    files = resolve_checkpoint(config.base, spec=SVD_SPEC)
    frozen, codec, embedder = load_svd_base(files, torch.float32)
    if 2 ** (len(config.control.channels) - 1) != codec.downscale:
        raise ValueError(
            f"config: control: channels: {len(config.control.channels)} widths halve control "
            f"{len(config.control.channels) - 1} times; the VAE of {config.base} makes latents of 1/{codec.downscale}"
        )
    controlnet = DepthControlNet.from_unet(frozen, config.control.channels)
    if init is not None:
        take_over(controlnet, frozen, init)
    model = ControlNetModel(controlnet, frozen, codec, embedder, computes_bfloat16(config.precision, device))
    for module in (controlnet, *model.frozen_parts):
        nn.Module.to(module, device)
    for network in (controlnet, frozen):
        convolve_time_in_2d(network)
        if config.checkpoint_activations:
            network.enable_gradient_checkpointing()
    frozen.requires_grad_(False)
    controlnet.train().requires_grad_(True)
    return model


@torch.no_grad()
def take_over(controlnet: DepthControlNet, unet: ControlledUNet, init: Path) -> None:
    """Fill a ControlNet with the weights of another one.

    The public one's residuals were added several times over (`ControlledUNet.times`). A convolution's output scales
    with its weights, so weights that are as many times larger do the same when they are added once.

    Raises:
        ValueError: It is of another shape, or a file is missing or damaged.
    """
    held, residuals = load_controlnet(init, torch.float32)
    try:
        controlnet.load_state_dict(held.state_dict())
    except RuntimeError as error:
        raise ValueError(f"--init: the ControlNet in {init} has another shape than the config's") from error
    for layer, count in zip(controlnet.controlnet_down_blocks, unet.times(residuals), strict=True):
        for parameter in layer.parameters():
            parameter.mul_(count)


def draw_controlnet(stage: Stage, rng: torch.Generator) -> StepDraw:
    """Length of a step's clips; no frame of them is known, but for the first one's picture."""
    return StepDraw(whole(rng, stage.min_frames, stage.max_frames), 0, False)


def batch_controlnet(
    clips: Clips, config: TrainConfig, step_rng: torch.Generator, clip_rngs: Sequence[torch.Generator]
) -> ControlBatch:
    """Cut and mirror, RGB and depth alike; the control is made of true depth as at inference."""
    cut = crop(clips, config.multiple, config.augmentation, step_rng, clip_rngs)
    parts = []
    for rgb, depth_m, valid, rng in zip(cut.rgb, cut.depth_m, cut.valid, clip_rngs, strict=True):
        control = control_pixels(control_of(depth_m, valid)).to(rgb.device)
        pixels = to_pixels(rgb.movedim(-1, 1))
        parts.append((pixels.flip(-1), control.flip(-1)) if uniform(rng) < 0.5 else (pixels, control))
    return ControlBatch(*(torch.stack(part) for part in zip(*parts, strict=True)))


def control_of(depth_m: Tensor, valid: Tensor) -> np.ndarray:
    """Control frames of true depth, by the functions that make them at inference; one range for the clip.

    Args:
        depth_m: Planar depth `[T, H, W]`; sky is inf.
        valid: bool `[T, H, W]`; where the truth is not known, control is as far as it gets.

    Returns:
        uint8 `[T, H, W, 3]`.
    """
    known = depth_m.masked_fill(~valid, torch.inf).cpu().numpy()
    disparities = [to_disparity(frame, "metric") for frame in known]
    span = clip_range(disparities)
    return np.stack([to_control(disparity, span) for disparity in disparities])


def controlnet_loss(
    model: ControlNetModel, batch: ControlBatch, config: TrainConfig, rngs: Sequence[torch.Generator]
) -> Tensor:
    """Squared error of denoised latents, weighted as SVD's training weighs it (`noise_weight`).

    The first frame, latents and embedding, is left out of some clips, as guidance leaves it out; the control of some is
    black.

    Args:
        model: What is trained, and what it steers.
        batch: Clips.
        config: Says how.
        rngs: One per clip.
    """
    rgb = batch.rgb
    count, frames = rgb.shape[:2]
    sigma = draw_sigma(frames, config, rngs).to(rgb)
    with torch.no_grad():
        clean = model.codec.encode_rgb(rgb.flatten(0, 1)).unflatten(0, (count, frames)) * model.codec.scaling_factor
        first = rgb[:, 0] + config.controlnet.image_noise * _normals(rgb[:, 0], rngs)
        condition, embedding = model.codec.encode_rgb(first), model.embedder(rgb[:, 0]).to(rgb)
    noise = _normals(clean, rngs)
    seen = torch.tensor([uniform(rng) >= config.controlnet.image_dropout for rng in rngs]).to(rgb)
    steered = torch.tensor([uniform(rng) >= config.control.dropout for rng in rngs], device=rgb.device)
    ids = [added_time_ids(whole(rng, _LEAST_FPS, _MOST_FPS), config.controlnet.image_noise) for rng in rngs]
    denoised = model.denoise(
        clean + sigma[..., None, None, None] * noise,
        sigma,
        condition * seen[:, None, None, None],
        embedding * seen[:, None],
        rgb.new_tensor(ids),
        torch.where(steered[:, None, None, None, None], batch.control, _BLACK),
    )
    return ((denoised - clean) ** 2 * noise_weight(sigma, config)[..., None, None, None]).mean()


def _normals(like: Tensor, rngs: Sequence[torch.Generator]) -> Tensor:
    """Standard normals, each clip's from its own generator."""
    return torch.stack([torch.randn(like.shape[1:], generator=rng) for rng in rngs]).to(like)


def write_controlnet(folder: Path, weights: nn.Module, config: TrainConfig) -> None:
    """Write a folder that `depth2video --controlnet` loads.

    Args:
        folder: Made here.
        weights: The ControlNet to keep, the running average.
        config: Written beside it; says which base it steers, which stays where it is.
    """
    save_half(weights, folder / "controlnet")
    write_json(folder / "train_config.json", asdict(config))


class ControlNetTask(Task[ControlNetModel, ControlBatch]):
    """A depth ControlNet for a frozen SVD."""

    def check(self, init: Path | None) -> None:
        """See `check_controlnet`."""
        check_controlnet(self.config, init)

    def start(self, init: Path | None, device: torch.device) -> ControlNetModel:
        """See `start_controlnet`."""
        return start_controlnet(self.config, init, device)

    def draw(self, stage: Stage, rng: torch.Generator) -> StepDraw:
        """See `draw_controlnet`."""
        return draw_controlnet(stage, rng)

    def batch(self, clips: Clips, step_rng: torch.Generator, clip_rngs: Sequence[torch.Generator]) -> ControlBatch:
        """See `batch_controlnet`."""
        return batch_controlnet(clips, self.config, step_rng, clip_rngs)

    def loss(self, model: ControlNetModel, part: Part[ControlBatch]) -> Tensor:
        """See `controlnet_loss`."""
        return controlnet_loss(model, part.batch, self.config, part.rngs)

    def write(self, folder: Path, weights: nn.Module) -> None:
        """See `write_controlnet`."""
        write_controlnet(folder, weights, self.config)
