"""Names and numbers of an image sequence reach the folders of frames that are made of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from depth_engine import DepthVideo
from depth_engine.cli.main import main
from depth_engine.depth.source import open_depth

NAMES = ["plate.-001", "plate.0000", "plate.1001", "plate.1003"]  # with gaps


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("names")
    (folder / "shot").mkdir()
    for index, name in enumerate(NAMES):
        picture = np.random.default_rng(index).integers(0, 255, (16, 16, 3), np.uint8)
        Image.fromarray(picture).save(folder / "shot" / f"{name}.png")
    arguments = ["estimate", folder / "shot", "-o", folder / "out", "--format", "npy,png16,exr", "--quiet"]
    done = CliRunner().invoke(main, [*map(str, arguments), "--device", "cpu"])
    assert done.exit_code == 0, done.output
    return folder / "out" / "shot"


def test_frames_keep_the_names_of_the_images(made: Path) -> None:
    for format, suffix in (("png16", ".png"), ("exr", ".exr")):
        assert {path.name for path in (made / f"depth_{format}").iterdir()} == {f"{name}{suffix}" for name in NAMES}
    assert json.loads((made / "depth.json").read_text())["frame_names"] == NAMES


def test_they_are_read_back_in_order(made: Path) -> None:
    wanted = np.load(made / "depth.npy")
    np.testing.assert_array_equal(DepthVideo.load(made / "depth_exr").values, wanted)
    np.testing.assert_allclose(DepthVideo.load(made / "depth_png16").values, wanted, atol=1e-4)
    np.testing.assert_array_equal(list(open_depth(made / "depth_exr").open()), wanted)


def test_saving_again_keeps_them(made: Path, tmp_path: Path) -> None:
    depth = DepthVideo.load(made / "depth.npy")
    folder = depth.save(tmp_path / "again" / "depth", "exr")
    assert sorted(path.stem for path in folder.iterdir()) == sorted(NAMES)
    np.testing.assert_array_equal(DepthVideo.load(folder).values, depth.values)
    part = DepthVideo(depth.values[:2], depth.kind, depth.times_s[:2], depth.fps, depth.meta)
    folder = part.save(tmp_path / "part" / "depth", "exr")
    assert sorted(path.name for path in folder.iterdir()) == ["000000.exr", "000001.exr"], "they are of another clip"
    assert len(DepthVideo.load(folder)) == 2


def test_a_missing_frame_is_named(made: Path, tmp_path: Path) -> None:
    folder = DepthVideo.load(made / "depth.npy").save(tmp_path / "depth", "png16")
    (folder / "plate.1001.png").unlink()
    with pytest.raises(ValueError, match=r"frame 2 \(plate.1001.png\) is missing"):
        DepthVideo.load(folder)
