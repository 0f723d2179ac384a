"""SVD's UNet with a noise level and an image embedding per frame.

The blocks and the weights are those of diffusers' `UNetSpatioTemporalConditionModel`. Its blocks already take one time
embedding per frame; only its top-level forward repeats a single one over the clip. ChronoDepth needs one noise level
per frame (arXiv 2406.01493, section 3), DepthCrafter one image embedding per frame.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from diffusers import UNetSpatioTemporalConditionModel
from torch import Tensor


class BlockInputs(NamedTuple):
    """What every block gets besides its features.

    Attributes:
        time_embedding: `[B * T, D]`.
        context: Image embeddings `[B * T, 1, D]`.
        image_only_indicator: Zeros `[B, T]`: these are clips.
    """

    time_embedding: Tensor
    context: Tensor
    image_only_indicator: Tensor


class DepthUNet(UNetSpatioTemporalConditionModel):
    """`UNetSpatioTemporalConditionModel` that also takes per-frame noise levels and embeddings."""

    def forward(  # type: ignore[override]
        self,
        sample: Tensor,
        timestep: Tensor | float,
        encoder_hidden_states: Tensor,
        added_time_ids: Tensor,
    ) -> Tensor:
        """Predict the network output F of EDM's preconditioning (v-prediction).

        Args:
            sample: Scaled latents and condition, `[B, T, C, h, w]`.
            timestep: c_noise = ln(sigma) / 4: a number, `[B]` (one per clip) or `[B, T]` (one per frame).
            encoder_hidden_states: Image embeddings, `[B, 1, D]` (one per clip) or `[B, T, D]` (one per frame).
            added_time_ids: Micro-conditioning (fps, motion bucket, noise augmentation), `[B, 3]`.

        Returns:
            Network output, `[B, T, C_out, h, w]`.

        Raises:
            ValueError: If the numbers of noise levels or embeddings do not fit the clip.
        """
        given = self.prepare(sample, timestep, encoder_hidden_states, added_time_ids)
        hidden, skips = self.encode(sample, given)
        return self.decode(hidden, skips, given)

    def prepare(
        self, sample: Tensor, timestep: Tensor | float, encoder_hidden_states: Tensor, added_time_ids: Tensor
    ) -> BlockInputs:
        """What every block gets besides its features; arguments as for `forward`."""
        batch, frames = sample.shape[:2]
        return BlockInputs(
            time_embedding=self._embed_time(timestep, added_time_ids, batch, frames, sample.dtype),
            context=self._per_frame(encoder_hidden_states, batch, frames).flatten(0, 1).unsqueeze(1),
            image_only_indicator=sample.new_zeros(batch, frames),
        )

    def encode(self, sample: Tensor, given: BlockInputs, added: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """The way down and the middle: features `[B * T, C', h', w']`, and the skips in order.

        Args:
            sample: As for `forward`.
            given: From `prepare`.
            added: Features `[B * T, C', h, w]` to add to those of the input convolution.
        """
        hidden = self.conv_in(sample.flatten(0, 1))
        if added is not None:
            hidden = hidden + added
        skips = [hidden]
        for block in self.down_blocks:
            hidden, new_skips = _run(block, hidden, given)
            skips.extend(new_skips)
        return _run(self.mid_block, hidden, given), skips

    def decode(self, hidden: Tensor, skips: list[Tensor], given: BlockInputs) -> Tensor:
        """The way up: network output `[B, T, C_out, h, w]`."""
        for block in self.up_blocks:
            count = len(block.resnets)  # type: ignore[arg-type]
            block_skips, skips = tuple(skips[-count:]), skips[:-count]
            # Odd sizes were rounded up on the way down; the next skip says what to come back to.
            upsample_size = skips[-1].shape[-2:] if skips else None
            hidden = _run(block, hidden, given, res_hidden_states_tuple=block_skips, upsample_size=upsample_size)
        hidden = self.conv_out(self.conv_act(self.conv_norm_out(hidden)))
        return hidden.unflatten(0, given.image_only_indicator.shape)

    def _embed_time(
        self, timestep: Tensor | float, added_time_ids: Tensor, batch: int, frames: int, dtype: torch.dtype
    ) -> Tensor:
        """Noise-level embedding plus micro-conditioning embedding for each frame, `[B * T, D]`."""
        timestep = torch.as_tensor(timestep, dtype=torch.float32, device=added_time_ids.device)
        if timestep.ndim == 0:
            timestep = timestep.expand(batch)
        if timestep.shape not in ((batch,), (batch, frames)):
            raise ValueError(
                f"timestep: shape {tuple(timestep.shape)} fits neither [{batch}] (per clip) nor [{batch}, {frames}] "
                "(per frame)"
            )
        levels = self.time_proj(timestep.flatten()).to(dtype)  # sinusoids, [B, D] or [B * T, D]
        emb = self.time_embedding(levels)
        if timestep.ndim == 1:
            emb = emb.repeat_interleave(frames, dim=0)

        ids = self.add_time_proj(added_time_ids.flatten()).reshape(batch, -1).to(dtype)
        return emb + self.add_embedding(ids).repeat_interleave(frames, dim=0)

    @staticmethod
    def _per_frame(embeddings: Tensor, batch: int, frames: int) -> Tensor:
        """Image embeddings with one row per frame, `[B, T, D]`."""
        if embeddings.ndim != 3 or embeddings.shape[0] != batch or embeddings.shape[1] not in (1, frames):
            raise ValueError(
                f"encoder_hidden_states: shape {tuple(embeddings.shape)} fits neither [{batch}, 1, D] (per clip) nor "
                f"[{batch}, {frames}, D] (per frame)"
            )
        return embeddings.expand(batch, frames, embeddings.shape[2])


def _run(block: torch.nn.Module, hidden: Tensor, given: BlockInputs, **extra: Any) -> Any:
    if getattr(block, "has_cross_attention", False):
        extra["encoder_hidden_states"] = given.context
    return block(
        hidden_states=hidden, temb=given.time_embedding, image_only_indicator=given.image_only_indicator, **extra
    )
