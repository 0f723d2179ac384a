"""A shot to show novel views and a new look on: its first frame in other colours as a picture, and its options.

    python tools/demo_shot.py CLIP DEPTH.json FIRST.png     writes FIRST.png, prints "--start S --end E"

The bundled generator carries its first frame along by the motion of the depth: what passes in front takes it away. So
of the shots that are long enough, the calmest is shown.
"""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from depth_engine.video.read import read_frames

LEAST_S, MOST_S = 1.5, 3.0  # enough to see, and soon done


def shots_of(sidecar: dict) -> list[tuple[float, float]]:
    """Start and end of each shot, seconds, cut to `MOST_S`."""
    times, starts = sidecar["times_s"], sidecar["shots"]
    step_s = (times[-1] - times[0]) / max(len(times) - 1, 1)
    # Half a frame before its first one: times are rounded.
    spans = [
        (max(0.0, times[first] - step_s / 2), times[stop - 1] + step_s / 2)
        for first, stop in zip(starts, [*starts[1:], len(times)], strict=True)
    ]
    return [(start_s, min(end_s, start_s + MOST_S)) for start_s, end_s in spans]


def unrest(clip: str, start_s: float, end_s: float) -> float:
    """Mean difference of neighbouring frames."""
    last, differences = None, [0.0]
    for frame in islice(read_frames(clip, start_s=start_s, end_s=end_s), 100):
        small = frame.rgb[::4, ::4].astype(np.float32)
        if last is not None:
            differences.append(float(np.abs(small - last).mean()))
        last = small
    return float(np.mean(differences[1:] or differences))


def choose_shot(clip: str, sidecar: dict) -> tuple[float, float]:
    """The calmest of the shots that are long enough, else the longest."""
    shots = shots_of(sidecar)
    enough = [shot for shot in shots if shot[1] - shot[0] >= LEAST_S]
    if not enough:
        return max(shots, key=lambda shot: shot[1] - shot[0])
    return enough[0] if len(enough) == 1 else min(enough, key=lambda shot: unrest(clip, *shot))


def recolored(rgb: np.ndarray) -> np.ndarray:
    """Another hue: the channels change places."""
    return np.ascontiguousarray(rgb[..., [2, 0, 1]])


def main(clip: str, sidecar: str, picture: str) -> None:
    """See the top."""
    start_s, end_s = choose_shot(clip, json.loads(Path(sidecar).read_text()))
    frame = next(read_frames(clip, start_s=start_s))
    Image.fromarray(recolored(frame.rgb)).save(picture)
    print(f"--start {start_s:.4f} --end {end_s:.4f}")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("demo_shot: give CLIP DEPTH.json FIRST.png")
    main(*sys.argv[1:])
