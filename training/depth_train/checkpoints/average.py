"""The mean of several checkpoints' weights (model soups, arXiv 2203.05482)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from depth_engine.models.loading import CheckpointFiles, resolve_checkpoint
from depth_engine.models.weight_files import WEIGHTS_STEM, weight_files
from depth_engine.plain_data import read_json
from depth_engine.runs.atomic import part_path, publish, refuse_existing
from depth_train.checkpoints.state import STATE_FOLDER

RECORD = "average.json"
# How a checkpoint is best run, which its weights do not depend on: checkpoints may differ in that.
_ADVICE = ("context_c_noise", "sampler", "strategy", "window", "stride", "steps", "max_res", "area_px", "flow")


def average_checkpoints(folders: Sequence[Path], output: Path, *, overwrite: bool = False) -> None:
    """Write a checkpoint whose UNet is the mean of others; all else is the first one's.

    `average.json` in it names the SHA-256 of the weights that went in.

    Args:
        folders: Checkpoints of one architecture, two or more; worth it only for runs that began at the same one.
        output: Checkpoint folder to write.
        overwrite: Replace a folder that exists.

    Raises:
        ValueError: Fewer than two, or they differ in more than their weights and in how they are best run.
        FileNotFoundError: No such folder.
        FileExistsError: The output exists and `overwrite` is off.
    """
    if len(folders) < 2:
        raise ValueError(f"checkpoints: {len(folders)} given; give two or more")
    refuse_existing(output, overwrite)
    found = [resolve_checkpoint(folder) for folder in folders]
    for other in found[1:]:
        _check_alike(found[0], other)
    mean = _mean_weights(found)
    part = part_path(output)
    try:
        shutil.copytree(
            folders[0], part, ignore=shutil.ignore_patterns(STATE_FOLDER, "train_config.json", "*.safetensors*")
        )
        _copy_other_weights(folders[0], found[0].unet, part)
        save_file(mean, part / found[0].unet.relative_to(folders[0]) / f"{WEIGHTS_STEM}.safetensors", {"format": "pt"})
        record = {"weights_sha256": [files.weights_sha256() for files in found]}
        (part / RECORD).write_text(json.dumps(record, indent=2) + "\n")
        publish(part, output, overwrite)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _check_alike(first: CheckpointFiles, other: CheckpointFiles) -> None:
    specs = [files.spec.to_json() for files in (first, other)]
    differing = [name for name in specs[0] if specs[0][name] != specs[1][name] and name not in _ADVICE]
    if differing:
        raise ValueError(
            f"checkpoints: {other.name} has {differing[0]} {specs[1][differing[0]]!r} in depth_engine.json, "
            f"{first.name} has {specs[0][differing[0]]!r}"
        )
    configs = [
        {name: value for name, value in read_json(files.unet / "config.json").items() if not name.startswith("_")}
        for files in (first, other)
    ]
    if configs[0] != configs[1]:
        raise ValueError(f"checkpoints: the UNet of {other.name} is built otherwise than that of {first.name}")


def _mean_weights(found: Sequence[CheckpointFiles]) -> dict[str, Tensor]:
    total: dict[str, Tensor] = {}
    kinds: dict[str, torch.dtype] = {}
    for files in found:
        weights = {
            name: tensor for path in weight_files(files.unet, WEIGHTS_STEM) for name, tensor in load_file(path).items()
        }
        if total and {name: tensor.shape for name, tensor in weights.items()} != {
            name: tensor.shape for name, tensor in total.items()
        }:
            raise ValueError(f"checkpoints: the tensors of {files.name} are not those of {found[0].name}")
        for name, tensor in weights.items():
            total[name] = total[name] + tensor.double() if name in total else tensor.double()
            kinds.setdefault(name, tensor.dtype)
    return {name: (tensor / len(found)).to(kinds[name]).contiguous() for name, tensor in total.items()}


def _copy_other_weights(folder: Path, unet: Path, part: Path) -> None:
    """Weights of the other parts, a VAE's say, as they are."""
    for path in folder.rglob("*.safetensors*"):
        if unet not in path.parents and STATE_FOLDER not in path.relative_to(folder).parts:
            shutil.copyfile(path, part / path.relative_to(folder))
