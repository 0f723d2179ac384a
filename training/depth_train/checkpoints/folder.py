"""Checkpoint folders that the engine loads: written whole or not at all, the newest, the last few, the best."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from depth_engine.models.loading import CheckpointFiles
from depth_engine.models.weight_files import WEIGHTS_STEM
from depth_train.checkpoints.state import STATE_FOLDER

# What a checkpoint shares with the SVD it was trained from.
_BASE_PARTS = ("vae", "image_encoder", "feature_extractor")


def save_checkpoint(
    folder: Path,
    write: Callable[[Path, Path | None], None],
    *,
    write_state: Callable[[Path], None] | None = None,
    keep_as: Path | None = None,
    shares_base: bool = False,
) -> None:
    """Write a checkpoint folder. The old one stays until the new one is whole.

    Args:
        folder: Where.
        write: Writes the checkpoint into a folder that it makes; its second argument is an earlier checkpoint of the
            same run, whose copies of the base's files can be shared.
        write_state: Writes what `resume` needs into a folder within; None at the end of the run.
        keep_as: Where the folder that was there before goes; None: it is deleted.
        shares_base: The folder that is there now is of the same run.
    """
    partial, previous = _hidden(folder, "partial"), _hidden(folder, "previous")
    shutil.rmtree(partial, ignore_errors=True)
    write(partial, folder if shares_base and folder.exists() else None)
    if write_state is not None:
        write_state(partial / STATE_FOLDER)
    shutil.rmtree(previous, ignore_errors=True)  # left by a kill at the end of an earlier save
    if folder.exists():
        os.replace(folder, previous)
    os.replace(partial, folder)
    if keep_as is not None and previous.exists() and not keep_as.exists():
        shutil.rmtree(previous / STATE_FOLDER, ignore_errors=True)
        os.replace(previous, keep_as)
    shutil.rmtree(previous, ignore_errors=True)


def _hidden(folder: Path, what: str) -> Path:
    """A name beside a folder that nobody would choose."""
    return folder.with_name(f".{folder.name}.{what}")


def recover(folder: Path) -> None:
    """Undo half a replacement: a kill between two renames leaves the old checkpoint under its hidden name."""
    for path in (folder, best_folder(folder)):
        previous = _hidden(path, "previous")
        if previous.exists() and not path.exists():
            os.replace(previous, path)


def drop_kept(folder: Path) -> None:
    """Delete what an earlier run left beside its newest checkpoint, which stays until the next one is whole."""
    for path in kept_of(folder):
        if path != folder and (path / "train_config.json").is_file():
            shutil.rmtree(path)


def earlier_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints kept of this run, oldest first."""
    pattern = re.compile(re.escape(folder.name) + r"-step(\d+)")
    found = [(match, path) for path in folder.parent.iterdir() if (match := pattern.fullmatch(path.name))]
    return [path for _, path in sorted(found, key=lambda pair: int(pair[0][1]))]


def kept_of(folder: Path) -> list[Path]:
    """Everything that a run with this output left: the newest checkpoint, the earlier ones, the best."""
    found = [folder, *(earlier_checkpoints(folder) if folder.parent.is_dir() else ()), best_folder(folder)]
    return [path for path in found if path.exists()]


def drop_earlier(folder: Path, keep: int) -> None:
    """Delete all but the last few of the earlier checkpoints; a run that keeps none deletes none."""
    held = earlier_checkpoints(folder)
    for path in held[: max(0, len(held) - keep)] if keep else ():
        shutil.rmtree(path)


def best_folder(folder: Path) -> Path:
    """Where the checkpoint with the best held-out score is kept."""
    return folder.with_name(folder.name + "-best")


def keep_best(folder: Path, abs_rel: float) -> bool:
    """Keep a copy of a checkpoint if its score is the best so far; says whether it was."""
    best = best_folder(folder)
    score = best / "validation.json"
    if not math.isfinite(abs_rel) or (score.is_file() and json.loads(score.read_text())["abs_rel"] <= abs_rel):
        return False
    partial, previous = _hidden(best, "partial"), _hidden(best, "previous")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(folder, partial, copy_function=_link, ignore=shutil.ignore_patterns(STATE_FOLDER))
    (partial / "validation.json").write_text(json.dumps({"abs_rel": abs_rel}) + "\n")
    shutil.rmtree(previous, ignore_errors=True)
    if best.exists():
        os.replace(best, previous)
    os.replace(partial, best)
    shutil.rmtree(previous, ignore_errors=True)
    return True


def save_half(model: nn.Module, folder: Path) -> None:
    """Write a model's config and its weights in float16, in diffusers' layout."""
    folder.mkdir(parents=True)
    half = {key: value.detach().half().cpu().contiguous() for key, value in model.state_dict().items()}
    save_file(half, folder / f"{WEIGHTS_STEM}.safetensors", metadata={"format": "pt"})
    model.save_config(folder)  # type: ignore[operator]


def copy_base(base: CheckpointFiles, folder: Path, earlier: Path | None) -> None:
    """Copy the parts of an SVD that a depth checkpoint shares with it.

    Args:
        base: The SVD.
        folder: The checkpoint.
        earlier: An earlier checkpoint of the same run, whose copies can be shared.
    """
    # Copied once: a file of the base that is changed in place must not change what was trained from it.
    own = earlier if earlier is not None and (earlier / "vae").is_dir() else None
    for part in _BASE_PARTS:
        if (base.base / part).is_dir():
            source, copy = (own / part, _link) if own else (base.base / part, shutil.copy2)
            shutil.copytree(source, folder / part, copy_function=copy)


def write_json(path: Path, data: object) -> None:
    """Write JSON for people."""
    path.write_text(json.dumps(data, indent=2) + "\n")


def _link(source: str, target: str) -> None:
    """A second name for a file, which costs no space; a copy where that can't be (another disk)."""
    real = os.path.realpath(source)
    try:
        os.link(real, target)
    except OSError:
        shutil.copy2(real, target)
