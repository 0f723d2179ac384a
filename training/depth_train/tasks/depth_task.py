"""Training of depth: from the checks to the folder that the engine loads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from depth_engine.models.loading import resolve_checkpoint
from depth_train.checkpoints.folder import save_half, write_json
from depth_train.config import Stage, TrainConfig
from depth_train.data.batch import Batch, make_batch
from depth_train.data.clip_pool import Clips
from depth_train.tasks.depth import DepthModel, draw_step, step_loss
from depth_train.tasks.start import checkpoint_spec, start_model
from depth_train.tasks.task import Part, StepDraw, Task


class DepthTask(Task[DepthModel, Batch]):
    """Depth of clips, by the objective of the stage."""

    validates = True

    def check(self, init: Path | None) -> None:
        """See that base and `init` are there, and that `init` means what the config means."""
        config = self.config
        wanted = checkpoint_spec(config)
        if config.base:
            resolve_checkpoint(config.base, spec=wanted)
        if init is None:
            return
        says_what_it_is = (init / "depth_engine.json").is_file()
        # A UNet published alone, or a folder without a spec, is taken for what the config says.
        held = resolve_checkpoint(init, spec=None if says_what_it_is else wanted, base=config.base or None).spec
        for name in ("kind", "condition_first", "scale_condition", "embedding"):
            if getattr(held, name) != getattr(wanted, name):
                asked = f"{getattr(wanted, name)!r}; train from another checkpoint, or change the config"
                raise ValueError(
                    f"--init: {init} was trained with {name} {getattr(held, name)!r}, the config means {asked}"
                )

    def start(self, init: Path | None, device: torch.device) -> DepthModel:
        """See `start_model`."""
        return start_model(self.config, init, device)

    def draw(self, stage: Stage, rng: torch.Generator) -> StepDraw:
        """See `draw_step`."""
        return draw_step(stage, self.config, rng)

    def batch(self, clips: Clips, step_rng: torch.Generator, clip_rngs: Sequence[torch.Generator]) -> Batch:
        """Cut, normalise and augment; see `make_batch`."""
        config = self.config
        return make_batch(clips, config.kind, config.multiple, config.augmentation, step_rng, clip_rngs)

    def loss(self, model: DepthModel, part: Part[Batch]) -> Tensor:
        """See `step_loss`."""
        return step_loss(model, part, self.config)

    def write(self, folder: Path, weights: nn.Module) -> None:
        """Write a folder that the engine loads."""
        write_depth_checkpoint(folder, weights, self.config)


def write_depth_checkpoint(folder: Path, weights: nn.Module, config: TrainConfig) -> None:
    """Write a folder that the engine loads, but for the parts of its base.

    Args:
        folder: Made here.
        weights: The UNet to keep, the running average.
        config: Written beside it.
    """
    save_half(weights, folder / "unet")
    if not config.base:
        (folder / "codec").mkdir()
        codec = {"_class_name": "PatchCodec", "patch": config.network.patch}
        write_json(folder / "codec" / "config.json", codec)
    scheduler = {
        "_class_name": "EulerDiscreteScheduler",
        "sigma_min": 0.002,
        "sigma_max": config.sigma,
        "prediction_type": "v_prediction",
        "timestep_type": "continuous",
        "timestep_spacing": "leading",
        "use_karras_sigmas": True,
    }
    (folder / "scheduler").mkdir()
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    write_json(folder / "depth_engine.json", checkpoint_spec(config).to_json())
    write_json(folder / "train_config.json", asdict(config))
