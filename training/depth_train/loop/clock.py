"""How far a run is, when it saves, and whether it was told to stop."""

from __future__ import annotations

import signal
import threading
import time
from dataclasses import dataclass
from typing import NamedTuple

from accelerate.utils import broadcast_object_list

# A run that is killed early leaves something, too.
_FIRST_SAVE_S = 60.0
_STOPPING = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Pace:
    """What a run does by the clock.

    Attributes:
        budget_minutes: Wall-clock budget; the schedule follows it. None: the steps alone decide.
        save_every_s: Seconds between checkpoints; the first comes after a minute at the latest.
    """

    budget_minutes: float | None = None
    save_every_s: float = 300


class Moment(NamedTuple):
    """What the clock says before a step.

    Attributes:
        share: How far the run is: 0 at its beginning, 1 and more at its end.
        save_due: Whether a checkpoint is to be written after the step.
        stopped: Whether a signal asked the run to end.
    """

    share: float
    save_due: bool
    stopped: bool


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


class Clock:
    """The wall clock of a run over all its parts, and the signals that end it.

    Args:
        steps: Of the whole run.
        pace: What is done by the clock.
        minutes: Spent before, by the parts of the run that ended early.
        processes: That train together.
    """

    def __init__(self, steps: int, pace: Pace, *, minutes: float, processes: int) -> None:
        self._steps, self._pace, self._processes = steps, pace, processes
        self._began = time.monotonic() - minutes * 60
        self._save_at = time.monotonic() + min(pace.save_every_s, _FIRST_SAVE_S)
        self._signals = StopSignals()
        self.minutes = minutes

    def look(self, step: int) -> Moment:
        """The moment before a step, agreed among the processes: their clocks differ. Takes note of the minutes."""
        self.minutes = (time.monotonic() - self._began) / 60
        budget = self._pace.budget_minutes
        share = max(step / self._steps, self.minutes / budget if budget else 0.0)
        seen = [share, time.monotonic() > self._save_at, self._signals.came]
        return Moment(*(broadcast_object_list(seen) if self._processes > 1 else seen))

    def saved(self) -> None:
        """Count the time to the next checkpoint from now on."""
        self._save_at = time.monotonic() + self._pace.save_every_s

    def close(self) -> None:
        """Give the signals back."""
        self._signals.close()
