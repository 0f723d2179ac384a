"""`novel-view render` and `stereo` as a user runs them."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from novel_view.cli import main

from depth_engine import DepthVideo
from depth_engine.video.read import probe, read_frames
from tests.clips import make_clip, packet_times_s, run_ffmpeg

FRAMES, HEIGHT, WIDTH = 15, 48, 64


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    silent, path = make_clip(folder / "silent.mp4", frames=FRAMES), folder / "clip.mp4"
    run_ffmpeg("-i", silent, "-f", "lavfi", "-i", "sine=duration=0.6", "-c:v", "copy", "-c:a", "aac", path)
    return path


@pytest.fixture(scope="module")
def depth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A near disc that moves before a slanted wall."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    frames = []
    for index in range(FRAMES):
        wall = 0.1 + 0.2 * y / HEIGHT
        disc = (x - 15 - 2 * index) ** 2 + (y - 24) ** 2 < 100
        frames.append(np.where(disc, 0.9, wall))
    values = np.stack(frames).astype(np.float32)
    video = DepthVideo(values, "disparity", np.arange(FRAMES) / 25, Fraction(25))
    return video.save(tmp_path_factory.mktemp("depth") / "depth.npy")


def pictures(path: Path) -> np.ndarray:
    return np.stack([frame.rgb for frame in read_frames(path)])


def test_render_gives_a_clip_with_sound_times_mask_and_sidecar(clip: Path, depth: Path, tmp_path: Path) -> None:
    out, mask = tmp_path / "new.mp4", tmp_path / "holes.mkv"
    options = ("--path", "lateral", "--amplitude", 20, "--period", 0.6, "--mask-out", mask, "--fov", 60)
    result = run("render", clip, "-o", out, "--depth", depth, *options)
    assert result.exit_code == 0, result.output
    assert "placed by default" in result.output
    assert packet_times_s(out) == packet_times_s(clip) and probe(out).has_audio
    holes = pictures(mask)
    assert set(np.unique(holes)) == {0, 255}
    assert not holes[0].any() and holes[3].mean() > 5
    sidecar = json.loads((tmp_path / "new.json").read_text())
    settings = sidecar["settings"]
    assert settings["placement"]["by"] == "default" and settings["fov_deg"] == 60
    assert (settings["path"], settings["amplitude_percent"]) == ("lateral", 20)
    assert (tmp_path / "new.report.html").exists() and probe(tmp_path / "new.preview.mp4").width == 2 * WIDTH


def test_a_camera_that_does_not_move_shows_the_very_clip(clip: Path, depth: Path, tmp_path: Path) -> None:
    path = tmp_path / "still.json"
    path.write_text(json.dumps({"keyframes": [{"time_s": 0}]}))
    options = ("--path", path, "--codec", "ffv1", "--mask-out", tmp_path / "holes.mkv")
    result = run("render", clip, "-o", tmp_path / "same.mkv", "--depth", depth, *options)
    assert result.exit_code == 0, result.output
    assert np.array_equal(pictures(tmp_path / "same.mkv"), pictures(clip))
    assert not pictures(tmp_path / "holes.mkv").any()


def test_depth_of_the_engine_is_kept_and_used_again(clip: Path, tmp_path: Path) -> None:
    common = ("-o", tmp_path / "new.mp4", "--max-frames", 4, "--max-res", 64)
    assert run("render", clip, *common).exit_code == 0
    depth_file = tmp_path / "new.depth" / "depth.mkv"
    made_ns = depth_file.stat().st_mtime_ns
    result = run("render", clip, *common, "--path", "arc", "--overwrite")
    assert result.exit_code == 0, result.output
    assert depth_file.stat().st_mtime_ns == made_ns
    result = run("render", clip, *common, "--overwrite", "--strategy", "independent")
    assert result.exit_code == 0, result.output
    assert depth_file.stat().st_mtime_ns != made_ns
    assert json.loads((tmp_path / "new.json").read_text())["settings"]["depth_model"] == "bundled"


@pytest.mark.parametrize("layout", ["half-sbs", "tb", "anaglyph"])
def test_stereo_gives_both_eyes(clip: Path, depth: Path, tmp_path: Path, layout: str) -> None:
    out = tmp_path / "stereo.mkv"
    options = ("--layout", layout, "--separation", 6, "--codec", "ffv1", "--max-frames", 3)
    result = run("stereo", clip, "-o", out, "--depth", depth, *options)
    assert result.exit_code == 0, result.output
    made = pictures(out)
    assert made.shape == (3, HEIGHT * (2 if layout == "tb" else 1), WIDTH, 3)
    if layout == "tb":
        left, right = made[:, :HEIGHT].astype(int), made[:, HEIGHT:].astype(int)
        assert np.abs(left - right).mean() > 3
        # the far wall is 1.92 px nearer to the left in the left eye's picture than in the right one's
        same = np.abs(left[:, 2:8, :-2] - right[:, 2:8, 2:]).mean()
        assert same < 0.75 * np.abs(left[:, 2:8, :-2] - right[:, 2:8, :-2]).mean()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--path", "spiral"), "--path: 'spiral'"),
        (("--fov", 180), "fov: 180 is not accepted"),
        (("--fov", 0), "fov: 0 is not accepted"),
        (("--focal", -1), "--focal: -1 is not accepted"),
        (("--amplitude", 120), "amplitude: 120 is not accepted"),
        (("--fill", "magic"), "--fill: 'magic'"),
        (("--near", 1), "--far: is missing"),
        (("--near", 5, "--far", 2), "give distances with 0 < near < far"),
        (("--path", "stabilize"), "--poses: is missing; --path stabilize"),
        (("--fill", "temporal"), "--poses: is missing; --fill temporal"),
        (("--path", "none.json"), "path: none.json does not exist"),
        (("--codec", "vp9"), "codec: 'vp9'"),
        (("--window", 4), "--window: only applies to --depth engine; --depth is"),
        (("--smooth", 1), "--smooth: only applies to --path stabilize"),
        (("--easing", "sine"), "--easing: only applies to one-way moves: --path dolly"),
        (("--resume", "--overwrite"), "exclude each other"),
        (("--start", 99), "is past the end"),
        (("--stream", 1), "stream: 1 is not one of its video streams, which are 0 (h264"),
        (("--depth-kind", "depth"), "contradicts disparity"),
    ],
)
def test_bad_requests_are_told_in_one_line(
    clip: Path, depth: Path, tmp_path: Path, arguments: tuple, text: str
) -> None:
    result = run("render", clip, "-o", tmp_path / "new.mp4", "--depth", depth, *arguments)
    assert result.exit_code == 2
    assert text in result.output and len(result.output.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_depth_of_another_clip_is_refused(clip: Path, depth: Path, tmp_path: Path) -> None:
    longer = make_clip(tmp_path / "longer.mp4", frames=FRAMES + 3)
    result = run("render", longer, "-o", tmp_path / "new.mp4", "--depth", depth)
    assert result.exit_code == 2 and f"has {FRAMES} frames, the clip {FRAMES + 3}" in result.output
    upright = make_clip(tmp_path / "upright.mp4", size="48x64")
    result = run("render", upright, "-o", tmp_path / "new.mp4", "--depth", depth)
    assert result.exit_code == 2 and "the proportions differ" in result.output


def test_unknown_values_are_left_out_and_said(clip: Path, tmp_path: Path) -> None:
    values = np.full((FRAMES, HEIGHT, WIDTH), 3.0, np.float32)
    values[2, 10:20, 10:20], values[5, :4] = np.nan, np.inf
    np.save(tmp_path / "odd.npy", values)
    options = ("--depth", tmp_path / "odd.npy", "--depth-kind", "metric", "--no-sharpen")
    result = run("render", clip, "-o", tmp_path / "new.mp4", *options, "--mask-out", tmp_path / "holes.mkv")
    assert result.exit_code == 0, result.output
    assert "depth of 2 frames has values that are not finite" in result.output
    assert pictures(tmp_path / "holes.mkv")[2, 12:18, 12:18].all()
