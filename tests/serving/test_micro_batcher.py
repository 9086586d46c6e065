"""Requests of many callers are computed in batches, and nobody waits long for others."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from real_vs_ai.serving import micro_batcher
from real_vs_ai.serving.fake_engine import FakeEngine, share_of_red
from real_vs_ai.serving.micro_batcher import PATIENCE_SECONDS, MicroBatcher, ModelUnavailableError


def inputs(*levels: int) -> np.ndarray:
    """Grey inputs of 2 × 2 pixels, one for each level."""
    return np.array(levels, np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)


def batcher_of(engine: FakeEngine) -> MicroBatcher[list[float]]:
    """Each request gets the probability of Fake of each of its inputs, times 255."""

    def finish(_, outputs):
        return [np.rint(255 * found[:, 0]).tolist() for found in outputs]

    return MicroBatcher(engine, finish)


class HeldEngine(FakeEngine):
    """Lets the batches of level 1 wait until `go_on` is set; `began` tells that one has begun."""

    def __init__(self, **options):
        super().__init__(**options)
        self.began, self.go_on = threading.Event(), threading.Event()

    def predict(self, pixels):
        if (pixels == 1).all():
            self.began.set()
            assert self.go_on.wait(20)
        return super().predict(pixels)


@pytest.fixture
def held():
    engine = HeldEngine(batch_size=4, parallel_batches=3)
    yield engine
    engine.go_on.set()


def test_a_second_caller_waits_for_the_patience_while_a_long_batch_runs(held):
    batcher = batcher_of(held)
    first = batcher.submit(inputs(1))
    assert held.began.wait(20)
    started = time.monotonic()
    assert batcher.submit(inputs(9)).result(20) == [9]
    waited = time.monotonic() - started
    assert PATIENCE_SECONDS == 0.25 <= waited
    # Not for the batch that still runs.
    assert not first.done()


def test_callers_within_the_patience_share_a_batch(held):
    batcher = batcher_of(held)
    batcher.submit(inputs(1))
    assert held.began.wait(20)
    answers = [batcher.submit(inputs(level)) for level in (7, 8, 9)]
    assert [answer.result(20) for answer in answers] == [[7], [8], [9]]
    assert held.batches == [3]


def test_a_full_batch_runs_at_once_beside_a_long_one(held, monkeypatch):
    monkeypatch.setattr(micro_batcher, "PATIENCE_SECONDS", 60)
    batcher = batcher_of(held)
    batcher.submit(inputs(1))
    assert held.began.wait(20)
    answers = [batcher.submit(inputs(level)) for level in (5, 6, 7, 8)]
    assert [answer.result(20) for answer in answers] == [[5], [6], [7], [8]]
    assert held.batches == [4]


def test_the_rest_of_a_request_runs_beside_its_beginning(monkeypatch):
    monkeypatch.setattr(micro_batcher, "PATIENCE_SECONDS", 60)
    together = threading.Barrier(2, timeout=20)

    class PairedEngine(FakeEngine):
        def predict(self, pixels):
            together.wait()
            return super().predict(pixels)

    engine = PairedEngine(batch_size=2)
    assert batcher_of(engine).submit(inputs(1, 2, 3)).result(20) == [1, 2, 3]
    assert sorted(engine.batches) == [1, 2]


def test_idle_engine_starts_at_once():
    started = time.monotonic()
    assert batcher_of(FakeEngine()).submit(inputs(3)).result(20) == [3]
    assert time.monotonic() - started < 20


def test_batches_are_full_while_somebody_feeds_them():
    engine = FakeEngine(batch_size=4)
    batcher = batcher_of(engine)
    with batcher.feeding():
        answers = [batcher.submit(inputs(level, level)) for level in range(1, 12)]
    assert [answer.result(20) for answer in answers] == [[i, i] for i in range(1, 12)]
    assert sorted(engine.batches) == [2, 4, 4, 4, 4, 4]


def test_feeder_that_pauses_gets_what_it_asked_for(monkeypatch):
    monkeypatch.setattr(micro_batcher, "FEEDING_PATIENCE_SECONDS", 0.1)
    batcher = batcher_of(FakeEngine())
    with batcher.feeding():
        assert batcher.submit(inputs(3)).result(20) == [3]


def test_requests_ahead_come_first(held):
    order = []
    held.parallel_batches, held.batch_size = 1, 1
    batcher = batcher_of(held)
    batcher.submit(inputs(1))
    assert held.began.wait(20)
    for level, ahead in ((5, False), (6, False), (7, True)):
        answer = batcher.submit(inputs(level), ahead=ahead)
        answer.add_done_callback(lambda done: order.extend(done.result()))
    held.go_on.set()
    answer.result(20)
    deadline = time.monotonic() + 20
    while len(order) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert order == [7, 5, 6]


def fails_at_zero(pixels):
    if not pixels.any():
        raise ValueError("black")
    return share_of_red(pixels)


def test_input_that_fails_spoils_its_own_request_alone():
    engine = FakeEngine(fails_at_zero, batch_size=4)
    batcher = batcher_of(engine)
    with batcher.feeding():
        answers = [batcher.submit(inputs(*levels)) for levels in ((1, 2, 3), (0, 4, 5, 6, 7), (8,))]
    assert answers[0].result(20) == [1, 2, 3]
    with pytest.raises(ValueError, match="black"):
        answers[1].result(20)
    assert answers[2].result(20) == [8]


def test_result_that_cannot_be_made_spoils_its_own_request_alone():
    def finish(_, outputs):
        levels = [round(255 * float(found[0, 0])) for found in outputs]
        if 7 in levels:
            raise ZeroDivisionError("no result")
        return levels

    batcher = MicroBatcher(FakeEngine(batch_size=4), finish)
    with batcher.feeding():
        answers = [batcher.submit(inputs(level)) for level in (5, 7, 9)]
    assert (answers[0].result(20), answers[2].result(20)) == (5, 9)
    with pytest.raises(ZeroDivisionError):
        answers[1].result(20)


def test_engine_that_cannot_be_opened_is_unavailable_to_all():
    def refuse(pixels):
        raise RuntimeError("disk on fire")

    engine = FakeEngine(refuse)
    engine.is_open = False
    batcher = batcher_of(engine)
    for answer in [batcher.submit(inputs(level)) for level in (1, 2)]:
        with pytest.raises(ModelUnavailableError, match="disk on fire"):
            answer.result(20)


def test_threads_end_when_nothing_comes_and_start_again(monkeypatch):
    monkeypatch.setattr(micro_batcher, "IDLE_SECONDS", 0.1)
    batcher = batcher_of(FakeEngine())
    others = set(threading.enumerate())
    for _ in range(2):
        assert batcher.submit(inputs(3)).result(20) == [3]
        deadline = time.monotonic() + 20
        while set(threading.enumerate()) - others and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not set(threading.enumerate()) - others


def test_many_threads_get_each_its_own_answer():
    engine = FakeEngine(batch_size=5, parallel_batches=3)
    batcher = batcher_of(engine)
    found = {}

    def ask(level):
        size = 1 + level % 7
        found[level] = batcher.submit(inputs(*[level] * size)).result(20) == [level] * size

    threads = [threading.Thread(target=ask, args=(level,)) for level in range(1, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 199 and all(found.values())
    assert sum(engine.batches) == sum(1 + level % 7 for level in range(1, 200))
