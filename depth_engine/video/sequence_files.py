"""Which image files make a sequence: of a folder, or of a pattern such as `plate.####.exr` or `plate.%04d.exr`."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from depth_engine.video.probe import VideoError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".exr", ".dpx"})

_FIELD = re.compile(r"%0?(\d*)d|(#+)")
# A minus is a sign where no letter or digit stands before it: `plate.-001`, but not `plate-001` or `2024-05`.
_NUMBER = re.compile(r"(?<![0-9A-Za-z])-\d+|\d+")
_DATE = re.compile(r"(?:19|20)\d\d[-_.]?[01]\d[-_.]?[0-3]\d")
_SHOWN = 3  # names in a note


class ImageFiles(NamedTuple):
    """The files of a sequence in order.

    Attributes:
        files: The files.
        numbers: The frame number in the name of each; None where names are not numbered.
        notes: What a user should know of how they were chosen.
    """

    files: list[Path]
    numbers: list[int] | None = None
    notes: tuple[str, ...] = ()


def natural_key(path: Path) -> tuple:
    """Sort key under which `frame2` comes before `frame10`, and `frame.-1` before `frame.0`."""
    texts, numbers = _NUMBER.split(path.name), _NUMBER.findall(path.name)
    parts: list[tuple] = [(0, texts[0].lower())]
    for number, text in zip(numbers, texts[1:], strict=True):
        parts += [(int(number), number), (0, text.lower())]
    return tuple(parts)


def is_pattern(source: str | Path) -> bool:
    """Whether a source is a pattern such as `frames/%05d.png`, and not the name of a file that has a % or # in it."""
    return _FIELD.search(Path(source).name) is not None and not Path(source).exists()


def list_images(folder: Path) -> list[Path]:
    """Every image of a folder in natural order; hidden files are left out."""
    return sorted(
        (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")),
        key=natural_key,
    )


def skipped(folder: Path, taken: Iterable[Path]) -> tuple[str, ...]:
    """A note on what lies in a folder and is not read, if anything does."""
    chosen = set(taken)
    rest = sorted(
        f"{path.name}/" if path.is_dir() else path.name
        for path in folder.iterdir()
        if path not in chosen and not path.name.startswith(".")
    )
    return (f"{folder}: not read: {_some(rest)}",) if rest else ()


def files_of_pattern(pattern: str | Path) -> ImageFiles:
    """The files that a pattern names, in order of number.

    Raises:
        VideoError: The pattern has no or several number fields, or no file fits.
    """
    folder, name = Path(pattern).parent, Path(pattern).name
    fields = list(_FIELD.finditer(name))
    if len(fields) != 1:
        raise VideoError(f"{pattern}: has {len(fields)} number fields, one such as %05d or ##### is accepted")
    field = fields[0]
    padded = field[2] is not None or field[0].startswith("%0")
    width = (len(field[2]) if field[2] else int(field[1] or 1)) if padded else 1
    digits = rf"(\d{{{width},}}|-\d{{{max(1, width - 1)},}})"
    wanted = re.compile(re.escape(name[: field.start()]) + digits + re.escape(name[field.end() :]))
    if not folder.is_dir():
        raise VideoError(f"{pattern}: no such folder: {folder}")
    numbered = sorted((int(m[1]), path) for path in folder.iterdir() if (m := wanted.fullmatch(path.name)))
    if not numbered:
        raise VideoError(f"{pattern}: no file fits this pattern")
    numbers = [number for number, _ in numbered]
    if len(set(numbers)) != len(numbers):
        raise VideoError(f"{pattern}: several files have the same number")
    return ImageFiles([path for _, path in numbered], numbers, _gaps(numbers))


def files_of_folder(folder: Path) -> ImageFiles:
    """The images of a folder as one sequence; single images beside a sequence are left out.

    Raises:
        VideoError: The folder holds several sequences.
    """
    images = list_images(folder)
    found = {name: files for name, files in _sequences(images).items() if len(files) > 1}
    if len(found) > 1:
        listed = ", ".join(f"{name} ({len(files)} images)" for name, files in sorted(found.items()))
        raise VideoError(f"{folder}: holds {len(found)} sequences: {listed}; name one, as {folder / min(found)}")
    if not found:
        return ImageFiles(images, None, skipped(folder, images))
    ((_, numbered),) = found.items()
    numbers = [number for number, _ in numbered]
    files = [path for _, path in numbered]
    return ImageFiles(files, numbers, (*_gaps(numbers), *skipped(folder, files)))


def _sequences(images: Sequence[Path]) -> dict[str, list[tuple[int, Path]]]:
    """Pattern -> numbered files, in order; without names that hold a date, which several numbers order."""
    groups: defaultdict[tuple[str, str], list[tuple[int, Path]]] = defaultdict(list)
    for path in images:
        found = list(_NUMBER.finditer(path.stem))
        if found and not _DATE.search(path.stem):
            last = found[-1]
            groups[path.stem[: last.start()], path.stem[last.end() :]].append((int(last[0]), path))
    for before, after in list(groups):
        # `frame-001` beside `frame0000`: the minus is a sign after all.
        if before.endswith("-") and (before[:-1], after) in groups:
            groups[before[:-1], after] += [(-number, path) for number, path in groups.pop((before, after))]
    named: dict[str, list[tuple[int, Path]]] = {}
    for (before, after), numbered in groups.items():
        twice = len({number for number, _ in numbered}) < len(numbered)
        suffixes = sorted({path.suffix for _, path in numbered})
        for chosen in [[suffix] for suffix in suffixes] if twice else [suffixes]:
            files = sorted((number, path) for number, path in numbered if path.suffix in chosen)
            width = min(len(_NUMBER.findall(path.stem)[-1]) for _, path in files)
            named[f"{before}{'#' * width}{after}{chosen[0]}"] = files
    return named


def _gaps(numbers: Sequence[int]) -> tuple[str, ...]:
    missing = numbers[-1] - numbers[0] + 1 - len(numbers)
    return (f"{missing} numbers missing between {numbers[0]} and {numbers[-1]}: closed up",) if missing > 0 else ()


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
