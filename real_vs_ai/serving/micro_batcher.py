"""Compute what many callers ask of one model in batches, and let nobody wait long for others.

Each model has a batcher of its own, since a batch that is not full takes an engine as long as a
full one. A request is a few inputs of one image; a batch may end in the middle of one.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import numpy as np

from real_vs_ai.core.errors import RealVsAIError
from real_vs_ai.serving.engines import Engine

# So long a request may wait for others to fill its batch while the engine works.
PATIENCE_SECONDS = 0.25
# The same while a caller feeds images one after the other, whether the engine works or not.
FEEDING_PATIENCE_SECONDS = 1.0
# A worker that had nothing to do for so long ends, and lets go of the model.
IDLE_SECONDS = 60.0
R = TypeVar("R")


class ModelUnavailableError(RealVsAIError, RuntimeError):
    """The model cannot answer (deleted, damaged, replaced); the message says why."""


def as_unavailable(error: Exception) -> ModelUnavailableError:
    """Whatever goes wrong in the model, as a message for the one who asked."""
    if isinstance(error, ModelUnavailableError):
        return error
    return ModelUnavailableError(str(error) or type(error).__name__)


@dataclass(frozen=True, eq=False)
class _Request(Generic[R]):
    """Inputs that somebody waits for, shape (n, image_size, image_size, 3), and since when."""

    inputs: np.ndarray
    answer: Future[R]
    came: float


@dataclass(frozen=True)
class _Part(Generic[R]):
    """Some inputs of a request, from here to there."""

    request: _Request[R]
    start: int
    stop: int

    @property
    def inputs(self) -> np.ndarray:
        return self.request.inputs[self.start : self.stop]

    def __len__(self) -> int:
        return self.stop - self.start


class MicroBatcher(Generic[R]):
    """Collects requests to one engine into batches; any thread may ask.

    A batch runs as soon as it is full, or the engine has nothing else to do, or its oldest request
    has waited for the patience, or it holds the rest of a request that is computed already. As many
    batches run side by side as the engine wants. An input that fails fails its own request alone.
    """

    def __init__(
        self,
        engine: Engine,
        finish: Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], Sequence[R]],
    ) -> None:
        """Begin with no requests and no threads.

        Args:
            finish: Makes the results of the requests that a batch completes, from the inputs and
                the engine's outputs of each.
        """
        self._engine, self._finish = engine, finish
        # Hold it to read or change the fields below.
        self._changed = threading.Condition()
        self._waiting: deque[_Part[R]] = deque()
        # Outputs of requests that are not complete yet, by their start. Those of a request that has
        # failed meanwhile vanish with it.
        self._computed: WeakKeyDictionary[_Request[R], dict[int, np.ndarray]] = WeakKeyDictionary()
        self._workers = self._running = self._feeders = 0

    def submit(self, inputs: np.ndarray, *, ahead: bool = False) -> Future[R]:
        """Ask for the result of some inputs without waiting for it.

        Args:
            inputs: Of one image, shape (n, image_size, image_size, 3), uint8, at least one.
            ahead: Before all others: the image was begun, and what it holds of memory ends sooner.

        Raises:
            ModelUnavailableError: The interpreter is ending.
        """
        request: _Request[R] = _Request(inputs, Future(), time.monotonic())
        part = _Part(request, 0, len(inputs))
        with self._changed:
            self._add_worker()
            (self._waiting.appendleft if ahead else self._waiting.append)(part)
            self._changed.notify_all()
        return request.answer

    @contextlib.contextmanager
    def feeding(self) -> Iterator[None]:
        """Wait longer for full batches meanwhile: more requests come, and nobody reads answers."""
        with self._changed:
            self._feeders += 1
        try:
            yield
        finally:
            with self._changed:
                self._feeders -= 1
                self._changed.notify_all()

    def _add_worker(self) -> None:
        if self._workers >= self._engine.parallel_batches:
            return
        try:
            threading.Thread(target=self._work, name="batches", daemon=True).start()
            self._workers += 1
        except RuntimeError as error:
            if not self._workers:
                raise ModelUnavailableError("the program is closing") from error

    def _work(self) -> None:
        while parts := self._next_batch():
            self._compute(parts)

    def _next_batch(self) -> list[_Part[R]]:
        """What is to be computed next, once it is time; [] when nothing has come for long."""
        with self._changed:
            while (delay := self._delay()) > 0:
                if not self._changed.wait(delay) and not self._waiting:
                    self._workers -= 1
                    return []
            self._running += 1
            parts, room = [], self._engine.batch_size
            while self._waiting and room:
                first = self._waiting.popleft()
                cut = min(first.stop, first.start + room)
                parts.append(_Part(first.request, first.start, cut))
                room -= cut - first.start
                if cut < first.stop:
                    self._waiting.appendleft(_Part(first.request, cut, first.stop))
            if self._waiting:
                # One request may make several batches.
                self._add_worker()
            return parts

    def _delay(self) -> float:
        """Seconds until the next batch is to run, if nothing changes; 0: now."""
        if not self._waiting:
            return IDLE_SECONDS
        if sum(map(len, self._waiting)) >= self._engine.batch_size:
            return 0.0
        if self._feeders:
            patience = FEEDING_PATIENCE_SECONDS
        elif self._running and not any(part.start for part in self._waiting):
            patience = PATIENCE_SECONDS
        else:
            return 0.0
        oldest = min(part.request.came for part in self._waiting)
        return max(0.0, oldest + patience - time.monotonic())

    def _compute(self, parts: list[_Part[R]]) -> None:
        """Run a batch and answer the requests that it completes."""
        outputs = self._predict(parts)
        complete = self._gather(parts, outputs)
        results = self._results(complete)
        with self._changed:
            self._running -= 1
            self._changed.notify_all()
        # What waits for them may take a while, and may ask for more.
        for (request, _), result in zip(complete, results, strict=True):
            _answer(request, result)

    def _predict(self, parts: list[_Part[R]]) -> list[np.ndarray | Exception]:
        """The engine's outputs for each part, or what went wrong with it."""
        try:
            outputs = self._engine.predict(np.concatenate([part.inputs for part in parts]))
            return list(np.split(outputs, np.cumsum([len(part) for part in parts])[:-1]))
        except Exception as error:
            if not self._engine.is_open:
                # The model could not be opened: no image can be judged by it.
                return [as_unavailable(error)] * len(parts)
            # One image must not spoil the answers of the others.
            return [error] if len(parts) == 1 else [self._predict([part])[0] for part in parts]

    def _gather(
        self, parts: list[_Part[R]], outputs: list[np.ndarray | Exception]
    ) -> list[tuple[_Request[R], np.ndarray | Exception]]:
        """The requests that are complete now, or have failed, with all their outputs."""
        complete: list[tuple[_Request[R], np.ndarray | Exception]] = []
        with self._changed:
            for part, outputs_of_part in zip(parts, outputs, strict=True):
                request = part.request
                if isinstance(outputs_of_part, Exception):
                    complete.append((request, outputs_of_part))
                    self._waiting = deque(p for p in self._waiting if p.request is not request)
                    continue
                known = self._computed.setdefault(request, {})
                known[part.start] = outputs_of_part
                if sum(map(len, known.values())) == len(request.inputs):
                    del self._computed[request]
                    complete.append((request, np.concatenate([known[at] for at in sorted(known)])))
        return complete

    def _results(
        self, complete: list[tuple[_Request[R], np.ndarray | Exception]]
    ) -> list[R | Exception]:
        """What the requests get: a result, or what went wrong."""
        try:
            whole = [
                (r.inputs, outputs) for r, outputs in complete if not isinstance(outputs, Exception)
            ]
            made = iter(self._finish(*map(list, zip(*whole, strict=True))) if whole else ())
            return [f if isinstance(f, Exception) else next(made) for _, f in complete]
        except Exception as error:
            if len(complete) == 1:
                return [error]
            return [self._results([one])[0] for one in complete]


def _answer(request: _Request[Any], result: object) -> None:
    if request.answer.done():
        # Another part of it had failed before.
        return
    if isinstance(result, Exception):
        request.answer.set_exception(result)
    else:
        request.answer.set_result(result)
