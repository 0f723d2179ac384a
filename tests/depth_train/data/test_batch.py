"""What the network is fed: clips held, normalised, cut and augmented alike for picture and truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from depth_train.config import Augmentation, Source
from depth_train.config_files import load_config
from depth_train.data.batch import Batch, augment, crop, make_batch, normalize
from depth_train.data.clip_pool import ClipPool, Clips, check_sources, fit_clip
from depth_train.data.datasets import DepthClip
from depth_train.data.draws import generator
from PIL import Image
from torch import Tensor

from depth_engine.models.svd.codec import to_pixels

STAGE = load_config("smoke").stages[1]
CPU = torch.device("cpu")


def rngs(count: int, step: int = 0) -> list[torch.Generator]:
    return [generator(0, step, place) for place in range(count)]


@pytest.mark.parametrize("kind", ["disparity", "depth"])
def test_normalisation_is_one_affine_map_per_clip_of_what_is_known(kind: str) -> None:
    depth_m = torch.rand(2, 3, 40, 40) * 9 + 1
    valid = torch.ones(2, 3, 40, 40, dtype=torch.bool)
    depth_m[0, :, :4] = torch.inf  # sky
    depth_m[1, :, :, :8], valid[1, :, :, :8] = 1e-9, False  # would be all there is, if it counted
    target = normalize(depth_m, valid, kind)  # type: ignore[arg-type]
    assert target.min() == -1 and target.max() == 1
    for clip in range(2):
        inside = ((target[clip].abs() < 1) & valid[clip]).numpy()
        x = depth_m[clip].numpy()[inside]
        x = 1 / x if kind == "disparity" else x
        y = target[clip].numpy()[inside]
        assert len(x) > 2000 and np.abs(np.polyval(np.polyfit(x, y, 1), x) - y).max() < 1e-4
    far = -1 if kind == "disparity" else 1
    assert (target[0, :, :4] == far).all(), "sky is farthest"
    assert (target[1, :, :, :8] == far).all(), "nothing odd reaches the codec"
    assert torch.isfinite(normalize(depth_m, torch.zeros_like(valid), kind)).all()  # type: ignore[arg-type]


def test_pool_depends_on_the_number_loaded_alone() -> None:
    at_once, bit_by_bit = (ClipPool(STAGE, 0, (Source(),), CPU) for _ in range(2))
    at_once.load(11)  # more than the pool holds: the oldest are replaced
    for count in (3, 1, 7):
        bit_by_bit.load(count)
    again = ClipPool(STAGE, 0, (Source(),), CPU)
    again.load_again(11)
    for step in range(8):
        drawn = [pool.draw(2, rngs(2, step)) for pool in (at_once, bit_by_bit, again)]
        for other in drawn[1:]:
            assert all(torch.equal(mine, theirs) for mine, theirs in zip(drawn[0], other, strict=True))
    assert drawn[0].rgb.shape == (2, 2, 32, 48, 3) and drawn[0].depth_m.shape == (2, 2, 32, 48)


def test_a_clip_does_not_depend_on_its_neighbours_in_the_batch() -> None:
    """Divided among processes, a batch is the same."""
    pool = ClipPool(STAGE, 0, (Source(),), CPU)
    pool.load(8)
    whole = pool.draw(3, rngs(4))
    second_half = pool.draw(3, rngs(4)[2:])
    assert all(torch.equal(a[2:], b) for a, b in zip(whole, second_half, strict=True))


def write_vkitti(root: Path, frames: int = 6) -> None:
    """Virtual KITTI 2's layout; the depth of frame i is 10 + i metres, with sky above."""
    camera = root / "Scene01" / "clone" / "frames"
    for kind in ("rgb", "depth"):
        (camera / kind / "Camera_0").mkdir(parents=True)
    for i in range(frames):
        Image.new("RGB", (96, 64), (40 * i, 10, 10)).save(camera / "rgb" / "Camera_0" / f"rgb_{i:05d}.jpg")
        centimetres = np.full((64, 96), 1000 + 100 * i, dtype=np.uint16)
        centimetres[:8] = 65535
        Image.fromarray(centimetres).save(camera / "depth" / "Camera_0" / f"depth_{i:05d}.png")
    folder = root / "Scene01" / "clone"
    intrinsics = [f"{i} 0 70.0 70.0 48.0 32.0" for i in range(frames)]
    (folder / "intrinsic.txt").write_text("\n".join(["frame cameraID K[0,0] K[1,1] K[0,2] K[1,2]", *intrinsics]) + "\n")
    identity = " ".join(str(float(v)) for v in np.eye(4).ravel())
    header = "frame cameraID " + " ".join(f"r{row},{column}" for row in range(1, 5) for column in range(1, 5))
    (folder / "extrinsic.txt").write_text("\n".join([header, *(f"{i} 0 {identity}" for i in range(frames))]) + "\n")


def test_sources_are_mixed_by_weight(tmp_path: Path) -> None:
    write_vkitti(tmp_path)
    sources = (Source(weight=1), Source("vkitti2", str(tmp_path), weight=3, step=1))
    pool = ClipPool(STAGE, 0, sources, CPU)
    pool.load(8)
    drawn = pool.draw(1, rngs(64))
    flat = [bool((clip[clip.isfinite()] % 1).abs().max() < 1e-3) for clip in drawn.depth_m]
    assert 0.4 < np.mean(flat) < 1.0
    read = drawn.depth_m[flat.index(True)]
    assert torch.isinf(read).any() or (read >= 10).all()


def test_a_bad_file_ends_no_run(tmp_path: Path) -> None:
    write_vkitti(tmp_path)
    pool = ClipPool(STAGE, 0, (Source("vkitti2", str(tmp_path), step=1),), CPU)
    depth = sorted(tmp_path.rglob("depth_*.png"))
    depth[2].write_bytes(depth[2].read_bytes()[:60])  # of clips 0 to 2
    with pytest.warns(UserWarning, match="clip [012] is left out: vkitti2"):
        pool.load(8)
    assert (pool.draw(1, rngs(4)).depth_m >= 10).all()
    for path in depth:
        path.write_bytes(b"")
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="20 clips in a row can't be read"):
        pool.load(1)
    with pytest.raises(ValueError, match="is no folder"):
        check_sources(replace(load_config("smoke"), sources=(Source("vkitti2", str(tmp_path / "none")),)))


def test_data_sets_are_cut_to_the_size_wanted() -> None:
    place = np.arange(60 * 100, dtype=np.float32).reshape(1, 60, 100)
    rgb = np.repeat((place % 251).astype(np.uint8)[..., None], 3, axis=-1)
    clip = DepthClip(rgb, place, place > 0, np.eye(3), np.eye(4)[None], True, "test")
    fitted_rgb, depth, valid, cameras = fit_clip(clip, 30, 48, generator(0, 0))
    assert fitted_rgb.shape == (1, 30, 48, 3) and depth.shape == valid.shape == (1, 30, 48)
    assert torch.equal(valid, depth > 0)
    assert torch.unique(torch.diff(depth[0, 0])).tolist() == [2.0], "no depth is made up"
    # depth counts the clip's pixels: the camera says which one a pixel of the cut is
    u, v, _ = (cameras[0, :, :3] @ torch.tensor([0.5, 0.5, 1.0])).tolist()
    assert abs(v * 100 + u - float(depth[0, 0, 0]) - 100.0) <= 101
    same_rgb, same, *_ = fit_clip(clip, 60, 100, generator(0, 0))
    assert np.array_equal(same_rgb.numpy(), rgb) and np.array_equal(same.numpy(), place)


def test_augmentation_mirrors_all_and_jitters_rgb_alone() -> None:
    ramp = torch.linspace(-0.5, 0.5, 16).expand(8, 2, 8, 16)
    batch = Batch(ramp[:, :, None].expand(-1, -1, 3, -1, -1), ramp, ramp > 0)
    rgb, target, valid = augment(batch, Augmentation(), rngs(8))
    mirrored = target[:, 0, 0, 0] > 0
    assert 0 < mirrored.sum() < 8
    assert torch.equal(rgb[:, 0, :, 0, 0].mean(1) > rgb[:, 0, :, 0, -1].mean(1), mirrored)
    assert torch.equal(valid, target > 0)
    assert torch.equal(target.abs().sort().values, ramp.abs().sort().values), "depth values are untouched"
    assert not torch.allclose(rgb.abs().sort().values, ramp[:, :, None].abs().sort().values.expand_as(rgb), atol=0.02)


def test_crops_keep_picture_and_truth_together() -> None:
    place: Tensor = torch.arange(2 * 96 * 160, dtype=torch.float32).view(2, 1, 96, 160)
    shapes = set()
    for step in range(40):
        cameras = torch.eye(3, 4).expand(2, 1, 3, 4)
        clips = Clips(place[..., None].expand(-1, -1, -1, -1, 3), place, place > 0, cameras)
        cut = crop(clips, 16, Augmentation(), generator(0, step), rngs(2, step))
        assert torch.equal(cut.rgb[..., 0], cut.depth_m) and torch.equal(cut.valid, cut.depth_m > 0)
        column, row, _ = (cut.world_from_pixel[0, 0, :, :3] @ torch.tensor([0.0, 0.0, 1.0])).tolist()
        assert row * 160 + column == cut.depth_m[0, 0, 0, 0], "the camera moves with the cut"
        shapes.add(tuple(cut.depth_m.shape[2:]))
    assert (96, 160) in shapes and len(shapes) > 4
    assert all(height % 16 == width % 16 == 0 and height >= 64 and width >= 112 for height, width in shapes)


def test_images_serve_single_frames_alone(tmp_path: Path) -> None:
    write_vkitti(tmp_path)
    sources = (Source(), Source("vkitti2", str(tmp_path), gives="images"))
    pool = ClipPool(STAGE, 0, sources, CPU)
    pool.load(8)
    flat = [(clip[clip.isfinite()] % 1).abs().max() < 1e-3 for clip in pool.draw(1, rngs(40)).depth_m]
    assert any(flat) and not all(flat)
    assert not any((clip[clip.isfinite()] % 1).abs().max() < 1e-3 for clip in pool.draw(2, rngs(40)).depth_m)


def test_clips_are_cut_with_strides_both_ways() -> None:
    """What is drawn are frames of one held clip, evenly spaced, forwards or back."""
    stage = replace(STAGE, clip_frames=6, pool=1)
    pool = ClipPool(stage, 0, (Source(),), CPU)
    pool.load(1)
    whole = pool.draw(6, rngs(1)).rgb[0]
    drawn = pool.draw(2, rngs(60)).rgb
    places = [[int((whole == frame).flatten(1).all(1).int().argmax()) for frame in clip] for clip in drawn]
    steps = {second - first for first, second in places}
    assert steps <= {-3, -2, -1, 1, 2, 3} and min(steps) < 0 < max(steps) and len({abs(step) for step in steps}) == 3


def test_every_variation_can_be_turned_off() -> None:
    none = Augmentation(mirror=0, cut=0, colour=False, noise=0)
    clips = Clips(
        torch.randint(0, 256, (4, 1, 32, 48, 3), dtype=torch.uint8),
        torch.rand(4, 1, 32, 48) + 1,
        torch.ones(4, 1, 32, 48, dtype=torch.bool),
        torch.zeros(4, 1, 3, 4),
    )
    batch = make_batch(clips, "depth", 16, none, generator(0, 1), rngs(4))
    assert torch.equal(batch.rgb, to_pixels(clips.rgb.movedim(-1, 2)))
    for name, value in (("mirror", 1.0), ("colour", True), ("noise", 0.1)):
        varied = make_batch(clips, "depth", 16, replace(none, **{name: value}), generator(0, 1), rngs(4))
        assert not torch.equal(varied.rgb, batch.rgb), name
    shapes = {
        make_batch(clips, "depth", 16, replace(none, cut=1.0), generator(0, i), rngs(4)).rgb.shape for i in range(9)
    }
    assert len(shapes) > 1
