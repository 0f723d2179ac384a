"""Pictures of every kind come out as they are seen, by a rule that is told, or are refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import OpenEXR
import pytest
from depth2video.plan.asked import AskedPicture
from depth2video.plan.picture import read_picture
from PIL import Image

SIDE = 16


def _read(path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    picture, notes = read_picture(AskedPicture(path), SIDE, SIDE)
    assert picture is not None and picture.shape == (SIDE, SIDE, 3) and picture.dtype == np.uint8
    return picture, notes


def _ramp(most: int) -> np.ndarray:
    return np.linspace(0, most, SIDE * SIDE).reshape(SIDE, SIDE)


def test_8_bit_colour_and_grey_are_taken_as_they_are(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    grey = np.rint(_ramp(255)).astype(np.uint8)
    for name, picture, wanted in (
        ("rgb.png", Image.fromarray(colours), colours),
        ("opaque.png", Image.fromarray(np.dstack([colours, np.full((SIDE, SIDE), 255, np.uint8)])), colours),
        ("grey.png", Image.fromarray(grey), np.repeat(grey[..., None], 3, axis=2)),
        ("palette.png", Image.fromarray(grey).convert("P"), np.repeat(grey[..., None], 3, axis=2)),
    ):
        picture.save(tmp_path / name)
        read, notes = _read(tmp_path / name)
        assert notes == (), name
        np.testing.assert_array_equal(read, wanted, err_msg=name)


@pytest.mark.parametrize("name", ["grey.png", "grey.tif"])
def test_16_bit_grey_keeps_its_shades(name: str, tmp_path: Path) -> None:
    values = np.rint(_ramp(65535)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / name)
    read, (note,) = _read(tmp_path / name)
    assert note == f"--image: {name} has 16 bits: 0 is black, 65535 white, in 8 bits"
    np.testing.assert_array_equal(read, np.repeat(np.rint(values / 257)[..., None], 3, axis=2))


@pytest.mark.parametrize("name", ["rgb.png", "rgb.tif"])
def test_16_bit_colours_are_rounded(name: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (SIDE, SIDE, 3), dtype=np.uint16)
    cv2.imwrite(str(tmp_path / name), values[..., ::-1])
    read, (note,) = _read(tmp_path / name)
    assert note == f"--image: {name} has 16 bits: 0 is black, 65535 white, in 8 bits"
    np.testing.assert_array_equal(read, np.rint(values / 257))


def test_16_bits_and_transparency_are_both_told(tmp_path: Path) -> None:
    values = np.full((SIDE, SIDE, 4), 65535, np.uint16)
    values[..., :3], values[: SIDE // 2, :, 3] = 10000, 0
    cv2.imwrite(str(tmp_path / "look.png"), values)
    read, notes = _read(tmp_path / "look.png")
    assert [note.split("look.png ")[1].split(" ")[0] for note in notes] == ["has", "is"]
    assert (read[: SIDE // 2] == 255).all() and (read[SIDE // 2 :] == round(10000 / 257)).all()


@pytest.mark.parametrize("suffix", ["tif", "exr"])
def test_linear_light_is_shown_as_srgb(suffix: str, tmp_path: Path) -> None:
    light = np.full((SIDE, SIDE, 3), 0.18, np.float32)
    light[0] = 7.0
    path = tmp_path / f"look.{suffix}"
    if suffix == "tif":
        cv2.imwrite(str(path), light, [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    else:
        OpenEXR.File({}, dict(zip("RGB", np.moveaxis(light, 2, 0).copy(), strict=True))).write(str(path))
    read, (note,) = _read(path)
    assert "holds scene-linear light: shown as sRGB, all above white is white" in note
    assert (read[0] == 255).all() and (read[1:] == 118).all()


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_lies_on_white(mode: str, tmp_path: Path) -> None:
    alpha = np.zeros((SIDE, SIDE), np.uint8)
    alpha[:, SIDE // 2 :] = 255
    red = np.zeros((SIDE, SIDE, 3), np.uint8)
    red[..., 0] = 200
    picture = Image.fromarray(np.dstack([red, alpha]))
    if mode == "LA":
        picture = Image.merge("LA", (Image.new("L", picture.size, 60), picture.getchannel("A")))
    if mode == "P":
        picture = Image.fromarray((alpha > 0).astype(np.uint8)).convert("P")
        picture.putpalette([9, 9, 9, 200, 0, 0])
        picture.info["transparency"] = 0
    picture.save(tmp_path / "look.png")
    read, (note,) = _read(tmp_path / "look.png")
    assert note == "--image: look.png is transparent in parts: laid on white"
    assert (read[:, : SIDE // 2] == 255).all()
    assert (read[:, SIDE // 2 :] == ([60] * 3 if mode == "LA" else [200, 0, 0])).all()


def test_half_transparent_is_half_white(tmp_path: Path) -> None:
    Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 128)).save(tmp_path / "look.png")
    read, _ = _read(tmp_path / "look.png")
    assert (abs(read.astype(int) - 127) <= 1).all()


def test_cmyk_and_several_pictures_are_told(tmp_path: Path) -> None:
    Image.new("CMYK", (SIDE, SIDE), (0, 255, 255, 0)).save(tmp_path / "print.tif")
    read, (note,) = _read(tmp_path / "print.tif")
    assert note == "--image: print.tif is CMYK: taken as RGB without its colour profile"
    assert (read == [255, 0, 0]).all()
    first, second = (Image.new("RGB", (SIDE, SIDE), colour) for colour in ((10, 20, 30), (200, 0, 0)))
    first.save(tmp_path / "two.tif", save_all=True, append_images=[second])
    read, (note,) = _read(tmp_path / "two.tif")
    assert note == "--image: two.tif holds 2 pictures: the first is taken" and (read == [10, 20, 30]).all()


def test_values_without_a_white_are_refused(tmp_path: Path) -> None:
    Image.fromarray(_ramp(2_000_000).astype(np.int32)).save(tmp_path / "counts.tif")
    with pytest.raises(ValueError, match="--image: .*counts.tif .*grey runs from 0 to 2000000; 8 or 16 bits"):
        _read(tmp_path / "counts.tif")


def test_a_fit_without_a_picture_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="--image-fit: 'stretch' is not known; accepted: crop, pad"):
        read_picture(AskedPicture(None, "stretch"), SIDE, SIDE)
    assert read_picture(AskedPicture(), SIDE, SIDE) == (None, ())


def test_a_picture_on_its_side_is_turned(tmp_path: Path) -> None:
    picture = Image.new("RGB", (SIDE, SIDE))
    picture.paste((250, 250, 250), (0, 0, SIDE, 4))
    turned = Image.Exif()
    turned[0x0112] = 6  # shown a quarter turn clockwise
    picture.save(tmp_path / "look.png", exif=turned)
    read, _ = _read(tmp_path / "look.png")
    assert read[:, -1].mean() > 200 > 50 > read[:, 0].mean()
