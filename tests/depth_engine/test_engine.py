"""What the engine promises whatever the checkpoint: layout changes nothing, shots are apart, memory is bounded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from depth_engine import DepthEngine, seeded_noise
from depth_engine.models.contract import Carry
from depth_engine.settings import choose_settings
from depth_engine.video.in_memory import mark_frames

SETTINGS: dict[str, Any] = {"window": 4, "stride": 2, "steps": 2, "max_res": 64}


@pytest.fixture(scope="module")
def chronodepth(svd_folder: Path) -> DepthEngine:
    return DepthEngine.from_pretrained(svd_folder, spec="chronodepth", device="cpu")


@pytest.fixture(scope="module")
def depthcrafter(svd_folder: Path) -> DepthEngine:
    return DepthEngine.from_pretrained(svd_folder, spec="depthcrafter", device="cpu")


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    """11 frames of 64x64 noise that drifts: more than a decode chunk of 8."""
    big = np.random.default_rng(3).integers(0, 256, (8, 10, 3), dtype=np.uint8).repeat(12, 0).repeat(12, 1)
    return np.stack([big[index : index + 64, index : index + 64] for index in range(11)])


@pytest.mark.parametrize("strategy", ["context", "replacement", "independent", "crossfade"])
def test_stream_is_estimate(chronodepth: DepthEngine, clip: np.ndarray, strategy: str) -> None:
    whole = chronodepth.estimate(clip, shots=[0, 5], strategy=strategy, seed=4, **SETTINGS)
    frames = list(chronodepth.stream(iter(clip), shots=[0, 5], strategy=strategy, seed=4, **SETTINGS))
    assert whole.values.shape == clip.shape[:3]
    assert whole.values.dtype == np.float32
    assert whole.kind == "depth"
    assert whole.meta["shots"] == [0, 5]
    assert np.array_equal(whole.values, np.stack(frames))
    assert 0 <= whole.values.min() and whole.values.max() <= 1 and whole.values.std() > 0.01


@pytest.mark.parametrize("strategy", ["context", "replacement", "independent"])
def test_a_shot_is_as_if_alone(chronodepth: DepthEngine, clip: np.ndarray, strategy: str) -> None:
    """No context crosses a cut: the second shot alone, with its frames' own noise, gives the same depth."""
    both = chronodepth.estimate(clip, shots=[0, 5], strategy=strategy, **SETTINGS).values
    noise = seeded_noise(0)

    def from_frame_5(frame_index: int, draw: int, shape: tuple[int, ...]) -> torch.Tensor:
        return noise(frame_index + 5, draw, shape)

    alone = chronodepth.estimate(clip[5:], shots=False, strategy=strategy, noise=from_frame_5, **SETTINGS).values
    assert np.array_equal(both[5:], alone)
    joined = chronodepth.estimate(clip, shots=False, strategy=strategy, **SETTINGS).values
    assert not np.allclose(joined[5:], alone, atol=1e-4), "the cut matters, so the test can fail"


@pytest.mark.parametrize("stop_after", [1, 2, 3])
@pytest.mark.parametrize("strategy", ["context", "crossfade"])
def test_any_window_can_be_the_last_before_a_restart(
    depthcrafter: DepthEngine, clip: np.ndarray, strategy: str, stop_after: int
) -> None:
    settings = choose_settings(depthcrafter.spec, strategy=strategy, **SETTINGS)
    sized = depthcrafter.sized(mark_frames(iter(clip), [0, 7]), settings)
    marked = list(sized)
    unbroken = [depth for result in depthcrafter.windows(marked, settings) for depth in sized.restore(result.depth)]
    first = []
    carry = Carry()
    for _, result in zip(range(stop_after), depthcrafter.windows(marked, settings), strict=False):
        first += list(sized.restore(result.depth))
        carry = result.carry
    assert carry.frames_done == len(first)
    rest = depthcrafter.windows(marked[carry.frames_read :], settings, carry=carry)
    resumed = first + [depth for result in rest for depth in sized.restore(result.depth)]
    assert np.array_equal(np.stack(resumed), np.stack(unbroken))


def test_reads_no_further_than_a_window_ahead(chronodepth: DepthEngine, clip: np.ndarray) -> None:
    taken = 0

    def frames() -> Iterator[np.ndarray]:
        nonlocal taken
        while True:  # an endless source
            yield clip[taken % len(clip)]
            taken += 1

    depths = chronodepth.stream(frames(), shots=False, **SETTINGS)
    for done in range(1, 30):
        next(depths)
        # A window, a decode chunk, and the frame that is looked at next.
        assert taken - done <= SETTINGS["window"] + chronodepth.spec.decode_chunk + 1


def test_carry_does_not_grow(depthcrafter: DepthEngine, clip: np.ndarray) -> None:
    settings = choose_settings(depthcrafter.spec, **SETTINGS)
    long = np.concatenate([clip] * 3)
    for result in depthcrafter.windows(depthcrafter.sized(mark_frames(iter(long), False), settings), settings):
        state = result.carry.state
        for name in ("condition", "latents", "embedding"):
            assert name not in state or len(state[name]) < settings.window
        assert "pending" not in state or len(state["pending"]) < depthcrafter.spec.decode_chunk


def test_same_seed_same_depth_other_seed_other(chronodepth: DepthEngine, clip: np.ndarray) -> None:
    first = chronodepth.estimate(clip[:4], shots=False, seed=1, **SETTINGS).values
    again = chronodepth.estimate(clip[:4], shots=False, seed=1, **SETTINGS).values
    other = chronodepth.estimate(clip[:4], shots=False, seed=2, **SETTINGS).values
    assert np.array_equal(first, again)
    assert not np.allclose(first, other, atol=1e-5)


def test_float_frames_are_the_same_frames(chronodepth: DepthEngine, clip: np.ndarray) -> None:
    as_float = torch.from_numpy(clip[:4]).movedim(-1, 1).float() / 255
    first = chronodepth.estimate(clip[:4], shots=False, **SETTINGS).values
    assert np.allclose(chronodepth.estimate(as_float, shots=False, **SETTINGS).values, first, atol=1e-5)


def test_depth_comes_back_at_the_source_s_size(chronodepth: DepthEngine) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 50, 91, 3), dtype=np.uint8)
    assert chronodepth.estimate(frames, shots=False, **SETTINGS).values.shape == (2, 50, 91)


def test_custom_sigmas_replace_the_schedule(svd_folder: Path, chronodepth: DepthEngine, clip: np.ndarray) -> None:
    from diffusers import EulerDiscreteScheduler

    scheduler: Any = EulerDiscreteScheduler.from_pretrained(svd_folder / "scheduler")
    scheduler.set_timesteps(2)
    options = {key: value for key, value in SETTINGS.items() if key != "steps"}
    own = chronodepth.estimate(clip[:4], shots=False, steps=2, **options).values
    same = chronodepth.estimate(clip[:4], shots=False, sigmas=scheduler.sigmas.tolist(), **options).values
    other = chronodepth.estimate(clip[:4], shots=False, sigmas=[700, 15], **options).values
    assert np.allclose(own, same, atol=1e-5)
    assert not np.allclose(own, other, atol=1e-3)


def embedded(engine: DepthEngine) -> torch.Tensor:
    """The image embedding that a network of the SVD family is given for a black picture."""
    network: Any = engine.model
    return network.embedder(torch.zeros(1, 3, 8, 8))


def test_zero_image_embedding_is_cached_and_clip_not_loaded_again(
    svd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEPTH_ENGINE_CACHE", str(tmp_path))
    first = DepthEngine.from_pretrained(svd_folder, spec="chronodepth", device="cpu")
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1
    # Were the tower loaded again, this would fail: its config no longer fits.
    monkeypatch.setattr("transformers.CLIPVisionModelWithProjection", None)
    second = DepthEngine.from_pretrained(svd_folder, spec="chronodepth", device="cpu")
    assert torch.equal(embedded(first), embedded(second))


def test_a_broken_cache_costs_time_and_nothing_else(
    svd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEPTH_ENGINE_CACHE", str(tmp_path))
    first = DepthEngine.from_pretrained(svd_folder, spec="chronodepth", device="cpu")
    (cached,) = tmp_path.rglob("*.safetensors")
    whole = cached.read_bytes()
    cached.write_bytes(whole[:5])
    again = DepthEngine.from_pretrained(svd_folder, spec="chronodepth", device="cpu")
    assert torch.equal(embedded(first), embedded(again)) and cached.read_bytes() == whole
    monkeypatch.setenv("DEPTH_ENGINE_CACHE", "/dev/null/none")
    anywhere = DepthEngine.from_pretrained(svd_folder, spec="chronodepth", device="cpu")
    assert torch.equal(embedded(first), embedded(anywhere))


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        (np.zeros((0, 8, 8, 3), np.uint8), "frames: ndarray of shape"),
        (np.zeros((8, 8, 3), np.uint8), "frames: ndarray of shape"),
        (np.zeros((2, 8, 8), np.uint8), "frames: ndarray of shape"),
        (np.zeros((2, 8, 8, 4), np.uint8), r"frames: frame 0 is .* accepted: uint8 \[H, W, 3\]"),
        (np.zeros((2, 8, 8, 3), np.int32), "frames: frame 0"),
    ],
)
def test_odd_frames_are_refused(chronodepth: DepthEngine, frames: np.ndarray, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        chronodepth.estimate(frames, shots=False)


def test_frames_of_differing_sizes_are_refused(chronodepth: DepthEngine) -> None:
    frames = [np.zeros((64, 64, 3), np.uint8), np.zeros((64, 32, 3), np.uint8)]
    with pytest.raises(ValueError, match="frame 1 is 32x64, the ones before are 64x64"):
        list(chronodepth.stream(frames, shots=False, **SETTINGS))


def test_trims_are_for_files(chronodepth: DepthEngine, clip: np.ndarray) -> None:
    with pytest.raises(ValueError, match="fps: 5 is for files"):
        chronodepth.estimate(clip, fps=5)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"window": 0}, "window: 0"),
        ({"window": 4, "stride": 5}, "stride: 5 is larger than the window"),
        ({"steps": 0}, "steps: 0"),
        ({"strategy": "contxt"}, "did you mean 'context'"),
        ({"sampler": "eulr"}, "did you mean 'euler'"),
        ({"sigmas": [1, 5]}, "sigmas: .* falling"),
        ({"sigmas": []}, "sigmas"),
        ({"sigmas": [5, 1], "steps": 3}, "steps: 3 does not fit the 2 given sigmas"),
        ({"seed": -1}, "seed: -1"),
        ({"seed": 1.5}, "seed: 1.5 is not accepted; give a whole number"),
        ({"max_res": 8}, "max_res: 8 is smaller than the 64 px"),
    ],
)
def test_settings_are_checked(chronodepth: DepthEngine, options: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        choose_settings(chronodepth.spec, **options)


def test_a_window_chosen_alone_keeps_the_share_of_new_frames(chronodepth: DepthEngine) -> None:
    chosen = [choose_settings(chronodepth.spec, window=window) for window in (1, 4, 10, 20)]
    assert [(settings.window, settings.stride) for settings in chosen] == [(1, 1), (4, 2), (10, 5), (20, 10)]


def test_device_and_dtype_are_checked_first(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="device: 'tpu' is not known; .*accepted: auto, cpu"):
        DepthEngine.from_pretrained(tmp_path, device="tpu")
    with pytest.raises(ValueError, match="dtype: 'float8' is not known; did you mean 'float"):
        DepthEngine.from_pretrained(tmp_path, dtype="float8")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="device: 'cuda'"):
            DepthEngine.from_pretrained(tmp_path, device="cuda")
