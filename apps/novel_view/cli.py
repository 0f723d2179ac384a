"""The `novel-view` command: a real clip from another camera.

Exit codes: 2 for a request that can't be done, told before anything heavy loads; 1 for a run that failed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from depth_engine.cli.group import OneLineGroup, show_notes, told
from depth_engine.cli.options import clip_options, depth_options, depth_request, options, refuse_unused, taken
from novel_view.scene_commands import export, nerf, poses

_OUTPUT = click.Path(path_type=Path)


_OF_PATH = ("amplitude", "period", "easing", "smooth")

_video_options = options(
    click.option("--duration", type=float, help="Of a single image: seconds to show it for.  [default: one frame]"),
    click.option("-o", "--output", type=_OUTPUT, required=True, help="Video file to write."),
    click.option("--codec", default="h264", show_default=True, help="h264, prores (.mov) or ffv1 (.mkv)."),
    click.option(
        "--mask-out",
        type=_OUTPUT,
        help="Video of the holes: white where no pixel of the frame itself came to lie, before any filling.",
    ),
    click.option("--sharpen/--no-sharpen", default=True, help="Move depth borders to the picture's first."),
    click.option(
        "--edge/--no-edge",
        default=True,
        help="Let pixels that mix a near thing with what lies behind move with it.  [default: --edge]",
    ),
)


@click.group(cls=OneLineGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="depth-engine")
def main() -> None:
    """New views of a clip by its depth: camera moves, stereo, poses, and data sets for nerfstudio."""


@main.command()
@clip_options()
@depth_options()
@_video_options
@click.option(
    "--path",
    default="orbit",
    show_default=True,
    help="orbit, lateral, dolly, zoom, dolly-zoom, arc, handheld, stabilize, or a .json file.",
)
@click.option(
    "--amplitude", type=float, help="Per cent of the scene's median depth (zoom: of the focal length).  [default: 8]"
)
@click.option("--period", type=float, help="Seconds of a swing, or of a one-way move.  [default: 4]")
@click.option("--easing", help="smooth, linear or sine, for one-way moves.  [default: smooth]")
@click.option("--smooth", type=float, default=0.5, show_default=True, help="Seconds that stabilize averages over.")
@click.option("--fov", type=float, help="Vertical field of view of the clip, degrees.  [default: 50]")
@click.option("--focal", type=float, help="Or its focal length in pixels.")
@click.option("--near", type=float, help="Distance of the nearest depth value; with --far.")
@click.option("--far", type=float, help="Distance of the farthest depth value.")
@click.option("--poses", type=_OUTPUT, help="Cameras of the clip, from `novel-view poses`.")
@click.option(
    "--transforms",
    type=_OUTPUT,
    help="nerfstudio's dataparser_transforms.json, for a camera path that its viewer saved; needs --poses.",
)
@click.option("--fill", default="spatial", show_default=True, help="Holes: none, spatial, or temporal (needs --poses).")
@click.option(
    "--crop",
    default="0",
    help="Per cent of each side to cut, so that moved borders fall outside; the rest is shown at the clip's size. "
    "auto: as little as does it in every frame.",
)
@click.option("--overscan", type=float, default=0.0, help="Per cent to render beyond each side: larger frames.")
def render(source: str, quiet: bool, debug: bool, **given: Any) -> None:
    """Show INPUT from a moving camera."""
    with told(debug, 2):
        from novel_view.paths import ONE_WAY, PATHS
        from novel_view.views.framing import Framing
        from novel_view.views.render_command import Look, Move, Scene, fov_of, plan_render
        from novel_view.views.rendering import Borders

        if given["path"] != "stabilize":
            refuse_unused(["smooth"], "only applies to --path stabilize")
        if given["path"] in PATHS and given["path"] not in ONE_WAY:
            refuse_unused(["easing"], f"only applies to one-way moves: --path {', '.join(ONE_WAY)}")
        job, depth = _job(source, given), depth_request(given)
        scene = Scene(fov_of(job, given["fov"], given["focal"]), given["near"], given["far"], given["poses"])
        move = Move(**{name: given[name] for name in ("path", *_OF_PATH, "transforms")})
        framing = Framing.asked(given["crop"], given["overscan"])
        look = Look(given["fill"], Borders(given["sharpen"], given["edge"]), framing)
        plan = plan_render(job, move, scene, look, depth)
    _run(plan, quiet, debug)


@main.command()
@clip_options()
@depth_options()
@_video_options
@click.option(
    "--layout", default="half-sbs", show_default=True, help="half-sbs, sbs, half-tb, tb, anaglyph, left, right."
)
@click.option(
    "--separation",
    type=float,
    default=2.5,
    show_default=True,
    help="Parallax from farthest to nearest, per cent of the width.",
)
@click.option(
    "--convergence",
    type=float,
    default=0.5,
    show_default=True,
    help="Disparity in the screen's plane: 0 farthest, 1 nearest.",
)
@click.option("--swap-eyes", is_flag=True, help="Right eye first, for looking cross-eyed.")
@click.option(
    "--right-out", type=_OUTPUT, help="With --layout left: the right eye in a file of its own, in the same run."
)
def stereo(source: str, quiet: bool, debug: bool, **given: Any) -> None:
    """Left and right view of INPUT in one video."""
    with told(debug, 2):
        from novel_view.views.rendering import Borders
        from novel_view.views.stereo import Eyes
        from novel_view.views.stereo_command import plan_stereo

        job, depth = _job(source, given), depth_request(given)
        eyes, borders = Eyes(given["separation"], given["convergence"]), Borders(given["sharpen"], given["edge"])
        plan = plan_stereo(job, eyes, given["layout"], borders, depth, swap_eyes=given["swap_eyes"])
    _run(plan, quiet, debug)


def _job(source: str, given: dict[str, Any]) -> Any:
    """The clip job of a command's arguments, which are taken out."""
    from depth_engine.runs.derived_clip import ClipJob

    files = {"mask": given.pop("mask_out"), "right": given.pop("right_out", None)}
    return ClipJob(
        source,
        output=given.pop("output"),
        codec=given.pop("codec"),
        companions={name: path for name, path in files.items() if path is not None},
        alike=("right",),
        duration_s=given.pop("duration"),
        **taken(given),
    )


def _run(plan: Any, quiet: bool, debug: bool) -> None:
    """Run a plan with progress, and say what came of it."""
    from depth_engine.cli.progress import frame_progress

    show_notes([*plan.info.notes, *_on_stills(plan)], quiet=quiet)
    total = plan.job.expected_frames(plan.info)
    with told(debug, 1), frame_progress(total, quiet=quiet) as begin:
        outputs, notes = plan.run(begin("depth"), begin("views"))
    show_notes(notes, quiet=quiet)
    if not quiet:
        click.echo(f"{plan.job.output}: {', '.join(path.name for path in outputs[1:])} beside it")


def _on_stills(plan: Any) -> list[str]:
    one = plan.info.kind == "sequence" and plan.info.frame_count == 1 and plan.job.duration_s is None
    return ["a single image makes a single frame; --duration SECONDS shows it longer"] if one else []


for _command in (poses, export, nerf):
    main.add_command(_command)


if __name__ == "__main__":
    main()
