"""What a program that imports the package sees: names, inputs of every form, one line for what can't be used."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from depth_engine import DepthEngine
from depth_engine.video.take import Take
from tests.clips import make_clip, run_ffmpeg

SETTINGS: dict[str, Any] = {"shots": False, "window": 3, "stride": 2, "steps": 1, "max_res": 64}


@pytest.fixture(scope="module")
def engine(svd_folder: Path) -> DepthEngine:
    return DepthEngine.from_pretrained(svd_folder, spec="chronodepth", device="cpu")


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    """4 frames larger than the model works at."""
    return np.random.default_rng(3).integers(0, 256, (4, 96, 128, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def depth(engine: DepthEngine, clip: np.ndarray) -> np.ndarray:
    return engine.estimate(clip, **SETTINGS).values


def read_only(clip: np.ndarray) -> np.ndarray:
    held = clip.copy()
    held.flags.writeable = False
    return held


class Foreign:
    """A frame of another library: no array, but it becomes one."""

    def __init__(self, frame: np.ndarray) -> None:
        self._frame = frame

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._frame.copy()


def floats(clip: np.ndarray, dtype: Any) -> np.ndarray:
    return (np.moveaxis(clip, -1, 1) / 255).astype(dtype)


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(lambda clip: np.ascontiguousarray(clip[::-1, :, ::-1])[::-1, :, ::-1], id="negative strides"),
        pytest.param(read_only, id="read-only"),
        pytest.param(lambda clip: list(read_only(clip)), id="list of read-only arrays"),
        pytest.param(lambda clip: tuple(torch.from_numpy(clip)), id="tuple of tensors"),
        pytest.param(lambda clip: (frame for frame in clip), id="generator"),
        pytest.param(lambda clip: [Image.fromarray(frame) for frame in clip], id="PIL"),
        pytest.param(lambda clip: [Image.fromarray(frame).convert("RGBA") for frame in clip], id="PIL with alpha"),
        pytest.param(lambda clip: [Foreign(frame) for frame in clip], id="another library's"),
        pytest.param(lambda clip: floats(clip, np.float16), id="float16"),
        pytest.param(lambda clip: floats(clip, np.float32), id="float32"),
        pytest.param(lambda clip: floats(clip, ">f8"), id="float64, other byte order"),
        pytest.param(lambda clip: torch.from_numpy(floats(clip, np.float32)).requires_grad_(), id="with gradients"),
    ],
)
@pytest.mark.filterwarnings("error:The given NumPy array is not writable")
def test_the_same_frames_in_any_form_give_the_same_depth(
    engine: DepthEngine, clip: np.ndarray, depth: np.ndarray, form: Callable[[np.ndarray], Any]
) -> None:
    np.testing.assert_array_equal(engine.estimate(form(clip), **SETTINGS).values, depth)
    np.testing.assert_array_equal(np.stack(list(engine.stream(form(clip), **SETTINGS))), depth)


def test_floats_between_8_bit_values_are_not_rounded(engine: DepthEngine, clip: np.ndarray, depth: np.ndarray) -> None:
    between = (floats(clip, np.float32) * 254 + 0.4) / 255
    rounded = np.moveaxis((between * 255).round(), 1, -1).astype(np.uint8)
    own = engine.estimate(between, **SETTINGS).values
    assert not np.array_equal(own, engine.estimate(rounded, **SETTINGS).values)


def bad(value: float) -> np.ndarray:
    frames = np.full((4, 3, 64, 64), 0.3, np.float32)
    frames[2, 1, 5, 6] = value
    return frames


@pytest.mark.parametrize("form", [np.asarray, torch.as_tensor, list], ids=["array", "tensor", "list"])
@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.nan, "frames: frame 2 holds values that are not finite"),
        (np.inf, "frames: frame 2 holds values that are not finite"),
        (1.5, r"frames: frame 2 holds values from 0.3 to 1.5; accepted: \[0, 1\]"),
        (-0.5, r"frames: frame 2 holds values from -0.5 to 0.3"),
        (255.0, r"frames: frame 2 holds values from 0.3 to 255"),
    ],
)
def test_bad_pixels_name_the_frame_at_once(engine: DepthEngine, form: Callable, value: float, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        engine.stream(form(bad(value)), **SETTINGS)  # before the first depth is asked for
    with pytest.raises(ValueError, match=text):
        engine.estimate(iter(bad(value)), **SETTINGS)


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        (5, "frames: int is not accepted"),
        ({"a": 1}, "frames: dict is not accepted"),
        (Image.new("RGB", (64, 64)), "frames: Image is not accepted|frames: ndarray of shape"),
        ([None], "frames: frame 0 is a NoneType"),
        (["a.png"], "frames: frame 0 is a str"),
        ([Image.new("I;16", (64, 64))], "frames: frame 0 is a PIL image of mode I;16; accepted: 8 bits"),
        ([Image.new("F", (64, 64))], "frames: frame 0 is a PIL image of mode F"),
        ([np.zeros((64, 64, 3), np.uint16)], r"frames: frame 0 is uint16 \[64, 64, 3\]; accepted: uint8"),
        ([np.zeros((64, 64, 3), bool)], "frames: frame 0 is bool"),
        ([np.zeros((0, 64, 3), np.uint8)], "frames: frame 0 is torch.uint8"),
        ([], "frames: the clip holds none"),
    ],
)
def test_what_is_no_frame_is_named(engine: DepthEngine, frames: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        engine.estimate(frames, **SETTINGS)


@pytest.mark.parametrize(
    ("keyword", "near"), [("strtegy", "strategy"), ("step", "steps"), ("shot", "shots"), ("maxres", "max_res")]
)
def test_an_unknown_keyword_names_the_nearest(engine: DepthEngine, clip: np.ndarray, keyword: str, near: str) -> None:
    unknown: dict[str, Any] = {keyword: 1}
    for method in (engine.estimate, engine.stream):
        with pytest.raises(TypeError, match=f"{method.__name__}: '{keyword}' is not known; did you mean '{near}'"):
            method(clip, **unknown)


ABANDONED = """
import sys
import numpy as np
from depth_engine import DepthEngine

engine = DepthEngine.from_pretrained("bundled", device="cpu")
frames = np.random.default_rng(0).integers(0, 256, (24, 64, 64, 3), dtype=np.uint8)
stream = engine.stream(sys.argv[1] if len(sys.argv) > 1 else iter(frames))
next(stream)
"""


@pytest.mark.parametrize("of_a_file", [False, True])
def test_an_abandoned_stream_ends_in_silence(tmp_path: Path, of_a_file: bool) -> None:
    given = [str(make_clip(tmp_path / "clip.mp4", frames=40))] if of_a_file else []
    ended = subprocess.run([sys.executable, "-c", ABANDONED, *given], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_an_endless_iterator_is_no_list(engine: DepthEngine, clip: np.ndarray) -> None:
    def endless() -> Iterator[np.ndarray]:
        while True:
            yield clip[0]

    assert next(engine.stream(endless(), **SETTINGS)).shape == clip.shape[1:3]


def test_the_part_of_a_file_by_keyword(engine: DepthEngine, tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    pictures = ["-f", "lavfi", "-i", "testsrc2=s=64x64:r=25", "-f", "lavfi", "-i", "testsrc=s=128x64:r=25"]
    run_ffmpeg(*pictures, "-map", "0", "-map", "1", "-frames:v", "6", path)
    for stream, size in ((0, (64, 64)), (1, (64, 128))):
        depth = engine.estimate(path, stream=stream, start_s=0.08, max_frames=2, **SETTINGS)
        assert depth.values.shape == (2, *size)
        of_a_take = engine.stream(Take(path, stream=stream, start_s=0.08, max_frames=2), **SETTINGS)
        np.testing.assert_array_equal(np.stack(list(of_a_take)), depth.values)
    with pytest.raises(ValueError, match="stream: 1 is for files"):
        engine.estimate(np.zeros((2, 64, 64, 3), np.uint8), stream=1)
