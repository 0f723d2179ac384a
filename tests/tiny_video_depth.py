"""Tiny random Video Depth Anything checkpoints in the layout of the public `.pth` files, and that layout itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

# Width and depth of the encoder, levels and features of the head.
Sizes = tuple[int, int, tuple[int, int, int, int], int]
SMALL: Sizes = (384, 12, (48, 96, 192, 384), 64)
BASE: Sizes = (768, 12, (96, 192, 384, 768), 128)
LARGE: Sizes = (1024, 24, (256, 512, 1024, 1024), 256)
TINY: Sizes = (64, 12, (32, 32, 32, 64), 32)


def public_shapes(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of a public file."""
    width, depth, levels, features = sizes
    shapes: dict[str, tuple[int, ...]] = {
        "pretrained.cls_token": (1, 1, width),
        "pretrained.pos_embed": (1, 37 * 37 + 1, width),
        "pretrained.mask_token": (1, width),
    }

    def layer(name: str, *weight: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = weight
        if bias:
            shapes[f"{name}.bias"] = weight[:1]

    layer("pretrained.patch_embed.proj", width, 3, 14, 14)
    for block in (f"pretrained.blocks.{index}" for index in range(depth)):
        layer(f"{block}.norm1", width)
        layer(f"{block}.attn.qkv", 3 * width, width)
        layer(f"{block}.attn.proj", width, width)
        shapes[f"{block}.ls1.gamma"] = (width,)
        layer(f"{block}.norm2", width)
        layer(f"{block}.mlp.fc1", 4 * width, width)
        layer(f"{block}.mlp.fc2", width, 4 * width)
        shapes[f"{block}.ls2.gamma"] = (width,)
    layer("pretrained.norm", width)
    for index, channels in enumerate(levels):
        layer(f"head.projects.{index}", channels, width, 1, 1)
        layer(f"head.scratch.layer{index + 1}_rn", features, channels, 3, 3, bias=False)
        for unit in (1, 2):
            for conv in (1, 2):
                name = f"head.scratch.refinenet{index + 1}.resConfUnit{unit}.conv{conv}"
                layer(name, features, features, 3, 3)
        layer(f"head.scratch.refinenet{index + 1}.out_conv", features, features, 1, 1)
    layer("head.resize_layers.0", levels[0], levels[0], 4, 4)
    layer("head.resize_layers.1", levels[1], levels[1], 2, 2)
    layer("head.resize_layers.3", levels[3], levels[3], 3, 3)
    layer("head.scratch.output_conv1", features // 2, features, 3, 3)
    layer("head.scratch.output_conv2.0", 32, features // 2, 3, 3)
    layer("head.scratch.output_conv2.2", 1, 32, 1, 1)
    for index, channels in enumerate((levels[2], levels[3], features, features)):
        module = f"head.motion_modules.{index}.temporal_transformer"
        layer(f"{module}.norm", channels)
        layer(f"{module}.proj_in", channels, channels)
        layer(f"{module}.proj_out", channels, channels)
        for name, shape in _temporal_block(channels):
            shapes[f"{module}.transformer_blocks.0.{name}"] = shape
    return shapes


def _temporal_block(channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for index in (0, 1):
        for which in ("q", "k", "v"):
            yield f"attention_blocks.{index}.to_{which}.weight", (channels, channels)
        yield f"attention_blocks.{index}.to_out.0.weight", (channels, channels)
        yield f"attention_blocks.{index}.to_out.0.bias", (channels,)
        yield f"attention_blocks.{index}.pos_encoder.pe", (1, 32, channels)
        yield f"norms.{index}.weight", (channels,)
        yield f"norms.{index}.bias", (channels,)
    yield "ff.net.0.proj.weight", (8 * channels, channels)
    yield "ff.net.0.proj.bias", (8 * channels,)
    yield "ff.net.2.weight", (channels, 4 * channels)
    yield "ff.net.2.bias", (channels,)
    yield "ff_norm.weight", (channels,)
    yield "ff_norm.bias", (channels,)


def public_tensors(sizes: Sizes = TINY, seed: int = 0) -> dict[str, Tensor]:
    """Random tensors of a public file. Every part matters to what comes out: nothing is zero, scales are near 1."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in public_shapes(sizes).items():
        values = torch.randn(shape, generator=generator)
        if name.endswith(".pe"):
            values = _sines(shape[-1])
        elif name.endswith("gamma") or (len(shape) == 1 and name.endswith("weight")):
            values = 1 + 0.1 * values
        elif len(shape) == 1:
            values *= 0.1
        elif len(shape) > 1 and "token" not in name and "pos_embed" not in name:
            values /= math.sqrt(math.prod(shape[1:]))
        tensors[name] = values
    tensors["head.scratch.output_conv2.2.bias"] += 1  # so that most depth is above 0
    return tensors


def _sines(channels: int) -> Tensor:
    """Sine of place / 10000^(c / channels) at even channels c, the cosine at the next ones; `[1, 32, channels]`."""
    table = torch.zeros(1, 32, channels)
    for place in range(32):
        for channel in range(0, channels, 2):
            angle = place / 10000 ** (channel / channels)
            table[0, place, channel], table[0, place, channel + 1] = math.sin(angle), math.cos(angle)
    return table


def tiny_video_depth(file: Path, seed: int = 0) -> Path:
    """A tiny checkpoint as safetensors."""
    save_file(public_tensors(seed=seed), file)
    return file
