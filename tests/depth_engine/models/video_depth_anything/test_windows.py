"""Windows of Video Depth Anything through the engine, held against the whole clip written straight down the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from depth_engine import DepthEngine
from depth_engine.models.contract import Carry
from depth_engine.models.resize import ModelSize
from depth_engine.models.video_depth_anything.windows import Joined, join, model_size
from depth_engine.video.in_memory import mark_frames
from tests.tiny_video_depth import tiny_video_depth

MAX_RES = 28
KEYS = [0, 12, 24, 25, 26, 27, 28, 29, 30, 31]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> DepthEngine:
    return DepthEngine.from_pretrained(tiny_video_depth(tmp_path_factory.mktemp("vda") / "t.safetensors"), device="cpu")


@pytest.fixture(scope="module")
def metric(tmp_path_factory: pytest.TempPathFactory) -> DepthEngine:
    file = tmp_path_factory.mktemp("vda") / "metric_t.safetensors"
    return DepthEngine.from_pretrained(tiny_video_depth(file), device="cpu")


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    """uint8 `[77, 28, 28, 3]` that drifts."""
    big = np.random.default_rng(3).integers(0, 256, (4, 14, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    return np.stack([big[:28, index : index + 28] for index in range(77)])


def straight_line(network: Any, clip: np.ndarray, metric: bool) -> np.ndarray:
    """Depth of a whole clip: windows of 32 every 22 frames, the clip's last frame repeated to fill the last one."""
    pixels = torch.from_numpy(clip).movedim(-1, 1).float() / 255
    mean, std = (torch.tensor(part)[:, None, None] for part in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    inputs = (pixels - mean) / std
    inputs = torch.cat([inputs, inputs[-1:].repeat(64, 1, 1, 1)])
    made, before, far = [], None, []
    for start in range(0, len(clip), 22):
        window = inputs[start : start + 32].clone()
        if before is not None:
            window[:10] = before[KEYS]
        with torch.inference_mode():
            depth = network(window).numpy().astype(np.float64)
        if before is not None:
            if not metric:
                given, wanted = np.concatenate(depth[:2]).ravel(), np.concatenate(far).ravel()
                (scale, shift), *_ = np.linalg.lstsq(np.stack([given, np.ones_like(given)], 1), wanted, rcond=None)
                depth = np.maximum(scale * depth + shift, 0)
            for index in range(8):
                share = index / 7
                made[-8 + index] = made[-8 + index] * (1 - share) + depth[2 + index] * share
            made += list(depth[10:])
            far = [far[0], depth[12]]
        else:
            made, far = list(depth), [depth[0], depth[12]]
        before = window
    return np.stack(made[: len(clip)])


@pytest.mark.parametrize("count", [1, 5, 22, 23, 32, 33, 54, 55, 77])
def test_engine_is_the_straight_line(engine: DepthEngine, clip: np.ndarray, count: int) -> None:
    made = engine.estimate(clip[:count], shots=False, max_res=MAX_RES)
    assert made.kind == "disparity" and made.values.shape == (count, 28, 28)
    expected = straight_line(engine.model.network, clip[:count], metric=False)  # type: ignore[attr-defined]
    assert np.allclose(made.values, expected, atol=1e-4) and made.values.std() > 0.1


def test_metres_keep_their_level(metric: DepthEngine, clip: np.ndarray) -> None:
    made = metric.estimate(clip[:55], shots=False, max_res=MAX_RES)
    assert made.kind == "metric"
    expected = straight_line(metric.model.network, clip[:55], metric=True)  # type: ignore[attr-defined]
    assert np.allclose(made.values, expected, atol=1e-4)


def test_shots_are_apart(engine: DepthEngine, clip: np.ndarray) -> None:
    whole = engine.estimate(clip[:60], shots=[0, 20], max_res=MAX_RES).values
    assert np.array_equal(whole[20:], engine.estimate(clip[20:60], shots=False, max_res=MAX_RES).values)
    assert np.array_equal(whole, np.stack(list(engine.stream(clip[:60], shots=[0, 20], max_res=MAX_RES))))


@pytest.mark.parametrize("stop_after", [1, 2, 3])
def test_any_window_can_be_the_last_before_a_restart(engine: DepthEngine, clip: np.ndarray, stop_after: int) -> None:
    settings = engine.checkpoint.choose_settings(max_res=MAX_RES)
    marked = list(engine.sized(mark_frames(iter(clip), [0, 50]), settings))
    size = ModelSize(28, 28, 28, 28)
    unbroken = torch.cat([result.depth for result in engine.windows(marked, settings, size=size)])
    first, carry = [], Carry()
    for _, result in zip(range(stop_after), engine.windows(marked, settings, size=size), strict=False):
        first.append(result.depth)
        kept = result.carry.to_tensors()
        assert sum(tensor.numel() for tensor in kept.values()) <= 28 * 28 * (10 * 3 + 8 + 2) + 3, "it is bounded"
        carry = Carry.from_tensors(kept)
    rest = [result.depth for result in engine.windows(marked[carry.frames_read :], settings, size=size, carry=carry)]
    assert torch.equal(torch.cat(first + rest), unbroken)


def test_reads_no_further_than_a_window_ahead(engine: DepthEngine, clip: np.ndarray) -> None:
    taken = 0

    def frames() -> Any:
        nonlocal taken
        while True:  # an endless source
            yield clip[taken % len(clip)]
            taken += 1

    depths = engine.stream(frames(), shots=False, max_res=MAX_RES)
    for done in range(1, 60):
        next(depths)
        assert taken - done <= 32 + 1


def test_a_new_window_comes_to_the_level_of_the_old() -> None:
    """Where it differs by scale and shift alone, nothing is left of that, at any size of the frames."""
    generator = torch.Generator().manual_seed(0)
    truth = 1 + torch.rand(54, 6, 8, generator=generator)
    size = ModelSize(12, 16, 6, 8)
    first = join(truth[:32], None, size, metric=False)
    places = [0, 12, *range(24, 54)]
    second = join((truth[places] - 0.3) / 2, first, size, metric=False)
    assert torch.allclose(torch.cat([first.settled, second.settled, second.fading]), truth, atol=1e-5)
    assert torch.allclose(second.far, truth[[0, 22 + 12]], atol=1e-5)


def test_windows_fade_into_each_other() -> None:
    size, places = ModelSize(2, 2, 2, 2), torch.zeros(32, 2, 2)
    before = Joined(places[:0], torch.ones(8, 2, 2), places[:2])
    made = join(places, before, size, metric=True).settled
    assert torch.allclose(made[:8, 0, 0], 1 - torch.arange(8) / 7)
    assert (made[8:] == 0).all()


# Height and width of frames, and of what the network sees; by hand from the rule of the release.
@pytest.mark.parametrize(
    ("frames", "seen", "max_res"),
    [
        ((720, 1280), (518, 924), None),
        ((1280, 720), (924, 518), None),
        ((100, 100), (518, 518), None),
        ((480, 640), (518, 686), None),
        ((800, 1920), (378, 910), None),  # longer than 16:9: the short side is 518 * 1.777 / 2.4, to 14
        ((720, 1280), (252, 448), 448),
        ((28, 28), (28, 28), 28),
    ],
)
def test_size_that_frames_are_worked_on_at(frames: tuple[int, int], seen: tuple[int, int], max_res: int | None) -> None:
    assert model_size(*frames, max_res) == ModelSize(*frames, *seen)


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ({"steps": 5}, "steps: 5 has no effect on"),
        ({"window": 10}, "window: 10 is not accepted; .* has 32"),
        ({"seed": 1}, "seed: 1 is not accepted"),
        ({"max_res": 13}, "max_res: 13 is smaller than the 14 px"),
    ],
)
def test_options_without_effect_are_refused(engine: DepthEngine, option: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        engine.estimate(np.zeros((1, 28, 28, 3), np.uint8), **option)
    engine.checkpoint.choose_settings(window=32, stride=22, seed=0)
