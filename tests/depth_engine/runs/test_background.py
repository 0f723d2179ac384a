from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from depth_engine.devices import yield_cores
from depth_engine.runs.background import WriteBehind, read_ahead


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()} & {"read-ahead", "write-behind"}


@pytest.mark.parametrize("items", [1, 3, 100])
def test_items_come_in_order_and_the_thread_ends(items: int) -> None:
    assert list(read_ahead(iter(range(20)), items)) == list(range(20))
    assert not threads()


def test_no_more_is_read_than_the_bound() -> None:
    made: list[int] = []

    def source() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    ahead = read_ahead(source(), 4)
    assert next(ahead) == 0
    time.sleep(0.3)
    assert len(made) == 6  # one taken, four queued, one in hand
    ahead.close()
    assert not threads()


def test_an_error_comes_where_the_item_would() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise OSError("broken")

    ahead = read_ahead(source(), 4)
    assert next(ahead) == 1
    with pytest.raises(OSError, match="broken"):
        next(ahead)


def test_closing_closes_the_source_too() -> None:
    closed = []

    def source() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            closed.append(True)

    ahead = read_ahead(source(), 2)
    next(ahead)
    ahead.close()
    assert closed == [True]


def test_writes_are_in_order_and_all_there_at_the_end() -> None:
    written: list[int] = []
    with WriteBehind(written.append, 2) as behind:
        for number in range(30):
            behind.put(number)
    assert written == list(range(30)) and not threads()


def test_an_error_of_the_writer_reaches_the_one_who_puts() -> None:
    def write(number: int) -> None:
        if number == 3:
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), WriteBehind(write, 2) as behind:
        for number in range(1000):
            behind.put(number)
    # At the last item it comes out of the block's end.
    with pytest.raises(OSError, match="disk full"), WriteBehind(write, 2) as behind:
        behind.put(3)


def test_an_error_beside_the_writer_drops_what_is_queued() -> None:
    written: list[int] = []

    def write(number: int) -> None:
        time.sleep(0.05)
        written.append(number)

    with pytest.raises(KeyError), WriteBehind(write, 50) as behind:
        for number in range(50):
            behind.put(number)
        raise KeyError("elsewhere")
    assert len(written) < 10 and not threads()


def test_dropped_items_can_still_be_kept_another_way() -> None:
    written: list[int] = []
    kept: list[int] = []
    begun, go_on = threading.Event(), threading.Event()

    def write(item: int) -> None:
        begun.set()
        go_on.wait(10)
        written.append(item)

    with pytest.raises(KeyError), WriteBehind(write, 3, dropped=kept.append) as behind:
        for item in range(3):
            behind.put(item)
        assert begun.wait(10)
        threading.Timer(0.3, go_on.set).start()
        raise KeyError
    assert written[:1] == [0] and written + kept == [0, 1, 2] and kept


@pytest.mark.usefixtures("eight_threads")
def test_reading_and_writing_leave_cores_to_the_network() -> None:
    def counted() -> Iterator[int]:
        yield torch.get_num_threads()

    written: list[int] = []
    with WriteBehind(lambda item: written.append(torch.get_num_threads()), 1) as behind:
        behind.put(0)
    assert written == [2]
    assert list(read_ahead(counted(), 1)) == [2]
    assert torch.get_num_threads() == 8, "the thread that runs the network is as it was"


@pytest.mark.usefixtures("eight_threads")
def test_threads_that_leave_cores_at_once_each_take_a_quarter() -> None:
    taken: list[int] = []

    def take() -> None:
        yield_cores()
        taken.append(torch.get_num_threads())

    workers = [threading.Thread(target=take) for _ in range(16)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    later = threading.Thread(target=lambda: taken.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert taken == [2] * 16 + [8]


@pytest.mark.usefixtures("eight_threads")
def test_a_thread_that_begins_meanwhile_takes_all_cores() -> None:
    counts = set()

    def ask() -> None:
        counts.add(torch.get_num_threads())

    for _ in range(300):
        with WriteBehind[int](lambda _: None, 1):  # its thread leaves cores while the next one begins
            thread = threading.Thread(target=ask)
            thread.start()
            thread.join()
    assert counts == {8}
