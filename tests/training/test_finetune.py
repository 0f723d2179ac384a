"""The training loop at toy size: what it feeds, what it learns, what it leaves behind."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from torch import Tensor

from depth_engine import DepthEngine
from depth_engine.codec import PatchCodec, to_pixels
from depth_engine.denoise import precondition
from training.cli import main
from training.config import load_config
from training.finetune import (
    ADDED_TIME_IDS,
    ClipPool,
    augment,
    build_unet,
    crop,
    follow_context,
    normalized_disparity,
    rate_share,
    train,
)
from training.loss import OneStepModel, align, depth_loss

WEIGHTS = "diffusion_pytorch_model.safetensors"
SMALL = load_config("smoke")


def test_normalized_disparity_is_one_affine_map_per_clip() -> None:
    depth_m = torch.rand(2, 3, 40, 40) * 9 + 1
    depth_m[0, :, :4] = torch.inf  # sky
    target = normalized_disparity(depth_m)
    assert target.min() == -1 and target.max() == 1
    for clip in range(2):
        inside = (target[clip].abs() < 1).numpy()
        x = (1 / depth_m[clip]).numpy()[inside]
        y = target[clip].numpy()[inside]
        assert np.abs(np.polyval(np.polyfit(x, y, 1), x) - y).max() < 1e-4
    assert (target[0, :, :4] == -1).all(), "sky is farthest"


def test_pool_depends_on_the_number_rendered_alone() -> None:
    stage = SMALL.stages[1]
    at_once, bit_by_bit = ClipPool(stage, 0, torch.device("cpu")), ClipPool(stage, 0, torch.device("cpu"))
    at_once.fill(11)  # more than the pool holds: the oldest are replaced
    for count in (3, 1, 7):
        bit_by_bit.fill(count)
    assert torch.equal(at_once.rgb, bit_by_bit.rgb)
    assert torch.equal(at_once.depth_m, bit_by_bit.depth_m)
    rgb, depth_m = at_once.draw(2, torch.Generator().manual_seed(0))
    again, _ = at_once.draw(2, torch.Generator().manual_seed(0))
    assert rgb.shape == (2, 2, 32, 48, 3) and depth_m.shape == (2, 2, 32, 48)
    assert torch.equal(rgb, again)


def test_augmentation_mirrors_both_and_jitters_rgb_alone() -> None:
    ramp = torch.linspace(-0.5, 0.5, 16).expand(8, 2, 8, 16)
    rgb, target = augment(ramp[:, :, None].expand(-1, -1, 3, -1, -1), ramp, torch.Generator().manual_seed(0))
    mirrored = target[:, 0, 0, 0] > 0
    assert 0 < mirrored.sum() < 8
    assert torch.equal(rgb[:, 0, :, 0, 0].mean(1) > rgb[:, 0, :, 0, -1].mean(1), mirrored)
    assert torch.equal(target.abs().sort().values, ramp.abs().sort().values), "depth values are untouched"
    assert not torch.allclose(rgb.abs().sort().values, ramp[:, :, None].abs().sort().values.expand_as(rgb), atol=0.02)


def test_target_follows_the_scale_and_shift_of_the_context() -> None:
    target = torch.rand(3, 4, 12, 12) * 2 - 1
    given = target[:, :2] * 0.9 + 0.1
    assert torch.allclose(follow_context(target, given), target * 0.9 + 0.1, atol=1e-4)
    flat = follow_context(target, torch.zeros(3, 2, 12, 12))
    assert (flat.std(dim=(1, 2, 3)) > 0.8 * target.std(dim=(1, 2, 3))).all(), "flat context does not teach flat depth"


def loss_of(prediction: Tensor, target: Tensor, last: Tensor | None = None, **weights: float) -> Tensor:
    weights = {"affine_weight": 0.0, "gradient_weight": 0.0, "temporal_weight": 0.0, **weights}
    return depth_loss(prediction, target, last, **weights)


def test_loss_is_zero_at_the_truth_and_sees_seams_and_edges() -> None:
    target = torch.rand(1, 3, 16, 16)
    last = torch.rand(1, 1, 16, 16)
    everything = {"affine_weight": 1.0, "gradient_weight": 1.0, "temporal_weight": 1.0}
    assert loss_of(target, target, last, **everything) < 1e-6
    shifted = loss_of(target + 0.1, target, None, **everything)
    assert torch.isclose(shifted, torch.tensor(0.1), atol=1e-5), "a constant error is L1 alone"
    assert loss_of(target + 0.1, target, last, temporal_weight=1.0) > shifted, "with a known frame it is a step"
    bump = torch.zeros_like(target)
    bump[..., 4:8, 4:8] = 0.1 * 16 * 16 / 16
    assert loss_of(target + bump, target, gradient_weight=1.0) > shifted, "an edge costs more than its mean"


def test_alignment_is_the_least_squares_fit_of_each_clip() -> None:
    target = torch.rand(2, 3, 8, 8)
    prediction = torch.stack([target[0] * 0.5 + 3, target[1] * 2 - 1])
    assert torch.allclose(align(prediction, target), target, atol=1e-4)
    noisy = prediction + torch.rand(2, 3, 8, 8)
    for given, truth, fitted in zip(noisy, target, align(noisy, target), strict=True):
        slope, offset = np.polyfit(given.ravel(), truth.ravel(), 1)
        assert np.allclose(given * slope + offset, fitted, atol=1e-4)
    assert torch.isfinite(align(torch.zeros(1, 1, 8, 8), target[:1, :1])).all(), "a flat prediction has no variance"


def test_crops_keep_rgb_and_depth_together() -> None:
    place = torch.arange(2 * 96 * 160, dtype=torch.float32).view(2, 1, 96, 160)
    rgb = place[..., None].expand(-1, -1, -1, -1, 3)
    shapes = set()
    for seed in range(40):
        cut_rgb, cut_place = crop(rgb, place, torch.Generator().manual_seed(seed))
        assert torch.equal(cut_rgb[..., 0], cut_place)
        shapes.add(tuple(cut_place.shape[2:]))
    assert (96, 160) in shapes and len(shapes) > 4
    assert all(height % 16 == width % 16 == 0 and height >= 64 and width >= 112 for height, width in shapes)


def test_training_predicts_what_the_engine_predicts(tmp_path: Path) -> None:
    """One preconditioner, one codec: the engine's one-step run of a saved model is the training's prediction."""
    train(SMALL, tmp_path / "model", report=lambda line: None)
    engine = DepthEngine.from_pretrained(tmp_path / "model", device="cpu")
    config = json.loads((tmp_path / "model" / "train_config.json").read_text())
    assert config["seed"] == 0 and len(config["stages"]) == 3
    frames = np.random.default_rng(0).integers(0, 256, (5, 32, 48, 3), dtype=np.uint8)
    model = OneStepModel(engine.unet, PatchCodec(4), SMALL.sigma, SMALL.context_c_noise, ADDED_TIME_IDS)
    rgb = to_pixels(torch.from_numpy(frames).movedim(-1, 1))[None]
    with torch.inference_mode():
        first = model.predict(rgb[:, :3], torch.zeros(1, 0, 32, 48))
        # Latents go to the next window unclipped; only the depth that is given out is clipped.
        second = model.predict(rgb[:, 2:], first[:, 2:])
    expected = (torch.cat([first, second], dim=1)[0] / 2 + 0.5).clamp(0, 1).numpy()
    values = engine.estimate(frames, shots=False, window=3, stride=2, max_res=64).values
    assert np.abs(values - expected).max() < 1e-5


def test_learning_beats_not_learning() -> None:
    """Sixty steps on one clip: the loss falls to well under its start."""
    torch.manual_seed(0)
    model = OneStepModel(build_unet(SMALL), PatchCodec(4), SMALL.sigma, SMALL.context_c_noise, ADDED_TIME_IDS)
    rgb = torch.rand(1, 2, 3, 32, 32) * 2 - 1
    target = torch.linspace(-1, 1, 32).expand(1, 2, 32, 32)
    optimizer = torch.optim.AdamW(model.unet.parameters(), lr=2e-3)
    losses = []
    for _ in range(60):
        loss = loss_of(model.predict(rgb, target[:, :0]), target, gradient_weight=1.0, temporal_weight=1.0)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]


def test_zero_start_is_the_preconditioner_at_its_noise_level() -> None:
    scalings = precondition(torch.tensor(SMALL.sigma))
    assert torch.isclose(scalings.c_out, torch.tensor(-1.0), atol=1e-3)
    assert torch.isclose(scalings.c_noise, torch.tensor(SMALL.sigma).log() / 4)


def test_learning_rate_warms_up_and_ends_at_zero() -> None:
    rates = [rate_share(SMALL, step, step / 6) for step in range(7)]
    assert rates[0] == pytest.approx(0.5)
    assert rates[1:3] == [1.0, 1.0], "held until the fall begins"
    assert rates[2:] == sorted(rates[2:], reverse=True) and rates[-1] == pytest.approx(0)


def test_budget_stops_the_run(tmp_path: Path) -> None:
    lines: list[str] = []
    train(replace(SMALL, steps=10**9), tmp_path / "model", budget_minutes=0.03, report=lines.append)
    assert "steps; checkpoint in" in lines[-1]
    assert DepthEngine.from_pretrained(tmp_path / "model", device="cpu").spec.window == 3


class Killed(Exception):
    pass


def test_a_resumed_run_ends_in_the_weights_of_an_unbroken_one(tmp_path: Path) -> None:
    """Float32, stages of both kinds; stopped twice, once within a stage and once at its border."""
    config = replace(SMALL, bfloat16=False, steps=9, ema_half_life=3.0)
    train(config, tmp_path / "unbroken", report=lambda line: None)
    folder = tmp_path / "broken"
    real = ClipPool.draw
    for stop_at in (3, 7):
        with pytest.raises(Killed), pytest.MonkeyPatch.context() as patch:

            def draw(self: ClipPool, frames: int, generator: torch.Generator, last: int = stop_at) -> tuple:
                if generator.initial_seed() == last:  # seed 0: the step itself
                    raise Killed
                return real(self, frames, generator)

            patch.setattr(ClipPool, "draw", draw)
            train(config, folder, resume=folder.exists(), save_every_s=0, report=lambda line: None)
        assert DepthEngine.from_pretrained(folder, device="cpu").spec.window == 3, "loadable whenever it is stopped"
    train(config, folder, resume=True, report=lambda line: None)
    expected, found = (load_file(path / "unet" / WEIGHTS) for path in (tmp_path / "unbroken", folder))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert not (folder / "resume").exists(), "a finished run has nothing to resume"
    with pytest.raises(ValueError, match="holds no interrupted run"):
        train(config, folder, resume=True)


def test_another_config_is_not_resumed(tmp_path: Path) -> None:
    train(SMALL, tmp_path / "model", report=lambda line: None)
    (tmp_path / "model" / "resume").mkdir()
    with pytest.raises(ValueError, match="had seed 0, not 5"):
        train(replace(SMALL, seed=5), tmp_path / "model", resume=True)
    with pytest.raises(ValueError, match="holds no state of this run"):
        train(SMALL, tmp_path / "model", resume=True)


def test_an_older_checkpoint_is_not_replaced_unasked(tmp_path: Path) -> None:
    train(SMALL, tmp_path / "model", report=lambda line: None)
    done = CliRunner().invoke(main, ["run", "-o", str(tmp_path / "model"), "--steps", "1"])
    assert done.exit_code == 2 and "--overwrite replaces it" in done.stderr
    done = CliRunner().invoke(main, ["run", "-o", str(tmp_path / "model"), "--resume"])
    assert done.exit_code == 2 and "holds no interrupted run" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["run", "-o", "x", "--budget-minutes", "0"], "--budget-minutes: 0"),
        (["run", "-o", "x", "--steps", "0"], "--steps: 0"),
        (["run", "-o", "x", "--device", "tpu"], "device: 'tpu'"),
        (["score", "no/such/folder/here"], "no such folder"),
    ],
)
def test_bad_requests_get_one_line(
    arguments: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert text in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_a_folder_of_something_else_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("mine")
    done = CliRunner().invoke(main, ["run", "-o", str(tmp_path), "--steps", "1"])
    assert done.exit_code == 2 and "no checkpoint of this command" in done.stderr
    assert (tmp_path / "letters.txt").read_text() == "mine"
