"""One picture from one file, of any kind: what its header says, and its pixels as they are seen.

OpenEXR reads EXR, ffmpeg DPX, OpenCV colours of more than 8 bits, Pillow all else.
"""

from __future__ import annotations

import io
import struct
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from depth_engine.video.ffmpeg_process import LOCAL_PROTOCOLS, LOG_OPTIONS, ErrorLog, find_ffmpeg, local_url
from depth_engine.video.probe import VideoError
from depth_engine.video.rate import as_frame_rate
from depth_engine.video.transfer import as_seen

# EXIF orientations that swap width and height.
_SIDEWAYS = {5, 6, 7, 8}
_ORIENTATION_TAG = 0x0112
_READ_TIMEOUT_S = 60
_LOG_LUV = (32844, 32845)  # of TIFF: brightness as a logarithm; its readers give linear light

# DPX (SMPTE ST 268-1): where its header holds what, and what it says of transfer. Film scans hold printing density.
_DPX_HEADER_BYTES = 2048
_DPX_AT = {
    "creator": 160,
    "size": 772,
    "descriptor": 800,
    "transfer": 801,
    "bits": 803,
    "aspect": 1628,
    "film_fps": 1724,
}
_DPX_AT |= {"timecode": 1920, "video_fps": 1940}
_DPX_TRANSFERS = {1: "log", 2: "linear", 3: "log"}
_DPX_WITH_ALPHA = {51, 52, 101, 103}
_UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True)
class ImageHeader:
    """What a file says of its picture.

    Attributes:
        width: As it is displayed, pixels.
        height: Likewise.
        format: Such as `png` or `exr`.
        mode: Pillow's mode, or the names of an EXR's channels, or `dpx` and its kind of pixels.
        bit_depth: Bits of a channel; 32 of floating-point values, halves included.
        transfer: How values are stored, where nobody says otherwise; one of `TRANSFERS`.
        has_alpha: Whether there is transparency.
        sample_aspect: Width / height of one pixel.
        fps: Frames per second; None where the file does not say.
        timecode: HH:MM:SS:FF; None likewise.
        pictures: How many the file holds.
        orientation: How it is turned for display, as EXIF counts it.
    """

    width: int
    height: int
    format: str
    mode: str
    bit_depth: int = 8
    transfer: str = "srgb"
    has_alpha: bool = False
    sample_aspect: Fraction = Fraction(1)
    fps: Fraction | None = None
    timecode: str | None = None
    pictures: int = 1
    orientation: int = 1


def read_header(path: Path) -> ImageHeader:
    """What a file says of its picture, without reading the pixels.

    Raises:
        VideoError: It is no picture that can be read.
    """
    if not path.exists():
        raise VideoError(f"{path}: no such file")
    if path.is_file() and not path.stat().st_size:
        raise VideoError(f"{path}: the file is empty")
    try:
        kind = _kind(path)
        if kind == "exr":
            return _exr_header(path)
        if kind == "dpx":
            return _dpx_header(path)
        return (_deep_tiff_header(path) if kind == "tiff" else None) or _pillow_header(path)
    except (OSError, SyntaxError, RuntimeError, struct.error, Image.DecompressionBombError) as error:
        raise VideoError(f"{path}: not an image that can be read ({str(error).splitlines()[0]})") from error


def read_image(path: Path, transfer: str | None = None, paper: tuple[int, int, int] | None = None) -> np.ndarray:
    """A picture as it is displayed: uint8 sRGB `[H, W, 3]`.

    Args:
        path: The file.
        transfer: How its values are stored, one of `TRANSFERS`; None: as the file says.
        paper: Colour that shows through what is transparent; None: transparency is dropped.

    Raises:
        OSError: If the data is cut off or damaged (SyntaxError from some of Pillow's readers).
        ValueError: It is no picture that can be read.
    """
    header = read_header(path)
    stored = transfer or header.transfer
    if header.format == "exr":
        values, is_float = _read_exr(path), True
    elif header.format == "dpx":
        values, is_float = _read_dpx(path, header), False
    elif header.bit_depth > 8 and not header.mode.startswith(("I", "F")):
        values, is_float = _read_deep(path, header), header.bit_depth == 32
    else:
        with Image.open(path) as opened:
            image = opened if _orientation(opened) == 1 else ImageOps.exif_transpose(opened)
            values, is_float = _of_pillow(image, paper is not None), header.bit_depth == 32
    if values.dtype == np.uint8 and stored == "srgb":
        return _laid_on(values, paper)
    unit = values if is_float else values / np.float32(np.iinfo(values.dtype).max)
    alpha = unit[..., 3:]
    seen = as_seen(unit[..., :3], stored)
    if alpha.size:
        seen = np.concatenate([seen, as_seen(alpha, "srgb")], axis=2)
    return _laid_on(seen, paper)


def _laid_on(picture: np.ndarray, paper: tuple[int, int, int] | None) -> np.ndarray:
    """uint8 `[H, W, 3]` of `[H, W, 3 or 4]`."""
    if picture.shape[2] == 3:
        return picture
    if paper is None:
        return np.ascontiguousarray(picture[..., :3])
    background = Image.new("RGBA", (picture.shape[1], picture.shape[0]), (*paper, 255))
    return np.array(Image.alpha_composite(background, Image.fromarray(picture, "RGBA")).convert("RGB"))


def _kind(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"\x76\x2f\x31\x01":
        return "exr"
    if start in (b"SDPX", b"XPDS"):
        return "dpx"
    return "tiff" if start[:2] in (b"II", b"MM") else "other"


# --------------------------------------------------------------------------------------------------------- Pillow


def _pillow_header(path: Path) -> ImageHeader:
    with Image.open(path) as image:
        width, height = image.size
        orientation = _orientation(image)
        if orientation in _SIDEWAYS:
            width, height = height, width
        deep = image.mode.startswith("I") or _is_deep_png(image)
        return ImageHeader(
            width,
            height,
            (image.format or "").lower(),
            image.mode,
            32 if image.mode == "F" else 16 if deep else 8,
            "linear" if image.mode == "F" else "srgb",
            image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info,
            pictures=getattr(image, "n_frames", 1),
            orientation=orientation,
        )


def _is_deep_png(image: Image.Image) -> bool:
    """Whether Pillow would drop the lower 8 bits of 16."""
    tiles = getattr(image, "tile", None)
    return image.format == "PNG" and bool(tiles) and ";16" in str(tiles[0][3])


def _orientation(image: Image.Image) -> int:
    # For tags behind the pixels, Pillow would decode a whole PNG; programs that turn pictures put them in front.
    if image.format == "PNG" and "exif" not in image.info:
        return 1
    return image.getexif().get(_ORIENTATION_TAG, 1)


def _of_pillow(image: Image.Image, with_alpha: bool) -> np.ndarray:
    """uint8, uint16 or float32 `[H, W, 3 or 4]`."""
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit grey at 255.
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise ValueError(f"its grey runs from {grey.min()} to {grey.max()}; 8 or 16 bits are accepted")
        return np.repeat(grey.astype(np.uint16)[..., None], 3, axis=2)
    if image.mode == "F":
        return np.repeat(np.asarray(image)[..., None], 3, axis=2)
    return np.array(image.convert("RGBA" if with_alpha else "RGB"))


# ------------------------------------------------------------------------------------------ more than 8 bits a colour


def _deep_tiff_header(path: Path) -> ImageHeader | None:
    """Of a TIFF with colours of more than 8 bits, which Pillow reduces or can't open; None of another."""
    with path.open("rb") as file:
        start = file.read(8)
        start += file.read(8) if start[2:4] in (b"\x2b\x00", b"\x00\x2b") else b""  # a BigTIFF's is longer
        tags = ImageFileDirectory_v2(start)
        file.seek(tags.next)
        tags.load(file)
    width, height, bits, channels = (tags.get(tag) for tag in (256, 257, 258, 277))
    bits = max(bits) if isinstance(bits, tuple) else bits
    if not (width and height and bits and bits > 8 and channels and channels >= 3):
        return None
    is_float = 3 in (tags.get(339) or ()) or tags.get(262) in _LOG_LUV
    orientation = tags.get(_ORIENTATION_TAG, 1)
    if orientation in _SIDEWAYS:
        width, height = height, width
    mode = f"{'RGB' if channels == 3 else 'RGBA'};{bits}{'F' if is_float else ''}"
    depth, transfer = (32, "linear") if is_float else (bits, "srgb")
    return ImageHeader(width, height, "tiff", mode, depth, transfer, channels > 3, orientation=orientation)


def _read_deep(path: Path, header: ImageHeader) -> np.ndarray:
    """uint16 or float32 RGB or RGBA."""
    import cv2

    held = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if held is None or held.ndim != 3 or held.shape[2] not in (3, 4):
        raise OSError("its pixels can't be decoded")
    if held.dtype not in (np.uint16, np.float32):
        held = held.astype(np.float32)
    rgb = held[..., [2, 1, 0, 3][: held.shape[2]]]
    # OpenCV turns a TIFF itself, whatever it is asked.
    return np.ascontiguousarray(rgb if header.format == "tiff" else _turned(rgb, header.orientation))


def _turned(picture: np.ndarray, orientation: int) -> np.ndarray:
    """As an EXIF orientation asks for: a half turn, a mirror, rows for columns, or some of these."""
    if orientation in _SIDEWAYS:
        picture = picture.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    return picture[::-1] if orientation in (3, 4, 7, 8) else picture


# ------------------------------------------------------------------------------------------------------------ EXR


def _exr_header(path: Path) -> ImageHeader:
    import OpenEXR

    header = OpenEXR.File(str(path), separate_channels=True, header_only=True).header()
    channels = _exr_channels(path, [channel.name for channel in header["channels"]])
    (left, top), (right, bottom) = header["displayWindow"]
    rate = header.get("framesPerSecond")
    return ImageHeader(
        int(right - left + 1),
        int(bottom - top + 1),
        "exr",
        ",".join(channels),
        32,
        "linear",
        len(channels) > 3,
        Fraction(float(header.get("pixelAspectRatio", 1.0))).limit_denominator(1000) or Fraction(1),
        _rate_or_none(rate.n / rate.d) if hasattr(rate, "n") and rate.d else None,
        _exr_timecode(header.get("timeCode")),
    )


def _exr_channels(path: Path, names: list[str]) -> list[str]:
    """Those of the picture: R, G, B and alpha, of the first layer that has them where none is the main one; or Y.

    Raises:
        VideoError: There is no picture among them.
    """
    layers = ["", *dict.fromkeys(name[:-1] for name in names if name.endswith(".R"))]
    for layer in layers:
        if all(f"{layer}{color}" in names for color in "RGB"):
            return [f"{layer}{color}" for color in "RGBA" if f"{layer}{color}" in names]
    if "Y" in names and not {"Z", "RY", "BY"} & set(names):
        return ["Y"]
    raise VideoError(f"{path}: has channels {', '.join(names)}, no R, G and B of a picture; depth is given by --depth")


def _exr_timecode(code: Any) -> str | None:
    if code is None:
        return None
    mark = ";" if code.dropFrame else ":"
    return f"{code.hours:02}:{code.minutes:02}:{code.seconds:02}{mark}{code.frame:02}"


def _read_exr(path: Path) -> np.ndarray:
    """float32 RGB or RGBA in the display window; black where no pixel was stored."""
    import OpenEXR

    try:
        file = OpenEXR.File(str(path), separate_channels=True)
        header, held = file.header(), file.channels()
    except RuntimeError as error:
        raise OSError(str(error)) from error
    names = _exr_channels(path, list(held))
    stored = np.stack([held[name].pixels for name in names], axis=2).astype(np.float32)
    if len(names) == 1:
        stored = np.repeat(stored, 3, axis=2)
    (left, top), (right, bottom) = header["displayWindow"]
    shown = np.zeros((bottom - top + 1, right - left + 1, stored.shape[2]), np.float32)
    (first_x, first_y), _ = header["dataWindow"]
    x, y = int(first_x - left), int(first_y - top)
    within = (slice(max(0, -y), max(0, len(shown) - y)), slice(max(0, -x), max(0, shown.shape[1] - x)))
    cut = stored[within]
    shown[max(0, y) :, max(0, x) :][: cut.shape[0], : cut.shape[1]] = cut
    return shown


# ------------------------------------------------------------------------------------------------------------ DPX


def _dpx_header(path: Path) -> ImageHeader:
    with path.open("rb") as file:
        held = file.read(_DPX_HEADER_BYTES)
    order = ">" if held[:4] == b"SDPX" else "<"
    length = struct.unpack_from(order + "I", held, 4)[0]  # without the parts for film or television in some files
    if len(held) < min(length, _DPX_HEADER_BYTES):
        raise OSError("its header is cut off")
    held = held[:length].ljust(_DPX_HEADER_BYTES, b"\xff")  # what all bits set say: undefined

    def at(name: str, form: str) -> tuple:
        return struct.unpack_from(order + form, held, _DPX_AT[name])

    width, height = at("size", "II")
    across, down = at("aspect", "II")
    square = 0 in (across, down) or _UNDEFINED in (across, down)
    descriptor, bits = held[_DPX_AT["descriptor"]], held[_DPX_AT["bits"]]
    transfer = _DPX_TRANSFERS.get(held[_DPX_AT["transfer"]], "srgb")
    if transfer == "linear" and held[_DPX_AT["creator"] :].startswith(b"Lavc"):
        transfer = "srgb"  # ffmpeg 5 says linear of whatever it writes
    rates = (_rate_or_none(at(name, "f")[0]) for name in ("video_fps", "film_fps"))
    return ImageHeader(
        width,
        height,
        "dpx",
        f"dpx {descriptor}",
        bits,
        transfer,
        descriptor in _DPX_WITH_ALPHA,
        Fraction(1) if square else Fraction(across, down),
        next((rate for rate in rates if rate), None),
        _dpx_timecode(at("timecode", "I")[0]),
    )


def _dpx_timecode(packed: int) -> str | None:
    """Of a digit in every four bits. Zero is what programs write that know none."""
    digits = f"{packed:08x}"
    return ":".join(digits[at : at + 2] for at in range(0, 8, 2)) if packed and digits.isdecimal() else None


def _rate_or_none(fps: float) -> Fraction | None:
    return as_frame_rate(fps) if 1 <= fps <= 1000 else None  # what is undefined is NaN or huge


def _read_dpx(path: Path, header: ImageHeader) -> np.ndarray:
    """uint8 or uint16 RGB, all of the type's range used."""
    import ffmpeg as ffmpeg_python

    deep = header.bit_depth in (10, 12)
    pixels = f"gbrp{header.bit_depth}le" if deep else "rgb24" if header.bit_depth == 8 else "rgb48le"
    source = ffmpeg_python.input(local_url(path), f="dpx_pipe", protocol_whitelist=LOCAL_PROTOCOLS)
    output = source.output("-", f="rawvideo", pix_fmt=pixels, **{"frames:v": 1})
    command = output.global_args(*LOG_OPTIONS).compile(cmd=find_ffmpeg())
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_READ_TIMEOUT_S)
    values = np.frombuffer(done.stdout, np.uint8 if pixels == "rgb24" else "<u2")
    if values.size != header.width * header.height * 3:
        errors = ErrorLog()
        errors.follow(io.BytesIO(done.stderr))
        raise OSError(errors.first("its pixels can't be decoded"))
    if not deep:
        return values.reshape(header.height, header.width, 3)
    green, blue, red = values.reshape(3, header.height, header.width)
    most = (1 << header.bit_depth) - 1
    return np.rint(np.stack([red, green, blue], axis=2) * np.float32(65535 / most)).astype(np.uint16)
