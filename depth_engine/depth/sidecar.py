"""The JSON sidecar that says what depth files hold and how they were made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from depth_engine.runs.atomic import part_path, publish, refuse_existing
from depth_engine.video.rate import as_frame_rate

DepthKind = Literal["disparity", "depth", "metric"]
DEPTH_KINDS: tuple[str, ...] = get_args(DepthKind)
# Formats of 16-bit counts: their values mean nothing without a value range.
COUNT_FORMATS = ("mkv", "png16")
MAX_COUNT = 65535

FORMAT_VERSION = 1
_MEANING = {
    "disparity": "affine-invariant inverse depth, near is large",
    "depth": "affine-invariant depth, far is large",
    "metric": "metres",
}


def sidecar_path(base: str | Path) -> Path:
    """The sidecar of a base path: DIR/depth -> DIR/depth.json."""
    base = Path(base)
    return base.with_name(base.name + ".json")


def check_range(value_range: tuple[float, float]) -> None:
    """Hold the rule for value ranges.

    Raises:
        ValueError: Unless (lo, hi) are finite numbers with lo < hi.
    """
    lo, hi = value_range
    if not (np.isfinite(lo) and np.isfinite(hi) and lo < hi):
        raise ValueError(f"value_range: ({lo}, {hi}) must be two finite numbers, the smaller first")


@dataclass(frozen=True)
class Held:
    """What depth files hold.

    Attributes:
        kind: One of `DEPTH_KINDS`.
        fps: Nominal frame rate; stored as text, "30000/1001".
        times_s: Timestamp of every frame, seconds; their number is the frame count.
        height: Rows.
        width: Columns.
        value_range: (lo, hi) that counts 0 and 65535 of mkv and png16 stand for; npy and exr hold values as they are.
        shots: First frame of every shot.
        clipped: Format -> number of values that lay outside `value_range` and were clipped to it.
    """

    kind: str
    fps: Fraction | float | str
    times_s: Sequence[float] | np.ndarray
    height: int
    width: int
    value_range: tuple[float, float] = (0.0, 1.0)
    shots: Sequence[int] = ()
    clipped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class MadeBy:
    """What depth was made of, and how.

    Attributes:
        checkpoint: {"name": ..., "sha256": ...} of what computed the depth.
        seed: Its seed.
        settings: All other settings, whatever JSON can hold.
        source: The clip.
    """

    checkpoint: Mapping[str, str] | None = None
    seed: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None


def make_sidecar(held: Held, made_by: MadeBy | None = None) -> dict[str, Any]:
    """The content of a sidecar.

    Args:
        held: What the files hold.
        made_by: What it was made of; None: not known.

    Raises:
        ValueError: The kind, the range or the frame rate is not accepted.
    """
    made_by = made_by or MadeBy()
    if held.kind not in DEPTH_KINDS:
        raise ValueError(f"kind: {held.kind!r} is not one of {', '.join(DEPTH_KINDS)}")
    check_range(held.value_range)
    lo, hi = (float(bound) for bound in held.value_range)
    rate = as_frame_rate(held.fps)
    return {
        "format_version": FORMAT_VERSION,
        "kind": held.kind,
        "meaning": _MEANING[held.kind],
        "value_range": [lo, hi],
        "scale": {
            "applies_to": list(COUNT_FORMATS),
            "value": "offset + count * step",
            "offset": lo,
            "step": (hi - lo) / MAX_COUNT,
        },
        "checkpoint": None if made_by.checkpoint is None else dict(made_by.checkpoint),
        "seed": made_by.seed,
        "settings": dict(made_by.settings),
        "source": made_by.source,
        "fps": f"{rate.numerator}/{rate.denominator}",
        "height": int(held.height),
        "width": int(held.width),
        "frame_count": len(held.times_s),
        "times_s": [float(time_s) for time_s in held.times_s],
        "shots": [int(first) for first in held.shots],
        "clipped": dict(held.clipped),
    }


def write_sidecar(path: str | Path, content: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Write a sidecar as JSON, one key a line; the file appears whole or not at all.

    Args:
        path: From `sidecar_path`.
        content: From `make_sidecar`; further keys are kept.
        overwrite: Replace an existing file.

    Raises:
        ValueError: A value is NaN, infinite or of a type that JSON has no place for (names the key).
        FileExistsError: The file exists and `overwrite` is off.
    """
    path = Path(path)
    refuse_existing(path, overwrite)
    lines = []
    for key, value in content.items():
        try:
            lines.append(f"  {json.dumps(key)}: {json.dumps(value, allow_nan=False, default=_plain)}")
        except (TypeError, ValueError) as error:
            raise ValueError(f"sidecar {path}: {key} cannot be written as JSON: {error}") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_path(path)
    try:
        part.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        publish(part, path, overwrite)
    finally:
        part.unlink(missing_ok=True)


def read_sidecar(path: str | Path) -> dict[str, Any]:
    """Read and check a sidecar.

    Returns:
        What `make_sidecar` made, and any further keys.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no depth sidecar, of another format version, or contradicts itself.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON: {error}") from error
    if not isinstance(content, dict) or "format_version" not in content:
        raise ValueError(f"{path}: not a depth sidecar, it has no format_version")
    if content["format_version"] != FORMAT_VERSION:
        raise ValueError(f"{path}: format_version {content['format_version']} is not {FORMAT_VERSION}")
    needed = ("kind", "value_range", "fps", "height", "width", "frame_count", "times_s")
    missing = [key for key in needed if key not in content]
    if missing:
        raise ValueError(f"{path}: the sidecar lacks {', '.join(missing)}")
    if content["kind"] not in DEPTH_KINDS:
        raise ValueError(f"{path}: kind {content['kind']!r} is not one of {', '.join(DEPTH_KINDS)}")
    if len(content["times_s"]) != content["frame_count"]:
        raise ValueError(f"{path}: {len(content['times_s'])} times_s for a frame_count of {content['frame_count']}")
    return content


def _plain(value: object) -> object:
    """What JSON has no type for, as something it has."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path | Fraction):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
