"""The spatial half of SVD's UNet by itself, and the temporal half, for training one without the other."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from diffusers.models.resnet import SpatioTemporalResBlock
from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel
from torch import Tensor, nn


class _SpatialBranch(nn.Module):
    """Stands in for `AlphaBlender`: what it does for images, without looking at the other branch."""

    def forward(self, x_spatial: Tensor, x_temporal: Tensor, image_only_indicator: Tensor | None = None) -> Tensor:
        return x_spatial


class _Skip(nn.Module):
    """Stands in for a temporal layer."""

    def forward(self, hidden_states: Tensor, *args: object, **kwargs: object) -> Tensor:
        return hidden_states


@contextlib.contextmanager
def spatial_only(unet: nn.Module) -> Iterator[None]:
    """Run the UNet without its temporal layers, as its blenders do for images (alpha = 1), at half the cost.

    Not for saving: the temporal layers are not among the modules while this lasts.
    """
    taken: list[tuple[nn.Module, str, nn.Module]] = []

    def replace(owner: nn.Module, name: str, stand_in: nn.Module) -> None:
        taken.append((owner, name, getattr(owner, name)))
        setattr(owner, name, stand_in)

    try:
        for module in list(unet.modules()):
            if isinstance(module, SpatioTemporalResBlock):
                replace(module, "temporal_res_block", _Skip())
                replace(module, "time_mixer", _SpatialBranch())
            elif isinstance(module, TransformerSpatioTemporalModel):
                skips = nn.ModuleList(_Skip() for _ in module.temporal_transformer_blocks)
                replace(module, "temporal_transformer_blocks", skips)
                replace(module, "time_mixer", _SpatialBranch())
        yield
    finally:
        for owner, name, module in taken:
            setattr(owner, name, module)


def temporal_modules(unet: nn.Module) -> Iterator[nn.Module]:
    """The layers that SVD added to a network of images: convolutions and attention over time, and the blending."""
    for module in unet.modules():
        if isinstance(module, SpatioTemporalResBlock):
            yield from (module.temporal_res_block, module.time_mixer)
        elif isinstance(module, TransformerSpatioTemporalModel):
            yield from (module.temporal_transformer_blocks, module.time_pos_embed, module.time_mixer)


def choose_trained(unet: nn.Module, trains: str) -> None:
    """Let the spatial layers, the temporal ones or all of them take gradients.

    Args:
        unet: The network.
        trains: `Stage.trains`.
    """
    unet.requires_grad_(trains != "temporal")
    for module in temporal_modules(unet):
        module.requires_grad_(trains in ("temporal", "all"))


@torch.no_grad()
def silence_temporal(unet: nn.Module) -> None:
    """Make every temporal layer of a new UNet the identity, so that training in time starts from the spatial model.

    The last projection of each residual branch is set to zero, and with it the frame-position embedding: the blend of
    equal branches is then the spatial one, whatever its factor.
    """
    for module in unet.modules():
        if isinstance(module, SpatioTemporalResBlock):
            _zero(module.temporal_res_block.conv2)
        elif isinstance(module, TransformerSpatioTemporalModel):
            _zero(module.time_pos_embed.linear_2)
            blocks: Any = module.temporal_transformer_blocks
            for block in blocks:
                _zero(block.ff_in.net[2])
                _zero(block.ff.net[2])
                for attention in (block.attn1, block.attn2):
                    if attention is not None:
                        _zero(attention.to_out[0])


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        parameter.zero_()
