"""A checkpoint of the SVD family as the engine sees it before weights load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from depth_engine.models.contract import Kind
from depth_engine.models.loading import CheckpointFiles
from depth_engine.models.svd.windows import plan
from depth_engine.settings import RunSettings, SettingOptions, choose_settings

if TYPE_CHECKING:
    import torch
    from typing_extensions import Unpack

    from depth_engine.models.resize import ModelSize
    from depth_engine.models.svd.model import SvdModel
    from depth_engine.models.svd.spec import CheckpointSpec


@dataclass(frozen=True)
class SvdCheckpoint:
    """Found files of the SVD family; a `Checkpoint`.

    Attributes:
        files: Where they are.
    """

    files: CheckpointFiles
    bounded = True
    align_corners = False

    @property
    def name(self) -> str:
        """See `Checkpoint.name`."""
        return self.files.name

    @property
    def spec(self) -> CheckpointSpec:
        """What the checkpoint expects."""
        return self.files.spec

    @property
    def kind(self) -> Kind:
        """See `Checkpoint.kind`."""
        return self.spec.kind

    def choose_settings(self, **given: Unpack[SettingOptions]) -> RunSettings:
        """See `Checkpoint.choose_settings`."""
        return choose_settings(self.spec, **given)

    def size_of(self, height: int, width: int, settings: RunSettings) -> ModelSize:
        """See `Checkpoint.size_of`."""
        from depth_engine.models.resize import fit_size

        return fit_size(height, width, self.spec.multiple, settings.max_res, settings.area_px)

    def windows_of(self, frames: int, settings: RunSettings) -> int:
        """See `Checkpoint.windows_of`."""
        return sum(1 for _ in plan(frames, settings.window, settings.stride, settings.layout))

    def identity(self) -> dict[str, Any]:
        """See `Checkpoint.identity`."""
        return {
            "checkpoint_sha256": self.weights_sha256(),
            "spec": self.spec.to_json(),
            "base": str(self.files.base),
            "base_sha256": self.files.base_sha256(),
        }

    def weights_sha256(self) -> str:
        """See `Checkpoint.weights_sha256`; of the UNet."""
        return self.files.weights_sha256()

    def facts(self) -> dict[str, Any]:
        """See `Checkpoint.facts`."""
        return {"spec": self.files.spec_name, "base": self.files.base_name}

    def notes(self, settings: RunSettings) -> list[str]:
        """See `Checkpoint.notes`."""
        spec = self.spec
        if spec.start == "zero" and settings.steps > spec.steps:
            return [f"{self.name} was trained for {spec.steps} step; {settings.steps} are outside its training"]
        return []

    def load(self, device: torch.device, dtype: torch.dtype) -> SvdModel:
        """See `Checkpoint.load`."""
        from depth_engine.models.svd.model import load_svd

        return load_svd(self.files, device, dtype)
