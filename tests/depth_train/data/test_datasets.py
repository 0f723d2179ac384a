"""Readers against folders written here in each data set's published layout, from one known scene."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
from click.testing import CliRunner
from depth_train.cli import main
from depth_train.data.datasets import DepthClip, open_dataset
from depth_train.data.hypersim import planar_depth, tone_map
from PIL import Image

h5py = pytest.importorskip("h5py")

HEIGHT, WIDTH, FRAMES = 24, 32, 5
SKY = np.zeros((HEIGHT, WIDTH), dtype=bool)
SKY[:4] = True


def pose(index: int) -> np.ndarray:
    """A camera that drives forward and turns right a little, world from camera in OpenCV axes."""
    angle = 0.05 * index
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [np.cos(angle), 0, np.sin(angle)],
        [0, 1, 0],
        [-np.sin(angle), 0, np.cos(angle)],
    ]
    matrix[:3, 3] = [0.1 * index, -0.02 * index, 0.4 * index]
    return matrix


def depth_of(index: int) -> np.ndarray:
    ramp = np.linspace(9, 2, HEIGHT, dtype=np.float32)[:, None] + np.linspace(0, 1, WIDTH, dtype=np.float32)
    return (ramp + index / 4).astype(np.float32)


def picture(index: int) -> np.ndarray:
    rng = np.random.default_rng(index)
    return rng.integers(0, 256, (HEIGHT // 4, WIDTH // 4, 3), dtype=np.uint8).repeat(4, 0).repeat(4, 1)


def write_tartanair(root: Path) -> None:
    folder = root / "office" / "Easy" / "P001"
    for name in ("image_left", "depth_left"):
        (folder / name).mkdir(parents=True)
    lines = []
    ned_from_opencv = np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0.0]])
    for index in range(FRAMES):
        Image.fromarray(picture(index)).save(folder / "image_left" / f"{index:06d}_left.png")
        depth = np.where(SKY, np.float32(10000), depth_of(index))
        np.save(folder / "depth_left" / f"{index:06d}_left_depth.npy", depth)
        rotation = ned_from_opencv @ pose(index)[:3, :3] @ ned_from_opencv.T
        w = np.sqrt(1 + np.trace(rotation)) / 2
        x, y, z = (
            (rotation[2, 1] - rotation[1, 2]) / (4 * w),
            (rotation[0, 2] - rotation[2, 0]) / (4 * w),
            (rotation[1, 0] - rotation[0, 1]) / (4 * w),
        )
        place = ned_from_opencv @ pose(index)[:3, 3]
        lines.append(" ".join(f"{value:.9f}" for value in (*place, x, y, z, w)))
    (folder / "pose_left.txt").write_text("\n".join(lines) + "\n")


def write_vkitti2(root: Path) -> None:
    folder = root / "Scene01" / "fog"
    for name in ("rgb", "depth"):
        (folder / "frames" / name / "Camera_0").mkdir(parents=True)
    intrinsic, extrinsic = ["frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]"], ["frame cameraID r1,1 ..."]
    for index in range(FRAMES):
        rgb = folder / "frames" / "rgb" / "Camera_0" / f"rgb_{index:05d}.jpg"
        Image.fromarray(picture(index)).save(rgb, quality=98)
        centimetres = np.where(SKY, 65535, (depth_of(index) * 100).round()).astype(np.uint16)
        Image.fromarray(centimetres).save(folder / "frames" / "depth" / "Camera_0" / f"depth_{index:05d}.png")
        for camera in (0, 1):
            intrinsic.append(f"{index} {camera} 30 31 {WIDTH / 2 - 0.5} {HEIGHT / 2 - 0.5}")
            matrix = np.linalg.inv(pose(index)).ravel()
            extrinsic.append(f"{index} {camera} " + " ".join(f"{value:.9f}" for value in matrix))
    (folder / "intrinsic.txt").write_text("\n".join(intrinsic) + "\n")
    (folder / "extrinsic.txt").write_text("\n".join(extrinsic) + "\n")


def write_mvs_synth(root: Path) -> None:
    folder = root / "GTAV_540" / "0000"
    for name in ("images", "depths", "poses"):
        (folder / name).mkdir(parents=True)
    for index in range(FRAMES):
        Image.fromarray(picture(index)).save(folder / "images" / f"{index:04d}.png")
        depth = np.where(SKY, np.float32(np.inf), depth_of(index))
        OpenEXR.File({"type": OpenEXR.scanlineimage}, {"Y": depth}).write(str(folder / "depths" / f"{index:04d}.exr"))
        left_handed = np.linalg.inv(pose(index)) @ np.diag([1.0, -1.0, 1.0, 1.0])  # the world is, not the camera
        camera = {"f_x": 30.0, "f_y": 31.0, "c_x": WIDTH / 2, "c_y": HEIGHT / 2, "extrinsic": left_handed.tolist()}
        (folder / "poses" / f"{index:04d}.json").write_text(json.dumps(camera))


def write_hypersim(root: Path) -> None:
    scene = root / "ai_001_002"
    final = scene / "images" / "scene_cam_00_final_hdf5"
    geometry = scene / "images" / "scene_cam_00_geometry_hdf5"
    detail = scene / "_detail" / "cam_00"
    for folder in (final, geometry, detail):
        folder.mkdir(parents=True)

    def save(path: Path, array: np.ndarray) -> None:
        with h5py.File(path, "w") as file:
            file["dataset"] = array

    focal = 886.81 * WIDTH / 1024
    x = (np.arange(WIDTH) + 0.5 - WIDTH / 2) / focal
    y = ((np.arange(HEIGHT) + 0.5 - HEIGHT / 2) / focal)[:, None]
    for index in range(FRAMES):
        save(final / f"frame.{index:04d}.color.hdf5", (picture(index) / 255).astype(np.float16) ** 2.2)
        distance = (depth_of(index) * np.sqrt(1 + x**2 + y**2)).astype(np.float16)
        save(geometry / f"frame.{index:04d}.depth_meters.hdf5", distance)
        save(geometry / f"frame.{index:04d}.render_entity_id.hdf5", np.where(SKY, -1, 7).astype(np.int32))
    poses = [pose(index) @ np.diag([1.0, -1.0, -1.0, 1.0]) for index in range(FRAMES)]
    save(detail / "camera_keyframe_orientations.hdf5", np.stack([matrix[:3, :3] for matrix in poses]))
    save(detail / "camera_keyframe_positions.hdf5", np.stack([matrix[:3, 3] / 0.0254 for matrix in poses]))
    table = "parameter_name,parameter_value\nmeters_per_asset_unit,0.0254\n"
    (scene / "_detail" / "metadata_scene.csv").write_text(table)


WRITERS: dict[str, Callable[[Path], None]] = {
    "tartanair": write_tartanair,
    "vkitti2": write_vkitti2,
    "mvs-synth": write_mvs_synth,
    "hypersim": write_hypersim,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_reader_gives_the_same_scene(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    data = open_dataset(name, tmp_path, length=2, stride=2, step=1)
    assert len(data) == FRAMES - 2
    clip = data[1]
    assert clip.name.endswith("frames 1-3") and clip.metric == (name != "mvs-synth")
    assert clip.rgb.shape == (2, HEIGHT, WIDTH, 3) and clip.rgb.dtype == np.uint8
    assert np.allclose(clip.world_from_camera, [pose(1), pose(3)], atol=1e-5), "OpenCV axes, metres"
    tolerance = {"hypersim": 5e-3, "vkitti2": 2e-3}.get(name, 1e-6)  # float16; whole centimetres
    for frame, index in enumerate((1, 3)):
        ground = ~SKY
        assert np.allclose(clip.depth_m[frame][ground], depth_of(index)[ground], rtol=tolerance)
        assert clip.valid[frame][ground].all()
        if name == "hypersim":
            assert not clip.valid[frame][SKY].any() and (clip.depth_m[frame][SKY] == 0).all()
        else:
            assert clip.valid[frame][SKY].all() and np.isinf(clip.depth_m[frame][SKY]).all()
    if name in ("tartanair", "mvs-synth"):
        assert np.array_equal(clip.rgb[0], picture(1))
    assert clip.K[0, 2] == WIDTH / 2 and clip.K[1, 2] == HEIGHT / 2, "pixel centres at +0.5"


def reprojection_error(clip: DepthClip) -> float:
    """Median relative depth error of frame 0's points seen from frame 1; small only if axes and units agree."""
    ys, xs = np.mgrid[: clip.depth_m.shape[1], : clip.depth_m.shape[2]] + 0.5
    rays = np.stack([xs, ys, np.ones_like(xs)], -1) @ np.linalg.inv(clip.K).T
    points = rays * np.where(np.isfinite(clip.depth_m[0]), clip.depth_m[0], 0)[..., None]
    world = points @ clip.world_from_camera[0, :3, :3].T + clip.world_from_camera[0, :3, 3]
    other = np.linalg.inv(clip.world_from_camera[1])
    seen = world @ other[:3, :3].T + other[:3, 3]
    pixel = seen @ clip.K.T
    u, v = (np.floor(pixel[..., i] / pixel[..., 2]) for i in (0, 1))
    inside = np.isfinite(u) & (u >= 0) & (v >= 0) & (u < xs.shape[1]) & (v < xs.shape[0]) & (seen[..., 2] > 0)
    inside &= np.isfinite(clip.depth_m[0])
    truth = clip.depth_m[1][v[inside].astype(int), u[inside].astype(int)]
    return float(np.median(np.abs(truth - seen[..., 2][inside]) / seen[..., 2][inside]))


def test_procedural_clips_reproject_onto_themselves() -> None:
    """The camera convention that all readers promise holds for the source whose truth is exact."""
    data = open_dataset("procedural", Path(), split="val", length=2, stride=4)
    errors = [reprojection_error(data[index]) for index in (0, 30, 60)]
    assert max(errors) < 0.02, errors


def test_frames_that_lack_a_file_are_left_out(tmp_path: Path) -> None:
    write_tartanair(tmp_path)
    (tmp_path / "office/Easy/P001/depth_left/000004_left_depth.npy").unlink()
    assert len(open_dataset("tartanair", tmp_path)) == FRAMES - 1
    with pytest.raises(ValueError, match="no clip of 5 frames.*has 4 whole frames"):
        open_dataset("tartanair", tmp_path, length=5)


@pytest.mark.parametrize("name", WRITERS)
def test_no_clip_runs_across_a_missing_frame(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path)
    missing = {
        "tartanair": "image_left/000002_left.png",
        "vkitti2": "rgb_00002.jpg",
        "mvs-synth": "images/0002.png",
        "hypersim": "frame.0002.color.hdf5",
    }[name]
    (path,) = (path for path in tmp_path.rglob("*") if path.as_posix().endswith(missing))
    path.unlink()
    pairs = open_dataset(name, tmp_path, length=2, step=1)
    assert [pairs[index].name[-3:] for index in range(len(pairs))] == ["0-1", "3-4"]
    apart = open_dataset(name, tmp_path, length=2, stride=2, step=1)  # 2 is not asked of 1 and 3
    assert [apart[index].name[-3:] for index in range(len(apart))] == ["1-3"]
    assert np.allclose(apart[0].world_from_camera, [pose(1), pose(3)], atol=1e-5)


def test_mvs_synth_of_a_right_handed_world_is_taken_as_it_is(tmp_path: Path) -> None:
    write_mvs_synth(tmp_path)
    for path in tmp_path.rglob("*.json"):
        camera = json.loads(path.read_text())
        camera["extrinsic"] = np.linalg.inv(pose(int(path.stem))).tolist()
        path.write_text(json.dumps(camera))
    assert np.allclose(open_dataset("mvs-synth", tmp_path, length=2)[0].world_from_camera, [pose(0), pose(1)])


def test_tartanair_splits_by_difficulty(tmp_path: Path) -> None:
    write_tartanair(tmp_path)
    assert len(open_dataset("tartanair", tmp_path, split="easy")) == FRAMES
    with pytest.raises(ValueError, match="tartanair: expected <env>"):
        open_dataset("tartanair", tmp_path, split="hard")


def test_hypersim_tables_give_splits_and_cameras(tmp_path: Path) -> None:
    write_hypersim(tmp_path)
    with pytest.raises(ValueError, match="split train needs metadata_images_split_scene_v1.csv"):
        open_dataset("hypersim", tmp_path, split="train")
    rows = ["scene_name,camera_name,frame_id,included_in_public_release,exclude_reason,split_partition_name"]
    rows += [f"ai_001_002,cam_00,{i},{i != 2},,{'val' if i == 4 else 'train'}" for i in range(FRAMES)]
    (tmp_path / "metadata_images_split_scene_v1.csv").write_text("\n".join(rows) + "\n")
    assert [len(open_dataset("hypersim", tmp_path, split=split)) for split in ("all", "train", "val")] == [4, 3, 1]

    header = ["scene_name", *(f"M_proj_{row}{column}" for row in range(4) for column in range(4))]
    projection = np.zeros((4, 4))
    projection[0, 0], projection[1, 1], projection[0, 2] = 2.0, 3.0, 0.125
    line = ["ai_001_002", *(str(value) for value in projection.ravel())]
    cameras = tmp_path / "metadata_camera_parameters.csv"
    cameras.write_text(",".join(header) + "\n" + ",".join(line) + "\n")
    K = open_dataset("hypersim", tmp_path)[0].K
    assert np.allclose(K, [[2 * WIDTH / 2, 0, 0.875 * WIDTH / 2], [0, 3 * HEIGHT / 2, HEIGHT / 2], [0, 0, 1]])
    line[2] = "0.1"  # a skewed camera
    cameras.write_text(",".join(header) + "\n" + ",".join(line) + "\n")
    with pytest.raises(ValueError, match="hypersim: expected ai_VVV_NNN"):
        open_dataset("hypersim", tmp_path)


def test_planar_depth_of_a_wall_is_flat() -> None:
    K = np.array([[20.0, 0, 16], [0, 20, 12], [0, 0, 1]])
    y, x = np.mgrid[:24, :32] + 0.5
    distance = 4 * np.sqrt(1 + ((x - 16) / 20) ** 2 + ((y - 12) / 20) ** 2)
    assert np.allclose(planar_depth(distance, K), 4, atol=1e-5)


def test_tone_curve_puts_the_bright_percentile_at_four_fifths() -> None:
    radiance = np.random.default_rng(0).random((40, 40, 1)).astype(np.float32).repeat(3, 2) * 50
    image = tone_map(radiance, np.ones((40, 40), dtype=bool))
    assert np.percentile(image, 90) == pytest.approx(0.8 * 255, abs=2)
    assert (tone_map(np.zeros((4, 4, 3), np.float32), np.ones((4, 4), dtype=bool)) == 0).all()


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_of_something_else_gets_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"")
    done = CliRunner().invoke(main, ["inspect", name, "--root", str(tmp_path), "-o", str(tmp_path / "sheet.png")])
    assert done.exit_code == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert f"{name}: expected" in done.stderr and str(tmp_path) in done.stderr
    assert not (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["hypersym", "--root", "."], "did you mean 'hypersim'"),
        (["tartanair"], "--root: none is given"),
        (["tartanair", "--root", "nowhere"], "nowhere is no folder"),
        (["procedural", "--split", "test"], "split: 'test' is not one of all, train, val"),
    ],
)
def test_bad_requests_get_one_line(
    arguments: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["inspect", *arguments])
    assert done.exit_code == 2 and text in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_inspect_writes_a_sheet_and_counts(tmp_path: Path) -> None:
    write_vkitti2(tmp_path)
    sheet = tmp_path / "sheet.png"
    arguments = ["inspect", "vkitti2", "--root", str(tmp_path), "-o", str(sheet), "--length", "2", "--clips", "2"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert "1 sequences, 5 frames, 2 clips" in done.output and "100.0% of the pixels valid" in done.output
    assert f"{4 / 24:.1%} sky" in done.output and "camera moves 0.41" in done.output
    with Image.open(sheet) as image:
        assert image.size == (4 * WIDTH, 2 * HEIGHT)
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 2 and "--overwrite" in again.stderr


def damage_tartanair(root: Path) -> None:
    (root / "office/Easy/P001/depth_left/000002_left_depth.npy").write_bytes(b"")


def damage_tartanair_archive(root: Path) -> None:
    (root / "office/Easy/P001/depth_left/000002_left_depth.npy").write_bytes(b"PK\x03\x04 and no more")


def damage_tartanair_truth(root: Path) -> None:
    np.save(root / "office/Easy/P001/depth_left/000002_left_depth.npy", np.full((HEIGHT, WIDTH), np.nan))


def damage_tartanair_size(root: Path) -> None:
    np.save(root / "office/Easy/P001/depth_left/000002_left_depth.npy", depth_of(2)[:, :-3])


def damage_tartanair_pose(root: Path) -> None:
    path = root / "office/Easy/P001/pose_left.txt"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], "nan nan nan 0 0 0 1", *lines[3:]]))


def damage_tartanair_picture(root: Path) -> None:
    flat = np.full((HEIGHT, WIDTH, 3), 7, dtype=np.uint8)
    Image.fromarray(flat).save(root / "office/Easy/P001/image_left/000002_left.png")


def damage_vkitti2(root: Path) -> None:
    path = root / "Scene01/fog/frames/depth/Camera_0/depth_00002.png"
    path.write_bytes(path.read_bytes()[:60])


def damage_mvs_synth(root: Path) -> None:
    next(root.rglob("poses/*2.json")).write_text("null")


def damage_mvs_synth_lens(root: Path) -> None:
    path = next(root.rglob("poses/*2.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "f_x": float("nan")}))


def damage_mvs_synth_depth(root: Path) -> None:
    next(root.rglob("depths/*2.exr")).write_bytes(b"")


def damage_hypersim(root: Path) -> None:
    path = next(root.rglob("camera_keyframe_positions.hdf5"))
    with h5py.File(path) as file:
        held = file["dataset"][:]
    with h5py.File(path, "w") as file:
        file["dataset"] = held[:2]


DAMAGES = [
    ("tartanair", damage_tartanair, 1),
    ("tartanair", damage_tartanair_archive, 1),
    ("tartanair", damage_tartanair_truth, 1),
    ("tartanair", damage_tartanair_picture, 1),
    ("tartanair", damage_tartanair_size, 1),
    ("tartanair", damage_tartanair_pose, 1),
    ("mvs-synth", damage_mvs_synth_lens, 1),
    ("vkitti2", damage_vkitti2, 1),
    ("mvs-synth", damage_mvs_synth, 1),
    ("mvs-synth", damage_mvs_synth_depth, 1),
    ("hypersim", damage_hypersim, 3),
]


@pytest.mark.parametrize(("name", "damage", "count"), DAMAGES, ids=[damage.__name__ for _, damage, _ in DAMAGES])
def test_a_bad_file_is_named_and_left_out(
    name: str, damage: Callable[[Path], None], count: int, tmp_path: Path
) -> None:
    WRITERS[name](tmp_path)
    damage(tmp_path)
    with pytest.raises(ValueError, match=name):
        [clip for clip in open_dataset(name, tmp_path)]
    arguments = ["inspect", name, "--root", str(tmp_path), "-o", str(tmp_path / "sheet.png"), "--length", "1"]
    done = CliRunner().invoke(main, [*arguments, "--no-check"])
    assert done.exit_code == 0 and not (tmp_path / "skip.txt").exists(), done.output
    done = CliRunner().invoke(main, [*arguments, "--overwrite"])
    assert done.exit_code == 0, done.output
    assert f"{count} frames are left out" in done.output and (tmp_path / "sheet.png").is_file()
    assert len((tmp_path / "skip.txt").read_text().splitlines()) == count
    left = open_dataset(name, tmp_path)
    assert len([clip for clip in left]) == FRAMES - count  # all of them can be read
    done = CliRunner().invoke(main, [*arguments, "--overwrite"])
    assert "left out" not in done.output


def test_a_damaged_list_of_poses_loses_its_own_sequence_alone(tmp_path: Path) -> None:
    write_tartanair(tmp_path)
    other = tmp_path / "office" / "Easy" / "P002"
    shutil.copytree(tmp_path / "office" / "Easy" / "P001", other)
    for text in ("null", "1 2 3", ""):
        (other / "pose_left.txt").write_text(text)
        with pytest.warns(UserWarning, match="P002"):
            assert len(open_dataset("tartanair", tmp_path).sequences) == 1


def test_frames_without_a_pose_are_told(tmp_path: Path) -> None:
    write_tartanair(tmp_path / "t")
    path = tmp_path / "t/office/Easy/P001/pose_left.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:3]))
    with pytest.warns(UserWarning, match=r"pose_left\.txt: 3 poses for 5 pictures"):
        assert len(open_dataset("tartanair", tmp_path / "t")) == 3
    write_vkitti2(tmp_path / "v")
    path = tmp_path / "v/Scene01/fog/extrinsic.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:-4]))  # two cameras a frame
    with pytest.warns(UserWarning, match="2 frames without a camera"):
        assert len(open_dataset("vkitti2", tmp_path / "v")) == 3


def test_a_focal_length_that_wobbles_is_no_zoom(tmp_path: Path) -> None:
    write_mvs_synth(tmp_path)
    poses = sorted(tmp_path.rglob("poses/*.json"))
    for path, factor in ((poses[1], 1 + 2e-4), (poses[3], 1.01)):
        camera = json.loads(path.read_text())
        camera["f_x"] *= factor
        path.write_text(json.dumps(camera))
    assert open_dataset("mvs-synth", tmp_path, length=3)[0].K[0, 0] > 0
    with pytest.raises(ValueError, match="zooms"):
        open_dataset("mvs-synth", tmp_path, length=5)[0]


@pytest.mark.parametrize("kind", ["npy", "exr", "png"])
def test_a_folder_of_ones_own_pictures_and_depth(kind: str, tmp_path: Path) -> None:
    for sequence in ("kitchen", "yard/second"):
        for name in ("rgb", "depth"):
            (tmp_path / sequence / name).mkdir(parents=True)
        for index in range(3):
            Image.fromarray(picture(index)).save(tmp_path / sequence / "rgb" / f"f{index + 8}.png")
            depth, target = depth_of(index).copy(), tmp_path / sequence / "depth" / f"f{index + 8}.{kind}"
            depth[5, 5] = 0
            if kind == "npy":
                np.save(target, depth)
            elif kind == "png":
                Image.fromarray((depth * 1000).round().astype(np.uint16)).save(target)
            else:
                header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
                OpenEXR.File(header, {"Z": depth}).write(str(target))
    dataset = open_dataset("folder", tmp_path, length=3)
    assert [sequence.name for sequence in dataset.sequences] == ["kitchen", "yard/second"]
    clip = dataset[0]
    assert np.array_equal(clip.rgb[2], picture(2)) and not clip.valid[:, 5, 5].any()
    assert np.abs(clip.depth_m - depth_of(0) - np.arange(3)[:, None, None] / 4)[clip.valid].max() < 1e-3
    arguments = ["inspect", "folder", "--root", str(tmp_path), "-o", str(tmp_path / "s.png"), "--length", "2"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0 and "camera" not in done.output, done.output


def test_a_folder_of_ones_own_trains(tmp_path: Path) -> None:
    for name in ("rgb", "depth"):
        (tmp_path / "data" / name).mkdir(parents=True)
    for index in range(4):
        Image.fromarray(picture(index)).save(tmp_path / "data" / "rgb" / f"{index}.png")
        np.save(tmp_path / "data" / "depth" / f"{index}.npy", depth_of(index))
    (tmp_path / "data" / "depth" / "1.npy").write_bytes(b"")
    config = tmp_path / "c.yaml"
    config.write_text(
        "network: {channels: [32, 32], attention: [false, true], heads: [1, 2]}\nsteps: 2\noptimizer: {warmup: 1}\n"
        f"sources: [{{name: folder, root: {tmp_path / 'data'}}}]\nstages:\n"
        "  - {until: 1.0, height: 16, width: 32, batch: 2, max_frames: 1, clip_frames: 1, pool: 6, fresh: 2}\n"
    )
    with pytest.warns(UserWarning, match=r"1\.npy"):
        done = CliRunner().invoke(main, ["run", str(config), "-o", str(tmp_path / "mine"), "--quiet", "--debug"])
    assert done.exit_code == 0, done.output
