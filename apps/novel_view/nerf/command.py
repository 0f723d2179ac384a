"""Training a NeRF on an exported data set, with nerfstudio in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depth_engine.geometry.cameras import Camera, intrinsics
from depth_engine.runs.atomic import publish, refuse_existing
from depth_engine.runs.resumable import compare_runs
from novel_view.nerf.dataset import dataset_cameras, read_dataset
from novel_view.path_files import load_path

Progress = Callable[[str, int, int], None]  # (stage, done, total)
_IDENTITY = ("data", "iterations", "use_depth", "small")  # what must be the same for a training to go on
_LOG_TAIL = 2000  # characters of nerfstudio's last words that are searched for a reason


@dataclass(frozen=True)
class NerfResult:
    """What a training left.

    Attributes:
        folder: All of it: report.json, nerfstudio.log, held_out/, path.mp4, nerfstudio/ (config and checkpoint).
        report: Content of report.json; `psnr` and `ssim` where held-out frames were scored.
        video: The rendered path.
    """

    folder: Path
    report: dict[str, Any]
    video: Path


@dataclass(frozen=True)
class NerfTraining:
    """How a NeRF is trained and shown.

    Attributes:
        iterations: Training steps.
        fps: Frames per second of the video; None: the path's, else the data set's.
        evaluate: Score the frames that training does not see.
        use_depth: Off: the same training without the depth loss, to compare.
        small: A field that two CPU cores train in minutes.
        device: `auto`, `cpu`, `cuda`, `mps`.

    Raises:
        ValueError: A number is not accepted.
    """

    iterations: int
    fps: float | None = None
    evaluate: bool = True
    use_depth: bool = True
    small: bool = False
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.iterations < 1:
            raise ValueError(f"iterations: {self.iterations} is not accepted; give a whole number from 1 up")
        if self.fps is not None and not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps: {self.fps:g} is not accepted; give frames per second above 0")


def train_nerf(
    data: Path,
    output: Path,
    training: NerfTraining,
    *,
    path_json: Path | None = None,
    cameras: Sequence[Camera] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    on_progress: Progress = lambda stage, done, total: None,
) -> NerfResult:
    """Train `depth-video-nerfacto`, score the held-out frames, render a path.

    Args:
        data: Folder that `nerf_dataset.export_dataset` wrote.
        output: Folder to write; its name appears when all is done.
        training: How.
        path_json: Camera path that nerfstudio's viewer saved, in the frame that it trains in.
        cameras: Or the cameras of a path, in the world of the data set. Without both: the data set's own, in order.
        overwrite: Replace an earlier result, and an interrupted run.
        resume: Go on with an interrupted run at its last checkpoint; pictures differ a little from an unbroken run's.
        on_progress: Told the stage, how much of it is done, and of how much.

    Raises:
        ValueError: An argument or the data set can't be used, or the interrupted run was another one.
        FileExistsError: The output, or an interrupted run, exists and `overwrite` is off.
        ImportError: nerfstudio is not installed.
        RuntimeError: The training failed; the message says where its log is.
    """
    job = _job(data, training.iterations, path_json, cameras, training.fps)
    refuse_existing(output, overwrite)
    if importlib.util.find_spec("nerfstudio") is None:
        raise ImportError("nerfstudio is not installed: pip install 'depth-engine[nerf]'")
    from depth_engine.devices import choose_device

    job |= {
        "output": str(output.resolve()),
        "evaluate": training.evaluate,
        "use_depth": training.use_depth,
        "small": training.small,
        "device": choose_device(training.device).type,
    }
    work = _work_folder(output, job, overwrite=overwrite, resume=resume)
    _run(work, on_progress)
    publish(work, output, overwrite)
    return NerfResult(output, json.loads((output / "report.json").read_text()), output / "path.mp4")


def _work_folder(output: Path, job: dict[str, Any], *, overwrite: bool, resume: bool) -> Path:
    """Where the unfinished result lies; it stays when a run is broken off."""
    work = output.with_name(f".{output.name}.work")
    file = work / "job.json"
    if resume and file.exists():
        compare_runs(json.loads(file.read_text()), {name: job[name] for name in _IDENTITY}, work)
        file.write_text(json.dumps(job) + "\n")
        return work
    if work.exists() and not overwrite:
        raise FileExistsError(
            f"output: an interrupted run began {output}; --resume goes on with it, --overwrite starts anew"
        )
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    file.write_text(json.dumps(job) + "\n")
    return work


def _job(
    data: Path, iterations: int, path_json: Path | None, cameras: Sequence[Camera] | None, fps: float | None
) -> dict[str, Any]:
    if path_json is not None and cameras is not None:
        raise ValueError("path: give a file of nerfstudio's or cameras, not both")
    meta = read_dataset(data)
    path_fps = None
    if path_json is not None:
        cameras, path_fps = _viewer_path(path_json, meta)
    elif cameras is None:
        cameras = dataset_cameras(meta)
    return {
        "data": str(data.resolve()),
        "iterations": iterations,
        "normalised": path_json is not None,
        "fps": fps or path_fps or _own_fps(meta),
        "cameras": [
            {
                "K": camera.K.tolist(),
                "world_from_camera": camera.world_from_camera.tolist(),
                "height": camera.height,
                "width": camera.width,
            }
            for camera in cameras
        ],
    }


def _own_fps(meta: dict[str, Any]) -> float:
    """Frames of the data set per second of the clip; 24 where it does not say when they were shown."""
    times_s = [frame["time_s"] for frame in meta["frames"] if "time_s" in frame]
    return (len(times_s) - 1) / (times_s[-1] - times_s[0]) if len(times_s) > 1 else 24.0


def _viewer_path(file: Path, meta: dict[str, Any]) -> tuple[list[Camera], float]:
    """Cameras of a camera path of nerfstudio's viewer, and their frames per second."""
    path = load_path(file)
    content = json.loads(file.read_text())
    if "camera_path" not in content:
        raise ValueError(f"path: {file} is no camera path of nerfstudio's viewer")
    count = len(content["camera_path"])
    seconds = float(content.get("seconds", count / 24))
    height = int(content.get("render_height", meta["h"]))
    width = int(content.get("render_width", meta["w"]))
    views = [path(seconds * index / max(count - 1, 1)) for index in range(count)]
    cameras = [Camera(intrinsics(view.fov_deg or 50.0, height, width), view.pose, height, width) for view in views]
    return cameras, count / seconds


def _run(folder: Path, on_progress: Progress) -> None:
    """The worker, to its end; its last words if it failed."""
    log = folder / "nerfstudio.log"
    command = [sys.executable, "-m", "novel_view.nerf.worker", str(folder / "job.json")]
    said: str | None = None
    with log.open("ab") as words, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=words, text=True) as worker:
        try:
            for line in worker.stdout or ():
                facts = json.loads(line)
                if "error" in facts:
                    said = facts["error"]
                else:
                    on_progress(facts["stage"], facts["done"], facts["total"])
        except BaseException:
            worker.kill()
            raise
    if worker.returncode:
        last = log.read_text(errors="replace")[-_LOG_TAIL:].strip().splitlines()
        reason = said or (last[-1] if last else f"it ended with code {worker.returncode}")
        raise RuntimeError(f"nerfstudio: {reason}; its log is {log}, --resume goes on where it stopped")
