"""Which ffmpeg runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from depth_engine.video.ffmpeg_process import FFMPEG_VARIABLE, find_ffmpeg
from depth_engine.video.read import probe
from tests.clips import make_clip


def test_a_program_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FFMPEG_VARIABLE, "/no/such/ffmpeg")
    with pytest.raises(FileNotFoundError, match=FFMPEG_VARIABLE):
        probe(make_clip(tmp_path / "clip.mp4"))


def test_a_program_that_is_named_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_ffmpeg()
    monkeypatch.setenv(FFMPEG_VARIABLE, found)
    assert find_ffmpeg() == found


@pytest.mark.parametrize(
    ("version", "accepted"),
    [("4.4.6-0ubuntu0.22.04.1", False), ("n5.0.1", False), ("5.1.9-0+deb12u1", True), ("N-118448-g43be8d0", True)],
)
def test_an_ffmpeg_too_old_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, accepted: bool
) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\necho 'ffmpeg version {version} Copyright (c) 2000-2026 the FFmpeg developers'\n")
    program.chmod(0o755)
    monkeypatch.delenv(FFMPEG_VARIABLE)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    if accepted:
        assert find_ffmpeg() == str(program)
        return
    with pytest.raises(ValueError, match=rf"ffmpeg: {program} is version [45]\.[04]; 5\.1 or later is accepted"):
        probe(make_clip(tmp_path / "clip.mp4"))
