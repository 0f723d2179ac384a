"""A run that was killed and resumed ends in the same bytes as one that was not."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from depth_engine.video import VideoWriter

FORMATS = "mkv,npy,png16,exr,mp4"


def write_clip(path: Path, frames: int = 60) -> None:
    """64x48 with a cut in the middle."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (6, 10, 3), dtype=np.uint8).repeat(12, 0).repeat(12, 1) for _ in range(2)]
    with VideoWriter(path, width=64, height=48, fps=24) as writer:
        for index in range(frames):
            picture = pictures[index >= frames // 2]
            offset = index % 24
            writer.write(np.ascontiguousarray(picture[offset : offset + 48, offset : offset + 64]), index / 24)


def command(clip: Path, output: Path, *extra: str) -> list[str]:
    start = [sys.executable, "-m", "depth_engine.cli", "estimate", str(clip), "-o", str(output)]
    return [*start, "--quiet", "--format", FORMATS, *extra]


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file under a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def kill_at(clip: Path, output: Path, share: float, full_spool_bytes: int) -> bool:
    """Start or resume a run and kill it once this share of the spool is there; True if it lived so long."""
    process = subprocess.Popen(command(clip, output, "--resume"))
    spool = output / clip.stem / ".work" / "spool.f32"
    wanted = share * full_spool_bytes
    while process.poll() is None:
        if spool.exists() and spool.stat().st_size >= wanted:
            process.kill()
            process.wait()
            return True
        time.sleep(0.002)
    return False


@pytest.mark.slow
def test_killed_runs_resume_to_the_same_bytes(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    write_clip(clip)
    subprocess.run(command(clip, tmp_path / "unbroken"), check=True)
    expected = digests(tmp_path / "unbroken")
    assert len(expected) > 60

    full_spool = 60 * 64 * 48 * 4  # the model works at the clip's own size here
    rng = random.Random(0)
    shares = sorted(rng.uniform(0.05, 0.95) for _ in range(3))
    killed = [kill_at(clip, tmp_path / "killed", share, full_spool) for share in shares]
    assert any(killed), "at least one kill met the run"
    subprocess.run(command(clip, tmp_path / "killed", "--resume"), check=True)
    assert digests(tmp_path / "killed") == expected


def test_other_settings_are_not_resumed(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    write_clip(clip, frames=40)
    assert kill_at(clip, tmp_path / "out", 0.2, 40 * 64 * 48 * 4)
    plain = subprocess.run(command(clip, tmp_path / "out"), capture_output=True, text=True)
    assert plain.returncode == 2 and "interrupted run" in plain.stderr and "--resume" in plain.stderr
    other = subprocess.run(command(clip, tmp_path / "out", "--resume", "--window", "4"), capture_output=True, text=True)
    assert other.returncode == 2 and "had window 8, not 4" in other.stderr, other.stderr
    subprocess.run(command(clip, tmp_path / "out", "--overwrite", "--window", "4"), check=True)
    assert (tmp_path / "out" / "clip" / "depth.mkv").exists()
