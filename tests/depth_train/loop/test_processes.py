"""Training by two CPU processes (gloo), each with a copy of the model or with half of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
import yaml
from accelerate import DistributedType
from click.testing import CliRunner
from depth_train.cli import main
from depth_train.config import TrainConfig, load_config
from depth_train.loop import processes, sharding
from depth_train.loop.feeder import parts_of
from depth_train.loop.processes import check_divisible, start_accelerator
from safetensors.torch import load_file

from tests.depth_train.loop.test_finetune import ROOT, SMALL, assert_alike, plain, quiet, weights
from tests.depth_train.tasks.test_controlnet import STAGE


def in_two_processes(
    folder: Path,
    *arguments: str,
    script: str = "from depth_train.cli import main",
    environment: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """What `depth-train run config.yaml -o two` prints, run by two CPU processes (gloo)."""
    (folder / "run.py").write_text(f"import sys\n{script}\nmain(['run', *sys.argv[1:]])\n")
    config = ("--device", "cpu", "--quiet", *arguments, "-o", str(folder / "two"), str(folder / "config.yaml"))
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", str(folder / "run.py"), *config],
        cwd=ROOT,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(str(ROOT / folder) for folder in ("", "apps", "training")),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=300,
    )
    return f"{done.stdout}\n{done.stderr}\nexit code {done.returncode}"


@pytest.mark.parametrize("how", ["copies", "--shard", "accelerate's FSDP setting"])
def test_two_processes_end_in_the_weights_of_one(how: str, tmp_path: Path) -> None:
    """Half of each batch each, and half of the model; the same global batch in one process beside it."""
    config = replace(SMALL, precision="float32", optimizer="adamw", learning_rate=1e-3)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain(config)))
    quiet(config, tmp_path / "one")
    # Saves on the way: the processes must agree when.
    options = ["--shard"] if how == "--shard" else []
    # What `accelerate launch` with an FSDP config sets.
    environment = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"} if how.startswith("accelerate") else {}
    told = in_two_processes(tmp_path, "--save-every", "0.01", *options, environment=environment)
    assert "exit code 0" in told, told
    assert told.count("2 processes, each with a copy" if how == "copies" else "2 processes, the model divided") == 1
    assert told.count("6 steps; checkpoint in") == 1, "the main process alone reports"
    assert_alike(config, weights(tmp_path / "one"), weights(tmp_path / "two"))


def test_the_launcher_s_fsdp_setting_is_asked_about_and_kept_from_accelerate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str | None] = []

    class Seeing(processes.Accelerator):
        def __init__(self, **given: Any) -> None:
            seen.append(os.environ.get("ACCELERATE_USE_FSDP"))
            super().__init__(**given)

    monkeypatch.setattr(processes, "Accelerator", Seeing)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    for _ in range(2):  # one process may train several times
        assert sharding.asked_by_launcher()
        assert start_accelerator("cpu").distributed_type == DistributedType.NO
    assert seen == [None, None]
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "false")
    assert not sharding.asked_by_launcher()


def test_the_launcher_s_fsdp_setting_is_checked_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    done = CliRunner().invoke(main, ["run", "bundled", "-o", str(tmp_path / "folder" / "model")])
    assert done.exit_code == 2, done.output
    assert "accelerate launch: FSDP: muon works on whole matrices" in done.output
    assert not any(tmp_path.iterdir())


KILLED_AT_FOUR = """
from depth_train.loop import finetune
real = finetune.rate_share
def killed(config, step, progress):
    if step == 4:
        raise SystemExit(9)
    return real(config, step, progress)
finetune.rate_share = killed
from depth_train.cli import main
"""


def test_a_divided_run_goes_on_divided_or_not(tmp_path: Path) -> None:
    """Moments and averages are put together in the file, and divided again."""
    config = replace(SMALL, precision="float32", optimizer="adamw", learning_rate=1e-3)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain(config)))
    told = in_two_processes(tmp_path, "--shard", "--save-every", "0.0001", script=KILLED_AT_FOUR)
    assert "exit code 0" not in told
    progress = json.loads((tmp_path / "two" / "resume" / "progress.json").read_text())
    assert progress["step"] in (3, 4), told
    shutil.copytree(tmp_path / "two", tmp_path / "alone")
    quiet(config, tmp_path / "alone", resume=True)
    assert "exit code 0" in (told := in_two_processes(tmp_path, "--shard", "--resume")), told
    quiet(config, tmp_path / "whole")
    for name in ("alone", "two"):
        assert_alike(config, weights(tmp_path / "whole"), weights(tmp_path / name))


@pytest.mark.parametrize(("preset", "processes"), [("one-step", 4), ("controlnet", 2), ("bundled", 2)])
def test_presets_can_be_divided(preset: str, processes: int) -> None:
    """Each process accumulates its share in parts no larger than one process would."""
    config = load_config(preset)
    check_divisible(config, processes)
    for stage in config.stages:
        share = stage.batch // processes
        assert share % parts_of(stage, processes) == 0
        assert share // parts_of(stage, processes) <= stage.batch // stage.accumulate
    with pytest.raises(ValueError, match="can't be divided among 7 processes"):
        check_divisible(config, 7)


def test_what_can_not_be_divided_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["run", "smoke", "-o", str(tmp_path / "model"), "--shard"])
    assert done.exit_code == 2 and "--shard: muon works on whole matrices" in done.stderr


def test_a_controlnet_is_divided_too(svd_folder: Path, tmp_path: Path) -> None:
    """Its frozen base is whole in every process."""
    config = TrainConfig(
        task="controlnet", base=str(svd_folder), control_channels=(4, 6, 8, 12), optimizer="adamw",
        learning_rate=2e-3, precision="float32", steps=3, warmup=1, ema_half_life=1, stages=(STAGE,),
    )  # fmt: skip
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain(config)))
    quiet(config, tmp_path / "one")
    assert "exit code 0" in (told := in_two_processes(tmp_path, "--shard")), told
    name = Path("controlnet") / "diffusion_pytorch_model.safetensors"
    one, two = (load_file(tmp_path / run / name) for run in ("one", "two"))
    moved = [key for key in one if key.startswith("controlnet_down_blocks")]  # from zero
    scale = max(float(one[key].float().abs().max()) for key in moved)
    assert scale > 0
    for key in moved:
        torch.testing.assert_close(two[key].float(), one[key].float(), atol=0.05 * scale, rtol=0)
