"""A run that was killed and resumed ends in the same bytes as one that was not."""

from __future__ import annotations

import hashlib
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from depth_engine.video.write import VideoWriter

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
    other = subprocess.run(command(clip, tmp_path / "out", "--resume", "--window", "3"), capture_output=True, text=True)
    assert other.returncode == 2 and re.search(r"had window \d+, not 3", other.stderr), other.stderr
    subprocess.run(command(clip, tmp_path / "out", "--overwrite", "--window", "3"), check=True)
    assert (tmp_path / "out" / "clip" / "depth.mkv").exists()


def test_a_finished_run_is_not_resumed_as_another(tmp_path: Path) -> None:
    """--resume after the end does nothing for the same run, and refuses one that was never made."""
    clip = tmp_path / "clip.mp4"
    write_clip(clip, frames=6)
    subprocess.run(command(clip, tmp_path / "out"), check=True)
    before = digests(tmp_path / "out")
    subprocess.run(command(clip, tmp_path / "out", "--resume"), check=True)
    other = subprocess.run(command(clip, tmp_path / "out", "--resume", "--seed", "7"), capture_output=True, text=True)
    assert other.returncode == 2 and "had seed 0, not 7" in other.stderr, other.stderr
    clip.unlink()
    write_clip(clip, frames=7)
    changed = subprocess.run(command(clip, tmp_path / "out", "--resume"), capture_output=True, text=True)
    assert changed.returncode == 2 and "source_fingerprint" in changed.stderr, changed.stderr
    assert digests(tmp_path / "out") == before


class Killed(BaseException):
    pass


def test_a_kill_while_files_get_their_names_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from depth_engine.cli.main import main
    from depth_engine.runs import job

    clip = tmp_path / "clip.mp4"
    write_clip(clip, frames=6)
    start = ["estimate", str(clip), "--quiet", "--format", FORMATS]
    assert CliRunner().invoke(main, [*start, "-o", str(tmp_path / "unbroken")]).exit_code == 0
    expected, real = digests(tmp_path / "unbroken"), job.publish
    for named in (0, 1, 4, 7):
        broken, count = tmp_path / f"broken{named}", 0

        def killed(part: Path, path: Path, overwrite: bool, last: int = named) -> None:
            nonlocal count
            if count == last:
                raise Killed
            count += 1
            real(part, path, overwrite)

        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(job, "publish", killed)
            CliRunner().invoke(main, [*start, "-o", str(broken)], catch_exceptions=False)
        assert CliRunner().invoke(main, [*start, "-o", str(broken), "--resume"]).exit_code == 0
        assert digests(broken) == expected


def test_a_run_that_failed_at_once_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    from depth_engine.cli.main import main
    from depth_engine.engine import DepthEngine

    def broken(self: DepthEngine, *given: object, **named: object) -> None:
        raise RuntimeError("no more memory")

    clip = tmp_path / "clip.mp4"
    write_clip(clip, frames=6)
    start = ["estimate", str(clip), "--quiet", "-o", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        patch.setattr(DepthEngine, "windows", broken)
        assert CliRunner().invoke(main, start).exit_code == 1
    assert not (tmp_path / "out" / "clip").exists()
    assert CliRunner().invoke(main, start).exit_code == 0


def test_foreign_depth_files_are_not_touched(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    write_clip(clip, frames=4)
    mine = tmp_path / "out" / "clip" / "depth.npy"
    mine.parent.mkdir(parents=True)
    np.save(mine, np.zeros(3))
    start = [sys.executable, "-m", "depth_engine.cli", "estimate", str(clip), "-o", str(tmp_path / "out"), "--quiet"]
    done = subprocess.run([*start, "--format", "mkv"], capture_output=True, text=True)
    assert done.returncode == 2 and "depth.npy exists" in done.stderr
    assert len(np.load(mine)) == 3


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    from depth_engine.runs.lock import only_run

    work = tmp_path / ".work"
    with only_run(work):
        with pytest.raises(ValueError, match="another run is writing"), only_run(work):
            pass
    with only_run(work):
        pass
    assert not list(tmp_path.iterdir())


def test_a_spool_that_lost_data_is_refused(tmp_path: Path) -> None:
    from depth_engine.engine import Carry
    from depth_engine.runs.spool import Spool

    spool = Spool(tmp_path, {"run": 1})
    spool.append(np.ones((2, 4, 4), np.float32), Carry(frames_read=2, frames_done=2))
    spool.close()
    again = Spool(tmp_path, {"run": 1})
    assert [frame.sum() for frame in again.frames((4, 4))] == [16, 16]
    again.close()
    with (tmp_path / "spool.f32").open("r+b") as file:
        file.truncate(40)
    with pytest.raises(ValueError, match="lost data"):
        Spool(tmp_path, {"run": 1})


@pytest.mark.parametrize("part", ["vae", "image_encoder"])
def test_another_base_under_the_same_name_is_another_run(tmp_path: Path, part: str) -> None:
    from click.testing import CliRunner

    from depth_engine.cli.main import main
    from tests.tiny_checkpoints import tiny_svd

    clip = tmp_path / "clip.mp4"
    write_clip(clip, frames=4)
    svd, other = tiny_svd(tmp_path / "svd"), tiny_svd(tmp_path / "other", seed=1)
    start = ["estimate", str(clip), "-o", str(tmp_path / "out"), "--model", str(svd), "--spec", "chronodepth"]
    start += ["--steps", "1", "--max-res", "64", "--quiet"]
    assert CliRunner().invoke(main, start).exit_code == 0
    assert CliRunner().invoke(main, [*start, "--resume"]).exit_code == 0
    for path in (other / part).glob("*.safetensors"):
        shutil.copy(path, svd / part)
    refused = CliRunner().invoke(main, [*start, "--resume"])
    assert refused.exit_code == 2 and "base_sha256" in refused.stderr
