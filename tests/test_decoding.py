"""How often a command decodes its clip, counted by a program that stands before ffmpeg and notes how it is called."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from depth2video.cli import main as depth2video
from novel_view.cli import main as novel_view

from depth_engine.cli.main import main as depth_engine
from depth_engine.engine import DepthEngine
from depth_engine.video.ffmpeg_process import FFMPEG_VARIABLE, find_ffmpeg
from depth_engine.video.take import Take
from tests.clips import make_clip, run_ffmpeg
from tests.depth2video.conftest import tiny_small


class Counter:
    """Stands before the real ffmpeg.

    Attributes:
        program: What is run in its place.
    """

    def __init__(self, folder: Path) -> None:
        self.program, self._log = folder / "ffmpeg", folder / "calls.txt"
        note = f"open({str(self._log)!r}, 'a').write(repr(sys.argv[1:]) + chr(10))"
        self.program.write_text(
            f"#!{sys.executable}\nimport os, sys\n{note}\n"
            f"os.execv({find_ffmpeg()!r}, [{find_ffmpeg()!r}, *sys.argv[1:]])\n"
        )
        self.program.chmod(0o755)

    def decodings(self, clip: Path) -> int:
        """How many calls since the last question decoded pictures of a clip, a look at its first frame left out."""
        calls = [line for line in self._log.read_text().splitlines() if str(clip) in line]
        self._log.unlink()
        # Beside a new clip's frames, which come by a pipe, the source gives its sound.
        return sum("'-frames:v', '1'" not in call and "'pipe:0'" not in call for call in calls)


@pytest.fixture
def counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counter:
    counter = Counter(tmp_path)
    monkeypatch.setenv(FFMPEG_VARIABLE, str(counter.program))
    return counter


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With sound that ends with the picture."""
    folder = tmp_path_factory.mktemp("clip")
    run_ffmpeg(
        "-i", make_clip(folder / "silent.mp4", frames=4), "-f", "lavfi", "-i", "sine", "-t", "0.16",
        "-c:v", "copy", "-c:a", "aac", folder / "clip.mp4",
    )  # fmt: skip
    return folder / "clip.mp4"


def succeed(command, *arguments: object, computes: bool = True) -> None:
    device = ["--device", "cpu"] if computes else []
    done = CliRunner().invoke(command, [*map(str, arguments), "--quiet", *device])
    assert done.exit_code == 0, done.output


def test_estimate_decodes_once(counter: Counter, clip: Path, tmp_path: Path) -> None:
    succeed(depth_engine, "estimate", clip, "-o", tmp_path / "out", "--format", "mkv,png16,mp4")
    assert counter.decodings(clip) == 1


def test_the_library_decodes_once(counter: Counter, clip: Path) -> None:
    depth = DepthEngine.from_pretrained("bundled", device="cpu").estimate(Take(clip, max_frames=3))
    assert len(depth) == 3 and depth.fps == 25 and depth.meta["source"] == str(clip)
    assert counter.decodings(clip) == 1
    with pytest.raises(ValueError, match="fps: 5 is for files"):
        DepthEngine.from_pretrained("bundled", device="cpu").estimate(np.zeros((1, 16, 16, 3), np.uint8), fps=5)


@pytest.mark.parametrize("command", ["render", "stereo", "video", "control"])
def test_what_works_from_depth_decodes_twice_and_once_if_depth_is_there(
    command: str, counter: Counter, clip: Path, tmp_path: Path
) -> None:
    main = depth2video if command in ("video", "control") else novel_view
    more = ["--generator", "bundled", "--base", tiny_small(tmp_path / "small")] if command == "video" else []
    output = ["-o", tmp_path / "out" / "new.mp4", *more]
    succeed(main, command, clip, *output)
    assert counter.decodings(clip) == 2
    succeed(main, command, clip, *output, "--overwrite")
    assert counter.decodings(clip) == 1, "depth that lies there is used again"
    given = tmp_path / "out" / "new.depth"
    succeed(main, command, clip, "-o", tmp_path / "given.mp4", *more, "--depth", given, computes=command != "control")
    assert counter.decodings(clip) == 1
