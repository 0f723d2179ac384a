import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from depth2video.generators.loading import find_parts

from depth_engine.models.safetensors_header import read_shapes

Folders = dict[str, Path]


@pytest.fixture(scope="session")
def all_folders(
    animatediff_folders: Folders, wan_folder: Path, svd_folders: Folders, small_generator: Path
) -> dict[str, Folders]:
    """Generator -> folders of tiny parts that fit each other."""
    return {
        "bundled": {"base": small_generator},
        "svd": svd_folders,
        "animatediff": animatediff_folders,
        "wan-vace": {"base": wan_folder},
    }


def _find(name: str, folders: Folders) -> Folders:
    optional = ("ip_adapter",) if "ip_adapter" in folders else ()
    return find_parts(name, {part: str(folder) for part, folder in folders.items()}, optional=optional)


@pytest.mark.parametrize("name", ["bundled", "svd", "animatediff", "wan-vace"])
def test_parts_that_were_made_for_each_other_are_taken(name: str, all_folders: dict[str, Folders]) -> None:
    assert _find(name, all_folders[name]) == all_folders[name]


MISFITS = [
    ("svd", "controlnet", "config.json", "cross_attention_dim", 768, r"--controlnet: .* does not fit --base .*width"),
    (
        "svd",
        "controlnet",
        "config.json",
        "block_out_channels",
        [32, 96],
        "block channels 32, 96 against 32, 64; svd tak",
    ),
    ("svd", "controlnet", "config.json", "in_channels", 4, "input channels 4 against 8"),
    ("svd", "controlnet", "config.json", "conditioning_embedding_out_channels", [4, 8], "downscale of the control 2 "),
    (
        "svd",
        "base",
        "image_encoder/config.json",
        "projection_dim",
        24,
        "--base: .* does not fit itself: image encoder's",
    ),
    (
        "svd",
        "base",
        "unet/config.json",
        "in_channels",
        4,
        "UNet's input channels 4 against 8 of twice the VAE's latent",
    ),
    ("animatediff", "controlnet", "config.json", "cross_attention_dim", 1024, "--controlnet: .* 1024 against 16"),
    ("animatediff", "controlnet", "config.json", "layers_per_block", 2, "--controlnet: .*layers per block 2 against 1"),
    ("animatediff", "controlnet", "config.json", "_class_name", "MotionAdapter", "--controlnet: it holds a MotionAdap"),
    (
        "animatediff",
        "motion_adapter",
        "config.json",
        "block_out_channels",
        [8, 16, 16],
        "--motion-adapter: .*8, 16, 16",
    ),
    ("animatediff", "motion_adapter", "config.json", "motion_layers_per_block", 3, "--motion-adapter: .*per block 3"),
    ("animatediff", "motion_adapter", "config.json", "conv_in_channels", 9, "--motion-adapter: .*channels 9 against 4"),
    (
        "animatediff",
        "base",
        "text_encoder/config.json",
        "hidden_size",
        1024,
        "--base: .*text encoder's width 1024 agai",
    ),
    ("animatediff", "base", "vae/config.json", "latent_channels", 16, "channels 4 against 16 of VAE's latent channels"),
    ("animatediff", "base", "unet/config.json", "_class_name", "UNetMotionModel", "--base: it holds a UNetMotionModel"),
    ("animatediff", "ip_adapter", "models/image_encoder/config.json", "projection_dim", 9, "--ip-adapter: .*12 agai"),
    (
        "wan-vace",
        "base",
        "text_encoder/config.json",
        "d_model",
        8,
        "transformer's text width 16 against 8 of text enco",
    ),
    ("wan-vace", "base", "vae/config.json", "z_dim", 48, "transformer's input channels 16 against 48"),
    ("wan-vace", "base", "transformer/config.json", "_class_name", "WanTransformer3DModel", "not the WanVACETransf"),
    ("wan-vace", "base", "model_index.json", "scheduler", None, "names no scheduler"),
    ("bundled", "base", "controlnet/config.json", "block_out_channels", [32, 64], "--base: .* does not fit itself"),
]


@pytest.mark.parametrize(("name", "part", "file", "key", "value", "text"), MISFITS)
def test_parts_that_do_not_fit_are_told_before_anything_loads(
    name: str, part: str, file: str, key: str, value: object, text: str, all_folders: dict[str, Folders], tmp_path: Path
) -> None:
    folders = dict(all_folders[name])
    folders[part] = Path(shutil.copytree(folders[part], tmp_path / "part"))
    config = json.loads((folders[part] / file).read_text())
    (folders[part] / file).write_text(json.dumps({**config, key: value}))
    with pytest.raises(ValueError, match=text) as told:
        _find(name, folders)
    assert "\n" not in str(told.value) and not str(told.value).startswith("model")


def test_the_part_that_the_user_named_is_to_blame(
    animatediff_folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a base that is named and a ControlNet that is not, the base is the one to change."""
    base = Path(shutil.copytree(animatediff_folders["base"], tmp_path / "base"))
    for part, key in (("unet", "cross_attention_dim"), ("text_encoder", "hidden_size")):
        config = json.loads((base / part / "config.json").read_text())
        (base / part / "config.json").write_text(json.dumps({**config, key: 1024}))
    published = {"me/motion": animatediff_folders["motion_adapter"], "lllyasviel/control_v11f1p_sd15_depth": None}
    folder = animatediff_folders["controlnet"]
    monkeypatch.setattr(
        "depth2video.generators.loading.fetch", lambda hub_id, *rest, **more: published[hub_id] or folder
    )
    with pytest.raises(
        ValueError, match=r"--base: .*/base does not fit --controlnet lllyasviel/\S+: cross.* 1024 again"
    ):
        find_parts("animatediff", {"base": str(base), "motion_adapter": "me/motion"})


def _pointer(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path) -> None:
    path.write_text("<html>404</html> not found")


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (_pointer, "is a pointer of git LFS, not the weights; run: git lfs pull"),
        (_cut, "is cut off: it has [0-9]+ of [0-9]+ bytes"),
        (_empty, r"is not a whole safetensors file \(0 bytes\)"),
        (_text, "is not a whole safetensors file"),
    ],
)
@pytest.mark.parametrize(
    ("name", "part", "file"),
    [
        ("bundled", "base", "unet/diffusion_pytorch_model.safetensors"),
        ("svd", "controlnet", "diffusion_pytorch_model.safetensors"),
        ("animatediff", "base", "text_encoder/model.safetensors"),
        ("animatediff", "ip_adapter", "models/ip-adapter_sd15.safetensors"),
        ("wan-vace", "base", "text_encoder/model.safetensors"),
    ],
)
def test_weights_that_are_none_are_told_before_anything_loads(
    name: str,
    part: str,
    file: str,
    damage: Callable[[Path], None],
    text: str,
    all_folders: dict[str, Folders],
    tmp_path: Path,
) -> None:
    folders = dict(all_folders[name])
    folders[part] = Path(shutil.copytree(folders[part], tmp_path / "part"))
    damage(folders[part] / file)
    with pytest.raises(ValueError, match=rf"^--{part.replace('_', '-')}: .*{Path(file).name} {text}"):
        _find(name, folders)


def test_shapes_are_read_from_the_header_alone(svd_folders: Folders) -> None:
    from safetensors.torch import load_file

    path = svd_folders["controlnet"] / "diffusion_pytorch_model.safetensors"
    assert read_shapes(path) == {name: list(tensor.shape) for name, tensor in load_file(path).items()}
