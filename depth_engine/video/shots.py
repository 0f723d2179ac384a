"""Where a clip cuts, found while it plays: context never crosses a cut.

The detector is PySceneDetect's AdaptiveDetector: a frame starts a shot if it differs from the frame before by much
more than its neighbours do from theirs, so a fast camera is no cut.
"""

from __future__ import annotations

import itertools
import operator
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from depth_engine.video.frame import Frame

if TYPE_CHECKING:
    from scenedetect.detectors import AdaptiveDetector

# Frames after a frame that are seen before it is judged. PySceneDetect's default.
LOOK_AHEAD = 2

# A flash is two cuts in a row and the second is not wanted; no real shot is this short.
_SHORTEST_SHOT = 5

# Cuts show at thumbnail size, and the cost is per pixel.
_THUMBNAIL_WIDTH = 256

# The detector counts frames; the rate only turns its counts to times that nobody reads.
_NOMINAL_FPS = 25.0


def mark_shots(frames: Iterable[Frame], shots: bool | Collection[int] = True) -> Iterator[Frame]:
    """Every frame in order, saying whether a shot starts with it. Runs at most `LOOK_AHEAD` frames ahead.

    Args:
        frames: All of one size.
        shots: Look for cuts (True), take the clip as one shot (False), or the first frames of the shots, increasing.
            Frame 0 starts a shot whether it is named or not.

    Raises:
        ValueError: At once if `shots` are not increasing indices; at the end of the clip if one lies beyond it.
    """
    if not isinstance(shots, bool):
        return _mark_given(frames, _check_indices(shots))
    return _mark_found(frames) if shots else mark_known(frames, ())


def mark_known(frames: Iterable[Frame], shots: Collection[int]) -> Iterator[Frame]:
    """As `mark_shots`, where the first frames of the shots are known, perhaps of a longer clip."""
    starts = {0, *shots}
    for index, frame in enumerate(frames):
        yield replace(frame, starts_shot=index in starts)


def _check_indices(shots: Collection[int]) -> list[int]:
    try:
        if any(isinstance(first, (bool, np.bool_)) for first in shots):
            raise TypeError
        indices = [operator.index(first) for first in shots]
    except TypeError:
        raise ValueError(f"shots: {list(shots)} are not frame indices, whole numbers") from None
    if any(later <= earlier for earlier, later in itertools.pairwise(indices)) or (indices and indices[0] < 0):
        raise ValueError(f"shots: {indices} are not increasing frame indices, 0 or more")
    return indices


def _mark_given(frames: Iterable[Frame], shots: list[int]) -> Iterator[Frame]:
    count = 0
    for frame in mark_known(frames, shots):
        yield frame
        count += 1
    if shots and shots[-1] >= count:
        raise ValueError(f"shots: {shots[-1]} lies beyond the clip, which has {count} frames")


def _mark_found(frames: Iterable[Frame]) -> Iterator[Frame]:
    look = _start_detector()
    waiting: deque[Frame] = deque()
    starts = {0}
    index = 0  # of the frame at the head of `waiting`
    thumbnail = None
    for frame in frames:
        first = thumbnail is None
        thumbnail = _thumbnail(frame.rgb)
        # The detector judges frames in the middle of its window only, and none within the shortest shot of its start:
        # repeat the first frame before the clip, for a stray frame of another shot may lead it.
        for _ in range(1 + _SHORTEST_SHOT if first else 1):
            starts |= look(thumbnail)
        waiting.append(frame)
        if len(waiting) > LOOK_AHEAD:
            yield replace(waiting.popleft(), starts_shot=index in starts)
            starts.discard(index)
            index += 1
    while waiting and thumbnail is not None:
        # And the last one after it.
        starts |= look(thumbnail)
        yield replace(waiting.popleft(), starts_shot=index in starts)
        index += 1


def _start_detector() -> Callable[[np.ndarray], set[int]]:
    """A function that takes the next thumbnail and gives the frames now known to start a shot."""
    # Imported here: it loads OpenCV, and no command line needs that to print its help.
    from scenedetect import FrameTimecode
    from scenedetect.detectors import AdaptiveDetector

    detector: AdaptiveDetector = AdaptiveDetector(window_width=LOOK_AHEAD, min_scene_len=_SHORTEST_SHOT)
    counter = itertools.count()

    def look(thumbnail: np.ndarray) -> set[int]:
        found = detector.process_frame(FrameTimecode(next(counter), _NOMINAL_FPS), thumbnail)
        return {time.frame_num - _SHORTEST_SHOT for time in found}

    return look


def _thumbnail(rgb: np.ndarray) -> np.ndarray:
    """A picture in BGR, as OpenCV counts channels, at most `_THUMBNAIL_WIDTH` wide."""
    import cv2

    height, width = rgb.shape[:2]
    shrink = max(1.0, width / _THUMBNAIL_WIDTH)
    size = (max(1, round(width / shrink)), max(1, round(height / shrink)))
    # Bilinear, as PySceneDetect shrinks frames itself: its thresholds are tuned to that, and it costs 0.1 ms at 1080p.
    small = rgb if shrink == 1 else cv2.resize(rgb, size, interpolation=cv2.INTER_LINEAR)
    return cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
