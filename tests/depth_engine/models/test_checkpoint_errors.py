"""A damaged or unknown checkpoint is refused with a text that names what is wrong."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from depth_engine import DepthEngine
from depth_engine.models.catalogue import BUNDLED_FOLDER

UNET_WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
VAE_WEIGHTS = "vae/diffusion_pytorch_model.safetensors"
IMAGE_ENCODER_WEIGHTS = "image_encoder/model.safetensors"

WEIGHTS_AND_TENSOR = [
    pytest.param(UNET_WEIGHTS, "conv_in.weight", id="unet"),
    pytest.param(VAE_WEIGHTS, "quant_conv.weight", id="vae"),
    pytest.param(IMAGE_ENCODER_WEIGHTS, "visual_projection.weight", id="image_encoder"),
]


@pytest.fixture
def damaged(svd_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint for a test to damage."""
    return Path(shutil.copytree(svd_folder, tmp_path / "damaged"))


def refusal(name_or_folder: str | Path) -> str:
    """The text with which the engine refuses to load."""
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        DepthEngine.from_pretrained(name_or_folder, spec="chronodepth", device="cpu", dtype="float32")
    return str(caught.value)


def test_undamaged_copy_loads(damaged: Path) -> None:
    DepthEngine.from_pretrained(damaged, spec="chronodepth", device="cpu", dtype="float32")


@pytest.mark.parametrize("weights", [UNET_WEIGHTS, VAE_WEIGHTS, IMAGE_ENCODER_WEIGHTS])
def test_weights_file_missing(damaged: Path, weights: str) -> None:
    (damaged / weights).unlink()
    text = refusal(damaged)
    assert Path(weights).name in text
    assert Path(weights).parent.name in text


@pytest.mark.parametrize("weights", [UNET_WEIGHTS, VAE_WEIGHTS, IMAGE_ENCODER_WEIGHTS])
def test_weights_file_cut_short(damaged: Path, weights: str) -> None:
    content = (damaged / weights).read_bytes()
    (damaged / weights).write_bytes(content[: len(content) // 2])
    text = refusal(damaged)
    assert Path(weights).name in text
    assert Path(weights).parent.name in text


@pytest.mark.parametrize("component", ["unet", "vae", "image_encoder"])
def test_config_missing(damaged: Path, component: str) -> None:
    (damaged / component / "config.json").unlink()
    text = refusal(damaged)
    assert "config.json" in text
    assert component in text


@pytest.mark.parametrize(("weights", "key"), WEIGHTS_AND_TENSOR)
def test_tensor_missing(damaged: Path, weights: str, key: str) -> None:
    tensors = load_file(damaged / weights)
    del tensors[key]
    save_file(tensors, damaged / weights, metadata={"format": "pt"})
    assert key in refusal(damaged)


@pytest.mark.parametrize(("weights", "key"), WEIGHTS_AND_TENSOR)
def test_tensor_of_wrong_shape(damaged: Path, weights: str, key: str) -> None:
    tensors = load_file(damaged / weights)
    tensors[key] = tensors[key][:-1].contiguous()
    save_file(tensors, damaged / weights, metadata={"format": "pt"})
    assert key in refusal(damaged)


@pytest.mark.parametrize("weights", [UNET_WEIGHTS, VAE_WEIGHTS, IMAGE_ENCODER_WEIGHTS])
def test_surplus_tensor(damaged: Path, weights: str) -> None:
    tensors = load_file(damaged / weights)
    tensors["depth_head.weight"] = torch.zeros(2, 2)
    save_file(tensors, damaged / weights, metadata={"format": "pt"})
    assert "depth_head.weight" in refusal(damaged)


@pytest.mark.parametrize(
    ("weights", "pickle_name"),
    [
        pytest.param(UNET_WEIGHTS, "diffusion_pytorch_model.bin", id="unet"),
        pytest.param(VAE_WEIGHTS, "diffusion_pytorch_model.bin", id="vae"),
        pytest.param(IMAGE_ENCODER_WEIGHTS, "pytorch_model.bin", id="image_encoder"),
    ],
)
def test_pickle_is_not_loaded(damaged: Path, weights: str, pickle_name: str) -> None:
    component = (damaged / weights).parent
    torch.save(load_file(damaged / weights), component / pickle_name)
    (damaged / weights).unlink()
    text = refusal(damaged)
    assert component.name in text
    assert "safetensors" in text


def test_unknown_name_gets_a_suggestion() -> None:
    text = refusal("chronodeph")
    assert "chronodeph" in text
    assert "chronodepth" in text


def test_empty_folder(tmp_path: Path) -> None:
    folder = tmp_path / "nothing_here"
    folder.mkdir()
    assert "nothing_here" in refusal(folder)


def test_missing_folder(tmp_path: Path) -> None:
    assert "never_made" in refusal(tmp_path / "never_made")


def test_an_index_that_names_no_files(damaged: Path) -> None:
    (damaged / UNET_WEIGHTS).unlink()
    (damaged / f"{UNET_WEIGHTS}.index.json").write_text("{}")
    assert "index.json has no weight_map" in refusal(damaged)


def test_a_codec_that_says_no_patch(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(BUNDLED_FOLDER, tmp_path / "damaged"))
    (folder / "codec" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="config.json: patch: None is not accepted"):
        DepthEngine.from_pretrained(folder, device="cpu")
