"""No function takes more than eight parameters: what belongs together is passed as one object.

Exempt are click's callbacks, whose parameters are the command's options, and constructors of diffusers models, whose
parameters are their config.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("depth_engine", "apps", "training", "integrations", "tools", "tests")
MOST = 8


def functions(body: list[ast.stmt], within: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function of some statements, nested ones too, with its full name."""
    for node in body:
        name = f"{within}{getattr(node, 'name', '')}"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield name, node
        nested = [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
        yield from functions(nested, f"{name}." if hasattr(node, "name") else within)


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many parameters a caller may fill; `self` is none, `**given` is one."""
    takes = function.args
    names = [argument.arg for argument in [*takes.posonlyargs, *takes.args, *takes.kwonlyargs]]
    return len(names) - (names[:1] in (["self"], ["cls"])) + (takes.kwarg is not None) + (takes.vararg is not None)


def is_exempt(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Click's callbacks and the constructors of diffusers models, told by their decorators."""
    names = {
        called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        for decorator in function.decorator_list
        for called in [decorator.func if isinstance(decorator, ast.Call) else decorator]
    }
    return bool(names & {"command", "register_to_config"})


def too_many(source: str) -> set[str]:
    """Names of the functions of a file that take too many parameters."""
    return {
        name
        for name, function in functions(ast.parse(source).body)
        if parameters(function) > MOST and not is_exempt(function)
    }


def test_no_function_takes_more_than_eight_parameters() -> None:
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(paths) > 100
    found = {f"{path.relative_to(ROOT).as_posix()}: {name}" for path in paths for name in too_many(path.read_text())}
    assert found == set(), "pass what belongs together as one object"


def test_the_check_counts_what_it_should() -> None:
    eight, nine = "a, b, c, d, e, f, g, h", "a, b, c, *, d, e, f, g, h, i"
    assert too_many(f"def f({eight}): ...") == set()
    assert too_many(f"def f({nine}): ...") == {"f"} == too_many(f"def f({eight}, **given): ...")
    assert too_many(f"class C:\n def m(self, {eight}): ...") == set()
    assert too_many(f"class C:\n def m(self, {nine}):\n  def n({nine}): ...") == {"C.m", "C.m.n"}
    assert too_many(f"if True:\n def f({nine}): ...") == {"f"}
    assert too_many(f"@main.command('x')\n@option()\ndef f({nine}): ...") == set()
    assert too_many(f"@register_to_config\ndef f({nine}): ...") == set()
