"""The image embedding that SVD's cross-attention asks for: of a zero image, per frame, or none."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from depth_engine.models.loading import CheckpointFiles, check_no_faults, load_transformer, model_sha256
from depth_engine.models.weight_files import TRANSFORMERS_STEM
from depth_engine.plain_data import read_json

if TYPE_CHECKING:
    from transformers import CLIPVisionModelWithProjection

# CLIP's own normalisation, for folders without a feature extractor (openai/clip-vit-*, preprocessor_config.json).
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class Embedder(Protocol):
    """Gives the embedding of frames, `[T, D]` float32, for RGB `[T, 3, H, W]` in [-1, 1]."""

    def __call__(self, rgb: Tensor) -> Tensor:
        """Embed frames."""
        ...


class ConstantEmbedder:
    """The same embedding for every frame.

    Args:
        embedding: `[D]`.
    """

    def __init__(self, embedding: Tensor) -> None:
        self.embedding = embedding

    def __call__(self, rgb: Tensor) -> Tensor:
        """Repeat the constant, `[T, D]`."""
        return self.embedding.to(rgb.device).expand(len(rgb), -1)


class ClipEmbedder:
    """CLIP embedding of each frame, as DepthCrafter takes it: SVD's antialiased resize, then CLIP's normalisation.

    Args:
        model: The vision tower.
        mean: Channel means of the feature extractor.
        std: Channel standard deviations of the feature extractor.
    """

    def __init__(self, model: CLIPVisionModelWithProjection, mean: Tensor, std: Tensor) -> None:
        self.model, self.mean, self.std = model, mean, std

    def __call__(self, rgb: Tensor) -> Tensor:
        """Embed `[T, 3, H, W]` in [-1, 1], frame by frame so that batching can't change a result; `[T, D]`."""
        from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import _resize_with_antialiasing

        side = self.model.config.image_size
        embeddings = []
        for frame in rgb.split(1):
            small = (_resize_with_antialiasing(frame.float(), (side, side)) + 1) / 2
            embeddings.append(embed_pixels(self.model, small, self.mean, self.std))
        return torch.cat(embeddings)


def embed_pixels(model: CLIPVisionModelWithProjection, pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Embedding `[T, D]` float32 of pixels `[T, 3, side, side]` in [0, 1]."""
    normalized = (pixels - mean.to(pixels)[:, None, None]) / std.to(pixels)[:, None, None]
    return model(normalized.to(model.device, model.dtype)).image_embeds.float()


def load_embedder(files: CheckpointFiles, width: int, device: torch.device, dtype: torch.dtype) -> Embedder:
    """The embedder that a checkpoint's spec asks for.

    Args:
        files: The checkpoint.
        width: D, the UNet's cross-attention width.
        device: Where frames are embedded.
        dtype: What the vision tower computes in.
    """
    if files.spec.embedding == "none":
        return ConstantEmbedder(torch.zeros(width))
    mean, std = _normalization(files.base)
    if files.spec.embedding == "per_frame":
        return ClipEmbedder(_load_clip(files.base / "image_encoder", dtype, device), mean, std)
    return ConstantEmbedder(_zero_image_embedding(files.base / "image_encoder", mean, std))


def cache_folder() -> Path:
    """Where computed constants are kept: `DEPTH_ENGINE_CACHE`, else the user's cache folder."""
    chosen = os.environ.get("DEPTH_ENGINE_CACHE")
    if chosen:
        return Path(chosen)
    from platformdirs import user_cache_path  # here: training from a bare checkout does without it

    return user_cache_path("depth-engine")


def _zero_image_embedding(folder: Path, mean: Tensor, std: Tensor) -> Tensor:
    """CLIP embedding of an all-zero image, `[D]`: computed once per weights, so that the tower need not be loaded."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file, save_file

    weights = model_sha256(folder, TRANSFORMERS_STEM)
    key = hashlib.sha256(f"{weights} {mean.tolist()} {std.tolist()}".encode()).hexdigest()
    cached = cache_folder() / "zero_image_embedding" / f"{key}.safetensors"
    with suppress(OSError, SafetensorError, KeyError):  # absent, or cut short by a full disk: computed anew
        return load_file(cached)["embedding"]
    model = _load_clip(folder, torch.float32, torch.device("cpu"))
    side = int(model.config.image_size)  # type: ignore[arg-type]
    embedding = embed_pixels(model, torch.zeros(1, 3, side, side), mean, std)[0]
    partial = cached.with_suffix(f".{os.getpid()}.partial")
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        save_file({"embedding": embedding.contiguous()}, partial)
        os.replace(partial, cached)
    except (OSError, SafetensorError):  # a read-only home or a full disk costs time at the next start, nothing else
        with suppress(OSError):
            partial.unlink(missing_ok=True)
    return embedding


def _normalization(base: Path) -> tuple[Tensor, Tensor]:
    config = base / "feature_extractor" / "preprocessor_config.json"
    data = read_json(config) if config.is_file() else {}
    return torch.tensor(data.get("image_mean", CLIP_MEAN)), torch.tensor(data.get("image_std", CLIP_STD))


def _load_clip(folder: Path, dtype: torch.dtype, device: torch.device) -> CLIPVisionModelWithProjection:
    from transformers import CLIPVisionModelWithProjection

    model, info = load_transformer(CLIPVisionModelWithProjection, folder, dtype)
    faults = [f"{key} is missing" for key in sorted(info["missing_keys"])]
    # Checkpoints from before transformers 4.31 carry position ids, a constant.
    faults += [f"{key} is surplus" for key in sorted(info["unexpected_keys"]) if not key.endswith("position_ids")]
    faults += [f"{fault[0]} has the wrong shape" for fault in sorted(info["mismatched_keys"])]
    check_no_faults(folder, faults)
    return model.to(device).eval().requires_grad_(False)
