from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest
from depth_train.scenes.models import scene, shapes
from depth_train.scenes.models.camera import develop
from depth_train.scenes.models.catalog import Catalog, read_catalog
from depth_train.scenes.models.lighting import Lamp, Light, render
from depth_train.scenes.models.meshes import Surface
from depth_train.scenes.models.store import fill_store, list_views, read_view, view_name
from depth_train.scenes.models.tracing import World

K = np.array([[40.0, 0, 24], [0, 40.0, 16], [0, 0, 1]])
SIZE = (32, 48)
GREY = Surface((0.5, 0.5, 0.5))


def sunlight(**changes) -> Light:
    chosen = {"to_sun": (0.0, -1.0, 0.0), "sun": (3.0, 3.0, 3.0), **changes}
    return Light(zenith=(0.3, 0.5, 1.0), horizon=(0.8, 0.9, 1.0), ground=(0.2, 0.2, 0.2), **chosen)


def wall_at(z: float, surface: Surface = GREY):
    return shapes.quad((-50, -50, z), (100, 0, 0), (0, 100, 0), surface)


def test_depth_is_planar_at_pixel_centres() -> None:
    _, depth = render(World([wall_at(5.0)]), sunlight(), K, np.eye(4), SIZE, 1, 0)
    assert np.allclose(depth, 5.0, atol=1e-4)
    floor = shapes.quad((-50, 1.5, -50), (100, 0, 0), (0, 0, 100), GREY)
    _, depth = render(World([floor]), sunlight(), K, np.eye(4), SIZE, 1, 0)
    rows = np.arange(SIZE[0]) + 0.5
    below = rows > 18
    expected = 1.5 * K[1, 1] / (rows[below] - K[1, 2])
    seen = expected < 45
    assert np.allclose(depth[below][seen], expected[seen][:, None], rtol=1e-4)
    assert np.isinf(depth[:15]).all()


def test_the_nearest_surface_is_seen_and_glass_is_not() -> None:
    glass = Surface((0.5, 0.5, 0.5), opacity=0.2)
    _, depth = render(World([wall_at(5.0), wall_at(3.0, glass), wall_at(8.0)]), sunlight(), K, np.eye(4), SIZE, 1, 0)
    assert np.allclose(depth, 5.0, atol=1e-3)


def test_rays_go_through_the_holes_of_leaves() -> None:
    texture = np.full((16, 16, 4), 255, dtype=np.uint8)
    texture[:8, :, 3] = 0  # the upper half is a hole
    leaf = Surface((1, 1, 1), texture, tile_m=(100.0, 100.0))
    _, depth = render(World([wall_at(5.0), wall_at(3.0, leaf)]), sunlight(), K, np.eye(4), SIZE, 1, 0)
    assert np.allclose(depth[:14], 5.0, atol=1e-3)
    assert np.allclose(depth[18:], 3.0, atol=1e-3)


def test_a_roof_casts_a_shadow() -> None:
    floor = shapes.quad((-50, 1.5, -50), (100, 0, 0), (0, 0, 100), GREY)
    roof = shapes.quad((-50, -30, -50), (50, 0, 0), (0, 0, 100), GREY)  # over x < 0, out of sight
    light, _ = render(World([floor, roof]), sunlight(), K, np.eye(4), SIZE, 1, 0)
    left, right = light[26:, :20].mean(), light[26:, 28:].mean()
    assert right > 2 * left > 0


def test_a_lamp_lights_what_is_near() -> None:
    dark = sunlight(sun=(0.0, 0.0, 0.0), lamps=[Lamp((0.0, 0.0, 4.0), (5.0, 5.0, 5.0))])
    light, _ = render(World([wall_at(5.0)]), dark, K, np.eye(4), SIZE, 1, 0)
    assert light[14:18, 22:26].mean() > 1.5 * light[:3, :3].mean()


def test_textures_show_in_metres() -> None:
    texture = np.zeros((2, 2, 4), dtype=np.uint8)
    texture[..., 3], texture[:, 0, :3] = 255, 255
    stripes = Surface((1, 1, 1), texture, tile_m=(2.0, 2.0))
    light, _ = render(World([wall_at(2.0, stripes)]), sunlight(to_sun=(0.0, 0.0, -1.0)), K, np.eye(4), SIZE, 1, 0)
    row = light[16].mean(axis=-1)
    bright = row > row.mean()
    # One metre at two metres is 20 pixels: bright and dark change about every 20.
    changes = np.flatnonzero(bright[1:] != bright[:-1])
    assert len(changes) >= 2 and abs(np.diff(changes).mean() - 20) <= 2


def test_moving_things_move() -> None:
    ball = shapes.ball((0, 0, 0), (0.5, 0.5, 0.5), GREY)
    world = World([wall_at(9.0)], [ball])
    pose = np.eye(4)
    for x, column in ((0.0, 24), (1.0, 32)):
        pose[:3, 3] = (x, 0, 5)
        world.place([pose])
        _, depth = render(world, sunlight(), K, np.eye(4), SIZE, 1, 0)
        assert abs(np.flatnonzero(depth[16] < 8).mean() + 0.5 - column) < 1
        assert np.isclose(depth[16].min(), 4.5, atol=0.05)


@pytest.fixture(scope="module")
def small_catalog(assets: Path) -> Catalog:
    return read_catalog(assets).part(False)


@pytest.mark.parametrize("kind", [place for place, _ in scene.PLACES], ids=lambda place: place.__name__)
def test_every_place_gives_sound_views(kind, small_catalog, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(scene, "PLACES", ((kind, 1.0),))
    views = [view for view, _ in scene.render_views(1_000_003, small_catalog, tmp_path, 1, frames=2, samples=1)]
    for view in views:
        assert view.place == kind.__name__
        assert np.isfinite(view.radiance).all() and (view.radiance >= 0).all() and view.radiance.max() > 0
        assert (view.depth_m > 0.1).all()
        assert 20 <= np.isfinite(view.depth_m).mean() * 100
        assert view.radiance.shape == (*view.depth_m.shape, 3) and len(view.world_from_camera) == 2
    assert views


def test_a_scene_is_a_function_of_its_seed(small_catalog, tmp_path) -> None:
    (first, _), (again, _), (other, _) = (
        next(iter(scene.render_views(seed, small_catalog, tmp_path, 1, samples=1)))
        for seed in (1_000_001, 1_000_001, 1_000_002)
    )
    assert np.array_equal(first.radiance, again.radiance) and np.array_equal(first.depth_m, again.depth_m)
    assert np.array_equal(first.world_from_camera, again.world_from_camera)
    assert first.radiance.shape != other.radiance.shape or not np.array_equal(first.radiance, other.radiance)


def test_scenes_need_no_assets_at_all(tmp_path) -> None:
    views = list(scene.render_views(1_000_004, Catalog(), tmp_path, 1, samples=1))
    assert views


def test_the_store_keeps_what_is_there_and_reads_back(small_catalog, tmp_path) -> None:
    store, lines = tmp_path / "store", []
    render = partial(scene.render_views, catalog=small_catalog, cache=tmp_path / "cache", views=1)
    options = {"frames": 1, "report": lines.append}
    written = fill_store(store, render, range(1_000_000, 1_000_002), **options)
    views = list_views(store)
    assert len(views) == written > 0
    stamps = {view.path: view.path.stat().st_mtime_ns for view in views}
    assert fill_store(store, render, range(1_000_000, 1_000_002), **options) == 0
    assert stamps == {view.path: view.path.stat().st_mtime_ns for view in list_views(store)}
    held = read_view(views[0].path)
    assert held.depth_m.shape == (1, *views[0].size) and held.radiance.dtype == np.float16
    assert views[0].path.name == view_name(1_000_000, 0, 1, views[0].size)
    views[0].path.write_bytes(views[0].path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="can't be read"):
        read_view(views[0].path)


def radiance_of(rng: np.random.Generator, frames: int = 1) -> np.ndarray:
    """Light over eight stops in patches."""
    coarse = 2.0 ** rng.uniform(-6, 4, (frames, 6, 8, 1))
    return np.repeat(np.repeat(coarse, 8, axis=1), 8, axis=2) * np.ones(3)


def test_the_camera_loses_a_third_at_the_most_and_often_something() -> None:
    lost = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        light = radiance_of(rng)
        rgb = develop(light, np.ones(light.shape[:3]), rng).rgb.astype(int)
        level = rgb.max(axis=-1)
        lost.append(((level >= 254) | (level <= 1)).mean())
    assert np.mean(np.array(lost) > 0.02) > 0.2
    assert np.mean(np.array(lost) < 0.75) > 0.95


def test_the_camera_is_a_function_of_its_generator_and_a_clip_is_one_camera() -> None:
    light = np.repeat(radiance_of(np.random.default_rng(3)), 4, axis=0)
    depth = np.ones(light.shape[:3])
    first, again = (develop(light, depth, np.random.default_rng(7)).rgb for _ in range(2))
    assert np.array_equal(first, again)
    change = [
        np.abs(develop(light, depth, np.random.default_rng(s)).rgb.astype(int).mean(axis=(1, 2, 3)) - 0)
        for s in range(12)
    ]
    # Still light: frames of a clip differ by noise alone, clips by their exposure.
    assert max(np.ptp(levels) for levels in change) < 6 < np.ptp([levels[0] for levels in change])


def test_bars_are_black_and_not_valid() -> None:
    light = radiance_of(np.random.default_rng(0))
    seen = 0
    for seed in range(80):
        picture = develop(light, np.ones(light.shape[:3]), np.random.default_rng(seed))
        if not picture.valid.all():
            seen += 1
            assert picture.rgb[~picture.valid].mean() < 25  # what JPEG makes of black
            assert picture.valid.mean() > 0.6
    assert seen
