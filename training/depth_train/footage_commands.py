"""Checkpoints on real clips: the numbers of `depth-train score --footage`, and `depth-train sheet`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from depth_engine.cli.group import told

if TYPE_CHECKING:
    from depth_engine import DepthEngine
    from depth_train.footage import Footage


def read_all_footage(engine: DepthEngine, paths: Sequence[Path], max_frames: int) -> list[Footage]:
    """Clips with their truth, for a checkpoint that gives disparity.

    Raises:
        ValueError: The checkpoint gives something else, or a path has no truth.
    """
    if engine.spec.kind != "disparity":
        raise ValueError(f"--footage: the checkpoint gives {engine.spec.kind}; those of disparity are scored on clips")
    from depth_train.footage import read_footage

    return [read_footage(path, max_frames) for path in paths]


def print_footage_scores(engine: DepthEngine, clips: Sequence[Footage]) -> None:
    """A table: each clip's scores by the checkpoint, by the picture's row alone, and by the best constant."""
    import numpy as np

    from depth_train.score_footage import score_footage

    click.echo(f"{'':<34}{'delta1':>8}{'AbsRel':>8}{'Spearman':>10}{'drift':>8}")
    for clip in clips:
        click.echo(f"{clip.name}: {len(clip.frames)} frames, truth by {clip.truth}")
        values = engine.estimate(np.stack(clip.frames), shots=False).values
        for name, score in score_footage(values, clip).items():
            numbers = f"{score.delta1:>8.3f}{score.abs_rel:>8.3f}{score.spearman:>10.3f}{score.drift:>8.3f}"
            click.echo(f"  {name:<32}{numbers}")


def print_store_scores(engine: DepthEngine, store: Path, max_views: int) -> None:
    """A table: mean scores over the views of each kind of place, each view with a scale and shift of its own.

    Raises:
        ValueError: The store can't be read, or no view has depth.
    """
    from collections import defaultdict

    import numpy as np

    from depth_train.footage import read_views
    from depth_train.score_footage import score_footage

    found = defaultdict(list)
    for place, view in read_views(store, max_views):
        values = engine.estimate(np.stack(view.frames), shots=False).values
        for name, score in score_footage(values, view).items():
            numbers = (score.delta1, score.abs_rel, score.spearman, score.drift)
            found[place, name].append(numbers)
            found["all", name].append(numbers)
    if not found:
        raise ValueError(f"--store: no view in {store} has enough depth to score")
    click.echo(f"{'':<34}{'delta1':>8}{'AbsRel':>8}{'Spearman':>10}{'drift':>8}")
    for place in sorted({place for place, _ in found}, key=lambda name: (name == "all", name)):
        click.echo(f"{place}: {len(found[place, 'depth'])} views")
        for name in ("depth", "image row", "constant"):
            delta1, abs_rel, spearman, drift = _means(found[place, name])
            click.echo(f"  {name:<32}{delta1:>8.3f}{abs_rel:>8.3f}{spearman:>10.3f}{drift:>8.3f}")


def _means(rows: Sequence[tuple[float, ...]]) -> list[float]:
    """Column by column over the rows that have a number there; nan where none has."""
    known = ([value for value in column if value == value] for column in zip(*rows, strict=True))
    return [sum(column) / len(column) if column else float("nan") for column in known]


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
