from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from depth_train.cli import main
from depth_train.scenes.models.store import list_views
from PIL import Image

from tests.depth_train.test_footage import write_tum


def run(*arguments: object):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_assets_lists_what_a_folder_holds_and_what_fails(assets: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").symlink_to(assets)
    done = run("assets", "--no-fetch", "--folder", assets)
    assert done.exit_code == 0, done.output
    assert "16 models, 8 pictures" in done.output and "8 models: CC0" in done.output and "Somebody" in done.output
    assert "lost.obj" in done.output


def test_assets_without_a_folder_say_how_to_bring_one(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run("assets", "--folder", tmp_path / "none")
    assert done.exit_code == 2 and "apt-get is not on this machine" in done.output and "--folder" in done.output


def test_scenes_fill_a_store_that_training_reads(assets: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    done = run("scenes", "--assets", assets, "-o", store, "--scenes", 2, "--views", 1)
    assert done.exit_code == 0, done.output
    assert "views of 1 frames written" in done.output and list_views(store)
    config = tmp_path / "small.yaml"
    config.write_text(
        f"""
network: {{channels: [32, 32], attention: [false, true], heads: [1, 2]}}
optimizer: {{warmup: 2}}
steps: 2
loss: {{relative_weight: 0.5}}
sources: [{{name: rendered, root: {store}, gives: images}}]
stages:
  - until: 1.0
    height: 32
    width: 32
    batch: 2
    max_frames: 1
    clip_frames: 1
    pool: 4
    fresh: 1
    shapes: [[32, 48], [48, 32]]
"""
    )
    done = run("run", config, "-o", tmp_path / "mine", "--quiet")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "mine" / "unet").is_dir()


@pytest.mark.parametrize(
    ("options", "named"),
    [(("--first-seed", 5), "--first-seed"), (("--held-out", "--first-seed", 2_000_000), "--first-seed")],
)
def test_seeds_of_the_other_half_are_refused(assets: Path, tmp_path: Path, options, named) -> None:
    done = run("scenes", "--assets", assets, "-o", tmp_path / "store", *options)
    assert done.exit_code == 2 and named in done.output and not (tmp_path / "store").exists()


def test_a_run_on_a_store_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        f"sources: [{{name: rendered, root: {tmp_path / 'none'}, gives: images}}]\nsteps: 1\nstages:\n"
        "  - {until: 1.0, height: 32, width: 32, batch: 2, max_frames: 1, clip_frames: 1, pool: 4, fresh: 1}\n"
    )
    done = run("run", config, "-o", tmp_path / "mine", "--quiet")
    assert done.exit_code == 2 and "depth-train scenes" in done.output


def test_score_on_footage_prints_a_table(tmp_path: Path) -> None:
    write_tum(tmp_path / "room")
    done = run("score", "bundled", "--footage", tmp_path / "room", "--max-frames", 2)
    assert done.exit_code == 0, done.output
    assert "room: 2 frames, truth by sensor" in done.output
    assert all(row in done.output for row in ("depth", "image row", "constant", "Spearman"))
    missing = run("score", "bundled", "--footage", tmp_path / "nothing")
    assert missing.exit_code == 2 and "--footage" in missing.output


def test_a_sheet_shows_frames_and_depth(tmp_path: Path) -> None:
    for i in range(3):
        Image.fromarray(np.full((48, 64, 3), 60 * i, dtype=np.uint8)).save(tmp_path / f"frame{i}.png")
    out = tmp_path / "sheet.png"
    arguments = ("sheet", "bundled", "--footage", tmp_path / "frame%d.png", "-o", out, "--columns", 2)
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    with Image.open(out) as picture:
        assert picture.size == (2 * 200, 2 * (150 + 16 + 2))
    again = run(*arguments)
    assert again.exit_code == 2 and "--overwrite" in again.output


def test_procedural_scenes_go_into_a_store_and_into_packs(tmp_path: Path) -> None:
    store = tmp_path / "store"
    done = run("scenes", "--procedural", "-o", store, "--scenes", 1, "--views", 1, "--frames", 2)
    assert done.exit_code == 0, done.output
    (view,) = list_views(store)
    assert view.frames == 2
    done = run("score", "bundled", "--store", store)
    assert done.exit_code == 0 and "procedural: 1 views" in done.output, done.output
    depth, row, _ = (line.split()[-4:] for line in done.output.splitlines()[-3:])
    assert all(0 <= float(value) for value in (*depth, row[3])), "delta1, AbsRel, Spearman, drift of the level"
    assert run("score", "bundled", "--store", tmp_path / "none").exit_code == 2
    done = run("pack", store, "-o", tmp_path / "packs")
    assert done.exit_code == 0 and "1 packs" in done.output, done.output
    refused = run("scenes", "--procedural", "--assets", tmp_path, "-o", store)
    assert refused.exit_code == 2 and "--procedural" in refused.output
    missing = run("pack", tmp_path / "none", "-o", tmp_path / "other")
    assert missing.exit_code == 2 and "depth-train scenes" in missing.output
