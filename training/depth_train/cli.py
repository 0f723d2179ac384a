"""The `depth-train` command."""

from __future__ import annotations

import copy
import importlib.util
import sys
from functools import partial
from pathlib import Path

import click

from depth_engine.cli.group import OneLineGroup, told
from depth_train.footage_commands import print_footage_scores, print_store_scores, read_all_footage, sheet
from depth_train.scene_commands import assets, pack, scenes


@click.group(cls=OneLineGroup, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Train and score depth checkpoints, and what depth2video generates with."""


for _command in (assets, scenes, pack, sheet):
    main.add_command(_command)


@main.command()
@click.argument("config", default="bundled")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Checkpoint folder to write.")
@click.option("--init", type=click.Path(path_type=Path), help="Checkpoint folder to start from.")
@click.option("--budget-minutes", type=float, help="Wall-clock budget; the schedule is fitted to it.")
@click.option("--steps", type=int, help="Steps at the most.  [default: the config's]")
@click.option("--seed", type=click.IntRange(0), help="Of weights, draws and scenes.  [default: the config's]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda.")
@click.option("--log", type=click.Path(path_type=Path), help="Folder for TensorBoard's curves and pictures.")
@click.option("--save-every", type=float, default=5, show_default=True, help="Minutes between checkpoints.")
@click.option("--resume", is_flag=True, help="Go on with the interrupted run in the output folder.")
@click.option("--overwrite", is_flag=True, help="Replace a checkpoint of this command.")
@click.option("--shard", is_flag=True, help="Several processes: divide the model among them (FSDP), no copy for each.")
@click.option("--dry-run", is_flag=True, help="Print config, parameters and memory; train nothing.")
@click.option("--quiet", is_flag=True, help="No progress bar; a line every 50 steps.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def run(
    config: str,
    output: Path,
    init: Path | None,
    budget_minutes: float | None,
    steps: int | None,
    seed: int | None,
    device: str,
    log: Path | None,
    save_every: float,
    resume: bool,
    overwrite: bool,
    shard: bool,
    dry_run: bool,
    quiet: bool,
    debug: bool,
    task: str | None = None,
) -> None:
    """Train CONFIG (a preset, or a YAML file); the output is loadable whenever it is stopped.

    Several processes: torchrun --nproc_per_node 2 training/train.py run CONFIG -o FOLDER (or accelerate launch)
    """
    with told(debug, 2):
        from dataclasses import replace

        from depth_train.config_files import load_config

        if budget_minutes is not None and not budget_minutes > 0:
            raise ValueError(f"--budget-minutes: {budget_minutes:g} is not accepted; give minutes above 0")
        if steps is not None and steps < 1:
            raise ValueError(f"--steps: {steps} is not accepted; give a number from 1 up")
        if not save_every > 0:
            raise ValueError(f"--save-every: {save_every:g} is not accepted; give minutes above 0")
        if log is not None:
            _need("tensorboard", "--log")
        if resume and overwrite:
            raise ValueError("--overwrite and --resume exclude each other; leave one of them out")
        chosen = {"steps": steps, "seed": seed}
        resolved = replace(load_config(config), **{name: value for name, value in chosen.items() if value is not None})
        if task is not None and resolved.task != task:
            raise ValueError(f"config: {config} is of task {resolved.task}; depth-train {task} trains task {task}")
        from depth_train.checkpoints.folder import kept_of, recover

        if output.parent.is_dir():
            recover(output)
        held = kept_of(output)
        for path in held:
            if not (path / "train_config.json").is_file():
                raise ValueError(f"--output: {path} exists and is no checkpoint of this command; give another folder")
        if held and not (resume or overwrite or dry_run):
            raise FileExistsError(f"--output: {held[0]} exists; --resume goes on with it, --overwrite replaces it")
        if init is not None:
            if not init.is_dir():
                raise FileNotFoundError(f"--init: no such folder: {init}")
            if not resume and any(path.resolve() == init.resolve() for path in held):
                raise ValueError(f"--init: {init} would be deleted by --overwrite; give another --output")

        from depth_engine.devices import choose_device

        where = choose_device(device)
        from depth_train.data.clip_pool import check_sources
        from depth_train.data.held_out import judging_clips
        from depth_train.loop.checkpointer import check_same_config
        from depth_train.loop.clock import Pace
        from depth_train.loop.finetune import train
        from depth_train.loop.plan import describe_config, describe_stages, describe_without_weights
        from depth_train.loop.processes import check_shardable
        from depth_train.loop.sharding import asked_by_launcher
        from depth_train.loop.watch import Show
        from depth_train.tasks.catalogue import has_base, task_of

        if shard or asked_by_launcher():
            check_shardable(resolved)
        if dry_run:
            click.echo(describe_config(resolved))
            if resolved.task == "depth" and not has_base(resolved):
                click.echo(describe_without_weights(resolved))
                check_sources(resolved)
                return
        task_of(resolved).check(init)
        if resume:
            check_same_config(resolved, output)
        if dry_run:
            click.echo(describe_stages(resolved))
        check_sources(resolved)
        judging_clips(resolved)
        if dry_run:
            return
    with told(debug, 1):
        output.parent.mkdir(parents=True, exist_ok=True)
        train(
            resolved,
            output,
            init=init,
            device=str(where),
            resume=resume,
            shard=shard,
            pace=Pace(budget_minutes, 60 * save_every),
            show=Show(click.echo, bar=not quiet and sys.stderr.isatty(), log_folder=log),
        )


def _with_default(task: str, preset: str, text: str) -> click.Command:
    """`run` for one task alone, with another preset."""
    command = copy.copy(run)
    command.params = [copy.copy(parameter) for parameter in run.params]
    command.params[0].default = preset
    command.callback = partial(run.callback, task=task)  # type: ignore[arg-type]
    command.help = text
    return command


main.add_command(
    _with_default(
        "controlnet",
        "controlnet",
        "Train a depth ControlNet for Stable Video Diffusion, itself unchanged (CONFIG: a preset or a YAML file).\n\n"
        "--init takes a ControlNet's folder, the public one's too. Run what comes out with depth2video --generator svd "
        "--controlnet FOLDER.",
    ),
    "controlnet",
)
main.add_command(
    _with_default(
        "generator",
        "bundled-generator",
        "Train the small generator of depth2video (CONFIG: a preset or a YAML file).\n\n"
        "Run what comes out with depth2video --base FOLDER.",
    ),
    "generator",
)


@main.command()
@click.argument("checkpoint", default="bundled")
@click.option("--clips", type=click.IntRange(1), default=40, show_default=True, help="Held-out clips.")
@click.option("--frames", type=click.IntRange(2), default=24, show_default=True, help="Frames per clip.")
@click.option("--height", type=click.IntRange(16), default=144, show_default=True, help="Picture height of scenes.")
@click.option("--width", type=click.IntRange(16), default=256, show_default=True, help="Picture width of scenes.")
@click.option(
    "--dataset",
    help="Score on a data set instead, pictures in its own size: hypersim, tartanair, vkitti2, mvs-synth, folder.",
)
@click.option("--root", type=click.Path(path_type=Path), help="With --dataset: its folder.")
@click.option(
    "--split", default="val", show_default=True, help="With --dataset: which of its splits; all takes everything."
)
@click.option("--steps", type=click.IntRange(1), help="Denoising steps.  [default: the checkpoint's]")
@click.option(
    "--first-seed",
    type=click.IntRange(0, 999_999),
    default=0,
    show_default=True,
    help="Of the scenes; what is reported is from 0 up, to choose between checkpoints take others.",
)
@click.option(
    "--footage",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Score on a real clip instead: a video of one shot, or an RGB-D folder in TUM's layout; may be given again.",
)
@click.option("--max-frames", type=click.IntRange(2), default=60, show_default=True, help="With --footage: of each.")
@click.option("--store", type=click.Path(path_type=Path), help="Score on the views of `depth-train scenes` instead.")
@click.option("--max-views", type=click.IntRange(1), default=240, show_default=True, help="With --store: the first.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def score(
    checkpoint: str,
    clips: int,
    frames: int,
    height: int,
    width: int,
    dataset: str | None,
    root: Path | None,
    split: str,
    steps: int | None,
    first_seed: int,
    footage: tuple[Path, ...],
    max_frames: int,
    store: Path | None,
    max_views: int,
    debug: bool,
) -> None:
    """Score a checkpoint on held-out scenes beside the best constant and its own single-frame run.

    With --dataset: on the held-out split of a data set. With --footage: on real clips, against sensor depth or a clip's
    own structure from motion, beside the best constant and beside "lower in the picture is nearer".
    """
    with told(debug, 2):
        from depth_engine import DepthEngine
        from depth_train.data.held_out import open_scored

        for path in footage:
            if not path.exists():
                raise ValueError(f"--footage: no such file or folder: {path}")
        if store is not None and not store.is_dir():
            raise ValueError(f"--store: no such folder: {store}; `depth-train scenes --held-out` makes one")
        if store is not None and footage:
            raise ValueError("--store and --footage exclude each other; leave one of them out")
        if dataset is not None and (footage or store is not None):
            raise ValueError("--dataset excludes --footage and --store; leave one of them out")
        held_out = open_scored(dataset, root, split, frames, clips)
        engine = DepthEngine.from_pretrained(checkpoint)
        if store is not None and engine.spec.kind != "disparity":
            raise ValueError(f"--store: the checkpoint gives {engine.spec.kind}; those of disparity can be scored")
        real = read_all_footage(engine, footage, max_frames)
    if store is not None:
        with told(debug, 1):
            print_store_scores(engine, store, max_views)
        return
    if real:
        with told(debug, 1):
            print_footage_scores(engine, real)
        return
    with told(debug, 1):
        from depth_train.data.held_out import HeldOut
        from depth_train.score import score_checkpoint

        scores = score_checkpoint(
            engine,
            held_out or HeldOut(clips, frames, height, width, first_seed),
            steps=steps,
            report=lambda line: click.echo(f"\r{line}", nl=False, err=True),
        )
    click.echo("", err=True)
    of = f"scenes, {frames} frames of {width}x{height}"
    if held_out is not None:
        of = f"clips of {dataset} ({split}), {frames} frames"
    click.echo(
        f"{held_out.clips if held_out else clips} held-out {of}; one scale and shift per clip in "
        f"{engine.spec.kind}, cap 80 m; {steps or engine.spec.steps} denoising steps"
    )
    click.echo(f"{'':<22}{'AbsRel':>8}{'delta1':>8}{'jitter':>8}{'MFC [m]':>9}{'at seams':>10}")
    for name, row in scores.items():
        consistency = f"{row.jitter:>8.4f}{row.mfc_m:>9.3f}{row.seam_mfc_m:>10.3f}"
        click.echo(f"{name:<22}{row.abs_rel:>8.3f}{row.delta1:>8.3f}{consistency}")


@main.command()
@click.argument("checkpoints", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Checkpoint folder to write.")
@click.option("--overwrite", is_flag=True, help="Replace a folder that exists.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def average(checkpoints: tuple[Path, ...], output: Path, overwrite: bool, debug: bool) -> None:
    """Average the weights of CHECKPOINTS: runs that began at the same one often add up to a better one."""
    with told(debug, 2):
        from depth_train.checkpoints.average import average_checkpoints

        average_checkpoints(checkpoints, output, overwrite=overwrite)
    click.echo(f"{output}: the mean of {len(checkpoints)} checkpoints")


@main.command()
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder for checkpoints and table."
)
@click.option("--budget-minutes", type=float, default=60, show_default=True, help="For all trainings together.")
@click.option("--clips", type=click.IntRange(1), default=20, show_default=True, help="Held-out scenes.")
@click.option("--frames", type=click.IntRange(2), default=24, show_default=True, help="Frames per scene.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of weights, draws and scenes.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def ablate(output: Path, budget_minutes: float, clips: int, frames: int, seed: int, device: str, debug: bool) -> None:
    """ChronoDepth's ablations A to F at small scale on the procedural scenes, and one step against five.

    Trainings that are finished in the output folder are not done again.
    """
    with told(debug, 2):
        if not budget_minutes > 0:
            raise ValueError(f"--budget-minutes: {budget_minutes:g} is not accepted; give minutes above 0")
        if output.exists() and not output.is_dir():
            raise ValueError(f"--output: {output} is a file; give a folder")
        _need("matplotlib", "ablate")
        from depth_engine.devices import choose_device
        from depth_train.ablate import ablations, plot, table

        where = choose_device(device)
    with told(debug, 1):
        output.mkdir(parents=True, exist_ok=True)
        rows = ablations(
            output,
            budget_minutes=budget_minutes,
            clips=clips,
            frames=frames,
            seed=seed,
            device=str(where),
            report=lambda line: click.echo(line, err=True),
        )
        plot(rows, output / "ablation.png")
    click.echo(table(rows))
    click.echo(f"plot: {output / 'ablation.png'}; numbers: {output / 'ablation.json'}")


@main.command()
@click.argument("dataset")
@click.option("--root", type=click.Path(path_type=Path), help="The data set's folder (procedural needs none).")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Contact sheet to write.  [default: DATASET.png]")
@click.option("--split", default="all", show_default=True, help="One of the data set's splits.")
@click.option("--length", type=click.IntRange(1), default=8, show_default=True, help="Frames per clip.")
@click.option("--stride", type=click.IntRange(1), default=1, show_default=True, help="Distance of a clip's frames.")
@click.option("--clips", type=click.IntRange(1), default=6, show_default=True, help="Clips to look at, evenly spread.")
@click.option(
    "--check/--no-check",
    default=True,
    show_default=True,
    help="Read every file; frames that training can't use go into ROOT/skip.txt, and are left out from then on.",
)
@click.option("--overwrite", is_flag=True, help="Replace the contact sheet.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def inspect(
    dataset: str,
    root: Path | None,
    output: Path | None,
    split: str,
    length: int,
    stride: int,
    clips: int,
    check: bool,
    overwrite: bool,
    debug: bool,
) -> None:
    """Look at a DATASET: hypersim, tartanair, vkitti2, mvs-synth, folder (your own rgb/ and depth/) or procedural."""
    with told(debug, 2):
        from depth_train.data.datasets import DepthDataset, find_reader

        reader = find_reader(dataset)
        target = output or Path(f"{dataset}.png")
        if target.exists() and not overwrite:
            raise FileExistsError(f"--output: {target} exists; --overwrite replaces it")
        if not target.parent.is_dir():
            raise ValueError(f"--output: {target.parent} is no folder")
        if root is None and dataset != "procedural":
            raise ValueError(f"--root: none is given; give the folder of {dataset}")
        opened = DepthDataset(reader, root or Path(), split=split, length=length, stride=stride)
    with told(debug, 1):
        from depth_train.data.inspect_dataset import bad_frames, measure, pick, write_sheet, write_skip_list

        if check and root is not None:
            bad = bad_frames(opened, lambda line: click.echo(line, err=True))
            for name, reason in bad.items():
                click.echo(f"bad: {name}: {reason}")
            if bad:
                click.echo(f"{len(bad)} frames are left out from now on, listed in {write_skip_list(root, bad)}")
                opened = DepthDataset(reader, root, split=split, length=length, stride=stride)
        looked_at = pick(opened, clips)
        numbers = measure(looked_at)
        write_sheet(looked_at, target)
    unit = "m" if reader.metric else "units"
    low, middle, high = numbers.depth_quantiles
    frames = sum(len(sequence.frames) for sequence in opened.sequences)
    click.echo(f"{dataset} ({reader.licence}): {len(opened.sequences)} sequences, {frames} frames, {len(opened)} clips")
    click.echo(f"of {numbers.clips} clips: {', '.join(numbers.sizes)}; {numbers.valid_share:.1%} of the pixels valid,")
    click.echo(f"{numbers.sky_share:.1%} sky; depth {low:.2f} / {middle:.2f} / {high:.2f} {unit} at 2 / 50 / 98 %")
    if numbers.motion == numbers.motion:  # not nan: of single frames, or without cameras, nothing is known
        click.echo(f"camera moves {numbers.motion:.3f} {unit} from frame to frame (median)")
    click.echo(f"contact sheet: {target}")


def _need(package: str, wanted_by: str) -> None:
    """Miss an optional package before hours of training, not after.

    Raises:
        ValueError: It is not installed.
    """
    if importlib.util.find_spec(package) is None:
        raise ValueError(f"{wanted_by}: {package} is not installed; pip install 'depth-engine[train]'")


if __name__ == "__main__":
    main()
