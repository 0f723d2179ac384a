"""`novel-view render` and `stereo` as a user runs them."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from novel_view.cli import main
from PIL import Image

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


def test_eyes_can_be_swapped_and_lie_in_two_files(clip: Path, depth: Path, tmp_path: Path) -> None:
    common = ("--depth", depth, "--codec", "ffv1", "--max-frames", 3)
    for name, options in (
        ("plain", ("--layout", "sbs")),
        ("crossed", ("--layout", "sbs", "--swap-eyes")),
        ("left", ("--layout", "left", "--right-out", tmp_path / "right.mkv")),
    ):
        result = run("stereo", clip, "-o", tmp_path / f"{name}.mkv", *common, *options)
        assert result.exit_code == 0, result.output
    plain, crossed, left, right = (pictures(tmp_path / f"{name}.mkv") for name in ("plain", "crossed", "left", "right"))
    assert np.array_equal(np.roll(plain, WIDTH, axis=2), crossed) and not np.array_equal(plain, crossed)
    assert np.array_equal(np.concatenate([left, right], axis=2), plain)
    assert probe(tmp_path / "right.mkv").has_audio
    preview = pictures(tmp_path / "plain.preview.mp4")
    assert preview.shape[1:3] == (HEIGHT, 2 * WIDTH)
    assert preview[:, :10, WIDTH:].max() < 40  # twice as wide, so half as high as its place, and not squeezed
    told = run("stereo", clip, "-o", tmp_path / "told.mp4", "--depth", depth, "--max-frames", 3, "--swap-eyes")
    assert told.exit_code == 0 and "can't say that the right eye comes first" in told.stdout
    for options, text in (
        (("--layout", "left", "--swap-eyes"), "--swap-eyes: is for sbs, tb"),
        (("--right-out", tmp_path / "no.mkv"), "--right-out: is for --layout left"),
    ):
        refused = run("stereo", clip, "-o", tmp_path / "no.mp4", "--depth", depth, *options)
        assert refused.exit_code == 2 and text in refused.output


def test_moved_borders_fall_outside_what_is_cut_or_beyond_what_is_added(
    clip: Path, depth: Path, tmp_path: Path
) -> None:
    common = ("--depth", depth, "--path", "lateral", "--amplitude", 20, "--period", 0.6, "--codec", "ffv1")
    for name, options in (("plain", ()), ("cut", ("--crop", 25)), ("wide", ("--overscan", 25))):
        result = run(
            "render",
            clip,
            "-o",
            tmp_path / f"{name}.mkv",
            "--mask-out",
            tmp_path / f"{name}-holes.mkv",
            *common,
            *options,
        )
        assert result.exit_code == 0, result.output
    plain, cut, wide = (pictures(tmp_path / f"{name}.mkv") for name in ("plain", "cut", "wide"))
    assert cut.shape == plain.shape and wide.shape == (FRAMES, HEIGHT * 3 // 2, WIDTH * 3 // 2, 3)
    holes = {name: pictures(tmp_path / f"{name}-holes.mkv")[..., 0] > 0 for name in ("plain", "cut", "wide")}
    # Beside the wall alone: the disc opens holes of its own.
    at_sides = {name: (hole[:, :2, 0] | hole[:, :2, -1]).any() for name, hole in holes.items()}
    assert at_sides == {"plain": True, "cut": False, "wide": True}
    inner = holes["wide"][:, HEIGHT // 4 : -HEIGHT // 4, WIDTH // 4 : -WIDTH // 4]
    assert np.array_equal(inner, holes["plain"])
    middle = wide[:, HEIGHT // 4 : -HEIGHT // 4, WIDTH // 4 : -WIDTH // 4]
    assert np.abs(middle.astype(int) - plain)[~holes["plain"]].max() <= 1


def test_as_little_is_cut_as_leaves_no_border(clip: Path, tmp_path: Path) -> None:
    """Of a slanted wall, which opens no holes but at borders."""
    wall = np.tile(np.linspace(0.2, 0.6, HEIGHT, dtype=np.float32)[:, None], (FRAMES, 1, WIDTH))
    depth = DepthVideo(wall, "disparity", np.arange(FRAMES) / 25, Fraction(25)).save(tmp_path / "wall.npy")
    out, mask = tmp_path / "new.mkv", tmp_path / "holes.mkv"
    common = ("--depth", depth, "--amplitude", 20, "--period", 0.6, "--codec", "ffv1", "--mask-out", mask)
    common += ("--no-sharpen", "--no-edge")  # the pattern of the clip says nothing of this wall

    for path in ("lateral", "orbit", "handheld"):

        def holes(crop: object, path: str = path) -> np.ndarray:
            result = run("render", clip, "-o", out, *common, "--path", path, "--overwrite", "--crop", crop)
            assert result.exit_code == 0, result.output
            return pictures(mask)[..., 0] > 0

        assert holes(0).any() and not holes("auto").any()
        found = json.loads((tmp_path / "new.json").read_text())
        percent = found["settings"]["crop_percent"]
        assert f"--crop auto: {percent:g} % of each side are cut" in found["notes"]
        assert 0 < percent < 25 and holes(max(0, percent - 3.5)).any()  # two pixels


def test_a_still_is_shown_for_as_long_as_asked(clip: Path, tmp_path: Path) -> None:
    still = tmp_path / "still.png"
    Image.fromarray(pictures(clip)[0]).save(still)
    values = np.random.default_rng(0).random((1, HEIGHT, WIDTH), np.float32)
    depth = DepthVideo(values, "disparity", np.zeros(1), Fraction(1)).save(tmp_path / "depth.npy")
    options: tuple = ("--duration", 0.4, "--fps", 20, "--depth", depth, "--codec", "ffv1")
    for command, extra in (("render", ("--path", "lateral", "--period", 0.4)), ("stereo", ("--layout", "left"))):
        out = tmp_path / f"{command}.mkv"
        result = run(command, still, "-o", out, *options, *extra)
        assert result.exit_code == 0, result.output
        shown = pictures(out)
        assert len(shown) == 8 and probe(out).fps == 20
        assert (shown[0] == shown[2]).all() == (command == "stereo")
    one = run("render", still, "-o", tmp_path / "one.mp4", "--depth", depth)
    assert one.exit_code == 0 and "a single image makes a single frame; --duration SECONDS" in one.output
    for options, text in (
        (("--duration", 0), "--duration: 0 is not accepted; give seconds above 0"),
        (("--duration", 1, "--start", 1), "--start, --end: do not apply to a single image"),
    ):
        result = run("render", still, "-o", tmp_path / "no.mp4", "--depth", depth, *options)
        assert result.exit_code == 2 and text in result.output


def test_depth_of_a_still_is_made_once(clip: Path, tmp_path: Path) -> None:
    still = tmp_path / "still.png"
    Image.fromarray(pictures(clip)[0]).save(still)
    result = run("stereo", still, "-o", tmp_path / "new.mp4", "--duration", 0.2)
    assert result.exit_code == 0, result.output
    assert len(pictures(tmp_path / "new.mp4")) == 5
    assert DepthVideo.load(tmp_path / "new.depth").values.shape == (1, HEIGHT, WIDTH)


def test_a_roll_is_as_large_as_asked_where_pixels_are_not_square(tmp_path: Path) -> None:
    """A level line, turned by 45 degrees, as a player shows it: pixels are twice as wide as high."""
    clip, path = tmp_path / "wide.mkv", tmp_path / "roll.json"
    line = "color=black:s=64x96:r=25:d=0.12,drawbox=y=46:h=4:color=white:t=fill,setsar=2/1"
    run_ffmpeg("-f", "lavfi", "-i", line, "-c:v", "ffv1", clip)
    path.write_text(json.dumps({"keyframes": [{"time_s": 0, "rotation_deg": [0, 0, 45]}]}))
    values = np.full((3, 96, 64), 0.5, np.float32)
    depth = DepthVideo(values, "disparity", np.arange(3) / 25, Fraction(25)).save(tmp_path / "depth.npy")
    result = run("render", clip, "-o", tmp_path / "out.mkv", "--depth", depth, "--path", path, "--codec", "ffv1")
    assert result.exit_code == 0, result.output
    assert probe(tmp_path / "out.mkv").sample_aspect == 2
    y, x = np.nonzero(pictures(tmp_path / "out.mkv")[0, ..., 0] > 128)
    slope = np.polyfit(2.0 * x, y, 1)[0]
    assert abs(abs(np.degrees(np.arctan(slope))) - 45) < 2


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--crop", 60), "--crop: 60 is not accepted; give per cent of a side, 0 to 40, or auto"),
        (("--crop", "much"), "--crop: 'much' is not accepted; give per cent of a side, or auto"),
        (("--crop", "auto", "--overscan", 5), "--crop, --overscan: give one"),
        (("--duration", 2), "duration: only applies to a single image"),
        (("--crop", 5, "--overscan", 5), "--crop, --overscan: give one"),
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
