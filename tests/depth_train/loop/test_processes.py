"""Training by two CPU processes (gloo), each with a copy of the model or with half of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
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
from depth_train.config import Control, Optimizer, Source, TrainConfig
from depth_train.data.datasets import DepthClip, DepthDataset
from depth_train.loop import finetune, processes, sharding
from depth_train.loop.feeder import Drawn, Feeder
from depth_train.loop.finetune import train
from depth_train.loop.processes import start_accelerator
from depth_train.loop.watch import Show
from safetensors.torch import load_file

from tests.depth_train.data.test_datasets import write_tartanair
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


class BothFeeders:
    """The batches of two processes, one after the other, for one process that does the work of both."""

    def __init__(self, task: Any, config: TrainConfig, device: torch.device, process: int, processes: int) -> None:
        assert (process, processes) == (0, 1)
        self._feeders = [Feeder(task, config, device, number, 2) for number in range(2)]

    def ask(self, step: int, stage: int) -> Callable[[], Drawn]:
        first, second = (feeder.ask(step, stage) for feeder in self._feeders)
        return lambda: first()._replace(parts=[*first().parts, *second().parts])

    def close(self) -> None:
        for feeder in self._feeders:
            feeder.close()


def alone(config: TrainConfig, folder: Path) -> None:
    """Train in one process on what two would see."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetune, "Feeder", BothFeeders)
        quiet(config, folder)


@pytest.mark.parametrize("how", ["copies", "--shard", "accelerate's FSDP setting"])
def test_two_processes_end_in_the_weights_of_one(how: str, tmp_path: Path) -> None:
    """A batch each, and the model or half of it; both batches in one process beside it."""
    config = replace(SMALL, precision="float32", optimizer=replace(SMALL.optimizer, name="adamw", learning_rate=1e-3))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain(config)))
    alone(config, tmp_path / "one")
    # Saves on the way: the processes must agree when.
    options = ["--shard"] if how == "--shard" else []
    # What `accelerate launch` with an FSDP config sets.
    environment = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"} if how.startswith("accelerate") else {}
    told = in_two_processes(tmp_path, "--save-every", "0.01", *options, environment=environment)
    assert "exit code 0" in told, told
    assert told.count("2 processes, each with a copy" if how == "copies" else "2 processes, the model divided") == 1
    assert "; 8, then 4, then 4 clips a step in all" in told
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
    config = replace(SMALL, precision="float32", optimizer=replace(SMALL.optimizer, name="adamw", learning_rate=1e-3))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain(config)))
    told = in_two_processes(tmp_path, "--shard", "--save-every", "0.0001", script=KILLED_AT_FOUR)
    assert "exit code 0" not in told
    progress = json.loads((tmp_path / "two" / "resume" / "progress.json").read_text())
    assert progress["step"] in (3, 4), told
    shutil.copytree(tmp_path / "two", tmp_path / "fewer")
    lines: list[str] = []
    train(config, tmp_path / "fewer", resume=True, show=Show(lines.append))  # by one process, with its batch
    assert [line for line in lines if "--resume" in line] == [
        "--resume: this run had 2 processes so far and has 1 now: 4, then 2, then 2 clips a step in all instead of "
        "8, then 4, then 4, at the same learning rate, and other clips from here on"
    ]
    assert all(bool(value.isfinite().all()) for value in weights(tmp_path / "fewer").values())
    assert "exit code 0" in (told := in_two_processes(tmp_path, "--shard", "--resume")), told
    assert "--resume" not in told
    alone(config, tmp_path / "whole")
    assert_alike(config, weights(tmp_path / "whole"), weights(tmp_path / "two"))


NOTES_CLIPS = """
import os
from pathlib import Path
from depth_train.cli import main
from depth_train.data.datasets import DepthDataset

real = DepthDataset.__getitem__

def noted(dataset, index):
    with (Path(os.environ["NOTES"]) / os.environ["RANK"]).open("a") as file:
        file.write(f"{index}\\n")
    return real(dataset, index)

DepthDataset.__getitem__ = noted
"""


def test_each_process_reads_its_share_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes together read the clips that one reads for twice the batch, and neither reads the other's."""
    write_tartanair(tmp_path / "data")
    stage = replace(SMALL.stages[0], until=1.0, height=16, width=32, clip_frames=1, batch=1, pool=8, fresh=1)
    sources = (Source("tartanair", str(tmp_path / "data")),)
    config = replace(
        SMALL,
        sources=sources,
        steps=10,
        validation=replace(SMALL.validation, clips=0),
        precision="float32",
        stages=(stage,),
        optimizer=replace(SMALL.optimizer, name="adamw"),
    )
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain(config)))
    notes = tmp_path / "notes"
    notes.mkdir()
    told = in_two_processes(tmp_path, script=NOTES_CLIPS, environment={"NOTES": str(notes)})
    assert "exit code 0" in told, told
    shares = [[int(line) for line in (notes / str(process)).read_text().splitlines()] for process in range(2)]
    # A quarter of the pool to begin with, one for each of 10 steps, one for the step that is made ahead.
    assert [len(share) for share in shares] == [13, 13]

    read: list[int] = []
    real = DepthDataset.__getitem__

    def noted(dataset: DepthDataset, index: int) -> DepthClip:
        read.append(index)
        return real(dataset, index)

    monkeypatch.setattr(DepthDataset, "__getitem__", noted)
    twice = replace(stage, batch=2, pool=16, fresh=2)
    quiet(replace(config, stages=(twice,)), tmp_path / "one")
    assert sorted(read) == sorted(shares[0] + shares[1]) and shares[0] != shares[1]


def test_what_can_not_be_divided_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["run", "smoke", "-o", str(tmp_path / "model"), "--shard"])
    assert done.exit_code == 2 and "--shard: muon works on whole matrices" in done.stderr


def test_a_controlnet_is_divided_too(svd_folder: Path, tmp_path: Path) -> None:
    """Its frozen base is whole in every process."""
    config = TrainConfig(
        task="controlnet", base=str(svd_folder), control=Control(channels=(4, 6, 8, 12)),
        optimizer=Optimizer(name="adamw", learning_rate=2e-3, warmup=1, ema_half_life=1),
        precision="float32", steps=3, stages=(STAGE,),
    )  # fmt: skip
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain(config)))
    alone(config, tmp_path / "one")
    assert "exit code 0" in (told := in_two_processes(tmp_path, "--shard")), told
    name = Path("controlnet") / "diffusion_pytorch_model.safetensors"
    one, two = (load_file(tmp_path / run / name) for run in ("one", "two"))
    moved = [key for key in one if key.startswith("controlnet_down_blocks")]  # from zero
    scale = max(float(one[key].float().abs().max()) for key in moved)
    assert scale > 0
    for key in moved:
        torch.testing.assert_close(two[key].float(), one[key].float(), atol=0.05 * scale, rtol=0)
