import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from depth2video.cli import main
from depth2video.generators.catalogue import SMALL_FOLDER
from depth2video.plan.memory import memory_told
from PIL import Image

from depth_engine.depth.depth_video import DepthVideo
from depth_engine.runs.pieces import Piece, gathered
from depth_engine.video.read import probe, read_frames
from tests.clips import cut_off, make_clip, packet_times_s
from tests.depth2video.conftest import moving_disparity


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def error_line(*arguments: str | Path) -> str:
    """The one line of a request that is refused."""
    done = run(*arguments)
    assert done.exit_code == 2, done.output
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.fixture(scope="module")
def animatediff(animatediff_folders: dict[str, Path]) -> list[str]:
    """Arguments of a quick AnimateDiff run."""
    parts = {name: folder for name, folder in animatediff_folders.items() if name != "ip_adapter"}
    named = [text for name, folder in parts.items() for text in (f"--{name.replace('_', '-')}", str(folder))]
    return ["--generator", "animatediff", *named, *"--prompt fox --steps 2 --window 8 --stride 5 --quiet".split()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, clip: Path, depth_file: Path, animatediff: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("out")
    control = ("--control-out", folder / "control.mkv")
    done = run(clip, "-o", folder / "new.mp4", "--depth", depth_file, *animatediff, *control)
    assert done.exit_code == 0, done.output
    return folder


def test_a_new_clip_with_sound_times_and_report(finished: Path, clip: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names == {"new.mp4", "control.mkv", "new.json", "new.preview.mp4", "new.report.html"}
    info = probe(finished / "new.mp4")
    assert (info.width, info.height, info.has_audio) == (64, 48, True)
    assert packet_times_s(finished / "new.mp4") == packet_times_s(clip)
    assert probe(finished / "new.preview.mp4").width == 3 * 64, "source, control and result"
    report = (finished / "new.report.html").read_text()
    for caption in ("Source", "Control", "Result"):
        assert f"<figcaption>{caption}</figcaption>" in report
    sidecar = json.loads((finished / "new.json").read_text())
    assert sidecar["settings"]["generator"] == "animatediff" and sidecar["settings"]["prompt"] == "fox"
    assert sidecar["frame_count"] == 12


def test_the_control_that_is_kept_is_that_of_the_control_command(finished: Path, clip: Path, depth_file: Path) -> None:
    out = finished.parent / f"{finished.name}-control.mkv"
    done = run("control", clip, "-o", out, "--depth", depth_file, "--codec", "ffv1", "--quiet")
    assert done.exit_code == 0, done.output
    frames = [np.stack([frame.rgb for frame in read_frames(path)]) for path in (out, finished / "control.mkv")]
    np.testing.assert_array_equal(frames[0], frames[1])
    assert frames[0].shape == (12, 48, 64, 3) and (frames[0] == frames[0][..., :1]).all()
    assert not probe(out).has_audio and packet_times_s(out) == packet_times_s(clip)
    assert json.loads(out.with_suffix(".json").read_text())["settings"]["disparity_range"]


def test_control_at_the_size_a_generator_wants(clip: Path, depth_file: Path, tmp_path: Path) -> None:
    for more, size in (("--generator svd", (64, 64)), ("--size 32x20", (32, 20))):
        out = tmp_path / f"{size}.mp4"
        assert run("control", clip, "-o", out, "--depth", depth_file, "--quiet", *more.split()).exit_code == 0
        assert (probe(out).width, probe(out).height) == size


def test_the_engine_gives_depth_where_none_is_named(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "control.mp4"
    done = run("control", clip, "-o", out, "--depth-max-res", "64", "--max-frames", "4", "--device", "cpu")
    assert done.exit_code == 0, done.output
    depth = DepthVideo.load(tmp_path / "control.depth")
    assert len(depth) == 4
    assert "depth_model" in json.loads(out.with_suffix(".json").read_text())["settings"]
    # A second command of the same settings uses it again.
    before = (tmp_path / "control.depth" / "depth.mkv").stat().st_mtime_ns
    assert run("control", clip, "-o", out, "--depth-max-res", "64", "--max-frames", "4", "--overwrite").exit_code == 0
    assert (tmp_path / "control.depth" / "depth.mkv").stat().st_mtime_ns == before


def test_the_range_of_depth_that_goes_by_is_that_of_depth_read_back(clip: Path, tmp_path: Path) -> None:
    """While the engine makes depth its range is taken on the way; a file is looked through."""
    out = tmp_path / "control.mkv"
    made = ("control", clip, "--codec", "ffv1", "--max-frames", "6", "--quiet", "-o")
    assert run(*made, out, "--depth-max-res", "64", "--device", "cpu").exit_code == 0
    again = tmp_path / "again.mkv"
    assert run(*made, again, "--depth", tmp_path / "control.depth").exit_code == 0
    spans = [json.loads(path.with_suffix(".json").read_text())["settings"]["disparity_range"] for path in (out, again)]
    assert spans[0] == spans[1] and spans[0][0] < spans[0][1]
    assert [frame.rgb.tobytes() for frame in read_frames(out)] == [frame.rgb.tobytes() for frame in read_frames(again)]


@pytest.mark.parametrize("edited", [False, True])
def test_a_small_generator_starts_from_the_first_frame(
    clip: Path, depth_file: Path, small_generator: Path, tmp_path: Path, edited: bool
) -> None:
    """From the source's own, or from an edited one; padded or cropped to the size."""
    look = ()
    if edited:
        Image.new("RGB", (100, 48), (200, 30, 30)).save(tmp_path / "look.png")
        look = ("--image", tmp_path / "look.png", "--image-fit", "pad")
    done = run(
        clip, "-o", tmp_path / "new.mkv", "--codec", "ffv1", "--depth", depth_file,
        "--generator", "bundled", "--base", small_generator, *look,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert ("padded with its edge pixels to 64x48" in done.output) == edited
    frames = np.stack([frame.rgb for frame in read_frames(tmp_path / "new.mkv")])
    assert frames.shape == (12, 48, 64, 3)
    if edited:
        assert (frames[0] == (200, 30, 30)).all()
    else:
        np.testing.assert_array_equal(frames[0], next(iter(read_frames(clip))).rgb)


@pytest.mark.skipif(not SMALL_FOLDER.exists(), reason="the bundled generator is not trained yet")
def test_no_weights_need_be_named(clip: Path, tmp_path: Path) -> None:
    done = run(clip, "-o", tmp_path / "new.mp4", "--max-frames", "9", "--depth-max-res", "64", "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert len(list(read_frames(tmp_path / "new.mp4"))) == 9


def test_svd(clip: Path, depth_file: Path, svd_folders: dict[str, Path], tmp_path: Path) -> None:
    parts = [text for name, folder in svd_folders.items() for text in (f"--{name}", folder)]
    arguments = [clip, "-o", tmp_path / "new.mp4", "--depth", depth_file, "--generator", "svd", *parts]
    done = run(*arguments, *"--steps 2 --window 6 --stride 4".split())
    assert done.exit_code == 0, done.output
    assert "64x64 is of other proportions than the clip: 25% of each frame is cropped away" in done.output
    frames = list(read_frames(tmp_path / "new.mp4"))
    assert len(frames) == 12 and frames[0].rgb.shape == (64, 64, 3)


def test_svd_is_told_frame_rate_and_motion(clip: Path, svd_folders: dict[str, Path], tmp_path: Path) -> None:
    fast = make_clip(tmp_path / "fast.mp4", frames=8, rate="60")
    depth = DepthVideo(moving_disparity(8, 48, 64), "disparity", np.arange(8) / 60, 60)  # type: ignore[arg-type]
    parts = [text for name, folder in svd_folders.items() for text in (f"--{name}", folder)]
    given = ["--depth", depth.save(tmp_path / "depth.npy"), "--generator", "svd", *parts, "--steps", "1"]
    done = run(fast, "-o", tmp_path / "new.mp4", *given)
    assert done.exit_code == 0, done.output
    assert done.output.count("svd is told 30 frames per second, the nearest that it knows to the clip's 60") == 1
    told = json.loads((tmp_path / "new.json").read_text())
    assert (told["settings"]["fps_id"], told["settings"]["motion"]) == (30, 127)
    assert any("svd is told 30" in note for note in told["notes"])
    assert run(fast, "-o", tmp_path / "b.mp4", *given, "--fps-id", "8", "--motion", "60").exit_code == 0
    settings = json.loads((tmp_path / "b.json").read_text())["settings"]
    assert (settings["fps_id"], settings["motion"]) == (8, 60)


def test_words_that_are_not_read_are_told(clip: Path, depth_file: Path, animatediff: list[str], tmp_path: Path) -> None:
    words = " ".join(["fox"] * 75)
    arguments = [clip, "-o", tmp_path / "new.mp4", "--depth", depth_file, *animatediff[:-1], "--max-frames", "2"]
    done = run(*arguments, "--prompt", f"{words} in snow", "--negative-prompt", "city")
    assert done.exit_code == 0, done.output
    line = "note: --prompt: animatediff reads 77 tokens; dropped at the end: in snow"
    assert done.output.splitlines().count(line) == 1
    told = json.loads((tmp_path / "new.json").read_text())
    assert told["settings"]["dropped_words"] == {"--prompt": "in snow"} and line.removeprefix("note: ") in told["notes"]


def test_wan_vace_and_a_reference(clip: Path, depth_file: Path, wan_folder: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 100), (200, 30, 30)).save(tmp_path / "look.png")
    done = run(
        clip, "-o", tmp_path / "new.mp4", "--depth", depth_file, "--generator", "wan-vace", "--base", wan_folder,
        "--prompt", "fox", "--steps", "1", "--window", "9", "--stride", "4", "--image", tmp_path / "look.png",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "image of 40x100 was scaled and cropped to 64x48" in done.output
    assert len(list(read_frames(tmp_path / "new.mp4"))) == 12


def test_video_to_video_with_another_size(clip: Path, depth_file: Path, animatediff: list[str], tmp_path: Path) -> None:
    options = "--strength 0.5 --size 48x64 --fps 12.5 --end 0.3 --normalize frame".split()
    depth = DepthVideo(moving_disparity(4, 48, 64), "disparity", np.arange(4) / 12.5, 12.5)  # type: ignore[arg-type]
    path = depth.save(tmp_path / "depth.npy")
    done = run(clip, "-o", tmp_path / "new.mp4", "--depth", path, *animatediff[:-1], *options)
    assert done.exit_code == 0, done.output
    assert "44% of each frame is cropped away" in done.output
    assert (probe(tmp_path / "new.mp4").width, probe(tmp_path / "new.mp4").height) == (48, 64)
    assert packet_times_s(tmp_path / "new.mp4") == pytest.approx([0, 0.08, 0.16, 0.24])


@pytest.mark.parametrize("limit", [2])
def test_a_killed_run_goes_on_to_the_same_bytes(
    finished: Path, clip: Path, depth_file: Path, animatediff: list[str], tmp_path: Path, limit: int
) -> None:
    """Killed by the system after so many pieces, with no chance to clean up."""
    arguments = [str(clip), "-o", str(tmp_path / "new.mp4"), "--depth", str(depth_file), *animatediff]
    arguments += ["--control-out", str(tmp_path / "control.mkv")]
    script = (
        "import os, signal, sys\n"
        "import depth_engine.runs.pieces as pieces\n"
        "append, count = pieces.PieceStore.append, 0\n"
        "def counted(self, piece):\n"
        "    global count\n"
        "    append(self, piece)\n"
        "    count += 1\n"
        f"    if count == {limit}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "pieces.PieceStore.append = counted\n"
        "pieces._KEEP_EVERY_S = 0\n"
        "from depth2video.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, env=_environment(), timeout=300
    )
    assert killed.returncode == -9, killed.stderr
    assert not (tmp_path / "new.mp4").exists()
    assert "--resume goes on with it" in error_line(*arguments)
    assert "had prompt fox, not stone" in error_line(*arguments, "--resume", "--prompt", "stone")
    again = run(*arguments, "--resume")
    assert again.exit_code == 0, again.output
    for name in ("new.mp4", "control.mkv", "new.preview.mp4"):
        assert (tmp_path / name).read_bytes() == (finished / name).read_bytes(), name
    assert run(*arguments, "--resume").exit_code == 0, "a finished run is resumed by doing nothing"


def _environment() -> dict[str, str]:
    import os

    root = Path(__file__).parents[2]
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'apps'}"}


BAD_OPTIONS = [
    ("--generator anmatediff", "did you mean 'animatediff'"),
    ("--generator wan-vace", "--prompt: is missing; wan-vace makes the look from words"),
    ("--prompt fox", "--prompt: bundled reads no words"),
    ("--generator svd --size 500x300", "nearest: 512x320"),
    ("--size big", "give WIDTHxHEIGHT"),
    ("--generator animatediff --prompt fox --base no/such-repo", "hf download no/such-repo --local-dir FOLDER"),
    ("--generator animatediff --prompt fox --base ./none", "--base: no such folder"),
    ("--motion-adapter x", "--generator: is missing; --motion-adapter goes with animatediff"),
    ("--generator animatediff --prompt fox --ip-adapter me/mine", "--image: is missing; --ip-adapter reads it"),
    ("--device tpu", "device: 'tpu'"),
    ("--offload model --device cpu --generator svd", "the device is the CPU"),
    ("--image none.png", "--image: no such file"),
    ("--image none.png --image-fit stretch", "--image-fit: 'stretch' is not known; accepted: crop, pad"),
    ("--generator svd --control-start 0.5 --control-end 0.2", "0 <= start < end <= 1"),
    ("--control-start 0.5", "--control-start: the small generator takes one step; --control-scale says how much"),
    ("--control-end 0.5", "--control-end: the small generator takes one step"),
    ("--image-fit pad", "--image-fit: only applies with --image"),
    ("--no-shots", "--shots: has no effect on --depth FILE"),
    ("--seed 3", "--seed: has no effect; neither the small generator nor this depth draws noise"),
    ("--generator wan-vace --prompt fox --negative-prompt x --guidance 1", "--negative-prompt: has no effect without"),
    ("--fps-id 7", "--fps-id: is not of bundled; it goes with --generator svd"),
    ("--control-scale -1", "--control-scale: -1"),
    ("--strength 0.5", "bundled does no video-to-video"),
    ("--steps 0", "--steps: 0"),
    ("--generator svd --window 4 --stride 5", "stride: 5 is larger than the window"),
    ("--generator svd --seed -1", "seed: -1"),
    ("--overwrite --resume", "exclude each other"),
    ("--start 9", "past the end"),
    ("--wide", "--wide"),
]


@pytest.mark.parametrize(("options", "text"), BAD_OPTIONS)
def test_bad_options_get_one_line(
    clip: Path, depth_file: Path, small_generator: Path, tmp_path: Path, options: str, text: str
) -> None:
    arguments = options.split()
    if "--generator" not in options and "-adapter" not in options:
        arguments += ["--generator", "bundled", "--base", str(small_generator)]
    assert text in error_line(clip, "-o", tmp_path / "out" / "new.mp4", "--depth", depth_file, *arguments)
    assert not (tmp_path / "out").exists()


BAD_DEPTH = [
    ("--depth enigne", "did you mean 'engine'"),
    ("--depth none.npy", "none.npy does not exist"),
    ("--depth midas --annotator-weights ./none", "no such folder: ./none"),
    ("--depth zoe", "hf download lllyasviel/Annotators"),
    ("--depth leres --depth-window 3", "--depth-window: only applies to --depth engine; --depth is leres"),
    ("--detect-resolution 64", "--detect-resolution: only applies to --depth midas, zoe, leres"),
    ("--depth {file} --seed 3", "--seed: only applies to --depth engine"),
    ("--depth {file} --dtype float32", "--dtype: only applies to --depth engine"),
    ("--depth {file} --device cpu", "--device: has no effect; the depth is made already"),
    ("--depth midas --seed 3", "--seed: only applies to --depth engine"),
    ("--depth-kind depth", "--depth-kind: is for --depth FILE"),
    ("--depth-model chronodeph", "did you mean 'chronodepth'"),
    ("--normalize clp", "did you mean 'clip'"),
]


@pytest.mark.parametrize(("options", "text"), BAD_DEPTH)
def test_bad_depth_gets_one_line(clip: Path, depth_file: Path, tmp_path: Path, options: str, text: str) -> None:
    if "--depth midas" in options or "--depth zoe" in options or "--depth leres" in options:
        pytest.importorskip("controlnet_aux")
    assert text in error_line("control", clip, "-o", tmp_path / "control.mp4", *options.format(file=depth_file).split())
    assert not (tmp_path / "control.mp4").exists()


def test_a_control_longer_than_the_clip_is_refused(clip: Path, tmp_path: Path) -> None:
    depth = DepthVideo(moving_disparity(30, 48, 64), "disparity", np.arange(30) / 25, 25)  # type: ignore[arg-type]
    path = depth.save(tmp_path / "depth.npy")
    line = error_line("control", clip, "-o", tmp_path / "c.mp4", "--depth", path)
    assert "has 30 frames, more than the 12 that are taken of the clip" in line
    assert run("control", clip, "-o", tmp_path / "c.mp4", "--depth", path, "--max-frames", "12").exit_code == 0


def test_a_picture_that_is_none_is_refused(clip: Path, small_generator: Path, tmp_path: Path) -> None:
    (tmp_path / "look.png").write_text("no picture")
    small = ("--generator", "bundled", "--base", small_generator)
    line = error_line(clip, "-o", tmp_path / "new.mp4", "--image", tmp_path / "look.png", *small)
    assert "--image:" in line and "can't be read as a picture" in line


def test_what_exists_is_kept(finished: Path, clip: Path, depth_file: Path, animatediff: list[str]) -> None:
    line = error_line(clip, "-o", finished / "new.mp4", "--depth", depth_file, *animatediff)
    assert "exists" in line and "--overwrite" in line


def test_a_source_that_breaks_off_keeps_what_could_be_made(animatediff: list[str], tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "whole.mkv", frames=30)
    broken = cut_off(whole, tmp_path / "broken.mkv", 0.6)
    depth = DepthVideo(moving_disparity(30, 48, 64), "disparity", np.arange(30) / 25, 25)  # type: ignore[arg-type]
    path = depth.save(tmp_path / "depth.npy")
    for command in ([], ["control"]):
        options = [] if command else animatediff
        out = tmp_path / f"new{len(command)}.mp4"
        done = run(*command, broken, "-o", out, "--depth", path, *options)
        assert done.exit_code == 1 and "broken.mkv" in done.stderr, done.output
        sidecar = json.loads(out.with_suffix(".json").read_text())
        assert sidecar["frame_count"] == 6, "all that could be read, less than a window"
        assert any("broke off" in note for note in sidecar["notes"])
    done = run("control", broken, "-o", tmp_path / "engine.mp4", "--depth-max-res", "64", "--device", "cpu")
    assert done.exit_code == 1 and "broken.mkv" in done.stderr, done.output
    assert json.loads((tmp_path / "engine.json").read_text())["frame_count"] == 6


def test_a_clip_of_unknown_length_is_counted_before_depth_is_refused(depth_file: Path, tmp_path: Path) -> None:
    raw = make_clip(tmp_path / "raw.h264", "-c:v", "libx264", "-f", "h264", frames=14)
    assert probe(raw).frame_count is None
    refused = error_line("control", raw, "-o", tmp_path / "control.mp4", "--depth", depth_file)
    assert "has 12 frames, the clip 14; give --max-frames 12" in refused


def test_depth_of_unknown_length_that_ends_before_the_clip_ends_the_new_one(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=14)
    depth = make_clip(tmp_path / "depth.mkv", "-c:v", "ffv1", "-pix_fmt", "gray16le", "-live", "1", frames=12)
    assert probe(depth).frame_count is None
    done = run("control", clip, "-o", tmp_path / "control.mp4", "--depth", depth, "--depth-kind", "disparity")
    assert done.exit_code == 0, done.output
    assert "depth ends after 12 frames, before the clip" in done.output
    sidecar = json.loads((tmp_path / "control.json").read_text())
    assert sidecar["frame_count"] == 12 and any("ends after 12" in note for note in sidecar["notes"])


def test_the_sidecar_of_a_sequence_names_its_images(tmp_path: Path) -> None:
    (tmp_path / "plates").mkdir()
    for number in (1001, 1002, 1004):
        Image.new("RGB", (64, 48), (number - 1000, 90, 90)).save(tmp_path / "plates" / f"plate.{number}.png")
    depth = DepthVideo(moving_disparity(3, 48, 64), "disparity", np.arange(3) / 24, 24)  # type: ignore[arg-type]
    out = tmp_path / "control.mp4"
    done = run("control", tmp_path / "plates", "-o", out, "--depth", depth.save(tmp_path / "depth.npy"))
    assert done.exit_code == 0 and "1 numbers missing between 1001 and 1004" in done.output
    told = json.loads(out.with_suffix(".json").read_text())
    assert told["frame_names"] == ["plate.1001", "plate.1002", "plate.1004"]


def test_a_frame_rate_above_the_clip_s_is_told(clip: Path, depth_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "control.mp4"
    done = run("control", clip, "-o", out, "--depth", depth_file, "--fps", "60")
    assert done.exit_code == 0, done.output
    assert "note: --fps 60 has no effect: the clip has 25 frames per second" in done.output
    assert (
        "has no effect"
        not in run("control", clip, "-o", out, "--depth", depth_file, "--fps", "25", "--overwrite").output
    )


def test_small_pieces_are_gathered_and_slow_ones_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = np.arange(60, dtype=np.uint8).reshape(60, 1, 1, 1)
    pieces = [Piece(frames[at : at + 5], {"done": torch.tensor(at + 5)}) for at in range(0, 60, 5)]
    together = list(gathered(iter(pieces)))
    assert [len(piece.frames) for piece in together] == [25, 25, 10]
    assert [int(piece.state["done"]) for piece in together] == [25, 50, 60]
    np.testing.assert_array_equal(np.concatenate([piece.frames for piece in together]), frames)

    def broken() -> Iterator[Piece]:
        yield from pieces[:2]
        torch.empty(2**58, dtype=torch.uint8)

    kept = gathered(broken())
    assert len(next(kept).frames) == 10, "what is finished is not lost"
    with pytest.raises(RuntimeError):
        next(kept)
    monkeypatch.setattr("depth_engine.runs.pieces._KEEP_EVERY_S", 0)
    assert [len(piece.frames) for piece in gathered(iter(pieces))] == [5] * 12


def test_cuts_are_told(tmp_path: Path, small_generator: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", frames=4)
    meta = {"shots": [0, 2], "settings": {}}
    depth = DepthVideo(moving_disparity(4, 48, 64), "disparity", np.arange(4) / 25, 25, meta)  # type: ignore[arg-type]
    path = depth.save(tmp_path / "depth.npy")
    done = run(clip, "-o", tmp_path / "new.mp4", "--depth", path, "--generator", "bundled", "--base", small_generator)
    assert done.exit_code == 0 and "cuts in the clip: 1" in done.output


def test_memory_that_runs_out_says_what_to_lower() -> None:
    for use in (lambda: torch.empty(2**58, dtype=torch.uint8), lambda: np.ones(2**58, np.uint8)):
        with pytest.raises(RuntimeError, match="memory ran out: lower --size; finished .* --resume"):
            with memory_told("--size"):
                use()
    with pytest.raises(RuntimeError, match="another thing"):
        with memory_told("--size"):
            raise RuntimeError("another thing")


def test_a_run_that_ran_out_of_memory_goes_on_where_it_stood(
    finished: Path,
    clip: Path,
    depth_file: Path,
    animatediff: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The allocator is asked for more than there is once a window is finished."""
    from depth_engine.runs.pieces import PieceStore

    append = PieceStore.append

    def then_ask_for_too_much(self, piece) -> None:
        append(self, piece)
        torch.empty(2**58, dtype=torch.uint8)

    arguments = [clip, "-o", tmp_path / "new.mp4", "--depth", depth_file, *animatediff]
    arguments += ["--control-out", tmp_path / "control.mkv"]
    with monkeypatch.context() as patch:
        patch.setattr(PieceStore, "append", then_ask_for_too_much)
        patch.setattr("depth_engine.runs.pieces._KEEP_EVERY_S", 0)
        done = run(*arguments)
    assert done.exit_code == 1, done.output
    (line,) = done.stderr.strip().splitlines()
    assert "memory ran out: lower --size or --window" in line and "--resume" in line
    assert [path.name for path in tmp_path.iterdir()] == [".new.mp4.work"]
    assert run(*arguments, "--resume").exit_code == 0
    assert (tmp_path / "new.mp4").read_bytes() == (finished / "new.mp4").read_bytes()


def test_generators_are_listed() -> None:
    listed = run("generators")
    assert listed.exit_code == 0
    for word in ("bundled", "svd", "animatediff", "wan-vace", "Wan-AI/Wan2.1-VACE-1.3B-diffusers", "multiples of 16"):
        assert word in listed.output


def test_help_names_the_default_command() -> None:
    assert "depth2video INPUT -o OUT.mp4" in run("--help").output
    assert "--control-scale" in run("video", "--help").output
    assert run().exit_code == 2
