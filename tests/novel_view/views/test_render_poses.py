"""`novel-view render` with cameras of the clip: holes filled from other frames, a steadied path, a resumed run."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from depth_train.scenes.procedural.clips import make_clips
from novel_view.cli import main
from scipy.spatial.transform import Rotation

from depth_engine import DepthVideo
from depth_engine.geometry.cameras import opengl_from_opencv
from depth_engine.geometry.poses import PoseResult, load_poses
from depth_engine.video.read import read_frames
from depth_engine.video.write import VideoWriter

HEIGHT, WIDTH, FRAMES, FPS = 72, 128, 30, 24


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a still scene's clip, its true depth and its true poses."""
    folder = tmp_path_factory.mktemp("scene")
    clip = make_clips([3], FRAMES, HEIGHT, WIDTH)[0]
    times = np.arange(FRAMES) / FPS
    with VideoWriter(folder / "clip.mkv", width=WIDTH, height=HEIGHT, fps=FPS, codec="ffv1") as writer:
        for time_s, rgb in zip(times, clip.rgb.numpy(), strict=True):
            writer.write(rgb, float(time_s))
    depth_m = np.minimum(clip.depth_m.numpy(), 200).astype(np.float32)
    DepthVideo(depth_m, "metric", times, Fraction(FPS)).save(folder / "depth.npy")
    poses = PoseResult(
        method="colmap",
        height=HEIGHT,
        width=WIDTH,
        K=clip.K.numpy(),
        fov_by="given",
        world_from_camera=clip.world_from_camera.numpy(),
        times_s=times,
        registered=tuple(range(FRAMES)),
        depth_kind="metric",
        scale=1.0,
        shift=0.0,
        alignment_error=0.0,
        reprojection_px=0.0,
        points=np.zeros((0, 3)),
        colors=np.zeros((0, 3), np.uint8),
    )
    poses.save(folder / "poses.json")
    return folder


def render(scene: Path, out: Path, *options: object) -> Result:
    common = ["--depth", scene / "depth.npy", "--poses", scene / "poses.json", "--codec", "ffv1", "--no-shots"]
    arguments = ["render", scene / "clip.mkv", "-o", out, *common, *options]
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def pictures(path: Path) -> np.ndarray:
    return np.stack([frame.rgb for frame in read_frames(path)])


def test_other_frames_fill_what_they_saw(scene: Path, tmp_path: Path) -> None:
    lateral = ("--path", "lateral", "--amplitude", 15, "--period", 2)
    holes = {}
    for fill in ("none", "spatial", "temporal"):
        result = render(
            scene, tmp_path / f"{fill}.mkv", *lateral, "--fill", fill, "--mask-out", tmp_path / f"{fill}-m.mkv"
        )
        assert result.exit_code == 0, result.output
        holes[fill] = pictures(tmp_path / f"{fill}-m.mkv")[..., 0] > 0
    assert np.array_equal(holes["temporal"], holes["none"]) and np.array_equal(holes["spatial"], holes["none"])
    plain, painted, filled = (pictures(tmp_path / f"{fill}.mkv") for fill in ("none", "spatial", "temporal"))
    taken = (filled != painted).any(axis=-1)
    assert taken[holes["none"]].mean() > 0.2
    assert np.array_equal(filled[~holes["none"]], plain[~holes["none"]])
    settings = json.loads((tmp_path / "temporal.json").read_text())["settings"]
    assert settings["placement"]["by"] == "poses"


def test_a_resumed_temporal_run_ends_in_the_same_bytes(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--path", "lateral", "--amplitude", 15, "--fill", "temporal")
    assert render(scene, tmp_path / "whole" / "new.mkv", *options).exit_code == 0
    from depth_engine.runs.pieces import Piece, PieceStore

    append = PieceStore.append

    def dies(self: PieceStore, piece: Piece) -> None:
        if self.count == 1:
            raise KeyboardInterrupt
        append(self, piece)

    monkeypatch.setattr("depth_engine.runs.pieces._KEEP_EVERY_FRAMES", 4)
    monkeypatch.setattr(PieceStore, "append", dies)
    assert render(scene, tmp_path / "parts" / "new.mkv", *options).exit_code == 130
    monkeypatch.undo()
    result = render(scene, tmp_path / "parts" / "new.mkv", *options, "--resume")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "parts" / "new.mkv").read_bytes() == (tmp_path / "whole" / "new.mkv").read_bytes()


def test_a_shaken_camera_is_steadied(scene: Path, tmp_path: Path) -> None:
    """The clip is taken from where it is; steadied, the view is that of the averaged path."""
    result = render(scene, tmp_path / "calm.mkv", "--path", "stabilize", "--smooth", 0.2, "--fill", "none")
    assert result.exit_code == 0, result.output
    calm, clip = pictures(tmp_path / "calm.mkv"), pictures(scene / "clip.mkv")
    assert calm.shape == clip.shape
    # at both ends the average is the frame's own camera
    assert np.array_equal(calm[0], clip[0]) and np.array_equal(calm[-1], clip[-1])


def test_poses_of_another_clip_are_refused(scene: Path, tmp_path: Path) -> None:
    from depth_engine.geometry.poses import load_poses

    other = replace(load_poses(scene / "poses.json"), height=HEIGHT * 2)
    other.save(tmp_path / "other.json")
    result = render(scene, tmp_path / "new.mkv", "--poses", tmp_path / "other.json")
    assert result.exit_code == 2 and "--poses" in result.output
    result = render(scene, tmp_path / "new.mkv", "--near", 1, "--far", 2)
    assert result.exit_code == 2 and "the poses say them already" in result.output


def viewer_path(scene: Path, folder: Path, moved: np.ndarray, scale: float) -> Path:
    """The clip's own cameras as nerfstudio's viewer saves them after training on the export: turned, moved, smaller."""
    poses = load_poses(scene / "poses.json").world_from_camera
    trained = moved @ np.diag([1.0, -1, -1, 1]) @ opengl_from_opencv(poses)
    trained[:, :3, 3] *= scale
    fov_deg = float(np.degrees(2 * np.arctan(HEIGHT / 2 / load_poses(scene / "poses.json").K[1, 1])))
    cameras = [{"camera_to_world": pose.ravel().tolist(), "fov": fov_deg} for pose in trained]
    keys = [{"matrix": str(cameras[0]["camera_to_world"]), "fov": fov_deg}]
    file = folder / "viewer.json"
    file.write_text(json.dumps({"keyframes": keys, "seconds": (FRAMES - 1) / FPS, "camera_path": cameras}))
    (folder / "dataparser_transforms.json").write_text(json.dumps({"transform": moved[:3].tolist(), "scale": scale}))
    return file


def test_a_path_of_nerfstudios_viewer_leaves_the_frame_of_training(scene: Path, tmp_path: Path) -> None:
    moved = np.eye(4)
    moved[:3, :3], moved[:3, 3] = Rotation.from_euler("XYZ", [20, 100, -30], degrees=True).as_matrix(), (3, -2, 5)
    path = viewer_path(scene, tmp_path, moved, scale=0.2)
    transforms = tmp_path / "dataparser_transforms.json"
    result = render(scene, tmp_path / "same.mkv", "--path", path, "--transforms", transforms)
    assert result.exit_code == 0, result.output
    assert "no frame shows" not in result.output
    shown = np.stack([frame.rgb for frame in read_frames(tmp_path / "same.mkv")]).astype(int)
    clip = np.stack([frame.rgb for frame in read_frames(scene / "clip.mkv")])
    assert np.abs(shown - clip).mean() < 2
    for options, text in (
        (("--path", "orbit", "--transforms", transforms), "--transforms: is for camera paths"),
        (("--path", path, "--transforms", path), "has no transform and scale"),
    ):
        result = render(scene, tmp_path / "not.mkv", *options)
        assert result.exit_code == 2 and text in result.output


def test_a_path_that_sees_nothing_says_why(scene: Path, tmp_path: Path) -> None:
    away = np.eye(4)  # far beyond the scene, looking on
    away[:3, 3] = 5000 * load_poses(scene / "poses.json").world_from_camera[0, :3, 2] * (1, -1, -1)
    path = viewer_path(scene, tmp_path, away, scale=1.0)
    result = render(scene, tmp_path / "none.mkv", "--path", path)
    assert result.exit_code == 0 and "no frame shows anything" in result.output and "--transforms" in result.output
    assert any("no frame shows" in note for note in json.loads((tmp_path / "none.json").read_text())["notes"])
