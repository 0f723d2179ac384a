"""Pictures of every kind of file come out as they are seen: files by their own writers, values by their formulae."""

from __future__ import annotations

import struct
import subprocess
import zlib
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import OpenEXR
import pytest
from PIL import Image

from depth_engine.video.ffmpeg_process import find_ffmpeg
from depth_engine.video.image_file import read_header, read_image
from depth_engine.video.probe import VideoError
from depth_engine.video.read import probe, read_frames
from depth_engine.video.take import Take, check_source
from tests.clips import run_ffmpeg

HEIGHT, WIDTH = 6, 10
# Scene-linear light, and the 8-bit sRGB that shows it (IEC 61966-2-1, worked out by hand); above white, below black.
LIGHT = {0.0: 0, 0.002: 7, 0.18: 118, 0.5: 188, 1.0: 255, 4.0: 255, -0.5: 0}
# Counts of 1023 in Cineon's film density: black, mid-grey, white, brighter than white.
DENSITY = {0: 0, 95: 0, 470: 119, 685: 255, 1023: 255}


def _write_exr(path: Path, channels: dict[str, np.ndarray], **header: Any) -> Path:
    whole = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage, **header}
    OpenEXR.File(whole, channels).write(str(path))
    return path


def _flat(value: float, dtype: type = np.float32) -> np.ndarray:
    return np.full((HEIGHT, WIDTH), value, dtype)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_exr_is_linear_light(tmp_path: Path, dtype: type) -> None:
    rows = np.repeat(np.array(list(LIGHT), dtype)[:, None], WIDTH, axis=1)
    path = _write_exr(tmp_path / "a.exr", {"R": rows, "G": rows[::-1].copy(), "B": rows * 0})
    seen = read_image(path)
    wanted = np.array(list(LIGHT.values()))
    assert (abs(seen[:, 0, 0].astype(int) - wanted) <= 1).all() and (seen[:, 0, 1] == seen[::-1, 0, 0]).all()
    assert (seen[..., 2] == 0).all()
    info = probe(path)
    assert (info.width, info.height, info.bit_depth, info.transfer) == (WIDTH, len(LIGHT), 32, "linear")
    assert any("scene-linear light shown as sRGB" in note for note in info.notes)
    np.testing.assert_array_equal(read_image(path, "srgb")[2, 0, 0], round(0.18 * 255))


def test_exr_not_a_number_is_black(tmp_path: Path) -> None:
    path = _write_exr(tmp_path / "a.exr", dict.fromkeys("RGB", np.array([[np.nan, np.inf, 1.0]], np.float32)))
    assert read_image(path)[0, :, 0].tolist() == [0, 255, 255]


def test_exr_shows_its_display_window(tmp_path: Path) -> None:
    stored = np.ones((4, 5), np.float32)
    window = (np.array([3, 1], np.int32), np.array([7, 4], np.int32))  # reaches out to the right
    display = (np.array([0, 0], np.int32), np.array([5, 6], np.int32))
    path = _write_exr(tmp_path / "a.exr", dict.fromkeys("RGB", stored), dataWindow=window, displayWindow=display)
    wanted = np.zeros((7, 6), np.uint8)
    wanted[1:5, 3:] = 255
    np.testing.assert_array_equal(read_image(path)[..., 0], wanted)
    assert (probe(path).width, probe(path).height) == (6, 7)
    window = (np.array([-2, -3], np.int32), np.array([2, 0], np.int32))  # overscan to the left and on top
    path = _write_exr(tmp_path / "b.exr", dict.fromkeys("RGB", stored), dataWindow=window, displayWindow=display)
    wanted = np.zeros((7, 6), np.uint8)
    wanted[:1, :3] = 255
    np.testing.assert_array_equal(read_image(path)[..., 0], wanted)


def test_exr_layers_grey_and_depth(tmp_path: Path) -> None:
    layered = {f"ViewLayer.Combined.{name}": _flat(value) for name, value in zip("RGBA", (1, 0, 1, 0.5), strict=True)}
    path = _write_exr(tmp_path / "layers.exr", {**layered, "ViewLayer.Depth.Z": _flat(9)})
    assert read_image(path)[0, 0].tolist() == [255, 0, 255] and "alpha dropped" in probe(path).notes
    assert read_image(_write_exr(tmp_path / "grey.exr", {"Y": _flat(1)}))[0, 0].tolist() == [255] * 3
    for channels in ({"Z": _flat(1)}, {"Y": _flat(1), "Z": _flat(1)}):
        path = _write_exr(tmp_path / "depth.exr", channels)
        with pytest.raises(VideoError, match=r"depth.exr: has channels .*no R, G and B of a picture; depth is given"):
            probe(path)


def test_exr_says_pixel_aspect_and_timecode(tmp_path: Path) -> None:
    code = OpenEXR.TimeCode()
    code.hours, code.minutes, code.seconds, code.frame = 1, 2, 3, 4
    path = _write_exr(tmp_path / "a.exr", dict.fromkeys("RGB", _flat(1)), pixelAspectRatio=2.0, timeCode=code)
    info = probe(path)
    assert info.sample_aspect == 2 and info.timecode == "01:02:03:04"
    assert Take(path, fps=24).timecode(info) == "01:02:03:04"


def _write_dpx(path: Path, pixel_format: str, values: np.ndarray) -> Path:
    """By ffmpeg, of the values that this pixel format holds."""
    size = f"{values.shape[1]}x{values.shape[0]}"
    source = ["-f", "rawvideo", "-pix_fmt", pixel_format, "-s", size, "-i", "-"]
    planes = values if not pixel_format.startswith("gbr") else values[..., [1, 2, 0]].transpose(2, 0, 1)
    command = [find_ffmpeg(), "-v", "error", "-y", *source, "-pix_fmt", pixel_format, str(path)]
    subprocess.run(command, input=planes.tobytes(), check=True, timeout=60)
    return path


@pytest.mark.parametrize(
    ("pixel_format", "bits"), [("rgb24", 8), ("gbrp10be", 10), ("gbrp12be", 12), ("rgb48be", 16), ("rgba", 8)]
)
def test_dpx_of_any_depth(tmp_path: Path, pixel_format: str, bits: int) -> None:
    most = 2**bits - 1
    ramp = np.rint(np.linspace(0, most, HEIGHT * WIDTH)).reshape(HEIGHT, WIDTH)
    colors = np.stack([ramp, ramp[::-1], np.full_like(ramp, most)], axis=2)
    held = colors if pixel_format != "rgba" else np.dstack([colors, ramp])
    path = _write_dpx(tmp_path / "a.%04d.dpx", pixel_format, held.astype(np.uint8 if bits == 8 else ">u2"))
    path = tmp_path / "a.0001.dpx"
    header = read_header(path)
    assert (header.width, header.height, header.bit_depth, header.transfer) == (WIDTH, HEIGHT, bits, "srgb")
    assert header.has_alpha == (pixel_format == "rgba")
    seen = read_image(path).astype(int)
    np.testing.assert_allclose(seen, colors * (255 / most), atol=0.51)


def test_dpx_of_a_film_scan_is_logarithmic(tmp_path: Path) -> None:
    counts = np.repeat(np.array(list(DENSITY), np.uint16)[:, None], WIDTH, axis=1)
    _write_dpx(tmp_path / "%d.dpx", "gbrp10be", np.repeat(counts[..., None], 3, axis=2).astype(">u2"))
    path = tmp_path / "1.dpx"
    plain = read_image(path)[:, 0, 0]
    held = bytearray(path.read_bytes())
    held[801] = 1  # printing density
    held[struct.unpack_from(">I", held, 4)[0] :] = b"\0" * 384 + held[struct.unpack_from(">I", held, 4)[0] :]
    struct.pack_into(">I", held, 4, 2048)
    struct.pack_into(">II", held, 1628, 2, 1)
    struct.pack_into(">I", held, 1920, 0x01020304)
    struct.pack_into(">f", held, 1724, 23.976)
    path.write_bytes(held)
    info = probe(path)
    assert (info.transfer, info.sample_aspect, info.timecode) == ("log", 2, "01:02:03:04")
    assert info.fps == Fraction(24000, 1001)
    seen = read_image(path)[:, 0, 0]
    assert (abs(seen.astype(int) - list(DENSITY.values())) <= 1).all()
    np.testing.assert_array_equal(read_image(path, "srgb")[:, 0, 0], plain)


def test_dpx_that_says_linear_is_believed_but_of_ffmpeg(tmp_path: Path) -> None:
    _write_dpx(tmp_path / "%d.dpx", "rgb24", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    path = tmp_path / "1.dpx"
    held = bytearray(path.read_bytes())
    held[801] = 2
    path.write_bytes(held)
    assert held[160:164] == b"Lavc" and read_header(path).transfer == "srgb"
    held[160:164] = b"Nuke"
    path.write_bytes(held)
    assert read_header(path).transfer == "linear"


def test_dpx_that_is_cut_off(tmp_path: Path) -> None:
    _write_dpx(tmp_path / "%d.dpx", "rgb24", np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    whole = (tmp_path / "1.dpx").read_bytes()
    (tmp_path / "1.dpx").write_bytes(whole[:-40])
    with pytest.raises(OSError, match="\\w"):
        read_image(tmp_path / "1.dpx")
    (tmp_path / "1.dpx").write_bytes(whole[:700])
    with pytest.raises(VideoError, match=r"1.dpx: not an image that can be read"):
        probe(tmp_path / "1.dpx")


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_colours_are_rounded_not_cut(tmp_path: Path, suffix: str, channels: int) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (HEIGHT, WIDTH, channels), dtype=np.uint16)
    path = tmp_path / f"a.{suffix}"
    cv2.imwrite(str(path), values[..., [2, 1, 0, 3][:channels]])
    info = probe(path)
    assert (info.bit_depth, info.has_alpha, info.transfer) == (16, channels == 4, "srgb")
    assert "16-bit reduced to 8-bit" in info.notes
    np.testing.assert_array_equal(read_image(path), np.rint(values[..., :3] / 257))
    linear = read_image(path, "linear").astype(float)
    light = values[..., :3] / 65535
    bright = light > 0.01
    np.testing.assert_allclose(linear[bright], 255 * (1.055 * light[bright] ** (1 / 2.4) - 0.055), atol=0.6)


@pytest.mark.parametrize(("channels", "compression"), [(1, 1), (3, 1), (3, 34677)])  # none, and SGI's LogLuv
def test_float_tiff_is_linear_light(tmp_path: Path, channels: int, compression: int) -> None:
    shown = {light: seen for light, seen in LIGHT.items() if light >= 0}  # LogLuv knows no others
    rows = np.tile(np.array(list(shown), np.float32)[:, None, None], (1, WIDTH, channels))
    path = tmp_path / "a.tif"
    cv2.imwrite(str(path), rows.squeeze(), [cv2.IMWRITE_TIFF_COMPRESSION, compression])
    info = probe(path)
    assert (info.width, info.height, info.transfer) == (WIDTH, len(shown), "linear")
    assert (abs(read_image(path)[:, 0].astype(int) - np.array(list(shown.values()))[:, None]) <= 1).all()


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_deep_picture_on_its_side_is_turned(tmp_path: Path, suffix: str, orientation: int) -> None:
    """As Pillow turns one of 8 bits."""
    bytes_ = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(bytes_).save(tmp_path / f"8.{suffix}", **_tagged(suffix, orientation))
    path = tmp_path / f"16.{suffix}"
    cv2.imwrite(str(path), bytes_[..., ::-1].astype(np.uint16) * 257, [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    held = bytearray(path.read_bytes())
    if suffix == "png":
        chunk = b"eXIf" + _exif(orientation).tobytes().removeprefix(b"Exif\0\0")
        held[33:33] = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    else:
        at = held.index(struct.pack("<HHI", 284, 3, 1))  # how planes lie, a tag that may be left out: a short
        struct.pack_into("<HHIH", held, at, 274, 3, 1, orientation)
    path.write_bytes(held)
    info = probe(path)
    assert info.bit_depth == 16 and (info.width < info.height) == (orientation > 4)
    np.testing.assert_array_equal(read_image(path), read_image(tmp_path / f"8.{suffix}"))


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def _tagged(suffix: str, orientation: int) -> dict[str, Any]:
    return {"exif": _exif(orientation)} if suffix == "png" else {"tiffinfo": {274: orientation}}


def test_sequences_and_single_files_are_read_alike(tmp_path: Path) -> None:
    for number in range(3):
        rows = np.full((HEIGHT, WIDTH), 0.1 * number, np.float32)
        _write_exr(tmp_path / f"plate.{1001 + number}.exr", dict.fromkeys("RGB", rows))
    pattern = tmp_path / "plate.####.exr"
    for source in (tmp_path, pattern):
        frames = list(read_frames(source))
        assert [frame.name for frame in frames] == ["plate.1001", "plate.1002", "plate.1003"]
        for number, frame in enumerate(frames):
            np.testing.assert_array_equal(frame.rgb, read_image(tmp_path / f"plate.{1001 + number}.exr"))
    assert next(read_frames(pattern, start_s=1 / 24, transfer="srgb")).rgb[0, 0, 0] == round(0.1 * 255)
    assert check_source(Take(pattern, transfer="log")).transfer == "log"


def test_a_transfer_is_checked(tmp_path: Path) -> None:
    path = _write_exr(tmp_path / "a.exr", dict.fromkeys("RGB", _flat(1)))
    with pytest.raises(ValueError, match="transfer: 'lin' is not known; .*accepted: srgb, linear, log"):
        probe(path, transfer="lin")
    run_ffmpeg(tmp_path / "clip.mp4", "-f", "lavfi", "-i", "testsrc2=s=64x64:d=0.2")
    with pytest.raises(VideoError, match="transfer: linear is not accepted; it is for images, a video has its own"):
        probe(tmp_path / "clip.mp4", transfer="linear")
    cv2.imwrite(str(tmp_path / "a.tif"), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    (tmp_path / "seq").mkdir()
    (tmp_path / "a.tif").rename(tmp_path / "seq" / "1.tif")
    cv2.imwrite(
        str(tmp_path / "seq" / "2.tif"), np.zeros((HEIGHT, WIDTH, 3), np.float32), [cv2.IMWRITE_TIFF_COMPRESSION, 1]
    )
    with pytest.raises(VideoError, match="2.tif: holds linear values but 1.tif srgb ones; say what all are"):
        probe(tmp_path / "seq")
    assert probe(tmp_path / "seq", transfer="linear").transfer == "linear"
