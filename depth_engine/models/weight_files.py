"""How the files of a model are named: the one place that knows. Names only; nothing here reads a tensor.

diffusers and transformers write the weights of a model as STEM.safetensors, or as shards with an index that says which
shard holds which tensor; a variant such as fp16 puts its name into each of them. Older versions put it elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from depth_engine.models.safetensors_header import read_shapes
from depth_engine.plain_data import read_json

WEIGHTS_STEM = "diffusion_pytorch_model"
"""Stem of the weights of diffusers' models."""
TRANSFORMERS_STEM = "model"
"""Stem of the weights of transformers' models: image and text encoders."""
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
# Full precision first.
_VARIANTS = ("", "fp16", "bf16")


@dataclass(frozen=True)
class Weights:
    """The weights of one model on disk.

    Attributes:
        variant: `fp16` or `bf16` as in the file names, or None for full precision.
        files: One file, or the shards in order.
    """

    variant: str | None
    files: list[Path]


@dataclass(frozen=True)
class ModelPlace:
    """Where a model lies in a checkpoint's folder.

    Attributes:
        folders: Folders in the checkpoint's that it may lie in, "" is that itself; the first that is there is meant.
        stem: `WEIGHTS_STEM` or `TRANSFORMERS_STEM`.
        if_listed: Needed only where `model_index.json` names it.
    """

    folders: tuple[str, ...] = ("",)
    stem: str = WEIGHTS_STEM
    if_listed: bool = False

    def find(self, checkpoint: Path) -> Path:
        """The model's folder in a checkpoint's folder."""
        found = (checkpoint / folder for folder in self.folders if folder and (checkpoint / folder).is_dir())
        return next(found, checkpoint if "" in self.folders else checkpoint / self.folders[0])


def find_weights(folder: Path, stem: str) -> Weights:
    """The weights of a model: full precision before half, one file before shards; the first that is whole.

    Args:
        folder: The model's own folder.
        stem: `WEIGHTS_STEM` or `TRANSFORMERS_STEM`.

    Raises:
        ValueError: There are none, a shard is missing, or there is only a pickle.
    """
    faults = []
    for variant in _VARIANTS:
        single = folder / _single(stem, variant)
        if single.is_file():
            return Weights(variant or None, [single])
        index = next((path for name in _indices(stem, variant) if (path := folder / name).is_file()), None)
        if index is not None:
            try:
                return Weights(variant or None, _shards(index))
            except ValueError as error:  # another variant may be whole
                faults.append(str(error))
    if faults:
        raise ValueError(faults[0])
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        raise ValueError(
            f"model: {folder / pickles[0]} is a pickle, which can run code when read; accepted: {stem}.safetensors"
        )
    raise ValueError(f"model: {stem}.safetensors is missing in {folder}")


def weight_files(folder: Path, stem: str) -> list[Path]:
    """The files of `find_weights`."""
    return find_weights(folder, stem).files


def check_model(checkpoint: Path, place: ModelPlace) -> None:
    """See that a model's config and weights are there, and whole.

    Args:
        checkpoint: The checkpoint's folder.
        place: Where the model lies in it.

    Raises:
        ValueError: One is missing, or a file of weights is cut off.
    """
    if place.if_listed and place.folders[0] not in listed_parts(checkpoint):
        return
    folder = place.find(checkpoint)
    if not (folder / "config.json").is_file():
        raise ValueError(f"model: config.json is missing in {folder}")
    for path in weight_files(folder, place.stem):
        read_shapes(path)


def listed_parts(checkpoint: Path) -> set[str]:
    """Parts that a pipeline's `model_index.json` says it has; none where there is no such file."""
    index = checkpoint / "model_index.json"
    entries = read_json(index) if index.is_file() else {}
    return {name for name, entry in entries.items() if isinstance(entry, list) and entry and entry[0] is not None}


def wanted_files(names: Collection[str], places: Collection[ModelPlace]) -> list[str]:
    """Which files of a repository to download for some models: repositories hold the same weights several times over.

    Args:
        names: All files of the repository.
        places: The models; those that the repository does not hold are passed over.

    Returns:
        For each model its config and one set of weights: full precision before half, one file before shards.
    """
    wanted = []
    for place in places:
        for folder in place.folders:
            own = {name.rpartition("/")[2]: name for name in names if name.rpartition("/")[0] == folder}
            weights = _listed_weights(own, place.stem)
            if weights:
                wanted += [own[name] for name in ("config.json", *weights) if name in own]
                break
    return wanted


def _listed_weights(names: Collection[str], stem: str) -> list[str]:
    """The weight files to take among a folder's names."""
    for variant in _VARIANTS:
        single = _single(stem, variant)
        if single in names:
            return [single]
        index = next((name for name in _indices(stem, variant) if name in names), None)
        if index is not None:
            return [index, *sorted(name for name in names if _is_shard(name, stem, variant))]
    return []


def _single(stem: str, variant: str) -> str:
    return f"{stem}.{variant}.safetensors" if variant else f"{stem}.safetensors"


def _indices(stem: str, variant: str) -> list[str]:
    """Names that the index of shards may have; the first is today's."""
    if not variant:
        return [f"{stem}.safetensors.index.json"]
    return [
        f"{stem}.safetensors.index.{variant}.json",
        f"{stem}.safetensors.{variant}.index.json",
    ]


def _is_shard(name: str, stem: str, variant: str) -> bool:
    number = r"-\d+-of-\d+"
    middle = rf"(\.{variant}{number}|{number}\.{variant})" if variant else number
    return re.fullmatch(rf"{re.escape(stem)}{middle}\.safetensors", name) is not None


def _shards(index: Path) -> list[Path]:
    names = read_json(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ValueError(f"model: {index} has no weight_map, which names the file of each tensor")
    shards = sorted({index.parent / str(name) for name in names.values()})
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing:
        raise ValueError(f"model: {', '.join(missing)} missing in {index.parent}")
    return shards
