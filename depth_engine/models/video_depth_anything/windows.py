"""How windows of Video Depth Anything meet (arXiv 2501.12375, section 3.3, and the released code).

A window holds 32 frames. The next one begins with ten of them: the shot's first frame and the twelfth place, so that it
knows the far past, and the last eight. The two far ones say by which scale and shift the new window is brought to the
level of the old ones; over the last eight frames one window fades into the next.

    place in the window   0   1   2 ... 9    10 ... 31
    next window holds     0  12  24 ... 31   22 new frames; places of the window before
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from depth_engine.models.resize import ModelSize
from depth_engine.models.video_depth_anything.architecture import PATCH_PX, TRAINED_PATCHES, WINDOW

FAR = (0, 12)  # places whose frames the level is held by
FADE = 8  # last frames of a window, over which it fades into the next
OVERLAP = len(FAR) + FADE
STRIDE = WINDOW - OVERLAP
KEY_PLACES = (*FAR, *range(WINDOW - FADE, WINDOW))


def windows_of(frames: int) -> int:
    """How many windows a shot takes: one begins every 22 frames, however few it adds."""
    return -(-frames // STRIDE)


@dataclass(frozen=True)
class Joined:
    """Depth of a shot up to a window.

    Attributes:
        settled: Frames that are final, `[n, h, w]`.
        fading: The last eight, which the next window still changes, `[8, h, w]`.
        far: Depth at the two places that the next window's level is held by, `[2, h, w]`.
    """

    settled: Tensor
    fading: Tensor
    far: Tensor


def join(depth: Tensor, before: Joined | None, size: ModelSize, metric: bool) -> Joined:
    """Bring a window's depth to the level of the windows before, and fade into it.

    Args:
        depth: Of the window, `[32, h, w]`, at the size that depth is kept at (see `kept_size`).
        before: Of the windows before; None for a shot's first.
        size: Of the frames; scale and shift are those that fit best there.
        metric: Metres have a level already.
    """
    if before is None:
        return Joined(depth[:-FADE], depth[-FADE:], depth[[*FAR]])
    if not metric:
        scale, shift = fitted(at_frame_size(depth[: len(FAR)], size), at_frame_size(before.far, size))
        depth = (scale * depth + shift).clamp(min=0)
    rising = torch.linspace(0, 1, FADE)[:, None, None]
    faded = before.fading * (1 - rising) + depth[len(FAR) : OVERLAP] * rising
    # The shot's first frame keeps the depth that its first window gave it.
    far = torch.stack([before.far[0], depth[FAR[1]]])
    return Joined(torch.cat([faded, depth[OVERLAP:-FADE]]), depth[-FADE:], far)


def fitted(depth: Tensor, wanted: Tensor) -> tuple[float, float]:
    """Scale and shift by which depth comes nearest to other depth, by least squares over all values."""
    given = depth.double().flatten().numpy()
    target = wanted.double().flatten().numpy()
    spread = given - given.mean()
    variance = float(spread @ spread)
    if variance == 0:
        return 1.0, 0.0  # as the release does it where depth is constant
    scale = float(spread @ target) / variance
    return scale, float(target.mean() - scale * given.mean())


def model_size(height: int, width: int, max_res: int | None) -> ModelSize:
    """The size that frames are worked on at: the shorter side near 518 pixels, less where the picture is very long.

    Args:
        height: Of the frames, pixels.
        width: Likewise.
        max_res: Longest side at the most, or None.
    """
    short, ratio = TRAINED_PATCHES * PATCH_PX, max(height, width) / min(height, width)
    if ratio > 1.78:  # longer than 16:9
        short = round(int(short * 1.777 / ratio) / PATCH_PX) * PATCH_PX
    scale = max(short / height, short / width)

    def side(length: int) -> int:
        nearest = round(scale * length / PATCH_PX) * PATCH_PX
        return nearest if nearest >= short else int(np.ceil(scale * length / PATCH_PX)) * PATCH_PX

    sides = side(height), side(width)
    if max_res is not None and max(sides) > max_res:
        most = max_res // PATCH_PX
        shrink = most / max(sides)
        sides = tuple(min(most, max(1, round(length * shrink))) * PATCH_PX for length in sides)
    return ModelSize(height, width, *sides)


def kept_size(size: ModelSize) -> tuple[int, int]:
    """Height and width that depth is kept at: the frames', or the network's where that is smaller."""
    smaller = size.height * size.width <= size.model_height * size.model_width
    return (size.height, size.width) if smaller else (size.model_height, size.model_width)


def at_frame_size(depth: Tensor, size: ModelSize) -> Tensor:
    """Depth `[n, h, w]` at the frames' size."""
    return resized(depth, (size.height, size.width))


def resized(depth: Tensor, size: tuple[int, int]) -> Tensor:
    """Depth `[n, h, w]` at another size; the centres of the corner pixels stay, as inside the network."""
    if tuple(depth.shape[-2:]) == size:
        return depth
    return F.interpolate(depth[:, None], size, mode="bilinear", align_corners=True)[:, 0]
