"""Every test of the reader and the writer runs with each ffmpeg that is there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from depth_engine.video.ffmpeg_process import FFMPEG_VARIABLE
from tests.clips import packaged_ffmpeg

_SYSTEM = shutil.which("ffmpeg")


@pytest.fixture(
    autouse=True,
    scope="module",
    params=[packaged_ffmpeg(), *([_SYSTEM] if _SYSTEM else [])],
    ids=["packaged", "system"][: 2 if _SYSTEM else 1],
)
def ffmpeg(request: pytest.FixtureRequest) -> Iterator[str]:
    """The ffmpeg that the product runs; clips are made by the packaged one all the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FFMPEG_VARIABLE, request.param)
        yield request.param
