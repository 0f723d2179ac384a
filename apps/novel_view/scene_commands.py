"""`novel-view poses`, `export` and `nerf`: the clip as a scene that other programs can take up.

Exit codes: 2 for a request that can't be done, told before anything heavy loads; 1 for a run that failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click

from depth_engine.cli.group import show_notes, told
from depth_engine.cli.options import clip_options, depth_options, depth_request, options, refuse_unused, taken

_PATH = click.Path(path_type=Path)
_OF_TRAINING = {"iterations", "small", "use_depth", "evaluate", "path", "amplitude", "period", "device", "overwrite"}
_WRITING = ("every", "depth_format", "eval_every", "masks", "sharpen", "cloud_points")


_pose_options = options(
    click.option("--method", default="colmap", show_default=True, help="colmap, or odometry by pictures and depth."),
    click.option("--fov", type=float, help="Vertical field of view, degrees; colmap finds it if it is not given."),
    click.option("--match-every", type=int, help="One frame in so many is matched.  [default: about 6 a second]"),
    click.option("--near", type=float, help="odometry: distance of the nearest depth value; with --far."),
    click.option("--far", type=float, help="odometry: distance of the farthest depth value."),
)
_export_options = options(
    click.option("--poses", type=_PATH, help="Cameras, from `novel-view poses`; else they are found now."),
    click.option("--every", type=int, default=1, show_default=True, help="Export one frame in so many."),
    click.option("--size", type=int, help="Longest side of the pictures at the most, pixels."),
    click.option("--depth-format", default="png16", show_default=True, help="png16 or npy."),
    click.option(
        "--eval-every", type=int, default=8, show_default=True, help="Hold out one exported frame in so many."
    ),
    click.option("--masks", type=_PATH, help="Clip or folder of masks, one to a frame: black is not trained on."),
    click.option("--sharpen/--no-sharpen", default=True, help="Move depth borders to the picture's first."),
    click.option("--cloud-points", type=int, default=500_000, show_default=True, help="Of points.ply; 0: none."),
)


@click.command()
@clip_options(resume=False)
@depth_options()
@_pose_options
@click.option("-o", "--output", type=_PATH, required=True, help="File to write, .json.")
def poses(source: str, quiet: bool, debug: bool, **given: Any) -> None:
    """Find the camera of every frame of INPUT, and how its depth fits the scene."""
    with told(debug, 2):
        from novel_view.scene_plans import plan_poses

        plan = plan_poses(_job(source, given, given.pop("output")), _finding(given), depth_request(given))
    found, _ = _shown(plan.job, plan.run, quiet, debug)
    if not quiet:
        _say(plan.notes, [*found.report(), str(plan.job.output)])


@click.command()
@clip_options(resume=False)
@depth_options()
@_pose_options
@_export_options
@click.option("-o", "--output", type=_PATH, required=True, help="Folder to write.")
def export(source: str, quiet: bool, debug: bool, **given: Any) -> None:
    """Write INPUT as a nerfstudio data set, with point clouds and cameras for COLMAP and Blender."""
    with told(debug, 2):
        plan = _export_plan(source, given, given.pop("output"))
    dataset, found = _shown(plan.job, plan.run, quiet, debug)
    if not quiet:
        _say(plan.notes, [*found.report(), *_described(dataset)])


@click.command()
@clip_options(resume=False)
@depth_options()
@_pose_options
@_export_options
@click.option("-o", "--output", type=_PATH, required=True, help="Folder to write.")
@click.option("--iterations", type=int, default=30_000, show_default=True, help="Training steps.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted training at its last checkpoint.")
@click.option("--small", is_flag=True, help="A small field, for two CPU cores and minutes.")
@click.option("--use-depth/--no-depth-loss", default=True, help="Train with the depth.  [default: --use-depth]")
@click.option(
    "--evaluate/--no-evaluate", default=True, help="Score held-out frames: PSNR, SSIM.  [default: --evaluate]"
)
@click.option(
    "--path",
    default="clip",
    show_default=True,
    help="Camera of the rendered clip: clip, a path's name, or .json (key frames, or nerfstudio's camera path).",
)
@click.option("--amplitude", type=float, help="Of a path by its name: per cent of the median depth.  [default: 8]")
@click.option("--period", type=float, help="Likewise, seconds of a swing or a one-way move.  [default: 4]")
def nerf(source: str, quiet: bool, debug: bool, output: Path, resume: bool, **given: Any) -> None:
    """Train a NeRF on INPUT, a clip or a folder of `novel-view export`, and render it along a path."""
    with told(debug, 2):
        from novel_view.nerf.command import NerfTraining
        from novel_view.scene_plans import ShownPath, plan_nerf

        folder = Path(source)
        made = not (folder / "transforms.json").exists()
        if not made:
            refuse_unused(given.keys() - _OF_TRAINING, f"only applies to a clip; {source} is a data set already")
        if given["path"] == "clip" or given["path"].lower().endswith(".json"):
            refuse_unused(["amplitude", "period"], f"only applies to a path by its name, not to --path {given['path']}")
        names = ("iterations", "small", "use_depth", "evaluate", "device")
        training = NerfTraining(**{name: given[name] for name in names})
        shown = ShownPath(given["path"], given["amplitude"], given["period"])
        overwrite = given["overwrite"]
        data = _export_plan(source, given, output.with_name(f"{output.name}.dataset")) if made else folder
        plan = plan_nerf(data, output, training, shown, overwrite=overwrite, resume=resume)
    result = _trained(plan, quiet, debug)
    if not quiet:
        scores = [f"{name} {result.report[name]:.3f}" for name in ("psnr", "ssim") if name in result.report]
        _say(plan.notes, [*(["held-out frames: " + ", ".join(scores)] if scores else []), str(result.video)])


def _job(source: str, given: dict[str, Any], output: Path) -> Any:
    from depth_engine.runs.derived_clip import ClipJob

    return ClipJob(source, output=output, **taken(given))


def _export_plan(source: str, given: dict[str, Any], output: Path) -> Any:
    from novel_view.nerf.dataset import DatasetOptions
    from novel_view.scene_plans import plan_export

    if given["poses"] is not None:
        refuse_unused(["method", "match_every"], "only applies where cameras are found; --poses gives them")

    named = {"side_px": "size", **{name: name for name in _WRITING}}
    options = DatasetOptions(**{field: given[name] for field, name in named.items()})
    job, depth = _job(source, given, output), depth_request(given)
    return plan_export(job, given["poses"], _finding(given), options, depth)


def _finding(given: dict[str, Any]) -> Any:
    from novel_view.scene_plans import Finding

    return Finding(given["method"], given["fov"], given["match_every"], given["near"], given["far"])


def _shown(job: Any, run: Callable, quiet: bool, debug: bool) -> Any:
    """Run with a bar for each stage."""
    with told(debug, 1):
        info = job.info()
        show_notes(info.notes, quiet=quiet)
        total = job.expected_frames(info)
    with told(debug, 1), _bars(quiet) as show:
        return run(lambda stage: lambda done: show(stage, done, total))


def _trained(plan: Any, quiet: bool, debug: bool) -> Any:
    """Run `nerf` with a bar for each stage: frames of the clip, steps of the training, pictures."""
    if not isinstance(plan.data, Path):
        show_notes(plan.data.job.info().notes, quiet=quiet)
    with told(debug, 1), _bars(quiet) as show:
        return plan.run(lambda stage: lambda done: show(stage, done, None), show)


@contextmanager
def _bars(quiet: bool) -> Iterator[Callable[[str, int, int | None], None]]:
    """One bar at a time; yields show(stage, done, total or None)."""
    from depth_engine.cli.progress import frame_progress

    with ExitStack() as stack:
        current: str | None = None
        bar: Callable[[int], None] = lambda done: None  # noqa: E731

        def show(stage: str, done: int, total: int | None) -> None:
            nonlocal current, bar
            if stage != current:
                stack.close()
                current, bar = stage, stack.enter_context(frame_progress(total, quiet=quiet))(stage)
            bar(done)

        yield show


def _described(dataset: Any) -> list[str]:
    return [
        f"{dataset.frames} frames exported, {dataset.held_out} of them held out; "
        f"{100 * dataset.unknown_share:.1f} % of the pixels have no depth",
        f"{dataset.folder}: ns-train depth-video-nerfacto --data {dataset.folder}",
    ]


def _say(notes: tuple[str, ...], lines: list[str]) -> None:
    show_notes(notes, quiet=False)
    for line in lines:
        click.echo(line)
