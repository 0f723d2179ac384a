from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from depth_train.config import Source, Stage
from depth_train.config_files import load_config
from depth_train.data.batch import normalize
from depth_train.data.device_camera import DeviceCamera, captions
from depth_train.data.resident import ResidentViews, normalized_disparity
from depth_train.scenes.models.pack import BRIGHTEST, LEVELS, STEEP, code_view, read_pack, write_packs
from depth_train.scenes.models.scene import RenderedView
from depth_train.scenes.models.store import list_views, view_name, write_view

CPU = torch.device("cpu")
STAGE = Stage(1.0, 64, 96, 4, 4, 6, 1, 1)


def view_of(height: int, width: int, frames: int, seed: int = 0) -> RenderedView:
    """Smooth light and depth that grow along the picture, with sky in the uppermost rows."""
    rng = np.random.default_rng(seed)
    columns, rows = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    depth = np.tile((1 + 9 * columns + rows)[None], (frames, 1, 1)).astype(np.float32)
    depth[:, : height // 8] = np.inf
    light = np.tile(np.exp(2 * columns - rows)[None, ..., None], (frames, 1, 1, 3)) * rng.uniform(0.5, 2)
    K = np.array([[50.0, 0, width / 2], [0, 50.0, height / 2], [0, 0, 1]])
    return RenderedView(light.astype(np.float16), depth, K, np.tile(np.eye(4), (frames, 1, 1)), "room", "still")


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    for number, (height, width, frames) in enumerate([(80, 112, 1), (112, 80, 1), (80, 112, 6)] * 2):
        write_view(folder, view_name(number, 0, frames, (height, width)), view_of(height, width, frames, number))
    return folder


def test_a_pack_gives_back_light_and_depth(store: Path, tmp_path: Path) -> None:
    views = list_views(store)
    paths = write_packs(views, tmp_path / "packs", 0.004, 1)
    assert len(paths) > 1  # cut into files of about one size
    back = [view for path in paths for view in read_pack(path)]
    assert len(back) == len(views)
    for view, held in zip(views, back, strict=True):
        coded = code_view(view.path)
        assert np.array_equal(held.disparity, coded.disparity)  # depth is coded without loss
        assert np.abs(held.light.astype(int) - coded.light).mean() < 4
        truth = view_of(*view.size, view.frames).depth_m
        low, high = held.log_disparity
        depth = np.exp(-(low + (held.disparity.astype(float) - 1) / (LEVELS - 1) * (high - low)))
        assert ((held.disparity == 0) == np.isinf(truth)).all()
        assert np.abs(depth / truth - 1)[held.disparity > 0].max() < 0.01
    with pytest.raises(FileExistsError, match="--output"):
        write_packs(views, tmp_path / "packs", 1, 1)
    paths[0].write_bytes(paths[0].read_bytes()[:500])
    with pytest.raises(ValueError, match=r"000\.pack"):
        read_pack(paths[0])


def test_the_light_of_a_pack_reaches_from_shadow_to_glare(tmp_path: Path) -> None:
    view = view_of(32, 32, 1)
    view.radiance[0, :, :16] = 0.002
    view.radiance[0, :, 16:] = 2.0
    write_view(tmp_path, "1-0-1x32x32.npz", view)
    codes = code_view(tmp_path / "1-0-1x32x32.npz").light[0, 0, [0, -1], 0].astype(float)
    light = np.expm1(codes / 255 * np.log1p(STEEP * BRIGHTEST)) / STEEP
    assert light[1] / light[0] == pytest.approx(1000, rel=0.35)  # ten stops in eight bits


def test_batches_are_a_function_of_their_seed(store: Path) -> None:
    views = ResidentViews(STAGE, [Source("packed", str(store))], 0, CPU)
    for frames in (1, 4):
        first, again = (views.batch(frames, 3, 16, 5) for _ in range(2))
        other = views.batch(frames, 3, 16, 6)
        assert first.rgb.shape[:3] == (3, frames, 3) and torch.equal(first.rgb, again.rgb)
        assert first.rgb.shape != other.rgb.shape or not torch.equal(first.rgb, other.rgb)
        assert first.rgb.abs().max() <= 1 and torch.isfinite(first.target).all()


def test_shapes_follow_the_views_and_the_stages_area(store: Path) -> None:
    views = ResidentViews(STAGE, [Source("packed", str(store))], 0, CPU)
    sizes = {tuple(views.batch(1, 1, 16, seed).rgb.shape[-2:]) for seed in range(30)}
    assert all(height % 16 == 0 and width % 16 == 0 for height, width in sizes)
    assert any(height > width for height, width in sizes) and any(width > height for height, width in sizes)
    assert len({height * width for height, width in sizes}) > 3


def test_the_target_is_the_depth_under_the_picture(store: Path, monkeypatch) -> None:
    monkeypatch.setattr(DeviceCamera, "develop", lambda self, light, disparity, rng: (light, disparity > -1))
    views = ResidentViews(STAGE, [Source("packed", str(store))], 0, CPU)
    for seed in range(8):
        batch = views.batch(1, 4, 16, seed)
        light = (batch.rgb[:, 0, 0] + 1) / 2
        for picture, target in zip(light, batch.target[:, 0], strict=True):
            near = target > -0.999  # light grows to the right and depth too, mirrored or not
            along = torch.corrcoef(torch.stack([picture[near], target[near]]))[0, 1]
            assert along < -0.6


def test_normalised_as_other_batches_are() -> None:
    rng = torch.Generator().manual_seed(0)
    depth_m = 1 + 9 * torch.rand(3, 2, 32, 48, generator=rng)
    depth_m[:, :, :6] = torch.inf
    valid = torch.rand(3, 2, 32, 48, generator=rng) > 0.05
    expected = normalize(depth_m, valid, "disparity")
    assert torch.allclose(normalized_disparity(1 / depth_m, valid), expected, atol=1e-5)


def light_of(batch: int, frames: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    coarse = 2.0 ** (10 * torch.rand(batch, frames, 3, 4, 6, generator=rng) - 6)
    light = coarse.repeat_interleave(16, 3).repeat_interleave(16, 4)
    return light, torch.rand(batch, frames, 64, 96, generator=rng)


def test_exposure_never_loses_most_of_a_picture() -> None:
    light, disparity = light_of(64)
    camera = DeviceCamera(CPU)
    means = []
    for seed in range(4):
        image, valid = camera.develop(light.clone(), disparity, torch.Generator().manual_seed(seed))
        assert image.min() >= 0 and image.max() <= 1 and valid.float().mean() > 0.9
        means += image.mean((1, 2, 3, 4)).tolist()
    assert 0.05 < min(means) and max(means) < 0.95 and np.std(means) > 0.08  # dark ones and bright ones


def test_a_clip_is_taken_by_one_camera() -> None:
    light, disparity = light_of(16)
    light, disparity = light.repeat(1, 3, 1, 1, 1), disparity.repeat(1, 3, 1, 1)
    image, _ = DeviceCamera(CPU).develop(light, disparity, torch.Generator().manual_seed(0))
    between = (image[:, 0] - image[:, 1]).abs().mean()  # noise alone
    assert 0 < between < 0.25 * (image[:8, 0] - image[8:, 0]).abs().mean()


def test_jpeg_takes_detail_and_keeps_the_large() -> None:
    light, _ = light_of(2)
    image = (light / light.amax()).sqrt()
    camera = DeviceCamera(CPU)
    fine, coarse = (camera._through_jpeg(image, torch.full((2, 1, 1, 1, 1), quality)) for quality in (100.0, 12.0))
    assert (fine - image).abs().mean() < (coarse - image).abs().mean() < 0.05
    assert torch.allclose(coarse.mean((3, 4)), image.mean((3, 4)), atol=0.03)


def test_captions_cover_little() -> None:
    drawn = captions(8, 0)
    assert all(0.001 < picture.mean() < 0.2 for picture in drawn)


def test_packed_views_train_a_depth_model(store: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner
    from depth_train.cli import main

    config = tmp_path / "c.yaml"
    config.write_text(
        "network: {channels: [32, 32], attention: [false, true], heads: [1, 2]}\noptimizer: {warmup: 2}\nsteps: 4\n"
        f"sources: [{{name: packed, root: {store}}}]\nstages:\n"
        "  - {until: 0.5, height: 32, width: 48, batch: 2, max_frames: 1, clip_frames: 1, pool: 1, fresh: 1, "
        "trains: spatial_alone}\n"
        "  - {until: 1.0, height: 32, width: 48, batch: 2, max_frames: 3, clip_frames: 6, pool: 1, fresh: 1}\n"
    )
    done = CliRunner().invoke(main, ["run", str(config), "-o", str(tmp_path / "mine"), "--quiet", "--debug"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "mine" / "unet").is_dir()


def test_packed_stands_alone_and_has_a_folder(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        "sources: [{name: packed}, {name: procedural}]\nstages:\n"
        "  - {until: 1.0, height: 32, width: 48, batch: 2, max_frames: 1, clip_frames: 1, pool: 1, fresh: 1}\n"
    )
    with pytest.raises(ValueError, match="not beside other sources"):
        load_config(str(config))
    with pytest.raises(ValueError, match="depth-train pack"):
        ResidentViews(STAGE, [Source("packed", str(tmp_path / "none"))], 0, CPU)
