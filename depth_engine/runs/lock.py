"""One run at a time in a work folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def only_run(work: Path) -> Iterator[None]:
    """Keep other runs out of a work folder; the system drops the lock with the process, however it ends.

    The locked file lies beside the work folder, so that the folder can be deleted and made anew under the lock.

    Args:
        work: The work folder; its parent exists.

    Raises:
        ValueError: Another run holds it.
    """
    try:
        import fcntl
    except ImportError:  # Windows: an open file can't be replaced there, which has the same effect
        yield
        return
    path = work.with_name(f"{work.name}.lock")
    file = _lock(path, fcntl.flock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before the lock goes: the next run's is another file
        file.close()


def _lock(path: Path, flock, exclusively: int) -> IO[bytes]:
    while True:
        file = path.open("ab")
        try:
            flock(file, exclusively)
        except OSError:
            file.close()
            raise ValueError(f"output: another run is writing to {path.parent}") from None
        try:
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except FileNotFoundError:
            pass
        file.close()  # the run that held it ended meanwhile, and took the name with it
