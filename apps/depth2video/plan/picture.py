"""The picture that gives the look: read by stated rules, at generation size."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from depth2video.control import IMAGE_FITS, contain, cover
from depth2video.plan.asked import AskedPicture
from depth_engine.checks import known_name

_PAPER = (255, 255, 255)  # what shows through transparent parts


def read_picture(asked: AskedPicture, height: int, width: int) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The picture that gives the look, at generation size.

    Args:
        asked: File and how it is made to fit.
        height: Of the new clip.
        width: Of the new clip.

    Returns:
        uint8 `[height, width, 3]` or None, and notes.

    Raises:
        ValueError: The rule is not known, or the file is none that can be taken.
        FileNotFoundError: There is no such file.
    """
    known_name("--image-fit", asked.fit, IMAGE_FITS)
    path = asked.path
    if path is None:
        return None, ()
    if not path.is_file():
        raise FileNotFoundError(f"--image: no such file: {path}")
    held, notes = _read_rgb(path)
    picture = (cover if asked.fit == "crop" else contain)(held, height, width)
    stretch = (held.shape[1] / width) / (held.shape[0] / height)
    if not 0.9 < stretch < 1.1:
        done = "cropped" if asked.fit == "crop" else "padded with its edge pixels"
        notes.append(
            f"image of {held.shape[1]}x{held.shape[0]} was scaled and {done} to {width}x{height} (--image-fit)"
        )
    return picture, tuple(notes)


def _read_rgb(path: Path) -> tuple[np.ndarray, list[str]]:
    """uint8 RGB `[H, W, 3]` of a file, turned as it is displayed, and what was changed on the way."""
    from PIL import Image

    from depth_engine.video.image_file import read_header, read_image

    try:
        header = read_header(path)
        picture = read_image(path, paper=_PAPER)
        transparent = header.has_alpha and not np.array_equal(picture, read_image(path))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        why = " ".join(str(error).removeprefix(f"{path}: ").split())
        raise ValueError(f"--image: {path} can't be read as a picture ({why})") from error
    changed = []
    if header.pictures > 1:
        changed.append(f"holds {header.pictures} pictures: the first is taken")
    if header.transfer != "srgb":
        what = {"linear": "scene-linear light", "log": "film density (Cineon)"}[header.transfer]
        changed.append(f"holds {what}: shown as sRGB, all above white is white")
    elif header.bit_depth > 8:
        changed.append(f"has {header.bit_depth} bits: 0 is black, {2**header.bit_depth - 1} white, in 8 bits")
    if transparent:
        changed.append("is transparent in parts: laid on white")
    if header.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        changed.append(f"is {header.mode}: taken as RGB without its colour profile")
    return picture, [f"--image: {path.name} {change}" for change in changed]
