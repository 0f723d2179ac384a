"""One run at a time in a work folder."""

from __future__ import annotations

from pathlib import Path
from typing import IO


def lock_file(file: IO[bytes], folder: Path) -> None:
    """Keep a second run out of a work folder; the system drops the lock with the process, however it ends.

    Args:
        file: An open file in the folder, open as long as the run lasts.
        folder: The work folder.

    Raises:
        ValueError: Another run holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows: an open file can't be replaced there, which has the same effect
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ValueError(f"output: another run is writing to {folder.parent}") from None
