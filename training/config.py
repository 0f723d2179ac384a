"""What a training run is: one dataclass, written beside the weights it makes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """A part of the run at one picture size.

    Attributes:
        until: Share of the run (0 to 1) at which this stage ends.
        height: Picture height in pixels.
        width: Picture width in pixels.
        batch: Clips per step.
        max_frames: Longest clip that a step sees; lengths are uniform from 1.
        clip_frames: Frames per rendered clip, from which steps cut.
        pool: Rendered clips kept for reuse; the oldest are replaced.
        fresh: Clips rendered anew each step.
    """

    until: float
    height: int
    width: int
    batch: int
    max_frames: int
    clip_frames: int
    pool: int
    fresh: int


@dataclass(frozen=True)
class TrainConfig:
    """A one-step depth model with clean context frames, trained on procedural scenes.

    Attributes:
        channels: UNet width per level.
        attention: Which levels attend (the finer ones cost more than they give at this size).
        heads: Attention heads per level.
        embedding_dim: Width of the unused image embedding that SVD's blocks ask for.
        patch: Side of a codec patch in pixels.
        sigma: The one noise level that new frames are at.
        context_c_noise: c_noise that flags clean context frames.
        context_probability: How often a clip of two frames and more has clean context.
        own_context_probability: How often that context is the model's own prediction, as at inference.
        steps: Steps of the whole run, unless the time is up before.
        learning_rate: Peak of AdamW's rate.
        warmup: Steps of linear warm-up; then cosine decay.
        weight_decay: AdamW's decoupled decay.
        clip_norm: Gradient norm limit.
        ema_half_life: Steps after which a weight counts half in the average.
        gradient_weight: Weight of the spatial gradient loss.
        temporal_weight: Weight of the frame-to-frame loss.
        seed: Seeds weights, draws and scenes.
        max_res: Longest side in pixels that the checkpoint recommends: measured with `depth-train score`.
        stages: Picture sizes in order.
    """

    channels: tuple[int, ...] = (64, 96, 128, 128)
    attention: tuple[bool, ...] = (False, False, True, True)
    heads: tuple[int, ...] = (2, 4, 4, 4)
    embedding_dim: int = 32
    patch: int = 4
    sigma: float = 80.0
    context_c_noise: float = -1.5
    context_probability: float = 0.5
    own_context_probability: float = 0.5
    steps: int = 6000
    learning_rate: float = 6e-4
    warmup: int = 150
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema_half_life: float = 200.0
    gradient_weight: float = 1.0
    temporal_weight: float = 2.0
    seed: int = 0
    max_res: int = 256
    # First many scenes and hardly any time, small: what a single frame tells. Then time. Then the size it will work at.
    stages: tuple[Stage, ...] = (
        Stage(until=0.45, height=72, width=128, batch=20, max_frames=2, clip_frames=4, pool=2000, fresh=4),
        Stage(until=0.8, height=96, width=160, batch=5, max_frames=8, clip_frames=12, pool=800, fresh=1),
        Stage(until=1.0, height=144, width=256, batch=2, max_frames=8, clip_frames=12, pool=300, fresh=1),
    )

    @classmethod
    def further(cls) -> TrainConfig:
        """Going on from a trained checkpoint: more scenes a step, and less weight on smoothness."""
        stages = (Stage(until=1.0, height=96, width=160, batch=8, max_frames=6, clip_frames=12, pool=800, fresh=1),)
        return cls(warmup=30, gradient_weight=0.5, temporal_weight=0.5, seed=1, stages=stages)

    @property
    def max_frames(self) -> int:
        """Longest clip of the run: the window that the model is made for."""
        return max(stage.max_frames for stage in self.stages)
