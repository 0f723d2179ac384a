"""The network of Video Depth Anything, held against its public layout and against plain formulae."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from depth_engine.models.video_depth_anything.architecture import Architecture, architecture_of, faults
from depth_engine.models.video_depth_anything.loading import empty_network, load_network
from depth_engine.models.video_depth_anything.network import TemporalAttention, VideoDepthNetwork
from tests.tiny_video_depth import BASE, LARGE, SMALL, TINY, Sizes, public_shapes, public_tensors, tiny_video_depth

CPU = torch.device("cpu")


def loaded(folder: Path, tensors: dict[str, torch.Tensor]) -> VideoDepthNetwork:
    save_file(tensors, folder / "changed.safetensors")
    return load_network(folder / "changed.safetensors", torch.float32, CPU)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> VideoDepthNetwork:
    return load_network(tiny_video_depth(tmp_path_factory.mktemp("vda") / "tiny.safetensors"), torch.float32, CPU)


@pytest.fixture
def frames() -> torch.Tensor:
    return torch.randn(5, 3, 28, 42, generator=torch.Generator().manual_seed(1))


# Parameters that the authors state, in millions: without learnt places, and without what nothing uses.
@pytest.mark.parametrize(("sizes", "millions"), [(SMALL, 28.4), (BASE, 113.1), (LARGE, 381.8)])
def test_public_checkpoints_fit(sizes: Sizes, millions: float) -> None:
    shapes = public_shapes(sizes)
    passed_over = ("pos_encoder.pe", "pos_embed", "mask_token", "refinenet4.resConfUnit1")
    counted = [math.prod(shape) for name, shape in shapes.items() if not any(part in name for part in passed_over)]
    assert round(sum(counted) / 1e6, 1) == millions
    architecture = architecture_of(shapes, "file")
    assert architecture == Architecture(*sizes)
    own = {name: [*tensor.shape] for name, tensor in empty_network(architecture).state_dict().items()}
    assert faults(own, {name: [*shape] for name, shape in shapes.items()}) == []


def test_tensors_that_do_not_fit_are_named(tmp_path: Path) -> None:
    tensors = public_tensors()
    tensors["pretrained.blocks.3.attn.qkv.weight"] = torch.zeros(64, 64)
    del tensors["head.scratch.output_conv1.bias"]
    tensors["head.extra"] = torch.zeros(1)
    with pytest.raises(ValueError) as refused:
        loaded(tmp_path, tensors)
    for text in (
        "head.scratch.output_conv1.bias is missing",
        "head.extra is surplus",
        "pretrained.blocks.3.attn.qkv.weight has shape [64, 64], expected [192, 64]",
    ):
        assert text in str(refused.value)


def test_another_network_is_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no Video Depth Anything: pretrained.cls_token is missing"):
        loaded(tmp_path, {"weight": torch.zeros(1)})


def test_what_nothing_uses_may_be_missing(tmp_path: Path, network: VideoDepthNetwork, frames: torch.Tensor) -> None:
    unused = ("mask_token", "refinenet4.resConfUnit1")
    tensors = {name: held for name, held in public_tensors().items() if not any(part in name for part in unused)}
    assert torch.equal(loaded(tmp_path, tensors)(frames), network(frames))


def test_batch_changes_nothing(network: VideoDepthNetwork, frames: torch.Tensor) -> None:
    whole = network(frames, batch=5)
    assert whole.shape == (5, 28, 42) and whole.min() >= 0 and whole.std() > 0.1
    assert torch.allclose(network(frames, batch=2), whole, atol=1e-5)


def test_every_frame_sees_every_other(network: VideoDepthNetwork, frames: torch.Tensor) -> None:
    other = frames.clone()
    other[4] += 1
    changed = (network(other) - network(frames)).abs().amax((1, 2))
    assert (changed > 1e-3).all()


def test_time_comes_in_by_the_temporal_layers_alone(
    tmp_path: Path, network: VideoDepthNetwork, frames: torch.Tensor
) -> None:
    """Their last projection at zero, as training begins, leaves a network of single frames."""
    tensors = public_tensors()
    for name in tensors:
        if "temporal_transformer.proj_out" in name:
            tensors[name] = torch.zeros_like(tensors[name])
    still = loaded(tmp_path, tensors)
    alone = torch.cat([still(frame[None]) for frame in frames])
    assert torch.allclose(still(frames), alone, atol=1e-5)
    assert not torch.allclose(network(frames), torch.cat([network(frame[None]) for frame in frames]), atol=1e-2)


def test_temporal_attention_by_its_formula() -> None:
    torch.manual_seed(0)
    channels, count = 32, 6
    layer = TemporalAttention(channels)
    tracks = torch.randn(1, count, channels)
    place, channel = torch.arange(count)[:, None], torch.arange(channels)
    angles = place / 10000 ** ((channel - channel % 2) / channels)
    placed = tracks[0] + torch.where(channel % 2 == 0, angles.sin(), angles.cos())
    query, key, value = (placed @ part.weight.T for part in (layer.query, layer.key, layer.value))
    seen = torch.zeros(count, channels)
    for head in range(8):
        of_head = slice(4 * head, 4 * head + 4)
        for now in range(count):
            scores = torch.stack([query[now, of_head] @ key[then, of_head] / 2 for then in range(count)])
            shares = scores.exp() / scores.exp().sum()
            seen[now, of_head] = sum(shares[then] * value[then, of_head] for then in range(count))
    expected = seen @ layer.out.weight.T + layer.out.bias
    assert torch.allclose(layer(tracks)[0], expected, atol=1e-5)


def test_places_are_stretched_as_in_training(tmp_path: Path) -> None:
    """A learnt grid that rises evenly is read where the stretched grid's points lie: (i + .5) 37 / (n + .1) - .5."""
    tensors = public_tensors()
    rows = torch.arange(37.0)[:, None].expand(37, 37).flatten()
    tensors["pretrained.pos_embed"][0, 1:] = rows[:, None]
    height, width = 10, 20
    places = loaded(tmp_path, tensors).encoder._places(14 * height, 14 * width)
    assert torch.equal(places[:, 0], tensors["pretrained.pos_embed"][:, 0])
    read = places[0, 1:, 0].reshape(height, width)
    expected = (torch.arange(height) + 0.5) * 37 / (height + 0.1) - 0.5
    # Cubic weights bend a straight line by a few hundredths; a scale of 37 / n would be off by 0.3.
    assert torch.allclose(read[1:-1, 5], expected[1:-1], atol=0.05)
    trained = loaded(tmp_path, tensors).encoder._places(518, 518)
    assert torch.equal(trained, tensors["pretrained.pos_embed"]), "at the size of training they are taken as they are"


def test_four_blocks_are_looked_at() -> None:
    assert Architecture(*TINY).taken == (2, 5, 8, 11)
    assert Architecture(*LARGE).taken == (4, 11, 17, 23)
