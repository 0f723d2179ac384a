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
        spatial: Train the spatial layers alone, on single frames; the temporal ones are skipped, which more than halves
            the cost of a picture.
    """

    until: float
    height: int
    width: int
    batch: int
    max_frames: int
    clip_frames: int
    pool: int
    fresh: int
    spatial: bool = False


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
        bfloat16: Run the network under autocast; weights, loss and optimiser stay float32.
        learning_rate: Peak of AdamW's rate.
        decay_from: Share of the run from which the rate falls to zero as a cosine; before, it is held.
        warmup: Steps of linear warm-up.
        weight_decay: AdamW's decoupled decay.
        clip_norm: Gradient norm limit.
        ema_half_life: Steps after which a weight counts half in the average.
        affine_weight: Weight of the loss after one least-squares scale and shift per clip.
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
    steps: int = 20_000
    bfloat16: bool = True
    learning_rate: float = 8e-4
    decay_from: float = 0.4
    warmup: int = 200
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema_half_life: float = 200.0
    affine_weight: float = 0.5
    gradient_weight: float = 0.5
    temporal_weight: float = 1.0
    seed: int = 0
    max_res: int = 256
    # First what a single frame tells, on as many scenes as can be had. Then time. Then the size it will work at.
    stages: tuple[Stage, ...] = (
        Stage(0.45, 96, 160, batch=32, max_frames=1, clip_frames=3, pool=3000, fresh=2, spatial=True),
        Stage(0.55, 144, 256, batch=12, max_frames=1, clip_frames=3, pool=800, fresh=1, spatial=True),
        Stage(0.8, 96, 160, batch=6, max_frames=8, clip_frames=12, pool=800, fresh=1),
        Stage(1.0, 144, 256, batch=3, max_frames=6, clip_frames=12, pool=300, fresh=1),
    )

    @classmethod
    def further(cls) -> TrainConfig:
        """Going on from a trained checkpoint: more scenes a step, and less weight on smoothness."""
        stages = (Stage(1.0, 144, 256, batch=3, max_frames=8, clip_frames=12, pool=300, fresh=1),)
        return cls(warmup=30, seed=1, stages=stages)

    @property
    def max_frames(self) -> int:
        """Longest clip of the run: the window that the model is made for."""
        return max(stage.max_frames for stage in self.stages)
