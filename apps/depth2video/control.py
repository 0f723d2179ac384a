"""Depth -> control frames: what depth-controlled generators were trained on.

A control frame is uint8 `[H, W, 3]`, three equal channels, near is white. It is linear in disparity: ControlNet, VACE
and their kin learned from the inverse depth of MiDaS and the like. One range serves the whole clip by default, so that
steady depth gives a steady control.

    kind         disparity of a value v
    disparity    v
    depth        1 / (1 + (r - 1) v): the nearest possible value at 1, the farthest at r = `FAR_OVER_NEAR`
    metric       1 / v

Depth that is not finite, or not before the camera, counts as farthest.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from depth_engine.checks import known_name

if TYPE_CHECKING:
    from depth_engine.depth.source import DepthSource
    from depth_engine.video.frame import Frame

NORMALIZATIONS = ("clip", "frame", "none")
IMAGE_FITS = ("crop", "pad")
# Robust range: a few wrong pixels must not decide the contrast of a clip.
LOW_PERCENT, HIGH_PERCENT = 2.0, 98.0
# Relative depth says neither scale nor shift. A room or a street spans about one decade, as in novel views.
FAR_OVER_NEAR = 10.0
_BINS = 65536  # of the histogram that finds the percentiles; finer than 16-bit depth
_SAMPLED_SIDE = 128  # pixels of a frame's shorter side that the percentiles look at: a grid of them is enough
_FLAT = 128  # grey of a clip without any depth in it


class DisparityRange(NamedTuple):
    """The disparities that become black and white."""

    low: float
    high: float


def to_disparity(values: np.ndarray, kind: str) -> np.ndarray:
    """Disparity up to an unknown scale and shift, near is large; see the table at the top.

    Args:
        values: Float `[H, W]`, of `kind`; relative depth lies in [0, 1].
        kind: `disparity`, `depth` or `metric`.

    Returns:
        float32 `[H, W]`, finite and >= 0.

    Raises:
        ValueError: The kind is not known.
    """
    known_name("kind", kind, ("disparity", "depth", "metric"))
    values = np.asarray(values, np.float32)
    if kind == "disparity":
        disparity = values
    else:
        distance = values if kind == "metric" else 1 + np.float32(FAR_OVER_NEAR - 1) * values
        with np.errstate(divide="ignore", invalid="ignore"):
            disparity = np.where(distance > 0, 1 / distance, 0)
    return np.where(np.isfinite(disparity), np.maximum(disparity, 0), 0).astype(np.float32, copy=False)


class ClipHistogram:
    """How disparities are spread over the frames of a clip, in bounded memory.

    Attributes:
        frames: How many were added.
    """

    def __init__(self) -> None:
        self.frames = 0
        self._counts = np.zeros(_BINS, np.int64)

    def add(self, disparity: np.ndarray) -> None:
        """Add a frame from `to_disparity`."""
        step = max(1, min(disparity.shape) // _SAMPLED_SIDE)
        sampled = disparity[::step, ::step].ravel()
        # Metric disparity has no bound; d / (1 + d) is below 1 and keeps the order, so percentiles carry over.
        bounded = sampled / (1 + sampled)
        self._counts += np.bincount((bounded * _BINS).astype(np.int64).clip(0, _BINS - 1), minlength=_BINS)
        self.frames += 1

    def range(self) -> DisparityRange:
        """The 2nd and 98th percentile.

        Raises:
            ValueError: There is no frame.
        """
        share = np.cumsum(self._counts)
        if share[-1] == 0:
            raise ValueError("depth: it holds no frame")
        bounds = []
        for percent in (LOW_PERCENT, HIGH_PERCENT):
            bounded = (int(np.searchsorted(share, share[-1] * percent / 100)) + 0.5) / _BINS
            bounds.append(bounded / (1 - bounded))
        return DisparityRange(*bounds)


def clip_range(disparities: Iterable[np.ndarray]) -> DisparityRange:
    """The 2nd and 98th percentile over all frames.

    Args:
        disparities: From `to_disparity`, frame by frame.

    Raises:
        ValueError: There is no frame.
    """
    histogram = ClipHistogram()
    for disparity in disparities:
        histogram.add(disparity)
    return histogram.range()


def frame_range(disparity: np.ndarray) -> DisparityRange:
    """The 2nd and 98th percentile of one frame."""
    low, high = np.percentile(disparity, (LOW_PERCENT, HIGH_PERCENT))
    return DisparityRange(float(low), float(high))


def to_control(disparity: np.ndarray, span: DisparityRange) -> np.ndarray:
    """One control frame: `span.low` and less is black, `span.high` and more is white.

    Args:
        disparity: float32 `[H, W]`.
        span: What becomes black and white.

    Returns:
        uint8 `[H, W, 3]`; grey where the span is empty.
    """
    if not span.high > span.low:
        return np.full((*disparity.shape, 3), _FLAT, np.uint8)
    unit = ((disparity - span.low) / (span.high - span.low)).clip(0, 1)
    grey = np.rint(unit * 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def choose_range(
    source: DepthSource, normalize: str, frame_count: int | None = None, seen: ClipHistogram | None = None
) -> DisparityRange | None:
    """The range of a whole clip, by one pass over its depth where that is needed.

    Args:
        source: The depth.
        normalize: `clip`: percentiles of the clip; `frame`: each frame its own; `none`: values as they are, 0 to 1.
        frame_count: Frames that are used; None: all.
        seen: Depth that went by as it was made; spares the pass if it was all that is used.

    Returns:
        The range, or None for `frame`.

    Raises:
        ValueError: The normalization is not known, or `none` is asked of depth that is not disparity.
    """
    known_name("--normalize", normalize, NORMALIZATIONS)
    if normalize == "frame":
        return None
    if normalize == "none":
        if source.kind != "disparity":
            raise ValueError(f"--normalize: none is for disparity, and the depth is {source.kind}; give clip or frame")
        return DisparityRange(0.0, 1.0)
    if seen is not None and seen.frames and seen.frames == source.frame_count and frame_count in (None, seen.frames):
        return seen.range()
    values = source.open()
    used = values if frame_count is None else (frame for frame, _ in zip(values, range(frame_count), strict=False))
    return clip_range(to_disparity(frame, source.kind) for frame in used)


def control_frames(source: DepthSource, span: DisparityRange | None, height: int, width: int) -> Iterator[np.ndarray]:
    """The control of a clip, frame by frame.

    Args:
        source: The depth.
        span: From `choose_range`.
        height: Of the control.
        width: Of the control.

    Returns:
        Iterator over uint8 `[height, width, 3]`.
    """
    for values in source.open():
        disparity = to_disparity(values, source.kind)
        # The range is of whole frames, so that it does not depend on the size that is asked for.
        own = frame_range(disparity) if span is None else span
        yield to_control(cover(disparity, height, width), own)


def cover(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture at another size, not stretched: scaled until it covers that size, what is over cropped evenly.

    Args:
        picture: uint8 or float32 `[H, W]` or `[H, W, C]`.
        height: Wanted rows.
        width: Wanted columns.
    """
    scale = max(height / picture.shape[0], width / picture.shape[1])
    scaled = _resize(picture, max(height, round(picture.shape[0] * scale)), max(width, round(picture.shape[1] * scale)))
    top, left = (scaled.shape[0] - height) // 2, (scaled.shape[1] - width) // 2
    return np.ascontiguousarray(scaled[top : top + height, left : left + width])


def contain(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture at another size, whole and not stretched: scaled until it fits in, its edge pixels repeated around it.

    Args:
        picture: uint8 or float32 `[H, W]` or `[H, W, C]`.
        height: Wanted rows.
        width: Wanted columns.
    """
    scale = min(height / picture.shape[0], width / picture.shape[1])
    rows = min(height, max(1, round(picture.shape[0] * scale)))
    columns = min(width, max(1, round(picture.shape[1] * scale)))
    top, left = (height - rows) // 2, (width - columns) // 2
    padding = [(top, height - rows - top), (left, width - columns - left), *[(0, 0)] * (picture.ndim - 2)]
    return np.pad(_resize(picture, rows, columns), padding, mode="edge")


def _resize(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Averaged by area where it shrinks, bilinear where it grows."""
    import cv2

    if picture.shape[:2] == (height, width):
        return picture
    shrinks = height < picture.shape[0]
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


class ControlStream:
    """The control of a run, from a frame on, as long as both the clip and its depth last.

    Args:
        clip: Frames of the source.
        frames: Its control, from the first frame on.
        first: The frame to begin with.
        video_size: Height and width at which `video` gives the clip's own frames, in step with the control.
    """

    def __init__(
        self, clip: Iterator[Frame], frames: Iterator[np.ndarray], first: int, video_size: tuple[int, int] | None = None
    ) -> None:
        self._clip, self._frames, self._first, self._video_size = clip, frames, first, video_size
        self._kept: deque[np.ndarray] = deque()  # what no piece was made of yet: a few windows
        self._video: deque[np.ndarray] = deque()
        self._short_after: int | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        for picture in self._clip:
            frame = next(self._frames, None)
            if frame is None:
                self._short_after = picture.index
                return
            if picture.index >= self._first:
                if self._video_size is not None:
                    self._video.append(cover(picture.rgb, *self._video_size))
                self._kept.append(frame)
                yield frame

    def video(self) -> Iterator[np.ndarray]:
        """The clip's frame of each control frame that was given out, uint8 `[H, W, 3]`."""
        while self._video:
            yield self._video.popleft()

    def taken(self, count: int) -> np.ndarray:
        """The next `count` frames, uint8 `[count, H, W, 3]`, which are let go."""
        return np.stack([self._kept.popleft() for _ in range(count)])

    def end(self, notes: list[str]) -> None:
        """Say so in `notes` if the depth ended before the clip, whose length its file did not say."""
        if self._short_after is not None:
            notes.append(f"depth ends after {self._short_after} frames, before the clip; the new clip ends there too")
