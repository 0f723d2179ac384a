"""Checkpoints from the hub, served on this machine: a cache is looked through, what it lacks is fetched."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from depth_engine import DepthEngine
from depth_engine.models.catalogue import SVD_XT
from depth_engine.models.loading import resolve_checkpoint
from tests.local_hub import COMMIT, LocalHub, serve
from tests.tiny_checkpoints import tiny_unet_only
from tests.variants import rename_fp16, shard

CHRONODEPTH = "jhshao/ChronoDepth-v1"


@pytest.fixture
def hub(svd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """A hub with an SVD in both precisions, ChronoDepth's UNet beside a pickle, and an empty cache."""
    svd = Path(shutil.copytree(svd_folder, tmp_path / "hub" / "svd"))
    for path in svd.rglob("*.safetensors"):
        shutil.copy(path, path.with_name(f"{path.stem}.fp16.safetensors"))
    unet = tiny_unet_only(tmp_path / "hub" / "chronodepth", svd_folder, subfolder="unet")
    (unet / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    with serve({"somebody/svd": svd, SVD_XT: svd, CHRONODEPTH: unet}) as served:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, served.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        yield served


def snapshot(tmp_path: Path, repository: str) -> Path:
    return tmp_path / "cache" / f"models--{repository.replace('/', '--')}" / "snapshots" / COMMIT


def half_cached(tmp_path: Path, repository: str, folder: Path, *files: str) -> Path:
    """A cache that holds a few files of a repository."""
    place = snapshot(tmp_path, repository)
    for file in files:
        (place / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / file, place / file)
    refs = place.parents[1] / "refs"
    refs.mkdir(exist_ok=True)
    (refs / "main").write_text(COMMIT)
    return place


def load(name: str) -> DepthEngine:
    return DepthEngine.from_pretrained(name, spec="chronodepth", device="cpu", dtype="float32")


def test_a_first_use_fetches_one_set_of_weights(hub: LocalHub) -> None:
    load("somebody/svd")
    weights = sorted(file.removeprefix("somebody/svd/") for file in hub.asked if file.endswith(".safetensors"))
    assert weights == [
        "image_encoder/model.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    ]
    hub.asked.clear()
    hub.repositories.clear()  # a whole cache asks nobody
    load("somebody/svd")


def test_what_a_cache_lacks_is_fetched(hub: LocalHub, tmp_path: Path) -> None:
    half_cached(tmp_path, "somebody/svd", hub.repositories["somebody/svd"], "unet/config.json", "model_index.json")
    load("somebody/svd")


@pytest.mark.parametrize("name", ["chronodepth", "depthcrafter"])
def test_a_known_name_fetches_unet_and_base(hub: LocalHub, tmp_path: Path, name: str) -> None:
    hub.repositories["tencent/DepthCrafter"] = hub.repositories[CHRONODEPTH]
    half_cached(tmp_path, SVD_XT, hub.repositories[SVD_XT], "unet/config.json", "vae/config.json")
    DepthEngine.from_pretrained(name, device="cpu", dtype="float32")
    assert not any(file.endswith(".bin") for file in hub.asked), "pickles are not loaded, so not fetched"
    assert not any(file.startswith(f"{SVD_XT}/unet") for file in hub.asked), "of the base, the UNet is not needed"


@pytest.mark.parametrize("variant", ["names", "shards"])
def test_a_repository_in_half_precision_alone(hub: LocalHub, svd_folder: Path, tmp_path: Path, variant: str) -> None:
    folder = Path(shutil.copytree(svd_folder, tmp_path / "hub" / "half"))
    rename_fp16(folder) if variant == "names" else shard(folder, "fp16")
    hub.repositories["somebody/half"] = folder
    load("somebody/half")
    hub.repositories.clear()
    load("somebody/half")
    load(str(snapshot(tmp_path, "somebody/half")))  # as a folder, too


def test_offline_the_line_says_how_to_fetch(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half_cached(tmp_path, SVD_XT, hub.repositories[SVD_XT], "vae/config.json", "scheduler/scheduler_config.json")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        FileNotFoundError, match="model: jhshao/ChronoDepth-v1 is not in the local cache .* hf download"
    ):
        resolve_checkpoint("chronodepth")
    unet = hub.repositories[CHRONODEPTH] / "unet"
    lacking = rf"base: {SVD_XT} is not whole in the local cache .*image_encoder/config.json.* run: hf download {SVD_XT}"
    with pytest.raises(FileNotFoundError, match=lacking):
        resolve_checkpoint(unet, spec="chronodepth", base=SVD_XT)


def test_a_file_that_the_repository_does_not_have_either(hub: LocalHub) -> None:
    (hub.repositories["somebody/svd"] / "vae" / "config.json").unlink()
    with pytest.raises(ValueError, match="vae/config.json missing in"):
        load("somebody/svd")
