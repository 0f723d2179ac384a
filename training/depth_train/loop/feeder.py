"""Batches for the training loop, made in a thread of their own. Every draw is keyed by (seed, step, clip)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from depth_engine.devices import yield_cores
from depth_train.config import Stage, TrainConfig
from depth_train.data.clip_pool import ShapedPools
from depth_train.data.draws import generator, whole
from depth_train.tasks.task import Part, Task

if TYPE_CHECKING:
    from depth_train.data.resident import ResidentViews

# Clips of a step whose temporal layers run: these see a sequence for each place of each clip, and CUDA's attention
# kernels take 65,535 of them.
_MOST_CLIPS = 192


class Drawn(NamedTuple):
    """What one process needs for one step.

    Attributes:
        stage: That the step belongs to.
        stage_number: Its index.
        parts: What to accumulate gradients over, one after the other.
        loaded: Clips that the pool had loaded by then.
    """

    stage: Stage
    stage_number: int
    parts: list[Part[Any]]
    loaded: int


class Feeder:
    """Makes the batches of one process, in its own thread, one ahead of the step that trains.

    It loads the clips of its process alone; each other one loads its own.
    """

    def __init__(
        self, task: Task[Any, Any], config: TrainConfig, device: torch.device, process: int, processes: int
    ) -> None:
        self._task = task
        self._config, self._device, self._process, self._processes = config, device, process, processes
        self._pool: ShapedPools | ResidentViews | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="feeder", initializer=yield_cores)

    def resume(self, stage: int, loaded: int) -> None:
        """Load again what the pool held."""
        self._pool = self._new_pool(stage)
        self._pool.load_again(loaded)

    def ask(self, step: int, stage: int) -> Callable[[], Drawn]:
        """Begin to make a step's batch; the result waits for it."""
        return self._thread.submit(self._make, step, stage).result

    def close(self) -> None:
        """Let the thread end."""
        self._thread.shutdown(cancel_futures=True)

    def _new_pool(self, number: int) -> ShapedPools | ResidentViews:
        config, stage = self._config, self._config.stages[number]
        if not config.is_packed:
            return ShapedPools(stage, config.seed, config.sources, self._device, self._process, self._processes)
        if self._pool is None or isinstance(self._pool, ShapedPools):
            from depth_train.data.resident import ResidentViews

            share = slice(self._process, None, self._processes)
            return ResidentViews(stage, config.sources, config.seed, self._device, share)
        self._pool.stage = stage
        return self._pool

    def _make(self, step: int, number: int) -> Drawn:
        stage = self._config.stages[number]
        if self._pool is None or self._pool.stage is not stage:
            self._pool = self._new_pool(number)
            if isinstance(self._pool, ShapedPools):
                self._pool.load(max(len(self._pool.pools), stage.pool // 4))
        self._pool.load(int((step + 1) * stage.fresh) - int(step * stage.fresh))
        rng = generator(self._config.seed, step)
        draw = self._task.draw(stage, rng)
        shape_seed = int(torch.randint(2**31, (), generator=rng))
        shape = whole(rng, 0, len(stage.shapes) - 1) if stage.shapes else 0
        count = stage.accumulate
        share = stage.batch // count
        if not isinstance(self._pool, ShapedPools) and stage.max_frames > 1:
            # As many frames a step, however long its clips are.
            share = min(share * stage.max_frames // draw.frames, max(share, _MOST_CLIPS))
        parts = []
        for part in range(count):
            first = (self._process * count + part) * share
            rngs = [generator(self._config.seed, step, place) for place in range(first, first + share)]
            if not isinstance(self._pool, ShapedPools):
                made = self._pool.batch(draw.frames, share, self._config.multiple, rngs[0].initial_seed())
                parts.append(Part(made, draw, stage, rngs))
                continue
            clips = self._pool.draw(shape, draw.frames, rngs)
            shape_rng = torch.Generator().manual_seed(shape_seed)  # every part is cut to the same shape
            parts.append(Part(self._task.batch(clips, shape_rng, rngs), draw, stage, rngs))
        return Drawn(stage, number, parts, self._pool.loaded)
