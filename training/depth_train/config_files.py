"""A run's config from a preset or a YAML file, checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from depth_engine.checks import known_name
from depth_engine.plain_data import from_plain
from depth_train.config import Network, Optimizer, Stage, TrainConfig

PRESETS = Path(__file__).parent / "presets"
_NORM_GROUPS = 32
# Everything else is counted or measured from 0 up.
_MAY_BE_NEGATIVE = ("context: c_noise", "diffusion: p_mean")
_SHARES = (
    "augmentation: mirror",
    "augmentation: cut",
    "context: probability",
    "context: own_probability",
    "control: dropout",
    "controlnet: image_dropout",
)
_AT_LEAST_ONE = ("steps", "optimizer: warmup", "optimizer: ema_half_life", "network: patch", "network: embedding_dim")
_ABOVE_ZERO = ("sigma", "optimizer: clip_norm", "optimizer: learning_rate", "optimizer: muon_learning_rate")


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
    try:
        _check(config)
    except ValueError as error:
        raise ValueError(f"config: {path}: {error}") from None
    return config


def _check(config: TrainConfig) -> None:
    """Refuse what no run could be made of.

    Raises:
        ValueError: Names the field.
    """
    _check_numbers(dict(_numbers(asdict(config))))
    _check_optimizer(config.optimizer)
    least, most = config.context.level
    if not 0 < least <= most:
        raise ValueError(_refused("context: level", [least, most], "the least and the most, both above 0"))
    ends = [stage.until for stage in config.stages]
    if not ends or ends != sorted(set(ends)) or ends[0] <= 0 or ends[-1] != 1:
        raise ValueError(f"stages: until is {ends}; shares that rise to 1 are accepted")
    _check_network(config.network)
    for number, stage in enumerate(config.stages):
        _check_stage(stage, f"stages[{number}]", config)
    _check_sources(config)
    _check_task(config)
    window, stride = config.recommends.window, config.recommends.stride
    if window and stride > window:
        raise ValueError(f"recommends: stride: {stride} is more than the window, {window}")


def _refused(field: str, value: object, accepted: str) -> str:
    return f"{field}: {value} is not accepted; give {accepted}"


def _numbers(fields: dict[str, Any], within: str = "") -> Iterable[tuple[str, float]]:
    """Every number of the config that is no list's, by the names that lead to it."""
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _numbers(value, f"{name}: ")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            yield f"{within}{name}", value


def _check_numbers(numbers: dict[str, float]) -> None:
    for field, value in numbers.items():
        if value < 0 and field not in _MAY_BE_NEGATIVE:
            raise ValueError(_refused(field, value, "a number from 0 up"))
    for field in (*_AT_LEAST_ONE, "recommends: max_res"):
        if numbers[field] < 1:
            raise ValueError(_refused(field, numbers[field], "1 or more"))
    for field in _ABOVE_ZERO:
        if numbers[field] <= 0:
            raise ValueError(_refused(field, numbers[field], "more than 0"))
    for field in _SHARES:
        if numbers[field] > 1:
            raise ValueError(_refused(field, numbers[field], "a share, 0 to 1"))


def _check_optimizer(optimizer: Optimizer) -> None:
    if optimizer.name == "adam" and optimizer.weight_decay:
        accepted = "0 (adam has none), or name: adamw"
        raise ValueError(_refused("optimizer: weight_decay", optimizer.weight_decay, accepted))
    if not all(0 <= beta < 1 for beta in optimizer.betas):
        raise ValueError(_refused("optimizer: betas", list(optimizer.betas), "shares below 1"))
    if optimizer.decay_from >= 1:
        raise ValueError(_refused("optimizer: decay_from", optimizer.decay_from, "a share below 1"))


def _check_network(network: Network) -> None:
    if not len(network.channels) == len(network.attention) == len(network.heads):
        raise ValueError("network: channels, attention and heads need one value per level each")
    for channels, heads in zip(network.channels, network.heads, strict=True):
        if channels < 1 or channels % _NORM_GROUPS:
            accepted = f"multiples of {_NORM_GROUPS}, the groups that SVD's blocks normalise by"
            raise ValueError(_refused("network: channels", channels, accepted))
        if heads < 1 or channels % heads:
            raise ValueError(f"network: heads: {heads} does not divide the level's {channels} channels")


def _check_stage(stage: Stage, where: str, config: TrainConfig) -> None:
    if stage.fresh <= 0:
        raise ValueError(_refused(f"{where}: fresh", stage.fresh, "more than 0"))
    for name in ("height", "width", "batch", "max_frames", "min_frames", "clip_frames", "pool", "accumulate"):
        if getattr(stage, name) < 1:
            raise ValueError(_refused(f"{where}: {name}", getattr(stage, name), "1 or more"))
    for height, width in ((stage.height, stage.width), *stage.shapes):
        if height < 1 or width < 1 or height % config.multiple or width % config.multiple:
            raise ValueError(f"{where}: {width}x{height} is not made of multiples of {config.multiple}")
    for least, most in (("min_frames", "max_frames"), ("max_frames", "clip_frames")):
        low, high = getattr(stage, least), getattr(stage, most)
        if low > high:
            raise ValueError(f"{where}: {least} {low} is more than {most} {high}")
    if stage.batch % stage.accumulate:
        raise ValueError(f"{where}: accumulate: {stage.accumulate} does not divide the batch, {stage.batch}")
    if stage.trains == "spatial_alone" and stage.max_frames > 1:
        raise ValueError(f"{where}: max_frames: spatial_alone accepts 1")


def _check_sources(config: TrainConfig) -> None:
    if not config.sources or not all(source.weight > 0 for source in config.sources):
        raise ValueError("sources: one or more are needed, each with a weight above 0")
    if config.is_packed and (config.task != "depth" or any(source.name != "packed" for source in config.sources)):
        raise ValueError("sources: packed is for the depth task, and not beside other sources")
    if config.max_frames > 1 and all(source.gives == "images" for source in config.sources):
        raise ValueError(f"sources: all give images; steps of {config.max_frames} frames need clips")


def _check_task(config: TrainConfig) -> None:
    if config.task == "controlnet" and not config.base:
        raise ValueError("base: is missing; task controlnet steers the UNet of an SVD folder")
    for number, stage in enumerate(config.stages if config.task == "controlnet" else ()):
        if stage.objective != "diffusion" or stage.trains == "spatial_alone":
            raise ValueError(
                f"stages[{number}]: {stage.objective}, {stage.trains}: task controlnet accepts objective diffusion "
                "and trains all, spatial or temporal"
            )
    if config.task == "generator" and config.base:
        raise ValueError(f"base: {config.base}: task generator is a new small network; leave it out")
