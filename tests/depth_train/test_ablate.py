"""The ablation command at toy size: every row is trained, run its own way and written down."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from depth_train.ablate import ROWS, ablations, configs, plot, table
from PIL import Image


def test_configs_differ_in_what_their_rows_say() -> None:
    made = configs(0)
    assert {row.training for row in ROWS} == set(made)
    assert [stage.trains for stage in made["full"].stages] == ["spatial_alone", "temporal"]
    assert all(stage.min_frames == 2 for stage in made["no-images"].stages)
    assert made["fixed-length"].stages[1].min_frames == made["fixed-length"].stages[1].max_frames
    assert [stage.trains for stage in made["joint"].stages] == ["all"]
    assert made["one-step"].stages[0].objective == "one_step"


def test_rows_are_trained_once_and_scored(tmp_path: Path) -> None:
    small = {
        name: replace(
            config,
            network=replace(config.network, channels=(32, 32), attention=(False, True), heads=(1, 2)),
            steps=2,
            recommends=replace(config.recommends, window=3, stride=2),
            stages=tuple(
                replace(stage, height=32, width=48, batch=1, clip_frames=5, pool=2, fresh=1) for stage in config.stages
            ),
        )
        for name, config in configs(0).items()
    }
    lines: list[str] = []
    options = {"clips": 1, "frames": 5, "seed": 0, "device": "cpu", "report": lines.append, "trainings": small}
    rows = ablations(tmp_path, budget_minutes=100, **options)  # type: ignore[arg-type]
    assert list(rows) == ["best constant", *(row.label for row in ROWS)]
    by_strategy = [rows[row.label].abs_rel for row in ROWS if row.training == "full"]
    assert len(set(by_strategy)) == 3, "each strategy runs its own way"
    assert (
        json.loads((tmp_path / "ablation.json").read_text())["F full, context"]["abs_rel"]
        == rows["F full, context"].abs_rel
    )
    assert table(rows).count("\n") == len(ROWS) + 1
    plot(rows, tmp_path / "ablation.png")
    with Image.open(tmp_path / "ablation.png") as picture:
        assert picture.width > 1000
    lines.clear()
    again = ablations(tmp_path, budget_minutes=100, **options)  # type: ignore[arg-type]
    assert all(again[row.label] == rows[row.label] for row in ROWS)
    assert sum("trained already" in line for line in lines) == len(small)
