from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from depth_train.config import Source, Stage
from depth_train.data.clip_pool import ShapedPools
from depth_train.data.draws import generator
from depth_train.data.rendered import RenderedViews, cut_view
from depth_train.scenes.models.scene import RenderedView
from depth_train.scenes.models.store import view_name, write_view

CPU = torch.device("cpu")


def view_of(height: int, width: int, frames: int = 1) -> RenderedView:
    """A picture whose light and depth both say where a pixel is: column / 10 metres."""
    columns = np.arange(width, dtype=np.float32) + 0.5
    depth = np.tile(columns / 10, (frames, height, 1)).astype(np.float32)
    light = np.repeat(depth[..., None] / 10, 3, axis=-1).astype(np.float16)
    K = np.array([[50.0, 0, width / 2], [0, 50.0, height / 2], [0, 0, 1]])
    return RenderedView(light, depth, K, np.tile(np.eye(4), (frames, 1, 1)), "room", "still")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for number, size in enumerate([(48, 96), (64, 64), (96, 48)]):
        write_view(tmp_path, view_name(number, 0, 1, size), view_of(*size))
    return tmp_path


def test_a_cut_keeps_depth_light_and_camera_together() -> None:
    for seed in range(12):
        cut = cut_view(view_of(48, 96), (32, 48), 1, np.random.default_rng(seed))
        assert cut.rgb.shape == (1, 32, 48, 3) and cut.rgb.dtype == torch.uint8
        # A pixel's ray through the cut's K meets the whole picture where the depth says.
        columns = np.arange(48) + 0.5
        rays = (columns - float(cut.K[0, 2])) / float(cut.K[0, 0])
        whole = rays * 50 + 48
        seen = cut.depth_m[0, 10].numpy() * 10
        assert np.abs(whole - seen).max() <= 0.5 * 96 / 48 + 0.5
        share = 48 / float(cut.K[0, 0]) * 50
        assert 0.6 * 72 <= share <= 72.5  # 48 of height allow 72 of width


def test_views_are_drawn_for_the_shape_that_is_asked_for(store: Path) -> None:
    views = RenderedViews(store, 4, images=True)
    for size, expected in (((32, 64), (48, 96)), ((64, 32), (96, 48)), ((32, 32), (64, 64))):
        assert [view.size for view in views._of_shape(size)] == [expected]


def test_a_view_of_fewer_frames_is_played_forth_and_back(tmp_path: Path) -> None:
    view = view_of(32, 48, frames=3)
    view.world_from_camera[:, 0, 3] = [0.0, 1.0, 2.0]
    write_view(tmp_path, view_name(0, 0, 3, (32, 48)), view)
    views = RenderedViews(tmp_path, 5, images=False)
    places = views.draw((32, 48), np.random.default_rng(0)).world_from_camera[:, 0, 3]
    assert places.tolist() == [0, 1, 2, 1, 0]
    assert RenderedViews(tmp_path, 2, images=False).draw((32, 48), np.random.default_rng(0)).rgb.shape[0] == 2
    with pytest.raises(ValueError, match="no view of 6 frames"):
        RenderedViews(tmp_path, 6, images=False)


def test_clips_need_views_that_are_long_enough(store: Path) -> None:
    with pytest.raises(ValueError, match="no view of 4 frames"):
        RenderedViews(store, 4, images=False)
    with pytest.raises(ValueError, match="depth-train scenes"):
        RenderedViews(store / "nothing", 1, images=True)


def test_a_damaged_file_is_left_out_and_named(store: Path) -> None:
    (broken,) = [path for path in store.glob("*.npz") if "48x96" in path.name]
    broken.write_bytes(broken.read_bytes()[:500])
    write_view(store, view_name(9, 0, 1, (48, 96)), view_of(48, 96))
    views = RenderedViews(store, 1, images=True)
    with pytest.warns(UserWarning, match=broken.name):
        for seed in range(12):
            views.draw((32, 64), np.random.default_rng(seed))


def test_pools_of_shapes_hold_what_was_loaded_whenever_that_was(store: Path) -> None:
    stage = Stage(1.0, 32, 64, 2, 1, 1, 6, 2, shapes=((32, 64), (64, 32), (32, 32)))
    sources = (Source("rendered", str(store), gives="images"), Source())
    first, again = (ShapedPools(stage, 3, sources, CPU) for _ in range(2))
    first.load(11)
    for count in (4, 5, 2):
        again.load(count)
    resumed = ShapedPools(stage, 3, sources, CPU)
    resumed.load_again(11)
    for shape, (height, width) in enumerate(stage.shapes):
        drawn = [
            pools.draw(shape, 1, [generator(0, 1, place) for place in range(4)]) for pools in (first, again, resumed)
        ]
        assert drawn[0].rgb.shape == (4, 1, height, width, 3)
        for other in drawn[1:]:
            assert torch.equal(drawn[0].rgb, other.rgb) and torch.equal(drawn[0].depth_m, other.depth_m)


def test_pools_of_one_run_show_different_scenes(tmp_path: Path) -> None:
    stage = Stage(1.0, 32, 32, 2, 1, 1, 8, 2, shapes=((32, 32), (32, 32)))
    pools = ShapedPools(stage, 3, (Source(),), CPU)
    pools.load(8)
    one, other = (pool._rgb[:4] for pool in pools.pools)
    assert not any(torch.equal(a, b) for a in one for b in other)
