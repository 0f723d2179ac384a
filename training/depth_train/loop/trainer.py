"""The forward and backward pass, the optimisers and the running average of the weights."""

from __future__ import annotations

import contextlib
import copy
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import Accelerator
from torch import nn

from depth_train.checkpoints.state import State, collect_state, load_state
from depth_train.config import Stage, TrainConfig
from depth_train.loop import sharding
from depth_train.loop.feeder import Drawn
from depth_train.optim.optimizers import make_optimizers, set_rate
from depth_train.optim.spatial import choose_trained, spatial_only
from depth_train.tasks.task import Task, TrainedModel

# Of so many steps, so many may be left out because half precision overflowed; more mean that something else is wrong.
MAX_SKIPPED, OF_STEPS = 50, 500


class Stepped(NamedTuple):
    """What a step came to: mean loss, gradient norm before clipping, and whether the weights moved."""

    loss: float
    norm: float
    taken: bool


class Trainer:
    """Changes the weights of a model, and keeps their running average.

    Args:
        accelerator: Knows the other processes.
        task: Says what the loss is.
        config: The run.
        model: Its `trained` network is changed; divided among the processes here, if asked for.
        shard: Whether to divide it.
    """

    def __init__(
        self, accelerator: Accelerator, task: Task[Any, Any], config: TrainConfig, model: TrainedModel, *, shard: bool
    ) -> None:
        self._accelerator, self._task, self._config, self._sharded = accelerator, task, config, shard
        self._network, self._model = model.trained, model
        # First: copies that are whole take memory.
        self._shell = copy.deepcopy(model.trained).to("meta") if shard else None
        self._average = copy.deepcopy(model.trained).requires_grad_(False)
        if shard:
            sharding.shard(self._average)
            sharding.shard(self._network)
        self._trains: str | None = None
        self._plain_optimizers: dict[str, torch.optim.Optimizer] = {}
        self._optimizers: list[Any] = []
        self._left_out: deque[int] = deque(maxlen=MAX_SKIPPED + 1)  # the last steps without a finite gradient

    def begin(self, stage: Stage) -> None:
        """Choose what is trained; a change of that begins with new moments."""
        if stage.trains == self._trains:
            return
        self._trains = stage.trains
        choose_trained(self._network, stage.trains)
        self._accelerator.free_memory()
        self._plain_optimizers = make_optimizers(self._network, self._config)
        if self._sharded:
            self._optimizers = list(self._plain_optimizers.values())
            return
        wrapped, *self._optimizers = self._accelerator.prepare(self._network, *self._plain_optimizers.values())
        self._model = replace(self._model, trained=wrapped)

    def load(self, folder: Path) -> None:
        """Go on from a saved state, whose stage has begun.

        Raises:
            ValueError: The folder holds no state, or one of another model.
        """
        load_state(folder, self._network, self._average, self._plain_optimizers)

    def state(self, *, keep: bool, ended: bool) -> State:
        """What `resume` needs, whole; all processes must ask, and the one that writes `keep`s it."""
        return collect_state(self._network, self._average, self._plain_optimizers, keep=keep, ended=ended)

    def averaged(self, state: State) -> nn.Module:
        """The running average as a network that is whole."""
        return self._average if self._shell is None else sharding.undivided(self._shell, state.average)

    def step(self, number: int, drawn: Drawn, rate: float) -> Stepped:
        """One step of the optimisers, unless the gradient is not finite.

        Args:
            number: Of the step.
            drawn: What it sees.
            rate: Share of the peak learning rate.

        Raises:
            FloatingPointError: Too many of the last steps had a gradient that was not finite.
        """
        self.begin(drawn.stage)
        losses = self._backward(drawn)
        parameters = [parameter for parameter in self._network.parameters() if parameter.grad is not None]
        norm = sharding.whole_norm(self._accelerator.clip_grad_norm_(parameters, self._config.optimizer.clip_norm))
        set_rate(self._plain_optimizers.values(), rate)
        taken = bool(torch.isfinite(norm))
        if taken:
            for optimizer in self._optimizers:
                optimizer.step()
        else:
            self._leave_out(number)
        self._network.zero_grad(set_to_none=True)
        loss = self._accelerator.reduce(torch.stack(losses).mean(), "mean")
        average_into(self._average, self._network, self._config, number)
        return Stepped(float(loss), float(norm), taken)  # type: ignore[arg-type]

    def _backward(self, drawn: Drawn) -> list[torch.Tensor]:
        """Accumulate the gradients of a step's parts; their losses."""
        alone, losses = drawn.stage.trains == "spatial_alone", []
        with spatial_only(self._network) if alone else contextlib.nullcontext():
            for place, part in enumerate(drawn.parts, 1):
                with self._gradients_wait(place < len(drawn.parts)):
                    loss = self._task.loss(self._model, part)
                    self._accelerator.backward(loss / len(drawn.parts))
                losses.append(loss.detach())
        return losses

    def _leave_out(self, number: int) -> None:
        self._left_out.append(number)
        if len(self._left_out) > MAX_SKIPPED and number - self._left_out[0] < OF_STEPS:
            raise FloatingPointError(
                f"step {number}: more than {MAX_SKIPPED} of the last {OF_STEPS} steps had a gradient that was not "
                "finite; it diverged"
            )

    @contextlib.contextmanager
    def _gradients_wait(self, wait: bool) -> Iterator[None]:
        """Leave the exchange of gradients to the last part of a step."""
        if self._sharded:
            sharding.gradients_wait(self._network, wait)
            yield
            return
        with self._accelerator.no_sync(self._model.trained) if wait else contextlib.nullcontext():
            yield


@torch.no_grad()
def average_into(average: nn.Module, network: nn.Module, config: TrainConfig, step: int) -> None:
    """An average over all steps at first, over the half-life later; if that is long, one step in four stands for all.

    It reads and writes as much memory as a small optimiser.
    """
    stands_for = 4 if step >= 16 and config.optimizer.ema_half_life >= 100 else 1
    if (step + 1) % stands_for:
        return
    keep = min(0.5 ** (1 / config.optimizer.ema_half_life), (1 + step) / (10 + step)) ** stands_for
    torch._foreach_lerp_(sharding.local(average.parameters()), sharding.local(network.parameters()), 1 - keep)
