"""Configs from YAML: what comes with the project loads, and mistakes get one line."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from depth_train.cli import main
from depth_train.config import TrainConfig
from depth_train.config_files import load_config, preset_names
from depth_train.loop.plan import count_parameters, describe_config, describe_stages
from depth_train.tasks.start import build_unet

STAGES = "stages: [{until: 1.0, height: 32, width: 32, batch: 1, max_frames: 1, clip_frames: 1, pool: 1, fresh: 1}]"


@pytest.mark.parametrize("name", preset_names())
def test_presets_load_and_survive_json(name: str) -> None:
    config = load_config(name)
    assert config.stages[-1].until == 1
    assert json.loads(json.dumps(asdict(config)))["stages"]


def test_a_file_overrides_the_defaults_alone(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    stage = {"until": 1.0, "height": 64, "width": 96, "batch": 1, "max_frames": 2, "clip_frames": 4, "pool": 4}
    path.write_text(yaml.safe_dump({"optimizer": {"learning_rate": 1}, "stages": [{**stage, "fresh": 1}]}))
    config = load_config(str(path))
    assert config.optimizer.learning_rate == 1.0 and config.network.patch == TrainConfig().network.patch
    assert config.stages[0].width == 96 and config.stages[0].trains == "all"
    assert config.max_frames == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "optimizer: {learning_rat: 1}",
            "field: 'learning_rat' is not known; did you mean 'learning_rate'?",
        ),
        (
            "optimizer: {learning_rate: fast}",
            "learning_rate: 'fast' is not accepted; give a value of type float",
        ),
        ("steps: 1.5", "steps: 1.5 is not accepted; give a value of type int"),
        ("steps: true", "steps: True is not accepted"),
        ("steps: -1\n" + STAGES, "steps: -1 is not accepted; give a number from 0 up"),
        ("steps: 0\n" + STAGES, "steps: 0 is not accepted; give 1 or more"),
        ("optimizer: {warmup: 0}\n" + STAGES, "optimizer: warmup: 0 is not accepted; give 1 or more"),
        ("optimizer: {decay_from: 1}\n" + STAGES, "optimizer: decay_from: 1.0 is not accepted; give a share below 1"),
        (STAGES.replace("batch: 1", "batch: 0"), "stages[0]: batch: 0 is not accepted; give 1 or more"),
        ("network: {channels: 32}", "network: channels: 32 is not a list"),
        ("- 1", "is not a mapping"),
        ("a: [", "is not YAML"),
        ("seed: 1", "stages: until is []"),
        (
            "stages: [{until: 1.0, height: 32}]",
            "stages[0]: fields missing: batch, clip_frames, fresh, max_frames, pool, width",
        ),
        (
            "stages: [{until: 1.0, height: 30, width: 32, batch: 1, max_frames: 1, clip_frames: 1, pool: 1, fresh: 1}]",
            "stages[0]: 32x30 is not made of multiples of 16",
        ),
        (
            "stages: [{until: 1.0, height: 32, width: 32, batch: 1, max_frames: 3, clip_frames: 2, pool: 1, fresh: 1}]",
            "max_frames 3 is more than clip_frames 2",
        ),
        (STAGES.replace("fresh: 1", "fresh: 0"), "stages[0]: fresh: 0.0 is not accepted; give more than 0"),
        (STAGES.replace("fresh: 1", "fresh: 1, min_frames: 2"), "min_frames 2 is more than max_frames 1"),
        (STAGES.replace("fresh: 1", "fresh: 1, accumulate: 2"), "accumulate: 2 does not divide the batch, 1"),
        (STAGES.replace("fresh: 1", "fresh: 1, objective: gan"), "objective: 'gan' is not known"),
        (STAGES.replace("fresh: 1", "fresh: 1, trains: spatia"), "did you mean 'spatial'?"),
        ("optimizer: {name: lion}\n" + STAGES, "optimizer: name: 'lion' is not known"),
        ("sources: []\n" + STAGES, "sources: one or more are needed"),
        ("recommends: {window: 4, stride: 5}\n" + STAGES, "stride: 5 is more than the window, 4"),
        ("sigma: 0\n" + STAGES, "sigma: 0.0 is not accepted; give more than 0"),
        ("optimizer: {clip_norm: 0}\n" + STAGES, "optimizer: clip_norm: 0.0 is not accepted; give more than 0"),
        ("context: {probability: 2}\n" + STAGES, "context: probability: 2.0 is not accepted; give a share, 0 to 1"),
        (
            "context: {level: [2, 1]}\n" + STAGES,
            "level: [2.0, 1.0] is not accepted; give the least and",
        ),
        (
            "network: {channels: [40, 40], attention: [false, false], heads: [1, 1]}\n" + STAGES,
            "channels: 40 is not accepted",
        ),
        (
            "network: {channels: [32, 32], attention: [false, true], heads: [1, 3]}\n" + STAGES,
            "heads: 3 does not divide",
        ),
        ("sources: [{name: hypersym}]\n" + STAGES, "did you mean 'hypersim'"),
        ("sources: [{name: tartanair, root: nowhere}]\n" + STAGES, "tartanair: nowhere is no folder"),
        (
            "sources: [{name: procedural, split: test}]\n" + STAGES,
            "split: 'test' of the procedural scenes is not accepted",
        ),
        (
            "sources: [{gives: images}]\n" + STAGES.replace("_frames: 1", "_frames: 2"),
            "all give images; steps of 2 frames need clips",
        ),
    ],
)
def test_mistakes_get_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    done = CliRunner().invoke(main, ["run", str(path), "-o", str(tmp_path / "out")])
    assert done.exit_code == 2, done.output
    assert message in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_unknown_presets_and_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="did you mean 'bundled'"):
        load_config("bundle")
    with pytest.raises(ValueError, match="no such file"):
        load_config(str(tmp_path / "none.yaml"))


def test_dry_run_without_weights_and_data_counts_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    done = CliRunner().invoke(main, ["run", "chronodepth", "-o", "out", "--dry-run"])
    assert done.exit_code == 2 and done.stderr.strip().endswith("hypersim: data/hypersim is no folder")
    assert "base: stabilityai/stable-video-diffusion-img2vid-xt" in done.stdout
    counts = re.findall(r"trains ([\d.]+) of 1524.6 M parameters", done.stdout)
    assert len(counts) == 2 and sum(map(float, counts)) == pytest.approx(1524.6, abs=0.2), "spatial, then temporal"


def test_dry_run_prints_the_config_and_counts(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["run", "smoke", "-o", str(tmp_path / "out"), "--steps", "3", "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "steps: 3" in done.output and "stage 3: one_step, trains" in done.output
    assert not (tmp_path / "out").exists()
    config = load_config("smoke")
    unet = build_unet(config)
    whole, spatial = count_parameters(unet, "spatial")
    assert sum(count_parameters(unet, part)[1] for part in ("spatial", "temporal")) == whole
    assert whole == sum(parameter.numel() for parameter in unet.parameters()) > spatial > whole / 4
    printed = f"{describe_config(config)}\n{describe_stages(config)}"
    assert yaml.safe_load(printed.split("\nstage 1")[0])["network"]["channels"] == [32, 32], (
        "what is printed can be read back"
    )
