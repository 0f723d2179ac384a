"""The two objectives, and the input convolution that they ask for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from depth_train.config import Loss, Stage, TrainConfig
from depth_train.config_files import load_config
from depth_train.data.batch import Batch
from depth_train.data.draws import generator
from depth_train.tasks.depth import (
    CARRIED,
    DepthModel,
    at_level,
    carry_error,
    diffusion_loss,
    draw_step,
    follow_context,
    noise_weight,
    one_step_loss,
)
from depth_train.tasks.loss import align, depth_loss, masked_mean
from depth_train.tasks.start import checkpoint_spec, fit_input, start_model
from depth_train.tasks.task import StepDraw
from torch import Tensor

from depth_engine import DepthEngine
from depth_engine.models.loading import load_model, resolve_checkpoint
from depth_engine.models.svd.codec import load_codec
from depth_engine.models.svd.denoise import precondition
from depth_engine.models.svd.spec import CHRONODEPTH
from depth_engine.models.svd.unet import DepthUNet

SMALL = load_config("smoke")
CPU = torch.device("cpu")


def rngs(count: int) -> list[torch.Generator]:
    return [generator(0, 0, place) for place in range(count)]


def everywhere(values: Tensor) -> Tensor:
    return torch.ones_like(values, dtype=torch.bool)


def loss_of(prediction: Tensor, target: Tensor, last: Tensor | None = None, **weights: float) -> Tensor:
    none = {"affine_weight": 0.0, "gradient_weight": 0.0, "temporal_weight": 0.0}
    seam = None if last is None else (last, everywhere(last))
    return depth_loss(prediction, target, everywhere(target), seam, replace(SMALL, loss=Loss(**{**none, **weights})))


def test_loss_is_zero_at_the_truth_and_sees_seams_and_edges() -> None:
    target, last = torch.rand(1, 3, 16, 16), torch.zeros(1, 1, 16, 16)
    all_parts = {"affine_weight": 1.0, "gradient_weight": 1.0, "temporal_weight": 1.0}
    assert loss_of(target, target, last, **all_parts) < 1e-6
    shifted = loss_of(target + 0.1, target, None, **all_parts)
    assert torch.isclose(shifted, torch.tensor(0.1), atol=1e-5), "a constant error is L1 alone"
    assert loss_of(target + 0.1, target, last, temporal_weight=1.0) > shifted, "with a known frame it is a step"
    carried = loss_of(target + 0.1, target, last + 0.1, **all_parts)
    assert torch.isclose(carried, shifted), "the known frame was as wrong: no step"
    bump = torch.zeros_like(target)
    bump[..., 4:8, 4:8] = 0.1 * 16 * 16 / 16
    assert loss_of(target + bump, target, gradient_weight=1.0) > shifted, "an edge costs more than its mean"


def test_loss_does_not_see_what_is_not_known() -> None:
    target = torch.rand(2, 3, 16, 16)
    valid = everywhere(target)
    valid[:, :, 5:9, 2:7] = False
    last = torch.rand(2, 1, 16, 16), valid[:, :1]
    prediction = target * 0.7 + 0.1 * torch.rand_like(target)
    spoilt = torch.where(valid, prediction, 100.0)
    expected = depth_loss(prediction, target, valid, last, SMALL)
    assert torch.isclose(depth_loss(spoilt, target, valid, last, SMALL), expected)
    assert torch.isfinite(depth_loss(prediction, target, ~everywhere(target), last, SMALL))
    assert masked_mean(torch.tensor([[1.0, 3.0], [5.0, 9.0]]), torch.tensor([[True, True], [True, False]])) == 3.5


def test_alignment_is_the_least_squares_fit_of_each_clip() -> None:
    target = torch.rand(2, 3, 8, 8)
    prediction = torch.stack([target[0] * 0.5 + 3, target[1] * 2 - 1])
    assert torch.allclose(align(prediction, target, everywhere(target)), target, atol=1e-4)
    noisy, valid = prediction + torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8) < 0.7
    for given, truth, known, fitted in zip(noisy, target, valid, align(noisy, target, valid), strict=True):
        slope, offset = np.polyfit(given[known], truth[known], 1)
        assert np.allclose(given * slope + offset, fitted, atol=1e-4)
    flat = align(torch.zeros(1, 1, 8, 8), target[:1, :1], everywhere(target[:1, :1]))
    assert torch.isfinite(flat).all(), "a flat prediction has no variance"


def test_target_follows_the_scale_and_shift_of_the_context() -> None:
    target = torch.rand(3, 4, 12, 12) * 2 - 1
    given = target[:, :2] * 0.9 + 0.1
    valid = everywhere(target)
    valid[:, :, :3] = False
    spoilt = torch.where(valid[:, :2], given, 5.0)
    assert torch.allclose(follow_context(target, spoilt, valid), target * 0.9 + 0.1, atol=1e-4)
    flat = follow_context(target, torch.zeros(3, 2, 12, 12), valid)
    assert (flat.std(dim=(1, 2, 3)) > 0.8 * target.std(dim=(1, 2, 3))).all(), "flat context does not teach flat depth"


def test_target_carries_what_the_context_has_wrong_in_the_large() -> None:
    target = torch.rand(2, 5, 24, 40)
    valid = everywhere(target)
    valid[:, :, :4] = False
    slope = torch.linspace(-0.2, 0.2, 40).expand(24, 40)
    context = torch.where(valid[:, :2], target[:, :2] + slope, 7.0)
    carried = carry_error(target, context, valid) - target
    assert torch.allclose(carried[:, 1, 8:, 8:-8], slope[8:, 8:-8].expand(2, -1, -1), atol=1e-3)
    for frame in (2, 3, 4):
        assert torch.allclose(carried[:, frame], carried[:, frame - 1] * CARRIED, atol=1e-6), "fades"
    checks = torch.where(torch.rand(2, 2, 24, 40) < 0.5, 0.2, -0.2)
    assert carry_error(target, target[:, :2] + checks, everywhere(target)).sub(target).abs().mean() < 0.05, (
        "not fine ones"
    )
    assert torch.equal(carry_error(target, target[:, :2], valid), target)


class GoesOn:
    """A model of a still scene that fits the context's scale and shift, and goes on with some of its other error."""

    def __init__(self, truth: Tensor, context: Tensor, *, keeps_error: bool, fits: bool = True) -> None:
        self.truth, self.context, self.keeps_error, self.fits = truth, context, keeps_error, fits

    def predict(self, rgb: Tensor, context: Tensor) -> Tensor:
        if not context.shape[1]:  # its own context
            return self.context
        clips = []
        for truth, given in zip(self.truth, context, strict=True):
            slope, offset = np.polyfit(truth[: len(given)].flatten(), given.flatten(), 1) if self.fits else (1, 0)
            settled = truth[len(given) :] * slope + offset
            error = given[-1] - (truth[0] * slope + offset)
            fading = CARRIED ** torch.arange(1, len(settled) + 1)[:, None, None]
            clips.append(settled + error * fading if self.keeps_error else settled)
        return torch.stack(clips).float()


def goes_on_loss(context: Tensor, own: bool, config: TrainConfig = SMALL, **how: bool) -> float:
    rows, columns = torch.linspace(-6, 6, 32)[:, None], torch.linspace(-9, 9, 48)
    truth = (0.8 * torch.sin(rows) * torch.cos(columns)).expand(2, 5, 32, 48)
    batch = Batch(torch.zeros(2, 5, 3, 32, 48), truth, everywhere(truth))
    model = GoesOn(truth, truth[:, :2] * 0.9 + 0.1 + context, **how)
    loss = one_step_loss(model, batch, StepDraw(5, 2, own), config, rngs(2))  # type: ignore[arg-type]
    return float(loss)


@pytest.mark.parametrize("own", [True, False])
def test_going_on_with_the_context_s_large_error_costs_less_than_a_jump(own: bool) -> None:
    """As the network is to be taught, whether the context is its own or the truth with an uneven error."""
    slope = torch.linspace(-0.2, 0.2, 48).expand(32, 48)
    jump = goes_on_loss(slope, own, keeps_error=False)
    assert jump > 0.02, "there is an error to go on with"
    assert goes_on_loss(slope, own, keeps_error=True) < 0.6 * jump


def test_going_on_in_the_scale_of_its_own_context_costs_nothing() -> None:
    assert goes_on_loss(torch.zeros(32, 48), True, keeps_error=False) < 0.005
    assert goes_on_loss(torch.zeros(32, 48), True, keeps_error=False, fits=False) > 0.05


@pytest.mark.parametrize("own", [True, False])
def test_new_frames_are_asked_for_at_the_level_of_a_context_far_from_a_beginning(own: bool) -> None:
    """What stays at the level of a beginning costs; what goes on at the context's does not."""
    low = replace(SMALL, context=replace(SMALL.context, level=(0.3, 0.4)))
    context = torch.zeros(32, 48)
    assert goes_on_loss(context, own, low, keeps_error=True) < 0.05
    assert goes_on_loss(context, own, low, keeps_error=False, fits=False) > 0.5
    assert torch.allclose(
        at_level(torch.full((2, 1, 1, 1), 0.5), torch.tensor([1.0, 0.5])).flatten() * 2, torch.tensor([1.0, -0.5])
    )


def test_zero_start_is_the_preconditioner_at_its_noise_level() -> None:
    scalings = precondition(torch.tensor(SMALL.sigma))
    assert torch.isclose(scalings.c_out, torch.tensor(-1.0), atol=1e-3)
    assert torch.isclose(scalings.c_noise, torch.tensor(SMALL.sigma).log() / 4)


class Oracle(torch.nn.Module):
    """Says the v-prediction that denoises to given latents exactly, plus a constant error; notes the noise levels."""

    def __init__(self, clean: Tensor, error: float = 0.0) -> None:
        super().__init__()
        self.clean, self.error = clean, error
        self.c_noise = torch.zeros(0)

    def forward(self, sample: Tensor, c_noise: Tensor, embedding: Tensor, time_ids: Tensor) -> Tensor:
        self.c_noise = c_noise
        scalings = precondition((c_noise * 4).exp()[..., None, None, None])
        noisy = sample[:, :, -self.clean.shape[2] :] / scalings.c_in
        return (self.clean - scalings.c_skip * noisy) / scalings.c_out + self.error


@pytest.mark.parametrize("per_frame", [False, True])
def test_diffusion_loss_is_the_weighted_error_of_denoised_latents(per_frame: bool) -> None:
    config = replace(SMALL, diffusion=replace(SMALL.diffusion, noise_per_frame=per_frame))
    model = start_model(config, None, CPU)
    target = torch.rand(2, 4, 16, 16) * 2 - 1
    batch = Batch(torch.rand(2, 4, 3, 16, 16), target, everywhere(target))
    oracle = Oracle(model.encode(target))
    exact = replace(model, trained=oracle)
    assert diffusion_loss(exact, batch, StepDraw(4, 1, False), config, rngs(2)) < 1e-6
    assert (oracle.c_noise[:, 0] == config.context.c_noise).all(), "context is flagged clean"
    levels = oracle.c_noise[:, 1:]
    assert (levels[:, 0] == levels[:, 1]).all() != per_frame
    assert levels[0, 0] != levels[1, 0]
    # An error e of the v-prediction is c_out e in the latents; its weight undoes c_out: (1 + s^2)/s^2 * s^2/(1 + s^2).
    off = replace(model, trained=Oracle(model.encode(target), error=0.3))
    assert diffusion_loss(off, batch, StepDraw(4, 1, False), config, rngs(2)) == pytest.approx(0.09, rel=1e-3)
    gentle = replace(config, diffusion=replace(config.diffusion, min_snr=5.0))
    assert diffusion_loss(off, batch, StepDraw(4, 1, False), gentle, rngs(2)) < 0.09


def test_noise_weights_are_those_of_the_papers() -> None:
    sigma = torch.tensor([0.1, 1.0, 10.0])
    assert torch.allclose(noise_weight(sigma, SMALL), (1 + sigma**2) / sigma**2)
    assert torch.allclose(
        noise_weight(sigma, replace(SMALL, diffusion=replace(SMALL.diffusion, min_snr=5.0))),
        torch.tensor([5.0, 1.0, 0.01]),
    )


def test_noise_levels_are_log_normal() -> None:
    config = replace(SMALL, diffusion=replace(SMALL.diffusion, noise_per_frame=True))
    model = start_model(config, None, CPU)
    target = torch.zeros(64, 8, 16, 16)
    oracle = Oracle(model.encode(target))
    batch = Batch(torch.zeros(64, 8, 3, 16, 16), target, everywhere(target))
    diffusion_loss(replace(model, trained=oracle), batch, StepDraw(8, 0, False), config, rngs(64))
    log_sigma = oracle.c_noise * 4
    assert abs(log_sigma.mean() - 0.7) < 0.25 and abs(log_sigma.std() - 1.6) < 0.2


def test_diffusion_loss_leaves_out_latents_with_unknown_pixels() -> None:
    model = start_model(SMALL, None, CPU)
    target = torch.rand(1, 2, 16, 16)
    valid = everywhere(target)
    valid[:, :, :, 8:] = False
    off = model.encode(target)
    off[..., 2:] += 100.0  # wrong under the unknown pixels alone: patches of 4
    batch = Batch(torch.rand(1, 2, 3, 16, 16), target, valid)
    assert diffusion_loss(replace(model, trained=Oracle(off)), batch, StepDraw(2, 0, False), SMALL, rngs(1)) < 1e-6


def test_steps_mix_lengths_and_context() -> None:
    stage = replace(SMALL.stages[2], max_frames=4)
    draws = [draw_step(stage, SMALL, generator(0, step)) for step in range(200)]
    assert {draw.frames for draw in draws} == {1, 2, 3, 4}
    assert all(draw.known < draw.frames for draw in draws) and {draw.known for draw in draws} == {0, 1, 2, 3}
    assert {draw.own for draw in draws} == {True, False}
    fixed = replace(stage, min_frames=4, objective="diffusion")
    draws = [draw_step(fixed, SMALL, generator(0, step)) for step in range(50)]
    assert {draw.frames for draw in draws} == {4} and not any(draw.own for draw in draws)


def vae_config(svd_folder: Path, **changes: object) -> TrainConfig:
    stage = Stage(1.0, 64, 64, batch=2, max_frames=2, clip_frames=2, pool=2, fresh=1)
    return replace(
        SMALL, base=str(svd_folder), kind="depth", sigma=700.0, precision="float32", stages=(stage,), **changes
    )  # type: ignore[arg-type]


def test_svds_input_keeps_its_meaning(svd_folder: Path) -> None:
    """The same network, whether it is fed SVD's way or the spec's."""
    spec = checkpoint_spec(vae_config(svd_folder))
    files = resolve_checkpoint(svd_folder, spec=CHRONODEPTH)
    codec = load_codec(files, torch.float32, CPU)
    native, fitted = (load_model(DepthUNet, files.unet, torch.float32, CPU) for _ in range(2))
    fit_input(fitted, codec, spec)
    noisy, unscaled = torch.randn(1, 3, 4, 8, 8), torch.randn(1, 3, 4, 8, 8) * 5
    rest = torch.tensor([1.0]), torch.randn(1, 1, 32), torch.tensor([[6.0, 127.0, 0.0]])
    scale = codec.scaling_factor  # type: ignore[attr-defined]
    with torch.inference_mode():
        expected = native(torch.cat([noisy, unscaled], dim=2), *rest)
        found = fitted(torch.cat([unscaled * scale, noisy], dim=2), *rest)
    assert torch.allclose(found, expected, atol=1e-4)


def test_a_new_condition_begins_without_a_say(svd_folder: Path) -> None:
    spec = checkpoint_spec(vae_config(svd_folder))
    files = resolve_checkpoint(svd_folder, spec=CHRONODEPTH)
    codec = load_codec(files, torch.float32, CPU)
    unet = load_model(DepthUNet, files.unet, torch.float32, CPU)
    unet.conv_in = torch.nn.Conv2d(4, unet.conv_in.out_channels, 3, padding=1)
    noisy = torch.randn(1, 2, 4, 8, 8)
    rest = torch.tensor([1.0]), torch.randn(1, 1, 32), torch.tensor([[6.0, 127.0, 0.0]])
    with torch.inference_mode():
        expected = unet(noisy, *rest)
        found = fit_input(unet, codec, spec)(torch.cat([torch.randn(1, 2, 4, 8, 8), noisy], dim=2), *rest)
    assert unet.config["in_channels"] == 8
    assert torch.allclose(found, expected, atol=1e-5)
    unet.conv_in = torch.nn.Conv2d(9, 8, 3)
    with pytest.raises(ValueError, match="its UNet takes 9 channels; accepted: 4"):
        fit_input(unet, codec, spec)


@pytest.mark.parametrize("objective", [diffusion_loss, one_step_loss])
def test_both_objectives_reach_the_network_through_the_vae(objective: object, svd_folder: Path) -> None:
    config = vae_config(svd_folder)
    model = start_model(config, None, CPU)
    target = torch.rand(1, 2, 64, 64) * 2 - 1
    batch = Batch(torch.rand(1, 2, 3, 64, 64) * 2 - 1, target, everywhere(target))
    loss = objective(model, batch, StepDraw(2, 1, False), config, rngs(1))  # type: ignore[operator]
    loss.backward()
    gradient = model.trained.conv_in.weight.grad  # type: ignore[union-attr]
    assert gradient is not None and gradient.abs().max() > 0  # type: ignore[operator]
    assert all(not parameter.requires_grad for parameter in model.codec.vae.parameters())  # type: ignore[attr-defined]


def test_one_step_through_the_vae_is_what_the_engine_runs(svd_folder: Path, tmp_path: Path) -> None:
    from depth_train.checkpoints.folder import copy_base
    from depth_train.tasks.depth_task import write_depth_checkpoint

    config = vae_config(svd_folder)
    model = start_model(config, None, CPU)
    unet: DepthUNet = model.trained  # type: ignore[assignment]
    unet.half().float()  # what is saved
    write_depth_checkpoint(tmp_path / "model", unet, config)
    assert model.copied_base is not None
    copy_base(model.copied_base, tmp_path / "model", None)
    engine = DepthEngine.from_pretrained(tmp_path / "model", device="cpu")
    frames = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    rgb = torch.from_numpy(frames).movedim(-1, 1)[None].float() / 127.5 - 1
    with torch.inference_mode():
        pixels = model.predict(rgb, torch.zeros(1, 0, 64, 64))[0]
    expected = (pixels.clamp(-1, 1) + 1) / 2
    assert np.abs(engine.estimate(frames, shots=False).values - expected.numpy()).max() < 1e-4


def test_the_model_is_frozen_but_for_the_unet() -> None:
    model = start_model(SMALL, None, CPU)
    assert isinstance(model, DepthModel) and model.base is None
    assert all(parameter.requires_grad for parameter in model.trained.parameters())
