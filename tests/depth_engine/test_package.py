"""What a program that imports the package sees of it."""

from __future__ import annotations

from pathlib import Path

import depth_engine


def test_the_package_shows_its_names_and_types() -> None:
    assert set(depth_engine.__all__) <= set(dir(depth_engine))
    assert (Path(depth_engine.__file__).parent / "py.typed").is_file()
