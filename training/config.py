"""What a training run is: one dataclass, read from YAML and written beside the weights it makes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from depth_engine.plain_data import from_plain
from depth_engine.settings import known_name

OPTIMIZERS = ("adamw", "muon")
PRESETS = Path(__file__).parent / "presets"


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
        fresh: Clips rendered anew each step, on average.
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
    fresh: float
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
        optimizer: `adamw`, or `muon` for matrices and AdamW for the rest.
        learning_rate: Peak of AdamW's rate.
        muon_learning_rate: Peak of Muon's rate, on AdamW's scale.
        decay_from: Share of the run from which the rate falls to zero as a cosine; before, it is held.
        warmup: Steps of linear warm-up.
        weight_decay: Decoupled decay.
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
    optimizer: str = "muon"
    learning_rate: float = 8e-4
    muon_learning_rate: float = 2e-3
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
    stages: tuple[Stage, ...] = ()

    @property
    def multiple(self) -> int:
        """What the sides of a picture must be divisible by, pixels: two halvings of patches (SVD halves odd sizes)."""
        return self.patch * 4

    @property
    def max_frames(self) -> int:
        """Longest clip of the run: the window that the model is made for."""
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
        if isinstance(value, (int, float)) and name != "context_c_noise" and value < 0:
            raise ValueError(f"config: {where}: {name}: {value!r} is not accepted; give a number from 0 up")
    for name in ("steps", "warmup", "patch", "embedding_dim", "ema_half_life", "max_res"):
        if getattr(config, name) < 1:
            raise ValueError(f"config: {where}: {name}: {getattr(config, name)} is not accepted; give 1 or more")
    known_name("config: optimizer", config.optimizer, OPTIMIZERS)
    if config.decay_from >= 1:
        raise ValueError(f"config: {where}: decay_from: {config.decay_from} is not accepted; give a share below 1")
    for number, stage in enumerate(config.stages):
        if stage.fresh <= 0:
            raise ValueError(
                f"config: {where}: stages[{number}]: fresh: {stage.fresh} is not accepted; give more than 0"
            )
        for name in ("height", "width", "batch", "max_frames", "clip_frames", "pool"):
            if getattr(stage, name) < 1:
                value = getattr(stage, name)
                raise ValueError(f"config: {where}: stages[{number}]: {name}: {value} is not accepted; give 1 or more")
    ends = [stage.until for stage in config.stages]
    if not ends or ends != sorted(set(ends)) or ends[0] <= 0 or ends[-1] != 1:
        raise ValueError(f"config: {where}: stages: until is {ends}; shares that rise to 1 are accepted")
    if not len(config.channels) == len(config.attention) == len(config.heads):
        raise ValueError(f"config: {where}: channels, attention and heads need one value per level each")
    for number, stage in enumerate(config.stages):
        if stage.height % config.multiple or stage.width % config.multiple:
            size = f"{stage.width}x{stage.height}"
            raise ValueError(f"config: {where}: stages[{number}]: {size} is not made of multiples of {config.multiple}")
        if stage.clip_frames < stage.max_frames:
            raise ValueError(
                f"config: {where}: stages[{number}]: max_frames {stage.max_frames} is more than clip_frames "
                f"{stage.clip_frames}"
            )
