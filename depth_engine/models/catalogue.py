"""The table of known checkpoints: where they come from, their licences, what each is good for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

BUNDLED_FOLDER = Path(__file__).parents[1] / "weights" / "bundled"


@dataclass(frozen=True)
class KnownCheckpoint:
    """A row of `depth-engine models`.

    Attributes:
        source: Folder in the package, or hub id of the UNet.
        base: Hub id of the SVD that the UNet belongs to, or None if the source is complete.
        licence: Terms of the weights.
        summary: One line about it.
    """

    source: str
    base: str | None
    licence: str
    summary: str


SVD_XT = "stabilityai/stable-video-diffusion-img2vid-xt"
KNOWN = {
    "bundled": KnownCheckpoint(
        "(in the package)", None, "Apache-2.0", "small, runs on a CPU with no download; trained on procedural scenes"
    ),
    "chronodepth": KnownCheckpoint(
        "jhshao/ChronoDepth-v1", SVD_XT, "MIT (UNet); Stability AI Community (base)", "1.5 B parameters, needs a GPU"
    ),
    "depthcrafter": KnownCheckpoint(
        "tencent/DepthCrafter",
        SVD_XT,
        "Tencent, research only (UNet); Stability AI Community (base)",
        "1.5 B parameters, needs a GPU",
    ),
}
