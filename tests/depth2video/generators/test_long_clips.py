from collections.abc import Iterator

import numpy as np
import pytest
from depth2video.generators.long_clips import crossfade, share_of_new, spans

from depth_engine.models.svd.windows import plan


@pytest.mark.parametrize(("window", "stride"), [(8, 6), (9, 4), (5, 5), (6, 1)])
@pytest.mark.parametrize("frame_count", [1, 5, 8, 9, 23])
def test_every_frame_is_finished_once_and_windows_are_the_engine_s(frame_count: int, window: int, stride: int) -> None:
    found = list(spans(iter(range(frame_count)), window, stride))
    assert [span.window for span in found] == list(plan(frame_count, window, stride, "cut"))
    finished = [item for span in found for item in span.items[: span.finished]]
    assert finished == list(range(frame_count))
    for span in found:
        assert span.items == list(range(span.window.start, span.window.stop))


@pytest.mark.parametrize("done", [1, 2, 3])
def test_an_interrupted_plan_goes_on_where_it_stood(done: int) -> None:
    window, stride, frame_count = 8, 6, 23
    whole = list(spans(iter(range(frame_count)), window, stride))
    assert list(spans(iter(range(done * stride, frame_count)), window, stride, done)) == whole[done:]


def test_no_more_than_a_window_and_a_frame_is_read_ahead() -> None:
    read = 0

    def items() -> Iterator[int]:
        nonlocal read
        while True:
            read += 1
            yield read

    for number, _ in zip(range(5), spans(items(), 8, 6), strict=False):
        assert read <= 8 + 6 * number + 1


def test_a_crossfade_runs_from_the_old_to_the_new() -> None:
    held, frames = np.zeros((3, 2, 2, 3), np.uint8), np.full((5, 2, 2, 3), 200, np.uint8)
    mixed = crossfade(held, frames)
    assert mixed[:, 0, 0, 0].tolist() == [50, 100, 150, 200, 200]
    np.testing.assert_array_equal(crossfade(frames[:0], frames), frames)
    assert share_of_new(0).shape == (0,)
