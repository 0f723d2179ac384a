"""Video Depth Anything, loaded: a `DepthNetwork`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from depth_engine.models.contract import Carry, WindowResult
from depth_engine.models.resize import ModelSize
from depth_engine.models.video_depth_anything.architecture import WINDOW
from depth_engine.models.video_depth_anything.network import VideoDepthNetwork
from depth_engine.models.video_depth_anything.windows import (
    KEY_PLACES,
    OVERLAP,
    STRIDE,
    Joined,
    at_frame_size,
    join,
    kept_size,
    resized,
    windows_of,
)
from depth_engine.settings import WindowSettings

if TYPE_CHECKING:
    from depth_engine.models.svd.noise import Noise

# Of ImageNet, which the encoder was trained on.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
# Frames that are computed together where time plays no part.
_BATCH = {"cpu": 4, "mps": 4, "cuda": 8}


class VideoDepthModel:
    """Depth of windows of 32 frames.

    Args:
        network: Loaded.
        metric: Whether it gives metres.
        device: Where it runs.
        dtype: What it computes in.
    """

    def __init__(self, network: VideoDepthNetwork, metric: bool, device: torch.device, dtype: torch.dtype) -> None:
        self.network, self.metric, self.device, self.dtype = network, metric, device, dtype

    def prepare(self, frame: Tensor, size: ModelSize) -> Tensor:
        """See `DepthNetwork.prepare`; float32 `[3, h, w]`, normalised."""
        rgb = frame.float() / 255 if frame.dtype == torch.uint8 else frame.float()
        if (size.height, size.width) != (size.model_height, size.model_width):
            at = (size.model_height, size.model_width)
            # Not antialiased, as the network was trained.
            rgb = F.interpolate(rgb[None], at, mode="bicubic", align_corners=False)[0]
        return (rgb - rgb.new_tensor(_MEAN)[:, None, None]) / rgb.new_tensor(_STD)[:, None, None]

    def restore(self, depth: Tensor, size: ModelSize) -> Tensor:
        """See `DepthNetwork.restore`."""
        return at_frame_size(depth, size)

    def frames_wanted(self, carry: Carry, settings: WindowSettings) -> int:
        """See `DepthNetwork.frames_wanted`."""
        return STRIDE if carry.state else WINDOW

    def run_window(
        self, new: Sequence[Tensor], size: ModelSize, carry: Carry, settings: WindowSettings, noise: Noise, ended: bool
    ) -> WindowResult:
        """See `DepthNetwork.run_window`."""
        frames, joined = self._window(torch.stack([*new]).to(self.device), carry.state, size)
        if not ended:
            count = len(joined.settled)
            return WindowResult(joined.settled, carry.next_window(len(new), count, _state(frames, joined)))
        before = carry.frames_read - carry.shot_start
        number = max(0, before - OVERLAP) // STRIDE
        depth = [joined.settled, joined.fading]
        # A window begins every 22 frames, even one that adds none: it changes the last eight of the window before.
        if windows_of(before + len(new)) > number + 1:
            _, last = self._window(frames[-1:], _state(frames, joined), size)
            depth = [joined.settled, last.settled, last.fading]
        due = carry.frames_read + len(new) - carry.frames_done
        settled = torch.cat(depth)[:due].contiguous()
        return WindowResult(settled, carry.next_shot(len(new), due))

    def _window(self, new: Tensor, state: Mapping[str, Tensor], size: ModelSize) -> tuple[Tensor, Joined]:
        """A window's frames `[32, 3, h, w]`, the last one repeated where the shot has no more, and its depth."""
        frames = torch.cat([state["keys"], new]) if state else new
        frames = torch.cat([frames, frames[-1:].expand(WINDOW - len(frames), -1, -1, -1)])
        depth = self.network(frames.to(self.dtype), _BATCH[self.device.type]).float().cpu()
        before = Joined(depth[:0], state["fading"].cpu(), state["far"].cpu()) if state else None
        return frames, join(resized(depth, kept_size(size)), before, size, self.metric)


def _state(frames: Tensor, joined: Joined) -> dict[str, Tensor]:
    """What the next window needs of a window."""
    return {"keys": frames[[*KEY_PLACES]], "fading": joined.fading, "far": joined.far}
