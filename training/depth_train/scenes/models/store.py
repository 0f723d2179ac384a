"""A store of rendered views on disk: linear light and depth, so that every visit takes another picture of them."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from depth_train.scenes.models.scene import RenderedView

# Held-out scenes never share a seed with training ones.
FIRST_TRAINING_SEED = 1_000_000
_SUFFIX = ".npz"


@dataclass(frozen=True)
class StoredView:
    """One file of the store.

    Attributes:
        path: The file.
        frames: Number of frames.
        size: Height and width in pixels.
    """

    path: Path
    frames: int
    size: tuple[int, int]


def view_name(seed: int, number: int, frames: int, size: tuple[int, int]) -> str:
    """File name of a view; it says what the reader has to know before opening it."""
    return f"{seed:09d}-{number}-{frames}x{size[0]}x{size[1]}{_SUFFIX}"


def list_views(folder: Path) -> list[StoredView]:
    """The store's views by name.

    Raises:
        ValueError: There are none.
    """
    views = []
    for path in sorted(folder.glob(f"*-*-*x*x*{_SUFFIX}")):
        shape = path.stem.rsplit("-", 1)[1].split("x")
        if len(shape) == 3 and all(part.isdigit() for part in shape):
            views.append(StoredView(path, int(shape[0]), (int(shape[1]), int(shape[2]))))
    if not views:
        raise ValueError(f"{folder} holds no rendered views; `depth-train scenes -o {folder}` makes them")
    return views


def read_view(path: Path) -> RenderedView:
    """Read a file.

    Raises:
        ValueError: It is damaged.
    """
    try:
        with np.load(path) as held:
            about = json.loads(str(held["about"]))
            depth = held["depth_m"].astype(np.float32)
            return RenderedView(held["radiance"], depth, held["K"], held["poses"], about["place"], about["motion"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: can't be read as a rendered view ({error})") from error


def write_view(folder: Path, name: str, view: RenderedView) -> None:
    """Write a file, whole or not at all."""
    unfinished = folder / f".{name}.{os.getpid()}.tmp"
    with unfinished.open("wb") as file:
        np.savez(
            file,
            radiance=view.radiance,
            depth_m=view.depth_m.astype(np.float16),
            K=view.K,
            poses=view.world_from_camera,
            about=json.dumps({"place": view.place, "motion": view.motion}),
        )
    unfinished.replace(folder / name)


def fill_store(
    folder: Path,
    render: Callable[[int], Iterable[tuple[RenderedView, dict[str, str]]]],
    seeds: range,
    *,
    frames: int,
    report: Callable[[str], None],
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Render the views of many scenes; those whose files are there already are left as they are.

    Args:
        folder: The store.
        render: Makes the views of a seed, each with the files that did not load (name -> reason).
        seeds: One scene each.
        frames: Frames of each view.
        report: Takes a line for a file that did not load, once.
        stop: Asked between scenes.

    Returns:
        Number of views written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written, told = 0, set()
    for seed in seeds:
        if stop():
            break
        done = folder / f".{seed:09d}-{frames}.done"
        if done.exists():
            continue
        for number, (view, bad) in enumerate(render(seed)):
            write_view(folder, view_name(seed, number, frames, view.depth_m.shape[1:]), view)  # type: ignore[arg-type]
            written += 1
            for name in bad.keys() - told:
                told.add(name)
                report(f"left out: {bad[name]}")
        done.touch()
    return written
