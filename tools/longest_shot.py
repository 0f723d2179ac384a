"""The longest shot of a clip whose depth is known: its first frame in other colours as a picture, and its options.

    python tools/longest_shot.py CLIP DEPTH.json FIRST.png     writes FIRST.png, prints "--start S --end E"

For the demo of depth2video: the picture gives the look, the depth the motion.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from depth_engine.video import read_frames

SECONDS = 3.0  # no more of it: a demo is to be seen soon


def longest_shot(sidecar: dict) -> tuple[float, float]:
    """Start and end of the longest shot, seconds, cut to `SECONDS`."""
    times, starts = sidecar["times_s"], sidecar["shots"]
    ends = [*starts[1:], len(times)]
    first, stop = max(zip(starts, ends, strict=True), key=lambda shot: shot[1] - shot[0])
    step_s = (times[-1] - times[0]) / max(len(times) - 1, 1)
    # Half a frame before its first one: times are rounded.
    start_s = max(0.0, times[first] - step_s / 2)
    return start_s, min(times[stop - 1] + step_s / 2, start_s + SECONDS)


def recolored(rgb: np.ndarray) -> np.ndarray:
    """Another hue: the channels change places."""
    return np.ascontiguousarray(rgb[..., [2, 0, 1]])


def main(clip: str, sidecar: str, picture: str) -> None:
    """See the top."""
    start_s, end_s = longest_shot(json.loads(Path(sidecar).read_text()))
    frame = next(read_frames(clip, start_s=start_s))
    Image.fromarray(recolored(frame.rgb)).save(picture)
    print(f"--start {start_s:.4f} --end {end_s:.4f}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("longest_shot: give CLIP DEPTH.json FIRST.png")
    main(*sys.argv[1:])
