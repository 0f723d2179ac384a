from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from depth_train.footage import Footage, read_footage
from depth_train.score_footage import score_footage
from PIL import Image

CLIPS = Path(__file__).resolve().parents[2].parent / "shared" / "clips"


def write_tum(folder: Path, frames: int = 3, late_s: float = 0.0) -> None:
    (folder / "rgb").mkdir(parents=True)
    (folder / "depth").mkdir()
    rgb, depth = ["# colour"], ["# depth"]
    for i in range(frames):
        Image.fromarray(np.full((24, 32, 3), 40 * i, dtype=np.uint8)).save(folder / "rgb" / f"{i}.png")
        held = np.full((24, 32), 5000 * (i + 1), dtype=np.uint16)
        held[:12] = 0
        Image.fromarray(held).save(folder / "depth" / f"{i}.png")
        rgb.append(f"{i * 0.1:.3f} rgb/{i}.png")
        depth.append(f"{i * 0.1 + late_s:.3f} depth/{i}.png")
    (folder / "rgb.txt").write_text("\n".join(rgb))
    (folder / "depth.txt").write_text("\n".join(depth))


def test_tum_folders_give_metres_where_depth_is_known(tmp_path: Path) -> None:
    write_tum(tmp_path / "room", late_s=0.004)
    footage = read_footage(tmp_path / "room", 2)
    assert footage.name == "room" and footage.truth == "sensor" and len(footage.frames) == 2
    for i in range(2):
        assert np.allclose(footage.depth_m[i], i + 1)
        assert footage.pixels[i][:, 1].min() > 12 and len(footage.pixels[i]) > 20


def test_frames_without_depth_at_their_time_are_left_out(tmp_path: Path) -> None:
    write_tum(tmp_path / "room", late_s=0.05)
    with pytest.raises(ValueError, match="no frame with depth"):
        read_footage(tmp_path / "room", 9)


def test_what_is_no_footage_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--footage: .*no such"):
        read_footage(tmp_path / "nothing.mp4", 9)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"no rgb\.txt"):
        read_footage(tmp_path / "empty", 9)


def made_up(noise: float = 0.0) -> tuple[Footage, np.ndarray]:
    """A floor that comes nearer downwards, and disparity of it in another scale and shift."""
    rng = np.random.default_rng(0)
    disparity = np.linspace(0.1, 1, 40)[:, None] * np.ones((1, 50)) + rng.uniform(0, 0.3, (4, 40, 50))
    rows, columns = (values.ravel() for values in np.indices((40, 50)))
    pixels = np.stack([columns, rows], axis=1) + 0.5
    frames = [np.zeros((40, 50, 3), dtype=np.uint8)] * 4
    depth = [1 / frame.ravel() for frame in disparity]
    values = 3 * disparity + 2 + rng.normal(0, noise, disparity.shape)
    return Footage("made up", frames, [pixels] * 4, depth, "sensor"), values.astype(np.float32)


def test_true_depth_scores_full_whatever_its_scale_and_shift() -> None:
    footage, values = made_up()
    score = score_footage(values, footage)["depth"]
    assert score.delta1 == 1 and score.abs_rel < 1e-4 and score.spearman > 0.9999 and score.drift < 1e-4


def test_scores_fall_with_noise_and_stand_beside_row_and_constant() -> None:
    footage, values = made_up(0.4)
    scores = score_footage(values, footage)
    assert scores["constant"].delta1 < scores["depth"].delta1 < 1
    assert 0.5 < scores["image row"].spearman < 1 and scores["constant"].spearman == 0


def test_a_level_that_wanders_is_drift() -> None:
    footage, values = made_up()
    steady = score_footage(values, footage)["depth"]
    wandering = score_footage(values * np.linspace(0.8, 1.2, 4)[:, None, None], footage)["depth"]
    assert wandering.drift > 0.15 > steady.drift


@pytest.mark.skipif(not CLIPS.is_dir(), reason="needs real footage")
def test_real_rgbd_is_read() -> None:
    footage = read_footage(CLIPS / "rgbd_desk", 3)
    assert len(footage.frames) == 3
    assert 0.4 < np.median(np.concatenate(footage.depth_m)) < 5
