"""The `depth-engine` command: parse, check, then load. Turns errors into one line and an exit code.

Exit codes: 2 for a request that can't be done, told before weights load; 1 for a run that failed; 130 when interrupted.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from depth_engine.cli.group import OneLineGroup, _trace, told
from depth_engine.cli.options import take_options


@click.group(cls=OneLineGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="depth-engine")
def main() -> None:
    """Temporally consistent depth for video of any length."""


@main.command()
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Folder for the results, one sub-folder per clip."
)
@click.option("--model", help="bundled, chronodepth, depthcrafter, a folder, or owner/name[@revision].")
@click.option("--spec", help="What the checkpoint in a folder expects: chronodepth or depthcrafter.")
@click.option("--base", help="SVD folder or hub id that a UNet alone belongs to.")
@click.option("--format", "formats", help="Comma-separated: mkv (16-bit FFV1), npy, png16, exr, mp4 (coloured).")
@click.option("--window", type=int, help="Frames per window.")
@click.option("--stride", type=int, help="New frames per window.")
@click.option("--steps", type=int, help="Denoising steps.")
@click.option("--sigmas", help="Comma-separated falling noise levels, instead of --steps.")
@click.option("--strategy", help="context, replacement, independent or crossfade.")
@click.option("--sampler", help="euler or reference.")
@click.option("--flow/--no-flow", default=None, help="Carry depth along optical flow (bundled and its like).")
@click.option("--max-res", type=int, help="Longest side in pixels that the model works at.")
@click.option("--seed", type=int, help="Seed of the noise.  [default: 0]")
@take_options()
@click.option("--shots/--no-shots", default=None, help="Find cuts, so that no context crosses one.  [default: --shots]")
@click.option("--device", help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--dtype", help="auto, float32, float16, bfloat16.")
@click.option("--config", type=click.Path(path_type=Path), help="YAML or JSON file of these options; a sidecar works.")
@click.option("--overwrite", is_flag=True, help="Replace results that exist.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run, to the same bytes.")
@click.option("--dry-run", is_flag=True, help="Print frames, windows, memory and time; write nothing.")
@click.option("--quiet", is_flag=True, help="No progress bar, no summary.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def estimate(
    inputs: tuple[str, ...], config: Path | None, debug: bool, quiet: bool, dry_run: bool, **given: Any
) -> None:
    """Estimate the depth of clips: video files, folders of videos, image folders, patterns, or - for a pipe."""
    from depth_engine.cli.run_config import merge_options

    with told(debug, 2):
        options = merge_options(config, given)
        if not inputs:
            raise ValueError("INPUT: none was given; give video files, folders of videos or images, or - for a pipe")
        if options["output"] is None and not dry_run:
            raise ValueError("-o/--output: is missing; give a folder for the results")
        if options["overwrite"] and options["resume"]:
            raise ValueError("--overwrite and --resume exclude each other; leave one of them out")

        from depth_engine.cli.estimate import prepare

        plan = prepare(inputs, options, dry_run=dry_run)
    try:
        with told(debug, 2):
            engine = plan.load_engine()
        with told(debug, 1):
            failures = plan.dry_run(engine) if dry_run else plan.run(engine, quiet=quiet, trace=lambda: _trace(debug))
    finally:
        plan.close()
    if failures:
        sys.exit(1)


@main.command()
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def models(debug: bool) -> None:
    """Known checkpoints: what they give, where they come from, and their licences."""
    with told(debug, 2):
        from depth_engine.cli.describe import describe_models

        click.echo("\n".join(describe_models()))


@main.command()
@click.argument("file")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def info(file: str, debug: bool) -> None:
    """What a clip or a depth output is."""
    with told(debug, 2):
        from depth_engine.cli.describe import describe

        for label, value in describe(file):
            click.echo(f"{label:<13} {value}")


if __name__ == "__main__":
    main()
