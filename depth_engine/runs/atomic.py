"""Files and folders that appear under their name only when they are whole, and never replace another unasked."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path


def part_path(path: Path) -> Path:
    """A hidden name beside `path` to write under until the file is whole."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")


def refuse_existing(path: Path, overwrite: bool) -> None:
    """Hold the overwrite rule.

    Raises:
        FileExistsError: The path exists and `overwrite` is off.
    """
    if not overwrite and os.path.lexists(path):
        raise FileExistsError(f"{path} exists already: choose another name or allow it with overwrite (--overwrite)")


def publish(part: Path, path: Path, overwrite: bool) -> None:
    """Give a whole file or folder its finished name.

    A file replaces an older one in one step; a folder cannot, so an older folder is moved aside first.

    Raises:
        FileExistsError: The path has come into being meanwhile and `overwrite` is off.
    """
    refuse_existing(path, overwrite)
    if part.is_dir() and os.path.lexists(path):
        aside = part_path(part)  # beside the part, so that a kill leaves it where unfinished files are swept
        os.rename(path, aside)
        os.rename(part, path)
        shutil.rmtree(aside) if aside.is_dir() else aside.unlink()
    else:
        os.replace(part, path)


def check_writable(folder: Path) -> None:
    """Make a folder and try it.

    Raises:
        OSError: It can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        test = folder / ".write-test"
        test.touch()
        test.unlink()
    except OSError as error:
        raise OSError(f"output: {folder} can't be written ({error.strerror})") from error
