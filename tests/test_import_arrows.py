"""Imports point one way (README, "Where things are")."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Room -> other rooms of this project that it may import.
ALLOWED = {
    "depth_engine": set(),
    "apps/depth2video": {"depth_engine"},
    "apps/novel_view": {"depth_engine"},
    "training": {
        "depth_engine",
        "depth2video.control",
        "depth2video.controlnet",
        "depth2video.small",
        "depth2video.svd",
    },
    "tools": {"depth_engine"},
}
ROOMS = ("depth_engine", "depth2video", "novel_view", "training", "apps", "tests", "tools")
FILES = sorted(path for room in ALLOWED for path in (ROOT / room).rglob("*.py"))


def imported_modules(path: Path) -> set[str]:
    """Every module that a file names in an import statement, at any depth."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; name the module in full"
            modules.add(node.module or "")
    return modules


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    room = next(room for room in ALLOWED if path.is_relative_to(ROOT / room))
    own = room.removeprefix("apps/")
    for module in imported_modules(path):
        top = module.split(".")[0]
        if top not in ROOMS or top == own:
            continue
        allowed = any(module == name or module.startswith(name + ".") for name in ALLOWED[room])
        assert allowed, f"{path.relative_to(ROOT)} imports {module}"


def test_only_the_video_files_talk_to_ffmpeg() -> None:
    for path in FILES:
        if not path.name.startswith(("video", "ffmpeg")):
            assert not {"ffmpeg", "imageio_ffmpeg"} & imported_modules(path), path


def test_the_check_sees_a_wrong_import(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.py"
    wrong.write_text("def f():\n    from training.scenes import make_clips\n    import training.loss\n")
    assert imported_modules(wrong) == {"training.scenes", "training.loss"}
