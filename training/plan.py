"""What a training run would be, before it is one: config, parameters, memory."""

from __future__ import annotations

import contextlib
from dataclasses import asdict

import torch
import yaml
from torch import Tensor

from depth_engine.checkpoints import resolve_checkpoint
from depth_engine.unet import DepthUNet
from training.config import Stage, TrainConfig
from training.spatial import choose_trained, spatial_only
from training.start import build_unet, checkpoint_spec, start_model

_BYTES = 4  # float32: weights, gradients, moments, average


def count_parameters(config: TrainConfig, trains: str = "all") -> tuple[int, int]:
    """Parameters of the whole UNet, and those that a stage trains; of a base, its config alone is read.

    Raises:
        ValueError: The base's config can't be found.
    """
    with torch.device("meta"):
        unet = _unread_unet(config)
    choose_trained(unet, trains)
    counts = [parameter.numel() for parameter in unet.parameters()]
    return sum(counts), sum(parameter.numel() for parameter in unet.parameters() if parameter.requires_grad)


def _unread_unet(config: TrainConfig) -> DepthUNet:
    if not config.base:
        return build_unet(config)
    files = resolve_checkpoint(config.base, spec=checkpoint_spec(config))
    return DepthUNet.from_config(DepthUNet.load_config(files.unet))  # type: ignore[return-value, arg-type]


def saved_bytes_per_pixel(config: TrainConfig, spatial_alone: bool) -> float:
    """What the graph of a forward pass keeps for the backward one, measured on a clip of two 64x64 frames."""
    model, _ = start_model(config, None, torch.device("cpu"))
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.unet.parameters()}
    kept: dict[int, Tensor] = {}  # the tensors too: an address may be given out again

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in parameters:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    rgb = torch.zeros(1, 2, 3, 64, 64)
    with spatial_only(model.unet) if spatial_alone else contextlib.nullcontext():
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model.predict(rgb, rgb[:, :0, 0])
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / (2 * 64 * 64)


def estimate_memory(config: TrainConfig, stage: Stage) -> tuple[int, int, int]:
    """Bytes of weights and their company, of what the backward pass needs, and of the pool of clips, in a stage."""
    whole, trained = count_parameters(config, stage.trains)
    weights = (2 * whole + 3 * trained) * _BYTES  # weights and average; gradient and two moments
    pixels = stage.batch // stage.accumulate * stage.max_frames * stage.height * stage.width
    pool = stage.pool * stage.clip_frames * stage.height * stage.width * (3 + _BYTES + 1)
    per_pixel = saved_bytes_per_pixel(config, stage.trains == "spatial_alone")
    return weights, round(pixels * per_pixel), pool


def describe_run(config: TrainConfig) -> str:
    """The resolved config as YAML, then parameters and memory of each stage."""
    plain = asdict(config)
    plain["stages"] = [dict(stage) for stage in plain["stages"]]
    plain["sources"] = [dict(source) for source in plain["sources"]]
    lists = {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}
    lines = [yaml.safe_dump(lists, sort_keys=False).rstrip()]
    for number, stage in enumerate(config.stages):
        weights, activations, pool = estimate_memory(config, stage)
        whole, trained = count_parameters(config, stage.trains)
        lines.append(
            f"stage {number + 1}: {stage.objective}, trains {trained / 1e6:.1f} of {whole / 1e6:.1f} M parameters, "
            f"{stage.batch} clips of up to {stage.max_frames} frames at {stage.width}x{stage.height}; about "
            f"{(weights + activations + pool) / 2**30:.1f} GiB ({weights / 2**30:.2f} weights and optimiser, "
            f"{activations / 2**30:.2f} activations, {pool / 2**30:.2f} pool of clips), and PyTorch itself"
        )
    return "\n".join(lines)
