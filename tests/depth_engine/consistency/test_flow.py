"""Depth carried along optical flow: it steadies what stays, moves with what moves, and lets go of what is new."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from depth_engine import DepthEngine
from depth_engine.consistency.flow import follow_flow
from depth_engine.models.contract import Carry
from depth_engine.models.loading import resolve_checkpoint
from depth_engine.models.svd.spec import CHRONODEPTH
from depth_engine.settings import choose_settings
from depth_engine.video.in_memory import mark_frames

HEIGHT, WIDTH, FRAMES = 64, 96, 10
SPEED = 3  # pixels per frame


def texture(height: int, width: int, seed: int) -> np.ndarray:
    """Smooth random RGB `[3, H, W]` in [-1, 1]: something that flow can follow."""
    noise = np.random.default_rng(seed).normal(size=(height, width, 3)).astype(np.float32)
    blurred = cv2.GaussianBlur(noise, (0, 0), 2.0)
    return (blurred / np.abs(blurred).max()).transpose(2, 0, 1)


@pytest.fixture(scope="module")
def drifting() -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures and depth, both in [-1, 1], of a bumpy surface that drifts to the left."""
    rgb = texture(HEIGHT, WIDTH + SPEED * FRAMES, 0)
    depth = texture(HEIGHT, WIDTH + SPEED * FRAMES, 1)[0]
    cut = [slice(SPEED * index, SPEED * index + WIDTH) for index in range(FRAMES)]
    frames = np.stack([rgb[..., part] for part in cut])
    return torch.from_numpy(frames), torch.from_numpy(np.stack([depth[:, part] for part in cut]))


def flickering(depth: torch.Tensor, spread: float = 0.1) -> torch.Tensor:
    """Depth as a network gives it: each frame wrong in another way, in patches."""
    coarse = torch.randn(len(depth), 1, 8, 12, generator=torch.Generator().manual_seed(0))
    return depth + spread * torch.nn.functional.interpolate(coarse, depth.shape[1:], mode="bilinear")[:, 0]


def test_errors_average_out_along_the_motion(drifting: tuple[torch.Tensor, torch.Tensor]) -> None:
    rgb, truth = drifting
    predicted = flickering(truth)
    settled = follow_flow(rgb, predicted, settled=False)
    inner = (slice(3, None), slice(6, -6), slice(6, -6))
    before, after = ((values - truth)[inner] for values in (predicted, settled))
    assert after.abs().mean() < 0.8 * before.abs().mean()
    moved = slice(None, -SPEED), slice(SPEED, None)  # the same points in a frame and in the one before
    steps = [
        (values[4:, 6:-6, moved[0]] - values[3:-1, 6:-6, moved[1]])[..., 6:-6].abs().mean()
        for values in (predicted, settled)
    ]
    assert steps[1] < 0.3 * steps[0]


def test_a_still_surface_is_remembered_for_long() -> None:
    """Some twenty-five frames average out, so little of what each frame says anew is seen from frame to frame."""
    rgb = torch.from_numpy(texture(HEIGHT, WIDTH, 3)).expand(60, -1, -1, -1)
    truth = torch.from_numpy(texture(HEIGHT, WIDTH, 4)[0]) * 0.5
    predicted = flickering(truth.expand(60, -1, -1))
    settled = follow_flow(rgb, predicted, settled=True)
    before, after = ((values[31:] - values[30:-1]).abs().mean() for values in (predicted, settled))
    assert after < 0.15 * before
    before, after = ((values - truth)[30:].std() for values in (predicted, settled))
    assert after < 0.45 * before


def test_what_is_right_stays(drifting: tuple[torch.Tensor, torch.Tensor]) -> None:
    rgb, truth = drifting
    still_rgb, still = rgb[:1].expand(4, -1, -1, -1), truth[:1].expand(4, -1, -1)
    assert torch.allclose(follow_flow(still_rgb, still, settled=False), still, atol=1e-5)
    flat = torch.full_like(truth, 0.3)
    assert torch.allclose(follow_flow(rgb, flat, settled=False), flat, atol=1e-5)


def test_windows_do_not_matter(drifting: tuple[torch.Tensor, torch.Tensor]) -> None:
    rgb, truth = drifting
    predicted = flickering(truth)
    whole = follow_flow(rgb, predicted, settled=True)
    first = follow_flow(rgb[:4], predicted[:4], settled=True)
    second = follow_flow(rgb[3:], torch.cat([first[3:], predicted[4:]]), settled=True)
    assert torch.equal(second[:1], first[3:])
    assert torch.allclose(torch.cat([first, second[1:]]), whole, atol=1e-6)


def test_the_first_frame_is_what_all_say_of_it(drifting: tuple[torch.Tensor, torch.Tensor]) -> None:
    rgb, truth = drifting
    predicted = flickering(truth)
    first = follow_flow(rgb, predicted, settled=False)[0]
    inner = (slice(6, -6), slice(6, -6 - SPEED * FRAMES))  # what the last frame still sees
    assert (first - truth[0])[inner].abs().mean() < 0.75 * (predicted[0] - truth[0])[inner].abs().mean()
    assert torch.equal(follow_flow(rgb, predicted, settled=True)[0], predicted[0])


def test_what_comes_into_view_takes_its_own_depth() -> None:
    """A near square appears: before it there was a far wall of another texture."""
    wall = torch.from_numpy(texture(HEIGHT, WIDTH, 2))
    rgb = wall.expand(2, -1, -1, -1).clone()
    rgb[1, :, 20:44, 30:60] = -wall[:, 20:44, 30:60].sign()
    predicted = torch.full((2, HEIGHT, WIDTH), -0.6)
    predicted[1, 20:44, 30:60] = 0.7
    settled = follow_flow(rgb, predicted, settled=False)
    assert (settled[1, 24:40, 34:56] - 0.7).abs().max() < 0.02
    assert (settled[1, :12] + 0.6).abs().max() < 0.02


@pytest.mark.parametrize("size", [(16, 256), (256, 16), (16, 16), (8, 8), (64, 2048)])
def test_any_shape_of_picture(size: tuple[int, int]) -> None:
    rgb = torch.from_numpy(texture(*size, seed=6)).expand(3, -1, -1, -1)
    predicted = flickering(torch.zeros(3, *size))
    settled = follow_flow(rgb, predicted, settled=False)
    assert settled.shape == predicted.shape and bool(settled.isfinite().all())
    assert (settled[2] - settled[1]).abs().mean() < 0.5 * (predicted[2] - predicted[1]).abs().mean()


def test_a_change_of_level_is_followed() -> None:
    """The camera nears a wall: all of the prediction rises, and the settled depth goes along."""
    rgb = torch.from_numpy(texture(HEIGHT, WIDTH, 3)).expand(20, -1, -1, -1)
    bumps = torch.from_numpy(texture(HEIGHT, WIDTH, 4)[0]) * 0.3
    predicted = bumps + torch.linspace(-0.5, 0.5, 20)[:, None, None]
    settled = follow_flow(rgb, predicted, settled=True)
    assert (settled - predicted)[-1].abs().mean() < 0.1
    assert settled[-1].mean() - settled[0].mean() > 0.9


def test_who_may_ask_for_it() -> None:
    bundled = resolve_checkpoint("bundled").spec
    assert choose_settings(bundled).flow
    assert not choose_settings(bundled, flow=False).flow
    assert not choose_settings(bundled, strategy="independent").flow
    assert not choose_settings(CHRONODEPTH).flow
    assert not choose_settings(bundled, window=1).flow, "windows that share no frame hand nothing on"
    with pytest.raises(ValueError, match="flow: True is not accepted with window 4 and stride 4, which share no frame"):
        choose_settings(bundled, window=4, stride=4, flow=True)
    with pytest.raises(ValueError, match="flow: True is not accepted with strategy 'independent'"):
        choose_settings(bundled, strategy="independent", flow=True)
    with pytest.raises(ValueError, match="flow: True is not accepted; this checkpoint does not"):
        choose_settings(CHRONODEPTH, flow=True)


def test_a_checkpoint_without_a_lossless_codec_can_t_want_it(svd_folder: Path) -> None:
    from dataclasses import replace

    with pytest.raises(ValueError, match="wants flow, which needs a lossless codec"):
        resolve_checkpoint(svd_folder, spec=replace(CHRONODEPTH, flow=True))
    engine = DepthEngine.from_pretrained(svd_folder, spec=CHRONODEPTH, device="cpu")
    settings = replace(choose_settings(engine.spec, window=2, stride=1, steps=1), flow=True)
    with pytest.raises(ValueError, match="flow: True is not accepted; it needs a lossless codec"):
        list(engine.windows(engine.sized(mark_frames(np.zeros((2, 64, 64, 3), np.uint8), False), settings), settings))


@pytest.fixture(scope="module")
def engine() -> DepthEngine:
    return DepthEngine.from_pretrained("bundled", device="cpu")


@pytest.fixture(scope="module")
def clip(drifting: tuple[torch.Tensor, torch.Tensor]) -> np.ndarray:
    """uint8 `[T, H, W, 3]` that drifts, under noise."""
    rgb = drifting[0] + 0.1 * torch.randn(drifting[0].shape, generator=torch.Generator().manual_seed(5))
    return ((rgb.clamp(-1, 1) + 1) * 127.5).byte().movedim(1, -1).numpy()


def test_depth_is_steadier(engine: DepthEngine, clip: np.ndarray) -> None:
    def change(**settings: Any) -> float:
        values = engine.estimate(clip, shots=False, **settings).values
        return float(np.abs(values[1:, :, :-SPEED] - values[:-1, :, SPEED:]).mean() / values.std())

    assert change() < 0.7 * change(flow=False)


def test_windows_meet_without_a_step(engine: DepthEngine) -> None:
    """A window's first new frame follows the last one of the window before as the others follow each other."""
    count, window, stride = 22, 6, 2
    wide = texture(HEIGHT, WIDTH + SPEED * count, 0)
    cut = np.stack([wide[..., SPEED * index : SPEED * index + WIDTH] for index in range(count)])
    noisy = cut + 0.1 * np.random.default_rng(5).normal(size=cut.shape)
    frames = ((noisy.clip(-1, 1) + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)
    values = engine.estimate(frames, shots=False, window=window, stride=stride).values
    steps = np.abs(values[1:, :, :-SPEED] - values[:-1, :, SPEED:]).mean((1, 2))
    across, inside = steps[window - 1 :: stride], steps[window::stride]
    assert across.mean() < 1.5 * inside.mean()


@pytest.mark.parametrize("stop_after", [1, 2])
def test_a_restart_goes_on_the_same(engine: DepthEngine, clip: np.ndarray, stop_after: int) -> None:
    settings = choose_settings(engine.spec, window=4, stride=2)
    sized = engine.sized(mark_frames(iter(clip), [0, 7]), settings)
    marked = list(sized)
    unbroken = [depth for result in engine.windows(marked, settings) for depth in sized.restore(result.depth)]
    first, carry = [], Carry()
    for _, result in zip(range(stop_after), engine.windows(marked, settings), strict=False):
        first += list(sized.restore(result.depth))
        carry = result.carry
    rest = engine.windows(marked[carry.frames_read :], settings, carry=carry)
    resumed = first + [depth for result in rest for depth in sized.restore(result.depth)]
    assert np.array_equal(np.stack(resumed), np.stack(unbroken))


def test_nothing_crosses_a_cut(engine: DepthEngine, clip: np.ndarray) -> None:
    both = engine.estimate(clip, shots=[0, 5]).values
    assert np.array_equal(both[5:], engine.estimate(clip[5:], shots=False).values)
    assert not np.allclose(both[5:], engine.estimate(clip, shots=False).values[5:], atol=1e-4)
