"""The exported data set, read as other programs read it."""

import base64
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result
from novel_view.camera_files import quaternions
from novel_view.nerf.dataset import DatasetOptions, export_dataset
from novel_view.scene_commands import export as export_command
from novel_view.scene_plans import moved_cameras
from scipy.spatial.transform import Rotation

from depth_engine.depth.source import open_depth
from depth_engine.geometry.cameras import opengl_from_opencv
from depth_engine.geometry.poses import PoseResult
from depth_engine.video.take import Take
from tests.novel_view.scene_clip import FPS, FRAMES, HEIGHT, WIDTH, SceneFiles, write_clip, write_depth

UNKNOWN_FRAME = 6  # its camera was not found
UP = (1, -1, -1)  # from the poses' world to the data set's, whose y axis is up


@pytest.fixture(scope="module")
def poses(scene: SceneFiles) -> PoseResult:
    """The true cameras, with metric depth."""
    rng = np.random.default_rng(0)
    return PoseResult(
        method="colmap",
        height=HEIGHT,
        width=WIDTH,
        K=scene.K,
        fov_by="found",
        world_from_camera=scene.world_from_camera,
        times_s=np.arange(FRAMES) / FPS,
        registered=tuple(index for index in range(FRAMES) if index != UNKNOWN_FRAME),
        depth_kind="metric",
        scale=1.0,
        shift=0.0,
        alignment_error=0.0,
        reprojection_px=0.3,
        points=rng.uniform(-2, 2, (50, 3)),
        colors=rng.integers(0, 255, (50, 3)).astype(np.uint8),
    )


@pytest.fixture(scope="module")
def folder(scene: SceneFiles, poses: PoseResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("export") / "data"
    options = DatasetOptions(eval_every=5, sharpen=False, cloud_points=5000)
    export_dataset(Take(scene.clip), open_depth(scene.metric), poses, target, options)
    return target


def run(*arguments: object) -> Result:
    return CliRunner().invoke(export_command, [str(argument) for argument in arguments])


def read_ply(path: Path) -> np.ndarray:
    head, data = path.read_bytes().split(b"end_header\n", 1)
    assert b"format binary_little_endian 1.0" in head
    count = int(head.split(b"element vertex ")[1].split(b"\n")[0])
    rows = np.frombuffer(data, dtype=[("xyz", "<f4", 3), ("rgb", "u1", 3)])
    assert len(rows) == count
    return rows


def test_every_found_frame_is_there_with_its_picture_and_depth(scene: SceneFiles, folder: Path) -> None:
    meta = json.loads((folder / "transforms.json").read_text())
    frames = meta["frames"]
    assert [row["frame"] for row in frames] == [index for index in range(FRAMES) if index != UNKNOWN_FRAME]
    assert (meta["w"], meta["h"], meta["camera_model"]) == (WIDTH, HEIGHT, "OPENCV")
    held_out = set(meta["test_filenames"])
    assert len(held_out) == 3 and meta["val_filenames"] == meta["test_filenames"]
    assert held_out | set(meta["train_filenames"]) == {row["file_path"] for row in frames}
    assert not held_out & set(meta["train_filenames"])
    pictures = [frame.rgb for frame in Take(scene.clip).frames()]
    for row in frames:
        picture = cv2.imread(str(folder / row["file_path"]))
        assert picture is not None and np.array_equal(picture[..., ::-1], pictures[row["frame"]])
        counts = cv2.imread(str(folder / row["depth_file_path"]), cv2.IMREAD_ANYDEPTH)
        true = scene.depth_m[row["frame"]]
        assert counts is not None and counts.dtype == np.uint16
        known = true < 65
        assert np.abs(counts[known] * meta["depth_unit_scale_factor"] - true[known]).max() < 6e-4
        assert not counts[true > 66].any()  # too far for 16 bits: unknown


def test_depth_of_one_frame_falls_on_the_next(scene: SceneFiles, folder: Path) -> None:
    """Cameras (OpenGL axes), lens and depth belong together: a pixel lifted by them lands on its depth elsewhere."""
    meta = json.loads((folder / "transforms.json").read_text())
    first, last = meta["frames"][0], meta["frames"][4]
    K = np.array([[meta["fl_x"], 0, meta["cx"]], [0, meta["fl_y"], meta["cy"]], [0, 0, 1]])
    depth = [
        cv2.imread(str(folder / row["depth_file_path"]), cv2.IMREAD_ANYDEPTH).astype(float) * 1e-3  # type: ignore[union-attr]
        for row in (first, last)
    ]
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    rays = np.stack([(x - K[0, 2]) / K[0, 0], -(y - K[1, 2]) / K[1, 1], -np.ones_like(x)], axis=-1)
    world = np.array(first["transform_matrix"])
    points = (rays * depth[0][..., None]) @ world[:3, :3].T + world[:3, 3]
    there = np.linalg.inv(np.array(last["transform_matrix"]))
    local = points @ there[:3, :3].T + there[:3, 3]
    column = np.floor(K[0, 0] * local[..., 0] / -local[..., 2] + K[0, 2]).astype(int)
    row = np.floor(-K[1, 1] * local[..., 1] / -local[..., 2] + K[1, 2]).astype(int)
    inside = (column >= 0) & (column < WIDTH) & (row >= 0) & (row < HEIGHT) & (depth[0] > 0)
    seen = depth[1][row[inside], column[inside]]
    assert inside.mean() > 0.5
    assert np.median(np.abs(seen / -local[..., 2][inside] - 1)) < 0.01


def test_clouds_lie_on_the_scene(scene: SceneFiles, poses: PoseResult, folder: Path) -> None:
    sparse = read_ply(folder / "sparse_pc.ply")
    assert np.allclose(sparse["xyz"], poses.points * UP, atol=1e-6) and np.array_equal(sparse["rgb"], poses.colors)
    dense = read_ply(folder / "points.ply")
    assert 3000 < len(dense) <= 5000 + FRAMES
    camera = poses.camera(0)
    local = (dense["xyz"] * UP - camera.world_from_camera[:3, 3]) @ camera.world_from_camera[:3, :3]
    pixels = (local @ camera.K.T)[:, :2] / local[:, 2:]
    inside = (local[:, 2] > 0) & (pixels >= 0).all(1) & (pixels < (WIDTH, HEIGHT)).all(1)
    columns, rows = pixels[inside].astype(int).T
    assert np.median(np.abs(local[inside, 2] / scene.depth_m[0][rows, columns] - 1)) < 0.01


def test_colmap_reads_the_text_model(poses: PoseResult, folder: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    model = pycolmap.Reconstruction(folder / "colmap_text")
    assert model.num_reg_images() == FRAMES - 1 and model.num_points3D() == 50
    image = model.find_image_with_name("frame_00003.png")
    pose = np.vstack([image.cam_from_world().matrix(), [0, 0, 0, 1]])
    assert np.allclose(np.linalg.inv(pose), np.diag([*UP, 1]) @ poses.world_from_camera[3], atol=1e-9)
    assert np.allclose(next(iter(model.cameras.values())).calibration_matrix(), poses.K)


def test_the_gltf_camera_stands_where_the_clips_did(poses: PoseResult, folder: Path) -> None:
    content = json.loads((folder / "scene.gltf").read_text())
    times, moves, turns = (gltf_values(content, accessor) for accessor in range(3))
    assert len(times) == FRAMES - 1 and times[-1] == pytest.approx((FRAMES - 1) / FPS)
    expected = opengl_from_opencv(np.diag([*UP, 1]) @ poses.world_from_camera[FRAMES - 1])
    assert np.allclose(moves[-1], expected[:3, 3], atol=1e-5)
    same = abs(float(np.dot(quaternions(expected[None, :3, :3])[0], turns[-1])))
    assert same == pytest.approx(1, abs=1e-6)
    lens = content["cameras"][0]["perspective"]
    assert lens["yfov"] == pytest.approx(2 * np.arctan(HEIGHT / 2 / poses.K[1, 1]))
    assert lens["aspectRatio"] == pytest.approx(WIDTH / HEIGHT)


def gltf_values(content: dict, number: int) -> np.ndarray:
    """Numbers of an accessor, `[N, k]`."""
    data = base64.b64decode(content["buffers"][0]["uri"].split(",", 1)[1])
    accessor = content["accessors"][number]
    view = content["bufferViews"][accessor["bufferView"]]
    kind = {5126: "<f4", 5121: "u1"}[accessor["componentType"]]
    values = np.frombuffer(data[view["byteOffset"] :][: view["byteLength"]], kind)
    return values.reshape(accessor["count"], {"SCALAR": 1, "VEC3": 3, "VEC4": 4}[accessor["type"]])


def test_clouds_are_seen_by_the_gltf_camera_as_the_clip_shows_them(scene: SceneFiles, folder: Path) -> None:
    """The cloud of the same file and `points.ply`, projected by the camera's first key as glTF defines it."""
    content = json.loads((folder / "scene.gltf").read_text())
    attributes = content["meshes"][0]["primitives"][0]["attributes"]
    points, colors = gltf_values(content, attributes["POSITION"]), gltf_values(content, attributes["COLOR_0"])
    dense = read_ply(folder / "points.ply")
    assert np.array_equal(points, dense["xyz"]) and np.array_equal(colors[:, :3], dense["rgb"])
    node, lens = content["nodes"][0], content["cameras"][0]["perspective"]
    local = (points - node["translation"]) @ Rotation.from_quat(node["rotation"]).as_matrix()
    half_height = np.tan(lens["yfov"] / 2)
    x = local[:, 0] / -local[:, 2] / (half_height * lens["aspectRatio"])
    y = local[:, 1] / -local[:, 2] / half_height
    inside = (local[:, 2] < 0) & (np.abs(x) < 1) & (np.abs(y) < 1)
    assert inside.mean() > 0.5
    picture = next(Take(scene.clip).frames()).rgb
    columns, rows = ((x[inside] + 1) / 2 * WIDTH).astype(int), ((1 - y[inside]) / 2 * HEIGHT).astype(int)
    off = np.abs(picture[rows, columns].astype(float) - colors[inside, :3]).mean(axis=1)
    assert np.median(off) < 12
    upwards = np.linalg.inv(Rotation.from_quat(node["rotation"]).as_matrix())[:, 1]
    assert upwards[1] > 0.7  # the scene stands on its feet


def test_smaller_pictures_npy_and_masks(scene: SceneFiles, poses: PoseResult, tmp_path: Path) -> None:
    masks = np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    masks[:, :, WIDTH // 2 :] = 255
    options = DatasetOptions(
        every=3,
        side_px=WIDTH // 2,
        depth_format="npy",
        eval_every=2,
        masks=write_clip(tmp_path / "masks.mp4", masks),
        sharpen=False,
        cloud_points=0,
    )
    relative = replace(poses, depth_kind="disparity", scale=0.5, shift=0.01)
    made = export_dataset(Take(scene.clip), open_depth(scene.disparity), relative, tmp_path / "data", options)
    meta = json.loads((tmp_path / "data" / "transforms.json").read_text())
    assert (meta["w"], meta["h"]) == (WIDTH // 2, HEIGHT // 2)
    assert meta["fl_x"] == pytest.approx(poses.K[0, 0] / 2) and meta["cx"] == WIDTH / 4
    assert made.frames == len(meta["frames"]) == 5 and not (tmp_path / "data" / "points.ply").exists()
    row = meta["frames"][2]
    counts = np.load(tmp_path / "data" / row["depth_file_path"])
    values = list(open_depth(scene.disparity).open())[row["frame"]]
    planar = 1 / (0.5 * cv2.resize(values, (WIDTH // 2, HEIGHT // 2)) + 0.01)
    # Relative scenes are five times as large as their poses, positions and depth alike.
    assert np.median(np.abs(counts * 1e-3 / (5 * planar) - 1)) < 0.01
    assert np.allclose(np.array(row["transform_matrix"])[:3, 3], 5 * poses.world_from_camera[row["frame"]][:3, 3] * UP)
    mask = cv2.imread(str(tmp_path / "data" / row["mask_path"]), cv2.IMREAD_GRAYSCALE)
    assert mask is not None and not mask[:, : WIDTH // 4 - 2].any() and (mask[:, WIDTH // 4 + 2 :] == 255).all()


def test_soft_depth_is_exported_with_the_borders_of_the_picture(poses: PoseResult, tmp_path: Path) -> None:
    """A red disc at 1 m before a blue wall at 4 m, its depth blurred as an estimate is."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    disc = (x - WIDTH / 2) ** 2 + (y - HEIGHT / 2) ** 2 < 40**2
    picture = np.where(disc[..., None], (210, 30, 20), (20, 60, 150)).astype(np.uint8)
    clip = write_clip(tmp_path / "disc.mp4", np.stack([picture] * FRAMES))
    true_m = np.where(disc, 1.0, 4.0)
    blurred = 1 / cv2.GaussianBlur(1 / true_m, (0, 0), 1.5)
    soft = write_depth(tmp_path / "soft.npy", np.stack([blurred] * FRAMES), "metric")
    options = DatasetOptions(every=4, cloud_points=0)
    export_dataset(Take(clip), open_depth(soft), poses, tmp_path / "data", options)
    counts = cv2.imread(str(tmp_path / "data/depths/frame_00000.png"), cv2.IMREAD_ANYDEPTH)
    assert counts is not None
    between = [((depth > 1.4) & (depth < 2.6)).sum() for depth in (blurred, counts * 1e-3)]
    assert between[0] > 300 and between[1] < between[0] / 2, between  # on neither side


def test_a_path_moves_beside_the_data_sets_cameras(poses: PoseResult, folder: Path) -> None:
    from novel_view.paths import NamedPath

    cameras = moved_cameras(folder, NamedPath("lateral", amplitude_percent=10, period_s=0.5))
    median = json.loads((folder / "transforms.json").read_text())["median_depth"]
    assert len(cameras) == FRAMES - 1
    off = np.linalg.inv(np.diag([*UP, 1]) @ poses.world_from_camera[3]) @ cameras[3].world_from_camera
    assert np.allclose(off[:3, 3], (0.1 * median * np.sin(2 * np.pi * 3 / FPS / 0.5), 0, 0), atol=1e-6)


def test_what_does_not_belong_together_is_refused(scene: SceneFiles, poses: PoseResult, tmp_path: Path) -> None:
    file = poses.save(tmp_path / "poses.json")
    out = tmp_path / "data"
    common = (scene.clip, "-o", out, "--poses", file, "--quiet")
    for arguments, text in (
        (("--depth", scene.disparity), "they were made with metric, the depth here is disparity"),
        (("--depth", scene.metric, "--fov", 50), "--fov: the poses say it already"),
        (("--depth", scene.metric, "--depth-format", "jpg"), "depth-format: 'jpg' is not known"),
        (("--depth", scene.metric, "--eval-every", 1), "eval-every: 1 is not accepted"),
        (("--depth", scene.metric, "--masks", tmp_path / "none.mp4"), "none.mp4"),
    ):
        result = run(*common, *arguments)
        assert result.exit_code == 2 and text in result.output, result.output
        assert len(result.output.strip().splitlines()) == 1
    short = replace(poses, world_from_camera=poses.world_from_camera[:9], times_s=poses.times_s[:9])
    short = replace(short, registered=tuple(range(9)))
    result = run(*common[:4], short.save(tmp_path / "short.json"), "--depth", scene.metric, "--quiet")
    assert result.exit_code == 1 and "there are 9, and the clip goes on" in result.output
    few = run(*common, "--depth", scene.metric, "--every", 7)
    assert few.exit_code == 1 and "3 frames with a camera of their own are too few" in few.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["poses.json", "short.json"]


def test_export_finds_cameras_itself(scene: SceneFiles, tmp_path: Path) -> None:
    out = tmp_path / "data"
    options = ("--depth", scene.metric, "--method", "odometry", "--fov", scene.fov_deg, "--every", 2)
    result = run(scene.clip, "-o", out, *options)
    assert result.exit_code == 0, result.output
    assert "8 frames exported, 1 of them held out" in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "data.poses.json"]
    again = run(scene.clip, "-o", out, *options)
    assert again.exit_code == 2 and "data exists already" in again.output
    assert run(scene.clip, "-o", out, *options, "--overwrite", "--quiet").exit_code == 0
