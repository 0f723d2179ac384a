import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from depth_engine.runs.derived_clip import ClipJob, ClipRun, Maker, check_clip_job
from depth_engine.runs.pieces import Piece
from depth_engine.runs.resumable import Source
from depth_engine.video.probe import DecodeError
from depth_engine.video.read import probe, read_frames
from tests.clips import cut_off, make_clip, packet_times_s, run_ffmpeg

MASK = {"mask": "Mask"}


class Killed(BaseException):
    pass


def _fading(job: ClipJob, *, dies_after: int | None = None, size: int = 5) -> Maker:
    """Darkens the clip a little more with every frame; the level so far is the state."""

    def make(source: Source, first: int, state: dict[str, torch.Tensor]) -> Iterator[Piece]:
        level = float(state["level"]) if state else 1.0
        batch: list[np.ndarray] = []
        made = 0
        for index, frame in enumerate(source.frames()):
            if index < first:
                continue
            level *= 0.97
            batch.append((frame.rgb * level).astype(np.uint8))
            if len(batch) == size:
                if made == dies_after:
                    raise Killed
                yield _piece(batch, level)
                batch, made = [], made + 1
        if batch:
            yield _piece(batch, level)

    return make


def _piece(frames: list[np.ndarray], level: float) -> Piece:
    masks = [np.where(frame.mean(axis=2, keepdims=True) > 100, 255, 0).repeat(3, 2) for frame in frames]
    state = {"level": torch.tensor(level, dtype=torch.float64)}
    return Piece(np.stack(frames), state, {"mask": np.stack(masks).astype(np.uint8)})


def _job(folder: Path, source: Path, **changes) -> ClipJob:
    return ClipJob(source, output=folder / "new.mp4", companions={"mask": folder / "mask.mkv"}, **changes)


@pytest.fixture(autouse=True)
def every_piece_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("depth_engine.runs.pieces._KEEP_EVERY_S", 0)


def _run(job: ClipJob, make: Maker) -> list[Path]:
    check_clip_job(job, {"amount": 0.97})
    return ClipRun(job, {"amount": 0.97}, make, settings={"amount": 0.97}, panels=MASK).run()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    silent, clip = make_clip(folder / "silent.mp4"), folder / "clip.mp4"
    run_ffmpeg("-i", silent, "-f", "lavfi", "-i", "sine=duration=0.48", "-c:v", "copy", "-c:a", "aac", clip)
    return clip


def test_frames_times_and_sound_are_kept(clip: Path, tmp_path: Path) -> None:
    job = _job(tmp_path, clip)
    outputs = _run(job, _fading(job))
    assert outputs == job.outputs and all(path.stat().st_size for path in outputs)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in outputs}
    assert probe(job.output).has_audio and not probe(job.companions["mask"]).has_audio
    assert packet_times_s(job.output) == packet_times_s(clip)
    made = _fading(job)(job, 0, {})  # type: ignore[arg-type]  # a job has `frames` too
    wanted = np.concatenate([piece.companions["mask"] for piece in made])
    np.testing.assert_array_equal([frame.rgb for frame in read_frames(job.companions["mask"])], wanted)
    sidecar = json.loads(job.sidecar.read_text())
    assert (sidecar["frame_count"], sidecar["width"], sidecar["height"]) == (12, 64, 48)
    assert sidecar["settings"]["amount"] == 0.97
    assert probe(job.preview).width == 3 * 64
    assert "<figcaption>Mask</figcaption>" in job.report.read_text()


@pytest.mark.parametrize("dies_after", [1, 2])
def test_a_killed_run_goes_on_to_the_same_bytes(clip: Path, tmp_path: Path, dies_after: int) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    expected = _run(_job(whole, clip), _fading(_job(whole, clip)))
    job = _job(parts, clip)
    with pytest.raises(Killed):
        _run(job, _fading(job, dies_after=dies_after, size=4))
    assert not any(path.exists() for path in job.outputs)
    with pytest.raises(FileExistsError, match="--resume goes on with it"):
        check_clip_job(job, {"amount": 0.97})
    again = _job(parts, clip, resume=True)
    # Other pieces than before: what is kept is what was made.
    for made, wanted in zip(_run(again, _fading(again)), expected, strict=True):
        if made != again.sidecar:
            assert made.read_bytes() == wanted.read_bytes(), made.name
    assert _run(again, _fading(again, dies_after=0)) == again.outputs  # finished: nothing is made again


def test_another_run_is_not_resumed(clip: Path, tmp_path: Path) -> None:
    job = _job(tmp_path, clip)
    with pytest.raises(Killed):
        _run(job, _fading(job, dies_after=1))
    with pytest.raises(ValueError, match="had amount 0.97, not 0.5"):
        check_clip_job(_job(tmp_path, clip, resume=True), {"amount": 0.5})
    with pytest.raises(ValueError, match="had max_frames None, not 3"):
        check_clip_job(_job(tmp_path, clip, resume=True, max_frames=3), {"amount": 0.97})


def test_what_a_broken_source_gave_is_finished(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "whole.mkv", frames=40)
    job = _job(tmp_path / "out", cut_off(whole, tmp_path / "cut.mkv", 0.6))
    with pytest.raises(DecodeError):
        _run(job, _fading(job))
    sidecar = json.loads(job.sidecar.read_text())
    assert 0 < sidecar["frame_count"] < 40
    assert any("broke off" in note for note in sidecar["notes"])


def test_a_part_at_another_rate(clip: Path, tmp_path: Path) -> None:
    job = _job(tmp_path, clip, start_s=0.08, fps=12.5, max_frames=4)
    _run(job, _fading(job))
    assert packet_times_s(job.output) == pytest.approx([0, 0.08, 0.16, 0.24])


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"output": "clip.mp4"}, "is the source"),
        ({"output": "new.avi"}, "does not end in"),
        ({"codec": "vp9"}, "codec: 'vp9' is not one of"),
        ({"companions": {"mask": "new.preview.mp4"}}, "would be written twice"),
        ({"end_s": -1.0}, "is not after the start"),
    ],
)
def test_what_can_not_be_is_refused(tmp_path: Path, changes: dict, text: str) -> None:
    source = make_clip(tmp_path / "clip.mp4", frames=2)
    if "companions" in changes:
        changes = {"companions": {name: tmp_path / path for name, path in changes["companions"].items()}}
    if "output" in changes:
        changes = {"output": tmp_path / changes["output"]}
    with pytest.raises(ValueError, match=text):
        check_clip_job(ClipJob(source, **{"output": tmp_path / "new.mp4", **changes}), {})


def test_what_exists_is_kept(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "new.json").write_text("mine")
    with pytest.raises(FileExistsError, match="new.json exists"):
        check_clip_job(_job(tmp_path, clip), {})
    job = _job(tmp_path, clip, overwrite=True)
    _run(job, _fading(job))
    assert json.loads((tmp_path / "new.json").read_text())["frame_count"] == 12
