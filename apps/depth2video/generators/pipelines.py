"""What the diffusers pipelines have in common here: strict loading, placement, and pictures in and out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from depth2video.generators.single_file import load_from_single_file
from depth_engine.models.loading import check_no_faults, load_transformer
from depth_engine.models.weight_files import WEIGHTS_STEM, find_weights

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image


def load_part(part_class: Any, folder: Path, subfolder: str = "", *, dtype: torch.dtype) -> Any:
    """Load a model of diffusers or transformers from safetensors; every tensor must be there.

    Published checkpoints hold names of older versions, which the libraries translate, so theirs is the loading.

    Args:
        part_class: Its class.
        folder: Local folder, or a single file in the layout of its authors.
        subfolder: Folder in it, or model in the file.
        dtype: To compute in.

    Raises:
        ValueError: The config is missing, there are no safetensors, or tensors are missing or misshapen.
    """
    if folder.is_file():
        return load_from_single_file(part_class, folder, subfolder, dtype).eval().requires_grad_(False)
    at = folder / subfolder
    if not (at / "config.json").is_file():
        raise ValueError(f"model: {at / 'config.json'} is missing; give a folder as diffusers saves it")
    try:
        if not part_class.__module__.startswith("diffusers."):
            model, found = load_transformer(part_class, at, dtype)
        else:
            model, found = part_class.from_pretrained(
                folder,
                subfolder=subfolder or None,
                variant=find_weights(at, WEIGHTS_STEM).variant,
                use_safetensors=True,
                local_files_only=True,
                torch_dtype=dtype,
                output_loading_info=True,
            )
    except OSError as error:
        raise ValueError(f"model: {at} can't be loaded ({' '.join(str(error).split())})") from error
    faults = [f"{key} is missing" for key in found["missing_keys"]]
    faults += [
        f"{entry[0]} has shape {list(entry[1])}, expected {list(entry[2])}" for entry in found["mismatched_keys"]
    ]
    check_no_faults(at, sorted(faults))
    return model.eval().requires_grad_(False)


def place(pipe: Any, device: torch.device, offload: str) -> None:
    """Put a pipeline where it computes, and silence it.

    Args:
        pipe: A diffusers pipeline.
        device: Where it computes.
        offload: `none`, `model` or `sequential`.
    """
    pipe.set_progress_bar_config(disable=True)
    if offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif offload == "sequential":
        pipe.enable_sequential_cpu_offload(device=device)
    else:
        pipe.to(device)


def pictures(frames: Iterable[np.ndarray]) -> list[Image]:
    """uint8 `[H, W, 3]` frames as pictures, which is what pipelines take."""
    from PIL import Image

    return [Image.fromarray(frame) for frame in frames]


def to_frames(pixels: torch.Tensor) -> np.ndarray:
    """Pixels around [-1, 1], `[n, 3, H, W]` -> uint8 `[n, H, W, 3]`."""
    unit = (pixels.float() / 2 + 0.5).clamp(0, 1)
    return (unit * 255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
