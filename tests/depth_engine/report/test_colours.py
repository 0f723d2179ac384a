"""Colours, side by side, contact sheet."""

from __future__ import annotations

import numpy as np
import pytest

from depth_engine.report.colours import COLOR_MAPS, colorize, contact_sheet, shrink_to_width, side_by_side

RAMP = np.linspace(0, 1, 2048, dtype=np.float32)[None]


def _luminance(rgb: np.ndarray) -> np.ndarray:
    return rgb @ np.array([0.2126, 0.7152, 0.0722])


def _warmth(rgb: np.ndarray) -> np.ndarray:
    return rgb[..., 0].astype(int) - rgb[..., 2].astype(int)


@pytest.mark.parametrize("cmap", COLOR_MAPS)
@pytest.mark.parametrize("kind", ["disparity", "depth", "metric"])
def test_near_is_warmer_or_brighter_than_far_in_every_kind(cmap: str, kind: str) -> None:
    near, far = (1.0, 0.0) if kind == "disparity" else (0.0, 1.0)
    near_rgb, far_rgb = colorize(np.array([[near, far]], np.float32), kind, cmap)[0]
    assert _luminance(near_rgb) > _luminance(far_rgb)
    assert _warmth(near_rgb) >= _warmth(far_rgb)


@pytest.mark.parametrize("cmap", COLOR_MAPS)
def test_disparity_and_its_mirror_as_depth_look_alike(cmap: str) -> None:
    steps = np.arange(1024, dtype=np.float32)[None] / 1023
    np.testing.assert_array_equal(colorize(steps, "disparity", cmap), colorize(steps[:, ::-1], "depth", cmap))


@pytest.mark.parametrize("cmap", COLOR_MAPS)
def test_ramp_is_smooth(cmap: str) -> None:
    steps = np.abs(np.diff(colorize(RAMP, "disparity", cmap)[0].astype(int), axis=0))
    assert steps.max() <= 2


def test_gray_keeps_every_8_bit_level_in_order() -> None:
    level = colorize(RAMP, "disparity", "gray")[0, :, 0]
    assert (np.diff(level.astype(int)) >= 0).all()
    assert len(np.unique(level)) == 256
    np.testing.assert_allclose(level, 255 * RAMP[0], atol=0.75)


def test_a_value_has_one_colour_whatever_the_rest_of_the_frame() -> None:
    alone = colorize(np.full((2, 2), 0.4, np.float32), "disparity")
    among = colorize(np.array([[0.4, 0.0], [1.0, 0.9]], np.float32), "disparity")
    np.testing.assert_array_equal(alone[0, 0], among[0, 0])


def test_values_outside_take_the_end_colours_and_the_input_stays() -> None:
    values = np.array([[-3.0, 0.0, 1.0, 7.0]], np.float32)
    before = values.copy()
    rgb = colorize(values, "depth", "turbo")[0]
    np.testing.assert_array_equal(rgb[0], rgb[1])
    np.testing.assert_array_equal(rgb[2], rgb[3])
    np.testing.assert_array_equal(values, before)


def test_a_clip_is_its_frames() -> None:
    clip = np.random.default_rng(0).random((3, 4, 5))  # float64 on purpose
    rgb = colorize(clip, "disparity")
    assert rgb.shape == (3, 4, 5, 3) and rgb.dtype == np.uint8
    np.testing.assert_array_equal(rgb[1], colorize(clip[1], "disparity"))


def test_colorize_names_what_it_does_not_accept() -> None:
    with pytest.raises(ValueError, match="kind: 'inverse' is not one of disparity"):
        colorize(RAMP, "inverse")
    with pytest.raises(ValueError, match="cmap: 'jet' is not one of spectral"):
        colorize(RAMP, "depth", "jet")
    with pytest.raises(ValueError, match="neither"):
        colorize(RAMP[0], "depth")


def _picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_small_even_frames_are_put_together_untouched() -> None:
    rgb, depth = _picture(6, 8), _picture(6, 8)[::-1]
    np.testing.assert_array_equal(side_by_side(rgb, depth), np.concatenate([rgb, depth], axis=1))


def test_odd_frames_lose_one_line() -> None:
    rgb = _picture(7, 9)
    pair = side_by_side(rgb, rgb)
    assert pair.shape == (6, 16, 3)
    np.testing.assert_array_equal(pair[:, :8], rgb[:6, :8])


def test_whole_factors_average_blocks() -> None:
    rgb, depth = _picture(8, 12), _picture(8, 12)[:, ::-1]
    pair = side_by_side(rgb, np.ascontiguousarray(depth), max_width_each=6)
    blocks = rgb.reshape(4, 2, 6, 2, 3).astype(float).mean(axis=(1, 3))
    assert pair.shape == (4, 12, 3)
    np.testing.assert_allclose(pair[:, :6], blocks, atol=0.51)


@pytest.mark.parametrize(("height", "width"), [(720, 1280), (1080, 1920), (817, 1921), (1920, 1080), (2, 4000)])
def test_large_frames_keep_their_proportions_and_even_sides(height: int, width: int) -> None:
    rgb = np.full((height, width, 3), 77, np.uint8)
    pair = side_by_side(rgb, np.full((height // 2 or 1, width // 2, 3), 200, np.uint8))
    out_height, out_width = pair.shape[0], pair.shape[1] // 2
    assert out_width == 960 and out_height % 2 == 0
    assert out_height == pytest.approx(max(2, height * 960 / width), abs=2)
    assert (pair[:, :960] == 77).all() and (pair[:, 960:] == 200).all()


def test_depth_of_another_size_is_brought_to_the_inputs() -> None:
    pair = side_by_side(_picture(60, 80), np.full((30, 40, 3), 9, np.uint8))
    assert pair.shape == (60, 160, 3)
    assert (pair[:, 80:] == 9).all()


def test_side_by_side_refuses_what_is_no_picture() -> None:
    with pytest.raises(ValueError, match="picture 1: float64"):
        side_by_side(_picture(4, 4), np.zeros((4, 4, 3)))
    with pytest.raises(ValueError, match="smaller than 2x2"):
        side_by_side(_picture(1, 4), _picture(1, 4))
    with pytest.raises(ValueError, match="max_width_each"):
        side_by_side(_picture(4, 4), _picture(4, 4), max_width_each=1)


def test_shrink_to_width_averages_and_leaves_small_pictures() -> None:
    rgb = _picture(8, 12)
    blocks = rgb.reshape(4, 2, 6, 2, 3).astype(float).mean(axis=(1, 3))
    np.testing.assert_allclose(shrink_to_width(rgb, 6), blocks, atol=0.51)
    assert shrink_to_width(rgb, 12) is rgb
    assert shrink_to_width(_picture(9, 100), 10).shape == (1, 10, 3)
    with pytest.raises(ValueError, match="max_width: 0"):
        shrink_to_width(rgb, 0)


def test_contact_sheet_fills_rows() -> None:
    frames = [np.full((2, 3, 3), level, np.uint8) for level in (10, 20, 30, 40, 50)]
    sheet = contact_sheet(frames, 2)
    assert sheet.shape == (6, 6, 3)
    assert sheet[::2, ::3, 0].tolist() == [[10, 20], [30, 40], [50, 0]]


def test_contact_sheet_refuses_mixed_sizes_and_nothing() -> None:
    with pytest.raises(ValueError, match=r"frames\[1\] has shape"):
        contact_sheet([_picture(2, 2), _picture(2, 4)], 2)
    with pytest.raises(ValueError, match="at least one frame"):
        contact_sheet([], 2)
    with pytest.raises(ValueError, match="columns: 0"):
        contact_sheet([_picture(2, 2)], 0)
