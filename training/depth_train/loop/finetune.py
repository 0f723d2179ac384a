"""The training loop: draw clips, step, average, save. Every draw is keyed by (seed, step, clip)."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import DistributedType, broadcast_object_list

from depth_engine.devices import yield_cores
from depth_train.checkpoints.folder import drop_earlier, drop_kept, keep_best, recover, save_checkpoint
from depth_train.checkpoints.state import STATE_FOLDER, Progress, collect_state, load_state, save_state
from depth_train.config import Stage, TrainConfig
from depth_train.data.clip_pool import ShapedPools
from depth_train.data.draws import generator, whole
from depth_train.loop import sharding
from depth_train.loop.watch import Watch
from depth_train.optim.optimizers import make_optimizers, set_rate
from depth_train.optim.spatial import choose_trained, spatial_only
from depth_train.tasks.catalogue import Task, task_of
from depth_train.tasks.depth import StepDraw

if TYPE_CHECKING:
    from depth_train.data.resident import ResidentViews

# Of so many steps, so many may be left out because half precision overflowed; more mean that something else is wrong.
MAX_SKIPPED, OF_STEPS = 50, 500
# A run that is killed early leaves something, too.
_FIRST_SAVE_S = 60.0
_STOPPING = (signal.SIGINT, signal.SIGTERM)
# Clips of a step whose temporal layers run: these see a sequence for each place of each clip, and CUDA's attention
# kernels take 65,535 of them.
_MOST_CLIPS = 192
# The rate's rise takes no more than this share of a run whose steps are few for its minutes.
_LONGEST_WARMUP = 0.05


class Drawn(NamedTuple):
    """What one process needs for one step.

    Attributes:
        stage: Index of the stage.
        draw: What all clips share.
        parts: Batches to accumulate, with the clips' generators.
        loaded: Clips that the pool had loaded by then.
    """

    stage: int
    draw: StepDraw
    parts: list[tuple[Any, list[torch.Generator]]]
    loaded: int


class Feeder:
    """Makes the batches of one process, in its own thread, one ahead of the step that trains."""

    def __init__(self, task: Task, config: TrainConfig, device: torch.device, process: int, processes: int) -> None:
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
            return ShapedPools(stage, config.seed, config.sources, self._device)
        if self._pool is None or isinstance(self._pool, ShapedPools):
            from depth_train.data.resident import ResidentViews

            return ResidentViews(stage, config.sources, config.seed, self._device)
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
        draw = self._task.draw(stage, self._config, rng)
        shape_seed = int(torch.randint(2**31, (), generator=rng))
        shape = whole(rng, 0, len(stage.shapes) - 1) if stage.shapes else 0
        count = parts_of(stage, self._processes)
        share = stage.batch // self._processes // count
        if not isinstance(self._pool, ShapedPools) and stage.max_frames > 1:
            # As many frames a step, however long its clips are.
            share = min(share * stage.max_frames // draw.frames, max(share, _MOST_CLIPS))
        parts = []
        for part in range(count):
            first = (self._process * count + part) * share
            rngs = [generator(self._config.seed, step, place) for place in range(first, first + share)]
            if not isinstance(self._pool, ShapedPools):
                made = self._pool.batch(draw.frames, share, self._config.multiple, rngs[0].initial_seed())
                parts.append((made, rngs))
                continue
            clips = self._pool.draw(shape, draw.frames, rngs)
            shape_rng = torch.Generator().manual_seed(shape_seed)  # every part is cut to the same shape
            parts.append((self._task.batch(clips, self._config, shape_rng, rngs), rngs))
        return Drawn(number, draw, parts, self._pool.loaded)


def rate_share(config: TrainConfig, step: int, progress: float) -> float:
    """Share of the peak rate: linear warm-up, a plateau, then a cosine to zero at the end of the run."""
    falling = max(0.0, min(progress, 1.0) - config.decay_from) / (1 - config.decay_from)
    rising = max((step + 1) / config.warmup, progress / _LONGEST_WARMUP)
    return min(1, rising) * 0.5 * (1 + math.cos(math.pi * falling))


def train(
    config: TrainConfig,
    folder: Path,
    *,
    budget_minutes: float | None = None,
    init: Path | None = None,
    device: str = "cpu",
    resume: bool = False,
    shard: bool = False,
    save_every_s: float = 300,
    log_folder: Path | None = None,
    report: Callable[[str], None] = print,
    bar: bool = False,
) -> None:
    """Train until the steps or the minutes are up, leaving a loadable checkpoint from time to time.

    A run that was killed goes on from its last checkpoint with `resume`: the draws depend on the step alone, so on the
    same hardware the weights are those of an unbroken run (with a budget in minutes, up to the clock). SIGINT and
    SIGTERM end the run after the step at hand, with a checkpoint; a second one ends it at once. Under
    `torchrun` or `accelerate launch` every process trains its share of each batch.

    Args:
        config: The run.
        folder: Checkpoint folder to write; `folder-step*` and `folder-best` beside it, if the config keeps them.
        init: Checkpoint folder of the same shape to start from.
        budget_minutes: Wall-clock budget; the schedule follows it. None: the resumed run's, or `config.steps` alone.
        device: Where to train.
        resume: Go on with the interrupted run in `folder`.
        shard: Divide weights, gradients, averages and moments among the processes, in place of a copy for each. Files
            are the same: a run can be resumed either way. An FSDP setting of `accelerate launch` asks for it, too.
        save_every_s: Seconds between checkpoints; the first comes after a minute at the latest.
        log_folder: Where TensorBoard's logs go; None: nowhere.
        report: Takes lines of text.
        bar: Show a progress bar in place of a line every 50 steps.

    Raises:
        ValueError: There is no interrupted run to resume, it had another config, or batch or model can't be divided.
        FloatingPointError: The run diverged.
        KeyboardInterrupt: A signal ended the run; its checkpoint is written.
    """
    shard = sharding.asked_by_launcher() or shard
    if shard:
        check_shardable(config)
    accelerator = start_accelerator(device)
    if accelerator.is_main_process:
        recover(folder)
    accelerator.wait_for_everyone()
    if resume:
        check_same_config(config, folder)
    check_divisible(config, accelerator.num_processes)
    where = accelerator.device
    torch.set_flush_denormal(True)  # the running average makes denormals, and they are slow on a CPU
    torch.manual_seed(config.seed)
    task = task_of(config)
    model, base = task.start(config, init, where)
    unet = model.unet
    shard = shard and accelerator.num_processes > 1
    shell = copy.deepcopy(unet).to("meta") if shard else None  # first: copies that are whole take memory
    average = copy.deepcopy(unet).requires_grad_(False)
    if shard:
        sharding.shard(average)
        sharding.shard(unet)
    trainer = _Trainer(accelerator, task, config, model, shard)
    now = Progress()
    if resume:
        now = read_progress(folder)
        budget_minutes = budget_minutes or now.budget_minutes
        trainer.begin(config.stages[now.stage])
        load_state(folder / STATE_FOLDER, unet, average, trainer.plain_optimizers)

    now.budget_minutes = budget_minutes
    if accelerator.is_main_process:
        if accelerator.num_processes > 1:
            how = "the model divided among them" if shard else "each with a copy of the model"
            if shard and sharding.asked_by_launcher():
                how += " (all that is taken over from the launcher's FSDP setting)"
            report(f"{accelerator.num_processes} processes, {how}")
        if not resume:
            drop_kept(folder)

    feeder = Feeder(task, config, where, accelerator.process_index, accelerator.num_processes)
    watch = Watch(
        config,
        where,
        log_folder,
        report,
        bar=bar,
        budget_minutes=budget_minutes,
        began=now if resume else None,
        enabled=accelerator.is_main_process,
    )
    signals = StopSignals()
    began, save_at = time.monotonic() - now.minutes * 60, time.monotonic() + min(save_every_s, _FIRST_SAVE_S)

    def look_at_clock(step: int) -> tuple[float, bool, bool]:
        """How far the run is, whether to save, and to stop, agreed among the processes: their clocks differ."""
        now.minutes = (time.monotonic() - began) / 60
        share = max(step / config.steps, now.minutes / budget_minutes if budget_minutes else 0.0)
        seen = [share, time.monotonic() > save_at, signals.came]
        share, due, stop = broadcast_object_list(seen) if accelerator.num_processes > 1 else seen
        return share, due, stop

    def save(ended: bool) -> None:
        main = accelerator.is_main_process
        state = collect_state(unet, average, trainer.plain_optimizers, keep=main, ended=ended)
        if not main:
            return
        averaged = average if shell is None else sharding.undivided(shell, state.average)
        step = now.step
        keep_as = (
            folder.with_name(f"{folder.name}-step{now.saved_step:06d}") if config.keep_last and now.saved_step else None
        )
        shares_base = now.saved_step > 0
        now.saved_step = step

        def write_state(target: Path) -> None:
            save_state(target, state, now)

        save_checkpoint(
            folder,
            lambda target, held: task.write(target, averaged, config, base, held),
            write_state=None if ended else write_state,
            keep_as=keep_as,
            shares_base=shares_base,
        )
        drop_earlier(folder, config.keep_last)
        if config.validate_clips and task.validates:
            abs_rel = watch.validate(folder, step)
            if keep_best(folder, abs_rel):
                report(f"step {step}: held-out AbsRel {abs_rel:.3f}, the best so far")

    left_out: deque[int] = deque(maxlen=MAX_SKIPPED + 1)  # the last steps without a finite gradient
    try:
        if resume and now.loaded:
            feeder.resume(now.stage, now.loaded)
        share, _, stopped = look_at_clock(now.step)
        ready = feeder.ask(now.step, stage_at(config, share))
        while share < 1 and not stopped:
            asked = time.monotonic()
            drawn = ready()
            waited_s = time.monotonic() - asked
            next_share, save_due, stopped = look_at_clock(now.step + 1)
            ready = feeder.ask(now.step + 1, stage_at(config, min(next_share, 1 - 1e-9)))
            stage = config.stages[drawn.stage]
            trainer.begin(stage)
            stepped = trainer.step(drawn, rate_share(config, now.step, share))
            if not stepped.taken:
                now.skipped += 1
                left_out.append(now.step)
                if len(left_out) > MAX_SKIPPED and now.step - left_out[0] < OF_STEPS:
                    raise FloatingPointError(
                        f"step {now.step}: more than {MAX_SKIPPED} of the last {OF_STEPS} steps had a gradient that "
                        "was not finite; it diverged"
                    )
            _average_into(average, unet, config, now.step)
            now.step, now.stage, now.loaded, share = now.step + 1, drawn.stage, drawn.loaded, next_share
            watch.stepped(now, stage, stepped.loss, stepped.norm, waited_s, share)
            if share < 1 and save_due:
                save(ended=False)
                accelerator.wait_for_everyone()
                save_at = time.monotonic() + save_every_s
        save(ended=share >= 1)
        accelerator.wait_for_everyone()
        if share < 1:
            raise KeyboardInterrupt
    finally:
        signals.close()
        feeder.close()
        watch.close()
    if accelerator.is_main_process:
        without = f", {now.skipped} left out for a gradient that was not finite" if now.skipped else ""
        report(f"{now.step} steps{without}; checkpoint in {folder}")


class StopSignals:
    """Holds SIGINT and SIGTERM back, to be looked at between steps; a second signal has its usual effect."""

    def __init__(self) -> None:
        self.came = False
        # Only the main thread of a process may choose what signals do.
        in_main = threading.current_thread() is threading.main_thread()
        self._before = {number: signal.signal(number, self._note) for number in _STOPPING} if in_main else {}

    def _note(self, number: int, frame: object) -> None:
        self.came = True
        self.close()

    def close(self) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


class Stepped(NamedTuple):
    """What a step came to: mean loss, gradient norm before clipping, and whether the weights moved."""

    loss: float
    norm: float
    taken: bool


class _Trainer:
    """The forward and backward pass and the optimisers of the stage at hand."""

    def __init__(self, accelerator: Accelerator, task: Task, config: TrainConfig, model: Any, sharded: bool) -> None:
        self._accelerator, self._task, self._config, self._sharded = accelerator, task, config, sharded
        self._unet, self._model = model.unet, model
        self._trains: str | None = None
        self._stage: Stage | None = None
        self.plain_optimizers: dict[str, torch.optim.Optimizer] = {}

    def begin(self, stage: Stage) -> None:
        """Choose what is trained; a change of that begins with new moments."""
        self._stage = stage
        if stage.trains == self._trains:
            return
        self._trains = stage.trains
        choose_trained(self._unet, stage.trains)
        self._accelerator.free_memory()
        self.plain_optimizers = make_optimizers(self._unet, self._config)
        if self._sharded:
            self._optimizers = list(self.plain_optimizers.values())
            return
        wrapped, *self._optimizers = self._accelerator.prepare(self._unet, *self.plain_optimizers.values())
        self._model = replace(self._model, unet=wrapped)

    def step(self, drawn: Drawn, rate: float) -> Stepped:
        """One step of the optimisers, unless the gradient is not finite."""
        if self._stage is None:
            raise ValueError("step: begin(stage) comes first")
        parts, losses = len(drawn.parts), []
        with spatial_only(self._unet) if self._stage.trains == "spatial_alone" else contextlib.nullcontext():
            for number, (batch, rngs) in enumerate(drawn.parts):
                with self._gradients_wait(number < parts - 1):
                    loss = self._task.loss(self._model, batch, drawn.draw, self._stage, self._config, rngs)
                    self._accelerator.backward(loss / parts)
                losses.append(loss.detach())
        parameters = [parameter for parameter in self._unet.parameters() if parameter.grad is not None]
        norm = sharding.whole_norm(self._accelerator.clip_grad_norm_(parameters, self._config.clip_norm))
        set_rate(self.plain_optimizers.values(), rate)
        taken = bool(torch.isfinite(norm))
        if taken:
            for optimizer in self._optimizers:
                optimizer.step()
        self._unet.zero_grad(set_to_none=True)
        loss = self._accelerator.reduce(torch.stack(losses).mean(), "mean")
        return Stepped(float(loss), float(norm), taken)  # type: ignore[arg-type]

    @contextlib.contextmanager
    def _gradients_wait(self, wait: bool) -> Iterator[None]:
        """Leave the exchange of gradients to the last part of a step."""
        if self._sharded:
            sharding.gradients_wait(self._unet, wait)
            yield
            return
        with self._accelerator.no_sync(self._model.unet) if wait else contextlib.nullcontext():
            yield


def start_accelerator(device: str) -> Accelerator:
    """An accelerator on a device: `cpu`, `cuda`, `cuda:1`; the launcher decides where there are several processes."""
    if ":" in device:
        os.environ["ACCELERATE_TORCH_DEVICE"] = device
    # The layers of the other stages, and of blocks that a clip does not reach, get no gradient.
    handlers: list[Any] = [DistributedDataParallelKwargs(find_unused_parameters=True)]
    # The config says what the network computes in; a launcher's own choice would be a second one.
    with sharding.launcher_setting_hidden():
        accelerator = Accelerator(cpu=device == "cpu", mixed_precision="no", kwargs_handlers=handlers)
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        raise ValueError(
            f"accelerate: {accelerator.distributed_type.value} divides the model where the running average and the "
            "checkpoints do not see it; launch plain processes and give --shard, which divides them too"
        )
    return accelerator


def check_shardable(config: TrainConfig) -> None:
    """See that the model can be divided among processes.

    Raises:
        ValueError: Names what can't.
    """
    asked = "accelerate launch: FSDP" if sharding.asked_by_launcher() else "--shard"
    if config.optimizer == "muon":
        raise ValueError(f"{asked}: muon works on whole matrices; give the config optimizer adam or adamw")
    if config.task == "generator":
        raise ValueError(f"{asked}: the small generator is not worth dividing; leave it out")


def check_divisible(config: TrainConfig, processes: int) -> None:
    """See that every process gets its share of each batch.

    Raises:
        ValueError: Names the stage.
    """
    for number, stage in enumerate(config.stages):
        if stage.batch % processes:
            raise ValueError(
                f"config: stages[{number}]: batch: {stage.batch} can't be divided among {processes} processes"
            )


def parts_of(stage: Stage, processes: int) -> int:
    """Parts that each process's share of a batch is cut into: as small ones as in one process, or as can be."""
    return math.gcd(stage.accumulate, stage.batch // processes)


def stage_at(config: TrainConfig, share: float) -> int:
    """Index of the stage at a share of the run, below 1 (or the last)."""
    return next((number for number, stage in enumerate(config.stages) if share < stage.until), len(config.stages) - 1)


@torch.no_grad()
def _average_into(average: torch.nn.Module, unet: torch.nn.Module, config: TrainConfig, step: int) -> None:
    """An average over all steps at first, over the half-life later; if that is long, one step in four stands for all.

    It reads and writes as much memory as a small optimiser.
    """
    stands_for = 4 if step >= 16 and config.ema_half_life >= 100 else 1
    if (step + 1) % stands_for:
        return
    keep = min(0.5 ** (1 / config.ema_half_life), (1 + step) / (10 + step)) ** stands_for
    torch._foreach_lerp_(sharding.local(average.parameters()), sharding.local(unet.parameters()), 1 - keep)


def read_progress(folder: Path) -> Progress:
    """Where an interrupted run was.

    Raises:
        ValueError: The folder holds no state.
    """
    try:
        return Progress(**json.loads((folder / STATE_FOLDER / "progress.json").read_text()))
    except (OSError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"resume: {folder / STATE_FOLDER} holds no state of this run ({error})") from error


def check_same_config(config: TrainConfig, folder: Path) -> None:
    """See that `folder` holds an interrupted run of this config.

    Raises:
        ValueError: One line that says what is there instead.
    """
    if not (folder / STATE_FOLDER).is_dir():
        raise ValueError(f"resume: {folder} holds no interrupted run")
    held = json.loads((folder / "train_config.json").read_text())
    wanted = json.loads(json.dumps(asdict(config)))
    differing = [key for key in wanted if held.get(key) != wanted[key]]
    if differing:
        key = differing[0]
        raise ValueError(f"resume: the run in {folder} had {key} {held.get(key)}, not {wanted[key]}")
