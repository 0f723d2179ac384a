"""Peak memory of a long clip over that of a short one of the same size, for both codecs.

    python -m tests.benchmarks.memory [--short 200] [--long 2000] [--width 128] [--height 96]

Each run is its own process, whose own peak RSS is read at its end; ffmpeg's processes are not part of it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

RUN = """
import resource, sys
from depth_engine.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    if end.code:
        raise
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def write_clip(path: Path, frames: int, height: int, width: int) -> None:
    """A drifting pattern; one shot."""
    from depth_engine.video.write import VideoWriter

    rows, columns = np.mgrid[0:height, 0:width]
    with VideoWriter(path, width=width, height=height, fps=24) as writer:
        for index in range(frames):
            wave = np.sin((columns + index) / 9)[..., None] * 60 + np.cos((rows - index / 3) / 7)[..., None] * 50
            writer.write((128 + wave + np.zeros(3)).astype(np.uint8), index / 24)


def peak_mib(clip: Path, output: Path, extra: list[str]) -> float:
    """Peak RSS of `depth-engine estimate` on a clip."""
    command = [sys.executable, "-c", RUN, "estimate", str(clip), "-o", str(output), "--quiet", "--no-shots", *extra]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return int(done.stdout.split()[-1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", type=int, default=200)
    parser.add_argument("--long", type=int, default=2000)
    parser.add_argument("--height", type=int, default=96)
    parser.add_argument("--width", type=int, default=128)
    args = parser.parse_args()

    from tests.tiny_checkpoints import tiny_svd

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        svd = ["--model", str(tiny_svd(folder / "svd")), "--spec", "chronodepth", "--steps", "1", "--max-res", "64"]
        clips = {count: folder / f"{count}.mp4" for count in (args.short, args.long)}
        for count, clip in clips.items():
            write_clip(clip, count, args.height, args.width)
        for label, extra in (("bundled", []), ("tiny SVD, temporal decoder in chunks of 8", svd)):
            peaks = [peak_mib(clip, folder / label / str(count), extra) for count, clip in clips.items()]
            print(
                f"{label}: {args.short} frames {peaks[0]:.0f} MiB, {args.long} frames {peaks[1]:.0f} MiB, "
                f"ratio {peaks[1] / peaks[0]:.3f} (at most 1.1 is wanted)"
            )


if __name__ == "__main__":
    main()
