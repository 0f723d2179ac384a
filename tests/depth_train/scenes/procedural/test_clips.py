from __future__ import annotations

import numpy as np
import pytest
import torch
from depth_train.scenes.procedural import clips as scenes
from depth_train.scenes.procedural import description as scene_description
from depth_train.scenes.procedural import layouts as scene_layouts
from depth_train.scenes.procedural import shading as scene_shading
from depth_train.scenes.procedural.clips import SceneClip, make_clips, render_view


@pytest.fixture(scope="module")
def batch():
    return make_clips(range(12), frames=3, height=36, width=48)


def same(a: SceneClip, b: SceneClip) -> bool:
    names = ("rgb", "depth_m", "K", "world_from_camera")
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in names)


def reproject(clip: SceneClip, source: int, target: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth that the target camera should read for the source's pixels, and what it reads there (nan outside)."""
    height, width = clip.depth_m.shape[1:]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixel = torch.stack([x, y, torch.ones_like(x)], dim=-1).double()
    point = pixel @ torch.linalg.inv(clip.K).T * clip.depth_m[source].double()[..., None]
    motion = torch.linalg.inv(clip.world_from_camera[target]) @ clip.world_from_camera[source]
    point = point @ motion[:3, :3].T + motion[:3, 3]
    landed = point @ clip.K.T
    u, v = (landed[..., i] / landed[..., 2] for i in (0, 1))
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height) & (point[..., 2] > 0)
    inside &= torch.isfinite(clip.depth_m[source])
    seen = clip.depth_m[target][v[inside].floor().long(), u[inside].floor().long()].double()
    return point[..., 2][inside], seen


def test_fields_have_the_documented_types_and_shapes(batch):
    clip = batch[3]
    assert (clip.rgb.dtype, clip.rgb.shape) == (torch.uint8, (3, 36, 48, 3))
    assert (clip.depth_m.dtype, clip.depth_m.shape) == (torch.float32, (3, 36, 48))
    assert (clip.K.dtype, clip.world_from_camera.dtype) == (torch.float64, torch.float64)
    rotation = batch.world_from_camera[..., :3, :3]
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64).expand_as(rotation), atol=1e-12)
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(12, 3, dtype=torch.float64))


def test_a_clip_depends_on_its_seed_alone(batch):
    scene_layouts.build_scene.cache_clear()
    scenes._exposure_gain.cache_clear()
    again = make_clips([7, 3], frames=3, height=36, width=48)
    assert same(again[0], batch[7]) and same(again[1], batch[3])
    assert not torch.equal(batch.rgb[3], batch.rgb[7])


def test_a_longer_clip_starts_with_the_shorter_one(batch):
    longer = make_clips([4], frames=5, height=36, width=48)[0]
    short = batch[4]
    assert torch.equal(longer.world_from_camera[:3], short.world_from_camera)
    assert torch.equal(longer.depth_m[:3], short.depth_m)
    assert torch.equal(longer.rgb[:3], short.rgb)


def test_another_resolution_shows_the_same_scene(batch):
    """Three times the size puts a pixel centre on each small one."""
    large = make_clips(range(4), frames=1, height=108, width=144)
    small = batch.depth_m[:4, :1]
    sampled = large.depth_m[:, :, 1::3, 1::3]
    close = torch.isclose(sampled, small, rtol=1e-3) | (torch.isinf(sampled) & torch.isinf(small))
    assert close.float().mean() > 0.998


def test_depth_is_positive_and_finite_but_for_the_sky(batch):
    assert (batch.depth_m > 0).all() and not torch.isnan(batch.depth_m).any()
    finite = batch.depth_m[torch.isfinite(batch.depth_m)]
    assert finite.max() <= scene_description.MAX_DEPTH_M
    indoor = [scene_layouts.build_scene(i).indoor for i in range(12)]
    assert 0 < sum(indoor) < 12
    assert torch.isfinite(batch.depth_m[indoor]).all()
    assert torch.isinf(batch.depth_m).any()


def test_depth_and_poses_agree_between_frames():
    seeds = [seed for seed in range(20) if not scene_layouts.build_scene(seed).motions][:6]
    clips = make_clips(seeds, frames=2, height=72, width=96)
    moved = 0.0
    for i in range(len(seeds)):
        expected, seen = reproject(clips[i], 0, 1)
        ratio = expected / seen
        assert ((ratio - 1).abs() < 0.05).float().mean() > 0.85, f"seed {seeds[i]}"
        # Something may come before a point that was seen; only at edges can the view pass through it.
        assert (ratio < 0.95).float().mean() < 0.07, f"seed {seeds[i]}"
        moved += float((clips[i].world_from_camera[1] - clips[i].world_from_camera[0]).norm())
    assert moved > 0.15  # the cameras did move: identity poses would not have passed by luck


def test_a_wrong_pose_is_noticed():
    clip = make_clips([6], frames=2, height=72, width=96)[0]
    poses = clip.world_from_camera.clone()
    poses[1, :3, 3] += 0.3 * clip.depth_m[1].median() * poses[1, :3, 2]  # ahead of the truth
    expected, seen = reproject(SceneClip(clip.rgb, clip.depth_m, clip.K, poses), 0, 1)
    assert ((expected / seen - 1).abs() < 0.05).float().mean() < 0.5


def test_the_own_camera_renders_the_same_clip(batch):
    for seed in (0, 2, 5):
        clip = batch[seed]
        assert same(render_view(seed, range(3), clip.K, clip.world_from_camera, 36, 48), clip)


def test_a_view_from_elsewhere_agrees_with_the_clip():
    seed = next(seed for seed in range(20) if not scene_layouts.build_scene(seed).motions)
    clip = make_clips([seed], frames=1, height=72, width=96)[0]
    aside = clip.world_from_camera.clone()
    aside[0, :3, 3] += 0.1 * aside[0, :3, 0]
    view = render_view(seed, [0.0], clip.K, aside, 72, 96)
    pair = SceneClip(
        torch.cat([clip.rgb, view.rgb]),
        torch.cat([clip.depth_m, view.depth_m]),
        clip.K,
        torch.cat([clip.world_from_camera, aside]),
    )
    expected, seen = reproject(pair, 0, 1)
    assert ((expected / seen - 1).abs() < 0.05).float().mean() > 0.85
    assert not torch.equal(view.depth_m, clip.depth_m)


def test_objects_move_in_some_scenes_while_the_camera_stands():
    moving = [seed for seed in range(60) if scene_layouts.build_scene(seed).motions]
    assert 0.2 < len(moving) / 60 < 0.6
    changed = 0
    for seed in moving[:8]:
        clip = make_clips([seed], frames=1, height=36, width=48)[0]
        later = render_view(seed, [8.0], clip.K, clip.world_from_camera, 36, 48)
        changed += not torch.equal(later.depth_m, clip.depth_m)
    assert changed >= 2  # some things that move are out of sight


def test_the_camera_stays_clear_of_everything():
    clips = make_clips(range(12), frames=30, height=9, width=12)
    assert clips.depth_m.min() > 0.2  # planar depth of a thing 0.4 m away, in a corner of a wide picture


def test_pictures_are_neither_black_nor_flat(batch):
    pixels = batch.rgb.float().flatten(1)
    assert pixels.mean(dim=1).min() > 25 and pixels.mean(dim=1).max() < 215
    assert pixels.std(dim=1).min() > 8


def test_supersampling_leaves_depth_alone(batch):
    smooth = make_clips([2], frames=3, height=36, width=48, supersample=2)[0]
    assert torch.equal(smooth.depth_m, batch.depth_m[2])
    difference = (smooth.rgb.float() - batch.rgb[2].float()).abs().mean()
    assert 0 < difference < 15


@pytest.mark.parametrize("column", ["emission", "gloss", "mortar", "pattern"])
def test_material_columns_are_where_their_names_say(column):
    material = scene_description.Material((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    value = (7.0, 8.0, 9.0) if column == "mortar" else 7.0
    setattr(material, column, value)
    table = torch.tensor([material.row()], dtype=torch.float64).T
    found = scene_shading._columns(table, torch.zeros(1, dtype=torch.long))[column]
    assert found[:, 0].tolist() == list(np.atleast_1d(value))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((), 1, 8, 8), "seeds: got none"),
        (((0,), 0, 8, 8), "frames: got 0"),
        (((0,), 1, -3, 8), "height: got -3"),
    ],
)
def test_bad_sizes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_clips(*arguments)


def test_a_pose_for_every_moment_is_asked_for():
    with pytest.raises(ValueError, match="one pose per frame index"):
        render_view(0, [0, 1], torch.eye(3), torch.eye(4)[None], 8, 8)
