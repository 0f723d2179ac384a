"""A checkpoint of Video Depth Anything as the engine sees it before weights load."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from depth_engine.models.loading import files_sha256
from depth_engine.models.safetensors_header import read_shapes
from depth_engine.models.video_depth_anything.architecture import PATCH_PX, WINDOW, Architecture, architecture_of
from depth_engine.plain_data import from_plain, read_json
from depth_engine.settings import SettingOptions, WindowSettings, choose_window_settings

if TYPE_CHECKING:
    import torch
    from typing_extensions import Unpack

    from depth_engine.models.resize import ModelSize
    from depth_engine.models.video_depth_anything.model import VideoDepthModel

FAMILY = "video-depth-anything"
WEIGHTS_NAME = "model.safetensors"


@dataclass(frozen=True)
class VideoDepthSpec:
    """What is not in the weights themselves; `depth_engine.json` of an imported checkpoint.

    Attributes:
        family: `FAMILY`.
        kind: `disparity`, 0 or more, or `metric`.
    """

    family: Literal["video-depth-anything"]
    kind: Literal["disparity", "metric"]


@dataclass(frozen=True)
class VideoDepthCheckpoint:
    """A file of weights; a `Checkpoint`.

    Attributes:
        name: As the caller named it.
        file: Safetensors with the public tensors.
        spec: What is not in them.
    """

    name: str
    file: Path
    spec: VideoDepthSpec
    bounded = False
    align_corners = True

    @property
    def kind(self) -> Literal["disparity", "metric"]:
        """See `Checkpoint.kind`."""
        return self.spec.kind

    @cached_property
    def architecture(self) -> Architecture:
        """Its sizes.

        Raises:
            ValueError: The file holds another network, or is cut off.
        """
        return architecture_of(read_shapes(self.file), f"model: {self.file}")

    def choose_settings(self, **given: Unpack[SettingOptions]) -> WindowSettings:
        """See `Checkpoint.choose_settings`."""
        from depth_engine.models.video_depth_anything.windows import STRIDE

        return choose_window_settings(self.name, (WINDOW, STRIDE), PATCH_PX, given)

    def size_of(self, height: int, width: int, settings: WindowSettings) -> ModelSize:
        """See `Checkpoint.size_of`."""
        from depth_engine.models.video_depth_anything.windows import model_size

        return model_size(height, width, settings.max_res)

    def windows_of(self, frames: int, settings: WindowSettings) -> int:
        """See `Checkpoint.windows_of`."""
        from depth_engine.models.video_depth_anything.windows import windows_of

        return windows_of(frames)

    def identity(self) -> dict[str, Any]:
        """See `Checkpoint.identity`."""
        return {"checkpoint_sha256": self.weights_sha256(), "family": FAMILY, "kind": self.kind}

    def weights_sha256(self) -> str:
        """See `Checkpoint.weights_sha256`."""
        return files_sha256([self.file])

    def facts(self) -> dict[str, Any]:
        """See `Checkpoint.facts`."""
        return {}

    def notes(self, settings: WindowSettings) -> list[str]:
        """See `Checkpoint.notes`."""
        return []

    def load(self, device: torch.device, dtype: torch.dtype) -> VideoDepthModel:
        """See `Checkpoint.load`."""
        from depth_engine.models.video_depth_anything.loading import load_network
        from depth_engine.models.video_depth_anything.model import VideoDepthModel

        return VideoDepthModel(load_network(self.file, dtype, device), self.kind == "metric", device, dtype)


def find_video_depth(path: Path, name: str) -> VideoDepthCheckpoint:
    """A checkpoint in a folder that `import-weights` wrote, or a file with the public tensors.

    Args:
        path: Folder or file.
        name: As the caller named it.

    Raises:
        ValueError: It is none, or is cut off.
    """
    if path.is_dir():
        spec = from_plain(VideoDepthSpec, read_json(path / "depth_engine.json"), str(path / "depth_engine.json"))
        file = path / WEIGHTS_NAME
        if not file.is_file():
            raise ValueError(f"model: {WEIGHTS_NAME} is missing in {path}")
    else:
        # The public metric checkpoints say so in their files' names, and nowhere in the files.
        spec, file = VideoDepthSpec(FAMILY, "metric" if "metric" in path.stem.lower() else "disparity"), path
    found = VideoDepthCheckpoint(name, file, spec)
    _ = found.architecture  # refuses what is no such network
    return found
