"""Models that diffusers saved, as single files in the layout of their authors: the names turned back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
    "controlnet_mid_block": "middle_block_out.0",
    "controlnet_cond_embedding.conv_in": "input_hint_block.0",
}
_VAE_NAMES = (
    (r"coder\.mid_block\.resnets\.(\d)", lambda m: f"coder.mid.block_{int(m[1]) + 1}"),
    (r"mid_block\.attentions\.0\.", lambda m: "mid.attn_1."),
    (r"down_blocks\.(\d)\.resnets", lambda m: f"down.{m[1]}.block"),
    (r"down_blocks\.(\d)\.downsamplers\.0", lambda m: f"down.{m[1]}.downsample"),
    (r"up_blocks\.(\d)\.resnets", lambda m: f"up.{3 - int(m[1])}.block"),  # of four levels
    (r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{3 - int(m[1])}.upsample"),
    (r"conv_norm_out", lambda m: "norm_out"),
    (r"conv_shortcut", lambda m: "nin_shortcut"),
    (r"group_norm", lambda m: "norm"),
    (r"to_out\.0", lambda m: "proj_out"),
    (r"to_([qkv])", lambda m: m[1]),
)


def single_sd15(folder: Path, file: Path) -> Path:
    """A Stable Diffusion 1.5 of four VAE levels and one layer a block in one file."""
    tensors = _renamed(load_file(folder / "unet" / "diffusion_pytorch_model.safetensors"), "model.diffusion_model.")
    for name, tensor in load_file(folder / "vae" / "diffusion_pytorch_model.safetensors").items():
        for pattern, new in _VAE_NAMES:
            name = re.sub(pattern, new, name)
        is_attention = ".attn_1." in name and name.endswith("weight") and ".norm." not in name
        tensors[f"first_stage_model.{name}"] = tensor[..., None, None] if is_attention else tensor
    for name, tensor in load_file(folder / "text_encoder" / "model.safetensors").items():
        tensors[f"cond_stage_model.transformer.text_model.{name.removeprefix('text_model.')}"] = tensor
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, file)
    return file


def single_controlnet(folder: Path, file: Path) -> Path:
    """A ControlNet of one layer a block in one file."""
    save_file(_renamed(load_file(folder / "diffusion_pytorch_model.safetensors"), "control_model."), file)
    return file


def single_motion_module(folder: Path, file: Path) -> Path:
    """A motion adapter in one file."""
    tensors = {}
    for name, tensor in load_file(folder / "diffusion_pytorch_model.safetensors").items():
        name = re.sub(r"(motion_modules\.\d+)\.", r"\1.temporal_transformer.", name)
        name = re.sub(r"\.norm([12])\.", lambda m: f".norms.{int(m[1]) - 1}.", name.replace(".norm3.", ".ff_norm."))
        tensors[re.sub(r"\.attn([12])\.", lambda m: f".attention_blocks.{int(m[1]) - 1}.", name)] = tensor
    for name in [name for name in tensors if name.endswith("pos_embed.pe")]:
        tensors[name.replace("pos_embed.pe", "attention_blocks.0.pos_encoder.pe")] = tensors.pop(name)
    save_file(tensors, file)
    return file


def _renamed(tensors: Mapping[str, Tensor], prefix: str, layers: int = 1) -> dict[str, Tensor]:
    """UNet or ControlNet under the authors' names."""
    ups_attend = {name.split(".")[1] for name in tensors if re.match(r"up_blocks\.\d\.attentions", name)}

    def new_name(name: str) -> str:
        if match := re.match(r"controlnet_cond_embedding\.(blocks\.(\d+)|conv_out)\.", name):
            blocks = sum(bool(re.match(r"controlnet_cond_embedding\.blocks\.\d+\.weight", other)) for other in tensors)
            place = 2 * (blocks + 1 if match[2] is None else int(match[2]) + 1)
            return f"input_hint_block.{place}.{name[match.end() :]}"
        if match := re.match(r"controlnet_down_blocks\.(\d+)", name):
            return f"zero_convs.{match[1]}.0{name[match.end() :]}"
        for old, new in _UNET_ENDS.items():
            if name.startswith(f"{old}."):
                return new + name.removeprefix(old)
        match = re.match(
            r"(down|up|mid)_blocks?\.(?:(\d+)\.)?(resnets|attentions|downsamplers|upsamplers)\.(\d+)", name
        )
        assert match is not None, name
        where, level, kind, number = match[1], int(match[2] or 0), match[3], int(match[4])
        rest = name[match.end() :]
        if kind == "resnets":
            for old, new in _RESNET.items():
                rest = rest.replace(f".{old}.", f".{new}.")
        at = {"down": level * (layers + 1) + number + 1, "up": level * (layers + 1) + number, "mid": 2 * number}[where]
        if where == "mid":
            return f"middle_block.{at + (kind == 'attentions')}{rest}"
        if kind == "downsamplers":
            return f"input_blocks.{(level + 1) * (layers + 1)}.0.op{rest.removeprefix('.conv')}"
        if kind == "upsamplers":
            return f"output_blocks.{level * (layers + 1) + layers}.{1 + (str(level) in ups_attend)}{rest}"
        return f"{'input' if where == 'down' else 'output'}_blocks.{at}.{int(kind == 'attentions')}{rest}"

    return {f"{prefix}{new_name(name)}": tensor for name, tensor in tensors.items()}
