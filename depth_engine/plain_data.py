"""Dataclasses from plain data (JSON, YAML), every value checked against its field's type."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any, TypeVar

from depth_engine.checks import known_name

Record = TypeVar("Record")


def from_plain(kind: type[Record], data: Any, where: str) -> Record:
    """Build a dataclass whose fields are bool, int, float, str, Literal, optional ones, tuples, or such dataclasses.

    Args:
        kind: The dataclass.
        data: A mapping of field names to values; lists stand for tuples.
        where: What to call the data in errors.

    Raises:
        ValueError: One line that names the field, its value and what is accepted.
    """
    if not isinstance(data, dict):
        raise ValueError(f"{where}: {data!r} is not a mapping of names to values")
    described: Any = kind
    names = [field.name for field in dataclasses.fields(described)]
    for name in data:
        try:
            known_name("field", str(name), names)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    needed = {
        field.name
        for field in dataclasses.fields(described)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    missing = sorted(needed - set(data))
    if missing:
        raise ValueError(f"{where}: fields missing: {', '.join(missing)}")
    hints = typing.get_type_hints(kind)
    return kind(**{name: _convert(hints[name], value, f"{where}: {name}") for name, value in data.items()})


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return known_name(where, value, [str(accepted) for accepted in arguments])
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _convert(next(argument for argument in arguments if argument is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where}: {value!r} is not a list")
        if arguments[-1] is not Ellipsis and len(value) != len(arguments):
            raise ValueError(f"{where}: {value!r} has {len(value)} values; {len(arguments)} are accepted")
        return tuple(_convert(arguments[0], entry, f"{where}[{number}]") for number, entry in enumerate(value))
    if dataclasses.is_dataclass(hint):
        return from_plain(typing.cast(type, hint), value, where)
    accepted = {bool: bool, int: int, float: (int, float), str: str}[hint]
    if not isinstance(value, accepted) or (hint is not bool and isinstance(value, bool)):
        raise ValueError(f"{where}: {value!r} is not accepted; give a value of type {hint.__name__}")
    return hint(value)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        ValueError: If it does not hold one.
    """
    try:
        data = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path}: holds no JSON object")
    return data
