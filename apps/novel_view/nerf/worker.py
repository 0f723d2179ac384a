"""The process that nerfstudio runs in: trains, scores held-out frames, renders a path. `nerf_command` starts it.

    python -m novel_view.nerf.worker JOB.json

Progress goes to standard output, one JSON object a line; what nerfstudio prints goes to standard error. Its known
faults (LPIPS wants a download, its checkpoints do not load under torch >= 2.6) are dealt with in `nerf_model`.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from depth_engine.errors import one_line
from depth_engine.geometry.cameras import opengl_from_opencv

# Steps between two lines of progress.
_TOLD_EVERY = 10
_SEED = 42
_SAVED_EVERY = 500
_NEVER = 10**9


def main() -> None:
    """Run the job that the one argument names."""
    with os.fdopen(os.dup(1), "w") as lines:
        os.dup2(2, 1)

        def tell(**facts: Any) -> None:
            lines.write(json.dumps(facts) + "\n")
            lines.flush()

        try:
            file = Path(sys.argv[1])
            run(json.loads(file.read_text()), file.parent, tell)
        except Exception as error:  # told in one line; the traceback is in the log
            tell(error=one_line(error))
            raise


def run(job: dict[str, Any], work: Path, tell: Callable[..., None]) -> None:
    """Train, then score and render.

    Args:
        job: As `nerf_command.train_nerf` puts it together.
        work: Folder to write, and to go on in if it has a checkpoint.
        tell: Called with facts for the one who waits.
    """
    import torch
    from nerfstudio.scripts.train import _set_random_seed

    config = _config(job, work)
    done = _resume(config)
    _set_random_seed(_SEED + done)  # after a resume other rays shall be drawn than at the start
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    begun_s = time.monotonic()
    trainer.callbacks.append(_reporter(job["iterations"], tell))
    if done < job["iterations"]:
        trainer.train()
    _save_config(config, job)
    pipeline = trainer.pipeline
    pipeline.eval()
    report: dict[str, Any] = {
        "method": config.method_name,
        "iterations": job["iterations"],
        "depth_loss_mult": config.pipeline.model.depth_loss_mult,
        "device": str(pipeline.device),
        "small": job["small"],
        "train_seconds": round(time.monotonic() - begun_s, 1),
        "config": str(config.get_base_dir().relative_to(work) / "config.yml"),
    }
    with torch.no_grad():
        if job["evaluate"]:
            report |= _score(pipeline, work, tell)
        _render(pipeline, job, work, tell)
    (work / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    tell(stage="done", done=1, total=1)


def _config(job: dict[str, Any], work: Path) -> Any:
    from novel_view.nerf.model import method_config

    config = method_config()
    config.data = Path(job["data"])
    config.pipeline.datamanager.data = config.data
    config.output_dir = work
    config.experiment_name, config.timestamp = "nerfstudio", "run"
    config.machine.device_type = job["device"]
    config.machine.num_devices = 1
    config.vis = "tensorboard"  # the others open a server, or an account
    config.logging.local_writer.enable = False
    config.logging.profiler = "none"
    config.max_num_iterations = job["iterations"]
    config.steps_per_save = _SAVED_EVERY
    config.steps_per_eval_batch = config.steps_per_eval_image = config.steps_per_eval_all_images = _NEVER
    model: Any = config.pipeline.model
    model.depth_loss_steps = job["iterations"]
    if not job["use_depth"]:
        model.depth_loss_mult = 0.0
    if job["small"]:
        _shrink(config)
    for group in config.optimizers.values():
        group["scheduler"].max_steps = job["iterations"]
    return config


def _resume(config: Any) -> int:
    """Let the trainer go on at the checkpoint that an interrupted run left; the number of steps done."""
    from novel_view.nerf.model import allow_numpy_scalars

    folder = config.get_checkpoint_dir()
    steps = sorted(int(file.stem.removeprefix("step-")) + 1 for file in folder.glob("step-*.ckpt"))
    if not steps:
        return 0
    allow_numpy_scalars()
    config.load_dir, config.load_step = folder, steps[-1] - 1
    config.max_num_iterations -= steps[-1]
    return steps[-1]


def _save_config(config: Any, job: dict[str, Any]) -> None:
    """For nerfstudio's other commands: the folder is the one that the result will lie in."""
    import yaml

    file = config.get_base_dir() / "config.yml"
    lasting = copy.deepcopy(config)
    lasting.output_dir, lasting.load_dir, lasting.load_step = Path(job["output"]), None, None
    lasting.max_num_iterations = job["iterations"]
    file.write_text(yaml.dump(lasting))


def _shrink(config: Any) -> None:
    """A field that two CPU cores train in minutes."""
    config.pipeline.datamanager.train_num_rays_per_batch = 512
    config.pipeline.datamanager.eval_num_rays_per_batch = 512
    model = config.pipeline.model
    model.eval_num_rays_per_chunk = 4096
    model.hidden_dim = model.hidden_dim_color = 32
    model.num_levels, model.log2_hashmap_size, model.max_res = 8, 15, 512
    model.num_proposal_samples_per_ray, model.num_nerf_samples_per_ray = (40, 24), 20
    model.proposal_net_args_list = [
        {"hidden_dim": 16, "log2_hashmap_size": 13, "num_levels": 4, "max_res": 64, "use_linear": False},
        {"hidden_dim": 16, "log2_hashmap_size": 13, "num_levels": 4, "max_res": 128, "use_linear": False},
    ]
    model.use_appearance_embedding = False
    model.camera_optimizer.mode = "off"
    model.proposal_warmup = 200
    model.proposal_weights_anneal_max_num_iters = 100


def _reporter(iterations: int, tell: Callable[..., None]) -> Any:
    from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation

    def report(step: int) -> None:
        if (step + 1) % _TOLD_EVERY == 0 or step + 1 == iterations:
            tell(stage="training", done=step + 1, total=iterations)

    return TrainingCallback([TrainingCallbackLocation.AFTER_TRAIN_ITERATION], report, update_every_num_iters=1)


def _score(pipeline: Any, work: Path, tell: Callable[..., None]) -> dict[str, Any]:
    """PSNR and SSIM of the frames that training did not see; their pictures go to held_out/."""
    from PIL import Image

    folder = work / "held_out"
    folder.mkdir(exist_ok=True)
    data = pipeline.datamanager
    frames = []
    for camera, batch in data.fixed_indices_eval_dataloader:
        rendered = pipeline.model.get_outputs_for_camera(camera)["rgb"].clamp(0, 1)
        truth = batch["image"][..., :3].to(rendered.device)
        name = Path(data.eval_dataset.image_filenames[int(batch["image_idx"])]).stem
        as_batch = [picture.movedim(-1, 0)[None] for picture in (truth, rendered)]
        frames.append(
            {
                "frame": name,
                "psnr": round(float(-10 * ((truth - rendered) ** 2).mean().clamp_min(1e-12).log10()), 4),
                "ssim": round(float(pipeline.model.ssim(as_batch[1], as_batch[0], data_range=1.0)), 5),
            }
        )
        Image.fromarray(_uint8(rendered)).save(folder / f"{name}.png")
        tell(stage="held-out frames", done=len(frames), total=len(data.eval_dataset))
    means = {score: round(float(np.mean([frame[score] for frame in frames])), 4) for score in ("psnr", "ssim")}
    return {**means, "held_out": frames}


def _render(pipeline: Any, job: dict[str, Any], work: Path, tell: Callable[..., None]) -> None:
    """The path as a video."""
    from depth_engine.video.write import VideoWriter

    cameras = job["cameras"]
    if not cameras:
        return
    first = cameras[0]
    path = work / "path.mp4"
    with VideoWriter(path, width=first["width"], height=first["height"], fps=job["fps"], overwrite=True) as writer:
        for index, camera in enumerate(_posed(pipeline, cameras, job["normalised"])):
            rgb = pipeline.model.get_outputs_for_camera(camera)["rgb"]
            writer.write(_uint8(rgb), index / job["fps"])
            tell(stage="path", done=index + 1, total=len(cameras))


def _posed(pipeline: Any, cameras: list[dict[str, Any]], normalised: bool) -> Iterator[Any]:
    """Cameras of nerfstudio for ours, in the frame that it trains in."""
    import torch
    from nerfstudio.cameras.cameras import Cameras

    outputs = pipeline.datamanager.train_dataparser_outputs
    moved = np.eye(4)
    moved[:3] = outputs.dataparser_transform.numpy()[:3]
    for camera in cameras:
        pose = opengl_from_opencv(np.array(camera["world_from_camera"]))
        if not normalised:
            pose = moved @ pose
            pose[:3, 3] *= outputs.dataparser_scale
        K = np.array(camera["K"])
        yield Cameras(
            camera_to_worlds=torch.from_numpy(pose[None, :3]).float(),
            fx=float(K[0, 0]),
            fy=float(K[1, 1]),
            cx=float(K[0, 2]),
            cy=float(K[1, 2]),
            width=camera["width"],
            height=camera["height"],
        ).to(pipeline.device)


def _uint8(rgb: Any) -> np.ndarray:
    return (rgb.clamp(0, 1) * 255).round().byte().cpu().numpy()


if __name__ == "__main__":
    main()
