"""depth-engine end to end, in process, on clips with sound and rotation; error texts and exit codes."""

from __future__ import annotations

import json
import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from depth_engine import DepthEngine, DepthVideo
from depth_engine.cli.main import main
from depth_engine.models.loading import resolve_checkpoint
from depth_engine.models.svd.windows import plan
from depth_engine.settings import choose_settings
from depth_engine.video.read import probe, read_frames
from tests.clips import packet_times_s, run_ffmpeg

FORMATS = "mkv,npy,png16,exr,mp4"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """96x64, 24 frames, with sound."""
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    picture = ("-f", "lavfi", "-i", "testsrc2=s=96x64:r=24:d=1")
    sound = ("-f", "lavfi", "-i", "sine=d=1")
    run_ffmpeg(*picture, *sound, "-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "aac", "-shortest", path)
    return path


@pytest.fixture(scope="module")
def rotated(clip: Path) -> Path:
    """The same with a display rotation of 90 degrees: shown as 64x96."""
    path = clip.with_name("a name with 100% spaces & 'quotes'.mp4")
    run_ffmpeg("-display_rotation", "90", "-i", clip, "-c", "copy", path)
    return path


@pytest.fixture(scope="module")
def result_folder(clip: Path, rotated: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both clips estimated in one run, all formats."""
    folder = tmp_path_factory.mktemp("out")
    done = run("estimate", clip, rotated, "-o", folder, "--format", FORMATS)
    assert done.exit_code == 0, done.output
    return folder


def run(*arguments: str | Path) -> Result:
    """Run the command in process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def error_line(*arguments: str | Path, code: int = 2) -> str:
    """The one line that a bad request gets."""
    done = run(*arguments)
    assert done.exit_code == code, done.output
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.output
    return lines[0]


def test_results_are_whole(result_folder: Path, clip: Path, rotated: Path) -> None:
    for source, size in ((clip, (64, 96)), (rotated, (96, 64))):
        folder = result_folder / source.stem
        names = {path.name for path in folder.iterdir()}
        assert names == {
            "depth.mkv",
            "depth.npy",
            "depth_png16",
            "depth_exr",
            "depth.mp4",
            "depth.json",
            "preview.mp4",
            "report.html",
        }
        exact = DepthVideo.load(folder / "depth.npy")
        assert exact.values.shape == (24, *size)
        assert exact.kind == "disparity"
        assert exact.values.std() > 0.01
        for name, tolerance in (("depth.mkv", 1 / 65535), ("depth_png16", 1 / 65535), ("depth_exr", 0)):
            assert np.abs(DepthVideo.load(folder / name).values - exact.values).max() <= tolerance
        preview = probe(folder / "preview.mp4")
        assert (preview.width, preview.height) == (2 * size[1], size[0])
        assert preview.has_audio
        assert preview.frame_count == 24


def test_what_a_user_should_know_is_on_the_screen(tmp_path: Path) -> None:
    """Not in the sidecar alone; and nothing is there with --quiet."""
    for number in (1, 2, 4):
        Image.new("RGB", (64, 48), (40 * number, 90, 30)).save(tmp_path / f"f.{number}.png")
    (tmp_path / "readme.txt").touch()
    start = ("estimate", tmp_path, "--max-frames", "2", "-o")
    told = run(*start, tmp_path.with_name("loud"))
    assert told.exit_code == 0, told.output
    for note in ("1 numbers missing between 1 and 4", "not read: readme.txt", "read at 24 frames per second"):
        assert note in told.stdout
        assert any(note in held for held in DepthVideo.load(tmp_path.with_name("loud") / tmp_path.name).meta["notes"])
    quiet = run(*start, tmp_path.with_name("quiet"), "--quiet", "--fps", "30")
    assert (quiet.exit_code, quiet.output) == (0, "")
    assert DepthVideo.load(tmp_path.with_name("quiet") / tmp_path.name).fps == 30


def test_what_the_source_says_reaches_every_video_or_is_told(tmp_path: Path) -> None:
    """Pixel aspect, timecode and languages are carried, subtitles told."""
    (tmp_path / "words.srt").write_text("1\n00:00:00,000 --> 00:00:00,100\nHello\n")
    source = tmp_path / "source.mkv"
    picture = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=0.16", "-f", "lavfi", "-i", "sine=d=0.16")
    maps = ("-i", tmp_path / "words.srt", "-map", "0", "-map", "1", "-map", "1", "-map", "2")
    tags = ("-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=fre", "-metadata", "timecode=01:00:00:00")
    run_ffmpeg(*picture, *maps, "-vf", "setsar=4/3", "-c:v", "ffv1", "-c:a", "aac", *tags, source)
    done = run("estimate", source, "-o", tmp_path / "out", "--format", "mkv,mp4")
    assert done.exit_code == 0, done.output
    folder = tmp_path / "out" / "source"
    for name in ("depth.mkv", "depth.mp4", "preview.mp4"):
        assert probe(folder / name).sample_aspect == Fraction(4, 3), name
        assert probe(folder / name).timecode == "01:00:00:00", name
    assert probe(folder / "preview.mp4").audio_languages == probe(source).audio_languages == ("eng", "fre")
    assert "1 subtitle track not carried over" in done.stdout


def test_sidecar_reproduces_the_run(result_folder: Path, clip: Path, tmp_path: Path) -> None:
    folder = result_folder / clip.stem
    sidecar = json.loads((folder / "depth.json").read_text())
    assert sidecar["frame_count"] == 24
    assert sidecar["checkpoint"]["name"] == "bundled"
    assert len(sidecar["checkpoint"]["sha256"]) == 64
    assert sidecar["shots"] == [0]
    assert sidecar["source"] == str(clip)
    done = run("estimate", clip, "-o", tmp_path, "--config", folder / "depth.json", "--quiet")
    assert done.exit_code == 0, done.output
    assert done.output == ""
    # One input or several, the same bytes.
    assert (tmp_path / clip.stem / "depth.mkv").read_bytes() == (folder / "depth.mkv").read_bytes()


def test_report_is_self_contained(result_folder: Path, rotated: Path) -> None:
    page = (result_folder / rotated.stem / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page
    assert page.count("<video") == 2
    assert "&#x27;quotes&#x27;" in page or "&#39;quotes&#39;" in page
    assert "strategy" in page and "<svg" in page


def test_command_gives_what_the_library_gives(result_folder: Path, clip: Path) -> None:
    engine = DepthEngine.from_pretrained("bundled", device="cpu")
    frames = np.stack([frame.rgb for frame in read_frames(clip)])
    library = engine.estimate(frames)
    assert np.array_equal(library.values, np.load(result_folder / clip.stem / "depth.npy"))
    from_file = engine.estimate(clip)
    assert np.array_equal(library.values, from_file.values)
    assert from_file.fps == 24


def test_frame_timing_of_the_source_is_kept(tmp_path: Path) -> None:
    source = tmp_path / "vfr.mkv"
    # Every third frame dropped, the others keep their times.
    picture = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=24:d=1")
    run_ffmpeg(*picture, "-vf", "select='mod(n,3)'", "-fps_mode", "passthrough", "-c:v", "ffv1", source)
    times_s = [frame.time_s for frame in read_frames(source)]
    assert len({round(b - a, 3) for a, b in zip(times_s, times_s[1:], strict=False)}) > 1
    done = run("estimate", source, "-o", tmp_path / "out", "--no-shots", "--quiet")
    assert done.exit_code == 0, done.output
    for name in ("preview.mp4", "depth.mkv"):
        written = packet_times_s(tmp_path / "out" / "vfr" / name)
        assert np.allclose(written, times_s, atol=1e-3), name
    assert np.allclose(json.loads((tmp_path / "out/vfr/depth.json").read_text())["times_s"], times_s, atol=1e-6)


def test_trimming_and_frame_rate(clip: Path, tmp_path: Path) -> None:
    done = run("estimate", clip, "-o", tmp_path, "--start", "0.25", "--end", "0.75", "--fps", "12", "--quiet")
    assert done.exit_code == 0, done.output
    depth = DepthVideo.load(tmp_path / "clip")
    assert len(depth) == 6
    assert depth.times_s[0] < 1 / 12
    preview = probe(tmp_path / "clip" / "preview.mp4")
    assert preview.duration_s is not None and preview.duration_s < 0.65, "the sound is trimmed alike"


@pytest.mark.parametrize("count", [1, 3, 8])
def test_clips_up_to_a_window_work(tmp_path: Path, count: int) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(count):
        picture = np.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"{index:04d}.png")
    done = run("estimate", folder, "-o", tmp_path / "out", "--format", "npy", "--quiet")
    assert done.exit_code == 0, done.output
    assert np.load(tmp_path / "out" / "frames" / "depth.npy").shape == (count, 16, 16)


def test_a_very_wide_frame_works(tmp_path: Path) -> None:
    source = tmp_path / "wide.mkv"
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=7680x32:r=24", "-frames:v", "2", "-c:v", "ffv1", source)
    done = run("estimate", source, "-o", tmp_path / "out", "--format", "npy", "--quiet")
    assert done.exit_code == 0, done.output
    assert np.load(tmp_path / "out" / "wide" / "depth.npy").shape == (2, 32, 7680)


def test_a_pipe_works(clip: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["estimate", "-", "-o", str(tmp_path), "--quiet"], input=clip.read_bytes())
    assert done.exit_code == 0, done.output
    assert len(DepthVideo.load(tmp_path / "stdin")) == 24


def test_dry_run_writes_nothing(clip: Path, tmp_path: Path) -> None:
    done = run("estimate", clip, "-o", tmp_path / "out", "--dry-run")
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "out").exists()
    settings = choose_settings(resolve_checkpoint("bundled").spec)
    windows = len(list(plan(24, settings.window, settings.stride, settings.layout)))
    for word in ("frames    24", f"windows   {windows} or more", "time      about", "MiB"):
        assert word in done.output


def test_models_and_info(clip: Path, result_folder: Path) -> None:
    models = run("models").output
    for word in ("bundled", "chronodepth", "depthcrafter", "MIT", "research only", "Apache-2.0"):
        assert word in models
    assert "96x64" in run("info", clip).output
    for target in ("", "depth.mkv", "depth.npy", "depth.json"):
        shown = run("info", result_folder / "clip" / target)
        assert "disparity" in shown.output, shown.output
    assert error_line("info", "no-such-file.mp4")


def test_existing_results_are_kept(result_folder: Path, clip: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in (result_folder / "clip").iterdir()}
    assert "--overwrite" in error_line("estimate", clip, "-o", result_folder, "--format", FORMATS)
    done = run("estimate", clip, "-o", result_folder, "--format", FORMATS, "--resume")
    assert done.exit_code == 0, "a finished run is resumed by doing nothing"
    assert {path: path.stat().st_mtime_ns for path in (result_folder / "clip").iterdir()} == before


def test_results_in_one_folder_belong_together(clip: Path, tmp_path: Path) -> None:
    """Other formats are not added to finished results behind the sidecar's back, and none outlives its run."""
    first = ("estimate", clip, "-o", tmp_path, "--quiet", "--max-frames", "4")
    assert run(*first, "--format", "npy,png16").exit_code == 0
    assert "exists" in error_line(*first, "--format", "mkv", "--resume")
    assert run(*first, "--format", "mkv", "--overwrite").exit_code == 0
    names = {path.name for path in (tmp_path / "clip").iterdir()}
    assert names == {"depth.mkv", "depth.json", "preview.mp4", "report.html"}


def test_a_source_that_breaks_off_keeps_what_could_be_read(clip: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole.mkv"
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=96x64:r=24:d=3", "-c:v", "ffv1", "-g", "1", whole)
    broken = tmp_path / "broken.mkv"
    broken.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.6)])
    done = run("estimate", broken, clip, "-o", tmp_path / "out", "--quiet")
    assert done.exit_code == 1
    assert "broken.mkv" in done.stderr and "frame" in done.stderr
    depth = DepthVideo.load(tmp_path / "out" / "broken")
    assert 30 <= len(depth) <= 60
    assert any("broke off" in note for note in depth.meta["notes"])
    again = run("estimate", broken, "-o", tmp_path / "out", "--quiet", "--resume")
    assert again.exit_code == 1 and "broken.mkv" in again.stderr, "it is not whole because it is finished"
    assert len(DepthVideo.load(tmp_path / "out" / "clip")) == 24, "the other input is done all the same"


@pytest.mark.parametrize(("limit", "kept"), [(40_000, []), (800_000, [".work"])])
def test_writing_that_fails_leaves_no_half_result(clip: Path, tmp_path: Path, limit: int, kept: list[str]) -> None:
    """A limit on file size stands for a full disk, met before the first window is kept, or after a few.

    A window's carry takes 689,448 bytes here, the depth of all 48 frames 1,179,648.
    """
    script = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "from depth_engine.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    import sys

    twice = tmp_path / "twice.mp4"
    run_ffmpeg("-stream_loop", "1", "-i", clip, "-c", "copy", twice)
    arguments = ["estimate", str(twice), "-o", str(tmp_path), "--quiet", "--format", "npy"]
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    left = [path.name for path in tmp_path.glob("twice/*")]
    assert left == kept, "nothing under a finished name"
    again = run("estimate", twice, "-o", tmp_path, "--quiet", "--format", "npy", "--resume")
    assert again.exit_code == 0, again.output
    assert len(np.load(tmp_path / "twice" / "depth.npy")) == 48


BAD_OPTIONS = [
    (("--window", "0"), "window: 0"),
    (("--window", "4", "--stride", "5"), "stride: 5 is larger than the window (4)"),
    (("--steps", "0"), "steps: 0"),
    (("--strategy", "contxt"), "did you mean 'context'"),
    (("--flow", "--strategy", "replacement"), "flow: True is not accepted with strategy 'replacement'"),
    (("--sampler", "heun"), "sampler: 'heun' is not known"),
    (("--model", "chronodeph"), "did you mean 'chronodepth'"),
    (("--model", "./no/such/folder"), "no such folder: ./no/such/folder"),
    (("--format", "tiff"), "--format: 'tiff' is not known; accepted: "),
    (("--device", "tpu"), "device: 'tpu'"),
    (("--dtype", "int8"), "dtype: 'int8'"),
    (("--sigmas", "a,b"), "--sigmas: 'a,b'"),
    (("--sigmas", "1,5"), "falling"),
    (("--seed", "-1"), "seed: -1"),
    (("--start", "-1"), "start: -1"),
    (("--start", "5"), "past the end"),
    (("--start", "0.5", "--end", "0.4"), "end: 0.4 is not after the start"),
    (("--start", "0.51", "--end", "0.52"), "no frame lies between 0.51 s and 0.52 s"),
    (("--fps", "0"), "fps: 0"),
    (("--fps", "1e-9"), "fps: 1e-09 is not a frame rate"),
    (("--max-res", "3"), "--max-res: 3"),
    (("--overwrite", "--resume"), "exclude each other"),
    (("--windw", "3"), "--windw"),
    (("--window", "three"), "three"),
]


@pytest.mark.parametrize(("options", "text"), BAD_OPTIONS, ids=[" ".join(options) for options, _ in BAD_OPTIONS])
def test_bad_options_get_one_line(clip: Path, tmp_path: Path, options: tuple[str, ...], text: str) -> None:
    assert text in error_line("estimate", clip, "-o", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_bad_inputs_get_one_line(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder").mkdir()
    sizes = tmp_path / "sizes"
    sizes.mkdir()
    Image.new("RGB", (16, 16)).save(sizes / "1.png")
    Image.new("RGB", (16, 17)).save(sizes / "2.png")
    run_ffmpeg("-f", "lavfi", "-i", "sine=d=1", tmp_path / "sound.m4a")
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:2000])
    for name in ("none.mp4", "text.mp4", "empty.mp4", "folder", "sizes", "sound.m4a", "cut.mp4", "http://x/y.mp4"):
        source = name if "://" in name else str(tmp_path / name)
        line = error_line("estimate", clip, source, "-o", tmp_path / "out")
        assert Path(name).name.removesuffix(".mp4") in line, line
        assert not (tmp_path / "out").exists(), "no output for the good input either: nothing heavy was started"
    both = tmp_path / "both"
    both.mkdir()
    Image.new("RGB", (16, 16)).save(both / "1.png")
    assert "would hold both the source and its results" in error_line("estimate", both, "-o", tmp_path)
    Image.new("RGB", (16, 16)).save(both / "2.png")
    (both / "clip.mp4").write_bytes(clip.read_bytes())
    assert "holds videos and images" in error_line("estimate", both, "-o", tmp_path / "out")
    assert "is a pipe, which can't be read again" in error_line("estimate", "-", "-o", tmp_path / "out", "--resume")
    assert "INPUT" in error_line("estimate", "-o", tmp_path / "out")
    assert "-o/--output" in error_line("estimate", clip)
    assert "would both be written" in error_line("estimate", clip, clip, "-o", tmp_path / "out")


def test_an_output_folder_that_can_t_be_written(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "can't be written" in error_line("estimate", clip, "-o", tmp_path / "file" / "out")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("max_res: 3 is smaller", "--max-res: 3 is smaller"),
        ("clip.mp4: stream: 9 is not one", "clip.mp4: --stream: 9 is not one"),
        ("start_s, max_res: exclude each other", "--start, --max-res: exclude each other"),
        ("window: 3 is not accepted", "window: 3 is not accepted"),  # an option, but of a file, not typed
        ("frames: window: none", "frames: window: none"),
        ("max_res of all: 3", "max_res of all: 3"),
        ("colour, max_res: 3", "colour, max_res: 3"),  # not all are options
    ],
)
def test_parameters_are_named_as_they_were_typed(line: str, told: str) -> None:
    from depth_engine.cli.group import as_typed

    context = main.commands["estimate"].make_context(
        "estimate", ["clip.mp4", "--max-res", "3", "--stream", "9", "--start", "1"]
    )
    with context:
        assert as_typed(line) == told
    assert as_typed(line) == line
