"""Every program that a test or a tool starts has a time limit: one that never ends must not hold up the rest."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent


def without_limit(source: str) -> list[int]:
    """Lines that run a program and wait for it for ever."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    waits = {"subprocess.run", "subprocess.check_output", "subprocess.check_call", "subprocess.call"}
    return [
        call.lineno
        for call in calls
        if ast.unparse(call.func) in waits and "timeout" not in {keyword.arg for keyword in call.keywords}
    ]


def test_every_program_has_a_time_limit() -> None:
    paths = [
        path
        for folder in ("depth_engine", "apps", "training", "tools", "tests")
        for path in (ROOT / folder).rglob("*.py")
    ]
    found = {f"{path.relative_to(ROOT)}:{line}" for path in paths for line in without_limit(path.read_text())}
    assert found == set()


def test_the_check_sees_what_it_should() -> None:
    assert without_limit("subprocess.run(['a'], check=True)\nsubprocess.run(['a'], timeout=3)") == [1]
