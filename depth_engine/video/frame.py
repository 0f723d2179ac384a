"""A frame of a clip as it flows from the reader to the writer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Frame:
    """One frame of a clip.

    Attributes:
        index: Counts the frames delivered, from 0.
        time_s: When it is shown, in seconds from `start_s` (from the start of the file if that is not given). Strictly
            increasing. The same clock as `VideoWriter` and its sound use.
        rgb: uint8 `[H, W, 3]`, full-range sRGB / BT.709.
        starts_shot: Whether a shot starts here, once `mark_shots` has looked.
        name: File name of a frame that is a file of its own, without its suffix; None of a video's.
    """

    index: int
    time_s: float
    rgb: np.ndarray
    starts_shot: bool = False
    name: str | None = None
