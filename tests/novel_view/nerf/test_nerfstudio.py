from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from novel_view.cli import main
from novel_view.nerf.command import NerfTraining, _job, train_nerf
from novel_view.nerf.dataset import DatasetOptions, export_dataset
from novel_view.nerf.losses import affine_disparity_loss, depth_confidence, rendered_disparity

from depth_engine.depth.source import open_depth
from depth_engine.geometry.alignment import Samples, align
from depth_engine.geometry.cameras import Camera, look_at
from depth_engine.geometry.poses import PoseResult
from depth_engine.video.read import probe, read_frames
from depth_engine.video.take import Take
from depth_engine.video.write import VideoWriter

SEED, FRAMES, HEIGHT, WIDTH = 3, 9, 96, 128
STEPS = 150


def test_rendered_disparity_of_a_wall_is_its_planar_disparity():
    distance = torch.linspace(0.5, 8, 16).repeat(3, 1)
    norm = torch.tensor([1.0, 1.1, 1.3])
    weights = torch.zeros(3, 16)
    weights[:, 5] = 1
    planar = distance[:, 5] / norm
    torch.testing.assert_close(rendered_disparity(weights, distance, norm), 1 / planar)
    assert (rendered_disparity(torch.zeros(3, 16), distance, norm) == 0).all(), "a ray that hits nothing"


def test_confidence_falls_at_borders_and_is_zero_without_depth():
    depth = torch.full((12, 20), 4.0)
    depth[:, 10:] = 2.0
    depth[0, 0] = 0
    confidence = depth_confidence(depth)
    assert confidence[0, 0] == 0
    assert (confidence[4:, :7] == 1).all() and (confidence[:, 14:] == 1).all()
    assert (confidence[4:, 9:11] < 0.1).all()


def test_loss_forgives_a_scale_and_shift_of_each_frame_and_nothing_else():
    generator = torch.Generator().manual_seed(0)
    rendered = 0.2 + torch.rand(400, generator=generator)
    frame = torch.arange(400) % 4 + 7  # numbers need not start at 0
    scale, shift = torch.tensor([0.7, 1.0, 1.3, 1.1]), torch.tensor([0.1, 0.0, -0.05, 0.2])
    affine = scale[frame - 7] * rendered + shift[frame - 7]
    sure = torch.ones(400)
    free = affine_disparity_loss(rendered, affine, sure, frame, prior=0.0)
    held = affine_disparity_loss(rendered, affine, sure, frame, prior=1.0)
    shuffled = affine_disparity_loss(rendered, affine.flip(0), sure, frame, prior=0.0)
    assert free < 1e-4 < held < shuffled
    flat = affine_disparity_loss(torch.full((400,), 0.7), affine, sure, frame, prior=0.0)
    assert flat > 0.05, "a flat wall must not pass for any scene"


def test_loss_hears_only_trusted_rays_and_pulls_towards_the_target():
    target = torch.linspace(0.5, 1.5, 100)
    rendered = target.clone()
    rendered[:20] = 9.0
    rendered.requires_grad_()
    confidence = torch.ones(100)
    confidence[:20] = 0
    frame = torch.zeros(100)
    assert affine_disparity_loss(rendered, target, confidence, frame, 1.0) < 1e-4
    loss = affine_disparity_loss(rendered, target, torch.ones(100), frame, 1.0)
    loss.backward()
    assert rendered.grad is not None and (rendered.grad[:20] > 0).all(), "too near: gradient descent moves them away"
    nothing = affine_disparity_loss(rendered, torch.full((100,), torch.inf), torch.zeros(100), frame, 1.0)
    assert nothing == 0 and torch.autograd.grad(nothing, rendered)[0].abs().sum() == 0


def test_plugin_does_not_fail_without_nerfstudio():
    block = "import sys; sys.modules['nerfstudio'] = None; "
    code = block + "import novel_view.nerf.plugin as plugin; print(plugin.method, plugin.dataparser)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0 and done.stdout.split() == ["None", "None"], done.stderr


def data_set_stub(folder: Path) -> Path:
    """What `_job` reads of a data set."""
    folder.mkdir()
    frames = [
        {"file_path": f"images/{i}.png", "transform_matrix": np.eye(4).tolist(), "time_s": i / 10} for i in range(3)
    ]
    meta = {"fl_x": 50, "fl_y": 50, "cx": 32, "cy": 24, "w": 64, "h": 48, "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(meta))
    return folder


def test_bad_requests_are_told(tmp_path: Path):
    data = data_set_stub(tmp_path / "data")
    with pytest.raises(FileNotFoundError, match="transforms.json does not exist; make it by: novel-view export"):
        train_nerf(tmp_path / "none", tmp_path / "out", NerfTraining(10))
    with pytest.raises(ValueError, match="iterations: 0 is not accepted"):
        train_nerf(data, tmp_path / "out", NerfTraining(0))
    with pytest.raises(ValueError, match="fps: -1 is not accepted"):
        train_nerf(data, tmp_path / "out", NerfTraining(1, fps=-1))
    camera = Camera(np.eye(3), np.eye(4), 48, 64)
    with pytest.raises(ValueError, match="not both"):
        train_nerf(data, tmp_path / "out", NerfTraining(1), cameras=[camera], path_json=tmp_path / "p.json")
    (tmp_path / "out").mkdir()
    with pytest.raises(FileExistsError, match="--overwrite"):
        train_nerf(data, tmp_path / "out", NerfTraining(1))


def test_the_command_tells_before_anything_runs(tmp_path: Path):
    data = data_set_stub(tmp_path / "data")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "transforms.json").write_text("{}")
    for folder, options, said in (
        (data, ["--device", "abacus"], "device: 'abacus' is not known"),
        (data, ["--path", "orbit"], "lacks median_depth"),
        (data, ["--every", "2"], "--every: only applies to a clip"),
        (data, ["--no-sharpen"], "--sharpen: only applies to a clip"),
        (data, ["--period", "2"], "--period: only applies to a path by its name, not to --path clip"),
        (tmp_path / "empty", [], "lacks fl_x, fl_y, cx, cy, w, h, frames; accepted: a folder of novel-view export"),
    ):
        done = CliRunner().invoke(main, ["nerf", str(folder), "-o", str(tmp_path / "out"), *options])
        assert done.exit_code == 2 and said in done.output, done.output
        assert len(done.output.strip().splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "empty"]


def test_path_of_the_data_set_and_of_the_viewer(tmp_path: Path):
    data = data_set_stub(tmp_path / "data")
    job = _job(data, 5, None, None, None)
    assert len(job["cameras"]) == 3 and job["fps"] == pytest.approx(10) and not job["normalised"]
    pose = np.eye(4)
    pose[:3, 3] = 1, 2, 3
    cameras = [{"camera_to_world": pose.ravel().tolist(), "fov": 40}, {"camera_to_world": np.eye(4).ravel().tolist()}]
    file = tmp_path / "viewer.json"
    file.write_text(json.dumps({"camera_path": cameras, "seconds": 0.5, "render_width": 32, "render_height": 18}))
    job = _job(data, 5, file, None, None)
    assert job["normalised"] and job["fps"] == 4 and [camera["width"] for camera in job["cameras"]] == [32, 32]
    np.testing.assert_allclose(job["cameras"][0]["world_from_camera"], pose @ np.diag([1, -1, -1, 1]))
    assert job["cameras"][0]["K"][1][1] == pytest.approx(9 / np.tan(np.radians(20)))


@pytest.fixture(scope="module")
def scene_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A still procedural scene seen by a moving camera, with the engine's depth, exported."""
    from depth_train.scenes.procedural.clips import make_clips, render_view
    from depth_train.scenes.procedural.description import intrinsics_from_fov
    from depth_train.scenes.procedural.layouts import build_scene

    from depth_engine import DepthEngine

    folder = tmp_path_factory.mktemp("scene")
    K = intrinsics_from_fov(build_scene(SEED).fov_deg, HEIGHT, WIDTH)
    start = make_clips([SEED], 1, HEIGHT, WIDTH)[0]
    depth_m = start.depth_m[0].numpy()
    median_m = float(np.median(depth_m[np.isfinite(depth_m)]))
    target, down = np.array([0, 0, median_m]), np.array([0, 1.0, 0])
    ways = np.linspace(-0.25, 0.25, FRAMES) * median_m
    places = [np.array([way, 0.25 * median_m * 0.25 * np.sin(12 * way / median_m), 0]) for way in ways]
    poses = np.stack([start.world_from_camera[0].numpy() @ look_at(place, target, down) for place in places])
    clip = render_view(SEED, [0] * FRAMES, torch.from_numpy(K), torch.from_numpy(poses), HEIGHT, WIDTH)
    rgb, true_m = clip.rgb.numpy(), clip.depth_m.numpy()
    with VideoWriter(folder / "clip.mkv", width=WIDTH, height=HEIGHT, fps=10, codec="ffv1") as writer:
        for index, frame in enumerate(rgb):
            writer.write(frame, index / 10)
    depth = DepthEngine.from_pretrained("bundled").estimate(rgb, seed=0)
    depth.save(folder / "depth.npy")
    # As by a reconstruction: depth is known at a few points of each frame, in a unit of its own.
    rng = np.random.default_rng(0)
    known = rng.choice(np.flatnonzero(np.isfinite(true_m)), 1000, replace=False)
    aligned = align(depth.kind, Samples(depth.values.ravel()[known], true_m.ravel()[known] / median_m)).placement
    poses[:, :3, 3] /= median_m
    found = PoseResult(
        method="colmap",
        fov_by="given",
        height=HEIGHT,
        width=WIDTH,
        K=K,
        world_from_camera=poses,
        times_s=np.arange(FRAMES) / 10,
        registered=tuple(range(FRAMES)),
        depth_kind=depth.kind,
        scale=aligned.scale,
        shift=aligned.shift,
        alignment_error=0.0,
        reprojection_px=0.0,
        points=np.zeros((1, 3)),
        colors=np.zeros((1, 3), np.uint8),
    )
    options = DatasetOptions(side_px=64, eval_every=2, cloud_points=0)
    return export_dataset(
        Take(folder / "clip.mkv"), open_depth(folder / "depth.npy"), found, folder / "data", options
    ).folder


@pytest.mark.slow
def test_depth_helps_held_out_frames_and_the_path_plays(scene_data: Path, tmp_path: Path):
    told: list[tuple[str, int, int]] = []
    results = {
        use_depth: train_nerf(
            scene_data,
            tmp_path / f"depth-{use_depth}",
            NerfTraining(STEPS, use_depth=use_depth, small=True, device="cpu"),
            on_progress=lambda *facts: told.append(facts),
        )
        for use_depth in (True, False)
    }
    psnr = {use_depth: result.report["psnr"] for use_depth, result in results.items()}
    print(f"held-out PSNR: with the engine's depth {psnr[True]:.2f}, without {psnr[False]:.2f}")
    assert psnr[True] > psnr[False]
    report = results[True].report
    assert report["iterations"] == STEPS and len(report["held_out"]) == 4 and 0 < report["ssim"] < 1
    assert len(list((results[True].folder / "held_out").glob("*.png"))) == 4
    assert ("training", STEPS, STEPS) in told and ("path", FRAMES, FRAMES) in told
    assert probe(results[True].video).codec == "h264"
    frames = [frame.rgb for frame in read_frames(results[True].video)]
    assert len(frames) == FRAMES and frames[0].shape == (48, 64, 3)
    truth = [frame.rgb for frame in read_frames(scene_data / "images")]
    errors = [np.abs(frame.astype(int) - true).mean() for frame, true in zip(frames, truth, strict=True)]
    assert np.mean(errors) < 40, "the path shows the scene"


@pytest.mark.slow
def test_stock_commands_train_and_load_it(scene_data: Path, tmp_path: Path):
    """`ns-train NAME --data DIR` as it is, offline; and what it wrote loads under torch >= 2.6."""
    small = "--max-num-iterations 2 --vis tensorboard --machine.device-type cpu --pipeline.model.log2-hashmap-size 12"
    rays = "--pipeline.datamanager.train-num-rays-per-batch 64 --pipeline.datamanager.eval-num-rays-per-batch 64"
    code = (
        "from nerfstudio.scripts.train import entrypoint; entrypoint()\n"
        "from pathlib import Path; from nerfstudio.utils.eval_utils import eval_setup\n"
        f"config = next(Path({str(tmp_path)!r}).rglob('config.yml'))\n"
        "_, pipeline, _, step = eval_setup(config, test_mode='inference')\n"
        "print('LOADED', step, type(pipeline.model).__name__, pipeline.datamanager.train_dataset.metadata)\n"
    )
    command = ["-c", code, "depth-video-nerfacto", "--data", str(scene_data), "--output-dir", str(tmp_path)]
    environment = {**os.environ, "HTTPS_PROXY": "http://127.0.0.1:9", "HTTP_PROXY": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, *command, *small.split(), *rays.split()],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=300,
    )
    assert "LOADED 1 DepthVideoNerfactoModel" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
    assert "'depth_unit_scale_factor': 0.001" in done.stdout


@pytest.mark.slow
def test_stock_depth_nerfacto_takes_the_data_set(scene_data: Path, tmp_path: Path):
    """nerfstudio's own method and data parser, but for its download of LPIPS's weights."""
    code = (
        "from novel_view.nerf.model import _no_download\n"
        "from nerfstudio.scripts.train import entrypoint\n"
        "with _no_download(): entrypoint()\n"
    )
    options = (
        f"depth-nerfacto --data {scene_data} --output-dir {tmp_path} --max-num-iterations 2 --vis tensorboard "
        "--machine.device-type cpu --pipeline.model.implementation torch --pipeline.model.log2-hashmap-size 12 "
        "--pipeline.datamanager.train-num-rays-per-batch 64 --pipeline.datamanager.eval-num-rays-per-batch 64 "
        "nerfstudio-data"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *options.split()], capture_output=True, text=True, check=False, timeout=300
    )
    assert list(tmp_path.rglob("*.ckpt")), done.stdout[-2000:] + done.stderr[-2000:]
