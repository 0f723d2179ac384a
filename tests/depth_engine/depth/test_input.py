"""Depth and the clip that it belongs to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from depth_engine.depth.input import DepthRequest, check_fit, choose_depth
from depth_engine.depth.source import DepthSource, open_depth
from depth_engine.video.probe import DecodeError
from depth_engine.video.take import Take, check_source
from tests.clips import cut_off, make_clip, run_ffmpeg


def _source(path: Path, frames: int, height: int = 48, width: int = 64) -> DepthSource:
    np.save(path, np.random.default_rng(0).random((frames, height, width), np.float32))
    return open_depth(path, "disparity")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=12)


def test_depth_that_does_not_belong_to_the_clip_is_refused(tmp_path: Path, clip: Path) -> None:
    info = check_source(Take(clip))
    long, short = _source(tmp_path / "long.npy", 20), _source(tmp_path / "short.npy", 5)
    with pytest.raises(ValueError, match="has 20 frames, more than the 12 that are taken .* --max-frames 12 to use"):
        check_fit(long, Take(clip), info)
    later = Take(clip, start_s=0.2)
    for part, count in ((Take(clip, fps=12.5), 6), (later, 7), (replace(later, max_frames=3), 3)):
        with pytest.raises(ValueError, match=f"has 20 frames, more than the {count} .*; give depth of this part$"):
            check_fit(long, part, info)
    with pytest.raises(ValueError, match="has 5 frames, the clip 7; give depth of all that is taken$"):
        check_fit(short, later, info)
    with pytest.raises(ValueError, match="has 5 frames, the clip 12; give --max-frames 5"):
        check_fit(short, Take(clip), info)
    with pytest.raises(ValueError, match="the proportions differ"):
        check_fit(_source(tmp_path / "square.npy", 12, 64, 64), Take(clip), info)
    assert check_fit(short, Take(clip, max_frames=5), info) == ()
    (note,) = check_fit(long, Take(clip, max_frames=5), info)
    assert "the rest of the depth is not used" in note
    (note,) = check_fit(_source(tmp_path / "small.npy", 12, 24, 32), Take(clip), info)
    assert "32x24 was resized to the clip's 64x48" in note


def test_sound_that_outlasts_the_picture_is_no_frames(tmp_path: Path, clip: Path) -> None:
    """The container's length times the rate is a guess; frames are counted before depth is refused."""
    longer = tmp_path / "clip.mkv"
    run_ffmpeg("-i", clip, "-f", "lavfi", "-i", "sine=duration=2", "-c:v", "copy", "-c:a", "aac", longer)
    assert check_fit(_source(tmp_path / "depth.npy", 12), Take(longer), check_source(Take(longer))) == ()


def test_depth_of_the_whole_clip_fits_one_that_breaks_off(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "whole.mkv", frames=40)
    cut = cut_off(whole, tmp_path / "cut.mkv", 0.6)
    info = check_source(Take(cut))
    assert check_fit(_source(tmp_path / "whole.npy", 40), Take(cut), info) == ()
    held = 0
    with pytest.raises(DecodeError):
        for _ in Take(cut).frames():
            held += 1
    assert check_fit(_source(tmp_path / "held.npy", held), Take(cut), info) == (), "and that of what it holds"
    (note,) = check_fit(_source(tmp_path / "long.npy", 41), Take(cut), info)
    assert "the rest of the depth is not used" in note, "nobody knows how long it was"


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (DepthRequest("depth.npy", engine={"max_res": 64}), "--max-res: only applies to --depth engine"),
        (DepthRequest(kind="depth"), "--depth-kind: is for --depth FILE; engine knows its own"),
        (DepthRequest("engin"), "did you mean 'engine'"),
    ],
)
def test_options_of_another_source_of_depth_are_refused(
    tmp_path: Path, clip: Path, request_: DepthRequest, text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        choose_depth(request_, Take(clip), check_source(Take(clip)), tmp_path / "new.mp4")
