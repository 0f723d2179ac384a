"""report.html: what is in it, that it asks for nothing, that it escapes and that it stays small in memory."""

from __future__ import annotations

import base64
import json
import os
import re
import tracemalloc
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from depth_engine.report.page import Report, thin, write_report
from depth_engine.video.write import VideoWriter

HOSTILE = """a "quoted" & 'clip' </script><script>alert(1)</script><img src=x onerror=y>.mp4"""


class _Page(HTMLParser):
    """Tags, attributes and texts of a page; a malformed nesting raises."""

    VOID = {"meta", "input", "br", "path", "line"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        self.texts.setdefault(tag, []).append("")
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data) -> None:
        if self._open:
            self.texts[self._open[-1]][-1] += data

    def attributes(self, tag: str, **wanted) -> list[dict]:
        return [found for name, found in self.tags if name == tag and wanted.items() <= found.items()]


@pytest.fixture
def preview(tmp_path: Path) -> Path:
    path = tmp_path / "preview.mp4"
    with VideoWriter(path, width=64, height=32, fps=24) as writer:
        for index in range(6):
            writer.write(np.full((32, 64, 3), 40 * index, np.uint8), index / 24)
    return path


def _write(path: Path, preview: Path, overwrite: bool = False, **changes) -> _Page:
    arguments = {
        "title": "clip.mp4",
        "settings": {"window": 10, "nested": {"sigma": [0.5, 700]}},
        "change": [0.01, 0.02, 0.9, 0.04, 0.03],
        "shots": [0, 3],
        "times_s": np.arange(6) / 24,
    }
    write_report(path, Report(**arguments | changes), preview_mp4=preview, overwrite=overwrite)
    return _Page(path.read_text(encoding="utf-8"))


def _embedded(page: _Page) -> bytes:
    scripts = [found for name, found in page.tags if name == "script"]
    texts = zip(scripts, page.texts["script"], strict=True)
    return b"".join(base64.b64decode(text) for found, text in texts if found.get("class") == "clip")


def test_the_preview_is_in_the_page_once_and_shown_by_two_players(preview: Path, tmp_path: Path) -> None:
    page = _write(tmp_path / "report.html", preview)
    assert _embedded(page) == preview.read_bytes()
    left, right = page.attributes("video")
    assert "muted" in right and "muted" not in left
    assert left["style"].endswith("margin-left: -0%") and right["style"].endswith("margin-left: -100%")
    assert page.attributes("input", id="scrub")[0]["max"] == "5"


def test_there_is_a_player_for_every_panel(preview: Path, tmp_path: Path) -> None:
    page = _write(tmp_path / "report.html", preview, panels=["Source", "Control <depth>", "Result"], change_of="Result")
    assert page.texts["figcaption"] == ["Source", "Control <depth>", "Result"]
    assert all("width: 300%" in found["style"] for found in page.attributes("video"))


def test_the_page_asks_for_nothing(preview: Path, tmp_path: Path) -> None:
    page = _write(tmp_path / "report.html", preview)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert [found for _, found in page.tags if {"src", "href", "action", "poster"} & found.keys()] == []
    assert page.attributes("link") == []
    outside_the_clip = re.sub(r'class="clip">[^<]*<', "", text)
    assert not re.search(r"https?:|@import|url\(", outside_the_clip)
    assert page.attributes("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"].startswith(
        "default-src 'none';"
    )


def test_settings_files_and_notes_are_listed(preview: Path, tmp_path: Path) -> None:
    (tmp_path / "depth.mkv").write_bytes(bytes(1_500_000))
    (tmp_path / "depth_png16").mkdir()
    for index in range(3):
        (tmp_path / "depth_png16" / f"{index:06d}.png").write_bytes(bytes(700))
    page = _write(
        tmp_path / "report.html",
        preview,
        notes=["4 values were clipped"],
        outputs=[tmp_path / "depth.mkv", tmp_path / "depth_png16"],
    )
    rows = dict(zip(page.texts["th"], page.texts["td"], strict=True))
    assert rows == {
        "window": "10",
        "nested": '{"sigma": [0.5, 700]}',
        "depth.mkv": "1.5 MB",
        "depth_png16": "3 files, 2.1 kB",
    }
    assert "4 values were clipped" in page.texts["p"]


def test_plot_shows_the_change_and_the_cuts(preview: Path, tmp_path: Path) -> None:
    page = _write(tmp_path / "report.html", preview)
    cut, curve = page.attributes("path", **{"class": "cut"}), page.attributes("path", **{"class": "curve"})
    assert cut[0]["d"] == "M600.0 0V200"  # frame 3 of 0..5
    points = [tuple(map(float, point.split())) for point in curve[0]["d"][1:].split("L")]
    # the peak of 0.9 is the cut's own and leaves the plot; 0.04 is the top of the rest
    assert points == [(200, 150), (400, 100), (600, 0), (800, 0), (1000, 50)]


def test_times_of_the_page_are_those_of_the_frames(preview: Path, tmp_path: Path) -> None:
    page = _write(tmp_path / "report.html", preview, times_s=[0.5, 0.54, 0.6, 0.8, 0.84, 1.0])
    scripts = [found for name, found in page.tags if name == "script"]
    (data,) = [t for found, t in zip(scripts, page.texts["script"], strict=True) if found.get("id") == "data"]
    assert json.loads(data) == {"times": [0.5, 0.54, 0.6, 0.8, 0.84, 1.0]}
    assert page.attributes("path", **{"class": "cut"})[0]["d"] == "M600.0 0V200"


def test_everything_from_outside_is_escaped(preview: Path, tmp_path: Path) -> None:
    (tmp_path / "a<b>&c.npy").write_bytes(b"x")
    page = _write(
        tmp_path / "report.html",
        preview,
        title=HOSTILE,
        settings={HOSTILE: HOSTILE, "nested": [HOSTILE]},
        notes=[HOSTILE],
        outputs=[tmp_path / "a<b>&c.npy"],
    )
    plain = _write(tmp_path / "plain.html", preview)
    assert len(page.attributes("script")) == len(plain.attributes("script"))
    assert page.attributes("img") == []
    assert page.texts["h1"] == [HOSTILE] and page.texts["title"] == [HOSTILE]
    assert page.texts["th"][0] == page.texts["td"][0] == HOSTILE
    assert json.loads(page.texts["td"][1]) == [HOSTILE]
    assert HOSTILE in page.texts["p"]
    assert page.texts["th"][2] == "a<b>&c.npy"


def test_a_clip_of_one_frame_has_no_plot(preview: Path, tmp_path: Path) -> None:
    page = _write(tmp_path / "report.html", preview, change=[], shots=[0], times_s=[0.0])
    assert page.attributes("svg") == []
    assert len(page.attributes("video")) == 2


@pytest.mark.parametrize("change", [[0.0] * 5, [0.0, 0.0, 0.7, 0.0, 0.0]])
def test_a_still_clip_has_a_plot(change: list[float], preview: Path, tmp_path: Path) -> None:
    page = _write(tmp_path / "report.html", preview, change=change)
    assert "nan" not in page.attributes("path", **{"class": "curve"})[0]["d"]


def test_memory_does_not_grow_with_the_preview(tmp_path: Path) -> None:
    preview = tmp_path / "large.mp4"
    preview.write_bytes(os.urandom(24_000_001))
    tracemalloc.start()
    report = Report(title="t", settings={}, change=[1.0], shots=[0], times_s=[0, 1])
    write_report(tmp_path / "report.html", report, preview_mp4=preview)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000
    assert _embedded(_Page((tmp_path / "report.html").read_text(encoding="utf-8"))) == preview.read_bytes()


def test_long_series_are_thinned_without_losing_a_peak(preview: Path, tmp_path: Path) -> None:
    change = np.random.default_rng(0).random(50_000)
    change[31_234] = 9.0
    times_s = np.arange(50_000) / 24
    thin_times, thin_change = thin(times_s, change)
    assert len(thin_change) <= 2000
    assert thin_change.max() == 9.0 and thin_times[thin_change.argmax()] == times_s[31_234]
    assert thin_change.min() == change.min() and (np.diff(thin_times) > 0).all()
    page = _write(tmp_path / "report.html", preview, change=change, shots=[0], times_s=np.arange(50_001) / 24)
    assert page.attributes("path", **{"class": "curve"})[0]["d"].count("L") < 2000


def test_short_series_stay_whole() -> None:
    times_s, change = np.arange(2000.0), np.ones(2000)
    assert thin(times_s, change)[1] is change


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"change": [0.1] * 6}, "change: shape"),
        ({"change": [0.1, 0.1, float("nan"), 0.1, 0.1]}, "change: must be finite"),
        ({"change": [0.1, 0.1, -0.1, 0.1, 0.1]}, "change: must be finite and >= 0"),
        ({"shots": [0, 6]}, "shots: 6"),
        ({"times_s": [0, 1, 2, 2, 3, 4]}, "times_s"),
        ({"times_s": []}, "times_s"),
    ],
)
def test_bad_arguments_write_nothing(changes: dict, message: str, preview: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        _write(tmp_path / "out" / "report.html", preview, **changes)
    assert not (tmp_path / "out").exists()


def test_atomic_and_never_overwriting(preview: Path, tmp_path: Path) -> None:
    path = tmp_path / "out" / "report.html"
    with pytest.raises(FileNotFoundError):
        _write(path, tmp_path / "gone.mp4")
    assert list(path.parent.iterdir()) == []
    _write(path, preview)
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        _write(path, preview, title="other")
    assert path.read_bytes() == before
    _write(path, preview, title="other", overwrite=True)
    assert path.read_bytes() != before
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
