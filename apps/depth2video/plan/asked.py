"""What a user asked for, as it was typed and not checked yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from depth_engine.depth.input import DepthRequest


@dataclass(frozen=True)
class AskedControl:
    """How the control is made.

    Attributes:
        depth: Where the depth comes from; its device, dtype and seed are the generator's too.
        normalize: How depth becomes control; None: as fits the depth.
        annotator_weights: Folder or hub id of an annotator's weights.
        detect_resolution: Short side that an annotator works at.
    """

    depth: DepthRequest = field(default_factory=DepthRequest)
    normalize: str | None = None
    annotator_weights: str | None = None
    detect_resolution: int | None = None


@dataclass(frozen=True)
class AskedGenerator:
    """Which generator, and how it works.

    Attributes:
        name: One of `GENERATORS`; None: the bundled one.
        parts: Part -> folder, file or hub id; None: not named.
        size: `WIDTHxHEIGHT`; None: as fits clip and generator.
        window: Frames per window; None: the generator's.
        stride: New frames per window; None: the generator's.
        offload: `none`, `model` or `sequential`.
    """

    name: str | None = None
    parts: Mapping[str, str | None] = field(default_factory=dict)
    size: str | None = None
    window: int | None = None
    stride: int | None = None
    offload: str = "none"


@dataclass(frozen=True)
class AskedPicture:
    """The picture that gives the look.

    Attributes:
        path: File; None: none.
        fit: `crop`: scaled until it covers the size, what is over cropped evenly; `pad`: scaled until it fits in, its
            edge pixels repeated around it.
    """

    path: Path | None = None
    fit: str = "crop"
