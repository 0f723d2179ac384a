"""Options that several commands take, each written once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import click
from click.core import ParameterSource

_STREAM_HELP = "Which video stream, counted from 0.  [default: the one marked so, the largest of several]"
_FPS_HELP = "Reduce to this frame rate; of images: their rate.  [default of images: 24]"
_TRANSFER_HELP = "How images store their values: srgb, linear or log (Cineon).  [default: as the format says]"
CLIP_FIELDS = {"start": "start_s", "end": "end_s"}  # of a `Take`; the others have the option's name
CLIP_FIELDS |= {name: name for name in ("fps", "max_frames", "stream", "transfer")}

_OPTIONS: tuple[tuple[str, Any, str], ...] = (
    ("model", str, "Depth checkpoint: bundled, chronodepth, depthcrafter, a folder, or owner/name[@revision]."),
    ("spec", str, "What the checkpoint in a folder expects: chronodepth or depthcrafter."),
    ("base", str, "SVD folder or hub id that a UNet alone belongs to."),
    ("window", int, "Frames per depth window."),
    ("stride", int, "New frames per depth window."),
    ("steps", int, "Denoising steps of depth."),
    ("strategy", str, "How depth windows meet: context, replacement, independent or crossfade."),
    ("sampler", str, "euler or reference."),
    ("max-res", int, "Longest side in pixels that the depth model works at."),
)


def options(*added: Callable) -> Callable[[Callable], Callable]:
    """Several click options as one decorator, listed in this order by `--help`."""

    def add(command: Callable) -> Callable:
        for option in reversed(added):
            command = option(command)
        return command

    return add


def take_options() -> Callable[[Callable], Callable]:
    """Which part of a clip to take, and how it is read."""
    return options(
        click.option("--start", type=float, help="Start of the part to take, seconds."),
        click.option("--end", type=float, help="End of the part to take, seconds."),
        click.option("--fps", type=float, help=_FPS_HELP),
        click.option("--max-frames", type=int, help="Take this many frames at the most."),
        click.option("--stream", type=int, help=_STREAM_HELP),
        click.option("--transfer", help=_TRANSFER_HELP),
    )


def clip_options(*, resume: bool = True) -> Callable[[Callable], Callable]:
    """INPUT, the part of it to take, and how the run goes.

    Args:
        resume: Whether the command goes on with an interrupted run.
    """
    going_on = click.option("--resume", is_flag=True, help="Go on with an interrupted run, to the same bytes.")
    return options(
        click.argument("source", metavar="INPUT"),
        take_options(),
        click.option("--overwrite", is_flag=True, help="Replace results that exist."),
        *([going_on] if resume else []),
        click.option("--quiet", is_flag=True, help="No progress bar, no summary."),
        click.option("--debug", is_flag=True, help="Show tracebacks."),
    )


def refuse_unused(names: Iterable[str], why: str) -> None:
    """Refuse options of the running command that were typed and would have no effect.

    Args:
        names: Of the command's arguments.
        why: Goes on after "--option: ".

    Raises:
        ValueError: Names the first of them.
    """
    running, wanted = click.get_current_context(), set(names)
    for option in running.command.params:
        source = running.get_parameter_source(option.name or "")
        if option.name in wanted and source is ParameterSource.COMMANDLINE:
            raise ValueError(f"{option.opts[0]}: {why}")


def taken(given: dict[str, Any]) -> dict[str, Any]:
    """The keywords of a job that `clip_options` gave, taken out of a command's arguments.

    Raises:
        ValueError: `--overwrite` and `--resume` were both given.
    """
    if given["overwrite"] and given.get("resume"):
        raise ValueError("--overwrite and --resume exclude each other; leave one of them out")
    clip = {field: given.pop(name) for name, field in CLIP_FIELDS.items()}
    return {**clip, "overwrite": given.pop("overwrite"), "resume": given.pop("resume", False)}


def depth_options(prefix: str = "", *, sources: str = "") -> Callable[[Callable], Callable]:
    """Where depth comes from: a file, or the engine with its options.

    Args:
        prefix: As for `engine_options`.
        sources: What `--depth` takes besides files, for the help.
    """
    files = "Depth to use: npy, npz, a folder of png or exr, 16-bit grey mkv"
    return options(
        click.option("--depth", help=f"{files}{sources}.  [default: estimated by the engine]"),
        click.option("--depth-kind", help="disparity, depth or metric, where no sidecar of a depth file says it."),
        click.option("--shots/--no-shots", default=True, help="Find cuts.  [default: --shots]"),
        click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps."),
        click.option("--dtype", default="auto", show_default=True, help="auto, float32, float16, bfloat16."),
        click.option("--seed", type=int, default=0, show_default=True, help="Of all noise."),
        engine_options(prefix),
    )


def engine_options(prefix: str = "") -> Callable[[Callable], Callable]:
    """The engine's options for another command, as click options named `--PREFIXmodel` and so on.

    Args:
        prefix: Such as `depth-`, where the command has options of the same names.
    """

    def add(command: Callable) -> Callable:
        for name, kind, text in reversed(_OPTIONS):
            command = click.option(f"--{prefix}{name}", f"engine_{name.replace('-', '_')}", type=kind, help=text)(
                command
            )
        switch = click.option(
            f"--{prefix}flow/--no-{prefix}flow",
            "engine_flow",
            default=None,
            help="Carry depth along optical flow (bundled and its like).",
        )
        return switch(command)

    return add


def depth_request(given: dict[str, Any]) -> Any:
    """The `DepthRequest` that `depth_options` gave, whose arguments are taken out."""
    from depth_engine.depth.input import DepthRequest

    engine = {name.removeprefix("engine_"): given.pop(name) for name in list(given) if name.startswith("engine_")}
    shared = {name: given.pop(name) for name in ("shots", "device", "dtype", "seed")}
    return DepthRequest(given.pop("depth"), given.pop("depth_kind"), engine, **shared)
