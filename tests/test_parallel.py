"""Work in parallel within a bound: the order, the bound, and an item that is larger than it."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixelwise import launcher
from pixelwise.data import parallel
from pixelwise.data.dataset import Case
from pixelwise.data.parallel import ahead, by_turns, bytes_of_case, in_parallel, together


class Scale:
    """Weighs what is worked on at a time."""

    def __init__(self) -> None:
        self.now = self.most = self.inside = self.together = 0
        self.lock = threading.Lock()

    def __call__(self, weight: int) -> int:
        with self.lock:
            self.now, self.inside = self.now + weight, self.inside + 1
            self.most, self.together = max(self.most, self.now), max(self.together, self.inside)
        time.sleep(0.005)
        with self.lock:
            self.now, self.inside = self.now - weight, self.inside - 1
        return weight


def test_one_item_is_made_while_the_one_before_it_is_used() -> None:
    made = [threading.Event() for _ in range(4)]
    closed = threading.Event()

    def make() -> Iterator[int]:
        try:
            for number, event in enumerate(made):
                event.set()
                yield number
        finally:
            closed.set()

    for number in ahead(make()):
        # the next one comes although nobody has asked for it, and no further one
        assert number == 3 or made[number + 1].wait(5)
        assert not any(event.is_set() for event in made[number + 2 :])
    assert closed.is_set()


def test_who_stops_early_leaves_no_thread() -> None:
    threads = threading.active_count()
    coming = ahead(iter(range(100)))
    assert next(coming) == 0
    coming.close()
    assert threading.active_count() == threads


def test_what_fails_ahead_is_told_where_it_would_be_used() -> None:
    def make() -> Iterator[int]:
        yield 1
        raise OSError("torn")

    coming = ahead(make())
    assert next(coming) == 1
    with pytest.raises(OSError, match="torn"):
        next(coming)


def test_results_come_in_order_and_no_more_is_worked_on_than_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "MOST_BYTES", 100)
    scale, weights = Scale(), [40, 10, 60, 99, 1, 100, 30, 30, 30, 30] * 5
    assert list(in_parallel(scale, weights, int)) == weights
    assert scale.most <= 100
    assert scale.together > 1


def test_what_is_larger_than_the_bound_is_worked_on_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "MOST_BYTES", 100)
    scale, weights = Scale(), [10, 500, 10, 700, 10]
    assert list(in_parallel(scale, weights, int)) == weights
    assert scale.most == 700


def test_an_error_reaches_the_caller_and_frees_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "MOST_BYTES", 1)

    def work(item: int) -> int:
        if item == 2:
            raise ValueError("two")
        return item

    results = in_parallel(work, range(9), lambda _: 1)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)


def test_items_are_made_and_worked_on_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "cores", lambda: 3)
    monkeypatch.setattr(parallel, "MOST_BYTES", 100)
    scale, weights = Scale(), [1, 2, 3, 1, 2, 3, 4, 99, 50, 60, 500, 5]
    made: list[int] = []

    def make() -> Iterator[int]:
        for weight in weights:
            assert scale.inside == 0, "nothing is worked on while an item is made"
            made.append(weight)
            yield weight

    counts = []
    for number, weight in enumerate(by_turns(scale, make(), int)):
        assert weight == weights[number]
        counts.append(len(made))
    # six at most for three cores, and no more than weigh 100; the next item is made before that is known
    assert counts == [7, 7, 7, 7, 7, 7, 8, 9, 10, 11, 12, 12]
    assert scale.together > 1
    assert scale.most == 500, "a larger one is worked on alone"


def test_errors_of_making_and_of_work_end_it_and_leave_no_thread() -> None:
    threads = threading.active_count()

    def make() -> Iterator[int]:
        yield 1
        raise OSError("torn")

    with pytest.raises(OSError, match="torn"):
        list(by_turns(str, make(), lambda _: 1))
    with pytest.raises(ZeroDivisionError):
        list(by_turns(lambda item: 1 // item, [1, 0, 1], lambda _: 1))
    results = by_turns(str, iter(range(100)), lambda _: 1)
    assert next(results) == "0"
    results.close()
    assert threading.active_count() == threads


def test_no_more_is_worked_on_together_than_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "cores", lambda: 16)
    monkeypatch.setattr(parallel, "MOST_BYTES", 100)
    assert [together(200, 1), together(3, 1), together(200, 30), together(200, 101), together(0, 1)] == [16, 3, 3, 1, 1]


def test_a_case_weighs_what_its_header_says(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save(tmp_path / "a.png")
    assert bytes_of_case(Case("a", tmp_path / "a.png")) == 30 * 40 * (4 * 3 + 6)
    assert bytes_of_case(Case("b", tmp_path / "b.png")) == 0
