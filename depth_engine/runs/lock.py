"""One run at a time in a work folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def only_run(work: Path) -> Iterator[None]:
    """Keep other runs out of a work folder; the system drops the lock with the process, however it ends.

    The locked file lies beside the work folder, so that the folder can be deleted and made anew under the lock.

    Args:
        work: The work folder; its parent exists.

    Raises:
        ValueError: Another run holds it.
    """
    path = work.with_name(f"{work.name}.lock")
    lock = _lock(path)
    try:
        yield
    finally:
        with suppress(OSError):  # Windows: a file that is open stays until it is let go
            path.unlink()  # before the lock goes: the next run's is another file
        lock.release()


def _lock(path: Path) -> FileLock:
    while True:
        lock = FileLock(path, timeout=0)
        try:
            path.touch()
            named = path.stat()
            lock.acquire()
        except Timeout:
            raise ValueError(f"output: another run is writing to {path.parent}") from None
        except FileNotFoundError:
            continue  # the run that held it ended meanwhile, and took the name with it
        with suppress(FileNotFoundError):
            if os.path.samestat(named, path.stat()):
                return lock
        lock.release()
