"""What a training run is: one dataclass, read from YAML and written beside the weights it makes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import yaml

from depth_engine.checks import known_name
from depth_engine.plain_data import from_plain

PRESETS = Path(__file__).parent / "presets"
_NORM_GROUPS = 32


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
class TrainConfig:
    """A depth model: what it is made of, what it sees, how it learns.

    Attributes:
        task: `depth`; `generator`: the small image-to-video UNet with its depth ControlNet; `controlnet`: a depth
            ControlNet for the frozen UNet of `base`.
        base: SVD folder or hub id to fine-tune, with its VAE and CLIP tower; empty: a new small UNet, patch codec.
        channels: A new UNet's width per level.
        attention: Which levels of a new UNet attend (the finer ones cost more than they give at the bundled size).
        heads: Attention heads per level of a new UNet.
        embedding_dim: A new UNet's width of the unused image embedding that SVD's blocks ask for.
        patch: Side of a codec patch in pixels.
        kind: What is predicted: `disparity` or `depth`.
        sources: Where clips come from.
        augmentation: How they are varied; packed views have a camera of their own instead.
        p_mean: Diffusion: mean of ln sigma.
        p_std: Diffusion: standard deviation of ln sigma.
        noise_per_frame: Diffusion: one noise level per frame, else one per clip.
        min_snr: Diffusion: gamma of min-SNR weighting (arXiv 2303.09556); 0 leaves it off.
        sigma: One step: the noise level that new frames are at.
        context_c_noise: c_noise that flags clean context frames.
        context_probability: How often a clip of two frames and more has clean context.
        own_context_probability: One step: how often that context is the model's own prediction, as at inference.
        context_level: One step: the least and the most that a clip's context and what is asked of its new frames are
            multiplied by, so that new frames take the level of the known ones and not that of a beginning.
        steps: Steps of the whole run, unless the time is up before.
        precision: What the network computes in; weights, loss and optimiser stay float32.
        checkpoint_activations: Compute activations again in the backward pass, to save memory.
        optimizer: `adam`, `adamw`, or `muon` for matrices and AdamW for the rest.
        learning_rate: Peak rate.
        muon_learning_rate: Peak of Muon's rate, on AdamW's scale.
        decay_from: Share of the run from which the rate falls to zero as a cosine; before, it is held.
        warmup: Steps of linear warm-up.
        betas: Decay of Adam's and AdamW's moments.
        weight_decay: Decoupled decay; 0 with Adam, which has none.
        clip_norm: Gradient norm limit.
        ema_half_life: Steps after which a weight counts half in the average.
        affine_weight: One step: weight of the loss after one least-squares scale and shift per clip.
        gradient_weight: One step: weight of the spatial gradient loss.
        relative_weight: One step: weight of the loss after alignment with far pixels weighted up, as the error of depth
            in shares of itself counts them.
        temporal_weight: One step: weight of the frame-to-frame loss.
        control_channels: Generator and ControlNet: widths of the control encoder, one more than the codec halves.
        control_dropout: Generator and ControlNet: how often a step's control is left out (generator) or black.
        flow_weight: Generator: weight of the error of the flow, in units of its output.
        image_dropout: ControlNet: how often a clip's first frame is left out, for classifier-free guidance.
        image_noise: ControlNet: standard deviation of the noise on the first frame, as SVD augments it.
        seed: Seeds weights, draws and scenes.
        window: Frames per window that the checkpoint recommends; 0: the longest clip it was trained on.
        stride: New frames per window that it recommends; 0: half the window.
        max_res: Longest side in pixels that the checkpoint recommends: measured with `depth-train score`.
        area_px: Number of pixels that it recommends in place of that; 0: none.
        keep_last: Earlier checkpoints kept beside the newest one.
        validate_clips: Held-out clips that each saved checkpoint is scored on, to keep the best; 0: none.
        validate_on: Data sets that these are taken from; empty: the split `val` of each source whose split `train` the
            run sees; where there is none, procedural scenes.
        stages: Parts of the run in order.
    """

    task: Literal["depth", "generator", "controlnet"] = "depth"
    base: str = ""
    channels: tuple[int, ...] = (64, 96, 128, 128)
    attention: tuple[bool, ...] = (False, False, True, True)
    heads: tuple[int, ...] = (2, 4, 4, 4)
    embedding_dim: int = 32
    patch: int = 4
    kind: Literal["disparity", "depth"] = "disparity"
    sources: tuple[Source, ...] = (Source(),)
    augmentation: Augmentation = Augmentation()
    p_mean: float = 0.7
    p_std: float = 1.6
    noise_per_frame: bool = False
    min_snr: float = 0.0
    sigma: float = 80.0
    context_c_noise: float = -1.5
    context_probability: float = 0.5
    own_context_probability: float = 0.5
    context_level: tuple[float, float] = (1.0, 1.0)
    steps: int = 20_000
    precision: Literal["float32", "bfloat16"] = "bfloat16"
    checkpoint_activations: bool = False
    optimizer: Literal["adam", "adamw", "muon"] = "muon"
    learning_rate: float = 8e-4
    muon_learning_rate: float = 2e-3
    decay_from: float = 0.4
    warmup: int = 200
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema_half_life: float = 200.0
    affine_weight: float = 0.5
    gradient_weight: float = 0.5
    relative_weight: float = 0.0
    temporal_weight: float = 1.0
    control_channels: tuple[int, ...] = (16, 32, 96, 256)
    control_dropout: float = 0.1
    flow_weight: float = 0.2
    image_dropout: float = 0.1
    image_noise: float = 0.02
    seed: int = 0
    window: int = 0
    stride: int = 0
    max_res: int = 256
    area_px: int = 0
    keep_last: int = 0
    validate_clips: int = 0
    validate_on: tuple[Source, ...] = ()
    stages: tuple[Stage, ...] = ()

    @property
    def multiple(self) -> int:
        """What the sides of a picture must be divisible by, pixels.

        Three halvings of SVD's latents, an eighth in size; two halvings of patches (SVD halves odd sizes).
        """
        return 64 if self.base else self.patch * 4

    @property
    def is_packed(self) -> bool:
        """Whether views are held on the device that trains."""
        return any(source.name == "packed" for source in self.sources)

    @property
    def max_frames(self) -> int:
        """Longest clip of the run."""
        return max(stage.max_frames for stage in self.stages)


def preset_names() -> list[str]:
    """Presets that come with the project."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_config(name_or_path: str) -> TrainConfig:
    """A preset by its name, or a YAML file with fields of `TrainConfig`.

    Raises:
        ValueError: One line that names the file, the field, its value and what is accepted.
    """
    path = Path(name_or_path)
    if path.suffix not in (".yaml", ".yml"):
        path = PRESETS / f"{known_name('config', name_or_path, preset_names())}.yaml"
    elif not path.is_file():
        raise ValueError(f"config: no such file: {path}; presets: {', '.join(preset_names())}")
    try:
        held = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"config: {path} is not YAML ({str(error).splitlines()[0]})") from error
    config = from_plain(TrainConfig, held, f"config: {path}")
    _check(config, str(path))
    return config


def _check(config: TrainConfig, where: str) -> None:
    """Refuse what no run could be made of.

    Raises:
        ValueError: Names the field.
    """
    for name, value in asdict(config).items():
        if isinstance(value, (int, float)) and name not in ("context_c_noise", "p_mean") and value < 0:
            raise ValueError(f"config: {where}: {name}: {value!r} is not accepted; give a number from 0 up")
    for name in ("steps", "warmup", "patch", "embedding_dim", "ema_half_life", "max_res"):
        if getattr(config, name) < 1:
            raise ValueError(f"config: {where}: {name}: {getattr(config, name)} is not accepted; give 1 or more")
    for name in ("sigma", "clip_norm", "learning_rate", "muon_learning_rate"):
        if getattr(config, name) <= 0:
            raise ValueError(f"config: {where}: {name}: {getattr(config, name)} is not accepted; give more than 0")
    if config.optimizer == "adam" and config.weight_decay:
        accepted = "adam has none: give 0, or optimizer: adamw"
        raise ValueError(f"config: {where}: weight_decay: {config.weight_decay} is not accepted; {accepted}")
    if not all(0 <= beta < 1 for beta in config.betas):
        raise ValueError(f"config: {where}: betas: {list(config.betas)} is not accepted; give shares below 1")
    for name in ("mirror", "cut"):
        if not 0 <= getattr(config.augmentation, name) <= 1:
            value = getattr(config.augmentation, name)
            raise ValueError(f"config: {where}: augmentation: {name}: {value} is not accepted; give a share, 0 to 1")
    if config.augmentation.noise < 0:
        value = config.augmentation.noise
        raise ValueError(f"config: {where}: augmentation: noise: {value} is not accepted; give a number from 0 up")
    if config.decay_from >= 1:
        raise ValueError(f"config: {where}: decay_from: {config.decay_from} is not accepted; give a share below 1")
    for name in ("context_probability", "own_context_probability", "control_dropout", "image_dropout"):
        if getattr(config, name) > 1:
            raise ValueError(f"config: {where}: {name}: {getattr(config, name)} is not accepted; give a share, 0 to 1")
    if not 0 < config.context_level[0] <= config.context_level[1]:
        accepted = "give the least and the most, both above 0"
        raise ValueError(f"config: {where}: context_level: {list(config.context_level)} is not accepted; {accepted}")
    for number, stage in enumerate(config.stages):
        if stage.fresh <= 0:
            raise ValueError(
                f"config: {where}: stages[{number}]: fresh: {stage.fresh} is not accepted; give more than 0"
            )
        for name in ("height", "width", "batch", "max_frames", "min_frames", "clip_frames", "pool", "accumulate"):
            if getattr(stage, name) < 1:
                value = getattr(stage, name)
                raise ValueError(f"config: {where}: stages[{number}]: {name}: {value} is not accepted; give 1 or more")
    ends = [stage.until for stage in config.stages]
    if not ends or ends != sorted(set(ends)) or ends[0] <= 0 or ends[-1] != 1:
        raise ValueError(f"config: {where}: stages: until is {ends}; shares that rise to 1 are accepted")
    if not len(config.channels) == len(config.attention) == len(config.heads):
        raise ValueError(f"config: {where}: channels, attention and heads need one value per level each")
    for channels, heads in zip(config.channels, config.heads, strict=True):
        if channels < 1 or channels % _NORM_GROUPS:
            accepted = f"multiples of {_NORM_GROUPS}, the groups that SVD's blocks normalise by"
            raise ValueError(f"config: {where}: channels: {channels} is not accepted; give {accepted}")
        if heads < 1 or channels % heads:
            raise ValueError(f"config: {where}: heads: {heads} does not divide the level's {channels} channels")
    for number, stage in enumerate(config.stages):
        for height, width in ((stage.height, stage.width), *stage.shapes):
            if height < 1 or width < 1 or height % config.multiple or width % config.multiple:
                size = f"{width}x{height}"
                wanted = f"multiples of {config.multiple}"
                raise ValueError(f"config: {where}: stages[{number}]: {size} is not made of {wanted}")
        for least, most in (("min_frames", "max_frames"), ("max_frames", "clip_frames")):
            low, high = getattr(stage, least), getattr(stage, most)
            if low > high:
                raise ValueError(f"config: {where}: stages[{number}]: {least} {low} is more than {most} {high}")
        if stage.batch % stage.accumulate:
            raise ValueError(
                f"config: {where}: stages[{number}]: accumulate: {stage.accumulate} does not divide the batch, "
                f"{stage.batch}"
            )
        if stage.trains == "spatial_alone" and stage.max_frames > 1:
            raise ValueError(f"config: {where}: stages[{number}]: max_frames: spatial_alone accepts 1")
    if not config.sources or not all(source.weight > 0 for source in config.sources):
        raise ValueError(f"config: {where}: sources: one or more are needed, each with a weight above 0")
    if config.is_packed and (config.task != "depth" or any(source.name != "packed" for source in config.sources)):
        raise ValueError(f"config: {where}: sources: packed is for the depth task, and not beside other sources")
    if config.max_frames > 1 and all(source.gives == "images" for source in config.sources):
        raise ValueError(f"config: {where}: sources: all give images; steps of {config.max_frames} frames need clips")
    if config.task == "controlnet" and not config.base:
        raise ValueError(f"config: {where}: base: is missing; task controlnet steers the UNet of an SVD folder")
    for number, stage in enumerate(config.stages if config.task == "controlnet" else ()):
        if stage.objective != "diffusion" or stage.trains == "spatial_alone":
            raise ValueError(
                f"config: {where}: stages[{number}]: {stage.objective}, {stage.trains}: task controlnet accepts "
                "objective diffusion and trains all, spatial or temporal"
            )
    if config.task == "generator" and config.base:
        raise ValueError(f"config: {where}: base: {config.base}: task generator is a new small network; leave it out")
    if config.window and config.stride > config.window:
        raise ValueError(f"config: {where}: stride: {config.stride} is more than the window, {config.window}")
