"""The sliding-window plan: which frames are context and which are new. Integers only.

A plan never needs the frame count. Whoever runs it reads `frames_to_read` frames (fewer at the end of the shot) and
asks `next_window` where they lie:

    sliding, window 4, stride 2, 7 frames      cut (crossfade), window 4, stride 2, 7 frames

    frame      0 1 2 3 4 5 6                   frame      0 1 2 3 4 5 6
    window 0   n n n n                         window 0   n n n n
    window 1       c c n n                     window 1       c c n n
    window 2         c c c n                   window 2           c c n

`sliding` is ChronoDepth's plan: the last window keeps its length and takes more context. `cut` is DepthCrafter's:
windows start every `stride` frames and the last one is shorter (reference: arXiv 2406.01493 and 2409.02095, released
code).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Layout = Literal["sliding", "cut"]


@dataclass(frozen=True)
class Window:
    """One window of a shot. Frame numbers count from the shot's first frame.

    Attributes:
        number: Which window of the shot this is, from 0.
        start: First frame of the window.
        first_new: First frame that no earlier window held; the frames before it are context.
        stop: One past the last frame.
    """

    number: int
    start: int
    first_new: int
    stop: int

    @property
    def context(self) -> int:
        """Number of context frames."""
        return self.first_new - self.start

    @property
    def new(self) -> int:
        """Number of new frames."""
        return self.stop - self.first_new

    @property
    def length(self) -> int:
        """Number of frames in all."""
        return self.stop - self.start


def check_plan(window: int, stride: int) -> None:
    """Reject sizes that make no plan.

    Raises:
        ValueError: Unless 1 <= stride <= window.
    """
    if window < 1:
        raise ValueError(f"window: {window} is not accepted; give a number of frames from 1 up")
    if stride < 1:
        raise ValueError(
            f"stride: {stride} is not accepted; give a number of new frames from 1 to the window ({window})"
        )
    if stride > window:
        raise ValueError(f"stride: {stride} is larger than the window ({window}); accepted: 1 to {window}")


def frames_to_read(previous: Window | None, window: int, stride: int) -> int:
    """How many new frames the next window takes at the most."""
    return window if previous is None else stride


def next_window(previous: Window | None, new_frames: int, window: int, stride: int, layout: Layout) -> Window:
    """Place the window that holds `new_frames` frames after `previous`.

    Args:
        previous: The window before, or None for the first of the shot.
        new_frames: Frames read for it: 1 to `frames_to_read`.
        window: Frames in a full window.
        stride: New frames in a full window.
        layout: `sliding` keeps the last window's length, `cut` its context.
    """
    if previous is None:
        return Window(number=0, start=0, first_new=0, stop=new_frames)
    stop = previous.stop + new_frames
    start = previous.stop - (window - stride) if layout == "cut" else max(0, stop - window)
    return Window(number=previous.number + 1, start=start, first_new=previous.stop, stop=stop)


def plan(frame_count: int, window: int, stride: int, layout: Layout) -> Iterator[Window]:
    """The windows of a shot of known length, in order."""
    check_plan(window, stride)
    previous = None
    done = 0
    while done < frame_count:
        new_frames = min(frames_to_read(previous, window, stride), frame_count - done)
        previous = next_window(previous, new_frames, window, stride, layout)
        done = previous.stop
        yield previous


def crossfade_noise_order(number: int, window: int, stride: int) -> list[int]:
    """Which entries of the first window's noise a `cut` window starts from.

    DepthCrafter draws noise once, for the first window; each next window takes the last `overlap` entries of the one
    before, followed by its first `stride` entries (released code, depth_crafter_ppl.py).

    Args:
        number: Window number in the shot.
        window: Frames in a full window.
        stride: New frames in a full window.

    Returns:
        `window` positions in the first window's noise.
    """
    # Taking `overlap` from the end and `stride` from the start turns the array by `stride`; without an overlap the
    # release hands the array on as it is.
    turn = stride * number if stride < window else 0
    return [(position + turn) % window for position in range(window)]
