"""`depth-train assets` and `depth-train scenes`: models and pictures, and the store of views rendered of them."""

from __future__ import annotations

import time
from collections import Counter
from functools import partial
from pathlib import Path

import click

from depth_engine.cli.group import told


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), help="Where they are kept.  [default: the user's cache]")
@click.option("--no-fetch", is_flag=True, help="Download nothing: check and list what the folder holds.")
@click.option("--check", is_flag=True, help="Load every model once (minutes); names those that fail.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def assets(folder: Path | None, no_fetch: bool, check: bool, debug: bool) -> None:
    """Fetch models and pictures for scenes (Debian's packages), and list what there is with its licences.

    Folders of your own models (.obj, .glb, .ply, ...) and pictures may be put beside the packages.
    """
    with told(debug, 2):
        from depth_train.scenes.models.assets import assets_folder, fetch_packages, licence_texts
        from depth_train.scenes.models.catalog import read_catalog
        from depth_train.scenes.models.meshes import load_model

        held = folder or assets_folder()
        missing = [] if no_fetch else fetch_packages(held, click.echo)
        catalog = read_catalog(held)
    with told(debug, 1):
        failed = []
        for model in catalog.models if check else ():
            try:
                load_model(model, held / ".prepared")
            except ValueError as error:
                failed.append(str(error))
    click.echo(f"{held}: {len(catalog.models)} models, {len(catalog.pictures)} pictures")
    for what, things in (("models", catalog.models), ("pictures", catalog.pictures)):
        counts = Counter(thing.role for thing in things)
        kept = sum(thing.held_out for thing in things)
        listed = ", ".join(f"{count} {role}" for role, count in counts.most_common())
        click.echo(f"  {what}: {listed}; {kept} kept out of training, for validation")
    for licence, count in Counter(model.licence for model in catalog.models if model.licence).most_common():
        click.echo(f"  {count} models: {licence}")
    creators = sorted({model.creator for model in catalog.models if model.creator})
    if creators:
        click.echo(f"  models by: {', '.join(creators)}")
    for path in licence_texts(held):
        click.echo(f"  licences in full: {path}")
    for line in (*missing, *catalog.left_out, *failed):
        click.echo(f"left out: {line}", err=True)


@click.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Store.  [default: the user's cache]")
@click.option("--assets", "folder", type=click.Path(path_type=Path), help="Folder of models and pictures.")
@click.option("--scenes", type=click.IntRange(1), default=100, show_default=True, help="Number of scenes.")
@click.option("--views", type=click.IntRange(1), default=6, show_default=True, help="Cameras in each scene.")
@click.option("--frames", type=click.IntRange(1), default=1, show_default=True, help="Frames of each view.")
@click.option("--first-seed", type=click.IntRange(0), help="Of the scenes.  [default: 1000000; 0 with --held-out]")
@click.option("--step", type=click.IntRange(1), default=1, show_default=True, help="Take every so many seeds.")
@click.option("--held-out", is_flag=True, help="Of the models and pictures that are kept out of training.")
@click.option("--procedural", is_flag=True, help="Scenes of simple shapes in place of models; need no assets.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Stop after these.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def scenes(
    output: Path | None,
    folder: Path | None,
    scenes: int,
    views: int,
    frames: int,
    first_seed: int | None,
    step: int,
    held_out: bool,
    procedural: bool,
    minutes: float | None,
    debug: bool,
) -> None:
    """Render views of scenes of real models into a store that training reads; what is there already stays.

    Two commands at once, one with --first-seed 1000000 --step 2 and one with --first-seed 1000001 --step 2, use two
    cores.
    """
    with told(debug, 2):
        from depth_train.data.rendered import default_store
        from depth_train.scenes.models.assets import assets_folder
        from depth_train.scenes.models.catalog import read_catalog
        from depth_train.scenes.models.scene import render_views
        from depth_train.scenes.models.store import FIRST_TRAINING_SEED, fill_store

        store = output or default_store("images" if frames == 1 else "clips")
        if held_out and output is None:
            store = store.with_name(f"{store.name}-held-out")
        if store.exists() and not store.is_dir():
            raise ValueError(f"--output: {store} is a file; give a folder")
        if procedural and folder is not None:
            raise ValueError("--procedural and --assets exclude each other; leave one of them out")
        if procedural:
            from depth_train.scenes.procedural.views import render_procedural as render
        else:
            source = folder or assets_folder()
            render = partial(render_views, catalog=read_catalog(source).part(held_out), cache=source / ".prepared")
        first = first_seed if first_seed is not None else (0 if held_out else FIRST_TRAINING_SEED)
        if held_out != (first < FIRST_TRAINING_SEED):
            accepted = f"0 to {FIRST_TRAINING_SEED - 1} with --held-out, {FIRST_TRAINING_SEED} and above without"
            raise ValueError(f"--first-seed: {first} is not accepted; give {accepted}")
    with told(debug, 1):
        began = time.monotonic()
        seeds = range(first, first + scenes * step, step)
        written = fill_store(
            store,
            partial(render, views=views, frames=frames),
            seeds,
            frames=frames,
            report=lambda line: click.echo(line, err=True),
            stop=lambda: minutes is not None and time.monotonic() - began > minutes * 60,
        )
    seconds = time.monotonic() - began
    rate = f", {written * frames / seconds:.2f} frames a second" if written else ""
    click.echo(f"{store}: {written} views of {frames} frames written in {seconds:.0f} s{rate}")


@click.command()
@click.argument("store", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder for the packs.")
@click.option("--megabytes", type=click.FloatRange(0, min_open=True), default=15, show_default=True, help="Of a pack.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the order.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def pack(store: Path, output: Path, megabytes: float, seed: int, debug: bool) -> None:
    """Pack STORE, some 7 kB a view, in an order drawn at random: for a machine with a GPU (preset real-gpu)."""
    with told(debug, 2):
        import os
        import random

        from depth_train.scenes.models.pack import write_packs
        from depth_train.scenes.models.store import list_views

        if not store.is_dir():
            raise ValueError(f"STORE: no such folder: {store}; `depth-train scenes -o {store}` makes it")
        views = list_views(store)
        random.Random(seed).shuffle(views)
    with told(debug, 1):
        written = write_packs(views, output, megabytes, os.cpu_count() or 1)
    click.echo(f"{output}: {len(written)} packs, {sum(path.stat().st_size for path in written) / 1e6:.0f} MB")
