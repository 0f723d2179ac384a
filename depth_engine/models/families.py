"""Which family of networks a checkpoint belongs to: the one place that knows them all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from depth_engine.models.loading import resolve_checkpoint
from depth_engine.models.svd.checkpoint import SvdCheckpoint
from depth_engine.models.video_depth_anything.checkpoint import FAMILY as VIDEO_DEPTH_ANYTHING
from depth_engine.models.video_depth_anything.checkpoint import find_video_depth
from depth_engine.plain_data import read_json

if TYPE_CHECKING:
    from depth_engine.models.contract import Checkpoint
    from depth_engine.models.svd.spec import CheckpointSpec


def find_checkpoint(
    name: str | Path, *, spec: str | CheckpointSpec | None = None, base: str | Path | None = None
) -> Checkpoint:
    """Find a checkpoint of any family and check that its files are all there; nothing heavy is loaded.

    Args:
        name: A known name, a folder, a safetensors file, or a hub id.
        spec: Of the SVD family: see `resolve_checkpoint`.
        base: Likewise.

    Raises:
        ValueError: Unknown name; a file missing; weights that are a pickle.
        FileNotFoundError: No such folder; a hub id that can't be fetched.
    """
    if spec is None and base is None and (path := _of_video_depth(Path(name))) is not None:
        return find_video_depth(path, str(name))
    return SvdCheckpoint(resolve_checkpoint(name, spec=spec, base=base))


def _of_video_depth(path: Path) -> Path | None:
    """The path, if it holds a Video Depth Anything."""
    if path.suffix == ".safetensors" and path.is_file():
        return path
    about = path / "depth_engine.json"
    if about.is_file() and read_json(about).get("family") == VIDEO_DEPTH_ANYTHING:
        return path
    return None
