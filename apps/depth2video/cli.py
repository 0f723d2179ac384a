"""The `depth2video` command: a clip's depth drives a new clip.

Exit codes: 2 for a request that can't be done, told before anything heavy loads; 1 for a run that failed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from depth_engine.cli.group import OneLineGroup, show_notes, told
from depth_engine.cli.options import clip_options, depth_options, depth_request, options, refuse_unused, taken

_PATH = click.Path(path_type=Path)
_PARTS = ("base", "controlnet", "motion_adapter", "ip_adapter")


class _VideoByDefault(OneLineGroup):
    """`depth2video INPUT ...` is short for `depth2video video INPUT ...`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "-h", "--help", "--version"):
            args = ["video", *args]
        return super().parse_args(ctx, args)


_output_options = options(
    click.option("-o", "--output", type=_PATH, required=True, help="Video file to write."),
    click.option("--codec", default="h264", show_default=True, help="h264, prores (.mov) or ffv1 (.mkv)."),
    click.option("--size", help="WIDTHxHEIGHT; the clip is scaled to cover it and cropped, never stretched."),
    click.option(
        "--normalize",
        help="Black and white of the control: clip (2nd and 98th percentile of the whole clip), frame (of each "
        "frame), none (values as they are).  [default: clip; none for midas, zoe, leres]",
    ),
    click.option("--annotator-weights", help="Folder or hub id of midas', zoe's or leres' weights."),
    click.option("--detect-resolution", type=int, help="Short side that midas, zoe, leres work at.  [default: 512]"),
)
_depth_options = depth_options("depth-", sources="; or engine, midas, zoe, leres")


_generator_options = options(
    click.option(
        "--generator",
        help="bundled, svd, animatediff or wan-vace; see `depth2video generators`.  [default: bundled]",
    ),
    click.option("--prompt", help="What the clip shall show (animatediff, wan-vace)."),
    click.option("--negative-prompt", help="What it shall not show."),
    click.option(
        "--image",
        type=_PATH,
        help="Picture that gives the look: the first frame, edited (bundled, svd; default: as it is), a style "
        "(animatediff), a reference (wan-vace).",
    ),
    click.option(
        "--image-fit",
        default="crop",
        show_default=True,
        help="A picture of other proportions is scaled and cropped (crop), or its edges are repeated (pad).",
    ),
    click.option("--control-scale", type=float, default=1.0, show_default=True, help="How strongly depth steers."),
    click.option(
        "--control-start", type=float, default=0.0, show_default=True, help="Share of steps where control begins."
    ),
    click.option("--control-end", type=float, default=1.0, show_default=True, help="Share of steps where it ends."),
    click.option("--steps", type=int, help="Denoising steps."),
    click.option("--guidance", type=float, help="Classifier-free guidance, 1 is none."),
    click.option("--strength", type=float, help="Start from the source's frames: share of denoising they go through."),
    click.option(
        "--fps-id", type=int, help="Frames per second that svd is told, 1 to 30.  [default: the clip's, at most 30]"
    ),
    click.option("--motion", type=int, help="How much svd is told to move, 1 to 255.  [default: 127]"),
    click.option("--window", type=int, help="Frames per window."),
    click.option("--stride", type=int, help="New frames per window."),
    click.option("--control-out", type=_PATH, help="Video of the control; lossless as .mkv."),
    click.option("--base", help="Folder or hub id of the generator's checkpoint; of animatediff also one file."),
    click.option("--controlnet", help="Folder or hub id of its depth ControlNet (svd, animatediff: also one file)."),
    click.option("--motion-adapter", help="Folder, hub id or file of its motion adapter (animatediff)."),
    click.option("--ip-adapter", help="Folder or hub id of the adapter that reads --image (animatediff)."),
    click.option(
        "--offload",
        default="none",
        show_default=True,
        help="Save GPU memory: none, model (a model at a time), sequential (a layer at a time, slow).",
    ),
)


@click.group(cls=_VideoByDefault, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="depth-engine")
def main() -> None:
    """A clip's depth drives a new clip.

    `depth2video INPUT -o OUT.mp4` is short for `depth2video video INPUT -o OUT.mp4`; all its options:
    `depth2video video --help`.
    """


@main.command()
@clip_options()
@_output_options
@_depth_options
@_generator_options
def video(source: str, quiet: bool, debug: bool, **given: Any) -> None:
    """Make a new video that moves as INPUT does (the default command)."""
    with told(debug, 2):
        from depth2video.generators.interface import Request
        from depth2video.plan.asked import AskedGenerator, AskedPicture
        from depth2video.plan.render import CONTROL, plan_video

        _refuse_without_effect(given, video=True)
        control, control_out = _asked_control(given), given.pop("control_out")
        job = _job(source, given, companions={} if control_out is None else {CONTROL: control_out})
        parts = {name: given.pop(name) for name in _PARTS}
        working = {name: given.pop(name) for name in ("size", "window", "stride", "offload")}
        asked = AskedGenerator(given.pop("generator"), parts, **working)
        picture = AskedPicture(given.pop("image"), given.pop("image_fit"))
        plan = plan_video(job, control, asked, Request(**given), picture)
    _run(plan, quiet, debug, "video")


@main.command()
@clip_options()
@_output_options
@_depth_options
@click.option("--generator", help="Choose the size for it: bundled, svd, animatediff or wan-vace.")
def control(source: str, quiet: bool, debug: bool, **given: Any) -> None:
    """Write INPUT's depth as a control video, near is white, for other tools too; at INPUT's size unless told."""
    with told(debug, 2):
        from depth2video.plan.control_video import plan_control

        _refuse_without_effect(given, video=False)
        asked = _asked_control(given)
        job = _job(source, given, sound=False)
        plan = plan_control(job, asked, **given)
    _run(plan, quiet, debug, "control")


@main.command()
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def generators(debug: bool) -> None:
    """What generators there are: checkpoints, licences, memory, frames and sizes."""
    with told(debug, 2):
        from depth2video.generators.catalogue import describe_generators

        click.echo("\n".join(describe_generators()))


def _refuse_without_effect(given: dict[str, Any], *, video: bool) -> None:
    """Refuse options that were typed and that nothing would read.

    Args:
        given: The command's arguments.
        video: Whether a generator works after the depth; device, dtype and seed are its own, too.
    """
    from depth2video.annotators import ANNOTATORS

    depth = given["depth"] or "engine"
    file = depth not in ("engine", *ANNOTATORS)
    if file:
        refuse_unused(["shots"], "has no effect on --depth FILE, which says itself where the clip cuts")
    if file and not video:
        refuse_unused(["device"], "has no effect; the depth is made already")
    if depth != "engine" and not video:
        refuse_unused(["dtype", "seed"], "only applies to --depth engine")
    if video and given["image"] is None:
        refuse_unused(["image_fit"], "only applies with --image")
    if video and given["generator"] in (None, "bundled"):
        refuse_unused(
            ["control_start", "control_end"], "the small generator takes one step; --control-scale says how much"
        )
        if depth != "engine":
            refuse_unused(["seed"], "has no effect; neither the small generator nor this depth draws noise")


def _asked_control(given: dict[str, Any]) -> Any:
    """How the control is made, of a command's arguments, which are taken out."""
    from depth2video.plan.asked import AskedControl

    own = {name: given.pop(name) for name in ("normalize", "annotator_weights", "detect_resolution")}
    return AskedControl(depth_request(given), **own)


def _job(source: str, given: dict[str, Any], **more: Any) -> Any:
    """The clip job of a command's arguments, which are taken out."""
    from depth_engine.runs.derived_clip import ClipJob

    return ClipJob(source, output=given.pop("output"), codec=given.pop("codec"), **taken(given), **more)


def _run(plan: Any, quiet: bool, debug: bool, what: str) -> None:
    """Run a plan with progress, and say what came of it."""
    from depth_engine.cli.progress import frame_progress

    known = [*plan.info.notes, *plan.notes]
    show_notes(known, quiet=quiet)
    total = plan.job.expected_frames(plan.info)
    with told(debug, 1), frame_progress(total, quiet=quiet) as begin:
        outputs, notes = plan.run(begin("depth"), begin(what))
    show_notes([note for note in notes if note not in known], quiet=quiet)
    if not quiet:
        click.echo(f"{plan.job.output}: {', '.join(path.name for path in outputs[1:])} beside it")


if __name__ == "__main__":
    main()
