"""Temporally consistent video depth: `DepthEngine.from_pretrained("bundled").estimate("clip.mp4")`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from depth_engine.depth.depth_video import DepthVideo
    from depth_engine.engine import DepthEngine
    from depth_engine.models.svd.noise import seeded_noise
    from depth_engine.models.svd.spec import CheckpointSpec

__version__ = "0.1.0"

# Loaded at the first use, so that `depth-engine --help` does not wait for torch.
_HOMES = {
    "CheckpointSpec": "depth_engine.models.svd.spec",
    "DepthEngine": "depth_engine.engine",
    "DepthVideo": "depth_engine.depth.depth_video",
    "seeded_noise": "depth_engine.models.svd.noise",
}

__all__ = ["CheckpointSpec", "DepthEngine", "DepthVideo", "seeded_noise"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
