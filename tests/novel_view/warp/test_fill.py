"""What holes are filled with."""

from __future__ import annotations

import numpy as np
import pytest
from novel_view.warp.edges import sharpen_borders
from novel_view.warp.fill import fill_from_frames, fill_spatial, steady
from novel_view.warp.reproject import Warped, warp

from depth_engine.geometry.cameras import Camera, intrinsics

HEIGHT, WIDTH = 60, 80
RED, BLUE = (200, 20, 20), (20, 40, 180)


def scene(square_at: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """A near red square before a far blue wall with a soft gradient."""
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    rgb[:] = BLUE
    rgb[..., 1] = np.linspace(20, 120, WIDTH).astype(np.uint8)
    depth = np.full((HEIGHT, WIDTH), 8.0, np.float32)
    rgb[20:40, square_at : square_at + 20], depth[20:40, square_at : square_at + 20] = RED, 1.0
    return rgb, depth


def camera(x: float = 0.0) -> Camera:
    pose = np.eye(4)
    pose[0, 3] = x
    return Camera(intrinsics(50, HEIGHT, WIDTH), pose, HEIGHT, WIDTH)


PIXEL = 1 / camera().K[0, 0]  # baseline that moves the square by one pixel


def test_the_background_goes_on_behind_what_moved_aside() -> None:
    rgb, depth = scene()
    view = warp(rgb, depth, camera(), camera(12 * PIXEL))
    filled = fill_spatial(view)
    inner = view.hole.copy()
    inner[:, -3:] = False
    assert inner.sum() > 150
    assert filled.rgb[inner][:, 0].max() < 60, "no red leaks in"
    assert (filled.depth[inner] > 6).all()
    assert np.array_equal(filled.rgb[~view.hole], view.rgb[~view.hole])
    # the wall's gradient goes on: what is painted is near what is there
    truth = np.interp(np.nonzero(inner)[1] + 1.5, np.arange(WIDTH), np.linspace(20, 120, WIDTH))
    assert np.abs(filled.rgb[inner][:, 1] - truth).mean() < 8


def test_a_view_without_holes_or_of_nothing_stays() -> None:
    rgb, depth = scene()
    view = warp(rgb, depth, camera(), camera())
    assert fill_spatial(view) is view
    nothing = Warped(np.zeros_like(rgb), np.full_like(depth, np.inf), np.ones(depth.shape, bool))
    assert fill_spatial(nothing) is nothing


def test_the_sky_is_a_background_too() -> None:
    rgb, depth = scene()
    depth[depth == 8] = np.inf
    view = warp(rgb, depth, camera(), camera(12 * PIXEL))
    inner = view.hole & (np.arange(WIDTH) < WIDTH - 15)
    filled = fill_spatial(view)
    assert inner.any() and np.isinf(filled.depth[inner]).all()
    assert filled.rgb[inner][:, 0].max() < 60


def test_other_frames_give_what_they_saw() -> None:
    rgb, depth = scene()
    target = camera(12 * PIXEL)
    view = warp(rgb, depth, camera(), target)
    there = warp(*scene_from(24 * PIXEL), camera(24 * PIXEL), target)
    filled, taken = fill_from_frames(view, target, [(*scene_from(24 * PIXEL), camera(24 * PIXEL))])
    assert taken.sum() > 100 and not (filled.hole & taken).any()
    assert np.array_equal(filled.rgb[taken], there.rgb[taken])
    assert filled.rgb[taken][:, 0].max() < 60


def scene_from(x: float) -> tuple[np.ndarray, np.ndarray]:
    """The scene as a camera at x sees it: the square has moved, the wall by an eighth of that."""
    rgb, depth = scene(30 - round(x / PIXEL))
    wall = np.linspace(20, 120, WIDTH)
    moved = np.interp(np.arange(WIDTH) + x / PIXEL / 8, np.arange(WIDTH), wall).astype(np.uint8)
    rgb[depth > 2, 1] = np.broadcast_to(moved, (HEIGHT, WIDTH))[depth > 2]
    return rgb, depth


def test_a_thing_that_came_nearer_is_not_taken_for_background() -> None:
    rgb, depth = scene()
    target = camera(12 * PIXEL)
    view = warp(rgb, depth, camera(), target)
    green = np.full_like(rgb, 0)
    green[..., 1] = 255
    filled, taken = fill_from_frames(view, target, [(green, np.full_like(depth, 1.0), target)])
    inner = view.hole.copy()
    inner[:, -3:] = False
    assert not taken[inner].any()


def test_painted_pixels_lean_on_their_last_colour_unless_it_changed() -> None:
    hole = np.zeros((4, 6), bool)
    hole[1:3, 1:5] = True
    depth = np.ones((4, 6), np.float32)
    last = Warped(np.full((4, 6, 3), 100, np.uint8), depth, hole)
    alike = Warped(np.full((4, 6, 3), 108, np.uint8), depth, hole)
    other = Warped(np.full((4, 6, 3), 220, np.uint8), depth, hole)
    assert (steady(alike, last).rgb[hole] < 104).all()
    assert (steady(alike, last).rgb[~hole] == 108).all()
    assert (steady(other, last).rgb[hole] == 220).all()
    assert steady(alike, None) is alike


@pytest.mark.parametrize("late", [-2, 2])
def test_borders_of_depth_move_to_those_of_the_picture(late: int) -> None:
    rgb, true_depth = scene()
    soft = true_depth.copy()
    soft[:] = 8.0
    soft[20:40, 30 + late : 50 + late] = 1.0
    # and a ramp of made-up depth, as estimated depth has it
    soft[20:40, 29 + late] = soft[20:40, 50 + late] = 1.8
    sharp = sharpen_borders(soft, rgb)
    rows = slice(24, 36)
    before = (np.abs(soft[rows] - true_depth[rows]) > 0.5).mean()
    after = (np.abs(sharp[rows] - true_depth[rows]) > 0.5).mean()
    assert after < before / 4
    far_off = np.s_[:12]
    assert np.array_equal(sharp[far_off], soft[far_off])


def test_borders_in_their_place_stay() -> None:
    rgb, depth = scene()
    assert np.array_equal(sharpen_borders(depth, rgb), depth)
    depth[5:8, 5:8] = np.nan
    depth[:3] = np.inf
    again = sharpen_borders(depth, rgb)
    assert np.array_equal(np.isnan(again), np.isnan(depth)) and np.isinf(again[:2]).all()
