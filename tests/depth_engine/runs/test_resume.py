"""A run that was killed and resumed ends in the same bytes as one that was not."""

from __future__ import annotations

import hashlib
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
KEPT_FRAMES = 24  # of a piece, about


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


def kill_at(clip: Path, output: Path, share: float, frames: int) -> bool:
    """Start or resume a run and kill it once this share of the pieces is there; True if it lived so long."""
    process = subprocess.Popen(command(clip, output, "--resume"))
    work = output / clip.stem / ".work"
    wanted = max(1, round(share * frames / KEPT_FRAMES))
    while process.poll() is None:
        if len(list(work.glob("piece-*.safetensors"))) >= wanted:
            process.kill()
            process.wait()
            return True
        time.sleep(0.002)
    return False


def test_other_settings_are_not_resumed(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    write_clip(clip, frames=80)
    assert kill_at(clip, tmp_path / "out", 0.2, 80)
    plain = subprocess.run(command(clip, tmp_path / "out"), capture_output=True, text=True, timeout=300)
    assert plain.returncode == 2 and "interrupted run" in plain.stderr and "--resume" in plain.stderr
    other = subprocess.run(
        command(clip, tmp_path / "out", "--resume", "--window", "3"), capture_output=True, text=True, timeout=300
    )
    assert other.returncode == 2 and re.search(r"had window \d+, not 3", other.stderr), other.stderr
    subprocess.run(command(clip, tmp_path / "out", "--overwrite", "--window", "3"), check=True, timeout=300)
    assert (tmp_path / "out" / "clip" / "depth.mkv").exists()


def test_a_finished_run_is_not_resumed_as_another(tmp_path: Path) -> None:
    """--resume after the end does nothing for the same run, and refuses one that was never made."""
    clip = tmp_path / "clip.mp4"
    write_clip(clip, frames=6)
    subprocess.run(command(clip, tmp_path / "out"), check=True, timeout=300)
    before = digests(tmp_path / "out")
    subprocess.run(command(clip, tmp_path / "out", "--resume"), check=True, timeout=300)
    other = subprocess.run(
        command(clip, tmp_path / "out", "--resume", "--seed", "7"), capture_output=True, text=True, timeout=300
    )
    assert other.returncode == 2 and "had seed 0, not 7" in other.stderr, other.stderr
    clip.unlink()
    write_clip(clip, frames=7)
    changed = subprocess.run(command(clip, tmp_path / "out", "--resume"), capture_output=True, text=True, timeout=300)
    assert changed.returncode == 2 and "source_fingerprint" in changed.stderr, changed.stderr
    assert digests(tmp_path / "out") == before


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
    done = subprocess.run([*start, "--format", "mkv"], capture_output=True, text=True, timeout=300)
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


def test_pieces_that_lost_data_are_refused(tmp_path: Path) -> None:
    from depth_engine.runs.pieces import Piece, PieceStore

    store = PieceStore(tmp_path)
    store.append(Piece(np.ones((2, 4, 4), np.float32)))
    store.append(Piece(np.full((2, 16, 16, 3), 7, np.uint8), companions={"mask": np.zeros((2, 16, 16, 3), np.uint8)}))
    again = PieceStore(tmp_path)
    assert (again.count, again.frames) == (2, 4)
    assert [frame.sum() for frame, _ in again.kept()] == [16, 16, 7 * 16 * 16 * 3, 7 * 16 * 16 * 3]
    (tmp_path / "piece-000001.mask.mkv").write_bytes(b"")
    with pytest.raises(ValueError, match="piece-000001.* can't be read .*--overwrite starts anew"):
        list(again.kept())
    with (tmp_path / "piece-000001.safetensors").open("r+b") as file:
        file.truncate(20)
    with pytest.raises(ValueError, match="piece-000001.* can't be read"):
        PieceStore(tmp_path)


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
