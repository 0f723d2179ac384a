"""`depth-train footage` and `depth-train sheet`: checkpoints on real clips, in numbers and side by side."""

from __future__ import annotations

from pathlib import Path

import click

from depth_engine.cli.group import told


@click.command()
@click.argument("checkpoints", nargs=-1, required=True)
@click.option(
    "--footage",
    "paths",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="A clip, or a folder of RGB-D frames in TUM's layout; may be given again.",
)
@click.option("--max-frames", type=click.IntRange(2), default=60, show_default=True, help="From each clip's beginning.")
@click.option("--max-res", type=click.IntRange(16), help="Longest side for the network.  [default: the checkpoint's]")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def footage(
    checkpoints: tuple[str, ...], paths: tuple[Path, ...], max_frames: int, max_res: int | None, debug: bool
) -> None:
    """Score CHECKPOINTS on real clips against sensor depth, or against a plain clip's own structure from motion.

    Beside each stand the best constant, and depth by the picture's row alone ("lower is nearer"). Cuts are not looked
    for: give clips of one shot.
    """
    with told(debug, 2):
        from depth_engine import DepthEngine

        engines = [(name, DepthEngine.from_pretrained(name)) for name in checkpoints]
        for name, engine in engines:
            if engine.spec.kind != "disparity":
                raise ValueError(f"checkpoints: {name} gives {engine.spec.kind}; those of disparity are scored here")
        from depth_train.footage import read_footage

        clips = [read_footage(path, max_frames) for path in paths]
    with told(debug, 1):
        import numpy as np

        from depth_train.score_footage import score_footage

        click.echo(f"{'':<34}{'delta1':>8}{'AbsRel':>8}{'Spearman':>10}{'drift':>8}")
        for clip in clips:
            click.echo(f"{clip.name}: {len(clip.frames)} frames, truth by {clip.truth}")
            rows = {}
            for name, engine in engines:
                values = engine.estimate(np.stack(clip.frames), shots=False, max_res=max_res).values
                scores = score_footage(values, clip)
                rows[Path(name).name] = scores.pop("depth")
                rows.update({key: rows.get(key, score) for key, score in scores.items()})
            for name, score in rows.items():
                numbers = f"{score.delta1:>8.3f}{score.abs_rel:>8.3f}{score.spearman:>10.3f}{score.drift:>8.3f}"
                click.echo(f"  {name:<32}{numbers}")


@click.command()
@click.argument("checkpoints", nargs=-1, required=True)
@click.option(
    "--footage",
    "paths",
    type=click.Path(path_type=Path),
    multiple=True,
    required=True,
    help="A clip or an image sequence; may be given again.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="PNG to write.")
@click.option("--columns", type=click.IntRange(1), default=6, show_default=True, help="Frames shown of each clip.")
@click.option("--max-frames", type=click.IntRange(1), default=60, show_default=True, help="From each clip's beginning.")
@click.option("--overwrite", is_flag=True, help="Replace the picture.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def sheet(
    checkpoints: tuple[str, ...],
    paths: tuple[Path, ...],
    output: Path,
    columns: int,
    max_frames: int,
    overwrite: bool,
    debug: bool,
) -> None:
    """Show what CHECKPOINTS make of clips, one under the other, in one picture."""
    with told(debug, 2):
        if output.exists() and not overwrite:
            raise FileExistsError(f"--output: {output} exists; --overwrite replaces it")
        if not output.parent.is_dir():
            raise ValueError(f"--output: {output.parent} is no folder")
        for path in paths:
            if not path.exists() and "%" not in path.name:
                raise ValueError(f"--footage: no such file or folder: {path}")
        from depth_engine import DepthEngine
        from depth_engine.video.read import read_frames

        engines = [(Path(name).name, DepthEngine.from_pretrained(name)) for name in checkpoints]
        clips = [(path.name, [frame.rgb for frame in read_frames(path, max_frames=max_frames)]) for path in paths]
    with told(debug, 1):
        from depth_train.sheet import sheet_of, write_picture

        write_picture(sheet_of(engines, clips, columns), output)
    click.echo(f"contact sheet: {output}")
