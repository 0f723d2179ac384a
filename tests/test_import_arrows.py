"""Imports point one way, and never in a circle (README, "Where things are")."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Package -> the folder that it lies in, and what it may import of this project besides itself.
PACKAGES: dict[str, tuple[str, set[str]]] = {
    "depth_engine": ("", set()),
    "depth2video": ("apps", {"depth_engine"}),
    "novel_view": ("apps", {"depth_engine"}),
    "depth_train": (
        "training",
        {
            "depth_engine",
            "depth2video.control",
            "depth2video.generators.controlnet",
            "depth2video.generators.small",
            "depth2video.generators.svd",
        },
    ),
    "tools": ("", {"depth_engine"}),
}
NEVER = ("apps", "training", "tests")  # folders, not packages


def files_of(package: str, root: Path = ROOT) -> dict[str, Path]:
    """Module name -> file, of a package."""
    folder = root / PACKAGES[package][0]
    paths = sorted((folder / package).rglob("*.py"))
    return {".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


MODULES = {name: path for package in PACKAGES for name, path in files_of(package).items()}


def imported_names(path: Path) -> set[str]:
    """Every module that a file's import statements may name, at any depth: lazy and type-only ones too.

    `from a import b` names `a.b` as well, which may be a module or not.
    """
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; name the module in full"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def nearest(name: str, modules: Mapping[str, Path]) -> str | None:
    """The module that an imported name is, or lies in."""
    while name not in modules and "." in name:
        name = name.rpartition(".")[0]
    return name if name in modules else None


def graph_of(modules: Mapping[str, Path]) -> dict[str, set[str]]:
    """Module -> modules that it imports. That a package is run before its modules does not count."""
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        graph[module] = {found for name in imported_names(path) if (found := nearest(name, modules))} - {module}
    return graph


def find_circle(graph: Mapping[str, Iterable[str]]) -> list[str]:
    """A circle, its first module named again at the end; empty if there is none."""
    done: set[str] = set()

    def visit(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        if module in done:
            return []
        for other in sorted(graph[module]):
            if circle := visit(other, [*way, module]):
                return circle
        done.add(module)
        return []

    return next((circle for module in sorted(graph) if (circle := visit(module, []))), [])


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module: str) -> None:
    package = module.split(".")[0]
    for name in imported_names(MODULES[module]):
        top = name.split(".")[0]
        assert top not in NEVER, f"{module} imports {name}"
        if top in PACKAGES and top != package:
            allowed = any(name == other or name.startswith(other + ".") for other in PACKAGES[package][1])
            assert allowed, f"{module} imports {name}"


def test_no_import_goes_in_a_circle() -> None:
    assert find_circle(graph_of(MODULES)) == []


def test_only_the_video_files_talk_to_ffmpeg() -> None:
    for module, path in MODULES.items():
        if not module.startswith("depth_engine.video."):
            talks = {name.split(".")[0] for name in imported_names(path)} & {"ffmpeg", "imageio_ffmpeg"}
            assert not talks, module


def test_the_check_sees_wrong_imports(tmp_path: Path) -> None:
    """Lazy ones, type-only ones, and a circle of both."""
    package = tmp_path / "depth_engine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("def f():\n    from depth_engine import b\n    import depth_train.tasks.loss\n")
    (package / "b.py").write_text("if TYPE_CHECKING:\n    from depth_engine.c import Name\n")
    (package / "c.py").write_text("from depth_engine.a import f\n")
    modules = files_of("depth_engine", tmp_path)
    assert imported_names(package / "a.py") == {"depth_engine.b", "depth_train.tasks.loss"}
    assert find_circle(graph_of(modules)) == ["depth_engine.a", "depth_engine.b", "depth_engine.c", "depth_engine.a"]
    (package / "c.py").write_text("")
    assert find_circle(graph_of(modules)) == []
