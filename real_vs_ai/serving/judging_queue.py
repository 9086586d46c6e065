"""Fill the engines' batches with what waits: a folder's images, visitors' or clients'.

What waits for a model is one queue of network inputs, answered in the order of the images. Its
batches are filled across images: with first looks, with second ones and with crops of several
photographs. Where several models answer together, each has its own queue, since a batch that is not
full takes as long as a full one.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from real_vs_ai.errors import RealVsAIError
from real_vs_ai.serving.detector import Detector, Look
from real_vs_ai.verdict import Verdict

# Side by side; engines want about as many as there are cores.
_MOST_BATCHES = 256
# So long a request waits for others to fill its batch while the engine is busy.
_PATIENCE_SECONDS = 0.25
# While more images wait, each is reduced to its inputs at once: 12 megapixels take 36 MB.
_MOST_WHOLE_IMAGES = 8
# `submit` waits while a model has so many batches ahead: they keep the engine busy.
_BATCHES_AHEAD = 6


class ModelUnavailableError(RealVsAIError, RuntimeError):
    """The model cannot answer (deleted, damaged, closed); the message says why."""


def as_unavailable(error: Exception) -> ModelUnavailableError:
    """Whatever goes wrong in the model, as a message for the one who asked."""
    if isinstance(error, ModelUnavailableError):
        return error
    return ModelUnavailableError(str(error) or type(error).__name__)


# Inputs of a look, from here to there.
_Part = tuple[Look, int, int]


class _Line:
    """What waits for one model."""

    def __init__(self, detector: Detector) -> None:
        self.detector = detector
        self.looks: deque[Look] = deque()
        self.unanswered = 0
        ahead = _BATCHES_AHEAD * detector.engine.batch_size // detector.inputs_of_an_image
        self.most_unanswered = max(_BATCHES_AHEAD, ahead)
        self.is_wide = False

    @property
    def inputs(self) -> int:
        """How many wait."""
        return sum(len(look.inputs) - look.taken for look in self.looks)

    def take(self) -> list[_Part]:
        """The next batch: the last image's inputs may go on in the one after it."""
        parts, room = [], self.detector.engine.batch_size
        while self.looks and room:
            look = self.looks[0]
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
    """

    def __init__(self, detector: Detector, *, is_shared: bool = True) -> None:
        """Begin with no images.

        Args:
            is_shared: Answer soon, for callers who wait. Otherwise fill every batch but the last
                ones, and let `submit` wait while there is enough to do.
        """
        self.detector = detector
        self._is_shared = is_shared
        self._lines = [_Line(one) for one in detector.detectors]
        # Hold it to read or change the fields below, the lines and what a look waits for.
        self._changed = threading.Condition()
        self._side_by_side, self._running, self._idle_seconds = 1, 0, 0.0
        self._is_ending = self._is_awaited = self._is_closed = False

    def submit(self, look: Look) -> Future[Verdict]:
        """Ask for a verdict without waiting for it.

        Raises:
            ModelUnavailableError: It was closed.
        """
        line = self._lines[look.model]
        if self._is_shared and sum(one.unanswered for one in self._lines) >= _MOST_WHOLE_IMAGES:
            look.let_go_of_image()
        with self._changed:
            if not self._is_shared:
                self._changed.wait_for(
                    lambda: self._is_closed or line.unanswered < line.most_unanswered
                )
            if self._is_closed:
                raise ModelUnavailableError("the model was replaced; check the image again")
            look.came = time.monotonic()
            line.unanswered += 1
            line.looks.append(look)
            self._changed.notify_all()
        look.answer.add_done_callback(lambda _: self._leave(line))
        return look.answer

    def end(self, *, idle_seconds: float = 0.0) -> None:
        """Let `run` end once all images are answered and for so long no other has come."""
        with self._changed:
            self._is_ending, self._idle_seconds = True, idle_seconds
            self._changed.notify_all()

    @contextlib.contextmanager
    def awaited(self) -> Iterator[None]:
        """Fill no batches up meanwhile: what could fill them does not come."""
        with self._changed:
            self._is_awaited = True
            self._changed.notify_all()
        try:
            yield
        finally:
            self._is_awaited = False

    def run(self) -> None:
        """Hand what waits to the engines in batches, until the queue ends."""
        with ThreadPoolExecutor(_MOST_BATCHES, thread_name_prefix="judge") as judges:
            while found := self._next_batch():
                try:
                    judges.submit(self._answer, *found)
                except RuntimeError:
                    # The interpreter is ending, and waits for every thread that waits for us.
                    self.close()
                    _refuse(look for look, _, _ in found[1])
        _refuse(look for line in self._lines for look in line.looks)

    def close(self) -> None:
        """Answer all that waits with an error, and take no more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _leave(self, line: _Line) -> None:
        with self._changed:
            line.unanswered -= 1
            self._changed.notify_all()

    def _next_batch(self) -> tuple[_Line, list[_Part]] | None:
        """What is to be computed next, once there is something; None when the queue ends."""
        with self._changed:
            while not self._is_closed:
                if self._running < self._side_by_side and (line := self._ready()):
                    self._running += 1
                    return line, line.take()
                if not self._is_ending or self._running or self._is_anything_there():
                    self._changed.wait()
                elif not self._changed.wait_for(self._is_anything_there, self._idle_seconds):
                    self._is_closed = True
        return None

    def _is_anything_there(self) -> bool:
        return self._is_closed or any(line.looks for line in self._lines)

    def _ready(self) -> _Line | None:
        """The line whose next batch is to be computed; None while it is better to wait for more.

        The engine fills a batch up with empty images, which take as long as others. While others
        are sure to come, only whole batches are taken, and what a visitor waits for long.
        """
        is_idle = not self._running and (self._is_shared or self._is_ending or self._is_awaited)
        waiting = [line for line in self._lines if line.looks]
        for line in sorted(waiting, key=lambda line: line.looks[0].came):
            first = line.looks[0]
            is_late = time.monotonic() - first.came >= _PATIENCE_SECONDS
            # Late, or the rest of an image whose first inputs are computed now.
            is_urgent = self._is_shared and (is_late or first.taken > 0)
            if is_idle or is_urgent or line.inputs >= line.detector.engine.batch_size:
                return line
        return None

    def _answer(self, line: _Line, batch: list[_Part]) -> None:
        """Compute a batch; what is finished then is answered, the rest waits once more."""
        if line.detector.inputs_of_an_image > 1:
            # The parts of an image are computed side by side.
            self._widen(line)
        complete: list[Look] = []
        try:
            inputs = np.concatenate([look.inputs[first:last] for look, first, last in batch])
            complete = self._distribute(batch, line.detector.compute(inputs))
            line.detector.go_on(complete)
        except Exception as error:
            self._answer_apart(line, list(dict.fromkeys(look for look, _, _ in batch)), error)
            complete = []
        with self._changed:
            self._running -= 1
            # What was looked at before is finished first: it stands for memory.
            line.looks.extendleft(look for look in complete if not look.is_finished)
            self._changed.notify_all()
        for look in complete:
            if look.is_finished:
                look.finish()
        if self._is_shared or line.detector.engine.for_batches:
            # The engine compiles its form for batches to know how many it wants. The first visitor
            # need not wait for that.
            self._widen(line)

    def _distribute(self, batch: list[_Part], outputs: np.ndarray) -> list[Look]:
        """Give each look its outputs; returns those that have all now."""
        complete, start = [], 0
        with self._changed:
            for look, first, last in batch:
                found = outputs[start : start + last - first]
                start += last - first
                if look.is_apart:
                    continue
                if not look.answered:
                    look.outputs = np.empty((len(look.inputs), outputs.shape[1]), outputs.dtype)
                look.outputs[first:last] = found
                look.answered += last - first
                if look.answered == len(look.inputs):
                    look.taken = look.answered = 0
                    complete.append(look)
        return complete

    def _answer_apart(self, line: _Line, looks: list[Look], error: Exception) -> None:
        """After an error, judge each image alone: one must not spoil the answers of the others."""
        with self._changed:
            for look in looks:
                look.is_apart = True
                with contextlib.suppress(ValueError):
                    # The rest of its inputs still waits.
                    line.looks.remove(look)
        for look in looks:
            try:
                if not line.detector.engine.is_open:
                    # The model could not be opened: no image can be judged by it.
                    raise as_unavailable(error)
                if len(looks) == 1:
                    raise error
                line.detector.judge([look])
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
            with self._changed:
                self._side_by_side = max(wanted, self._side_by_side)
                self._changed.notify_all()


def _refuse(looks: Iterable[Look]) -> None:
    for look in looks:
        look.finish(ModelUnavailableError("the program is closing"))
