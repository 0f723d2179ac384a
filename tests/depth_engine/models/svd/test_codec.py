from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLTemporalDecoder
from hypothesis import given, settings
from hypothesis import strategies as st

from depth_engine.models.resize import fit_size
from depth_engine.models.svd.codec import ChunkedDecoder, PatchCodec, VaeCodec, to_pixels


@pytest.fixture(scope="module")
def vae(svd_folder: Path) -> AutoencoderKLTemporalDecoder:
    return AutoencoderKLTemporalDecoder.from_pretrained(svd_folder / "vae").eval()  # type: ignore[return-value]


@pytest.mark.parametrize("patch", [1, 2, 4, 8])
def test_patch_codec_is_lossless(patch: int) -> None:
    codec = PatchCodec(patch)
    depth = torch.rand(3, 16, 24) * 2 - 1
    latents = codec.encode_depth(depth)
    assert latents.shape == (3, codec.depth_channels, 16 // patch, 24 // patch)
    assert torch.equal(codec.decode_pixels(latents), depth)
    assert torch.equal(codec.decode_depth(latents), depth / 2 + 0.5)
    rgb = torch.rand(2, 3, 16, 24)
    assert codec.encode_rgb(rgb).shape == (2, codec.condition_channels, 16 // patch, 24 // patch)
    assert torch.equal(torch.pixel_shuffle(codec.encode_rgb(rgb), patch), rgb)


@torch.inference_mode()
def test_vae_codec_scales_as_the_spec_says(vae: AutoencoderKLTemporalDecoder) -> None:
    rgb = torch.rand(2, 3, 64, 64) * 2 - 1
    plain = VaeCodec(vae, scale_condition=False, to_depth="clip_then_mean").encode_rgb(rgb)
    scaled = VaeCodec(vae, scale_condition=True, to_depth="clip_then_mean").encode_rgb(rgb)
    whole = vae.encode(rgb).latent_dist.mode()  # type: ignore[union-attr]
    # Convolutions of one frame and of two may add up in another order: a share of the largest latent, not of each.
    assert (plain - whole).abs().max() <= 1e-5 * whole.abs().max()
    assert torch.equal(scaled, plain * vae.config.scaling_factor)  # type: ignore[attr-defined]


@torch.inference_mode()
def test_vae_depth_order_of_mean_and_clip(vae: AutoencoderKLTemporalDecoder) -> None:
    latents = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0)) * 3  # far enough to clip
    factor = vae.config.scaling_factor  # type: ignore[attr-defined]
    pixels = vae.decode(latents / factor, num_frames=3).sample  # type: ignore[union-attr]
    first_mean = VaeCodec(vae, False, "mean_then_clip").decode_depth(latents)
    first_clip = VaeCodec(vae, False, "clip_then_mean").decode_depth(latents)
    assert torch.allclose(first_mean, (pixels.mean(1).clamp(-1, 1) + 1) / 2, atol=1e-6)
    assert torch.allclose(first_clip, (pixels / 2 + 0.5).clamp(0, 1).mean(1), atol=1e-6)
    assert not torch.allclose(first_mean, first_clip, atol=1e-3)


def test_half_precision_vae_that_overflows_is_run_wide(svd_folder: Path) -> None:
    half = AutoencoderKLTemporalDecoder.from_pretrained(svd_folder / "vae").half()
    codec = VaeCodec(half, False, "mean_then_clip")
    assert codec.vae.dtype == torch.float32


@torch.inference_mode()
def test_chunks_are_counted_from_the_first_frame_whatever_the_windows(vae: AutoencoderKLTemporalDecoder) -> None:
    codec = VaeCodec(vae, False, "mean_then_clip")
    latents = torch.randn(13, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = torch.cat([codec.decode_depth(part) for part in latents.split(4)])
    for sizes in ([13], [5, 5, 3], [1] * 13, [4, 4, 4, 1], [12, 1]):
        decoder = ChunkedDecoder(codec, chunk=4)
        done = [chunk for part in latents.split(sizes) for chunk in decoder.push(part)]
        assert torch.equal(torch.cat([*done, *decoder.flush()]), expected), sizes
        assert decoder.pending is None
    # The temporal decoder mixes frames, so other borders give another result: the test above can fail.
    assert not torch.allclose(torch.cat([codec.decode_depth(part) for part in latents.split(5)]), expected, atol=1e-4)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    multiple=st.sampled_from([8, 16, 64]),
    max_res=st.sampled_from([None, 64, 100, 256]),
)
def test_resize_is_an_inverse_pair(height: int, width: int, multiple: int, max_res: int | None) -> None:
    size = fit_size(height, width, multiple, max_res)
    small = size.shrink(torch.zeros(1, 3, height, width, dtype=torch.uint8))
    assert small.shape[-2] % multiple == small.shape[-1] % multiple == 0
    if max_res:
        assert max(small.shape[-2:]) <= max(max_res, multiple)
    assert size.restore(small[:, 0].float()).shape == (1, height, width)


def test_the_area_rule_shows_things_as_large_in_a_wide_picture_as_in_a_tall_one() -> None:
    sizes = [fit_size(*size, 16, None, 144 * 256) for size in ((1080, 1920), (1920, 1080), (480, 1800), (480, 640))]
    assert [(size.model_width, size.model_height) for size in sizes] == [(256, 144), (144, 256), (368, 96), (224, 160)]
    small = fit_size(64, 96, 16, None, 144 * 256)
    assert (small.model_height, small.model_width) == (64, 96)


def test_resize_leaves_fitting_frames_alone() -> None:
    frames = torch.randint(0, 256, (2, 3, 64, 128), dtype=torch.uint8)
    size = fit_size(64, 128, 64, None)
    assert torch.equal(size.shrink(frames), frames)
    assert torch.equal(size.restore(frames[:, 0].float()), frames[:, 0].float())


def test_resize_keeps_a_linear_ramp() -> None:
    ramp = torch.linspace(0, 1, 200)[None, None, :].expand(1, 120, 200)
    size = fit_size(120, 200, 16, 128)
    small = size.shrink(ramp[:, None].expand(-1, 3, -1, -1))[:, 0]
    back = size.restore(small)
    # Away from the borders, where bilinear weights are cut off, a ramp survives shrinking and growing.
    assert (back - ramp)[:, 8:-8, 8:-8].abs().max() < 5e-3


def test_pixel_range() -> None:
    bytes_rgb = torch.tensor([0, 255], dtype=torch.uint8).reshape(1, 1, 1, 2).expand(1, 3, 1, 2)
    assert torch.equal(to_pixels(bytes_rgb)[0, 0, 0], torch.tensor([-1.0, 1.0]))
    assert torch.equal(to_pixels(torch.tensor([0.0, 0.5])), torch.tensor([-1.0, 0.0]))
