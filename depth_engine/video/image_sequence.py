"""Numbered or named image files read as one clip."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from depth_engine.video.probe import VideoError, VideoInfo

# Image files carry no rate; 24 is the rate of film, in which sequences are mostly rendered.
SEQUENCE_FPS = Fraction(24)

# EXIF orientations that swap width and height.
_SIDEWAYS = {5, 6, 7, 8}
_ORIENTATION_TAG = 0x0112


def probe_images(
    source: str | Path, files: list[Path], fps: Fraction | None = None, notes: tuple[str, ...] = ()
) -> VideoInfo:
    """What a list of images is, as one clip. Reads each file's header.

    Args:
        source: As it was given.
        files: The images in order.
        fps: Frames per second; None: `SEQUENCE_FPS`, which a note says.
        notes: On how the files were chosen.

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
    if fps is None and len(files) > 1:
        notes += (f"images have no frame rate: read at {SEQUENCE_FPS} frames per second (--fps says otherwise)",)
    rate = fps or SEQUENCE_FPS
    notes += ("alpha dropped",) if has_alpha else ()
    notes += (f"{bit_depth}-bit reduced to 8-bit",) if bit_depth > 8 else ()
    return VideoInfo(
        path=source,
        kind="sequence",
        width=width,
        height=height,
        fps=rate,
        frame_count=len(files),
        frame_count_exact=True,
        duration_s=float(len(files) / rate),
        rotation_deg=0,
        pixel_format=mode,
        bit_depth=bit_depth,
        has_alpha=has_alpha,
        audio_codecs=(),
        audio_languages=(),
        is_hdr=False,
        codec=image_format,
        container="images",
        color_matrix="rgb",
        color_primaries="bt709",
        sample_aspect=Fraction(1),
        stream=0,
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
