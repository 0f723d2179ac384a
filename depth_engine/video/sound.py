"""A source's sound beside new frames: which part of it, and how it keeps its place against the picture."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from depth_engine.video.ffmpeg_process import LOCAL_PROTOCOLS, ask_for_all_streams, has_common_clock, local_url
from depth_engine.video.probe import probe_file

# Sound that each container takes as it is; the rest becomes AAC. Matroska takes all.
_COPIED = {
    ".mp4": {"aac", "mp3", "ac3", "eac3", "alac", "opus", "flac"},
    ".mov": {"aac", "mp3", "ac3", "eac3", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_f32le"},
}


@dataclass(frozen=True)
class Sound:
    """The sound tracks of a video, or of a part of it.

    Attributes:
        path: The video; it may have no sound.
        start_s: Time of that video that is the zero of the new frames' times; sound before it is left out.
        end_s: Time of that video after which its sound is left out; None keeps the rest.

    Raises:
        ValueError: If the end is not after the start.
    """

    path: Path
    start_s: float = 0.0
    end_s: float | None = None

    def __post_init__(self) -> None:
        if self.end_s is not None and self.end_s <= self.start_s:
            raise ValueError(f"end_s: {self.end_s} is not after start_s ({self.start_s})")


@dataclass(frozen=True)
class SoundStreams:
    """What ffmpeg is to do for the sound.

    Attributes:
        streams: What goes into the new file, ffmpeg-python's nodes.
        options: Options of the new file.
        aside: Outputs of ffmpeg beside the new file.
    """

    streams: tuple[Any, ...] = ()
    options: dict[str, str | int] = field(default_factory=dict)
    aside: tuple[Any, ...] = ()


def sound_streams(sound: Sound, suffix: str) -> SoundStreams:
    """How the sound gets into a file whose name has that suffix.

    Raises:
        VideoError: If the video cannot be used.
    """
    info = probe_file(sound.path)
    if not info.has_audio:
        return SoundStreams()
    taken = _COPIED.get(suffix.lower())
    copied = [taken is None or codec in taken for codec in info.audio_codecs]
    duration_s = None if sound.end_s is None else sound.end_s - sound.start_s
    limit = {} if duration_s is None else {"t": f"{duration_s:.6f}"}
    options: dict[str, str | int] = {}
    if has_common_clock(info.container):
        source = _input(sound.path, **({"ss": f"{sound.start_s:.6f}"} if sound.start_s else {}), **limit)
        aside: tuple[Any, ...] = ()
    else:
        # ffmpeg finds times in these containers only roughly: read from the beginning, and leave out what is before 0.
        if sound.start_s and not all(copied):
            copied = [False] * len(copied)
        if not all(copied):
            end = "" if duration_s is None else f":end={duration_s:.6f}"
            options["af"] = f"atrim=start=0{end}"
            limit = {}  # would count from the first sound
        source = _input(sound.path, itsoffset=f"{-sound.start_s:.6f}", **limit)
        aside = (ask_for_all_streams(source, duration_s),)
    if sound.start_s:
        # Without this, sound back to the picture's key frame comes along, with negative times.
        options["copypriorss"] = 0
    for track, (copy, language) in enumerate(zip(copied, info.audio_languages, strict=True)):
        options[f"c:a:{track}"] = "copy" if copy else "aac"
        if language is not None:
            options[f"metadata:s:a:{track}"] = f"language={language}"
    return SoundStreams((source["a"],), options, aside)


def _input(path: Path, **options: str) -> Any:
    import ffmpeg as ffmpeg_python

    return ffmpeg_python.input(local_url(path), protocol_whitelist=LOCAL_PROTOCOLS, **options)
