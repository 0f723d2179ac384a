"""Weights of a saved model under the other names that the hub's repositories have: half precision, shards."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save_file

INDEX_NAMES = {
    "": ("{stem}.safetensors.index.json",),
    "fp16": ("{stem}.safetensors.index.fp16.json", "{stem}.safetensors.fp16.index.json"),
}


def rename_fp16(checkpoint: Path) -> None:
    """Give every model of a checkpoint its fp16 name, and nothing else."""
    for path in model_files(checkpoint):
        path.rename(path.with_name(f"{path.stem}.fp16.safetensors"))


def shard(checkpoint: Path, variant: str = "", index: int = 0) -> None:
    """Split the weights of every model of a checkpoint into two files and an index.

    Args:
        checkpoint: A folder of models with one `.safetensors` each.
        variant: "" or `fp16`, for the names.
        index: Which of `INDEX_NAMES`.
    """
    for path in model_files(checkpoint):
        tensors = load_file(path)
        names = sorted(tensors)
        ending = f".{variant}" if variant else ""
        shards = [f"{path.stem}{ending}-{number:05d}-of-00002.safetensors" for number in (1, 2)]
        halves = (names[: len(names) // 2], names[len(names) // 2 :])
        for name, keys in zip(shards, halves, strict=True):
            save_file({key: tensors[key] for key in keys}, path.with_name(name), {"format": "pt"})
        held = {key: name for name, keys in zip(shards, halves, strict=True) for key in keys}
        total = sum(tensor.nbytes for tensor in tensors.values())
        text = json.dumps({"metadata": {"total_size": total}, "weight_map": held})
        path.with_name(INDEX_NAMES[variant][index].format(stem=path.stem)).write_text(text)
        path.unlink()


def model_files(checkpoint: Path) -> list[Path]:
    """The weights of a checkpoint's models."""
    stems = ("diffusion_pytorch_model", "model")
    return sorted(path for stem in stems for path in checkpoint.rglob(f"{stem}.safetensors"))
