"""The spatial half of the UNet against the whole one."""

from __future__ import annotations

import pytest
import torch
from depth_train.config_files import load_config
from depth_train.optim.spatial import silence_temporal, spatial_only
from depth_train.tasks.start import build_unet
from torch import Tensor

from depth_engine.models.svd.unet import DepthUNet


@pytest.fixture
def unet() -> DepthUNet:
    torch.manual_seed(0)
    return build_unet(load_config("smoke"))


def inputs() -> tuple[Tensor, ...]:
    sample = torch.randn(2, 3, 64, 8, 8, generator=torch.Generator().manual_seed(1))
    return sample, torch.full((2, 3), 1.1), torch.zeros(2, 1, 32), torch.tensor([[6.0, 127.0, 0.0]]).repeat(2, 1)


@torch.no_grad()
def test_spatial_only_is_what_the_blenders_do_for_images(unet: DepthUNet) -> None:
    whole = unet(*inputs())
    for name, parameter in unet.named_parameters():
        if name.endswith("mix_factor"):
            parameter.fill_(1e4)  # sigmoid -> 1: the spatial branch alone
    expected = unet(*inputs())
    with spatial_only(unet):
        assert torch.allclose(unet(*inputs()), expected, atol=1e-5)
    assert torch.equal(unet(*inputs()), expected), "the temporal layers are back"
    assert not torch.allclose(whole, expected, atol=1e-3), "they do something"


def test_temporal_layers_get_no_gradient_while_they_are_out(unet: DepthUNet) -> None:
    names = list(unet.state_dict())
    with spatial_only(unet):
        unet(*inputs()).square().mean().backward()
    assert list(unet.state_dict()) == names
    for name, parameter in unet.named_parameters():
        if "temporal" in name or "time_mixer" in name:
            assert parameter.grad is None, name


@torch.no_grad()
def test_a_silenced_unet_is_its_spatial_half(unet: DepthUNet) -> None:
    silence_temporal(unet)
    whole = unet(*inputs())
    with spatial_only(unet):
        assert torch.allclose(unet(*inputs()), whole, atol=1e-5)
    assert whole.abs().max() > 0.1


def test_modules_come_back_after_an_error(unet: DepthUNet) -> None:
    names = list(unet.state_dict())
    with pytest.raises(KeyError), spatial_only(unet):
        raise KeyError
    assert list(unet.state_dict()) == names
