"""The network of Video Depth Anything (arXiv 2501.12375, section 3.1): DINOv2 and a head of DPT with temporal layers.

Shapes: T frames of a window, N frames computed together, C channels, h and w in patches of 14 pixels, P positions of a
picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from depth_engine.models.video_depth_anything.architecture import PATCH_PX, TRAINED_PATCHES, WINDOW, Architecture

_HEADS = 8  # of the temporal attention, whatever its width
_GROUPS = 32  # of the channels that are normalised together
_LAST_CHANNELS = 32  # of the picture that becomes depth
# Positions of a picture are each a clip of their own to the temporal layers: so many at once, of 8 heads each, since
# CUDA takes no more than 65535 blocks along that axis.
_POSITIONS_AT_ONCE = 8192


class VideoDepthNetwork(nn.Module):
    """Frames to depth.

    Args:
        architecture: Its sizes.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.encoder = Encoder(architecture)
        self.head = TemporalHead(architecture)

    def forward(self, frames: Tensor, batch: int = 4) -> Tensor:
        """Depth of the frames of one window.

        Args:
            frames: `[T, 3, 14 h, 14 w]`, normalised as ImageNet's; T up to 32.
            batch: Frames that are computed together where time plays no part: memory, and no value, depends on it.

        Returns:
            `[T, 14 h, 14 w]`, 0 or more.
        """
        patches = (frames.shape[-2] // PATCH_PX, frames.shape[-1] // PATCH_PX)
        encoded = [self.encoder(part) for part in frames.split(batch)]
        taken = [torch.cat([levels[index] for levels in encoded]) for index in range(4)]
        return self.head(taken, patches, batch)


class Encoder(nn.Module):
    """DINOv2 (arXiv 2304.07193), of which four blocks' tokens are given out."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        from transformers import Dinov2Config, Dinov2Model

        config = Dinov2Config(
            hidden_size=architecture.width,
            num_hidden_layers=architecture.depth,
            num_attention_heads=architecture.width // 64,
            image_size=TRAINED_PATCHES * PATCH_PX,
            patch_size=PATCH_PX,
            layer_norm_eps=1e-6,
            use_mask_token=False,
        )
        self.dino = Dinov2Model(config)
        self.taken = architecture.taken

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Tokens `[N, h w, C]` of the four blocks, for frames `[N, 3, 14 h, 14 w]`."""
        dino: Any = self.dino
        patches = dino.embeddings.patch_embeddings(frames)
        first = dino.embeddings.cls_token.expand(len(frames), -1, -1)
        tokens = torch.cat([first, patches], dim=1) + self._places(frames.shape[-2], frames.shape[-1])
        taken = []
        for number, block in enumerate(dino.encoder.layer):
            tokens = block(tokens)
            if number in self.taken:
                taken.append(dino.layernorm(tokens)[:, 1:])
        return taken

    def _places(self, height: int, width: int) -> Tensor:
        """What is added to the tokens so that they know their places, `[1, 1 + h w, C]`.

        The learnt grid is stretched by (h + 0.1) / 37 as the model was trained, not by h / 37 as transformers does it.
        """
        learnt = self.dino.embeddings.position_embeddings
        if height == width == TRAINED_PATCHES * PATCH_PX:
            return learnt
        grid = learnt[:, 1:].float().unflatten(1, (TRAINED_PATCHES, TRAINED_PATCHES)).movedim(-1, 1)
        scale = tuple((side // PATCH_PX + 0.1) / TRAINED_PATCHES for side in (height, width))
        stretched = F.interpolate(grid, scale_factor=scale, mode="bicubic")
        return torch.cat([learnt[:, :1], stretched.flatten(2).transpose(1, 2).to(learnt.dtype)], dim=1)


class TemporalHead(nn.Module):
    """DPT (arXiv 2103.13413) with temporal layers at its two coarse levels, before and after these are joined."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        levels, features = architecture.levels, architecture.features
        self.project = nn.ModuleList(nn.Conv2d(architecture.width, channels, 1) for channels in levels)
        self.resize = nn.ModuleList(
            [
                nn.ConvTranspose2d(levels[0], levels[0], 4, stride=4),
                nn.ConvTranspose2d(levels[1], levels[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(levels[3], levels[3], 3, stride=2, padding=1),
            ]
        )
        self.narrow = nn.ModuleList(nn.Conv2d(channels, features, 3, padding=1, bias=False) for channels in levels)
        # The coarsest level has nothing to be joined with.
        self.join = nn.ModuleList(Join(features, joins=index < 3) for index in range(4))
        self.temporal = nn.ModuleList(TemporalLayer(channels) for channels in (*levels[2:], features, features))
        self.reduce = nn.Conv2d(features, features // 2, 3, padding=1)
        self.to_depth = nn.Sequential(
            nn.Conv2d(features // 2, _LAST_CHANNELS, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(_LAST_CHANNELS, 1, 1),
            nn.ReLU(),
        )

    def forward(self, taken: Sequence[Tensor], patches: tuple[int, int], batch: int) -> Tensor:
        """Depth `[T, 14 h, 14 w]` of four blocks' tokens `[T, h w, C]`."""
        third, fourth = (
            self.temporal[0](self._level(taken, 2, patches)),
            self.temporal[1](self._level(taken, 3, patches)),
        )
        third, fourth = self.narrow[2](third), self.narrow[3](fourth)
        coarse = self.temporal[2](self.join[3](fourth, size=third.shape[-2:]))
        # The second level is twice as fine as the patches, the first four times.
        coarse = self.temporal[3](self.join[2](coarse, third, size=(2 * patches[0], 2 * patches[1])))
        parts = []
        for start in range(0, len(coarse), batch):
            few = [tokens[start : start + batch] for tokens in taken[:2]]
            parts.append(self._fine(few, coarse[start : start + batch], patches))
        return torch.cat(parts)

    def _level(self, taken: Sequence[Tensor], index: int, patches: tuple[int, int]) -> Tensor:
        """A level `[N, C, h', w']`."""
        picture = taken[index].transpose(1, 2).unflatten(2, patches)
        return self.resize[index](self.project[index](picture))

    def _fine(self, taken: Sequence[Tensor], coarse: Tensor, patches: tuple[int, int]) -> Tensor:
        """Depth of a few frames: from here on each is computed alone."""
        first, second = (self.narrow[index](self._level(taken, index, patches)) for index in (0, 1))
        joined = self.join[1](coarse, second, size=first.shape[-2:])
        joined = self.join[0](joined, first, size=(2 * first.shape[-2], 2 * first.shape[-1]))
        size = (PATCH_PX * patches[0], PATCH_PX * patches[1])
        # `to_depth` is kept in full precision: half of it is too coarse for depth.
        return self.to_depth(_resized(self.reduce(joined), size).float())[:, 0]


class Join(nn.Module):
    """Makes a coarse picture finer, and adds a finer level to it."""

    def __init__(self, features: int, joins: bool) -> None:
        super().__init__()
        self.of_level = Residual(features) if joins else None
        self.of_both = Residual(features)
        self.out = nn.Conv2d(features, features, 1)

    def forward(self, coarse: Tensor, level: Tensor | None = None, *, size: Sequence[int]) -> Tensor:
        """`[N, C, h, w]`, with a level of the same shape added, at another size."""
        if self.of_level is not None:
            coarse = coarse + self.of_level(level)
        return self.out(_resized(self.of_both(coarse), size))


class Residual(nn.Module):
    """Two convolutions, added to what they were given."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(features, features, 3, padding=1)
        self.second = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, picture: Tensor) -> Tensor:
        """`[N, C, h, w]` to the same shape."""
        return picture + self.second(F.relu(self.first(F.relu(picture))))


class TemporalLayer(nn.Module):
    """Lets every position look along time at itself, twice (after AnimateDiff, arXiv 2307.04725)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(_GROUPS, channels, eps=1e-6)
        self.enter = nn.Linear(channels, channels)
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for _ in range(2))
        self.attention = nn.ModuleList(TemporalAttention(channels) for _ in range(2))
        self.widen_norm = nn.LayerNorm(channels)
        self.widen = nn.Linear(channels, 8 * channels)  # values and their gates
        self.shrink = nn.Linear(4 * channels, channels)
        self.leave = nn.Linear(channels, channels)

    def forward(self, pictures: Tensor) -> Tensor:
        """`[T, C, h, w]` to the same shape."""
        size = pictures.shape[-2:]
        tracks = self.norm(pictures).flatten(2).permute(2, 0, 1)  # [P, T, C]
        mixed = torch.cat([self._mix(part) for part in tracks.split(_POSITIONS_AT_ONCE)])
        return pictures + mixed.permute(1, 2, 0).unflatten(2, size)

    def _mix(self, tracks: Tensor) -> Tensor:
        """`[P, T, C]`, each position's frames mixed."""
        tracks = self.enter(tracks)
        for norm, attention in zip(self.norms, self.attention, strict=True):
            tracks = tracks + attention(norm(tracks))
        values, gates = self.widen(self.widen_norm(tracks)).chunk(2, dim=-1)
        return self.leave(tracks + self.shrink(values * F.gelu(gates)))


class TemporalAttention(nn.Module):
    """Attention between the frames of a position."""

    places: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(channels, channels, bias=False) for _ in range(3))
        self.out = nn.Linear(channels, channels)
        self.register_buffer("places", places_in_time(WINDOW, channels)[None])

    def forward(self, tracks: Tensor) -> Tensor:
        """`[P, T, C]` to the same shape."""
        placed = tracks + self.places[:, : tracks.shape[1]]
        query, key, value = (
            layer(placed).unflatten(-1, (_HEADS, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        seen = F.scaled_dot_product_attention(query, key, value)
        return self.out(seen.transpose(1, 2).flatten(2))


def places_in_time(frames: int, channels: int) -> Tensor:
    """Sines and cosines that number the frames (arXiv 1706.03762, section 3.5), `[frames, channels]`."""
    rates = torch.exp(torch.arange(0, channels, 2) * (-math.log(10000.0) / channels))
    angles = torch.arange(frames)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def _resized(picture: Tensor, size: Sequence[int]) -> Tensor:
    """`[N, C, h, w]` at another size; the corners' centres stay where they are."""
    return F.interpolate(picture, (int(size[0]), int(size[1])), mode="bilinear", align_corners=True)
