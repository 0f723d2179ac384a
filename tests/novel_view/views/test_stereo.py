import numpy as np
import pytest
from novel_view.views.stereo import LAYOUTS, Eyes, anaglyph, eye_cameras, pack
from novel_view.warp.reproject import warp

HEIGHT, WIDTH = 40, 200


def test_eyes_shift_by_disparity_and_meet_at_the_screen() -> None:
    """2 % of 200 px: the nearest point is 4 px further apart than the farthest."""
    rgb = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    source, left, right = eye_cameras(Eyes(separation_percent=2, convergence=0.5), HEIGHT, WIDTH)
    for disparity, shift in ((0.0, -1), (0.5, 0), (1.0, 1)):
        with np.errstate(divide="ignore"):
            depth = np.full((HEIGHT, WIDTH), 1 / np.float32(disparity), np.float32)
        inner = np.s_[:, 4:-4]
        seen_left, seen_right = warp(rgb, depth, source, left).rgb, warp(rgb, depth, source, right).rgb
        assert np.abs(seen_left.astype(int) - np.roll(rgb, shift, 1))[inner].max() <= 1
        assert np.abs(seen_right.astype(int) - np.roll(rgb, -shift, 1))[inner].max() <= 1


def test_layouts_have_their_sizes_and_sides() -> None:
    left = np.full((HEIGHT, WIDTH, 3), 50, np.uint8)
    right = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    packed = {layout: pack(left, right, layout) for layout in LAYOUTS}
    sizes = {layout: picture.shape[:2] for layout, picture in packed.items()}
    assert sizes == {
        "half-sbs": (HEIGHT, WIDTH),
        "sbs": (HEIGHT, 2 * WIDTH),
        "half-tb": (HEIGHT, WIDTH),
        "tb": (2 * HEIGHT, WIDTH),
        "anaglyph": (HEIGHT, WIDTH),
        "left": (HEIGHT, WIDTH),
        "right": (HEIGHT, WIDTH),
    }
    for layout in ("half-sbs", "sbs"):
        half = packed[layout].shape[1] // 2
        assert (packed[layout][:, :half] == 50).all() and (packed[layout][:, half:] == 200).all()
    for layout in ("half-tb", "tb"):
        half = packed[layout].shape[0] // 2
        assert (packed[layout][:half] == 50).all() and (packed[layout][half:] == 200).all()
    with pytest.raises(ValueError, match="layout: 'sb'.*sbs"):
        pack(left, right, "sb")


def test_anaglyph_gives_each_eye_its_picture() -> None:
    """White and black: the red channel is the left eye's, green and blue are the right one's."""
    white, black = np.full((4, 4, 3), 255, np.uint8), np.zeros((4, 4, 3), np.uint8)
    red, green, blue = anaglyph(white, black)[0, 0]
    assert red > 250 and green < 10 and blue < 10
    red, green, blue = anaglyph(black, white)[0, 0]
    assert red < 10 and green > 250 and blue > 250
    grey = anaglyph(np.full((4, 4, 3), 128, np.uint8), np.full((4, 4, 3), 128, np.uint8))
    assert np.abs(grey.astype(int) - 128).max() <= 3


@pytest.mark.parametrize(
    ("separation", "convergence", "text"),
    [
        (0, 0.5, "separation: 0"),
        (11, 0.5, "separation: 11"),
        (2, 1.5, "convergence: 1.5"),
        (2, np.nan, "convergence: nan"),
    ],
)
def test_what_eyes_can_not_do_is_refused(separation: float, convergence: float, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        Eyes(separation, convergence)
