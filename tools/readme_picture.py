"""The picture at the top of the README, from what `make demo` left.

    python tools/readme_picture.py CLIP DEMO_OUT/CLIP docs/depth.png --start S --end E

S and E are of the shot shown: `tools/demo_shot.py` prints them. Rows: the clip, its depth,
and the same frames from a moving camera.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from depth_engine.depth.depth_video import DepthVideo
from depth_engine.report.colours import colorize, contact_sheet
from depth_engine.video.read import read_frames

COLUMNS = 4
TILE = (240, 135)  # width and height of one frame: the picture is 960 pixels wide


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("demo", type=Path, help="the clip's folder in what the demo wrote")
    parser.add_argument("picture", type=Path, help="PNG to write")
    parser.add_argument("--start", type=float, default=0.0, help="seconds")
    parser.add_argument("--end", type=float, default=math.inf, help="seconds")
    given = parser.parse_args()
    depth = DepthVideo.load(given.demo)
    shown = depth.values[(depth.times_s >= given.start) & (depth.times_s < given.end)]
    rows = [
        [frame.rgb for frame in read_frames(given.clip) if given.start <= frame.time_s < given.end],
        list(colorize(shown, depth.kind)),
        [frame.rgb for frame in read_frames(given.demo / "orbit.mp4")],
    ]
    sheet = Image.fromarray(contact_sheet([tile for row in rows for tile in tiles(row)], COLUMNS))
    # 256 colours without dither: less than half the size, and every clone carries it.
    sheet.quantize(256, dither=Image.Dither.NONE).save(given.picture, optimize=True)


def tiles(frames: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Frames evenly spread over a row's, small."""
    places = np.linspace(0, len(frames) - 1, COLUMNS).round().astype(int)
    return [np.asarray(Image.fromarray(frames[place]).resize(TILE, Image.Resampling.BOX)) for place in places]


if __name__ == "__main__":
    main()
