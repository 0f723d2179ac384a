"""What a generator is asked for, and what it gives, whichever it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from depth_engine.runs.pieces import Piece

OFFLOADS = ("none", "model", "sequential")
Offload = Literal["none", "model", "sequential"]


@dataclass(frozen=True)
class Request:
    """What to generate.

    Attributes:
        prompt: What the clip shall show, for generators that read.
        negative_prompt: What it shall not show.
        image: uint8 `[H, W, 3]` at generation size: the first frame (svd, bundled), a style (animatediff) or a
            reference (wan-vace).
        control_scale: How strongly depth steers, 0 is not at all.
        control_start: Share of the denoising steps after which control begins, 0 to 1.
        control_end: Share after which it ends, above `control_start`.
        steps: Denoising steps; None: the generator's own number.
        guidance: Classifier-free guidance; None: the generator's own.
        strength: Video-to-video: share of the denoising that the source goes through; None: the source is not used.
        video: The source's frames, uint8 `[H, W, 3]` at generation size, in step with the control; goes with
            `strength`.
        seed: Of the noise, which belongs to (seed, frame).
        fps_id: Frames per second that the generator is told, for generators that know them (svd); None: its own.
        motion: How much moves, for the same; None: its own.
    """

    prompt: str | None = None
    negative_prompt: str | None = None
    image: np.ndarray | None = None
    control_scale: float = 1.0
    control_start: float = 0.0
    control_end: float = 1.0
    steps: int | None = None
    guidance: float | None = None
    strength: float | None = None
    video: Iterator[np.ndarray] | None = None
    seed: int = 0
    fps_id: int | None = None
    motion: int | None = None


class Generator(Protocol):
    """Makes a clip of any length, window by window.

    Attributes:
        window: Frames per window; no more frames are held as pixels, but for what a window hands to the next.
        stride: New frames per window.
        size_multiple: What both sides must be divisible by.
    """

    window: int
    stride: int
    size_multiple: int

    def generate(
        self, control: Iterator[np.ndarray], request: Request, *, state: dict[str, Tensor] | None
    ) -> Iterator[Piece]:
        """Generate a clip.

        Args:
            control: Control frames, uint8 `[H, W, 3]`, near is white. With `state` given, the first one is that of the
                first frame that is not finished.
            request: What to generate.
            state: Of the last piece of an earlier process, to go on after it; None or empty: from the start.

        Returns:
            Iterator over pieces: finished frames, and the state that a later process needs to go on after them.
        """
        ...
