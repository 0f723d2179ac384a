from __future__ import annotations

import pytest
import torch
from depth_train.config_files import load_config
from depth_train.optim.precision import TemporalConv, computes_bfloat16, convolve_time_in_2d
from depth_train.tasks.start import build_unet
from torch import nn


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_convolution_over_time_is_the_same_in_two_axes(frames: int) -> None:
    torch.manual_seed(0)
    plain = nn.Conv3d(8, 12, (3, 1, 1), padding=(1, 0, 0))
    other = nn.Sequential(nn.Conv3d(8, 12, (3, 1, 1), padding=(1, 0, 0)))
    other[0].load_state_dict(plain.state_dict())
    convolve_time_in_2d(other)
    clip = torch.randn(2, 8, frames, 5, 6)
    assert isinstance(other[0], TemporalConv)
    assert torch.allclose(plain(clip), other(clip), atol=1e-6)
    gradients = []
    for layer in (plain, other[0]):
        gradients += torch.autograd.grad(layer(clip).square().sum(), [layer.weight])  # type: ignore[list-item]
    assert torch.allclose(*gradients, atol=1e-3)


def test_every_temporal_convolution_is_met_and_keeps_its_name() -> None:
    unet = build_unet(load_config("smoke"))
    names = list(unet.state_dict())
    convolve_time_in_2d(unet)
    assert list(unet.state_dict()) == names
    convolutions = [module for module in unet.modules() if isinstance(module, nn.Conv3d)]
    assert convolutions and all(isinstance(module, TemporalConv) for module in convolutions)


def test_bfloat16_is_left_where_the_cpu_emulates_it() -> None:
    emulated = torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")
    if emulated:
        with pytest.warns(UserWarning, match="computing in float32"):
            assert not computes_bfloat16("bfloat16", torch.device("cpu"))
    else:
        assert computes_bfloat16("bfloat16", torch.device("cpu"))
    assert computes_bfloat16("bfloat16", torch.device("cuda"))
    assert not computes_bfloat16("float32", torch.device("cuda"))
