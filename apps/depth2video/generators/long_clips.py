"""Windows over a clip of any length for generators that see a whole window at once.

The plan is the engine's `cut` plan (`svd/windows.py`): windows start every `stride` frames. What two windows share
is made by both. The second one starts from the first one's rendition, and the result runs linearly from the one to the
other; so neither end of the shared stretch jumps. Until then these frames are not finished: they are held, and are all
that a later process needs.

    window 4, stride 2     frame     0 1 2 3 4 5
                           window 0  n n h h
                           window 1      s s n n      s: shared, from held to new
    finished after window 0: 0 1; after window 1: 2 3 4 5
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from depth_engine.models.svd.windows import Window, frames_to_read, next_window

Item = TypeVar("Item")


class Span(NamedTuple, Generic[Item]):
    """A window with what belongs to its frames.

    Attributes:
        window: Where it lies; its context frames are shared with the window before.
        items: One for each frame.
        finished: How many of its frames are final; the rest is shared with the next window.
    """

    window: Window
    items: list[Item]
    finished: int


def spans(items: Iterator[Item], window: int, stride: int, windows_done: int = 0) -> Iterator[Span[Item]]:
    """The windows of a clip whose length need not be known.

    Args:
        items: One for each frame, such as its control; from the first frame on that is not finished.
        window: Frames per window.
        stride: New frames per window.
        windows_done: Windows that an earlier process made.
    """
    overlap = window - stride
    held: list[Item] = list(islice(items, overlap)) if windows_done else []
    previous = _window_before(windows_done, window, stride) if windows_done else None
    coming = next(items, None)
    while coming is not None:
        fresh = [coming, *islice(items, frames_to_read(previous, window, stride) - 1)]
        previous = next_window(previous, len(fresh), window, stride, "cut")
        coming = next(items, None)
        whole = [*held, *fresh]
        yield Span(previous, whole, len(whole) if coming is None else stride)
        held = whole[stride:]


def _window_before(windows_done: int, window: int, stride: int) -> Window:
    start = (windows_done - 1) * stride
    first_new = start if windows_done == 1 else start + window - stride
    return Window(number=windows_done - 1, start=start, first_new=first_new, stop=start + window)


def share_of_new(shared: int) -> np.ndarray:
    """Weights of the later window over the frames that two share: rising, neither 0 nor 1. float32 `[shared]`."""
    return (np.arange(1, shared + 1) / (shared + 1)).astype(np.float32)


def crossfade(held: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Frames whose beginning runs from an earlier rendition to this one.

    Args:
        held: uint8 `[k, H, W, 3]`, the earlier rendition of the first k frames.
        frames: uint8 `[n, H, W, 3]`, n >= k.
    """
    new = share_of_new(len(held))[:, None, None, None]
    mixed = np.rint((1 - new) * held + new * frames[: len(held)]).astype(np.uint8)
    return np.concatenate([mixed, frames[len(held) :]])
