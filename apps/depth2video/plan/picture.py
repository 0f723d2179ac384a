"""The picture that gives the look: read by stated rules, at generation size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from depth2video.control import IMAGE_FITS, contain, cover
from depth2video.plan.asked import AskedPicture
from depth_engine.checks import known_name

if TYPE_CHECKING:
    from PIL.Image import Image

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
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            count = getattr(opened, "n_frames", 1)
            if opened.mode == "F":
                raise ValueError("it holds floating-point values, and no rule says what is white; give 8 or 16 bits")
            notes = [f"--image: {path.name} holds {count} pictures: the first is taken"] if count > 1 else []
            rgb, how = _to_rgb(ImageOps.exif_transpose(opened))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"--image: {path} can't be read as a picture ({' '.join(str(error).split())})") from error
    return rgb, notes + ([f"--image: {path.name} {how}"] if how else [])


def _to_rgb(image: Image) -> tuple[np.ndarray, str]:
    """Pixels of a picture of any mode, and what became of those that were not 8-bit RGB."""
    from PIL import Image

    if image.mode.startswith("I"):  # Pillow would make white of all above 255
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"its grey runs from {values.min()} to {values.max()}; 8 or 16 bits are accepted")
        grey = np.rint(values / 257).astype(np.uint8)  # 65535 / 255
        return np.repeat(grey[..., None], 3, axis=2), "is grey of 16 bits: 0 is black, 65535 white, in 8 bits"
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        whole = image.convert("RGBA")
        if whole.getchannel("A").getextrema()[0] < 255:  # type: ignore[operator]
            paper = Image.new("RGBA", whole.size, (*_PAPER, 255))
            return np.array(
                Image.alpha_composite(paper, whole).convert("RGB")
            ), "is transparent in parts: laid on white"
        return np.array(whole.convert("RGB")), ""
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        return np.array(image.convert("RGB")), f"is {image.mode}: taken as RGB without its colour profile"
    return np.array(image.convert("RGB")), ""
