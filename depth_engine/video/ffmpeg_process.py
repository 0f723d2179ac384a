"""Which ffmpeg to run, how to name files to it, and how to read its log.

Only this file, `probe.py`, `read.py` and `write.py` know ffmpeg. It is found in this order: the
environment variable `DEPTH_ENGINE_FFMPEG`, `ffmpeg` on the PATH, the binary of the `imageio-ffmpeg` package.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections import deque
from pathlib import Path
from typing import IO, Any

FFMPEG_VARIABLE = "DEPTH_ENGINE_FFMPEG"
OLDEST = (5, 1)  # Debian 12
# A question to ffmpeg about itself takes a few milliseconds.
_ANSWER_TIMEOUT_S = 60

# What ffmpeg may open: nothing that leaves this machine, whatever a playlist says.
LOCAL_PROTOCOLS = "file,pipe"

# Each log line begins with its level, so errors are told from talk without guessing at words.
LOG_OPTIONS = ("-hide_banner", "-nostats", "-nostdin", "-loglevel", "level+info")

# The output option that keeps every frame with its own time.
PASSTHROUGH = {"fps_mode": "passthrough"}

# Of these containers, ffmpeg takes as zero the start of the streams that are asked for, not of the file.
_CLOCK_OF_STREAMS = {"mpegts", "mpeg", "ogg"}

_LOG_LINE = re.compile(r"^(?:\[[^\]]*\] )*?\[(quiet|panic|fatal|error|warning|info|verbose|debug)\] ?(.*)$")


def find_ffmpeg() -> str:
    """Path of the ffmpeg binary to run.

    Raises:
        FileNotFoundError: If `DEPTH_ENGINE_FFMPEG` names no program, or no ffmpeg is installed at all.
        ValueError: If it is older than `OLDEST`.
    """
    named = os.environ.get(FFMPEG_VARIABLE)
    found = shutil.which(named or "ffmpeg")
    if named and not found:
        raise FileNotFoundError(f"{FFMPEG_VARIABLE}: {named!r} is not a program; name an ffmpeg binary or unset it")
    found = found or _bundled_ffmpeg()
    version = ffmpeg_version(found)
    if version < OLDEST:
        raise ValueError(
            f"ffmpeg: {found} is version {version[0]}.{version[1]}; {OLDEST[0]}.{OLDEST[1]} or later is accepted: "
            f"install one, or let {FFMPEG_VARIABLE} name it"
        )
    return found


@functools.cache
def _bundled_ffmpeg() -> str:
    import imageio_ffmpeg

    try:
        return imageio_ffmpeg.get_ffmpeg_exe()
    except RuntimeError as error:
        raise FileNotFoundError(f"ffmpeg: not found; install it or set {FFMPEG_VARIABLE} ({error})") from error


@functools.cache
def ffmpeg_version(ffmpeg: str) -> tuple[int, int]:
    """Major and minor version; builds from the development tree count as newest."""
    text = _ask(ffmpeg, "-version")
    release = re.match(r"ffmpeg version n?(\d+)\.(\d+)", text)
    return (int(release[1]), int(release[2])) if release else (99, 0)


@functools.cache
def has_filter(ffmpeg: str, name: str) -> bool:
    """Whether this ffmpeg was built with a filter."""
    return re.search(rf"^\s*\S+\s+{re.escape(name)}\s", _ask(ffmpeg, "-filters"), re.MULTILINE) is not None


def _ask(ffmpeg: str, question: str) -> str:
    command = [ffmpeg, "-hide_banner", question]
    answer = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_ANSWER_TIMEOUT_S
    )
    return answer.stdout


def local_url(path: Path) -> str:
    """A file name as ffmpeg takes it literally, whatever dashes, colons, quotes or per cent signs it has."""
    return "file:" + os.path.abspath(path)


def has_common_clock(container: str) -> bool:
    """Whether picture and sound that are read apart from such a file count from the same zero."""
    return container not in _CLOCK_OF_STREAMS


def ask_for_all_streams(source: Any, duration_s: float | None = None) -> Any:
    """An output of ffmpeg that goes nowhere and has every stream of an input: they then count from the file's start.

    Args:
        source: The input, ffmpeg-python's node.
        duration_s: Where reading for this may end; None: at the end of the input.
    """
    import ffmpeg as ffmpeg_python

    limit = {} if duration_s is None else {"t": f"{duration_s:.6f}"}
    return ffmpeg_python.output(source["v"], source["a"], "-", format="null", c="copy", **limit)


def split_log_line(raw: bytes) -> tuple[str, str]:
    """`(level, text)` of one line of ffmpeg's log; a continuation line has the level `""`."""
    # The log quotes raw metadata, so any byte may turn up in it.
    line = raw.decode("utf-8", errors="replace").rstrip("\r\n")
    match = _LOG_LINE.match(line)
    return (match[1], match[2]) if match else ("", line)


class ErrorLog:
    """The last errors ffmpeg wrote, for the one line a user gets to see."""

    def __init__(self) -> None:
        self._errors: deque[str] = deque(maxlen=20)

    def note(self, level: str, text: str) -> None:
        """Keep a log line if it tells of an error."""
        if level in ("error", "fatal", "panic"):
            self._errors.append(text.strip())

    def follow(self, stderr: IO[bytes]) -> None:
        """Read a log to its end, keeping errors; closes it."""
        with stderr:
            for raw in stderr:
                self.note(*split_log_line(raw))

    def has(self, words: str) -> bool:
        """Whether an error with these words was kept."""
        return any(words in text for text in self._errors)

    def first(self, otherwise: str) -> str:
        """The oldest error kept: nearest to the cause."""
        return self._errors[0] if self._errors else otherwise
