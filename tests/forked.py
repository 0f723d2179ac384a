"""Commands run in forks of a process that has imported everything, and killed there at a chosen moment.

The forks come from Python's fork server, which computes nothing itself: a fork of the tests' own process would inherit
torch's threads. Operations on files are seen by an audit hook, under labels such as `os.rename .work/state.json`;
numbers and random letters in names are left out, so that the same step of a run has the same label every time.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import NamedTuple

COMMANDS = ("depth_engine.cli.main", "novel_view.cli", "depth2video.cli")
_HEAVY = ("depth_engine.engine", "novel_view.views.render_command", "depth2video.plan.render", "diffusers.models")
_CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link")
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
OUT = "out"
_PATIENCE_S = 120.0
_ONE_AT_A_TIME = threading.Lock()  # to start a process also reads how every other one ended, which can be read once


class Step(NamedTuple):
    """An operation on a file: its label, and which one of that label it is, from 1 up."""

    label: str
    turn: int


class Ended(NamedTuple):
    """How a command ended.

    Attributes:
        code: Exit code, or the signal as a negative number.
        steps: The operations on files that it did, each the first that met its set of files; none of a command that
            was killed.
        errors: What it wrote to stderr.
    """

    code: int
    steps: list[Step]
    errors: str


def run_forked(module: str, arguments: Sequence[str | Path], folder: Path, killed_before: Step | None = None) -> Ended:
    """Run a command in a process of its own.

    Args:
        module: One of `COMMANDS`.
        arguments: Of its `main`.
        folder: Where it runs; made here. Only operations on files below its `out` count; the rest is this function's.
        killed_before: SIGKILL comes right before this step.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([*COMMANDS, *_HEAVY, __name__])
    folder.mkdir(exist_ok=True)
    child = server.Process(target=_run, args=(module, [*map(str, arguments)], folder, killed_before))
    with _ONE_AT_A_TIME:
        child.start()
    ended = wait([child.sentinel], _PATIENCE_S)
    with _ONE_AT_A_TIME:
        if ended:
            child.join()
        else:
            child.kill()
        code = child.exitcode if ended else None
    if code is None:
        raise TimeoutError(f"{' '.join(map(str, arguments))} has not ended after {_PATIENCE_S:g} s")
    record = folder / "steps.json"
    steps = [Step(*step) for step in json.loads(record.read_text())] if record.exists() else []
    record.unlink(missing_ok=True)
    return Ended(code, steps, (folder / "errors.txt").read_text())


def _run(module: str, arguments: list[str], folder: Path, killed_before: Step | None) -> None:
    """What the fork does; ends it."""
    import importlib

    from depth_engine.runs import pieces

    pieces._KEEP_EVERY_FRAMES = 1  # as a slow network does: each frame is a piece
    with open(os.devnull, "w") as nothing, open(folder / "errors.txt", "w") as errors:
        os.dup2(nothing.fileno(), 1)
        os.dup2(errors.fileno(), 2)
    steps: list[Step] = []
    met: set[frozenset[str]] = set()
    turns: Counter[str] = Counter()
    watching = True

    def watch(event: str, values: tuple) -> None:
        if not watching or (label := _label(event, values)) is None:
            return
        turns[label] += 1
        step = Step(label, turns[label])
        if step == killed_before:
            os.kill(os.getpid(), signal.SIGKILL)
        held = frozenset(_without_numbers(str(path)) for path in Path(OUT).rglob("*"))
        if held not in met:
            met.add(held)
            steps.append(step)

    main = importlib.import_module(module).main
    os.chdir(folder)
    sys.addaudithook(watch)
    code = 0
    try:
        main(arguments)
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    watching = False
    (folder / "steps.json").write_text(json.dumps(steps))
    sys.exit(code)


def _label(event: str, values: tuple) -> str | None:
    """The label of an event, if it is an operation that changes `out`."""
    if event == "open":
        path, _, flags = values
        if not isinstance(path, (str, os.PathLike)) or not (flags or 0) & _WRITES:
            return None
    elif event in _CHANGES:
        path = values[1] if event == "os.rename" else values[0]
        if values[-1] != -1:  # relative to an open folder: one that is being deleted
            path = f"{OUT}/.../{path}"
    else:
        return None
    if Path(path).parts[0] != OUT:
        return None
    return f"{event} {_without_numbers(str(path))}"


def _without_numbers(path: str) -> str:
    return re.sub(r"[0-9a-f]{8}(?=[.]part)|[0-9]+-[0-9]+(?=[.]part)|[0-9]{6}", "*", path)
