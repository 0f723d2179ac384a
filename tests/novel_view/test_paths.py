import json
from pathlib import Path

import numpy as np
import pytest
from novel_view.path_files import load_path
from novel_view.paths import PATHS, NamedPath, stabilized


@pytest.mark.parametrize("name", PATHS)
def test_every_path_begins_where_the_clip_was_taken(name: str) -> None:
    view = NamedPath(name, amplitude_percent=20)(0.0)
    if name != "handheld":  # a hand has no rest
        np.testing.assert_allclose(view.pose, np.eye(4), atol=1e-12)
        assert view.zoom == 1
    assert not view.in_world


@pytest.mark.parametrize("name", PATHS)
def test_amplitude_bounds_the_move_and_the_move_is_smooth(name: str) -> None:
    path = NamedPath(name, amplitude_percent=20, period_s=2)
    times = np.linspace(0, 6, 601)
    poses = np.array([path(time).pose for time in times])
    places = poses[:, :3, 3]
    reach = np.linalg.norm(places, axis=1)
    assert reach.max() <= 0.2 * 1.12  # an orbit's height is half its width
    moved = reach.max() > 0.08 or path(3.0).zoom > 1.1
    assert moved
    assert np.linalg.norm(np.diff(places, axis=0), axis=1).max() < 0.02
    np.testing.assert_allclose(
        poses[:, :3, :3] @ poses[:, :3, :3].transpose(0, 2, 1), np.eye(3)[None] + 0 * poses[:, :3, :3], atol=1e-9
    )


def test_orbit_and_arc_look_at_the_middle() -> None:
    for name in ("orbit", "arc"):
        pose = NamedPath(name, amplitude_percent=30)(0.7).pose
        aim = np.linalg.inv(pose) @ [0, 0, 1, 1]
        np.testing.assert_allclose(aim[:2], 0, atol=1e-9)
    arc = NamedPath("arc", amplitude_percent=30)
    assert all(abs(np.linalg.norm(arc(time).pose[:3, 3] - [0, 0, 1]) - 1) < 1e-9 for time in np.linspace(0, 4, 20))


def test_dolly_zoom_keeps_the_subject_its_size() -> None:
    path = NamedPath("dolly-zoom", amplitude_percent=40)
    for time in (1.0, 2.5, 9.0):
        view = path(time)
        assert view.zoom / (1 - view.pose[2, 3]) == pytest.approx(1)
    assert path(9.0).pose[2, 3] == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"name": "orbitt"}, "path: 'orbitt'.*orbit"),
        ({"amplitude_percent": 0}, "amplitude: 0 is not accepted"),
        ({"amplitude_percent": 100}, "inside out"),
        ({"amplitude_percent": float("nan")}, "amplitude: nan"),
        ({"period_s": 0}, "period: 0"),
        ({"easing": "fast"}, "easing: 'fast'"),
    ],
)
def test_bad_paths_are_refused(changes: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        NamedPath(**{"name": "orbit", **changes})


def write(folder: Path, content: object) -> Path:
    file = folder / "path.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def test_key_frames_are_met_and_joined(tmp_path: Path) -> None:
    frames = [
        {"time_s": 0, "fov_deg": 50},
        {"time_s": 2, "position_percent": [10, 0, 20], "rotation_deg": [90, 0, 0], "fov_deg": 30},
    ]
    path = load_path(write(tmp_path, {"keyframes": frames, "easing": "linear"}))
    np.testing.assert_allclose(path(0.0).pose, np.eye(4))
    np.testing.assert_allclose(path(1.0).pose[:3, 3], [0.05, 0, 0.1])
    assert path(1.0).fov_deg == 40
    end = path(5.0)
    np.testing.assert_allclose(end.pose[:3, 2], [1, 0, 0], atol=1e-12)  # looks to the right
    assert end.fov_deg == 30


def test_nerfstudio_paths_are_in_the_world(tmp_path: Path) -> None:
    opengl = np.diag([1.0, -1.0, -1.0, 1.0])
    opengl[:3, 3] = [1, 2, 3]
    cameras = [
        {"camera_to_world": np.diag([1.0, -1.0, -1.0, 1.0]).ravel().tolist(), "fov": 60},
        {"camera_to_world": opengl.ravel().tolist(), "fov": 40},
    ]
    path = load_path(write(tmp_path, {"seconds": 2, "camera_path": cameras}))
    np.testing.assert_allclose(path(0.0).pose, np.eye(4))
    last = path(9.0)
    assert last.in_world and last.fov_deg == 40
    np.testing.assert_allclose(last.pose[:3, 3], [1, 2, 3])


def test_a_viewers_file_holds_key_frames_of_its_own(tmp_path: Path) -> None:
    pose = np.diag([1.0, -1.0, -1.0, 1.0]).ravel().tolist()
    content = {"keyframes": [{"matrix": str(pose), "fov": 50}], "camera_path": [{"camera_to_world": pose, "fov": 60}]}
    seen = load_path(write(tmp_path, content))(0.0)
    assert seen.in_world and seen.fov_deg == 60


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "is no JSON"),
        ({"frames": []}, "neither keyframes nor"),
        ({"keyframes": []}, "at least one"),
        ({"keyframes": [{"time_s": 0}, {"position_percent": [0, 0, 0]}]}, "keyframe 1: has no time_s"),
        ({"keyframes": [{"time_s": 0}, {"time_s": 0}]}, "keyframe 1: time_s 0 is not after"),
        ({"keyframes": [{"time_s": 0, "position_percent": [0, "x", 0]}]}, "keyframe 0: position_percent"),
        ({"keyframes": [{"time_s": 0, "rotation_deg": [0, 0]}]}, "keyframe 0: rotation_deg.*3 finite numbers"),
        ({"keyframes": [{"time_s": 0, "fov_deg": 180}]}, "keyframe 0: fov: 180"),
        ({"keyframes": [{"time_s": 0, "fov_deg": 50}, {"time_s": 1}]}, "keyframe 1: fov_deg is missing"),
        ({"keyframes": [{"time_s": 0, "zoom": 2}]}, "keyframe 0: zoom is not one of"),
        ({"camera_path": [{"fov": 50}]}, "camera 0: has no camera_to_world"),
        ({"camera_path": [{"camera_to_world": [0.0] * 16}]}, "camera 0: camera_to_world is no rotation"),
    ],
)
def test_broken_files_are_told_by_their_key_frame(tmp_path: Path, content: object, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        load_path(write(tmp_path, content))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="path: .*none.json does not exist"):
        load_path(tmp_path / "none.json")


def test_stabilized_follows_a_steady_camera_and_calms_a_shaken_one() -> None:
    times = np.arange(60) / 30
    steady = np.tile(np.eye(4), (60, 1, 1))
    steady[:, 0, 3] = times  # one unit a second
    path = stabilized(steady, times, 0.2)
    for index in (0, 3, 30, 59):
        np.testing.assert_allclose(path(times[index]).pose, steady[index], atol=1e-9)
    shaken = steady.copy()
    shaken[:, :3, 3] += np.random.default_rng(0).normal(0, 0.05, (60, 3))
    calm = stabilized(shaken, times, 0.2)
    rest = np.array([calm(time).pose[:3, 3] for time in times[10:50]]) - steady[10:50, :3, 3]
    assert np.abs(rest).mean() < 0.4 * np.abs(shaken[10:50, :3, 3] - steady[10:50, :3, 3]).mean()
    with pytest.raises(ValueError, match="smooth: 0"):
        stabilized(steady, times, 0.0)
