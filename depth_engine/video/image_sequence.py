"""Numbered or named image files read as one clip."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from depth_engine.video.probe import VideoError, VideoInfo

# Image files carry no rate; 24 is the rate of film, in which sequences are mostly rendered.
SEQUENCE_FPS = Fraction(24)

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp"})

_PATTERN = re.compile(r"%(0?)(\d*)d")
# EXIF orientations that swap width and height.
_SIDEWAYS = {5, 6, 7, 8}
_ORIENTATION_TAG = 0x0112


def natural_key(path: Path) -> tuple:
    """Sort key under which `frame2` comes before `frame10`."""
    parts = re.split(r"(\d+)", path.name)
    return tuple((int(part), part) if index % 2 else (0, part.lower()) for index, part in enumerate(parts))


def is_pattern(source: str | Path) -> bool:
    """Whether a source is a pattern such as `frames/%05d.png`, and not the name of a file that has a % in it."""
    return _PATTERN.search(Path(source).name) is not None and not Path(source).exists()


def list_images(folder: Path) -> list[Path]:
    """The images of a folder in natural order; hidden files are left out."""
    return sorted(
        (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")),
        key=natural_key,
    )


def list_pattern(pattern: str | Path) -> tuple[list[Path], tuple[str, ...]]:
    """The files that a pattern such as `frames/%05d.png` names, in order of number, and notes on missing numbers."""
    folder, name = Path(pattern).parent, Path(pattern).name
    fields = list(_PATTERN.finditer(name))
    if len(fields) != 1:
        raise VideoError(f"{pattern}: has {len(fields)} number fields, one such as %05d is accepted")
    field = fields[0]
    digits = rf"(\d{{{field[2] or 1},}})" if field[1] else r"(\d+)"
    wanted = re.compile(re.escape(name[: field.start()]) + digits + re.escape(name[field.end() :]))
    if not folder.is_dir():
        raise VideoError(f"{pattern}: no such folder: {folder}")
    numbered = sorted((int(m[1]), path) for path in folder.iterdir() if (m := wanted.fullmatch(path.name)))
    if not numbered:
        raise VideoError(f"{pattern}: no file fits this pattern")
    numbers = [number for number, _ in numbered]
    if len(set(numbers)) != len(numbers):
        raise VideoError(f"{pattern}: several files have the same number")
    missing = numbers[-1] - numbers[0] + 1 - len(numbers)
    notes = (f"{missing} numbers missing between {numbers[0]} and {numbers[-1]}: closed up",) if missing else ()
    return [path for _, path in numbered], notes


def probe_images(source: str | Path, files: list[Path], notes: tuple[str, ...] = ()) -> VideoInfo:
    """What a list of images is, as one clip. Reads each file's header.

    Raises:
        VideoError: If a file is no image, or has another size than the first.
    """
    width, height, mode, image_format = _header(files[0])
    for path in files[1:]:
        other = _header(path)
        if other[:2] != (width, height):
            raise VideoError(
                f"{path}: is {other[0]}x{other[1]} but {files[0].name} is {width}x{height}; frames need one size"
            )
    has_alpha = mode in ("RGBA", "LA", "PA", "RGBa", "La")
    bit_depth = 16 if mode.startswith("I") else 32 if mode == "F" else 8
    notes += ("alpha dropped",) if has_alpha else ()
    notes += (f"{bit_depth}-bit reduced to 8-bit",) if bit_depth > 8 else ()
    return VideoInfo(
        path=source,
        kind="sequence",
        width=width,
        height=height,
        fps=SEQUENCE_FPS,
        frame_count=len(files),
        frame_count_exact=True,
        duration_s=float(len(files) / SEQUENCE_FPS),
        rotation_deg=0,
        pixel_format=mode,
        bit_depth=bit_depth,
        has_alpha=has_alpha,
        audio_codecs=(),
        is_hdr=False,
        codec=image_format,
        container="images",
        color_matrix="rgb",
        sample_aspect=Fraction(1),
        notes=notes,
    )


def _header(path: Path) -> tuple[int, int, str, str]:
    """Displayed width and height, mode and format."""
    if not path.exists():
        raise VideoError(f"{path}: no such file")
    if path.is_file() and not path.stat().st_size:
        raise VideoError(f"{path}: the file is empty")
    try:
        with Image.open(path) as image:
            width, height = image.size
            if _orientation(image) in _SIDEWAYS:
                width, height = height, width
            if getattr(image, "n_frames", 1) > 1:
                raise VideoError(f"{path}: holds {getattr(image, 'n_frames', 1)} pictures; one to a file is accepted")
            if image.mode == "F":
                raise VideoError(f"{path}: holds floating-point values; 8-bit and 16-bit images are accepted")
            return width, height, image.mode, (image.format or "").lower()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(f"{path}: not an image that can be read ({str(error).splitlines()[0]})") from error


def _orientation(image: Image.Image) -> int:
    # For tags behind the pixels, Pillow would decode a whole PNG; programs that turn pictures put them in front.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    return image.getexif().get(_ORIENTATION_TAG, 1)


def read_image(path: Path) -> np.ndarray:
    """One image as it is displayed: uint8 RGB `[H, W, 3]`; alpha dropped, 16-bit scaled to 8-bit.

    Raises:
        OSError: If the data is cut off or damaged (SyntaxError from some of Pillow's readers).
    """
    with Image.open(path) as opened:
        image = opened if _orientation(opened) == 1 else ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):
            # Pillow would clip 16-bit grey at 255. Codes scale by 65535 / 255 = 257.
            grey16 = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
            return np.repeat(((grey16 + 128) // 257).astype(np.uint8)[..., None], 3, axis=2)
        return np.array(image.convert("RGB"))


def read_images(files: list[Path]) -> Iterator[tuple[float, np.ndarray]]:
    """`(time_s, rgb)` of each image at the rate of `SEQUENCE_FPS`."""
    for index, path in enumerate(files):
        yield float(index / SEQUENCE_FPS), read_image(path)
