"""What checkpoints are judged by: a data set's held-out split, never what a run trains on."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from depth_train.cli import main
from depth_train.config import Source
from depth_train.config_files import load_config
from depth_train.data.datasets import open_dataset
from depth_train.data.held_out import HeldOut, HeldOutSplit, judging_clips
from depth_train.loop.clock import Pace
from depth_train.loop.finetune import train
from depth_train.loop.watch import Show
from PIL import Image

from tests.depth_train.data.test_datasets import FRAMES, HEIGHT, WIDTH, WRITERS, depth_of, picture
from tests.depth_train.loop.test_finetune import SMALL, plain

# Where the published data set has a sequence that is held out, for a copy of the one that the writers make.
TRAINED_AND_HELD_OUT = {
    "tartanair": ("office/Easy/P001", "office/Hard/P007"),
    "vkitti2": ("Scene01/fog", "Scene06/fog"),
    "mvs-synth": ("GTAV_540/0000", "GTAV_540/0110"),
}


def write_both(name: str, root: Path) -> None:
    WRITERS[name](root)
    first, second = TRAINED_AND_HELD_OUT[name]
    shutil.copytree(root / first, root / second)


def write_folder(root: Path, *splits: str) -> None:
    for split in splits:
        for part in ("rgb", "depth"):
            (root / split / "room" / part).mkdir(parents=True)
        for index in range(FRAMES):
            Image.fromarray(picture(index)).save(root / split / "room" / "rgb" / f"{index}.png")
            np.save(root / split / "room" / "depth" / f"{index}.npy", depth_of(index))


@pytest.mark.parametrize("name", TRAINED_AND_HELD_OUT)
def test_what_is_held_out_is_not_trained_on(name: str, tmp_path: Path) -> None:
    write_both(name, tmp_path)
    found = {}
    for split in ("all", "train", "val"):
        found[split] = [sequence.name for sequence in open_dataset(name, tmp_path, split=split).sequences]
    first, second = TRAINED_AND_HELD_OUT[name]
    assert len(found["train"]) == len(found["val"]) == 1 and len(found["all"]) == 2
    assert found["train"][0].startswith(first) and found["val"][0].startswith(second)


def test_flights_of_doubled_folders_are_held_out_too(tmp_path: Path) -> None:
    """The archives unpack to `office/office/Hard/P007`."""
    write_both("tartanair", tmp_path / "office")
    (sequence,) = open_dataset("tartanair", tmp_path, split="val").sequences
    assert sequence.name == "office/office/Hard/P007"


def test_a_folder_of_ones_own_has_the_splits_of_its_folders(tmp_path: Path) -> None:
    write_folder(tmp_path, "train", "val")
    assert [s.name for s in open_dataset("folder", tmp_path, split="val").sequences] == ["val/room"]
    assert len(open_dataset("folder", tmp_path).sequences) == 2
    with pytest.raises(ValueError, match="test/: folders with rgb"):
        open_dataset("folder", tmp_path, split="test")


def test_full_size_presets_train_on_no_held_out_split() -> None:
    for preset in ("chronodepth", "one-step", "controlnet"):
        assert {source.split for source in load_config(preset).sources} == {"train"}


@pytest.mark.parametrize("name", ["tartanair", "mvs-synth"])
def test_a_run_is_judged_by_the_held_out_split(name: str, tmp_path: Path) -> None:
    """The truth is that of the split, in metres, in the size of the last stage."""
    write_both(name, tmp_path)
    config = replace(
        SMALL, sources=(Source(name, str(tmp_path), split="train"),), validation=replace(SMALL.validation, clips=2)
    )
    (judged,) = judging_clips(config)
    assert isinstance(judged, HeldOutSplit)
    assert [sequence.name for sequence in judged.dataset.sequences][0].startswith(TRAINED_AND_HELD_OUT[name][1])
    stage = config.stages[-1]
    clips = list(judged)
    assert len(clips) == 1, "three frames a clip, of five"
    assert clips[0].rgb.shape == (stage.max_frames, stage.height, stage.width, 3)
    depth_m = depth_of(1) * (0.1 if name == "mvs-synth" else 1)
    assert np.nanmax(clips[0].depth_m[1][clips[0].known[1]]) == pytest.approx(depth_m[4:].max(), rel=0.1)
    # A run that sees all of it has nothing held out.
    everything = replace(config, sources=(Source(name, str(tmp_path)),))
    assert isinstance(judging_clips(everything)[0], HeldOut)
    # Another data set can be named.
    named = replace(
        everything, validation=replace(everything.validation, datasets=(Source(name, str(tmp_path), split="val"),))
    )
    assert isinstance(judging_clips(named)[0], HeldOutSplit)


def test_the_best_checkpoint_is_chosen_on_the_held_out_split(tmp_path: Path) -> None:
    write_both("tartanair", tmp_path / "data")
    config = replace(
        SMALL,
        sources=(Source("tartanair", str(tmp_path / "data"), split="train"),),
        stages=tuple(replace(stage, height=16, width=32, clip_frames=3) for stage in SMALL.stages),
        validation=replace(SMALL.validation, clips=1),
        steps=2,
    )
    lines: list[str] = []
    train(config, tmp_path / "first", pace=Pace(save_every_s=0), show=Show(lines.append))
    assert "checkpoints are judged by 1 held-out clip of tartanair (val)" in lines
    # Other truth in the split alone: the same weights get another score.
    for path in (tmp_path / "data" / "office/Hard/P007/depth_left").glob("*.npy"):
        np.save(path, np.load(path)[::-1])
    train(config, tmp_path / "second", show=Show(lambda line: None))
    scores = [(tmp_path / f"{run}-best" / "validation.json").read_text() for run in ("first", "second")]
    assert scores[0] != scores[1]


def test_a_split_that_is_not_there_is_told_first(tmp_path: Path) -> None:
    WRITERS["tartanair"](tmp_path / "data")
    sources = (Source("tartanair", str(tmp_path / "data"), split="train"),)
    stages = tuple(replace(stage, height=16, width=32, clip_frames=3) for stage in SMALL.stages)
    config = replace(SMALL, sources=sources, stages=stages, validation=replace(SMALL.validation, clips=1))
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(plain(config)))
    done = CliRunner().invoke(main, ["run", str(tmp_path / "c.yaml"), "-o", str(tmp_path / "out")])
    assert done.exit_code == 2 and len(done.stderr.strip().splitlines()) == 1, done.output
    assert "split val" in done.stderr and "validation: clips: 0" in done.stderr


@pytest.mark.parametrize("name", ["vkitti2", "folder"])
def test_score_takes_a_data_set(name: str, tmp_path: Path) -> None:
    """One with cameras, one without: where they are not known, what needs them is nan."""
    if name == "folder":
        write_folder(tmp_path, "train", "val")
    else:
        write_both(name, tmp_path)
    arguments = ["score", "bundled", "--dataset", name, "--root", str(tmp_path), "--clips", "2", "--frames", "2"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert f"2 held-out clips of {name} (val), 2 frames; " in done.output
    (row,) = (line.split() for line in done.output.splitlines() if line.startswith("context windows"))
    assert 0 < float(row[2]) < 2 and 0 <= float(row[3]) <= 1
    assert (row[5] == "nan") == (name == "folder")


def test_an_unreadable_clip_is_told_and_the_next_taken(tmp_path: Path) -> None:
    write_folder(tmp_path, "val")
    (tmp_path / "val/room/depth/0.npy").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"0\.npy"):
        clips = list(HeldOutSplit(open_dataset("folder", tmp_path), 2))
    assert [clip.depth_m.shape for clip in clips] == [(1, HEIGHT, WIDTH)] * 2
    assert np.array_equal(clips[0].rgb[0], picture(1))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--dataset", "hypersym", "--root", "."], "did you mean 'hypersim'"),
        (["--dataset", "vkitti2"], "--root: none is given"),
        (["--root", "."], "--root: goes with --dataset alone"),
        (["--dataset", "vkitti2", "--root", ".", "--split", "easy"], "--split: 'easy' is not one of all, train, val"),
        (["--dataset", "vkitti2", "--root", ".", "--store", "."], "--dataset excludes --footage and --store"),
    ],
)
def test_bad_requests_get_one_line(arguments: list[str], text: str) -> None:
    done = CliRunner().invoke(main, ["score", "bundled", *arguments])
    assert done.exit_code == 2 and text in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.output
