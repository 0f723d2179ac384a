"""The part of a source that a run takes: which frames, at which rate, with how much of its sound."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import KW_ONLY, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypedDict

from depth_engine.video.frame import Frame
from depth_engine.video.marks import timecode_at
from depth_engine.video.probe import VideoInfo
from depth_engine.video.rate import as_frame_rate
from depth_engine.video.read import probe, read_frames
from depth_engine.video.sound import Sound


class TakeOptions(TypedDict, total=False):
    """The fields of a `Take` as keywords."""

    start_s: float | None
    end_s: float | None
    fps: float | None
    max_frames: int | None
    stream: int | None
    transfer: str | None


TAKE_FIELDS = tuple(TakeOptions.__annotations__)


@dataclass(frozen=True)
class Take:
    """What is read of a source.

    Attributes:
        source: Video file, image folder or pattern.
        start_s: Start of the part to take, seconds.
        end_s: End of the part to take, seconds.
        fps: Frame rate to reduce to; of an image sequence, its rate.
        max_frames: Frames to take at the most.
        stream: Which of a file's video streams, counted from 0; None: the default one, the largest of several.
        transfer: How images store their values: `srgb`, `linear` or `log`; None: as they say.
        duration_s: How long a single image is shown, as frames that are all alike; None: it is one frame.
    """

    source: str | Path
    _: KW_ONLY
    start_s: float | None = None
    end_s: float | None = None
    fps: float | None = None
    max_frames: int | None = None
    stream: int | None = None
    transfer: str | None = None
    duration_s: float | None = None

    def info(self) -> VideoInfo:
        """What the source is, an image sequence at its rate; a rate that reduces nothing is told."""
        info = probe(self.source, self.fps, self.stream, self.transfer)
        if self.duration_s is not None:
            return self._shown_longer(info, self.duration_s)
        if self.fps is None or info.kind == "sequence" or as_frame_rate(self.fps) <= info.fps:
            return info
        note = f"--fps {self.fps:g} has no effect: the clip has {float(info.fps):g} frames per second"
        return replace(info, notes=(*info.notes, note))

    def frames(self) -> Iterator[Frame]:
        """The frames to take."""
        if self.duration_s is not None:
            return self._same_frames(self.info())
        return read_frames(self.source, **{name: getattr(self, name) for name in TAKE_FIELDS})

    def _shown_longer(self, info: VideoInfo, duration_s: float) -> VideoInfo:
        if not (math.isfinite(duration_s) and duration_s > 0):
            raise ValueError(f"duration: {duration_s:g} is not accepted; give seconds above 0")
        if info.kind != "sequence" or info.frame_count != 1:
            raise ValueError(f"duration: only applies to a single image; {self.source} has frames of its own")
        if self.start_s or self.end_s is not None:
            raise ValueError("start, end: do not apply to a single image; --duration says how long it is shown")
        count = max(1, round(duration_s * info.fps))
        notes = info.notes
        if self.fps is None:
            notes += (f"an image has no frame rate: shown at {float(info.fps):g} frames per second (--fps)",)
        return replace(info, frame_count=count, duration_s=float(count / info.fps), notes=notes)

    def _same_frames(self, info: VideoInfo) -> Iterator[Frame]:
        (still,) = read_frames(self.source, transfer=self.transfer)
        for index in range(self.expected_frames(info) or 0):
            yield Frame(index, float(index / info.fps), still.rgb)

    def expected_frames(self, info: VideoInfo) -> int | None:
        """How many frames that will be, as far as the file says."""
        rate = float(info.fps)
        if info.frame_count is None:
            return self.max_frames
        first = max(0.0, self.start_s or 0.0)
        last = min(info.frame_count / rate, self.end_s if self.end_s is not None else float("inf"))
        count = max(0.0, last - first) * min(rate, self.fps or rate)
        return min(max(1, round(count)), self.max_frames or round(count) or 1)

    def rate(self, info: VideoInfo) -> Fraction:
        """Frames per second of what is taken."""
        return info.fps if self.fps is None else min(as_frame_rate(self.fps), info.fps)

    def timecode(self, info: VideoInfo) -> str | None:
        """Of the first frame that is taken; None if the source has none."""
        if info.timecode is None:
            return None
        return timecode_at(info.timecode, info.fps, self.start_s or 0.0, self.rate(info))

    def sound_beside(self, info: VideoInfo) -> Sound | None:
        """The sound beside these frames; it ends with them. None if the source has none."""
        if not info.has_audio:
            return None
        start_s, end_s = self.start_s or 0.0, self.end_s
        if self.max_frames is not None:
            last_s = start_s + self.max_frames / float(self.rate(info))
            end_s = last_s if end_s is None else min(last_s, end_s)
        return Sound(Path(self.source), start_s, end_s)

    def identity(self, info: VideoInfo) -> dict[str, Any]:
        """What must be the same for a run to go on. Plain data."""
        return {
            "source": str(Path(self.source).resolve()),
            "source_fingerprint": _fingerprint(Path(self.source)),
            "picture": f"{info.width}x{info.height}",
            **{name: getattr(self, name) for name in TAKE_FIELDS},
            **({} if self.duration_s is None else {"duration_s": self.duration_s}),
        }


def check_source(take: Take) -> VideoInfo:
    """Probe the source and check what is to be taken of it, before anything heavy loads.

    Raises:
        ValueError: The source is no readable clip, or nothing would be taken of it.
    """
    for name in ("start_s", "end_s", "fps"):
        value = getattr(take, name)
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{name.removesuffix('_s')}: {value} is not accepted; give a number")
    if take.start_s is not None and take.start_s < 0:
        raise ValueError(f"start: {take.start_s:g} is not accepted; give seconds from 0 up")
    if take.end_s is not None and take.end_s <= (take.start_s or 0):
        raise ValueError(f"end: {take.end_s:g} is not after the start ({take.start_s or 0:g} s)")
    if take.fps is not None:
        as_frame_rate(take.fps)
    if take.max_frames is not None and take.max_frames < 1:
        raise ValueError(f"max-frames: {take.max_frames} is not accepted; give a number of frames from 1 up")
    info = take.info()
    if take.start_s and info.duration_s is not None and take.start_s >= info.duration_s:
        raise ValueError(f"start: {take.start_s:g} s is past the end of {take.source} ({info.duration_s:.2f} s)")
    if take.start_s or take.end_s is not None:
        with closing(take.frames()) as frames:  # type: ignore[type-var]
            next(frames, None)  # raises if no frame lies there
    return info


def _fingerprint(source: Path) -> str:
    """A hash of name, size and time of a file, or of the files beside a sequence's pictures."""
    folder = source if source.is_dir() else source.parent
    paths = [source] if source.is_file() else sorted(path for path in folder.iterdir() if path.is_file())
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
