"""report.html: input and results playing in step, the settings, and where the result changes.

One page without any external request (its content security policy forbids them). The preview video lies in it once,
as base64; every player crops its place of it. `page.html` is the template.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from depth_engine.runs.atomic import part_path, publish, refuse_existing

# More points than a screen has columns show nothing more.
_MAX_PLOT_POINTS = 2000
_PLOT_WIDTH, _PLOT_HEIGHT = 1000, 200  # SVG units, stretched to the page
# Bytes of video per <script> block. A multiple of 3, so that only the last block is padded; small, because browsers
# limit the length of one string and the page decodes block by block.
_BLOCK_BYTES = 3 * 2**18


@dataclass(frozen=True)
class Report:
    """What a report page says.

    Attributes:
        title: Heading, usually the clip's name.
        settings: Name -> value, shown as a table; nested values as JSON.
        times_s: `[T]`, seconds, increasing: when each frame of the preview is shown.
        change: `[T - 1]`, `depth.metrics.mean_abs_change` of the result's frames i and i + 1; finite, >= 0.
        shots: First frame of every shot, in [0, T).
        notes: Sentences shown below the title.
        outputs: Files and folders to list with their size; they must exist.
        panels: What the preview shows, left to right.
        change_of: What `change` was measured on, for the plot's heading.
    """

    title: str
    settings: Mapping[str, Any]
    times_s: Sequence[float] | np.ndarray
    change: Sequence[float] | np.ndarray
    shots: Sequence[int]
    notes: Sequence[str] = ()
    outputs: Sequence[str | Path] = ()
    panels: Sequence[str] = ("Input", "Depth (warm is near)")
    change_of: str = "Depth"


def write_report(path: str | Path, report: Report, *, preview_mp4: str | Path, overwrite: bool = False) -> None:
    """Write the report page. Memory does not grow with the preview; all text is escaped.

    Args:
        path: The page, such as DIR/report.html; appears whole or not at all.
        report: What it says.
        preview_mp4: Video with the panels side by side (`colours.side_by_side`), one frame for each of `times_s`,
            shown at that time (`video.write.VideoWriter`).
        overwrite: Replace an existing page.

    Raises:
        ValueError: `change`, `shots` and `times_s` are not as described.
        FileExistsError: The page exists and `overwrite` is off.
        FileNotFoundError: The preview or an output does not exist.
    """
    from jinja2 import Environment, FileSystemLoader

    path = Path(path)
    refuse_existing(path, overwrite)
    times = np.asarray(report.times_s, np.float64)
    change = np.asarray(report.change, np.float64)
    _check_series(times, change, report.shots)
    template = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True).get_template("page.html")
    given = {
        "title": report.title,
        "notes": report.notes,
        "panels": report.panels,
        # Tenths of a millisecond place every frame.
        "times_s": [round(time, 4) for time in times.tolist()],
        "plot": _plot(times, change, report.shots, report.change_of),
        "tables": {
            "Settings": [(name, _shown(value)) for name, value in report.settings.items()],
            "Files": [(output.name, _size(output)) for output in map(Path, report.outputs)],
        },
        "clip": _base64_blocks(Path(preview_mp4)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_path(path)
    try:
        with open(part, "x", encoding="utf-8", newline="\n") as page:
            page.writelines(template.generate(given))
        publish(part, path, overwrite)
    finally:
        part.unlink(missing_ok=True)


def thin(times_s: np.ndarray, change: np.ndarray, limit: int = _MAX_PLOT_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most `limit` points of a series, keeping the lowest and the highest of every stretch: no peak is lost.

    Args:
        times_s: `[N]`.
        change: `[N]`.
        limit: At least 2.

    Returns:
        (times_s, change), in order.
    """
    if len(change) <= limit:
        return times_s, change
    keep = set()
    for stretch in np.array_split(np.arange(len(change)), limit // 2):
        keep.update((stretch[change[stretch].argmin()], stretch[change[stretch].argmax()]))
    kept = sorted(keep)
    return times_s[kept], change[kept]


def _check_series(times: np.ndarray, change: np.ndarray, shots: Sequence[int]) -> None:
    if times.ndim != 1 or times.size == 0 or not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise ValueError("times_s: must be a non-empty row of finite, increasing times")
    if change.shape != (len(times) - 1,):
        raise ValueError(f"change: shape {change.shape} is not one value between each two of {len(times)} frames")
    if not np.isfinite(change).all() or (change < 0).any():
        raise ValueError("change: must be finite and >= 0")
    outside = [first for first in shots if not 0 <= first < len(times)]
    if outside:
        raise ValueError(f"shots: {outside[0]} is not the index of one of {len(times)} frames")


def _base64_blocks(path: Path) -> Iterator[str]:
    with open(path, "rb") as file:
        while block := file.read(_BLOCK_BYTES):
            yield base64.b64encode(block).decode("ascii")


def _plot(times: np.ndarray, change: np.ndarray, shots: Sequence[int], change_of: str) -> dict[str, Any] | None:
    """What the template draws of change over time, in SVG's words; None for a clip of one frame."""
    if len(change) == 0:
        return None
    units_per_s = _PLOT_WIDTH / float(times[-1] - times[0])
    cuts = [first for first in shots if first > 0]
    # A cut changes everything; it must not flatten the rest of the curve.
    within_shot = np.ones(len(change), bool)
    within_shot[[first - 1 for first in cuts]] = False
    top = float(change[within_shot].max(initial=0.0)) or float(change.max()) or 1.0
    plot_times, plot_change = thin(times[1:], change)
    x = (plot_times - times[0]) * units_per_s
    y = _PLOT_HEIGHT * (1 - np.minimum(plot_change / top, 1.0))
    return {
        "of": change_of,
        "width": _PLOT_WIDTH,
        "height": _PLOT_HEIGHT,
        "top": top,
        "curve": "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True)),
        "cuts": "".join(f"M{(times[first] - times[0]) * units_per_s:.1f} 0V{_PLOT_HEIGHT}" for first in cuts),
        "cut_count": len(cuts),
    }


def _shown(value: object) -> str:
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, default=str, ensure_ascii=False)
    return str(value)


def _size(path: Path) -> str:
    """Size of a file, or number and size of a folder's files."""
    if not path.is_dir():
        return _megabytes(path.stat().st_size)
    sizes = [entry.stat().st_size for entry in path.iterdir()]
    return f"{len(sizes)} files, {_megabytes(sum(sizes))}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
