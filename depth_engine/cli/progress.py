"""The bar that a command shows: frames done, frames per second, time left."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def frame_progress(total: int | None, *, quiet: bool = False) -> Iterator[Callable[[str], Callable[[int], None]]]:
    """Bars on standard error, one for each part of a run.

    Args:
        total: Frames, if known.
        quiet: Show nothing.

    Yields:
        begin(name) -> on_frames(frames done). A bar appears with its first frame, and its clock starts with the one
        before it (with the context, for the first).
    """
    if quiet:
        yield lambda name: lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        last_s = time.monotonic()

        def begin(name: str) -> Callable[[int], None]:
            task: TaskID | None = None
            began_s = 0.0

            def on_frames(done: int) -> None:
                nonlocal task, began_s, last_s
                if task is None:
                    task, began_s = progress.add_task(name, total=total, rate=""), last_s
                last_s = time.monotonic()
                rate = done / max(last_s - began_s, 1e-9)
                progress.update(task, completed=done, rate=f"{rate:.1f} frames/s")

            return on_frames

        yield begin
