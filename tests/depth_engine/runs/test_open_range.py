"""Depth whose range is known at the end of the clip: counts and colours stand for that range, whenever a run stops."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from depth_engine.cli.main import main
from depth_engine.depth.depth_video import DepthVideo
from depth_engine.depth.source import open_depth
from depth_engine.engine import DepthEngine
from depth_engine.runs.depth_run import DepthRun
from tests.depth_engine.runs.test_resume import digests, write_clip
from tests.tiny_video_depth import tiny_video_depth

FRAMES = 60  # windows begin at 0, 22 and 44; the cut at 30 makes it three of two shots


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("open")
    write_clip(folder / "clip.mp4", FRAMES)
    return folder / "clip.mp4", tiny_video_depth(folder / "metric_tiny.safetensors")


def run(given: tuple[Path, Path], output: Path, *more: str) -> int:
    clip, weights = given
    formats = ["--format", "npy,mkv,png16,exr,mp4"]
    options = ["--model", str(weights), "--max-res", "28", "--device", "cpu", "--quiet", *formats]
    return CliRunner().invoke(main, ["estimate", str(clip), "-o", str(output), *options, *more]).exit_code


@pytest.fixture(scope="module")
def whole(given: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole")
    assert run(given, output) == 0
    return output / "clip"


def test_counts_stand_for_the_clip_s_own_range(given: tuple[Path, Path], whole: Path) -> None:
    values = np.load(whole / "depth.npy")
    sidecar = json.loads((whole / "depth.json").read_text())
    lo, hi = sidecar["value_range"]
    assert sidecar["kind"] == "metric" and sidecar["frame_count"] == FRAMES == len(values)
    assert lo <= values.min() and values.max() <= hi and hi > 1.5, "it is no range from 0 to 1"
    assert sidecar["clipped"] == {name: 0 for name in ("npy", "mkv", "png16", "exr", "mp4")}
    step = (hi - lo) / 65535
    for name in ("depth.mkv", "depth_png16"):
        assert np.abs(DepthVideo.load(whole / name).values - values).max() <= 0.51 * step
    assert np.array_equal(DepthVideo.load(whole / "depth_exr").values, values)
    clip, weights = given
    own = DepthEngine.from_pretrained(weights, device="cpu").estimate(clip, max_res=28)
    assert np.array_equal(own.values, values) and own.meta["shots"] == sidecar["shots"]


def test_a_run_that_stopped_while_making_goes_on(
    given: tuple[Path, Path], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows = DepthEngine.windows

    def stops(*arguments: Any, **named: Any) -> Iterator[Any]:
        yield from itertools.islice(windows(*arguments, **named), 1)
        raise RuntimeError("no more memory")

    with monkeypatch.context() as patch:
        patch.setattr(DepthEngine, "windows", stops)
        assert run(given, tmp_path) == 1
    states = [path.name for path in (tmp_path / "clip" / ".work").glob("*.state")]
    assert len(states) == 1, "what the next window needs is kept once"
    assert run(given, tmp_path, "--resume") == 0
    assert digests(tmp_path / "clip") == digests(whole)


def test_a_run_that_stopped_while_writing_goes_on(
    given: tuple[Path, Path], whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_frame = DepthRun.write_frame

    def stops(self: DepthRun, *arguments: Any) -> None:
        if len(self.times_s) == 40:
            raise OSError("no space left")
        write_frame(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(DepthRun, "write_frame", stops)
        assert run(given, tmp_path) == 1
    assert run(given, tmp_path, "--resume") == 0
    assert digests(tmp_path / "clip") == digests(whole)


def test_relative_depth_is_given_on_from_0_to_1(whole: Path, tmp_path: Path) -> None:
    """What works from depth takes relative depth in [0, 1]; metres stay metres."""
    metres = DepthVideo.load(whole / "depth.npy")
    assert np.array_equal(np.stack(list(open_depth(whole).open())), metres.values)
    relative = DepthVideo(metres.values, "disparity", metres.times_s, metres.fps)
    for format in ("npy", "mkv"):
        path = relative.save(tmp_path / f"{format}.{format}")
        source = open_depth(path)
        unit = np.stack(list(source.open()))
        assert unit.min() == 0 and unit.max() == 1 and "was brought to [0, 1]" in source.notes[0]
        assert np.corrcoef(unit.ravel(), metres.values.ravel())[0, 1] > 0.9999
