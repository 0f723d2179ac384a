from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import pytest

from depth_engine.models.svd.spec import CHRONODEPTH, CheckpointSpec
from depth_engine.plain_data import from_plain


@dataclass(frozen=True)
class Part:
    size: int
    share: float = 0.5


@dataclass(frozen=True)
class Whole:
    name: str
    mode: Literal["fast", "slow"]
    parts: tuple[Part, ...] = ()
    pair: tuple[float, float] = (0.0, 1.0)
    limit: int | None = None
    on: bool = True


GOOD: dict[str, Any] = {"name": "a", "mode": "slow", "parts": [{"size": 3, "share": 1}], "pair": [1, 2], "limit": None}


def test_plain_data_becomes_the_dataclass() -> None:
    whole = from_plain(Whole, GOOD, "here")
    assert whole == Whole("a", "slow", (Part(3, 1.0),), (1.0, 2.0))
    assert isinstance(whole.parts[0].share, float)
    assert from_plain(Whole, asdict(whole), "here") == whole


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nam": "b"}, "here: field: 'nam' is not known; did you mean 'name'?"),
        ({"mode": "slov"}, "here: mode: 'slov' is not known; did you mean 'slow'?"),
        ({"name": 3}, "here: name: 3 is not accepted; give a value of type str"),
        ({"on": 1}, "here: on: 1 is not accepted; give a value of type bool"),
        ({"limit": "x"}, "here: limit: 'x' is not accepted; give a value of type int"),
        ({"pair": [1.0]}, "has 1 values; 2 are accepted"),
        ({"parts": 5}, "here: parts: 5 is not a list"),
        ({"parts": [{}]}, r"here: parts\[0\]: fields missing: size"),
        ({"parts": [{"size": 1.5}]}, r"here: parts\[0\]: size: 1.5 is not accepted"),
    ],
)
def test_mistakes_are_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_plain(Whole, {**GOOD, **change}, "here")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": 0}, "window: 0 is not accepted"),
        ({"window": 4, "stride": 5}, "stride: 5 is more than the window, 4"),
        ({"strategy": "contxt"}, "did you mean 'context'"),
        ({"added_time_ids": [6, 127]}, "has 2 values; 3 are accepted"),
        ({"kind": "metric"}, "kind: 'metric' is not known"),
        ({"steps": "5"}, "steps: '5' is not accepted"),
    ],
)
def test_a_checkpoint_spec_is_checked(change: dict[str, Any], message: str) -> None:
    assert CheckpointSpec.from_json(CHRONODEPTH.to_json(), "spec") == CHRONODEPTH
    with pytest.raises(ValueError, match=message):
        CheckpointSpec.from_json({**CHRONODEPTH.to_json(), **change}, "spec")
