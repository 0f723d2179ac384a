"""What a caller may choose about a run, checked against the checkpoint before anything heavy loads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict, get_args

from depth_engine.checks import check_keywords, known_name
from depth_engine.models.svd.spec import Sampler, Strategy
from depth_engine.models.svd.windows import Layout, check_plan

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from depth_engine.models.svd.spec import CheckpointSpec


STRATEGIES: tuple[str, ...] = get_args(Strategy)
SAMPLERS: tuple[str, ...] = get_args(Sampler)


@dataclass(frozen=True)
class RunSettings:
    """A complete, checked set of choices.

    Attributes:
        window: Frames per window.
        stride: New frames per window.
        steps: Denoising steps, the length of `sigmas` where that is given.
        sigmas: Falling noise levels closed by 0, or None for the checkpoint's schedule.
        strategy: How windows hand context on.
        sampler: Euler variant.
        max_res: Longest side in pixels that the model works at; None: `area_px` decides.
        area_px: Number of pixels that the model works at, about, whatever the picture's shape; None: `max_res` decides.
        seed: Seeds the noise.
        flow: Whether depth is carried along optical flow from frame to frame.
    """

    window: int
    stride: int
    steps: int
    sigmas: tuple[float, ...] | None
    strategy: str
    sampler: str
    max_res: int | None
    area_px: int | None
    seed: int
    flow: bool

    @property
    def layout(self) -> Layout:
        """The window plan that the strategy goes with."""
        return "cut" if self.strategy == "crossfade" else "sliding"

    @property
    def overlap(self) -> int:
        """Frames that a full window shares with the one before."""
        return self.window - self.stride


class SettingOptions(TypedDict, total=False):
    """The choices of a run that a caller may make; `RunSettings` says what each is."""

    window: int | None
    stride: int | None
    steps: int | None
    sigmas: Sequence[float] | None
    strategy: str | None
    sampler: str | None
    max_res: int | None
    seed: int
    flow: bool | None


def choose_settings(spec: CheckpointSpec, **given: Unpack[SettingOptions]) -> RunSettings:
    """Fill what is unset or None from the checkpoint's recommendations and check the whole.

    Raises:
        ValueError: Names the argument, the value and what is accepted.
        TypeError: A keyword is not known.
    """
    check_keywords("choose_settings", given, SettingOptions.__annotations__)
    window, stride, steps, max_res = (given.get(name) for name in ("window", "stride", "steps", "max_res"))
    sigmas, strategy = given.get("sigmas"), given.get("strategy")
    if stride is None:
        # A window chosen alone keeps the recommended share of new frames.
        stride = spec.stride if window is None else max(1, min(window, round(window * spec.stride / spec.window)))
    window = _whole("window", spec.window if window is None else window)
    stride = _whole("stride", stride)
    check_plan(window, stride)
    levels = None
    if sigmas is not None:
        levels = tuple(check_sigmas(sigmas))
        if steps is not None and steps != len(levels) - 1:
            raise ValueError(f"steps: {steps} does not fit the {len(levels) - 1} given sigmas; leave one of them out")
        steps = len(levels) - 1
    steps = _at_least_one("steps", spec.steps if steps is None else steps, "a number of denoising steps from 1 up")
    area_px = spec.area_px if max_res is None and spec.area_px else None
    if area_px is None:
        max_res = _at_least_one("max_res", spec.max_res if max_res is None else max_res, "a longest side in pixels")
        if max_res < spec.multiple:
            raise ValueError(f"max_res: {max_res} is smaller than the {spec.multiple} px that this checkpoint works in")
    seed = _whole("seed", given.get("seed", 0))
    if not 0 <= seed < 2**64:
        raise ValueError(f"seed: {seed} is not accepted; give a whole number from 0 to 2^64 - 1")
    strategy = known_name("strategy", strategy or spec.strategy, STRATEGIES)
    return RunSettings(
        window=window,
        stride=stride,
        steps=steps,
        sigmas=levels,
        strategy=strategy,
        sampler=known_name("sampler", given.get("sampler") or spec.sampler, SAMPLERS),
        max_res=max_res,
        area_px=area_px,
        seed=seed,
        flow=_flow(spec, strategy, window, stride, given.get("flow")),
    )


@dataclass(frozen=True)
class WindowSettings:
    """The choices about a network that leaves little to choose.

    Attributes:
        window: Frames that go through it at a time.
        stride: New frames among them.
        max_res: Longest side in pixels that it works at; None: its own rule decides.
        seed: Seeds the noise, of a network that starts from noise.
    """

    window: int
    stride: int
    max_res: int | None
    seed: int = 0


def choose_window_settings(name: str, windows: tuple[int, int], least_px: int, given: SettingOptions) -> WindowSettings:
    """Settings of a network whose windows are its own; what would have no effect is refused.

    Args:
        name: Of the checkpoint.
        windows: Frames that it takes at a time, and new ones among them.
        least_px: The smallest side that it works at.
        given: What the caller chose.

    Raises:
        ValueError: Names the argument, the value and what is accepted.
    """
    check_keywords("choose_settings", given, SettingOptions.__annotations__)
    for option, fixed in (("window", windows[0]), ("stride", windows[1]), ("seed", 0)):
        if given.get(option) not in (None, fixed):
            raise ValueError(f"{option}: {given.get(option)} is not accepted; {name} has {fixed}")
    for option, value in given.items():
        if value is not None and option not in ("window", "stride", "seed", "max_res"):
            raise ValueError(f"{option}: {value} has no effect on {name}; leave it out")
    max_res = given.get("max_res")
    if max_res is not None and _at_least_one("max_res", max_res, "a longest side in pixels") < least_px:
        raise ValueError(f"max_res: {max_res} is smaller than the {least_px} px that this checkpoint works in")
    return WindowSettings(*windows, max_res)


def _flow(spec: CheckpointSpec, strategy: str, window: int, stride: int, flow: bool | None) -> bool:
    """Whether depth follows the flow: a kind of context, for checkpoints made for it."""
    possible = spec.flow and strategy == "context" and stride < window
    if flow and not spec.flow:
        raise ValueError("flow: True is not accepted; this checkpoint does not carry depth along optical flow")
    if flow and strategy != "context":
        raise ValueError(f"flow: True is not accepted with strategy {strategy!r}; it goes with 'context'")
    if flow and stride == window:
        raise ValueError(f"flow: True is not accepted with window {window} and stride {stride}, which share no frame")
    return possible if flow is None else flow


def check_sigmas(sigmas: Sequence[float]) -> list[float]:
    """Close a caller's list of noise levels with 0.

    Raises:
        ValueError: Unless the levels are positive and falling (a closing 0 may be given or left out).
    """
    levels = [float(sigma) for sigma in sigmas]
    if levels and levels[-1] == 0:
        levels = levels[:-1]
    falling = all(first > second for first, second in zip(levels, levels[1:], strict=False))
    if not levels or not falling or not all(0 < level < float("inf") for level in levels):
        raise ValueError(f"sigmas: {list(sigmas)} is not accepted; give falling noise levels above 0, such as 700,15")
    return [*levels, 0.0]


def _whole(argument: str, value: Any) -> int:
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise ValueError(f"{argument}: {value!r} is not accepted; give a whole number")
    return int(value)


def _at_least_one(argument: str, value: Any, accepted: str) -> int:
    number = _whole(argument, value)
    if number < 1:
        raise ValueError(f"{argument}: {number} is not accepted; give {accepted}")
    return number
