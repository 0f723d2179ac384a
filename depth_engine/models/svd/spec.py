"""What a checkpoint of the SVD family expects: data, not code."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from depth_engine.plain_data import from_plain

Kind = Literal["disparity", "depth"]
# How a window takes up what the one before it said, and how a window is sampled: the one list of each.
Strategy = Literal["context", "replacement", "independent", "crossfade"]
Sampler = Literal["euler", "reference"]


@dataclass(frozen=True)
class CheckpointSpec:
    """What a checkpoint expects: data, not code.

    Attributes:
        kind: What the output is: `disparity` (near = large) or `depth` (far = large), both affine-invariant in [0, 1].
        condition_first: Condition latents come before the noisy ones on the channels (ChronoDepth) or after (SVD).
        scale_condition: Condition latents are multiplied by the VAE's scaling factor.
        embedding: CLIP embedding: of an all-zero image, one per frame, or none (zeros).
        added_time_ids: SVD's micro-conditioning: fps, motion bucket, noise augmentation.
        condition_noise: Strength of the noise added to the RGB pixels before the codec.
        start: `noise` starts from normals scaled by sqrt(sigma_max^2 + 1); `zero` starts from zero (one-step models).
        to_depth: How decoded channels become depth.
        decode_chunk: Frames that the temporal decoder takes at a time, counted from the shot's first frame.
        context_c_noise: c_noise = ln(sigma) / 4 that flags clean context frames.
        sampler: Recommended sampler.
        strategy: Recommended strategy.
        window: Recommended frames per window.
        stride: Recommended new frames per window.
        steps: Recommended denoising steps.
        multiple: What both sides of the picture must be divisible by.
        max_res: Recommended longest side in pixels.
        area_px: Recommended number of pixels of a picture, whatever its shape; 0: `max_res` decides.
        flow: Whether `context` also carries depth along optical flow (`consistency/flow.py`); needs a lossless codec.
    """

    kind: Kind
    condition_first: bool
    scale_condition: bool
    embedding: Literal["zero_image", "per_frame", "none"]
    added_time_ids: tuple[float, float, float]
    condition_noise: float
    start: Literal["noise", "zero"]
    to_depth: Literal["mean_then_clip", "clip_then_mean"]
    decode_chunk: int
    context_c_noise: float
    sampler: Sampler
    strategy: Strategy
    window: int
    stride: int
    steps: int
    multiple: int
    max_res: int
    area_px: int = 0
    flow: bool = False

    def to_json(self) -> dict[str, Any]:
        """Plain data for `depth_engine.json`."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any], where: str) -> CheckpointSpec:
        """Read back what `to_json` wrote.

        Raises:
            ValueError: If a field is missing or unknown, or its value is not accepted.
        """
        spec = from_plain(cls, data, where)
        for name in ("decode_chunk", "window", "stride", "steps", "multiple", "max_res"):
            if getattr(spec, name) < 1:
                raise ValueError(f"{where}: {name}: {getattr(spec, name)} is not accepted; give a number from 1 up")
        if spec.stride > spec.window:
            raise ValueError(f"{where}: stride: {spec.stride} is more than the window, {spec.window}")
        return spec


# reference: arXiv 2406.01493 and its released pipeline; CLIP of a zero image, RGB first, state = scaled input.
CHRONODEPTH = CheckpointSpec(
    kind="depth",
    condition_first=True,
    scale_condition=True,
    embedding="zero_image",
    added_time_ids=(6.0, 127.0, 0.0),
    condition_noise=0.0,
    start="noise",
    to_depth="mean_then_clip",
    decode_chunk=8,
    context_c_noise=-4.0,
    sampler="reference",
    strategy="context",
    window=10,
    stride=5,
    steps=5,
    multiple=64,
    max_res=1024,
)
# reference: arXiv 2409.02095 and its released pipeline (110 frames, overlap 25, 5 steps without guidance since v1.0.1).
# It has no notion of clean context frames; the level is SVD's sigma_min, the lowest it was trained near.
DEPTHCRAFTER = CheckpointSpec(
    kind="disparity",
    condition_first=False,
    scale_condition=False,
    embedding="per_frame",
    added_time_ids=(7.0, 127.0, 0.02),
    condition_noise=0.02,
    start="noise",
    to_depth="clip_then_mean",
    decode_chunk=8,
    context_c_noise=-1.55,
    sampler="euler",
    strategy="crossfade",
    window=110,
    stride=85,
    steps=5,
    multiple=64,
    max_res=1024,
)
SPECS = {"chronodepth": CHRONODEPTH, "depthcrafter": DEPTHCRAFTER}
