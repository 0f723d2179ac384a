"""What a training run would be, before it is one: config, parameters, memory."""

from __future__ import annotations

import contextlib
from dataclasses import asdict

import torch
import yaml
from torch import Tensor

from depth_engine.codec import PatchCodec
from training.config import Stage, TrainConfig
from training.finetune import ADDED_TIME_IDS, build_unet
from training.loss import OneStepModel
from training.spatial import spatial_only

_BYTES = 4  # float32: weights, gradients, moments, average


def count_parameters(config: TrainConfig) -> tuple[int, int]:
    """Parameters of the whole UNet and of its spatial half."""
    unet = build_unet(config)
    whole = sum(parameter.numel() for parameter in unet.parameters())
    with spatial_only(unet):
        spatial = sum(parameter.numel() for parameter in unet.parameters())
    return whole, spatial


def saved_bytes_per_pixel(config: TrainConfig, spatial: bool) -> float:
    """What the graph of a forward pass keeps for the backward one, measured on a clip of two 64x64 frames."""
    unet = build_unet(config)
    model = OneStepModel(
        unet, PatchCodec(config.patch), config.sigma, config.context_c_noise, ADDED_TIME_IDS, config.bfloat16
    )
    parameters = {parameter.untyped_storage().data_ptr() for parameter in unet.parameters()}
    kept: dict[int, Tensor] = {}  # the tensors too: an address may be given out again

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in parameters:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    rgb = torch.zeros(1, 2, 3, 64, 64)
    with spatial_only(unet) if spatial else contextlib.nullcontext():
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model.predict(rgb, rgb[:, :0, 0])
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / (2 * 64 * 64)


def estimate_memory(config: TrainConfig, stage: Stage) -> tuple[int, int, int]:
    """Bytes of weights and their company, of what the backward pass needs, and of the pool of clips, in a stage."""
    whole, spatial = count_parameters(config)
    trained = spatial if stage.spatial else whole
    weights = (2 * whole + 3 * trained) * _BYTES  # weights and average; gradient and two moments
    pixels = stage.batch * stage.max_frames * stage.height * stage.width
    pool = stage.pool * stage.clip_frames * stage.height * stage.width * (3 + _BYTES)
    return weights, round(pixels * saved_bytes_per_pixel(config, stage.spatial)), pool


def describe_run(config: TrainConfig) -> str:
    """The resolved config as YAML, then parameters and memory of each stage."""
    plain = asdict(config)
    plain["stages"] = [dict(stage) for stage in plain["stages"]]
    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}
    lines = [yaml.safe_dump(lists, sort_keys=False).rstrip()]
    whole, spatial = count_parameters(config)
    for number, stage in enumerate(config.stages):
        weights, activations, pool = estimate_memory(config, stage)
        trained = spatial if stage.spatial else whole
        lines.append(
            f"stage {number + 1}: trains {trained / 1e6:.1f} of {whole / 1e6:.1f} M parameters, "
            f"{stage.batch} clips of up to {stage.max_frames} frames at {stage.width}x{stage.height}; about "
            f"{(weights + activations + pool) / 2**30:.1f} GiB ({weights / 2**30:.2f} weights and optimiser, "
            f"{activations / 2**30:.2f} activations, {pool / 2**30:.2f} pool of clips), and PyTorch itself"
        )
    return "\n".join(lines)
