"""The ControlNet and the UNet that takes its residuals, as tiny models of the real classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from depth2video.generators.controlnet import ControlledUNet, DepthControlNet, control_pixels, run_controlled
from diffusers import UNetSpatioTemporalConditionModel

from depth_engine.models.loading import load_model

FRAMES, SIDE = 3, 8
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def unet(svd_folder: Path) -> ControlledUNet:
    return load_model(ControlledUNet, svd_folder / "unet", torch.float32, CPU)


def inputs(unet: ControlledUNet) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    width = dict(unet.config)["cross_attention_dim"]
    sample = torch.randn(1, FRAMES, dict(unet.config)["in_channels"], SIDE, SIDE, generator=rng)
    embedding = torch.randn(1, 1, width, generator=rng)
    return sample, torch.tensor([0.7]), embedding, torch.tensor([[6.0, 127.0, 0.02]])


def control() -> torch.Tensor:
    rng = np.random.default_rng(0)
    return control_pixels(rng.integers(0, 256, (1, FRAMES, 8 * SIDE, 8 * SIDE, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def trained(unet: ControlledUNet) -> DepthControlNet:
    """A ControlNet whose zero convolutions are zero no more."""
    torch.manual_seed(0)
    made = DepthControlNet.from_unet(unet, (4, 6, 8, 12)).eval().requires_grad_(False)
    for name, parameter in made.named_parameters():
        if "controlnet" in name and "blocks" not in name.split(".")[-3:-2]:
            parameter.copy_(torch.randn_like(parameter) * 0.1)
    return made


def test_without_control_it_is_the_unet_of_diffusers(unet: ControlledUNet, svd_folder: Path) -> None:
    plain = UNetSpatioTemporalConditionModel.from_pretrained(svd_folder / "unet").eval()
    sample, timestep, embedding, ids = inputs(unet)
    with torch.no_grad():
        wanted = plain(sample, timestep, embedding, ids).sample
        torch.testing.assert_close(unet(sample, timestep, embedding, ids), wanted, atol=1e-5, rtol=1e-5)


def test_a_new_controlnet_changes_nothing(unet: ControlledUNet) -> None:
    new = DepthControlNet.from_unet(unet, (4, 6, 8, 12)).eval()
    with torch.no_grad():
        alone = run_controlled(unet, None, inputs(unet), None)
        assert torch.equal(run_controlled(unet, new, inputs(unet), control()), alone)


def test_it_begins_with_the_unets_encoder(unet: ControlledUNet) -> None:
    new = DepthControlNet.from_unet(unet)
    held = new.state_dict()
    for name, value in unet.state_dict().items():
        in_encoder = not name.startswith(("up_blocks", "conv_out", "conv_norm_out"))
        assert (name in held) == in_encoder, name
        if in_encoder:
            assert torch.equal(held[name], value), name


def test_control_steers_by_its_scale(unet: ControlledUNet, trained: DepthControlNet) -> None:
    with torch.no_grad():
        alone = run_controlled(unet, None, inputs(unet), None)
        whole = run_controlled(unet, trained, inputs(unet), control())
        assert torch.equal(run_controlled(unet, trained, inputs(unet), control(), 0.0), alone)
        half = run_controlled(unet, trained, inputs(unet), control(), 0.5)
    assert 0 < (half - alone).abs().mean() < (whole - alone).abs().mean()


def test_each_residual_is_added_once(unet: ControlledUNet, trained: DepthControlNet) -> None:
    """Against the decoder fed by hand."""
    with torch.no_grad():
        added = trained(*inputs(unet), control())
        given = unet.prepare(*inputs(unet))
        hidden, skips = unet.encode(inputs(unet)[0], given)
        by_hand = [skip + residual for skip, residual in zip(skips, added.down, strict=True)]
        wanted = unet.decode(hidden + added.mid, by_hand, given)
        assert torch.equal(unet(*inputs(unet), added), wanted)


def test_the_published_variant_adds_inside_the_loop_over_blocks(unet: ControlledUNet, trained: DepthControlNet) -> None:
    """Its loop, written out: after every block all skips so far receive their residual once more."""
    with torch.no_grad():
        added = trained(*inputs(unet), control())
        sample, *_ = inputs(unet)
        given = unet.prepare(*inputs(unet))
        hidden = unet.conv_in(sample.flatten(0, 1))
        skips = [hidden]
        for block in unet.down_blocks:
            extra = {"encoder_hidden_states": given.context} if getattr(block, "has_cross_attention", False) else {}
            hidden, more = block(
                hidden_states=hidden,
                temb=given.time_embedding,
                image_only_indicator=given.image_only_indicator,
                **extra,
            )
            skips += more
            skips = [skip + residual for skip, residual in zip(skips, added.down, strict=False)]
        middle, _ = unet.encode(sample, given)
        wanted = unet.decode(middle + added.mid, skips, given)
        seen = unet(*inputs(unet), added, "published")
        torch.testing.assert_close(seen, wanted, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(seen, unet(*inputs(unet), added), atol=1e-3)


def test_saved_and_loaded_it_is_the_same(unet: ControlledUNet, trained: DepthControlNet, tmp_path: Path) -> None:
    trained.save_pretrained(tmp_path)
    again = load_model(DepthControlNet, tmp_path, torch.float32, CPU)
    with torch.no_grad():
        wanted = run_controlled(unet, trained, inputs(unet), control())
        torch.testing.assert_close(run_controlled(unet, again, inputs(unet), control()), wanted, atol=1e-5, rtol=1e-5)


def test_the_public_layout_loads_strictly(trained: DepthControlNet, tmp_path: Path) -> None:
    """Its class name, its config fields; a missing tensor is an error that names it."""
    from safetensors.torch import load_file, save_file

    trained.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"_class_name": "ControlNetSDVModel", "_diffusers_version": "0.24.0.dev0"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    names = set(load_model(DepthControlNet, tmp_path, torch.float32, CPU).state_dict())
    for name in ("controlnet_cond_embedding.conv_in.weight", "controlnet_cond_embedding.blocks.0.weight"):
        assert name in names
    assert {"controlnet_down_blocks.0.weight", "controlnet_mid_block.bias", "add_embedding.linear_1.weight"} <= names
    weights = tmp_path / "diffusion_pytorch_model.safetensors"
    held = load_file(weights)
    del held["controlnet_mid_block.bias"]
    save_file(held, weights)
    with pytest.raises(ValueError, match="controlnet_mid_block.bias"):
        load_model(DepthControlNet, tmp_path, torch.float32, CPU)


def test_control_pixels_span_minus_one_to_one() -> None:
    frames = np.array([0, 255], np.uint8)[:, None, None, None].repeat(3, 3)
    pixels = control_pixels(frames)
    assert pixels.shape == (2, 3, 1, 1) and pixels.flatten().tolist() == [-1] * 3 + [1] * 3
    with pytest.raises(ValueError, match="float64"):
        control_pixels(frames / 255)


def test_what_does_not_fit_is_refused(unet: ControlledUNet, trained: DepthControlNet) -> None:
    with torch.no_grad():
        added = trained(*inputs(unet), control())
        with pytest.raises(ValueError, match="made for another one"):
            unet(*inputs(unet), added._replace(down=added.down[:-1]))
        with pytest.raises(ValueError, match="residuals: 'twice'"):
            unet(*inputs(unet), added, "twice")
