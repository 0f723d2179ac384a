"""Cuts: found in real and made footage, online, and given."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import numpy as np
import pytest

from depth_engine.video.frame import Frame
from depth_engine.video.read import read_frames
from depth_engine.video.shots import LOOK_AHEAD, mark_known, mark_shots
from tests.clips import footage


def as_frames(pictures: Iterable[np.ndarray]) -> Iterator[Frame]:
    return (Frame(index, index / 25, rgb, name=f"plate.{index}") for index, rgb in enumerate(pictures))


def starts(pictures: list[np.ndarray], shots: bool | Collection[int] = True) -> list[int]:
    marked = list(mark_shots(as_frames(pictures), shots))
    assert all(frame.rgb is picture for frame, picture in zip(marked, pictures, strict=True))
    assert [frame.name for frame in marked] == [f"plate.{index}" for index in range(len(pictures))]
    return [frame.index for frame in marked if frame.starts_shot]


def scene(seed: int, count: int, size: tuple[int, int] = (48, 64), speed: int = 1) -> list[np.ndarray]:
    """A coarse random picture that moves to the left."""
    rng = np.random.default_rng(seed)
    height, width = size
    blocks = rng.integers(0, 256, (max(1, height // 8), width // 8 + count * speed // 8 + 2, 3), dtype=np.uint8)
    picture = np.repeat(np.repeat(blocks, 8, axis=0), 8, axis=1)[:height]
    return [np.ascontiguousarray(picture[:, i * speed : i * speed + width]) for i in range(count)]


def test_real_cuts_are_found_and_no_others() -> None:
    # Seen with the eye on a contact sheet of all frames: five cuts, one beside a van that passes and fills the picture.
    bikes = [frame.rgb for frame in read_frames(footage("bikes.mp4"))]
    assert starts(bikes) == [0, 30, 76, 137, 187, 242]
    bunny = [frame.rgb for frame in read_frames(footage("bigbuckbunny.mp4"), end_s=3)]
    assert starts(bunny) == [0]


@pytest.mark.parametrize("size", [(16, 16), (48, 64), (1080, 1920)])
def test_made_cuts_of_any_size(size: tuple[int, int]) -> None:
    count = 6 if size[0] > 1000 else 12
    frames = scene(1, count, size) + scene(2, count, size) + scene(3, count, size)
    assert starts(frames) == [0, count, 2 * count]


@pytest.mark.parametrize("first", [1, 2, 3, 9, 10, 11])
def test_cuts_near_the_ends(first: int) -> None:
    assert starts(scene(1, first) + scene(2, 12 - first)) == [0, first]


def test_fast_motion_and_fades_are_no_cuts() -> None:
    assert starts(scene(4, 40, speed=6)) == [0]
    picture = scene(5, 1)[0].astype(float)
    # Not down to nothing: the last step to pure black loses all colour at once and may count as a cut.
    assert starts([(picture * level).astype(np.uint8) for level in np.linspace(1, 0.1, 40)]) == [0]


def test_still_and_black_clips_are_one_shot() -> None:
    assert starts([np.zeros((32, 32, 3), np.uint8)] * 10) == [0]
    assert starts(scene(1, 1)) == [0]
    assert starts([]) == []


def test_a_flash_is_not_two_cuts() -> None:
    frames = scene(1, 30)
    frames[14] = np.full_like(frames[14], 255)
    assert len(starts(frames)) <= 2


def test_it_looks_only_a_little_ahead() -> None:
    taken = 0

    def stream() -> Iterator[np.ndarray]:
        nonlocal taken
        for frame in scene(1, 20) + scene(2, 20):
            taken += 1
            yield frame

    for given, _ in enumerate(mark_shots(as_frames(stream()))):
        assert taken <= given + 1 + LOOK_AHEAD


def test_no_detection_makes_one_shot() -> None:
    assert starts(scene(1, 10) + scene(2, 10), False) == [0]


@pytest.mark.parametrize("cuts", [[], [0], [0, 3, 7], [3, 7], (9,), np.array([2, 5])])
def test_given_cuts(cuts: list[int]) -> None:
    assert starts(scene(1, 10), cuts) == sorted({0, *cuts})


@pytest.mark.parametrize("cuts", [[3, 3], [5, 2], [-1, 4], [1.5], ["2"], [True]])
def test_bad_cuts_are_refused_at_once(cuts: list) -> None:
    with pytest.raises(ValueError, match="shots: "):
        mark_shots([], cuts)


def test_cuts_beyond_the_clip() -> None:
    with pytest.raises(ValueError, match="shots: 10 lies beyond the clip, which has 10 frames"):
        list(mark_shots(as_frames(scene(1, 10)), [4, 10]))


def test_shots_of_a_longer_clip_are_marked_as_far_as_it_goes() -> None:
    marked = mark_known(as_frames(scene(1, 10)), (0, 4, 12))
    assert [frame.index for frame in marked if frame.starts_shot] == [0, 4]
