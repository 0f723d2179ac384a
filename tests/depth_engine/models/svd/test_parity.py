"""The engine gives what the released ChronoDepth and DepthCrafter pipelines would, on tiny random checkpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from depth_engine import DepthEngine
from tests.straight_line import Parts, chronodepth, depthcrafter, load_parts, unet_per_frame
from tests.tiny_checkpoints import tiny_svd, tiny_unet_only

# Stepping down from sigma 700 to 0 in one go cancels numbers of about 2000 in float32: 3e-5 in the output comes from
# the order of the additions alone. Every other schedule and sampler agrees to 1e-6, so the bound there is tight enough
# to see a forgotten overlap latent (1/700 of the noise it is added to: 1e-4 in the output).
CANCELLING_TOLERANCE = 1e-4
TOLERANCE = 2e-5


def fixed_noise(frame_index: int, draw: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normals that depend on frame and draw only."""
    generator = torch.Generator().manual_seed(100 * frame_index + draw + 1)
    return torch.randn(tuple(shape), generator=generator)


def moving_blobs(num_frames: int, height: int = 64, width: int = 64) -> np.ndarray:
    """Soft coloured blobs that change over time under fine grain, uint8 `[T, H, W, 3]`."""
    generator = torch.Generator().manual_seed(num_frames)
    coarse = torch.rand(1, 3, num_frames, 8, 8, generator=generator)
    video = torch.nn.functional.interpolate(coarse, size=(num_frames, height, width), mode="trilinear")[0]
    video = 0.9 * video + 0.1 * torch.rand(video.shape, generator=generator)
    return (video * 255).byte().permute(1, 2, 3, 0).numpy()


def assert_same_depth(actual: np.ndarray, expected: np.ndarray, tolerance: float = TOLERANCE) -> None:
    """Both vary, lie in [0, 1] and agree."""
    assert actual.shape == expected.shape
    assert actual.dtype == np.float32
    assert actual.min() >= 0 and actual.max() <= 1
    assert actual.std() > 1e-2 and expected.std() > 1e-2
    assert np.abs(actual - expected).max() < tolerance


def tolerance_of(sampler: str, steps: int) -> float:
    return CANCELLING_TOLERANCE if sampler == "euler" and steps <= 2 else TOLERANCE


@pytest.fixture(scope="module")
def parts(svd_folder: Path) -> Parts:
    return load_parts(svd_folder)


@pytest.fixture(scope="module")
def chronodepth_engine(svd_folder: Path) -> DepthEngine:
    return DepthEngine.from_pretrained(svd_folder, spec="chronodepth", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def depthcrafter_engine(svd_folder: Path) -> DepthEngine:
    return DepthEngine.from_pretrained(svd_folder, spec="depthcrafter", device="cpu", dtype="float32")


class TestChronodepth:
    @pytest.mark.parametrize("strategy", ["independent", "replacement", "context"])
    @pytest.mark.parametrize(
        ("num_frames", "window", "stride", "sampler", "steps"),
        [
            pytest.param(3, 5, 3, "reference", 5, id="shorter-than-window"),
            pytest.param(5, 5, 3, "reference", 2, id="one-window"),
            pytest.param(6, 5, 3, "reference", 5, id="one-new-frame"),
            pytest.param(11, 5, 3, "reference", 5, id="full-windows"),
            pytest.param(10, 4, 2, "reference", 1, id="one-step"),
            pytest.param(9, 6, 2, "euler", 5, id="euler-short-last-window"),
            pytest.param(10, 5, 3, "euler", 2, id="euler-two-steps"),
            pytest.param(11, 4, 3, "euler", 1, id="euler-one-step"),
            pytest.param(9, 4, 4, "reference", 2, id="no-overlap"),
        ],
    )
    def test_windows_and_steps(
        self,
        parts: Parts,
        chronodepth_engine: DepthEngine,
        strategy: str,
        num_frames: int,
        window: int,
        stride: int,
        sampler: str,
        steps: int,
    ) -> None:
        frames = moving_blobs(num_frames)
        expected = chronodepth(
            parts,
            frames,
            mode=strategy,
            sampler=sampler,
            window=window,
            stride=stride,
            steps=steps,
            noise=fixed_noise,
        )
        depth = chronodepth_engine.estimate(
            frames,
            strategy=strategy,
            sampler=sampler,
            window=window,
            stride=stride,
            steps=steps,
            shots=False,
            noise=fixed_noise,
        )
        assert_same_depth(depth.values, expected, tolerance_of(sampler, steps))

    def test_not_square(self, parts: Parts, chronodepth_engine: DepthEngine) -> None:
        frames = moving_blobs(6, height=64, width=128)
        expected = chronodepth(
            parts, frames, mode="context", sampler="reference", window=4, stride=2, steps=2, noise=fixed_noise
        )
        depth = chronodepth_engine.estimate(frames, window=4, stride=2, steps=2, shots=False, noise=fixed_noise)
        assert_same_depth(depth.values, expected)

    def test_defaults_are_those_of_the_release(self, parts: Parts, chronodepth_engine: DepthEngine) -> None:
        frames = moving_blobs(12)
        expected = chronodepth(
            parts, frames, mode="context", sampler="reference", window=10, stride=5, steps=5, noise=fixed_noise
        )
        depth = chronodepth_engine.estimate(frames, shots=False, noise=fixed_noise)
        assert_same_depth(depth.values, expected)
        assert depth.kind == "depth"

    @pytest.mark.parametrize("subfolder", ["", "unet"])
    def test_unet_published_alone(self, svd_folder: Path, tmp_path: Path, subfolder: str) -> None:
        unet_folder = tiny_unet_only(tmp_path / "published", base=svd_folder, subfolder=subfolder)
        frames = moving_blobs(6)
        expected = chronodepth(
            load_parts(svd_folder, unet_folder / subfolder),
            frames,
            mode="context",
            sampler="reference",
            window=4,
            stride=2,
            steps=2,
            noise=fixed_noise,
        )
        engine = DepthEngine.from_pretrained(
            unet_folder, base=svd_folder, spec="chronodepth", device="cpu", dtype="float32"
        )
        depth = engine.estimate(frames, window=4, stride=2, steps=2, shots=False, noise=fixed_noise)
        assert_same_depth(depth.values, expected)

    def test_deeper_unet(self, tmp_path: Path) -> None:
        folder = tiny_svd(tmp_path, seed=5, layers_per_block=2, block_out_channels=(32, 32, 64))
        frames = moving_blobs(6)
        expected = chronodepth(
            load_parts(folder),
            frames,
            mode="context",
            sampler="euler",
            window=4,
            stride=2,
            steps=5,
            noise=fixed_noise,
        )
        engine = DepthEngine.from_pretrained(folder, spec="chronodepth", device="cpu", dtype="float32")
        depth = engine.estimate(frames, sampler="euler", window=4, stride=2, steps=5, shots=False, noise=fixed_noise)
        assert_same_depth(depth.values, expected)


class TestDepthcrafter:
    @pytest.mark.parametrize(
        ("num_frames", "window", "stride", "sampler", "steps"),
        [
            pytest.param(3, 5, 3, "euler", 5, id="shorter-than-window"),
            pytest.param(5, 5, 3, "euler", 2, id="one-window"),
            pytest.param(6, 5, 3, "euler", 5, id="one-new-frame"),
            pytest.param(11, 5, 3, "euler", 5, id="full-windows"),
            pytest.param(10, 5, 3, "euler", 5, id="short-last-window"),
            pytest.param(11, 6, 2, "euler", 5, id="frame-in-three-windows"),
            pytest.param(11, 4, 3, "euler", 2, id="two-steps"),
            pytest.param(10, 4, 2, "euler", 1, id="one-step"),
            pytest.param(9, 4, 4, "euler", 5, id="no-overlap"),
            pytest.param(9, 5, 3, "reference", 5, id="reference-sampler"),
        ],
    )
    def test_windows_and_steps(
        self,
        parts: Parts,
        depthcrafter_engine: DepthEngine,
        num_frames: int,
        window: int,
        stride: int,
        sampler: str,
        steps: int,
    ) -> None:
        frames = moving_blobs(num_frames)
        expected = depthcrafter(
            parts, frames, sampler=sampler, window=window, stride=stride, steps=steps, noise=fixed_noise
        )
        depth = depthcrafter_engine.estimate(
            frames,
            strategy="crossfade",
            sampler=sampler,
            window=window,
            stride=stride,
            steps=steps,
            shots=False,
            noise=fixed_noise,
        )
        assert_same_depth(depth.values, expected, tolerance_of(sampler, steps))

    @pytest.mark.parametrize(
        ("num_frames", "width"),
        [
            pytest.param(6, 128, id="not-square"),
            pytest.param(2, 704, id="wider-than-clip-input"),  # blurred before it is shrunk to 224 pixels
        ],
    )
    def test_sizes(self, parts: Parts, depthcrafter_engine: DepthEngine, num_frames: int, width: int) -> None:
        frames = moving_blobs(num_frames, height=64, width=width)
        expected = depthcrafter(parts, frames, window=4, stride=2, steps=3, noise=fixed_noise)
        depth = depthcrafter_engine.estimate(frames, window=4, stride=2, steps=3, shots=False, noise=fixed_noise)
        assert_same_depth(depth.values, expected)

    def test_defaults_are_those_of_the_release(self, parts: Parts, depthcrafter_engine: DepthEngine) -> None:
        frames = moving_blobs(6)
        expected = depthcrafter(parts, frames, sampler="euler", window=110, stride=85, steps=5, noise=fixed_noise)
        depth = depthcrafter_engine.estimate(frames, shots=False, noise=fixed_noise)
        assert_same_depth(depth.values, expected)
        assert depth.kind == "disparity"


class TestStraightLine:
    """What the engine is compared with can tell mistakes apart: no engine is involved."""

    def test_per_frame_unet_is_the_unet_when_frames_agree(self, parts: Parts) -> None:
        sample, embedding, time_ids = self.network_input()
        with torch.no_grad():
            expected = parts.unet(sample[None], torch.tensor(0.7), embedding[:1], time_ids[:1]).sample[0]
        actual = unet_per_frame(parts.unet, sample, torch.full((5,), 0.7), embedding[:1].repeat(5, 1, 1), time_ids)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)

    def test_noise_level_of_each_frame_matters(self, parts: Parts) -> None:
        sample, embedding, time_ids = self.network_input()
        c_noise = torch.tensor([-4.0, -4.0, 1.6, 1.6, 1.6])
        output = unet_per_frame(parts.unet, sample, c_noise, embedding, time_ids)
        permuted = unet_per_frame(parts.unet, sample, c_noise.flip(0), embedding, time_ids)
        assert (output - permuted).abs().mean() > 1e-2

    def test_embedding_of_each_frame_matters(self, parts: Parts) -> None:
        sample, embedding, time_ids = self.network_input()
        c_noise = torch.full((5,), 1.6)
        output = unet_per_frame(parts.unet, sample, c_noise, embedding, time_ids)
        last_two_swapped = unet_per_frame(parts.unet, sample, c_noise, embedding[[0, 1, 2, 4, 3]], time_ids)
        assert (output - last_two_swapped).abs().mean() > 1e-2

    def test_depth_depends_on_context_noise_level(self, parts: Parts) -> None:
        frames = moving_blobs(11)

        def depth(context_c_noise: float) -> np.ndarray:
            told = replace(parts, context_c_noise=context_c_noise)
            return chronodepth(
                told, frames, mode="context", sampler="reference", window=8, stride=3, steps=2, noise=fixed_noise
            )

        released, read_as_ln_sigma = depth(-4.0), depth(-1.0)
        # The first window has no context, and fills the first decode chunk exactly.
        np.testing.assert_array_equal(released[:8], read_as_ln_sigma[:8])
        assert np.abs(released[8:] - read_as_ln_sigma[8:]).max() > 50 * TOLERANCE

    def test_disparity_depends_on_frame_embeddings(self, parts: Parts) -> None:
        frames = moving_blobs(8)
        own = depthcrafter(parts, frames, window=5, stride=3, steps=2, noise=fixed_noise)
        order = [0, 2, 1, 3, 4, 5, 7, 6]
        swapped = depthcrafter(parts, frames, window=5, stride=3, steps=2, noise=fixed_noise, embedding_order=order)
        assert np.abs(own - swapped).max() > 50 * TOLERANCE

    def test_samplers_and_strategies_differ(self, parts: Parts) -> None:
        frames = moving_blobs(8)
        results = [
            chronodepth(parts, frames, mode=mode, sampler=sampler, window=5, stride=3, steps=5, noise=fixed_noise)
            for mode in ("independent", "replacement", "context")
            for sampler in ("reference", "euler")
        ]
        for i, one in enumerate(results):
            for other in results[:i]:
                assert np.abs(one - other).max() > 50 * TOLERANCE

    @staticmethod
    def network_input() -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(3)
        sample = torch.randn(5, 8, 8, 8, generator=generator)
        embedding = torch.randn(5, 1, 32, generator=generator)
        time_ids = torch.tensor([[6.0, 127.0, 0.0]]).repeat(5, 1)
        return sample, embedding, time_ids
