"""Window plans as tables of integers, and what must hold for every plan."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depth_engine.models.svd.windows import Layout, check_plan, crossfade_noise_order, frames_to_read, next_window, plan

# (start, first_new, stop) of each window
TABLES = [
    # window, stride, frames, layout, plan
    (10, 5, 7, "sliding", [(0, 0, 7)]),
    (10, 5, 10, "sliding", [(0, 0, 10)]),
    (10, 5, 20, "sliding", [(0, 0, 10), (5, 10, 15), (10, 15, 20)]),
    # The last window is full: less that is new, more context.
    (10, 5, 13, "sliding", [(0, 0, 10), (3, 10, 13)]),
    (4, 4, 9, "sliding", [(0, 0, 4), (4, 4, 8), (5, 8, 9)]),
    (1, 1, 3, "sliding", [(0, 0, 1), (1, 1, 2), (2, 2, 3)]),
    (4, 3, 4, "cut", [(0, 0, 4)]),
    # The last window is cut short: the overlap stays.
    (6, 4, 13, "cut", [(0, 0, 6), (4, 6, 10), (8, 10, 13)]),
    (4, 1, 6, "cut", [(0, 0, 4), (1, 4, 5), (2, 5, 6)]),
    (4, 4, 6, "cut", [(0, 0, 4), (4, 4, 6)]),
]


@pytest.mark.parametrize(("window", "stride", "frames", "layout", "expected"), TABLES)
def test_plan_is_the_table(window: int, stride: int, frames: int, layout: Layout, expected: list) -> None:
    assert [(w.start, w.first_new, w.stop) for w in plan(frames, window, stride, layout)] == expected


sizes = st.integers(1, 24).flatmap(lambda window: st.tuples(st.just(window), st.integers(1, window)))


@given(sizes=sizes, frames=st.integers(0, 120), layout=st.sampled_from(["sliding", "cut"]))
def test_every_plan(sizes: tuple[int, int], frames: int, layout: Layout) -> None:
    window, stride = sizes
    known = 0
    for number, part in enumerate(plan(frames, window, stride, layout)):
        assert part.number == number
        assert part.first_new == known, "each frame is new exactly once, in order"
        assert part.new >= 1
        assert 0 <= part.start <= part.first_new, "context is already known"
        assert part.length <= window, "memory is bound by the window"
        if layout == "cut" and number:
            assert part.context == window - stride
        known = part.stop
    assert known == frames


@given(sizes=sizes, frames=st.integers(1, 120), layout=st.sampled_from(["sliding", "cut"]))
def test_plan_needs_no_frame_count(sizes: tuple[int, int], frames: int, layout: Layout) -> None:
    window, stride = sizes
    previous, left, seen = None, frames, []
    while left:
        new = min(frames_to_read(previous, window, stride), left)
        previous = next_window(previous, new, window, stride, layout)
        seen.append(previous)
        left -= new
    assert seen == list(plan(frames, window, stride, layout))


@given(sizes=sizes, number=st.integers(0, 40))
def test_crossfade_noise_is_the_release_s_rotation(sizes: tuple[int, int], number: int) -> None:
    window, stride = sizes
    overlap = window - stride
    array = list(range(window))
    for _ in range(number):
        # As released: the last `overlap` entries, then the first `stride`. With no overlap, [-0:] is the whole array.
        array = array[-overlap:] + array[:stride]
    assert crossfade_noise_order(number, window, stride) == array[:window]


@pytest.mark.parametrize(("window", "stride", "text"), [(0, 1, "window: 0"), (4, 0, "stride: 0"), (4, 5, "stride: 5")])
def test_impossible_plans_are_refused(window: int, stride: int, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        check_plan(window, stride)
