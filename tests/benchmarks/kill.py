"""Kill a run with SIGKILL at random moments, resume it each time, and compare the bytes with an unbroken run.

python -m tests.benchmarks.kill [--kills 10] [--frames 240]
"""

from __future__ import annotations

import argparse
import random
import subprocess
import tempfile
from pathlib import Path

from tests.depth_engine.runs.test_resume import command, digests, kill_at, write_clip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--frames", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = folder / "clip.mp4"
        write_clip(clip, args.frames)
        subprocess.run(command(clip, folder / "unbroken"), check=True, timeout=300)
        expected = digests(folder / "unbroken")
        shares = sorted(rng.uniform(0.02, 0.98) for _ in range(args.kills))
        killed = sum(kill_at(clip, folder / "killed", share, args.frames) for share in shares)
        subprocess.run(command(clip, folder / "killed", "--resume"), check=True, timeout=300)
        same = digests(folder / "killed") == expected
    print(f"killed {killed} times at shares {', '.join(f'{share:.2f}' for share in shares)} of the clip")
    print(f"{len(expected)} files, the same bytes as an unbroken run: {same}")
    if not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
