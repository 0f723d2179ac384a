"""Running out of memory, told so that a user can do something about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def memory_told(lower: str) -> Iterator[None]:
    """Say what to lower where memory runs out.

    Args:
        lower: Options.

    Raises:
        RuntimeError: Memory ran out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error).lower()
        if not (
            isinstance(error, MemoryError)
            or "out of memory" in text
            or "can't allocate memory" in text
            or "not enough memory" in text
        ):
            raise
        raise RuntimeError(
            f"memory ran out: lower {lower}; finished windows are kept, and --resume goes on after them once there is "
            "memory"
        ) from error
