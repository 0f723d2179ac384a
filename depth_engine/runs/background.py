"""Work beside the network: a thread that reads ahead, and one that writes behind. Order stays as it was.

Both leave most cores to the network.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterable
from typing import Generic, TypeVar

Item = TypeVar("Item")

# How long a thread waits on a full or empty queue before it looks whether the other side is still there, seconds.
_PATIENCE_S = 0.1


class _End:
    """Comes after the last item, with the error that ended the source, if one did."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def read_ahead(source: Iterable[Item], items: int) -> Generator[Item, None, None]:
    """The items of `source`, made in a thread up to `items` before they are asked for.

    An error of the source comes out where the next item would. Closing the iterator ends the thread and, if `source` is
    a generator, closes that: both have ended when `close` returns.

    Args:
        source: Iterated in the thread alone.
        items: Bound of the queue, from 1 up.
    """
    waiting: queue.Queue[Item | _End] = queue.Queue(items)
    stop = threading.Event()

    def offer(item: Item | _End) -> bool:
        while not stop.is_set():
            try:
                waiting.put(item, timeout=_PATIENCE_S)
                return True
            except queue.Full:
                continue
        return False

    def read() -> None:
        end = _End()
        try:
            _yield_cores()
            for item in source:
                if not offer(item):
                    break
        except BaseException as error:  # handed to the thread that asks for items
            end = _End(error)
        finally:
            close = getattr(source, "close", None)
            if close is not None and stop.is_set():
                close()
        offer(end)

    def items_in_order() -> Generator[Item, None, None]:
        thread = threading.Thread(target=read, name="read-ahead", daemon=True)
        thread.start()
        try:
            while not isinstance(item := waiting.get(), _End):
                yield item
            if item.error is not None:
                raise item.error
        finally:
            stop.set()
            thread.join()

    return items_in_order()


class WriteBehind(Generic[Item]):
    """A queue in front of a function that one thread calls, item by item in order.

    Leaving the `with` block in peace waits until all items are written; leaving it by an error drops those that are
    still queued. An error of the function comes out of the next `put` or at the end of the block.
    """

    def __init__(
        self, write: Callable[[Item], None], items: int, dropped: Callable[[Item], None] | None = None
    ) -> None:
        """Args: the function, the bound of the queue, from 1 up, and what is still done to items that are dropped."""
        self._write = write
        self._write_dropped = dropped
        self._waiting: queue.Queue[Item | _End] = queue.Queue(items)
        self._dropped = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="write-behind", daemon=True)

    def __enter__(self) -> WriteBehind[Item]:
        """Start the thread."""
        self._thread.start()
        return self

    def put(self, item: Item) -> None:
        """Queue an item; waits while the queue is full."""
        self._offer(item)
        if self._error is not None:
            raise self._error

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for the thread."""
        if kind is not None:
            self._dropped.set()
        self._offer(_End())
        self._thread.join()
        if kind is None and self._error is not None:
            raise self._error

    def _offer(self, item: Item | _End) -> None:
        while self._thread.is_alive():
            try:
                self._waiting.put(item, timeout=_PATIENCE_S)
                return
            except queue.Full:
                continue

    def _run(self) -> None:
        try:
            _yield_cores()
            while not isinstance(item := self._waiting.get(), _End):
                if not self._dropped.is_set():
                    self._write(item)
                elif self._write_dropped is not None:
                    self._write_dropped(item)
        except BaseException as error:  # handed to the thread that puts
            self._error = error


def _yield_cores() -> None:
    from depth_engine.devices import yield_cores  # here: torch takes seconds to import, and a command may only refuse

    yield_cores()
