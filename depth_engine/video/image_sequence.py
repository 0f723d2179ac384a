"""Numbered or named image files read as one clip."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from depth_engine.video.image_file import ImageHeader, read_header
from depth_engine.video.probe import VideoError, VideoInfo
from depth_engine.video.transfer import check_transfer

# Most image files carry no rate; 24 is the rate of film, in which sequences are mostly rendered.
SEQUENCE_FPS = Fraction(24)


def probe_images(
    source: str | Path,
    files: list[Path],
    fps: Fraction | None = None,
    transfer: str | None = None,
    notes: tuple[str, ...] = (),
) -> VideoInfo:
    """What a list of images is, as one clip. Reads each file's header.

    Args:
        source: As it was given.
        files: The images in order.
        fps: Frames per second; None: what the first file says, or `SEQUENCE_FPS`, which a note says.
        transfer: How values are stored, one of `TRANSFERS`; None: as the first file says.
        notes: On how the files were chosen.

    Raises:
        VideoError: If a file is no image, or has another size or other values than the first.
        ValueError: The transfer function is not known.
    """
    check_transfer(transfer)
    first = _one_picture(files[0])
    for path in files[1:]:
        other = _one_picture(path)
        if (other.width, other.height) != (first.width, first.height):
            raise VideoError(
                f"{path}: is {other.width}x{other.height} but {files[0].name} is {first.width}x{first.height}; "
                "frames need one size"
            )
        if transfer is None and other.transfer != first.transfer:
            raise VideoError(
                f"{path}: holds {other.transfer} values but {files[0].name} {first.transfer} ones; say what all are "
                "by --transfer"
            )
    rate = fps or first.fps or SEQUENCE_FPS
    stored = transfer or first.transfer
    if fps is None and len(files) > 1:
        why = "as the first of them says" if first.fps else "images have no frame rate"
        notes += (f"{why}: read at {float(rate):g} frames per second (--fps says otherwise)",)
    return VideoInfo(
        path=source,
        kind="sequence",
        width=first.width,
        height=first.height,
        fps=rate,
        frame_count=len(files),
        frame_count_exact=True,
        duration_s=float(len(files) / rate),
        rotation_deg=0,
        pixel_format=first.mode,
        bit_depth=first.bit_depth,
        has_alpha=first.has_alpha,
        audio_codecs=(),
        audio_languages=(),
        is_hdr=False,
        codec=first.format,
        container="images",
        color_matrix="rgb",
        color_primaries="bt709",
        sample_aspect=first.sample_aspect,
        stream=0,
        notes=(*notes, *_notes(first, stored, transfer is None)),
        timecode=first.timecode,
        transfer=stored,
    )


def _one_picture(path: Path) -> ImageHeader:
    header = read_header(path)
    if header.pictures > 1:
        raise VideoError(f"{path}: holds {header.pictures} pictures; one to a file is accepted")
    return header


def _notes(first: ImageHeader, stored: str, by_default: bool) -> list[str]:
    """What a user should know of how the pixels are read."""
    notes = []
    if first.has_alpha:
        notes.append("alpha dropped")
    if first.bit_depth > 8:
        notes.append(f"{first.bit_depth}-bit reduced to 8-bit")
    if stored != "srgb" or (first.transfer != "srgb" and not by_default):
        shown = {
            "linear": "scene-linear light shown as sRGB, all above 1 white",
            "log": "film density (Cineon) shown as sRGB, all above count 685 of 1023 white",
            "srgb": "values taken as sRGB",
        }[stored]
        notes.append(f"{shown}{' (--transfer says otherwise)' if by_default else ''}")
    if first.sample_aspect != 1:
        notes.append(f"pixels are not square ({first.sample_aspect}): read as stored, not stretched")
    return notes
