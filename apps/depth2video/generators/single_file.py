"""Checkpoints of one file in their authors' layout: Stable Diffusion 1.x, its ControlNets, motion modules.

Such a file has no config. The widths are read off the shapes of its tensors; what shapes do not say is what every such
network has: eight heads, groups of 32. diffusers' single-file loaders do the rest, without asking the hub. The words of
the text encoder's tokenizer are in no such file: they lie in a folder beside it, or come from the hub.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from depth_engine.models.hub import HubFiles, fetch
from depth_engine.models.loading import check_no_faults, transformer_of_tensors
from depth_engine.models.safetensors_header import read_shapes
from depth_engine.models.weight_files import PICKLES

if TYPE_CHECKING:
    import torch

Shapes = Mapping[str, list[int]]

TOKENIZER = "tokenizer"
"""Name of the folder among a generator's parts that a Stable Diffusion of one file needs besides."""

_HEADS = 8
_UNET, _VAE, _TEXT = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.transformer.text_model."
_CONTROL = "control_model."
_TEXT_HEAD_WIDTH = 64  # of CLIP's attention
# Every Stable Diffusion 1.x was trained with this schedule.
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "set_alpha_to_one": False,  # the last step ends at the first noise level
}
# The text encoder of Stable Diffusion 1.x is this one's.
_TOKENIZER_HUB_ID = "openai/clip-vit-large-patch14"
_TOKENIZER_FILES = HubFiles(
    others=("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"),
    needed=("tokenizer.json|vocab.json", "tokenizer.json|merges.txt"),
)


def check_single_file(path: Path, accepted: bool, folder_hint: str) -> None:
    """See that a file that was given in place of a folder can be taken.

    Args:
        path: The file.
        accepted: Whether the part loads from one file.
        folder_hint: What to give instead.

    Raises:
        ValueError: It can't.
    """
    if any(path.match(pattern) for pattern in PICKLES):
        raise ValueError(f"{path} is a pickle, which can run code when read; give a .safetensors, or {folder_hint}")
    if not accepted or path.suffix != ".safetensors":
        raise ValueError(f"{path} is a file; give {folder_hint}")


def read_configs(path: Path) -> dict[str, dict[str, Any]]:
    """Configs of the models in a file, as diffusers and transformers write them, from the header alone.

    Args:
        path: A safetensors file.

    Returns:
        Model -> config: `unet`, `vae` and `text_encoder` of Stable Diffusion 1.x; "" of a file of one model.

    Raises:
        ValueError: The file is of another kind; says which, if that is known.
    """
    shapes = read_shapes(path)
    if any(name.startswith("conditioner.embedders.") for name in shapes):
        raise ValueError(f"{path} is of Stable Diffusion XL; Stable Diffusion 1.5 is needed")
    if any(name.startswith("cond_stage_model.model.") for name in shapes):
        raise ValueError(f"{path} is of Stable Diffusion 2; Stable Diffusion 1.5 is needed")
    try:
        if f"{_UNET}input_blocks.0.0.weight" in shapes:
            parts = {"unet": _unet, "vae": _vae, "text_encoder": _text_encoder}
            lacking = [
                part for part, prefix in zip(parts, (_UNET, _VAE, _TEXT), strict=True) if not _has(shapes, prefix)
            ]
            if lacking:
                raise ValueError(f"{path} holds no {' and no '.join(lacking)}; a whole checkpoint is needed")
            return {part: read(shapes) for part, read in parts.items()}
        for prefix in (_CONTROL, ""):
            if f"{prefix}zero_convs.0.0.weight" in shapes:
                return {"": _controlnet(shapes, prefix)}
        if any(".motion_modules." in name for name in shapes):
            return {"": _motion_adapter({name.replace(".temporal_transformer", ""): shapes[name] for name in shapes})}
    except (KeyError, IndexError, StopIteration) as error:
        raise ValueError(f"{path} lacks tensors of its kind ({error})") from error
    raise ValueError(
        f"{path} is of no kind that is known (its tensors: {', '.join(sorted(shapes)[:2]) or 'none'}, ...); give a "
        "folder as diffusers saves it"
    )


def find_tokenizer(path: Path) -> Path:
    """Folder of the tokenizer that goes with a Stable Diffusion 1.x of one file.

    Raises:
        FileNotFoundError: It is neither beside the file, nor cached, nor reachable; says what to do.
    """
    beside = path.parent / "tokenizer"
    try:
        _TOKENIZER_FILES.check(beside)
        return beside
    except ValueError:
        pass
    try:
        return fetch(_TOKENIZER_HUB_ID, _TOKENIZER_FILES, check=_TOKENIZER_FILES.check, argument="base")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{path} holds no tokenizer, and {_TOKENIZER_HUB_ID} is neither cached nor reachable; where there is a "
            f"network, run: hf download {_TOKENIZER_HUB_ID} {' '.join(_TOKENIZER_FILES.others)} --local-dir {beside}"
        ) from error


def load_from_single_file(part_class: Any, path: Path, model: str, dtype: torch.dtype) -> Any:
    """A model out of a file: diffusers' models through its own single-file loader.

    Args:
        part_class: Its class.
        path: The file.
        model: Its name in `read_configs`.
        dtype: To compute in.

    Raises:
        ValueError: Tensors are missing or misshapen.
    """
    import torch

    config = read_configs(path)[model]
    if model == "text_encoder":
        made, found = transformer_of_tensors(part_class, part_class.config_class(**config), _text_tensors(path), dtype)
        check_no_faults(path, [f"{name} is missing" for name in sorted(found["missing_keys"])])
        return made
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        try:
            made = part_class.from_single_file(str(path), config=folder, local_files_only=True)
        except NotImplementedError as error:  # torch's word for what has no values yet
            raise ValueError(f"{path} lacks tensors that a {part_class.__name__} has") from error
        except (OSError, ValueError, KeyError, AttributeError, RuntimeError) as error:
            raise ValueError(f"{path} can't be loaded ({' '.join(str(error).split())})") from error
    return torch.nn.Module.to(made, dtype)  # past diffusers' own `to`, which only adds checks for quantised models


def _text_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of the text encoder in a file, under transformers' names."""
    from safetensors import safe_open

    prefix = _TEXT.removesuffix("text_model.")
    with safe_open(path, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(_TEXT) and not name.endswith(".position_ids")]
        return {name.removeprefix(prefix): file.get_tensor(name) for name in names}


def _has(shapes: Shapes, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in shapes)


def _count(names: Collection[str], pattern: str) -> int:
    """How many different numbers stand at the group of a pattern."""
    return len({match[1] for name in names if (match := re.match(pattern, name))})


def _encoder(shapes: Shapes, prefix: str) -> dict[str, Any]:
    """What UNet and ControlNet share: the encoder's half of a UNet's config."""
    blocks = _count(shapes, rf"{re.escape(prefix)}input_blocks\.(\d+)\.")
    channels, layers, attends, here, width = [], 0, [], 0, 0
    for block in range(1, blocks):
        at = f"{prefix}input_blocks.{block}"
        if f"{at}.0.op.weight" in shapes:
            channels.append(width)
            layers, here = here, 0
            continue
        width, here = shapes[f"{at}.0.out_layers.3.weight"][0], here + 1
        if here == 1:
            attends.append(f"{at}.1.proj_in.weight" in shapes)
    attention = next(name for name in shapes if name.startswith(prefix) and name.endswith("attn2.to_k.weight"))
    return {
        "in_channels": shapes[f"{prefix}input_blocks.0.0.weight"][1],
        "block_out_channels": [*channels, width],
        "layers_per_block": layers or here,
        "down_block_types": ["CrossAttnDownBlock2D" if attending else "DownBlock2D" for attending in attends],
        "cross_attention_dim": shapes[attention][1],
        "attention_head_dim": _HEADS,  # the name is wrong in all of diffusers: it is their number
    }


def _unet(shapes: Shapes) -> dict[str, Any]:
    encoder = _encoder(shapes, _UNET)
    ups = ["CrossAttnUpBlock2D" if "CrossAttn" in name else "UpBlock2D" for name in encoder["down_block_types"][::-1]]
    out_channels = shapes[f"{_UNET}out.2.weight"][0]
    return {**encoder, "_class_name": "UNet2DConditionModel", "up_block_types": ups, "out_channels": out_channels}


def _controlnet(shapes: Shapes, prefix: str) -> dict[str, Any]:
    # Every other convolution of the hint's keeps its width; the last one is the zero convolution.
    hints = sorted(
        int(match[1])
        for name in shapes
        if (match := re.match(rf"{re.escape(prefix)}input_hint_block\.(\d+)\.weight", name))
    )
    widths = [shapes[f"{prefix}input_hint_block.{number}.weight"][0] for number in hints[:-1:2]]
    encoder = _encoder(shapes, prefix)
    return {**encoder, "_class_name": "ControlNetModel", "conditioning_embedding_out_channels": widths}


def _vae(shapes: Shapes) -> dict[str, Any]:
    levels = _count(shapes, rf"{re.escape(_VAE)}encoder\.down\.(\d+)\.")
    at = f"{_VAE}encoder.down."
    return {
        "_class_name": "AutoencoderKL",
        "block_out_channels": [shapes[f"{at}{level}.block.0.conv1.weight"][0] for level in range(levels)],
        "layers_per_block": _count(shapes, rf"{re.escape(at)}0\.block\.(\d+)\."),
        "latent_channels": shapes[f"{_VAE}decoder.conv_in.weight"][1],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "scaling_factor": 0.18215,  # of every Stable Diffusion 1.x
    }


def _text_encoder(shapes: Shapes) -> dict[str, Any]:
    words, width = shapes[f"{_TEXT}embeddings.token_embedding.weight"]
    return {
        "architectures": ["CLIPTextModel"],
        "vocab_size": words,
        "hidden_size": width,
        "max_position_embeddings": shapes[f"{_TEXT}embeddings.position_embedding.weight"][0],
        "intermediate_size": shapes[f"{_TEXT}encoder.layers.0.mlp.fc1.weight"][0],
        "num_hidden_layers": _count(shapes, rf"{re.escape(_TEXT)}encoder\.layers\.(\d+)\."),
        "num_attention_heads": max(1, width // _TEXT_HEAD_WIDTH),
        "hidden_act": "quick_gelu",
        # CLIP's last two words begin and end a text.
        "bos_token_id": words - 2,
        "eos_token_id": words - 1,
        "pad_token_id": words - 1,
    }


def _motion_adapter(shapes: Shapes) -> dict[str, Any]:
    at = "down_blocks.0.motion_modules."
    positions = next(
        (shape for name, shape in shapes.items() if name.endswith((".pos_encoder.pe", ".pos_embed.pe"))), None
    )
    levels = _count(shapes, r"down_blocks\.(\d+)\.motion_modules\.")
    return {
        "_class_name": "MotionAdapter",
        "block_out_channels": [
            shapes[f"down_blocks.{level}.motion_modules.0.norm.weight"][0] for level in range(levels)
        ],
        "motion_layers_per_block": _count(shapes, rf"{re.escape(at)}(\d+)\."),
        "motion_transformer_layers_per_block": _count(shapes, rf"{re.escape(at)}0\.transformer_blocks\.(\d+)\."),
        "motion_num_attention_heads": _HEADS,
        "motion_max_seq_length": 32 if positions is None else positions[-2],
        "use_motion_mid_block": _has(shapes, "mid_block."),
    }
