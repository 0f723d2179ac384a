"""Checkpoints of one file load to the same networks as the folders that they were made of."""

# diffusers annotates its constructors too loosely to check.
# pyright: reportArgumentType=false
from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from depth2video.generators.interface import Request
from depth2video.generators.loading import find_parts, load_generator, weights_identity
from depth2video.generators.pipelines import load_part
from safetensors.torch import load_file, save_file

from tests.depth2video.conftest import moving_control, tiny_sd15
from tests.depth2video.single_files import single_controlnet, single_motion_module, single_sd15

Folders = dict[str, Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Tiny parts of eight heads and groups of 32, as every Stable Diffusion 1.x has them."""
    from diffusers import AutoencoderKL, ControlNetModel, MotionAdapter, UNet2DConditionModel

    root = tmp_path_factory.mktemp("folders")
    tiny_sd15(root / "base")
    torch.manual_seed(0)
    shape = {"block_out_channels": (32, 64), "layers_per_block": 1, "cross_attention_dim": 16, "attention_head_dim": 8}
    downs, ups = ("CrossAttnDownBlock2D", "DownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
    made = {
        "base/unet": UNet2DConditionModel(sample_size=8, down_block_types=downs, up_block_types=ups, **shape),
        "base/vae": AutoencoderKL(
            block_out_channels=(32, 32, 64, 64),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        ),
        "controlnet": ControlNetModel(
            down_block_types=downs, conditioning_embedding_out_channels=(4, 8, 12, 16), **shape
        ),
        "motion_adapter": MotionAdapter(
            block_out_channels=(32, 64), motion_layers_per_block=1, motion_max_seq_length=24
        ),
    }
    for name, model in made.items():
        with torch.no_grad():
            for parameter in model.parameters():  # zero layers would hide what passes through them
                parameter.add_(0.05 * torch.randn(parameter.shape))
        shutil.rmtree(root / name, ignore_errors=True)
        model.save_pretrained(root / name)
    text = root / "base" / "text_encoder" / "config.json"  # heads of 64, or one of less
    text.write_text(json.dumps({**json.loads(text.read_text()), "num_attention_heads": 1}))
    return {part: root / part for part in ("base", "controlnet", "motion_adapter")}


@pytest.fixture(scope="module")
def files(folders: Folders, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """The same as single files, the tokenizer beside the first of them."""
    root = tmp_path_factory.mktemp("files")
    shutil.copytree(folders["base"] / "tokenizer", root / "tokenizer")
    return {
        "base": single_sd15(folders["base"], root / "look.safetensors"),
        "controlnet": single_controlnet(folders["controlnet"], root / "depth.safetensors"),
        "motion_adapter": single_motion_module(folders["motion_adapter"], root / "motion.safetensors"),
    }


def _named(parts: Folders) -> dict[str, str]:
    return {name: str(path) for name, path in parts.items()}


def _classes() -> list[tuple[str, str, type]]:
    from diffusers import AutoencoderKL, ControlNetModel, MotionAdapter, UNet2DConditionModel
    from transformers import CLIPTextModel

    return [
        ("base", "unet", UNet2DConditionModel),
        ("base", "vae", AutoencoderKL),
        ("base", "text_encoder", CLIPTextModel),
        ("controlnet", "", ControlNetModel),
        ("motion_adapter", "", MotionAdapter),
    ]


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def test_every_model_of_a_file_is_that_of_the_folder(folders: Folders, files: Folders) -> None:
    for part, model, kind in _classes():
        loaded: list[Any] = [load_part(kind, given[part], model, dtype=torch.float32) for given in (folders, files)]
        ours, theirs = (module.state_dict() for module in loaded)
        assert set(ours) == set(theirs), (part, model)
        for name, tensor in ours.items():
            assert torch.equal(tensor, theirs[name]), name
        kept = {"_name_or_path", "_diffusers_version", "_class_name", "_use_default_values", "sample_size"}
        if model != "text_encoder":
            configs = [{key: value for key, value in module.config.items() if key not in kept} for module in loaded]
            ours, theirs = ({key: _listed(value) for key, value in config.items()} for config in configs)
            assert ours == theirs


def test_single_files_make_the_frames_of_the_folders(folders: Folders, files: Folders) -> None:
    made = []
    for given in (folders, files):
        found = find_parts("animatediff", _named(given))
        generator = load_generator("animatediff", found, window=8, stride=8, device="cpu", dtype="float32")
        request = Request(prompt="a red fox", steps=1)
        made += [piece.frames for piece in generator.generate(iter(moving_control(8, 32, 32)), request, state=None)]
    assert found["tokenizer"] == files["base"].parent / "tokenizer"
    assert made[0].std() > 1
    np.testing.assert_array_equal(made[0], made[1])


def test_other_weights_in_a_file_are_another_run(files: Folders, tmp_path: Path) -> None:
    path = Path(shutil.copy(files["controlnet"], tmp_path / "a.safetensors"))
    before = weights_identity({"controlnet": path})
    assert before == weights_identity({"controlnet": path})
    path.write_bytes(path.read_bytes() + b" ")
    assert weights_identity({"controlnet": path}) != before


def test_one_file_of_a_saved_folder_is_the_folder(folders: Folders) -> None:
    weights = folders["controlnet"] / "diffusion_pytorch_model.safetensors"
    assert find_parts("animatediff", _named({**folders, "controlnet": weights})) == folders


@pytest.mark.parametrize(
    ("part", "other", "text"),
    [
        ("base", "motion_adapter", "--base: it holds a MotionAdapter, not the UNet2DConditionModel"),
        ("controlnet", "base", "--controlnet: it holds a whole Stable Diffusion, not the ControlNetModel"),
        ("motion_adapter", "controlnet", "--motion-adapter: it holds a ControlNetModel, not the MotionAdapter"),
    ],
)
def test_a_file_of_another_kind_is_told(part: str, other: str, text: str, files: Folders) -> None:
    with pytest.raises(ValueError, match=text):
        find_parts("animatediff", _named({**files, part: files[other]}))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("conditioner.embedders.0.transformer.x", "is of Stable Diffusion XL; Stable Diffusion 1.5 is needed"),
        ("cond_stage_model.model.ln_final.bias", "is of Stable Diffusion 2; Stable Diffusion 1.5"),
        ("lora_unet.up.weight", r"is of no kind that is known \(its tensors: lora_unet.up.weight"),
        ("model.diffusion_model.input_blocks.0.0.weight", "holds no vae and no text_encoder; a whole checkpoint"),
        ("zero_convs.0.0.weight", "lacks tensors of its kind"),
    ],
)
def test_a_file_that_can_not_be_taken_says_what_it_is(name: str, text: str, files: Folders, tmp_path: Path) -> None:
    save_file({name: torch.zeros(4, 4, 1, 1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=f"--base: .*other.safetensors {text}"):
        find_parts("animatediff", _named({**files, "base": tmp_path / "other.safetensors"}))


def test_files_for_parts_that_want_a_folder_are_refused_by_name(
    files: Folders, svd_folders: Folders, tmp_path: Path
) -> None:
    path = files["base"]
    with pytest.raises(
        ValueError, match="--base: .* is a file; give a folder: hf download stabilityai/stable-video-dif"
    ):
        find_parts("svd", {"base": str(path), "controlnet": str(svd_folders["controlnet"])})
    with pytest.raises(ValueError, match="--base: .* is a file; give a folder: hf download Wan-AI"):
        find_parts("wan-vace", {"base": str(path)})
    pickle = tmp_path / "v1-5-pruned.ckpt"
    pickle.touch()
    with pytest.raises(ValueError, match="--base: .*v1-5-pruned.ckpt is a pickle, .* give a .safetensors, or a folder"):
        find_parts("animatediff", _named({**files, "base": pickle}))


def test_what_a_file_does_not_fit_is_told(files: Folders, animatediff_folders: Folders) -> None:
    with pytest.raises(ValueError, match="--controlnet: .* block channels 8, 16 against 32, 64; animatediff takes"):
        find_parts("animatediff", _named({**files, "controlnet": animatediff_folders["controlnet"]}))


def test_a_file_without_a_tokenizer_says_how_to_fetch_one(files: Folders, tmp_path: Path) -> None:
    alone = Path(shutil.copy(files["base"], tmp_path / "look.safetensors"))
    with pytest.raises(
        FileNotFoundError, match=r"--base: .* hf download openai/clip-vit-large-patch14 tokenizer.json .* "
    ):
        find_parts("animatediff", _named({**files, "base": alone}))


def test_a_file_that_lacks_a_tensor_is_refused(files: Folders, tmp_path: Path) -> None:
    from diffusers import ControlNetModel

    tensors = load_file(files["controlnet"])
    tensors.pop("control_model.input_blocks.1.0.out_layers.3.bias")
    save_file(tensors, tmp_path / "depth.safetensors")
    with pytest.raises(ValueError, match="depth.safetensors lacks tensors that a ControlNetModel has"):
        load_part(ControlNetModel, tmp_path / "depth.safetensors", dtype=torch.float32)
