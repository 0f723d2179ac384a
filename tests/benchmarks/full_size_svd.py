"""The real SVD shapes, once, on a CPU: about 1.5 B parameters with random weights, one small window, peak memory.

    python -m tests.benchmarks.full_size_svd [--frames 2] [--height 64] [--width 64] [--narrow]

Proves that the per-frame UNet, the VAE codec and the sampler take the published configuration; says nothing of quality.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLTemporalDecoder

from depth_engine.engine import DepthEngine
from depth_engine.models.loading import CheckpointFiles
from depth_engine.models.svd.checkpoint import SvdCheckpoint
from depth_engine.models.svd.codec import VaeCodec
from depth_engine.models.svd.embed import ConstantEmbedder
from depth_engine.models.svd.model import SvdModel
from depth_engine.models.svd.spec import CHRONODEPTH
from depth_engine.models.svd.unet import DepthUNet
from tests.tiny_checkpoints import SVD_SCHEDULER

# stabilityai/stable-video-diffusion-img2vid-xt: unet/config.json and vae/config.json
UNET = {
    "sample_size": 96,
    "in_channels": 8,
    "out_channels": 4,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "cross_attention_dim": 1024,
    "transformer_layers_per_block": 1,
    "num_attention_heads": (5, 10, 20, 20),
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 768,
    "num_frames": 25,
}
VAE = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 768,
    "scaling_factor": 0.18215,
    "force_upcast": True,
}


def narrowed(config: dict) -> dict:
    """The same layers at about a tenth of the width, as small as group normalisation over 32 groups allows."""
    widths = tuple(max(32, round(width / 320) * 32) for width in config["block_out_channels"])
    heads = {"num_attention_heads": tuple(width // 32 for width in widths)} if "num_attention_heads" in config else {}
    return {**config, "block_out_channels": widths, **heads}


def random_model(model_class: type, config: dict) -> torch.nn.Module:
    """A model with small random weights, in bfloat16 from the start so that memory holds it once."""
    with torch.device("meta"):
        model = model_class(**config)
    torch.nn.Module.to(model, torch.bfloat16)  # past diffusers' own `to`, which only warns
    model = model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.02, generator=generator)
    return model.eval().requires_grad_(False)


def one_window(unet: torch.nn.Module, vae: torch.nn.Module, frames: int, height: int, width: int) -> np.ndarray:
    """Depth `[frames, height, width]` of noise, by ChronoDepth's spec in one step; no file of weights is needed."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        (base / "scheduler").mkdir()
        (base / "scheduler" / "scheduler_config.json").write_text(json.dumps(SVD_SCHEDULER))
        files = CheckpointFiles(name="random SVD", spec=CHRONODEPTH, unet=base, base=base)
        codec = VaeCodec(vae, CHRONODEPTH.scale_condition, CHRONODEPTH.to_depth)  # type: ignore[arg-type]
        embedder = ConstantEmbedder(torch.zeros(unet.config.cross_attention_dim))  # type: ignore[union-attr]
        model = SvdModel(files, unet, codec, embedder, torch.device("cpu"))  # type: ignore[arg-type]
        engine = DepthEngine(SvdCheckpoint(files), model)
        noise = np.random.default_rng(0).integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
        return np.stack(list(engine.stream(noise, shots=False, steps=1, window=frames, stride=1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=2)
    parser.add_argument("--height", type=int, default=64)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--narrow", action="store_true", help="a tenth of the width: tries this program alone")
    args = parser.parse_args()

    began = time.monotonic()
    size = narrowed if args.narrow else dict
    unet, vae = random_model(DepthUNet, size(UNET)), random_model(AutoencoderKLTemporalDecoder, size(VAE))
    parameters = {name: sum(p.numel() for p in model.parameters()) for name, model in (("UNet", unet), ("VAE", vae))}
    for name, count in parameters.items():
        print(f"{name}: {count / 1e9:.3f} B parameters, {count * 2 / 2**30:.2f} GiB in bfloat16")
    print(f"built in {time.monotonic() - began:.0f} s")

    began = time.monotonic()
    values = one_window(unet, vae, args.frames, args.height, args.width)
    print(f"one window of {args.frames} frames {args.width}x{args.height}, 1 step: {time.monotonic() - began:.1f} s")
    print(f"depth {values.shape} {values.dtype}, finite: {bool(np.isfinite(values).all())}")
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"peak memory {peak_kib / 2**20:.2f} GiB; weights alone {sum(parameters.values()) * 2 / 2**30:.2f} GiB")


if __name__ == "__main__":
    main()
