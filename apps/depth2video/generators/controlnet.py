"""The depth ControlNet for SVD's UNet: a copy of its encoder that sees the control, joined by zero convolutions.

ControlNet: arXiv 2302.05543. The names of the modules are those of the public checkpoint for SVD
(CiaraRowles/temporal-controlnet-depth-svd-v1), so that its weights load as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import UNetSpatioTemporalConditionModel
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from depth_engine.checks import known_name
from depth_engine.models.svd.unet import DepthUNet

Residuals = Literal["once", "published"]
RESIDUALS = ("once", "published")


def control_pixels(frames: np.ndarray | Tensor) -> Tensor:
    """Control frames as the network takes them, in training and at inference alike.

    Args:
        frames: uint8 `[..., H, W, 3]`, near is white.

    Returns:
        float32 `[..., 3, H, W]` in [-1, 1].
    """
    held = torch.as_tensor(frames)
    if held.dtype != torch.uint8 or held.shape[-1] != 3:
        raise ValueError(f"control: {held.dtype} {list(held.shape)} is not accepted; give uint8 [..., H, W, 3]")
    # Contiguous: convolutions of pixels that lie otherwise in memory differ in their last bits.
    return held.movedim(-1, -3).contiguous().float() / 127.5 - 1


class Control(NamedTuple):
    """What a ControlNet adds to a UNet's pass.

    Attributes:
        down: For each skip, in order, `[B * T, C', h', w']`.
        mid: For the middle.
    """

    down: list[Tensor]
    mid: Tensor

    def scaled(self, scale: float) -> Control:
        """All of it times a number."""
        return Control([residual * scale for residual in self.down], self.mid * scale)


class ControlEncoder(nn.Module):
    """Control pixels to features at the latents' size; ends in a zero convolution.

    Args:
        channels: Width after the first convolution and after each halving; its length is log2 of the codec's downscale
            plus 1.
        out_channels: Width of the UNet's input convolution.
    """

    def __init__(self, channels: Sequence[int], out_channels: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, channels[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for narrow, wide in zip(channels[:-1], channels[1:], strict=True):
            self.blocks.append(nn.Conv2d(narrow, narrow, 3, padding=1))
            self.blocks.append(nn.Conv2d(narrow, wide, 3, padding=1, stride=2))
        self.conv_out = zero_convolution(nn.Conv2d(channels[-1], out_channels, 3, padding=1))

    def forward(self, control: Tensor) -> Tensor:
        """`[N, 3, H, W]` -> `[N, out_channels, h, w]`."""
        features = F.silu(self.conv_in(control))
        for block in self.blocks:
            features = F.silu(block(features))
        return self.conv_out(features)


class DepthControlNet(DepthUNet):
    """Encoder of an SVD UNet, control encoder, and zero convolutions on every skip and the middle.

    Args:
        conditioning_embedding_out_channels: See `ControlEncoder`.
        carries_motion: Has `motion_gain`: what share of the control's own motion goes on to the picture (`small.py`);
            zero at first.
        config: All else, as the UNet's.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int | None = None,
        in_channels: int = 8,
        out_channels: int = 4,
        down_block_types: tuple[str, ...] = (
            "CrossAttnDownBlockSpatioTemporal",
            "CrossAttnDownBlockSpatioTemporal",
            "CrossAttnDownBlockSpatioTemporal",
            "DownBlockSpatioTemporal",
        ),
        up_block_types: tuple[str, ...] = (
            "UpBlockSpatioTemporal",
            "CrossAttnUpBlockSpatioTemporal",
            "CrossAttnUpBlockSpatioTemporal",
            "CrossAttnUpBlockSpatioTemporal",
        ),
        block_out_channels: tuple[int, ...] = (320, 640, 1280, 1280),
        addition_time_embed_dim: int = 256,
        projection_class_embeddings_input_dim: int = 768,
        layers_per_block: int | tuple[int, ...] = 2,
        cross_attention_dim: int | tuple[int, ...] = 1024,
        transformer_layers_per_block: int | tuple[int, ...] = 1,
        num_attention_heads: int | tuple[int, ...] = (5, 10, 20, 20),
        num_frames: int = 25,
        conditioning_channels: int = 3,
        conditioning_embedding_out_channels: tuple[int, ...] = (16, 32, 96, 256),
        carries_motion: bool = False,
    ) -> None:
        if conditioning_channels != 3:
            raise ValueError(f"conditioning_channels: {conditioning_channels} is not accepted; control has 3")
        shape: dict[str, Any] = {
            "sample_size": sample_size,
            "in_channels": in_channels,
            "out_channels": out_channels,
            "down_block_types": down_block_types,
            "up_block_types": up_block_types,
            "block_out_channels": block_out_channels,
            "addition_time_embed_dim": addition_time_embed_dim,
            "projection_class_embeddings_input_dim": projection_class_embeddings_input_dim,
            "layers_per_block": layers_per_block,
            "cross_attention_dim": cross_attention_dim,
            "transformer_layers_per_block": transformer_layers_per_block,
            "num_attention_heads": num_attention_heads,
            "num_frames": num_frames,
        }
        DepthUNet.__init__(self, **shape)
        # The encoder alone is wanted.
        del self.up_blocks, self.conv_norm_out, self.conv_act, self.conv_out
        widths = [block_out_channels[0]]
        layers = (
            layers_per_block
            if isinstance(layers_per_block, (list, tuple))
            else [layers_per_block] * len(block_out_channels)
        )
        for level, (width, count) in enumerate(zip(block_out_channels, layers, strict=True)):
            widths += [width] * (count + (level < len(block_out_channels) - 1))
        self.controlnet_cond_embedding = ControlEncoder(conditioning_embedding_out_channels, block_out_channels[0])
        self.controlnet_down_blocks = nn.ModuleList(zero_convolution(nn.Conv2d(width, width, 1)) for width in widths)
        last = block_out_channels[-1]
        self.controlnet_mid_block = zero_convolution(nn.Conv2d(last, last, 1))
        if carries_motion:
            self.motion_gain = nn.Parameter(torch.zeros(1))

    @classmethod
    def from_unet(
        cls,
        unet: UNetSpatioTemporalConditionModel,
        conditioning_embedding_out_channels: tuple[int, ...] | None = None,
        carries_motion: bool = False,
    ) -> DepthControlNet:
        """A new ControlNet that begins with a UNet's encoder, and adds nothing yet.

        Args:
            unet: The UNet that it will steer.
            conditioning_embedding_out_channels: See `ControlEncoder`; None: for latents of an eighth.
            carries_motion: See the class.
        """
        taken = {name: value for name, value in dict(unet.config).items() if not name.startswith("_")}
        channels = conditioning_embedding_out_channels or (16, 32, 96, 256)
        made = cls(**taken, conditioning_embedding_out_channels=channels, carries_motion=carries_motion)
        held = {name: value for name, value in unet.state_dict().items() if name in made.state_dict()}
        made.load_state_dict(held, strict=False)
        return made

    def forward(  # type: ignore[override]
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        added_time_ids: Tensor,
        control: Tensor,
    ) -> Control:
        """What is to be added to the UNet's pass.

        Args:
            sample: As for the UNet.
            timestep: As for the UNet.
            encoder_hidden_states: As for the UNet.
            added_time_ids: As for the UNet.
            control: `[B, T, 3, H, W]` in [-1, 1], from `control_pixels`.
        """
        given = self.prepare(sample, timestep, encoder_hidden_states, added_time_ids)
        added = self.controlnet_cond_embedding(control.flatten(0, 1).to(sample.dtype))
        hidden, skips = self.encode(sample, given, added)
        down = [layer(skip) for layer, skip in zip(self.controlnet_down_blocks, skips, strict=True)]
        return Control(down, self.controlnet_mid_block(hidden))


class ControlledUNet(DepthUNet):
    """SVD's UNet that takes a ControlNet's residuals; the weights are the UNet's own."""

    def forward(  # type: ignore[override]
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        added_time_ids: Tensor,
        control: Control | None = None,
        residuals: Residuals = "once",
    ) -> Tensor:
        """Predict the network output F of EDM's preconditioning.

        Args:
            sample: As for `DepthUNet`.
            timestep: Likewise.
            encoder_hidden_states: Likewise.
            added_time_ids: Likewise.
            control: From a `DepthControlNet`, scaled; None: as the UNet alone.
            residuals: `once` adds each residual to its skip. `published` is what the public SVD ControlNet was trained
                with: its loop over the down blocks adds the residuals of all skips so far after every block, so that
                early skips receive theirs once for every block from theirs on.

        Raises:
            ValueError: The variant is not known, or the control is of another network.
        """
        known_name("residuals", residuals, RESIDUALS)
        given = self.prepare(sample, timestep, encoder_hidden_states, added_time_ids)
        hidden, skips = self.encode(sample, given)
        if control is not None:
            if [residual.shape for residual in control.down] != [skip.shape for skip in skips]:
                raise ValueError("control: its residuals do not fit this UNet; it was made for another one")
            times = self.times(residuals)
            skips = [skip + count * residual for skip, residual, count in zip(skips, control.down, times, strict=True)]
            hidden = hidden + control.mid
        return self.decode(hidden, skips, given)

    def times(self, residuals: Residuals) -> list[int]:
        """How often each skip receives its residual."""
        times = [len(self.down_blocks) if residuals == "published" else 1]
        for level, block in enumerate(self.down_blocks):
            made = len(block.resnets) + bool(block.downsamplers)  # type: ignore[arg-type]
            times += [len(self.down_blocks) - level if residuals == "published" else 1] * made
        return times


def zero_convolution(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with zero weights: at first it adds nothing."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def run_controlled(
    unet: ControlledUNet,
    controlnet: DepthControlNet | None,
    inputs: tuple[Tensor, Tensor, Tensor, Tensor],
    control: Tensor | None,
    scale: float = 1.0,
    residuals: Residuals = "once",
) -> Any:
    """The UNet's output, steered.

    Args:
        unet: The UNet.
        controlnet: What steers it; None: nothing.
        inputs: Sample, timestep, embeddings and time ids, as for the UNet.
        control: `[B, T, 3, H, W]` in [-1, 1].
        scale: Of the residuals; at 0 the ControlNet is not run.
        residuals: See `ControlledUNet`.
    """
    added = None
    if controlnet is not None and control is not None and scale != 0:
        added = controlnet(*inputs, control).scaled(scale)
    return unet(*inputs, added, residuals)
