"""Fill the engines' batches with what waits: a folder's images, visitors' or clients'.

What waits for a model is one queue of network inputs, answered in the order of the images. Its
batches are filled across images: with first looks, with second ones and with crops of several
photographs. Where several models answer together, each has its own queue, since a batch that is not
full takes as long as a full one.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from real_vs_ai.errors import RealVsAIError
from real_vs_ai.serving.detector import Detector, Look
from real_vs_ai.verdict import Verdict

# Side by side; engines want about as many as there are cores.
_MOST_BATCHES = 256
# So long a request waits for others to fill its batch while the engine is busy.
_PATIENCE_SECONDS = 0.25
# The same while a folder is scored, where others are sure to come.
_LONG_PATIENCE_SECONDS = 30.0
# While more images wait, each is reduced to its inputs at once: 12 megapixels take 36 MB.
_MOST_WHOLE_IMAGES = 8
# `submit` waits while a model has so many batches ahead: they keep the engine busy.
_BATCHES_AHEAD = 6
# Messages to the thread that forms batches, apart from looks.
_ENDED, _WAKE, _CLOSE = "a batch has ended", "look again", "refuse the rest"


class ModelUnavailableError(RealVsAIError, RuntimeError):
    """The model cannot answer (deleted, damaged, closed); the message says why."""


# Inputs of a look, from here to there.
_Part = tuple[Look, int, int]
_Arrival = Look | str


class _Line:
    """What waits for one model."""

    def __init__(self, detector: Detector, *, bounded: bool) -> None:
        self.detector = detector
        self.looks: deque[Look] = deque()
        self.is_wide = False
        ahead = _BATCHES_AHEAD * detector.engine.batch_size // detector.inputs_of_an_image
        self.room = threading.Semaphore(max(_BATCHES_AHEAD, ahead)) if bounded else None

    @property
    def inputs(self) -> int:
        """How many wait."""
        return sum(len(look.inputs) - look.taken for look in self.looks)

    def take(self) -> list[_Part]:
        """The next batch: the last image's inputs may go on in the one after it."""
        parts, room = [], self.detector.engine.batch_size
        while self.looks and room:
            look = self.looks[0]
            if not look.is_wanted():
                self.looks.popleft()
                continue
            end = min(len(look.inputs), look.taken + room)
            parts.append((look, look.taken, end))
            room -= end - look.taken
            look.taken = end
            if end == len(look.inputs):
                self.looks.popleft()
        return parts


class JudgingQueue:
    """Images that wait for the models of a detector; `run` answers them, in a thread of its own.

    Attributes:
        detector: What judges.
        is_ending: No more images come, or hardly any.
        is_awaited: Nobody submits until a verdict is there.
    """

    def __init__(
        self, detector: Detector, *, in_batches: bool = False, is_shared: bool = True
    ) -> None:
        """Begin with no images.

        Args:
            in_batches: See `Detector.judge`.
            is_shared: Answer soon, for callers who wait. Otherwise fill every batch but the last
                ones, and let `submit` wait while there is enough to do.
        """
        self.detector = detector
        self._in_batches, self._is_shared = in_batches, is_shared
        self._lines = [_Line(one, bounded=not is_shared) for one in detector.detectors]
        self._arrivals: queue.SimpleQueue[_Arrival] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._closed = self.is_ending = self.is_awaited = False
        self._side_by_side, self._unanswered, self._idle_seconds = 1, 0, 0.0

    def submit(self, look: Look) -> Future[Verdict]:
        """Ask for a verdict without waiting for it.

        Raises:
            ModelUnavailableError: It was closed.
        """
        if self._is_shared and self._unanswered >= _MOST_WHOLE_IMAGES:
            look.let_go_of_image()
        line = self._lines[look.model]
        if line.room:
            line.room.acquire()
        look.came = time.monotonic()
        with self._gate:
            if self._closed:
                raise ModelUnavailableError("the model was replaced; check the image again")
            self._unanswered += 1
            self._arrivals.put(look)
        look.answer.add_done_callback(lambda _: self._leave(line))
        return look.answer

    def end(self, *, idle_seconds: float = 0.0) -> None:
        """Let `run` end once all images are answered and for so long no other has come."""
        self.is_ending, self._idle_seconds = True, idle_seconds
        self._arrivals.put(_WAKE)

    @contextlib.contextmanager
    def awaited(self) -> Iterator[None]:
        """Fill no batches up meanwhile: what could fill them does not come."""
        self.is_awaited = True
        self._arrivals.put(_WAKE)
        try:
            yield
        finally:
            self.is_awaited = False

    def run(self) -> None:
        """Hand what waits to the engines in batches, until the queue ends."""
        running = 0

        def answer(line: _Line, batch: list[_Part]) -> None:
            try:
                self._answer(line, batch)
            finally:
                self._arrivals.put(_ENDED)

        with ThreadPoolExecutor(_MOST_BATCHES, thread_name_prefix="judge") as judges:
            while arrivals := self._next_arrivals(running=running):
                for arrival in arrivals:
                    if isinstance(arrival, Look):
                        self._enter(arrival)
                    running -= arrival is _ENDED
                if _CLOSE in arrivals:
                    self._refuse([])
                    return
                while running < self._side_by_side and (line := self._ready(busy=running > 0)):
                    batch = line.take()
                    if not batch:
                        continue
                    running += 1
                    try:
                        judges.submit(answer, line, batch)
                    except RuntimeError:
                        # The interpreter is ending, and waits for every thread that waits for us.
                        self._refuse([look for look, _, _ in batch])
                        return

    def close(self) -> None:
        """Answer all that waits with an error, and take no more."""
        with self._gate:
            self._closed = True
        self._arrivals.put(_CLOSE)
        for line in self._lines:
            if line.room:
                # A caller that waits in `submit` then gets the error.
                line.room.release(_MOST_BATCHES)

    def _leave(self, line: _Line) -> None:
        with self._gate:
            self._unanswered -= 1
        if line.room:
            line.room.release()

    def _enter(self, look: Look) -> None:
        looks = self._lines[look.model].looks
        # What was looked at before is finished first: it stands for memory.
        if look.outputs is None:
            looks.append(look)
        else:
            looks.appendleft(look)

    def _ready(self, *, busy: bool) -> _Line | None:
        """The line whose next batch is to be computed; None while it is better to wait for more.

        The engine fills a batch up with empty images, which take as long as others. While others
        are sure to come, only whole batches are taken, and what has waited long.
        """
        waiting = [line for line in self._lines if line.looks]
        more = busy or not (self._is_shared or self.is_ending or self.is_awaited)
        patience = _PATIENCE_SECONDS if self._is_shared else _LONG_PATIENCE_SECONDS
        for line in sorted(waiting, key=lambda line: line.looks[0].came):
            first = line.looks[0]
            patient = more and time.monotonic() - first.came < patience
            # The rest of an image whose first inputs are computed now.
            is_begun = self._is_shared and first.taken > 0
            if not patient or is_begun or line.inputs >= line.detector.engine.batch_size:
                return line
        return None

    def _refuse(self, looks: list[Look]) -> None:
        """Answer these, all that waits and everything that comes later with an error."""
        with self._gate:
            self._closed = True
            arrivals = [self._arrivals.get() for _ in range(self._arrivals.qsize())]
        looks += [arrival for arrival in arrivals if isinstance(arrival, Look)]
        looks += [look for line in self._lines for look in line.looks]
        for look in looks:
            look.finish(ModelUnavailableError("the program is closing"))

    def _next_arrivals(self, *, running: int) -> list[_Arrival]:
        """What came since the last time, at least one thing; nothing once the queue ends."""
        while True:
            # A batch that runs tells when it ends.
            may_end = self.is_ending and not running
            if may_end and any(line.looks for line in self._lines):
                return [_WAKE]
            try:
                first = self._arrivals.get(timeout=self._idle_seconds if may_end else None)
            except queue.Empty:
                if self._end():
                    return []
            else:
                return [first, *(self._arrivals.get() for _ in range(self._arrivals.qsize()))]

    def _end(self) -> bool:
        """Take no more images, unless one came just now."""
        with self._gate:
            self._closed = self._arrivals.empty()
            return self._closed

    def _answer(self, line: _Line, batch: list[_Part]) -> None:
        """Compute a batch; what is finished then is answered, the rest waits once more."""
        if line.detector.inputs_of_an_image > 1:
            # The parts of an image are computed side by side.
            self._widen(line)
        try:
            inputs = np.concatenate([look.inputs[first:last] for look, first, last in batch])
            outputs = line.detector.compute(inputs, in_batches=self._in_batches)
            complete = self._distribute(batch, outputs)
            line.detector.go_on(complete)
        except Exception as error:
            self._answer_apart(line, list(dict.fromkeys(look for look, _, _ in batch)), error)
            return
        for look in complete:
            if look.is_finished:
                look.finish()
            else:
                self._arrivals.put(look)
        if self._is_shared or self._in_batches:
            # The engine compiles its form for batches to know how many it wants. The first visitor
            # need not wait for that.
            self._widen(line)

    def _distribute(self, batch: list[_Part], outputs: np.ndarray) -> list[Look]:
        """Give each look its outputs; returns those that have all now."""
        complete, start = [], 0
        for look, first, last in batch:
            with self._gate:
                count = last - first
                start += count
                if look.is_apart:
                    continue
                if not look.answered:
                    look.outputs = np.empty((len(look.inputs), outputs.shape[1]), outputs.dtype)
                look.outputs[first:last] = outputs[start - count : start]
                look.answered += count
                if look.answered == len(look.inputs):
                    look.taken = look.answered = 0
                    complete.append(look)
        return complete

    def _answer_apart(self, line: _Line, looks: list[Look], error: Exception) -> None:
        """After an error, judge each image alone: one must not spoil the answers of the others."""
        for look in looks:
            if not line.detector.engine.is_open:
                # The model could not be opened: no image can be judged by it.
                look.finish(ModelUnavailableError(str(error) or type(error).__name__))
                continue
            with self._gate:
                look.is_apart = True
            try:
                if len(looks) == 1:
                    raise error
                line.detector.judge([look], in_batches=self._in_batches)
                look.finish()
            except Exception as own:
                look.finish(own)

    def _widen(self, line: _Line) -> None:
        """Let as many batches run side by side as the line's engine wants."""
        if line.is_wide:
            return
        line.is_wide = True
        # If it cannot be compiled, batches run one after another and report the error.
        with contextlib.suppress(Exception):
            wanted = min(line.detector.engine.parallel_batches, _MOST_BATCHES)
            self._side_by_side = max(wanted, self._side_by_side)
            self._arrivals.put(_WAKE)
