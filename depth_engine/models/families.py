"""Which family of networks a checkpoint belongs to: the one place that knows them all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from depth_engine.models.loading import resolve_checkpoint
from depth_engine.models.svd.checkpoint import SvdCheckpoint

if TYPE_CHECKING:
    from depth_engine.models.contract import Checkpoint
    from depth_engine.models.svd.spec import CheckpointSpec


def find_checkpoint(
    name: str | Path, *, spec: str | CheckpointSpec | None = None, base: str | Path | None = None
) -> Checkpoint:
    """Find a checkpoint of any family and check that its files are all there; nothing heavy is loaded.

    Args:
        name: A known name, a folder, or a hub id.
        spec: Of the SVD family: see `resolve_checkpoint`.
        base: Likewise.

    Raises:
        ValueError: Unknown name; a file missing; weights that are a pickle.
        FileNotFoundError: No such folder; a hub id that can't be fetched.
    """
    return SvdCheckpoint(resolve_checkpoint(name, spec=spec, base=base))
