"""Every command that makes files of a clip, killed at any moment, goes on to the same bytes; and a source that breaks off
gives what was finished.

A run is forked from this process, so that imports are paid once, and is killed by SIGKILL right before one of its
operations on the file system: the state after each of them is met. `KILL_EVERYWHERE=1` tries every one of them.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.depth2video.conftest import tiny_small

COMMANDS = ("estimate", "render", "stereo", "depth2video", "control")
SIZE = "64x48"
FRAMES = 3
_CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_PATIENCE_S = 120.0


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_small(tmp_path_factory.mktemp("small"))


def arguments(command: str, clip: Path, folder: Path, generator: Path, depth: Path | None) -> tuple[str, list[str]]:
    """Module that holds `main`, and what is given to it; results go to `folder`."""
    quick = ["--quiet", "--device", "cpu"]
    engine = {"": ["--window", "2", "--stride", "1"], "depth-": ["--depth-window", "2", "--depth-stride", "1"]}
    if command == "estimate":
        return "depth_engine.cli.main", ["estimate", str(clip), "-o", str(folder), "--format", "mkv,png16", *quick]
    prefix = "depth-" if command in ("depth2video", "control") else ""
    common = [str(clip), "-o", str(folder / "new.mp4"), *quick]
    common += engine[prefix] if depth is None else ["--depth", str(depth)]
    if command in ("render", "stereo"):
        return "novel_view.cli", [command, *common, "--mask-out", str(folder / "mask.mkv")]
    if command == "control":
        return "depth2video.cli", ["control", *common]
    made_by = ["--generator", "bundled", "--base", str(generator), "--control-out", str(folder / "control.mkv")]
    return "depth2video.cli", ["video", *common, *made_by]


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file under a folder, hidden ones too; folders by their name alone."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


def in_child(module: str, given: list[str], folder: Path, killed_before: int | None = None) -> tuple[int, int]:
    """Run a command in a fork of this process.

    Args:
        module: Holds `main`.
        given: Its arguments.
        folder: Operations on files in it count.
        killed_before: Which of them is never done; None: all are.

    Returns:
        Exit code, or the signal as a negative number; and how many operations were done, if it ended by itself.
    """
    main = importlib.import_module(module).main
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        code, count = 70, 0

        def watch(event: str, values: tuple) -> None:
            nonlocal count
            if event == "open":
                ours = isinstance(values[0], (str, os.PathLike)) and str(values[0]).startswith(str(folder))
                ours = ours and bool((values[2] or 0) & _WRITES)
            else:
                ours = event in _CHANGES and (str(values[0]).startswith(str(folder)) or values[-1] not in (-1, None))
            if ours:
                if count == killed_before:
                    os.kill(os.getpid(), signal.SIGKILL)
                count += 1

        try:
            with open(os.devnull, "w") as nothing:
                os.dup2(nothing.fileno(), 1)
            from depth_engine.runs import pieces

            pieces._KEEP_EVERY_FRAMES = 1
            sys.addaudithook(watch)
            try:
                main(given)
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else 0
            os.write(writing, str(count).encode())
        finally:
            os._exit(code)
    os.close(writing)
    deadline = time.monotonic() + _PATIENCE_S
    while os.waitpid(pid, os.WNOHANG)[0] == 0 if (ended := _ended(pid)) is None else False:
        pass
    del deadline
    with os.fdopen(reading) as counted:
        return ended, int(counted.read() or 0)
