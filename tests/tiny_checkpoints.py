"""Tiny random Stable Video Diffusion checkpoints, made of the real classes and laid out as diffusers saves them.

Nothing in them is trained, but every part of the network matters to what comes out: temporal mixing, time embeddings,
cross-attention and biases are all random and non-zero, and three output layers are rescaled on random data so that

- condition latents have the spread of SVD's (standard deviation 1 / `scaling_factor`),
- the UNet's v-prediction has unit spread,
- decoded pixels lie mostly inside (-1, 1), so that clipping hides nothing.
"""

# diffusers annotates its lazy exports, configurations and `return_dict` outputs too loosely to check.
# pyright: reportPrivateImportUsage=false, reportAttributeAccessIssue=false, reportArgumentType=false
from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import AutoencoderKLTemporalDecoder, UNetSpatioTemporalConditionModel
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

SCALING_FACTOR = 0.18215
EMBEDDING_DIM = 32
"""Width of the CLIP projection and of the UNet's cross-attention, which SVD keeps equal (1024)."""

DECODED_STD = 0.35
"""Target spread of decoded pixels: a few in a thousand reach the clipping at -1 and 1, so that it is tested too."""

SVD_SCHEDULER = {
    "_class_name": "EulerDiscreteScheduler",
    "_diffusers_version": "0.24.0.dev0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "set_alpha_to_one": False,
    "sigma_max": 700.0,
    "sigma_min": 0.002,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "timestep_type": "continuous",
    "trained_betas": None,
    "use_karras_sigmas": True,
}
"""SVD's own `scheduler_config.json`."""

SVD_FEATURE_EXTRACTOR = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 224},
}
"""SVD's own `preprocessor_config.json`."""

MODEL_INDEX = {
    "_class_name": "StableVideoDiffusionPipeline",
    "_diffusers_version": "0.24.0.dev0",
    "feature_extractor": ["transformers", "CLIPImageProcessor"],
    "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
    "scheduler": ["diffusers", "EulerDiscreteScheduler"],
    "unet": ["diffusers", "UNetSpatioTemporalConditionModel"],
    "vae": ["diffusers", "AutoencoderKLTemporalDecoder"],
}


def tiny_svd(
    folder: str | Path, seed: int = 0, layers_per_block: int = 1, block_out_channels: tuple[int, ...] = (32, 64)
) -> Path:
    """Write a whole tiny SVD checkpoint.

    Args:
        folder: Where to write; made if missing.
        seed: Seed of every weight.
        layers_per_block: Residual layers in each UNet block.
        block_out_channels: Widths of the UNet's blocks, multiples of 32; one entry per resolution.

    Returns:
        The folder.
    """
    folder = Path(folder)
    random_unet(seed, layers_per_block, block_out_channels).save_pretrained(folder / "unet")
    random_vae(seed + 1).save_pretrained(folder / "vae")
    random_image_encoder(seed + 2).save_pretrained(folder / "image_encoder")
    _write_json(folder / "scheduler" / "scheduler_config.json", SVD_SCHEDULER)
    _write_json(folder / "feature_extractor" / "preprocessor_config.json", SVD_FEATURE_EXTRACTOR)
    _write_json(folder / "model_index.json", MODEL_INDEX)
    return folder


def tiny_unet_only(folder: str | Path, base: str | Path, seed: int = 100, subfolder: str = "") -> Path:
    """Write a UNet alone, as ChronoDepth and DepthCrafter are published: a fine-tuned UNet for somebody else's SVD.

    Args:
        folder: Where to write; made if missing.
        base: SVD folder whose UNet configuration the new UNet shares; its weights are not used.
        seed: Seed of the weights.
        subfolder: "" for `config.json` and weights directly in `folder`, or "unet" for a folder in it.

    Returns:
        The folder.
    """
    config = UNetSpatioTemporalConditionModel.load_config(Path(base) / "unet")
    unet = UNetSpatioTemporalConditionModel.from_config(config)
    _randomise_unet(unet, seed)
    unet.save_pretrained(Path(folder) / subfolder)
    return Path(folder)


def random_unet(
    seed: int, layers_per_block: int = 1, block_out_channels: tuple[int, ...] = (32, 64)
) -> UNetSpatioTemporalConditionModel:
    """Make a UNet with cross-attention at every resolution but the lowest, as in SVD."""
    attending = len(block_out_channels) - 1
    unet = UNetSpatioTemporalConditionModel(
        sample_size=8,
        in_channels=8,
        out_channels=4,
        down_block_types=("CrossAttnDownBlockSpatioTemporal",) * attending + ("DownBlockSpatioTemporal",),
        up_block_types=("UpBlockSpatioTemporal",) + ("CrossAttnUpBlockSpatioTemporal",) * attending,
        block_out_channels=block_out_channels,
        layers_per_block=layers_per_block,
        cross_attention_dim=EMBEDDING_DIM,
        num_attention_heads=tuple(channels // 16 for channels in block_out_channels),
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=3 * 32,
        num_frames=5,
    )
    _randomise_unet(unet, seed)
    return unet


def random_vae(seed: int) -> AutoencoderKLTemporalDecoder:
    """Make a temporal-decoder VAE that downscales by 8, as SVD's."""
    vae = AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 32, 32, 32),  # 32 is the least that GroupNorm's 32 groups allow
        down_block_types=("DownEncoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        sample_size=64,
        scaling_factor=SCALING_FACTOR,
        force_upcast=True,
    ).eval()
    generator = _randomise(vae, seed)
    pixels = _smooth_noise(generator, frames=4)
    _rescale_output(vae.quant_conv, lambda: vae.encode(pixels).latent_dist.mode(), 1 / SCALING_FACTOR)
    latents = torch.randn(4, 4, 8, 8, generator=generator) / SCALING_FACTOR
    _rescale_output(vae.decoder.time_conv_out, lambda: vae.decode(latents, num_frames=4).sample, DECODED_STD)
    return vae


def random_image_encoder(seed: int) -> CLIPVisionModelWithProjection:
    """Make a CLIP vision tower for the 224-pixel images that SVD feeds to its own."""
    config = CLIPVisionConfig(
        image_size=224,
        patch_size=32,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=EMBEDDING_DIM,
    )
    encoder = CLIPVisionModelWithProjection(config).eval()
    generator = _randomise(encoder, seed)
    images = 2.0 * _smooth_noise(generator, frames=4, size=224)
    _rescale_output(encoder.visual_projection, lambda: encoder(images).image_embeds, 1.0)
    return encoder


def _randomise_unet(unet: UNetSpatioTemporalConditionModel, seed: int) -> None:
    unet.eval()
    generator = _randomise(unet, seed)
    batch, frames, size = 1, 4, 8
    sample = torch.randn(batch, frames, 8, size, size, generator=generator)
    embedding = torch.randn(batch, 1, EMBEDDING_DIM, generator=generator)
    time_ids = torch.tensor([[6.0, 127.0, 0.0]])
    _rescale_output(unet.conv_out, lambda: unet(sample, 0.5, embedding, time_ids).sample, 1.0)


def _randomise(module: nn.Module, seed: int) -> torch.Generator:
    """Draw every parameter, the ones that start at zero or one included; returns the generator for further draws."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            normal = torch.randn(parameter.shape, generator=generator)
            if name.endswith("mix_factor"):
                parameter.copy_(normal)  # the mixing weight is sigmoid(mix_factor): neither path vanishes
            elif parameter.ndim >= 2:
                fan_in = math.prod(parameter.shape[1:])
                parameter.copy_(normal / math.sqrt(fan_in))
            elif "norm" in name and name.endswith("weight"):
                parameter.copy_(1.0 + 0.2 * normal)
            else:
                parameter.copy_(0.2 * normal)
    return generator


@torch.no_grad()
def _rescale_output(layer: nn.Module, output: Callable[[], Tensor], std: float) -> None:
    """Scale the linear `layer` that ends a network so that `output()` gets standard deviation `std`."""
    ratio = std / output().std()
    for parameter in layer.parameters():
        parameter.mul_(ratio)


def _smooth_noise(generator: torch.Generator, frames: int, size: int = 64) -> Tensor:
    """Images of soft coloured blobs, `[frames, 3, size, size]` in [-1, 1]."""
    coarse = torch.rand(frames, 3, 8, 8, generator=generator) * 2 - 1
    return nn.functional.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)


def _write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
