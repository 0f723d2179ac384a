"""Errors as one line for a person."""

from __future__ import annotations


def one_line(error: BaseException | str) -> str:
    """The text of an error without line breaks; running out of memory says what to lower."""
    text = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, MemoryError) or "out of memory" in text.lower():
        return "out of memory: lower --max-res or --window, then go on with --resume (finished windows are kept)"
    return text
