"""Every way in which diffusers and transformers name weights is found, loads, and gives the same network."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from depth_engine import DepthEngine
from tests.tiny_checkpoints import tiny_unet_only
from tests.variants import model_files, rename_fp16, shard

FRAMES = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)


def depth(folder: Path, base: Path | None = None) -> np.ndarray:
    engine = DepthEngine.from_pretrained(folder, spec="chronodepth", base=base, device="cpu", dtype="float32")
    return engine.estimate(FRAMES, steps=1, seed=0).values


@pytest.mark.parametrize(("variant", "index"), [("", 0), ("fp16", 0), ("fp16", 1)])
def test_shards(svd_folder: Path, tmp_path: Path, variant: str, index: int) -> None:
    folder = Path(shutil.copytree(svd_folder, tmp_path / "sharded"))
    shard(folder, variant, index)
    assert not model_files(folder)
    # Where a tensor begins in its file changes the last bits of what is computed with it.
    np.testing.assert_allclose(depth(folder), depth(svd_folder), atol=5e-6)


def test_fp16_names_alone(svd_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(svd_folder, tmp_path / "half"))
    rename_fp16(folder)
    assert not model_files(folder)
    np.testing.assert_array_equal(depth(folder), depth(svd_folder))


def test_a_unet_alone_with_a_base_in_fp16_names(svd_folder: Path, tmp_path: Path) -> None:
    unet = tiny_unet_only(tmp_path / "unet", svd_folder)
    base = Path(shutil.copytree(svd_folder, tmp_path / "base", ignore=shutil.ignore_patterns("unet")))
    rename_fp16(base)
    np.testing.assert_array_equal(depth(unet, base), depth(unet, svd_folder))


def test_full_precision_comes_before_half(svd_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(svd_folder, tmp_path / "both"))
    for path in model_files(folder):
        path.with_name(f"{path.stem}.fp16.safetensors").write_bytes(b"never read")
    np.testing.assert_array_equal(depth(folder), depth(svd_folder))


def test_shards_that_are_not_all_there_give_way_to_a_whole_variant(svd_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(svd_folder, tmp_path / "half_fetched"))
    shard(folder)
    for path in folder.rglob("*-00002-of-00002.safetensors"):
        path.unlink()
    with pytest.raises(ValueError, match="diffusion_pytorch_model-00002-of-00002.safetensors missing in .*unet"):
        depth(folder)
    for path in model_files(svd_folder):
        half = folder / path.relative_to(svd_folder).with_name(f"{path.stem}.fp16.safetensors")
        shutil.copy(path, half)
    np.testing.assert_array_equal(depth(folder), depth(svd_folder))
