"""Frame rates: one parser, and the same rate wherever it is written."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from depth_engine.depth.depth_video import DepthVideo
from depth_engine.depth.sidecar import read_sidecar
from depth_engine.video.probe import probe_file
from depth_engine.video.rate import as_frame_rate

NTSC, FILM = Fraction(30000, 1001), Fraction(24000, 1001)


@pytest.mark.parametrize(
    ("given", "exact"),
    [
        (29.97, NTSC),
        ("29.97", NTSC),
        ("30000/1001", NTSC),
        (NTSC, NTSC),
        (Fraction(2997, 100), NTSC),
        (23.976, FILM),
        (23.98, FILM),
        (25.0, 25),
        (np.int64(25), 25),
        (np.float32(12.5), Fraction(25, 2)),
        (Fraction(1, 3), Fraction(1, 3)),
    ],
)
def test_rounded_rates_are_understood(given, exact: Fraction) -> None:
    assert as_frame_rate(given) == exact


@pytest.mark.parametrize("given", [0, -1, 1e-9, float("nan"), float("inf"), "fast", "1/0", None])
def test_what_is_no_rate_is_refused(given) -> None:
    with pytest.raises(ValueError, match="fps: .* is not a frame rate"):
        as_frame_rate(given)


@pytest.mark.parametrize("given", [29.97, 23.976, "60000/1001", 12.5])
def test_sidecar_and_file_say_the_same_rate(given, tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((8, 16, 16), np.float32)
    rate = as_frame_rate(given)
    depth = DepthVideo(values, "disparity", np.arange(8) / float(rate), given)
    for format in ("mkv", "mp4"):
        file = depth.save(tmp_path / format / "depth", format)  # type: ignore[arg-type]
        assert Fraction(read_sidecar(tmp_path / format / "depth.json")["fps"]) == probe_file(file).fps == rate
