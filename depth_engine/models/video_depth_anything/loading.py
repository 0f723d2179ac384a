"""Video Depth Anything's weights on their way from a safetensors file into the network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from depth_engine.models.loading import check_no_faults
from depth_engine.models.safetensors_header import read_shapes
from depth_engine.models.video_depth_anything.architecture import Architecture, architecture_of, faults, public_name
from depth_engine.models.video_depth_anything.network import VideoDepthNetwork


def load_network(file: Path, dtype: torch.dtype, device: torch.device) -> VideoDepthNetwork:
    """The network of a file with the public tensors, frozen.

    Args:
        file: Safetensors.
        dtype: To compute in.
        device: Where.

    Raises:
        ValueError: Names the first tensors that are missing, surplus or misshapen.
    """
    from safetensors.torch import load_file

    network = empty_network(architecture_of(read_shapes(file), f"model: {file}"))
    check_fits(network, read_shapes(file), file)
    network.load_state_dict(own_tensors(network, load_file(file)), strict=True, assign=True)
    network.to(device, dtype)
    network.head.to_depth.float()
    return network.eval().requires_grad_(False)


def empty_network(architecture: Architecture) -> VideoDepthNetwork:
    """A network without values: its tensors have only shapes."""
    with torch.device("meta"):
        return VideoDepthNetwork(architecture)


def check_fits(network: VideoDepthNetwork, public_shapes: Mapping[str, list[int]], file: Path) -> None:
    """See that a public checkpoint's tensors are the network's.

    Raises:
        ValueError: Names the first that are not.
    """
    own = {name: [*tensor.shape] for name, tensor in network.state_dict().items()}
    check_no_faults(file, faults(own, public_shapes))


def own_tensors(network: VideoDepthNetwork, public: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's tensors, of the public ones."""
    tensors = {}
    for own in network.state_dict():
        name, third = public_name(own)
        tensors[own] = public[name] if third is None else public[name].chunk(3)[third].contiguous()
    return tensors
