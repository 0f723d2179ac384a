"""Depth of this and of other tools, read frame by frame."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
from PIL import Image

from depth_engine import DepthVideo
from depth_engine.depth.source import open_depth

VALUES = np.random.default_rng(0).uniform(0, 1, (3, 6, 8)).astype(np.float32)


def _npy(folder: Path) -> Path:
    np.save(folder / "d.npy", VALUES)
    return folder / "d.npy"


def _npz(folder: Path) -> Path:
    np.savez_compressed(folder / "d.npz", depths=VALUES, fps=25.0)
    return folder / "d.npz"


def _png16(folder: Path) -> Path:
    (folder / "pngs").mkdir()
    for index, frame in enumerate(VALUES):
        Image.fromarray(np.rint(frame * 65535).astype(np.uint16)).save(folder / "pngs" / f"d{index + 9}.png")
    return folder / "pngs"


def _png8_as_colour(folder: Path) -> Path:
    (folder / "pngs").mkdir()
    for index, frame in enumerate(VALUES):
        grey = np.rint(frame * 255).astype(np.uint8)
        Image.fromarray(np.repeat(grey[..., None], 3, 2)).save(folder / "pngs" / f"{index}.png")
    return folder / "pngs"


def _exr(folder: Path) -> Path:
    (folder / "exrs").mkdir()
    for index, frame in enumerate(VALUES):
        header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
        with OpenEXR.File(header, {"Y": frame}) as image:
            image.write(str(folder / "exrs" / f"{index}.exr"))
    return folder / "exrs"


def _mkv(folder: Path) -> Path:
    video = DepthVideo(VALUES, "disparity", np.arange(3) / 25, Fraction(25))
    path = video.save(folder / "d.mkv")
    (folder / "d.json").unlink()
    return path


@pytest.mark.parametrize(
    ("make", "step"),
    [(_npy, 0), (_npz, 0), (_png16, 1 / 65535), (_png8_as_colour, 1 / 255), (_exr, 1e-7), (_mkv, 1 / 65535)],
)
def test_files_of_other_tools(make: Callable[[Path], Path], step: float, tmp_path: Path) -> None:
    path = make(tmp_path)
    with pytest.raises(ValueError, match="give --depth-kind"):
        open_depth(path)
    source = open_depth(path, "disparity")
    assert (source.kind, source.height, source.width, source.shots) == ("disparity", 6, 8, None)
    assert source.frame_count in (3, None)
    for _ in range(2):  # it can be read again
        np.testing.assert_allclose(np.stack(list(source.open())), VALUES, atol=step)


def test_own_files_say_what_they_are(tmp_path: Path) -> None:
    meta = {"shots": [0, 2]}
    DepthVideo(VALUES * 9 + 1, "metric", np.arange(3) / 25, Fraction(25), meta).save(tmp_path / "d.npy")
    for path in (tmp_path / "d.npy", tmp_path / "d.json", tmp_path):
        source = open_depth(path)
        assert (source.kind, source.frame_count, source.shots) == ("metric", 3, (0, 2))
        np.testing.assert_allclose(np.stack(list(source.open())), VALUES * 9 + 1)
    with pytest.raises(ValueError, match="contradicts metric"):
        open_depth(tmp_path, "depth")


def test_relative_depth_of_any_range_is_brought_to_one_for_the_whole_clip(tmp_path: Path) -> None:
    np.save(tmp_path / "d.npy", VALUES[:, None] * 300 - 20)  # [T, 1, H, W]
    source = open_depth(tmp_path / "d.npy", "disparity")
    read = np.stack(list(source.open()))
    lo, hi = VALUES.min(), VALUES.max()
    np.testing.assert_allclose(read, (VALUES - lo) / (hi - lo), atol=1e-5)
    assert "brought to [0, 1]" in source.notes[0]
    np.save(tmp_path / "counts.npy", np.rint(VALUES * 65535).astype(np.uint16))
    counts = open_depth(tmp_path / "counts.npy", "depth")
    np.testing.assert_allclose(np.stack(list(counts.open())), VALUES, atol=1e-5)


def test_what_is_no_depth_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="none.npy does not exist"):
        open_depth(tmp_path / "none.npy")
    (tmp_path / "d.npy").write_bytes(b"text")
    with pytest.raises(ValueError, match="can't be read as an array"):
        open_depth(tmp_path / "d.npy", "depth")
    np.save(tmp_path / "flat.npy", VALUES[0])
    with pytest.raises(ValueError, match=r"float32 \[6, 8\]; numbers \[T, H, W\]"):
        open_depth(tmp_path / "flat.npy", "depth")
    np.savez(tmp_path / "two.npz", left=VALUES, right=VALUES)
    with pytest.raises(ValueError, match="left, right"):
        open_depth(tmp_path / "two.npz", "depth")
    (tmp_path / "d.avi").touch()
    with pytest.raises(ValueError, match="d.avi is not accepted"):
        open_depth(tmp_path / "d.avi", "depth")
    with pytest.raises(ValueError, match="depth-kind: 'inverse'"):
        open_depth(tmp_path / "flat.npy", "inverse")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no png or exr"):
        open_depth(tmp_path / "empty", "depth")
    pngs = _png16(tmp_path)
    with pytest.raises(ValueError, match="have no unit"):
        open_depth(pngs, "metric")
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(pngs / "d99.png")
    with pytest.raises(ValueError, match="d99.png has shape"):
        list(open_depth(pngs, "depth").open())
