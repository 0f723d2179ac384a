from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from depth_train.checkpoints.average import average_checkpoints
from depth_train.cli import main
from safetensors.torch import load_file, save_file

from depth_engine import DepthEngine
from depth_engine.models.catalogue import BUNDLED_FOLDER

WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    """The bundled checkpoint, and the same with 2 added to every weight and a state to resume from."""
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        shutil.copytree(BUNDLED_FOLDER, folder)
        (folder / "resume").mkdir()
        (folder / "resume" / "state.safetensors").write_bytes(b"-")
    moved = {name: tensor + 2 for name, tensor in load_file(folders[0] / WEIGHTS).items()}
    save_file(moved, folders[1] / WEIGHTS, {"format": "pt"})
    return folders


def test_mean_of_two(pair: list[Path], tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["average", *map(str, pair), "-o", str(tmp_path / "mean")])
    assert done.exit_code == 0, done.output
    first, mean = load_file(pair[0] / WEIGHTS), load_file(tmp_path / "mean" / WEIGHTS)
    assert list(first) == list(mean)
    for name, tensor in first.items():
        assert mean[name].dtype == tensor.dtype
        torch.testing.assert_close(mean[name], tensor + 1, rtol=0, atol=2e-3)  # float16
    record = json.loads((tmp_path / "mean" / "average.json").read_text())
    assert len(set(record["weights_sha256"])) == 2
    assert not (tmp_path / "mean" / "resume").exists() and not (tmp_path / "mean" / "train_config.json").exists()
    assert DepthEngine.from_pretrained(tmp_path / "mean", device="cpu").spec.kind == "disparity"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "mean"]


def test_how_a_checkpoint_is_best_run_may_differ(pair: list[Path], tmp_path: Path) -> None:
    spec = pair[1] / "depth_engine.json"
    spec.write_text(json.dumps(json.loads(spec.read_text()) | {"context_c_noise": -1.5, "flow": False, "stride": 2}))
    average_checkpoints(pair, tmp_path / "mean")
    assert (tmp_path / "mean" / "depth_engine.json").read_text() == (pair[0] / "depth_engine.json").read_text()


def test_what_does_not_add_up_is_refused(pair: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 given; give two or more"):
        average_checkpoints(pair[:1], tmp_path / "mean")
    with pytest.raises(FileExistsError, match="overwrite"):
        average_checkpoints(pair, pair[0])
    weights = load_file(pair[1] / WEIGHTS)
    weights.pop("conv_in.bias")
    save_file(weights, pair[1] / WEIGHTS, {"format": "pt"})
    with pytest.raises(ValueError, match="the tensors of"):
        average_checkpoints(pair, tmp_path / "mean")
    config = pair[1] / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"layers_per_block": 7}))
    with pytest.raises(ValueError, match="built otherwise"):
        average_checkpoints(pair, tmp_path / "mean")
    spec = pair[1] / "depth_engine.json"
    spec.write_text(json.dumps(json.loads(spec.read_text()) | {"kind": "depth"}))
    with pytest.raises(ValueError, match="has kind 'depth' in depth_engine.json, .* has 'disparity'"):
        average_checkpoints(pair, tmp_path / "mean")
    assert not (tmp_path / "mean").exists()
