"""Fixtures that the tests of novel views share."""

from __future__ import annotations

import pytest

from tests.novel_view.scene_clip import SceneFiles, write_scene


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> SceneFiles:
    """A clip of a scene at rest, its depth, and the truth; read only."""
    return write_scene(tmp_path_factory.mktemp("scene"))
