"""Training of the ControlNet on a tiny SVD: what a step sees, that it trains what runs, and the loop."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from depth2video.control import choose_range, control_frames
from depth2video.generators.controlnet import ControlledUNet, DepthControlNet, control_pixels, run_controlled
from depth2video.generators.interface import Request
from depth2video.generators.svd import PUBLISHED_CLASS, SvdParts, _Guided, load_controlnet, load_svd
from depth_train.cli import main
from depth_train.config import Control, FirstFrame, Optimizer, Stage, TrainConfig
from depth_train.config_files import load_config
from depth_train.data.clip_pool import Clips
from depth_train.data.draws import generator
from depth_train.loop import trainer
from depth_train.loop.clock import Pace
from depth_train.loop.finetune import train
from depth_train.loop.watch import Show
from depth_train.tasks.controlnet import (
    ControlBatch,
    ControlNetModel,
    batch_controlnet,
    control_of,
    controlnet_loss,
    draw_controlnet,
    start_controlnet,
    take_over,
)
from depth_train.tasks.task import StepDraw
from torch import nn

from depth_engine.depth.depth_video import DepthVideo
from depth_engine.depth.source import open_depth
from depth_engine.models.loading import load_model
from depth_engine.models.svd.denoise import precondition

CPU = torch.device("cpu")
QUIET = Show(lambda line: None)
SIDE, FRAMES = 64, 3
STAGE = Stage(
    1.0, SIDE, SIDE, batch=2, min_frames=FRAMES, max_frames=FRAMES, clip_frames=4, pool=4, fresh=0.5,
    objective="diffusion",
)  # fmt: skip


@pytest.fixture(scope="module")
def config(svd_folder: Path) -> TrainConfig:
    return TrainConfig(
        task="controlnet",
        base=str(svd_folder),
        control=Control(channels=(4, 6, 8, 12), dropout=0.0),
        controlnet=FirstFrame(image_dropout=0.0),
        optimizer=Optimizer(name="adamw", learning_rate=2e-3, warmup=1, ema_half_life=1),
        precision="float32",
        steps=3,
        stages=(STAGE,),
    )


@pytest.fixture(scope="module")
def model(config: TrainConfig) -> ControlNetModel:
    torch.manual_seed(0)
    made = start_controlnet(config, None, CPU)
    with torch.no_grad():  # a new one adds nothing, and nothing could be seen to pass
        for part in (made.trained.controlnet_down_blocks, made.trained.controlnet_cond_embedding):
            for parameter in part.parameters():  # type: ignore[union-attr]
                parameter.copy_(torch.randn_like(parameter) * 0.2)
    return made


def rngs(count: int, step: int = 0) -> list[torch.Generator]:
    return [generator(0, step, place) for place in range(count)]


def scene(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A clip whose brightness is its nearness: RGB uint8 `[4, 128, 128, 3]` and depth in metres, with sky above."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:1:128j, 0:1:128j]
    disparity = np.stack([0.05 + 0.4 * rows * (0.5 + columns) + 0.05 * rng.random() for _ in range(4)])
    disparity[:, :20] = 0
    disparity[:, 60:90, int(rng.integers(0, 40)) :][:, :, :30] = 0.7
    rgb = np.repeat((disparity / 0.75 * 255).astype(np.uint8)[..., None], 3, axis=3)
    with np.errstate(divide="ignore"):
        return torch.from_numpy(rgb), torch.from_numpy(1 / disparity).float()


def clips(count: int) -> Clips:
    rgb, depth_m = (torch.stack(part) for part in zip(*(scene(seed) for seed in range(count)), strict=True))
    return Clips(rgb, depth_m, torch.ones_like(depth_m, dtype=torch.bool), torch.full((count, 4, 3, 4), torch.nan))


def random_batch(count: int = 2) -> ControlBatch:
    rng = np.random.default_rng(1)
    control = rng.integers(0, 256, (count, FRAMES, SIDE, SIDE, 3), dtype=np.uint8)
    return ControlBatch(
        torch.from_numpy(rng.uniform(-1, 1, (count, FRAMES, 3, SIDE, SIDE))).float(), control_pixels(control)
    )


class Spy(nn.Module):
    """Stands before the frozen UNet and notes what it is given."""

    def __init__(self, unet: ControlledUNet) -> None:
        super().__init__()
        self.unet, self.seen = unet, []

    def forward(self, *given: object) -> torch.Tensor:
        self.seen.append(given)
        return self.unet(*given)


def test_control_is_what_inference_makes_of_the_same_depth(tmp_path: Path) -> None:
    _, depth_m = scene(3)
    depth_m = depth_m.clamp_max(50)
    video = DepthVideo(depth_m.numpy(), "metric", np.arange(4) / 25, Fraction(25))
    source = open_depth(video.save(tmp_path / "depth.npy"))
    wanted = np.stack(list(control_frames(source, choose_range(source, "clip"), 128, 128)))
    made = control_of(depth_m, torch.ones_like(depth_m, dtype=torch.bool))
    assert np.array_equal(made, wanted) and np.ptp(made) == 255


def test_what_is_not_known_is_as_far_as_the_sky() -> None:
    _, depth_m = scene(4)
    valid = torch.ones_like(depth_m, dtype=torch.bool)
    valid[:, 100:110, 5:15] = False
    control = control_of(depth_m, valid)
    assert (control[:, 100:110, 5:15] == 0).all() and (control[:, :20] == 0).all() and control[:, 110:].min() > 0


def test_picture_and_control_are_cut_and_mirrored_together(config: TrainConfig) -> None:
    mirrored = set()
    for step in range(6):
        batch = batch_controlnet(clips(3), config, generator(0, step), rngs(3, step))
        assert batch.rgb.shape == batch.control.shape and batch.rgb.shape[-1] % 64 == 0
        for rgb, control in zip(batch.rgb[:, :, 0], batch.control[:, :, 0], strict=True):
            assert np.corrcoef(rgb.flatten(), control.flatten())[0, 1] > 0.97
            mirrored.add(bool(rgb[0, -1, 0] > rgb[0, -1, -1]))
    assert mirrored == {True, False}


def test_it_trains_the_network_that_generates(model: ControlNetModel, config: TrainConfig) -> None:
    """The training's denoiser is the generator's network of the same latents, first frame and control."""
    batch = random_batch(1)
    codec = model.codec
    noisy = torch.randn(1, FRAMES, 4, 8, 8, generator=generator(0, 1))
    sigma = 3.0
    first = batch.rgb[:, 0]
    spied = replace(model, unet=Spy(model.unet))  # type: ignore[arg-type]
    counted = [generator(0, 2, 0)]
    with torch.no_grad():
        controlnet_loss(spied, batch, config, counted)
        given = spied.unet.seen[0]  # type: ignore[attr-defined]
        condition, embedding = given[0][:, 0, 4:], given[2][:, 0]
        fps = float(given[3][0, 0]) + 1
        assert given[3][0].tolist() == pytest.approx([fps - 1, 127.0, 0.02]) and 4 <= fps <= 30
        torch.testing.assert_close(embedding, model.embedder(first))
        assert (condition - codec.encode_rgb(first)).abs().mean() < 0.1 * condition.abs().mean(), "a little noise"
        levels = torch.full((1, FRAMES), sigma)
        denoised = model.denoise(noisy, levels, condition, embedding, given[3], batch.control)[0]
        parts = SvdParts(model.unet, model.trained, codec, model.embedder, {}, "once")  # type: ignore[arg-type]
        guided = _Guided(
            parts,
            condition.expand(FRAMES, -1, -1, -1),
            embedding,
            batch.control[0],
            torch.ones(FRAMES),
            Request(fps_id=round(fps)),
            [sigma, 0.0],
        )
        scalings = precondition(levels[0])
        output = guided(scalings.c_in[0] * noisy[0], scalings.c_noise)
    wanted = scalings.c_skip[0] * noisy[0] + scalings.c_out[0] * output
    torch.testing.assert_close(denoised, wanted, atol=1e-4, rtol=1e-4)


def test_the_loss_is_that_of_the_truth_with_noise(model: ControlNetModel, config: TrainConfig) -> None:
    """A network that says nothing leaves the noisy latents scaled; at the truth the v-prediction has no error."""
    batch = random_batch()
    clean = model.codec.encode_rgb(batch.rgb.flatten(0, 1)).unflatten(0, (2, FRAMES)) * model.codec.scaling_factor

    class Oracle(nn.Module):
        def forward(self, sample: torch.Tensor, c_noise: torch.Tensor, *rest: object) -> torch.Tensor:
            scalings = precondition((4 * c_noise).exp()[..., None, None, None])
            noisy = sample[:, :, :4] / scalings.c_in
            return (clean - scalings.c_skip * noisy) / scalings.c_out + 0.5

    oracle = replace(model, unet=Oracle())  # type: ignore[arg-type]
    loss = controlnet_loss(oracle, batch, config, rngs(2))
    assert loss.item() == pytest.approx(0.25, rel=1e-3), "the weight makes it the squared error of the v-prediction"


def test_dropout_leaves_out_the_control_or_the_first_frame(model: ControlNetModel, config: TrainConfig) -> None:
    batch = random_batch()
    other = batch._replace(control=-batch.control)

    def loss(changed: TrainConfig, given: ControlBatch) -> float:
        with torch.no_grad():
            return float(controlnet_loss(model, given, changed, rngs(2)))

    assert loss(config, batch) != loss(config, other)
    no_control = replace(config, control=replace(config.control, dropout=1.0))
    assert loss(no_control, batch) == loss(no_control, other)
    spied = replace(model, unet=Spy(model.unet))  # type: ignore[arg-type]
    with torch.no_grad():
        controlnet_loss(
            spied, batch, replace(config, controlnet=replace(config.controlnet, image_dropout=1.0)), rngs(2)
        )
    sample, _, embedding, *_ = spied.unet.seen[0]  # type: ignore[attr-defined]
    assert not sample[:, :, 4:].any() and not embedding.any() and sample[:, :, :4].any()


def test_it_learns_from_the_control_and_leaves_svd_alone(config: TrainConfig, svd_folder: Path) -> None:
    """The same clip and noise over and over: with its own control the loss falls below that of the UNet alone."""
    torch.manual_seed(0)
    fresh = start_controlnet(config, None, CPU)
    batch = batch_controlnet(clips(2), config, generator(0, 1), rngs(2))
    batch = ControlBatch(*(values[:, :FRAMES] for values in batch))

    def loss(control: torch.Tensor) -> torch.Tensor:
        return controlnet_loss(fresh, batch._replace(control=control), config, rngs(2))

    alone = float(loss(batch.control).detach())
    optimizer = torch.optim.AdamW(fresh.trained.parameters(), lr=3e-3)
    for _ in range(25):
        optimizer.zero_grad()
        loss(batch.control).backward()
        optimizer.step()
    with torch.no_grad():
        assert float(loss(batch.control)) < 0.8 * alone
        assert float(loss(batch.control)) < float(loss(-batch.control)), "another control is of less use"
    held = load_model(ControlledUNet, svd_folder / "unet", torch.float32, CPU).state_dict()
    assert all(torch.equal(value, held[name]) for name, value in fresh.unet.state_dict().items())
    assert not any(parameter.requires_grad for part in fresh.frozen_parts for parameter in part.parameters())


def test_checkpointed_activations_give_the_same_gradient(config: TrainConfig) -> None:
    gradients = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        made = start_controlnet(replace(config, checkpoint_activations=checkpointed), None, CPU)
        layer = made.trained.controlnet_mid_block
        loss = controlnet_loss(made, random_batch(), config, rngs(2))
        gradients.append(torch.autograd.grad(loss, [layer.weight])[0])  # type: ignore[union-attr, list-item]
    assert gradients[0].abs().sum() > 0
    torch.testing.assert_close(*gradients)


def test_the_public_weights_go_on_as_they_were(model: ControlNetModel, tmp_path: Path) -> None:
    """Its residuals count several times; taken over, they are added once and the output is the same."""
    public = DepthControlNet.from_unet(model.unet, (4, 6, 8, 12)).requires_grad_(False)
    for parameter in (*public.controlnet_down_blocks.parameters(), *public.controlnet_mid_block.parameters()):
        parameter.copy_(torch.randn_like(parameter) * 0.1)
    public.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**written, "_class_name": PUBLISHED_CLASS}))
    own = DepthControlNet.from_unet(model.unet, (4, 6, 8, 12))
    take_over(own, model.unet, tmp_path)
    batch = random_batch(1)
    sample = torch.randn(1, FRAMES, 8, 8, 8, generator=generator(0, 3))
    inputs = (sample, torch.tensor([0.3]), model.embedder(batch.rgb[:, 0])[:, None], torch.tensor([[6.0, 127.0, 0.02]]))
    with torch.no_grad():
        wanted = run_controlled(model.unet, public, inputs, batch.control, residuals="published")
        made = run_controlled(model.unet, own, inputs, batch.control)
        plain = run_controlled(model.unet, public, inputs, batch.control)
    torch.testing.assert_close(made, wanted, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(plain, wanted, atol=1e-3)


def test_a_killed_run_goes_on_to_the_same_weights_and_generates(
    config: TrainConfig, svd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three steps at once, and two and one; what comes out is what depth2video loads, and steers."""
    train(config, tmp_path / "whole", show=QUIET)
    real, taken = trainer.average_into, 0

    class Killed(BaseException):
        pass

    def dies(*given: object) -> None:
        nonlocal taken
        real(*given)  # type: ignore[arg-type]
        taken += 1
        if taken == 3:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(trainer, "average_into", dies)
        with pytest.raises(Killed):
            train(config, tmp_path / "parts", pace=Pace(save_every_s=0), show=QUIET)
    train(config, tmp_path / "parts", resume=True, show=QUIET)
    whole, parts = (load_controlnet(tmp_path / name, torch.float32)[0].state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert any(layer.any() for name, layer in whole.items() if name.startswith("controlnet_down_blocks"))

    folders = {"base": svd_folder, "controlnet": tmp_path / "whole"}
    made = load_svd(folders, window=4, stride=3, device=CPU, dtype=torch.float32, offload="none")
    request = Request(image=np.full((SIDE, SIDE, 3), 90, np.uint8), steps=1, guidance=1.0)

    def clip(scale: float) -> np.ndarray:
        def control() -> Iterator[np.ndarray]:
            yield from control_of(*(lambda d: (d, d > 0))(scene(0)[1]))[:, :SIDE, :SIDE]

        pieces = made.generate(control(), replace(request, control_scale=scale), state=None)
        return np.concatenate([piece.frames for piece in pieces])

    assert clip(1.0).shape == (4, SIDE, SIDE, 3) and not np.array_equal(clip(20.0), clip(0.0))
    train(replace(config, steps=1), tmp_path / "further", init=tmp_path / "whole", show=QUIET)


def test_lengths_are_the_stages(config: TrainConfig) -> None:
    stage = replace(STAGE, min_frames=2)
    draws = {draw_controlnet(stage, generator(0, step)) for step in range(20)}
    assert draws == {StepDraw(2, 0, False), StepDraw(3, 0, False)}


def invoke(tmp_path: Path, config: TrainConfig, *arguments: str, **changed: object):
    path = tmp_path / "config.yaml"
    plain = json.loads(json.dumps(asdict(replace(config, **changed))))  # type: ignore[arg-type]
    path.write_text(yaml.safe_dump(plain))
    return CliRunner().invoke(
        main, ["controlnet", str(path), "-o", str(tmp_path / "out"), "--device", "cpu", *arguments]
    )


def test_the_command_trains(config: TrainConfig, tmp_path: Path) -> None:
    done = invoke(tmp_path, config, "--dry-run")
    assert done.exit_code == 0 and "stage 1: diffusion, trains" in done.output, done.output
    assert not (tmp_path / "out").exists()
    done = invoke(tmp_path, config, "--steps", "1", "--quiet")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "out" / "controlnet" / "config.json").is_file()


def test_bad_requests_get_one_line(config: TrainConfig, tmp_path: Path) -> None:
    cases = [
        ({"stages": (replace(STAGE, objective="one_step"),)}, (), "task controlnet accepts"),
        ({"stages": (replace(STAGE, height=48),)}, (), "multiples of 64"),
        ({"base": str(tmp_path / "none")}, (), "no such folder"),
        ({}, ("--init", str(tmp_path / "none")), "--init: no such folder"),
        ({}, ("--init", str(tmp_path)), "holds no ControlNet"),
    ]
    for changed, arguments, text in cases:
        done = invoke(tmp_path, config, *arguments, **changed)
        assert done.exit_code == 2 and text in done.stderr, (text, done.stderr)
        assert len(done.stderr.strip().splitlines()) == 1
    wrong_task = CliRunner().invoke(main, ["controlnet", "bundled", "-o", str(tmp_path / "out")])
    assert wrong_task.exit_code == 2 and "bundled is of task depth" in wrong_task.stderr
    done = invoke(tmp_path, config, "--steps", "1", control={"channels": (4, 6)})
    assert done.exit_code == 1 and "makes latents of 1/8" in done.stderr
    preset = load_config("controlnet")
    assert preset.task == "controlnet" and preset.controlnet.image_noise == 0.02
