"""The small generator with tiny random networks: what must hold whatever it has learned."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from depth2video.generators.controlnet import ControlledUNet, DepthControlNet, control_pixels
from depth2video.generators.interface import Request
from depth2video.generators.small import (
    OUT_CHANNELS,
    SmallGenerator,
    SmallSpec,
    Steered,
    load_small,
    predict_frames,
    sample_at,
)

HEIGHT, WIDTH = 32, 48
SPEC = SmallSpec(window=4, known=2)


def network(*, moves: bool = True) -> Steered:
    torch.manual_seed(0)
    pixels = 3 * SPEC.patch**2
    unet = ControlledUNet(
        in_channels=2 * pixels,
        out_channels=OUT_CHANNELS * SPEC.patch**2,
        down_block_types=("DownBlockSpatioTemporal", "CrossAttnDownBlockSpatioTemporal"),
        up_block_types=("CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal"),
        block_out_channels=(32, 32),
        layers_per_block=1,
        cross_attention_dim=32,
        num_attention_heads=(2, 2),
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=96,
        num_frames=4,
    )
    made = Steered(unet, DepthControlNet.from_unet(unet, (8, 12, 16), carries_motion=True)).requires_grad_(False)
    if moves:
        for parameter in [*made.controlnet.controlnet_down_blocks.parameters()]:
            parameter.copy_(torch.randn_like(parameter) * 0.1)
    else:
        made.unet.conv_out.weight.zero_()
        made.unet.conv_out.bias.zero_()  # type: ignore[union-attr]
    return made


def control(count: int, first: int = 0) -> Iterator[np.ndarray]:
    for index in range(first, count):
        grey = np.full((HEIGHT, WIDTH), 20, np.uint8)
        grey[8:20, 3 * index : 3 * index + 12] = 230
        yield np.repeat(grey[..., None], 3, 2)


IMAGE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
REQUEST = Request(image=IMAGE)


def clip(generator: SmallGenerator, count: int, request: Request = REQUEST) -> np.ndarray:
    return np.concatenate([piece.frames for piece in generator.generate(control(count), request, state=None)])


def test_the_first_frame_is_the_given_one_and_every_control_has_its_frame() -> None:
    for count in (1, 2, 4, 5, 9):
        frames = clip(SmallGenerator(network(), SPEC), count)
        assert frames.shape == (count, HEIGHT, WIDTH, 3)
        assert np.array_equal(frames[0], IMAGE)


def test_a_network_that_says_nothing_holds_the_frame_still() -> None:
    frames = clip(SmallGenerator(network(moves=False), SPEC), 9)
    assert (frames == IMAGE).all()


def test_a_later_process_goes_on_to_the_same_bytes() -> None:
    generator = SmallGenerator(network(), SPEC)
    pieces = list(generator.generate(control(11), REQUEST, state=None))
    for cut in range(1, len(pieces)):
        done = sum(len(piece.frames) for piece in pieces[:cut])
        state = {name: value.clone() for name, value in pieces[cut - 1].state.items()}
        rest = list(generator.generate(control(11, done), REQUEST, state=state))
        for seen, wanted in zip(rest, pieces[cut:], strict=True):
            assert np.array_equal(seen.frames, wanted.frames)


def test_control_steers_by_its_scale_and_can_be_switched_off() -> None:
    generator = SmallGenerator(network(), SPEC)
    steered, off = clip(generator, 4), clip(generator, 4, replace(REQUEST, control_scale=0.0))
    assert np.abs(steered.astype(int) - off).mean() > 0.1
    assert np.array_equal(clip(generator, 4, replace(REQUEST, control_start=0.5)), off)


def test_a_new_controlnet_leaves_the_generator_as_it_is() -> None:
    made = network()
    new = Steered(made.unet, DepthControlNet.from_unet(made.unet, (8, 12, 16), carries_motion=True))
    generator = SmallGenerator(new, SPEC)
    assert np.array_equal(clip(generator, 9), clip(generator, 9, replace(REQUEST, control_scale=0.0)))


def test_one_window_is_the_beginning_of_a_longer_clip() -> None:
    generator = SmallGenerator(network(), SPEC)
    assert np.array_equal(clip(generator, 4), clip(generator, 12)[:4])


def test_the_control_s_motion_moves_the_picture_by_its_gain() -> None:
    """A network that says nothing, gain 1: the picture moves as the bright square of the control does."""
    made = network(moves=False)
    made.controlnet.motion_gain.fill_(1.0)
    smooth = np.linspace(0, 255, WIDTH).astype(np.uint8)[None, :, None].repeat(HEIGHT, 0).repeat(3, 2)
    frames = clip(SmallGenerator(made, SPEC), 3, Request(image=np.ascontiguousarray(smooth)))
    inside = np.s_[10:18, 9:15]  # of the square in frame 2, six pixels on
    moved_by = (smooth[inside].astype(float) - frames[2][inside]).mean() / (255 / (WIDTH - 1))
    assert 4 < moved_by < 8
    assert (clip(SmallGenerator(made, SPEC), 3, replace(REQUEST, control_scale=0.0)) == IMAGE).all()


def test_sampling_moves_a_picture_by_the_flow() -> None:
    picture = torch.rand(1, 3, 16, 40)
    assert torch.allclose(sample_at(picture, torch.zeros(1, 2, 16, 40)), picture, atol=1e-5)
    flow = torch.zeros(1, 2, 16, 40)
    flow[:, 0], flow[:, 1] = 3 / 40, -2 / 40  # three columns to the right, two rows up
    moved = sample_at(picture, flow)
    assert torch.allclose(moved[..., 2:, :-3], picture[..., :-2, 3:], atol=1e-4)


def test_prediction_is_differentiable_and_of_the_new_frames_alone() -> None:
    made = network().requires_grad_(True)
    known = control_pixels(np.stack([IMAGE] * 2))[None]
    new = predict_frames(made, SPEC, known, control_pixels(np.stack(list(control(4))))[None])
    assert new.rgb.shape == (1, 2, 3, HEIGHT, WIDTH) and new.flow.shape == (1, 2, 2, HEIGHT, WIDTH)
    new.rgb.sum().backward()
    assert made.controlnet.controlnet_mid_block.weight.grad is not None


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    made = network()
    made.unet.save_pretrained(tmp_path / "unet")
    made.controlnet.save_pretrained(tmp_path / "controlnet")
    SPEC.write(tmp_path)
    again = load_small(tmp_path, device=torch.device("cpu"))
    assert (again.window, again.stride, again.size_multiple) == (4, 2, 16)
    assert np.abs(clip(again, 5).astype(int) - clip(SmallGenerator(made, SPEC), 5)).max() <= 1
    (tmp_path / "generator.json").unlink()
    with pytest.raises(ValueError, match="generator.json"):
        load_small(tmp_path, device=torch.device("cpu"))


def test_a_first_frame_of_the_right_size_is_needed() -> None:
    generator = SmallGenerator(network(), SPEC)
    with pytest.raises(ValueError, match="--image: is missing"):
        next(generator.generate(control(4), Request(), state=None))
    with pytest.raises(ValueError, match="not of the control's size"):
        next(generator.generate(control(4), Request(image=np.zeros((8, 8, 3), np.uint8)), state=None))
