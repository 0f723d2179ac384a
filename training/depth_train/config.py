"""What a training run is: one dataclass of parts, written beside the weights it makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Source:
    """Where clips come from.

    Attributes:
        name: `procedural`, `rendered` (a store of `depth-train scenes`), `packed` (the same or packs of it, held on the
            device that trains), or a data set of `depth_train.data.datasets`.
        root: The data set's folder; the procedural scenes need none.
        split: One of the data set's splits.
        weight: Share of the clips, relative to the other sources' weights.
        step: Distance of the first frames of neighbouring clips; 0: clips do not share frames.
        gives: `clips` serve steps of any length; `images` are single frames and serve steps of one frame alone.
    """

    name: str = "procedural"
    root: str = ""
    split: str = "all"
    weight: float = 1.0
    step: int = 0
    gives: Literal["clips", "images"] = "clips"


@dataclass(frozen=True)
class Augmentation:
    """How clips are varied; all 0 and False: not at all.

    Attributes:
        mirror: How often a clip is mirrored.
        cut: How often a step's pictures are cut to another shape, down to two thirds of one side.
        colour: Whether gains, brightness and saturation are drawn for each clip.
        noise: Largest standard deviation of noise on the pictures, whose values are in [-1, 1].
    """

    mirror: float = 0.5
    cut: float = 0.5
    colour: bool = True
    noise: float = 0.04


@dataclass(frozen=True)
class Stage:
    """A part of the run: one objective, one set of layers, one picture size.

    Attributes:
        until: Share of the run (0 to 1) at which this stage ends.
        height: Picture height in pixels.
        width: Picture width in pixels.
        batch: Clips per step in each process; several processes see as many times more.
        max_frames: Longest clip that a step sees; lengths are uniform from `min_frames`.
        min_frames: Shortest clip: 1 mixes single images in; `max_frames` makes the length fixed.
        clip_frames: Frames per clip held, from which steps cut with a stride.
        pool: Clips held for reuse in each process; the oldest are replaced.
        fresh: Clips rendered or read anew for each step in each process, on average.
        objective: `diffusion` denoises latents at random noise levels; `one_step` predicts depth from zero in one call.
        trains: `spatial` trains the spatial layers, the temporal ones frozen; `temporal` the other way round; `all`
            both; `spatial_alone` leaves the temporal ones out, at less than half the cost of a picture: for a new UNet.
        accumulate: Parts that a step's batch is cut into, one after the other, to save memory.
        shapes: Heights and widths that steps draw from, in place of the one above: the world has pictures of any shape.
    """

    until: float
    height: int
    width: int
    batch: int
    max_frames: int
    clip_frames: int
    pool: int
    fresh: float
    min_frames: int = 1
    objective: Literal["diffusion", "one_step"] = "one_step"
    trains: Literal["all", "spatial", "spatial_alone", "temporal"] = "all"
    accumulate: int = 1
    shapes: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Network:
    """A new small UNet; of no effect where `base` names one.

    Attributes:
        channels: Width per level.
        attention: Which levels attend (the finer ones cost more than they give at the bundled size).
        heads: Attention heads per level.
        embedding_dim: Width of the unused image embedding that SVD's blocks ask for.
        patch: Side of a codec patch in pixels.
    """

    channels: tuple[int, ...] = (64, 96, 128, 128)
    attention: tuple[bool, ...] = (False, False, True, True)
    heads: tuple[int, ...] = (2, 4, 4, 4)
    embedding_dim: int = 32
    patch: int = 4


@dataclass(frozen=True)
class Diffusion:
    """Noise levels of the objective `diffusion`.

    Attributes:
        p_mean: Mean of ln sigma.
        p_std: Standard deviation of ln sigma.
        noise_per_frame: One noise level per frame, else one per clip.
        min_snr: Gamma of min-SNR weighting (arXiv 2303.09556); 0 leaves it off.
    """

    p_mean: float = 0.7
    p_std: float = 1.6
    noise_per_frame: bool = False
    min_snr: float = 0.0


@dataclass(frozen=True)
class Context:
    """Known frames before the new ones, as the engine's windows hand them on.

    Attributes:
        probability: How often a clip of two frames and more has clean context.
        own_probability: One step: how often that context is the model's own prediction, as at inference.
        level: One step: the least and the most that a clip's context and what is asked of its new frames are
            multiplied by, so that new frames take the level of the known ones and not that of a beginning.
        c_noise: c_noise that flags clean context frames.
    """

    probability: float = 0.5
    own_probability: float = 0.5
    level: tuple[float, float] = (1.0, 1.0)
    c_noise: float = -1.5


@dataclass(frozen=True)
class Loss:
    """Weights of the parts of the one-step loss; the generator takes the gradient's and the temporal one.

    Attributes:
        affine_weight: Of the loss after one least-squares scale and shift per clip.
        gradient_weight: Of the spatial gradient loss.
        relative_weight: Of the loss after alignment with far pixels weighted up, as the error of depth in shares of
            itself counts them.
        temporal_weight: Of the frame-to-frame loss.
    """

    affine_weight: float = 0.5
    gradient_weight: float = 0.5
    relative_weight: float = 0.0
    temporal_weight: float = 1.0


@dataclass(frozen=True)
class Optimizer:
    """How weights follow the gradient.

    Attributes:
        name: `adam`, `adamw`, or `muon` for matrices and AdamW for the rest.
        learning_rate: Peak rate.
        muon_learning_rate: Peak of Muon's rate, on AdamW's scale.
        decay_from: Share of the run from which the rate falls to zero as a cosine; before, it is held.
        warmup: Steps of linear warm-up.
        betas: Decay of Adam's and AdamW's moments.
        weight_decay: Decoupled decay; 0 with Adam, which has none.
        clip_norm: Gradient norm limit.
        ema_half_life: Steps after which a weight counts half in the average.
    """

    name: Literal["adam", "adamw", "muon"] = "muon"
    learning_rate: float = 8e-4
    muon_learning_rate: float = 2e-3
    decay_from: float = 0.4
    warmup: int = 200
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema_half_life: float = 200.0


@dataclass(frozen=True)
class Control:
    """The depth control of the tasks `generator` and `controlnet`.

    Attributes:
        channels: Widths of the control encoder, one more than the codec halves.
        dropout: How often a step's control is left out (generator) or black (ControlNet).
    """

    channels: tuple[int, ...] = (16, 32, 96, 256)
    dropout: float = 0.1


@dataclass(frozen=True)
class GeneratorLoss:
    """What the task `generator` alone has.

    Attributes:
        flow_weight: Weight of the error of the flow, in units of its output.
    """

    flow_weight: float = 0.2


@dataclass(frozen=True)
class FirstFrame:
    """What the task `controlnet` does with the first frame that SVD is given.

    Attributes:
        image_dropout: How often it is left out, for classifier-free guidance.
        image_noise: Standard deviation of the noise on it, as SVD augments it.
    """

    image_dropout: float = 0.1
    image_noise: float = 0.02


@dataclass(frozen=True)
class Recommended:
    """What the checkpoint recommends to the engine.

    Attributes:
        window: Frames per window; 0: the longest clip it was trained on.
        stride: New frames per window; 0: half the window.
        max_res: Longest side in pixels: measured with `depth-train score`.
        area_px: Number of pixels in place of that; 0: none.
    """

    window: int = 0
    stride: int = 0
    max_res: int = 256
    area_px: int = 0


@dataclass(frozen=True)
class Validation:
    """Held-out clips that each saved checkpoint is scored on, to keep the best.

    Attributes:
        clips: Their number; 0: none.
        datasets: That they are taken from; empty: the split `val` of each source whose split `train` the run sees;
            where there is none, procedural scenes.
    """

    clips: int = 0
    datasets: tuple[Source, ...] = ()


@dataclass(frozen=True)
class TrainConfig:
    """A model to train: what it is made of, what it sees, how it learns.

    Attributes:
        task: `depth`; `generator`: the small image-to-video UNet with its depth ControlNet; `controlnet`: a depth
            ControlNet for the frozen UNet of `base`.
        base: SVD folder or hub id to fine-tune, with its VAE and CLIP tower; empty: a new small UNet, patch codec.
        network: That new UNet.
        kind: What is predicted: `disparity` or `depth`.
        sigma: The noise level that a denoising begins at: one step has no other.
        sources: Where clips come from.
        augmentation: How they are varied; packed views have a camera of their own instead.
        diffusion: Noise levels of that objective.
        context: Known frames before the new ones.
        loss: Weights of the parts of the one-step loss.
        control: Depth control of the tasks `generator` and `controlnet`.
        generator: Of that task alone.
        controlnet: Of that task alone.
        optimizer: How weights follow the gradient.
        steps: Steps of the whole run, unless the time is up before.
        precision: What the network computes in; weights, loss and optimiser stay float32.
        checkpoint_activations: Compute activations again in the backward pass, to save memory.
        seed: Seeds weights, draws and scenes.
        recommends: What the checkpoint recommends to the engine.
        keep_last: Earlier checkpoints kept beside the newest one.
        validation: Held-out clips that choose the best checkpoint.
        stages: Parts of the run in order.
    """

    task: Literal["depth", "generator", "controlnet"] = "depth"
    base: str = ""
    network: Network = Network()
    kind: Literal["disparity", "depth"] = "disparity"
    sigma: float = 80.0
    sources: tuple[Source, ...] = (Source(),)
    augmentation: Augmentation = Augmentation()
    diffusion: Diffusion = Diffusion()
    context: Context = Context()
    loss: Loss = Loss()
    control: Control = Control()
    generator: GeneratorLoss = GeneratorLoss()
    controlnet: FirstFrame = FirstFrame()
    optimizer: Optimizer = Optimizer()
    steps: int = 20_000
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    checkpoint_activations: bool = False
    seed: int = 0
    recommends: Recommended = Recommended()
    keep_last: int = 0
    validation: Validation = Validation()
    stages: tuple[Stage, ...] = ()

    @property
    def multiple(self) -> int:
        """What the sides of a picture must be divisible by, pixels.

        Three halvings of SVD's latents, an eighth in size; two halvings of patches (SVD halves odd sizes).
        """
        return 64 if self.base else self.network.patch * 4

    @property
    def is_packed(self) -> bool:
        """Whether views are held on the device that trains."""
        return any(source.name == "packed" for source in self.sources)

    @property
    def max_frames(self) -> int:
        """Longest clip of the run."""
        return max(stage.max_frames for stage in self.stages)
