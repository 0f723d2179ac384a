"""Each benchmark runs, at the smallest size that still prints its figures. What they measure is read by people."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest

SMALLEST = {
    "depth2video_overhead": ["--frames", "16"],
    "edges": ["--height", "90", "--scenes", "1"],
    "full_size_svd": ["--narrow"],
    "geometry": ["--clips", "1", "--frames", "12", "--height", "144", "--width", "256"],
    "generated_video": ["fidelity", "--clips", "1", "--frames", "6"],
    "kill": ["--kills", "1", "--frames", "12"],
    "memory": ["--short", "9", "--long", "12", "--height", "64", "--width", "64"],
    "overhead": ["--frames", "16"],
    "step_time": ["--config", "smoke", "--steps", "2"],
    "view_quality": ["true", "--scenes", "1"],
    "warp_speed": ["--rounds", "1"],
}
# Commands of a benchmark that holds several.
FURTHER = [
    ("generated_video", ["worth", "--clips", "1", "--frames", "9"]),
    ("view_quality", ["estimated", "--scenes", "1", "--frames", "4"]),
]


def test_no_benchmark_is_forgotten() -> None:
    """A new file in tests/benchmarks/ needs its smallest size here."""
    folder = Path(__file__).parent / "benchmarks"
    assert sorted(SMALLEST) == sorted(path.stem for path in folder.glob("[a-z]*.py"))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arguments"), [*SMALLEST.items(), *FURTHER])
def test_a_benchmark_prints_its_figures(
    name: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    try:
        importlib.import_module(f"tests.benchmarks.{name}").main()
    except SystemExit as end:  # how click ends
        assert not end.code
    printed = capsys.readouterr().out
    assert re.search(r"\d\.\d", printed), printed
