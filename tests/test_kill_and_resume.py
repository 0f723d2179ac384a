"""The commands that make files of a clip: killed after any of their operations on files, they go on to the same bytes;
and of a source that breaks off they give what could be made."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from depth_engine.depth.depth_video import DepthVideo
from tests.clips import cut_off, make_clip
from tests.depth2video.conftest import moving_disparity, tiny_small
from tests.forked import Ended, Step, run_forked

COMMANDS = ("estimate", "render", "stereo", "depth2video", "control")
FRAMES = 3
CHAINS = 2  # that run beside each other


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", frames=FRAMES)


@pytest.fixture(scope="module")
def depth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    values = moving_disparity(FRAMES, 48, 64)
    video = DepthVideo(values, "disparity", np.arange(FRAMES) / 25, 25)  # type: ignore[arg-type]
    return video.save(tmp_path_factory.mktemp("depth") / "depth.npy")


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_small(tmp_path_factory.mktemp("small"))


def arguments(command: str, clip: Path, generator: Path, depth: Path | None) -> tuple[str, list]:
    """Module and arguments of a command that writes to `out` all that it can; None: the engine gives the depth."""
    computes = command != "control" or depth is None  # else no network runs, and a device has no effect
    common = [clip, "--quiet", *(["--device", "cpu"] if computes else []), "-o"]
    to_video = [*common, "out/new.mp4", *([] if depth is None else ["--depth", depth])]
    masked = [*to_video, "--mask-out", "out/mask.mkv"]
    generated = [*to_video, "--generator", "bundled", "--base", generator, "--control-out", "out/control.mkv"]
    return {
        "estimate": ("depth_engine.cli.main", ["estimate", *common, "out", "--format", "mkv,png16"]),
        "render": ("novel_view.cli", ["render", *masked]),
        "stereo": ("novel_view.cli", ["stereo", *masked]),
        "depth2video": ("depth2video.cli", ["video", *generated]),
        "control": ("depth2video.cli", ["control", *to_video]),
    }[command]


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file under a folder, hidden ones too."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_killed_after_any_operation_on_files_a_run_goes_on_to_the_same_bytes(
    command: str, clip: Path, generator: Path, depth: Path, tmp_path: Path
) -> None:
    """A run is killed, resumed and killed one step later, and so on; where nothing is left to do, another begins."""
    given = None if command == "render" else depth  # one of them makes its depth itself

    def run(folder: Path, *more: str, killed_before: Step | None = None) -> Ended:
        module, start = arguments(command, clip, generator, given)
        return run_forked(module, [*start, *more], folder, killed_before)

    whole = run(tmp_path / "whole")
    assert whole.code == 0, whole.errors
    expected, steps = digests(tmp_path / "whole" / "out"), whole.steps
    assert len(expected) >= 4 and len(steps) > 15

    def chain(number: int) -> None:
        folder, count = tmp_path / f"chain{number}", 0
        for step in steps[number::CHAINS]:
            ended = run(folder, "--resume", killed_before=step)
            if ended.code == 0:
                assert digests(folder / "out") == expected, f"before {step}"
                folder, count = tmp_path / f"chain{number}-{count + 1}", count + 1
                ended = run(folder, "--resume", killed_before=step)
            assert ended.code == -9, f"before {step}: exit code {ended.code} {ended.errors}"
            named = {name: held for name, held in digests(folder / "out").items() if name in expected}
            assert named.items() <= expected.items(), f"before {step}: an output has its name, and is not whole"
        last = run(folder, "--resume")
        assert last.code == 0, last.errors
        assert digests(folder / "out") == expected

    with ThreadPoolExecutor(CHAINS) as pool:
        list(pool.map(chain, range(CHAINS)))


@pytest.mark.parametrize("command", COMMANDS)
def test_of_a_source_that_breaks_off_what_was_made_is_finished(command: str, generator: Path, tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "whole.mkv", "-c:v", "ffv1", "-g", "1", frames=6)
    broken = cut_off(whole, tmp_path / "broken.mkv", 0.6)
    module, start = arguments(command, broken, generator, None)
    for more in ([], ["--resume"]):  # what is finished does not become whole by being asked for again
        ended = run_forked(module, [*start, *more], tmp_path)
        assert ended.code == 1 and "broken.mkv" in ended.errors, ended.errors
        sidecar = tmp_path / "out" / ("broken/depth.json" if command == "estimate" else "new.json")
        made = json.loads(sidecar.read_text())
        assert 2 <= made["frame_count"] < 6 and any("broke off" in note for note in made["notes"])
        names = {path.name for path in sidecar.parent.iterdir()}
        assert names >= ({"depth.mkv", "preview.mp4"} if command == "estimate" else {"new.mp4", "new.preview.mp4"})
        assert not [name for name in names if "work" in name]
    assert not ended.steps or {step.label.split()[0] for step in ended.steps} <= {"os.mkdir", "open", "os.remove"}
