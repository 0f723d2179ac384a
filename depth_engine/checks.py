"""Checks of what a caller gives, and how a refusal is worded."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable


def known_name(argument: str, value: str, accepted: Collection[str]) -> str:
    """Return `value` if it is accepted.

    Raises:
        ValueError: Names the nearest accepted name, if one is near.
    """
    if value in accepted:
        return value
    near = difflib.get_close_matches(str(value), accepted, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"{argument}: {value!r} is not known; {hint}accepted: {', '.join(accepted)}")


def check_keywords(called: str, given: Iterable[str], accepted: Collection[str]) -> None:
    """See that keywords that a function was given are known.

    Raises:
        TypeError: Names the function, the keyword and the nearest accepted one, if one is near.
    """
    for name in given:
        try:
            known_name(called, name, accepted)
        except ValueError as error:
            raise TypeError(str(error)) from None
