"""What a training run would be, before it is one: config, parameters, memory."""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict

import torch
import yaml
from torch import Tensor, nn

from depth_engine.models.svd.unet import DepthUNet
from depth_train.config import Stage, TrainConfig
from depth_train.data.clip_pool import Clips
from depth_train.data.draws import generator
from depth_train.optim.spatial import choose_trained, spatial_only
from depth_train.tasks.catalogue import task_of
from depth_train.tasks.task import Part, StepDraw, TrainedModel

_BYTES = 4  # float32: weights, gradients, moments, average
_SIDE = 64  # of the two frames that activations are measured on


def count_parameters(network: nn.Module, trains: str = "all") -> tuple[int, int]:
    """Parameters of the whole network, and those that a stage trains."""
    choose_trained(network, trains)
    counts = [parameter.numel() for parameter in network.parameters()]
    return sum(counts), sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def saved_bytes_per_pixel(model: TrainedModel, config: TrainConfig, stage: Stage) -> float:
    """What the graph of a stage's loss keeps for the backward pass, measured on a clip of two small frames.

    Args:
        model: From the task's `start`.
        config: The run.
        stage: Says which objective.
    """
    task = task_of(config)
    networks = (model.trained, *model.frozen_parts)
    held = {parameter.untyped_storage().data_ptr() for network in networks for parameter in network.parameters()}
    kept: dict[int, Tensor] = {}  # the tensors too: an address may be given out again

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in held:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    picture = (1, 2, _SIDE, _SIDE)
    cameras = torch.eye(3, 4).expand(1, 2, 3, 4)
    clips = Clips(torch.zeros(*picture, 3, dtype=torch.uint8), torch.ones(picture), torch.ones(picture) > 0, cameras)
    rngs = [generator(config.seed, 0, 0)]
    batch = task.batch(clips, generator(config.seed, 0), rngs)
    with spatial_only(model.trained) if stage.trains == "spatial_alone" else contextlib.nullcontext():
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = task.loss(model, Part(batch, StepDraw(2, 1, False), stage, rngs))
    del loss
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) / batch.rgb[:, :, 0].numel()


def estimate_memory(model: TrainedModel, config: TrainConfig, stage: Stage) -> tuple[int, int, int]:
    """Bytes of weights and their company, of what the backward pass needs, and of the pool of clips, in a stage."""
    whole, trained = count_parameters(model.trained, stage.trains)
    frozen = sum(parameter.numel() for part in model.frozen_parts for parameter in part.parameters())
    weights = (frozen + 2 * whole + 3 * trained) * _BYTES  # weights and average; gradient and two moments
    pixels = stage.batch // stage.accumulate * stage.max_frames * stage.height * stage.width
    pool = stage.pool * stage.clip_frames * stage.height * stage.width * (3 + _BYTES + 1)
    return weights, round(pixels * saved_bytes_per_pixel(model, config, stage)), pool


def describe_config(config: TrainConfig) -> str:
    """The resolved config as YAML."""
    plain = json.loads(json.dumps(asdict(config)))  # YAML knows no tuples
    return yaml.safe_dump(plain, sort_keys=False).rstrip()


def describe_without_weights(config: TrainConfig) -> str:
    """Parameters of each stage and the memory of weights and optimiser, by the published shape of SVD's UNet."""
    with torch.device("meta"):
        unet = DepthUNet()  # its class's defaults are SVD's
    lines = []
    for number, stage in enumerate(config.stages):
        whole, trained = count_parameters(unet, stage.trains)
        lines.append(
            f"stage {number + 1}: {stage.objective}, trains {trained / 1e6:.1f} of {whole / 1e6:.1f} M parameters, "
            f"{(2 * whole + 3 * trained) * _BYTES / 2**30:.1f} GiB of weights, average, gradients and moments; by the "
            f"published shape of Stable Video Diffusion: {config.base} is not here, activations are measured on it"
        )
    return "\n".join(lines)


def describe_stages(config: TrainConfig) -> str:
    """Parameters and memory of each stage."""
    lines = []
    model = task_of(config).start(None, torch.device("cpu"))
    for number, stage in enumerate(config.stages):
        weights, activations, pool = estimate_memory(model, config, stage)
        whole, trained = count_parameters(model.trained, stage.trains)
        lines.append(
            f"stage {number + 1}: {stage.objective}, trains {trained / 1e6:.1f} of {whole / 1e6:.1f} M parameters, "
            f"{stage.batch} clips a process of up to {stage.max_frames} frames at {stage.width}x{stage.height}; about "
            f"{(weights + activations + pool) / 2**30:.1f} GiB ({weights / 2**30:.2f} weights and optimiser, "
            f"{activations / 2**30:.2f} activations, {pool / 2**30:.2f} pool of clips), and PyTorch itself"
        )
    return "\n".join(lines)
