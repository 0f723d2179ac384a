"""Which image files make a sequence."""

from __future__ import annotations

from pathlib import Path

import pytest

from depth_engine.video.probe import VideoError
from depth_engine.video.sequence_files import files_of_folder, files_of_pattern, is_pattern


def _touched(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).touch()
    return folder


def _names(files: list[Path]) -> list[str]:
    return [path.name for path in files]


@pytest.mark.parametrize("pattern", ["f.####.png", "f.%04d.png"])
def test_patterns_take_negative_numbers_in_order(tmp_path: Path, pattern: str) -> None:
    _touched(tmp_path, "f.-002.png", "f.-001.png", "f.0000.png", "f.0002.png", "f.10000.png", "f.01.png", "g.0001.png")
    found = files_of_pattern(tmp_path / pattern)
    assert _names(found.files) == ["f.-002.png", "f.-001.png", "f.0000.png", "f.0002.png", "f.10000.png"]
    assert found.numbers == [-2, -1, 0, 2, 10000]
    assert found.notes == ("9998 numbers missing between -2 and 10000: closed up",)
    assert is_pattern(tmp_path / pattern) and not is_pattern(_touched(tmp_path, "take #2.mp4") / "take #2.mp4")


@pytest.mark.parametrize("names", [["f.-010.png", "f.-009.png", "f.0000.png"], ["f-010.png", "f-009.png", "f0000.png"]])
def test_folders_take_negative_numbers_in_order(tmp_path: Path, names: list[str]) -> None:
    found = files_of_folder(_touched(tmp_path, *names))
    assert (_names(found.files), found.numbers) == (names, [-10, -9, 0])
    assert "8 numbers missing between -10 and 0" in found.notes[0]


def test_a_minus_after_a_word_is_no_sign_by_itself(tmp_path: Path) -> None:
    found = files_of_folder(_touched(tmp_path, "f-1.png", "f-2.png", "f-10.png"))
    assert found.numbers == [1, 2, 10]


@pytest.mark.parametrize(
    "names",
    [
        ["plate_a.0001.png", "plate_a.0002.png", "plate_b.0001.png", "plate_b.0002.png"],
        ["v1.0001.png", "v1.0002.png", "v2.0003.png", "v2.0004.png"],
        ["f1_left.png", "f2_left.png", "f1_right.png", "f2_right.png"],
        ["f1.png", "f2.png", "f1.jpg", "f2.jpg"],
    ],
)
def test_two_sequences_are_not_made_one(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(VideoError, match="holds 2 sequences: .*#.* \\(2 images\\), .*name one, as") as told:
        files_of_folder(_touched(tmp_path, *names))
    named = str(told.value).rpartition("name one, as ")[2]
    assert len(files_of_pattern(named).files) == 2, "what is named works"


@pytest.mark.parametrize(
    "names",
    [
        ["opening.png", "title.png", "zoo.png"],
        ["1.png", "2.jpg", "3.png"],
        ["2024-01-01_10-00-58.jpg", "2024-01-01_10-00-59.jpg", "2024-01-01_10-01-00.jpg", "2024-01-01_10-01-01.jpg"],
        ["img_001_7.png", "img_002_7.png"],
    ],
)
def test_other_names_stay_one_sequence(tmp_path: Path, names: list[str]) -> None:
    found = files_of_folder(_touched(tmp_path, *names))
    assert _names(found.files) == names and found.notes == ()


def test_what_lies_beside_a_sequence_is_left_out_and_told(tmp_path: Path) -> None:
    _touched(tmp_path, "f1.png", "f2.png", "cover.png", "notes.txt", ".hidden")
    (tmp_path / "more").mkdir()
    found = files_of_folder(tmp_path)
    assert _names(found.files) == ["f1.png", "f2.png"]
    assert found.notes == (f"{tmp_path}: not read: cover.png, more/, notes.txt",)
