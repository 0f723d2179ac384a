"""What a run starts from: a new small UNet, a checkpoint of this project, or SVD."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from depth_engine.models.loading import load_model, resolve_checkpoint
from depth_engine.models.svd.codec import Codec, PatchCodec, VaeCodec, load_codec
from depth_engine.models.svd.embed import ConstantEmbedder, load_embedder
from depth_engine.models.svd.spec import CHRONODEPTH, CheckpointSpec
from depth_engine.models.svd.unet import DepthUNet
from depth_train.config import TrainConfig
from depth_train.optim.precision import computes_bfloat16, convolve_time_in_2d, normalize_narrow
from depth_train.optim.spatial import silence_temporal
from depth_train.tasks.depth import DepthModel

ADDED_TIME_IDS = (6.0, 127.0, 0.0)  # ChronoDepth's


def checkpoint_spec(config: TrainConfig) -> CheckpointSpec:
    """What the trained model will expect of the engine."""
    one_step = config.stages[-1].objective == "one_step"
    window = config.recommends.window or config.max_frames
    return replace(
        CHRONODEPTH,
        kind=config.kind,
        scale_condition=bool(config.base),
        embedding="zero_image" if config.base else "none",
        added_time_ids=ADDED_TIME_IDS,
        start="zero" if one_step else "noise",
        decode_chunk=CHRONODEPTH.decode_chunk if config.base else 1,
        context_c_noise=config.context.c_noise,
        sampler="euler",
        window=window,
        stride=config.recommends.stride or max(1, window // 2),
        steps=1 if one_step else CHRONODEPTH.steps,
        multiple=config.multiple,
        max_res=config.recommends.max_res,
        area_px=config.recommends.area_px,
        flow=one_step and not config.base,
    )


def start_model(config: TrainConfig, init: Path | None, device: torch.device) -> DepthModel:
    """The model to train, in float32, with the SVD that it belongs to, if it does.

    Args:
        config: The run.
        init: Checkpoint folder of the same shape to start from.
        device: Where to.

    Raises:
        ValueError: A file is missing or damaged, or the parts do not fit each other.
    """
    spec = checkpoint_spec(config)
    base = resolve_checkpoint(config.base, spec=spec) if config.base else None
    if base is None:
        codec: Codec = PatchCodec(config.network.patch)
        embedder = ConstantEmbedder(torch.zeros(config.network.embedding_dim))
        unet = build_unet(config)
        silence_temporal(unet)
    else:
        codec = load_codec(base, torch.float32, device)
        unet = load_model(DepthUNet, base.unet, torch.float32, device)
        unet = fit_input(unet, codec, spec)
        embedder = load_embedder(base, int(unet.config["cross_attention_dim"]), device, torch.float32)
    if init is not None:
        unet.load_state_dict(_weights_of(init, unet))
    torch.nn.Module.to(unet, device)
    convolve_time_in_2d(unet)
    if device.type == "cuda":
        normalize_narrow(unet)
    unet.train().requires_grad_(True)
    if config.checkpoint_activations:
        unet.enable_gradient_checkpointing()
        if isinstance(codec, VaeCodec):  # one-step training goes through its decoder
            codec.vae.enable_gradient_checkpointing()
    bfloat16 = computes_bfloat16(config.precision, device)
    return DepthModel(unet, codec, embedder, spec, config.sigma, bfloat16, base)


def _weights_of(init: Path, unet: DepthUNet) -> dict[str, torch.Tensor]:
    folder = init / "unet" if (init / "unet").is_dir() else init
    held = load_model(DepthUNet, folder, torch.float32, torch.device("cpu")).state_dict()
    wanted = unet.state_dict()
    if [(key, value.shape) for key, value in held.items()] != [(key, value.shape) for key, value in wanted.items()]:
        raise ValueError(f"--init: the UNet in {init} has another shape than the config's")
    return held


def build_unet(config: TrainConfig) -> DepthUNet:
    """A small UNet of SVD's class for depth and the patch codec."""
    codec = PatchCodec(config.network.patch)
    channels = codec.condition_channels + codec.depth_channels
    return DepthUNet(**unet_shape(config, in_channels=channels, out_channels=codec.depth_channels))


def unet_shape(config: TrainConfig, *, in_channels: int, out_channels: int) -> dict[str, Any]:
    """Arguments of a small UNet of SVD's class."""
    return {
        "sample_size": 24,
        "in_channels": in_channels,
        "out_channels": out_channels,
        "down_block_types": tuple(
            f"{'CrossAttn' if attends else ''}DownBlockSpatioTemporal" for attends in config.network.attention
        ),
        "up_block_types": tuple(
            f"{'CrossAttn' if attends else ''}UpBlockSpatioTemporal" for attends in reversed(config.network.attention)
        ),
        "block_out_channels": config.network.channels,
        "layers_per_block": 1,
        "cross_attention_dim": config.network.embedding_dim,
        "num_attention_heads": config.network.heads,
        "addition_time_embed_dim": 32,
        "projection_class_embeddings_input_dim": 3 * 32,
        "num_frames": config.max_frames,
    }


@torch.no_grad()
def fit_input(unet: DepthUNet, codec: Codec, spec: CheckpointSpec) -> DepthUNet:
    """Make SVD's input convolution take what the engine feeds, without changing what the network does.

    SVD takes noisy latents first, then unscaled condition latents; a UNet without a condition takes the noisy ones
    alone. Their weights move to where the spec puts them, those of a scaled condition are divided by the scale, and
    those of a new condition are zero, so that the network's output is at first what it was.

    Raises:
        ValueError: The UNet takes neither number of channels.
    """
    old = unet.conv_in
    noisy, condition = codec.depth_channels, codec.condition_channels
    if old.in_channels not in (noisy, noisy + condition):
        raise ValueError(
            f"base: its UNet takes {old.in_channels} channels; accepted: {noisy} (noisy latents) or "
            f"{noisy + condition} (and a condition)"
        )
    noisy_weight = old.weight[:, :noisy]
    condition_weight = noisy_weight.new_zeros(len(old.weight), condition, *old.kernel_size)
    if old.in_channels > noisy:
        scale = float(getattr(codec, "scaling_factor", 1.0)) if spec.scale_condition else 1.0
        condition_weight = old.weight[:, noisy:] / scale
    parts = [condition_weight, noisy_weight] if spec.condition_first else [noisy_weight, condition_weight]
    new = nn.Conv2d(noisy + condition, old.out_channels, old.kernel_size, padding=old.padding)  # type: ignore[arg-type]
    new.weight.copy_(torch.cat(parts, dim=1))
    if new.bias is not None and old.bias is not None:
        new.bias.copy_(old.bias)
    unet.conv_in = new
    unet.register_to_config(in_channels=noisy + condition)
    return unet
