"""The nerfstudio method `depth-video-nerfacto`: nerfacto, with video depth to guide it.

Imported by nerfstudio through `nerfstudio_plugin`, and by `nerf_worker` in its own process; by nothing else.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nerfstudio.cameras.camera_optimizers import CameraOptimizerConfig
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.configs.base_config import ViewerConfig
from nerfstudio.data.datamanagers.base_datamanager import VanillaDataManager, VanillaDataManagerConfig
from nerfstudio.data.dataparsers.base_dataparser import DataparserOutputs
from nerfstudio.data.datasets.base_dataset import InputDataset
from nerfstudio.data.utils.data_utils import get_depth_image_from_path
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.engine.schedulers import ExponentialDecaySchedulerConfig
from nerfstudio.engine.trainer import TrainerConfig
from nerfstudio.models.nerfacto import NerfactoModel, NerfactoModelConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig
from torch import Tensor, nn

from novel_view.nerf.dataparser import DepthVideoDataParserConfig
from novel_view.nerf.losses import affine_disparity_loss, depth_confidence, rendered_disparity

METHOD_NAME = "depth-video-nerfacto"
DESCRIPTION = "Nerfacto guided by video depth: affine-invariant depth loss; for data sets of `novel-view export`."
# AlexNet as torchvision names it in torch's cache; LPIPS needs it.
_ALEXNET = "alexnet-owt-7be5be79.pth"


class DepthVideoDataset(InputDataset):
    """Pictures with depth and how far each pixel of it can be trusted."""

    exclude_batch_keys_from_device = [*InputDataset.exclude_batch_keys_from_device, "depth_image", "depth_confidence"]

    def __init__(self, dataparser_outputs: DataparserOutputs, scale_factor: float = 1.0) -> None:
        super().__init__(dataparser_outputs, scale_factor)
        if dataparser_outputs.image_filenames and not self.metadata.get("depth_filenames"):
            raise ValueError(f"data: its frames have no depth_file_path; {METHOD_NAME} needs depth: novel-view export")

    def get_metadata(self, data: dict[str, Any]) -> dict[str, Tensor]:
        """Planar depth `[H, W, 1]` in the unit of the scaled cameras (0 = unknown) and its confidence."""
        index = data["image_idx"]
        depth = get_depth_image_from_path(
            filepath=self.metadata["depth_filenames"][index],
            height=int(self._dataparser_outputs.cameras.height[index]),
            width=int(self._dataparser_outputs.cameras.width[index]),
            scale_factor=self.metadata["depth_unit_scale_factor"] * self._dataparser_outputs.dataparser_scale,
        )
        depth = torch.nan_to_num(depth, nan=0.0, posinf=0.0, neginf=0.0).clamp_min(0)
        return {"depth_image": depth, "depth_confidence": depth_confidence(depth[..., 0])[..., None]}


@dataclass
class DepthVideoNerfactoConfig(NerfactoModelConfig):
    """Nerfacto with a loss on disparity."""

    _target: type = field(default_factory=lambda: DepthVideoNerfactoModel)
    depth_loss_mult: float = 0.1
    """Weight of the depth loss at the start."""
    depth_loss_final: float = 0.1
    """Share of that weight at the end: depth shapes the scene first, the pictures finish it."""
    depth_loss_steps: int = 5000
    """Steps over which the weight falls, exponentially."""
    depth_prior: float = 0.1
    """How strongly the scale and shift of each frame's disparity are held at 1 and 0; 0 leaves them free."""


class DepthVideoNerfactoModel(NerfactoModel):
    """Nerfacto with a loss on disparity; built without the network, on any device."""

    config: DepthVideoNerfactoConfig

    def populate_modules(self) -> None:
        """Build the fields."""
        if importlib.util.find_spec("tinycudann") is None or not torch.cuda.is_available():
            self.config.implementation = "torch"
        allow_numpy_scalars()
        with _no_download():
            super().populate_modules()

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Any]:
        """Nerfacto's outputs; in training also each sampling level's disparity."""
        outputs = super().get_outputs(ray_bundle)
        if self.training:
            norm = ray_bundle.metadata["directions_norm"][..., 0]
            outputs["disparity_list"] = [
                rendered_disparity(weights[..., 0], _middles(samples), norm)
                for weights, samples in zip(outputs["weights_list"], outputs["ray_samples_list"], strict=True)
            ]
        return outputs

    def get_loss_dict(
        self, outputs: dict[str, Any], batch: dict[str, Any], metrics_dict: dict[str, Any] | None = None
    ) -> dict[str, Tensor]:
        """Nerfacto's losses and the depth loss."""
        losses = super().get_loss_dict(outputs, batch, metrics_dict)
        if self.training and self.config.depth_loss_mult > 0:
            depth = batch["depth_image"][..., 0].to(self.device)
            confidence = batch["depth_confidence"][..., 0].to(self.device)
            target = 1 / depth.clamp_min(1e-9)
            frame = batch["indices"][:, 0].to(self.device)
            levels = [
                affine_disparity_loss(disparity, target, confidence, frame, self.config.depth_prior)
                for disparity in outputs["disparity_list"]
            ]
            losses["depth_loss"] = self._depth_weight() * torch.stack(levels).mean()
        return losses

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Tensor]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Nerfacto's, without LPIPS where its weights are not on this machine."""
        metrics, images = super().get_image_metrics_and_images(outputs, batch)
        if isinstance(self.lpips, _NoLpips):
            metrics.pop("lpips", None)
        return metrics, images

    def _depth_weight(self) -> float:
        share = min(self.step / max(self.config.depth_loss_steps, 1), 1.0)
        return self.config.depth_loss_mult * self.config.depth_loss_final**share


def _middles(samples: Any) -> Tensor:
    return ((samples.frustums.starts + samples.frustums.ends) / 2)[..., 0]


class _NoLpips(nn.Module):
    """Stands where LPIPS would, when its weights are not on this machine: gives nan, which is then left out."""

    def __init__(self, **_: Any) -> None:
        super().__init__()

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Nan."""
        return torch.full((), torch.nan)


@contextmanager
def _no_download() -> Iterator[None]:
    """Nerfacto builds LPIPS, which downloads AlexNet, without being asked; here only if it is there already."""
    from torchmetrics.image import lpip

    if (Path(torch.hub.get_dir()) / "checkpoints" / _ALEXNET).exists():
        yield
        return
    whole = lpip.LearnedPerceptualImagePatchSimilarity
    lpip.LearnedPerceptualImagePatchSimilarity = _NoLpips  # type: ignore[misc,assignment]
    try:
        yield
    finally:
        lpip.LearnedPerceptualImagePatchSimilarity = whole  # type: ignore[misc]


def allow_numpy_scalars() -> None:
    """Let torch >= 2.6 load nerfstudio's checkpoints with `weights_only`: they hold numbers of numpy's."""
    scalar: Any = np.float64(0).__reduce__()[0]
    kinds = [np.dtype, *(type(np.dtype(kind)) for kind in (np.float64, np.float32, np.int64, np.int32, np.bool_))]
    torch.serialization.add_safe_globals([scalar, *kinds])


def _optimizer(lr: float, lr_final: float, max_steps: int) -> dict[str, Any]:
    return {
        "optimizer": AdamOptimizerConfig(lr=lr, eps=1e-15),
        "scheduler": ExponentialDecaySchedulerConfig(lr_final=lr_final, max_steps=max_steps),
    }


def method_config() -> TrainerConfig:
    """The method's settings, nerfacto's but for depth; a new object each time."""
    return TrainerConfig(
        method_name=METHOD_NAME,
        steps_per_eval_batch=500,
        steps_per_save=2000,
        max_num_iterations=30000,
        mixed_precision=True,
        pipeline=VanillaPipelineConfig(
            datamanager=VanillaDataManagerConfig(
                _target=VanillaDataManager[DepthVideoDataset],
                dataparser=DepthVideoDataParserConfig(),
                train_num_rays_per_batch=4096,
                eval_num_rays_per_batch=4096,
            ),
            model=DepthVideoNerfactoConfig(
                eval_num_rays_per_chunk=1 << 15,
                average_init_density=0.01,
                camera_optimizer=CameraOptimizerConfig(mode="SO3xR3"),
            ),
        ),
        optimizers={
            "proposal_networks": _optimizer(1e-2, 1e-4, 200000),
            "fields": _optimizer(1e-2, 1e-4, 200000),
            "camera_opt": _optimizer(1e-3, 1e-4, 5000),
        },
        viewer=ViewerConfig(num_rays_per_chunk=1 << 15),
        vis="viewer",
    )
