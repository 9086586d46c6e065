"""Share one compiled model among the app's visitors or the clients of the service.

Requests wait in one queue for each model and are answered in the order they came, those that wait
together as one batch. Each caller asks for a few images at a time, so that somebody with one image
stands behind a handful of others, never behind somebody's five hundred.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from real_vs_ai.errors import RealVsAIError
from real_vs_ai.images import DecodedImage
from real_vs_ai.model_file import ModelMetadata, read_metadata
from real_vs_ai.runs import find_models, model_name
from real_vs_ai.serving.detector import Detector, PreparedImage
from real_vs_ai.verdict import Verdict

# Side by side; engines want about as many as there are cores.
_MOST_BATCHES = 256
# So long a request waits for others to fill its batch while the engine is busy.
_PATIENCE_SECONDS = 0.25
# Of a model that is to be closed: until no caller's check can be under way any more.
_IDLE_SECONDS = 60.0
# Messages to the thread that forms batches, apart from requests.
_ENDED, _WAKE = "a batch has ended", "look again"


class ModelUnavailableError(RealVsAIError, RuntimeError):
    """The model cannot answer (deleted, damaged, closed); the message says why."""


@dataclass(frozen=True, eq=False)
class _Request:
    image: PreparedImage
    answer: Future[Verdict]
    came: float = field(default_factory=time.monotonic)


_Arrival = _Request | str


@contextlib.contextmanager
def as_unavailable() -> Iterator[None]:
    """Whatever goes wrong in the model becomes a message for the one who asked."""
    try:
        yield
    except ModelUnavailableError:
        raise
    except Exception as error:
        raise ModelUnavailableError(str(error) or type(error).__name__) from error


class SharedModel:
    """Answers in threads of its own, where the model opens while the caller continues.

    Attributes:
        path: The `.h5` file, or a folder with several models that answer together.
        metadata: What the file (the first one) says of the model.
        metadatas: The same of each model, by its name.
    """

    def __init__(self, path: Path, *, open_detector: Callable[[Path], Detector] = Detector.open):
        """Read the model's metadata and begin to open it.

        Raises:
            FileNotFoundError: There is no such file.
            ModelFileError: It is not one of our model files.
        """
        self.path = path
        paths = find_models(path)
        self.metadatas = {model_name(one): read_metadata(one) for one in paths}
        self.metadata: ModelMetadata = read_metadata(paths[0])
        self._opening: Future[Detector] = Future()
        self._arrivals: queue.SimpleQueue[_Arrival] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._retiring = self._closed = self._is_wide = False
        self._side_by_side = 1
        threading.Thread(
            target=self._serve, args=(open_detector,), name="model", daemon=True
        ).start()

    @property
    def is_opening(self) -> bool:
        """Whether the model is still being read and compiled."""
        return not self._opening.done()

    def detector(self) -> Detector:
        """The detector, once it is open; ModelUnavailableError if it could not be opened."""
        with as_unavailable():
            return self._opening.result()

    def predict_batch(self, images: list[np.ndarray]) -> list[Verdict]:
        """Verdicts for several images, each of shape (height, width, 3), uint8; waits its turn.

        Raises:
            ModelUnavailableError: The model cannot answer.
        """
        with as_unavailable():
            answers = [self.submit(pixels) for pixels in images]
            return [answer.result() for answer in answers]

    def submit(self, image: DecodedImage | np.ndarray) -> Future[Verdict]:
        """Ask for a verdict without waiting for it.

        Raises:
            ModelUnavailableError: The model could not be opened, or was closed.
        """
        # Reduced here, by the thread that asks: what waits in the queue is small.
        prepared = self.detector().prepare(image)
        answer: Future[Verdict] = Future()
        with self._gate:
            if self._closed:
                raise ModelUnavailableError("the model was replaced; check the image again")
            self._arrivals.put(_Request(prepared, answer))
        return answer

    def close(self) -> None:
        """Let the threads end once no request has come for a while: others may still use it."""
        self._retiring = True
        self._arrivals.put(_WAKE)

    def _serve(self, open_detector: Callable[[Path], Detector]) -> None:
        try:
            detector = open_detector(self.path)
        except Exception as error:  # Every caller learns what went wrong.
            self._opening.set_exception(error)
            return
        _exempt_from_garbage_collection()
        self._opening.set_result(detector)
        self._dispatch(detector)

    def _dispatch(self, detector: Detector) -> None:
        """Hand what waits to the engine in batches, until the service ends."""
        waiting: list[deque[_Request]] = [deque() for _ in detector.detectors]
        running = 0

        def answer(batch: list[_Request]) -> None:
            try:
                _answer(detector, batch)
            finally:
                self._arrivals.put(_ENDED)

        with ThreadPoolExecutor(_MOST_BATCHES, thread_name_prefix="judge") as judges:
            while arrivals := self._next_arrivals(may_end=not running):
                for arrival in arrivals:
                    if isinstance(arrival, _Request):
                        waiting[arrival.image.model].append(arrival)
                    running -= arrival is _ENDED
                while running < self._side_by_side and (
                    batch := _take(waiting, detector, busy=running > 0)
                ):
                    running += 1
                    try:
                        answered = judges.submit(answer, batch)
                    except RuntimeError:
                        # The interpreter is ending, and waits for every thread that waits for us.
                        self._refuse([*batch, *itertools.chain(*waiting)])
                        return
                    if not self._is_wide:
                        # The engine compiles its form for batches to know how many it wants. The
                        # first visitor need not wait for that.
                        self._is_wide = True
                        answered.add_done_callback(lambda _: self._widen(detector))

    def _refuse(self, requests: list[_Request]) -> None:
        """Answer these, what has arrived since, and everything that comes later with an error."""
        with self._gate:
            self._closed = True
            arrivals = [self._arrivals.get() for _ in range(self._arrivals.qsize())]
        requests += [arrival for arrival in arrivals if isinstance(arrival, _Request)]
        for request in requests:
            # Whoever asked may have gone.
            with contextlib.suppress(InvalidStateError):
                request.answer.set_exception(ModelUnavailableError("the program is closing"))

    def _next_arrivals(self, *, may_end: bool) -> list[_Arrival]:
        """What came since the last time, at least one thing; nothing once the service ends."""
        while True:
            try:
                first = self._arrivals.get(timeout=_IDLE_SECONDS if self._retiring else None)
            except queue.Empty:
                if may_end and self._end():
                    return []
            else:
                return [first, *(self._arrivals.get() for _ in range(self._arrivals.qsize()))]

    def _widen(self, detector: Detector) -> None:
        """Let as many batches run side by side as the engine wants, not one after another."""
        # If it cannot be compiled, batches run one after another and report the error.
        with contextlib.suppress(Exception):
            self._side_by_side = min(detector.parallel_batches, _MOST_BATCHES)
            self._arrivals.put(_WAKE)

    def _end(self) -> bool:
        """Take no more requests, unless one came just now."""
        with self._gate:
            self._closed = self._arrivals.empty()
            return self._closed


def _take(waiting: Sequence[deque[_Request]], detector: Detector, *, busy: bool) -> list[_Request]:
    """The next batch for one of the models; nothing while it is better to wait for more.

    The engine fills a batch up with empty images, which take as long as others. While it is busy
    anyway, only whole batches are taken, and what has waited long.
    """
    models = [pair for pair in zip(detector.detectors, waiting, strict=True) if pair[1]]
    for one, requests in sorted(models, key=lambda pair: pair[1][0].came):
        patient = busy and time.monotonic() - requests[0].came < _PATIENCE_SECONDS
        batch: list[_Request] = []
        if not patient or len(requests) >= one.batch_size:
            while requests and len(batch) < one.batch_size:
                request = requests.popleft()
                # A request that was cancelled while it waited is left out.
                if request.answer.set_running_or_notify_cancel():
                    batch.append(request)
        if batch:
            return batch
    return []


def _exempt_from_garbage_collection() -> None:
    """Look no more for garbage among what is there now: the libraries, and the model.

    Streamlit looks after every run of the page, before its last messages leave; over all that was
    imported this took 45 ms of every upload.
    """
    gc.collect()
    gc.freeze()


def _answer(detector: Detector, batch: list[_Request]) -> None:
    try:
        verdicts = detector.judge([request.image for request in batch])
    except Exception as error:
        if len(batch) > 1:
            # One image must not spoil the answers of the others.
            for request in batch:
                _answer(detector, [request])
            return
        batch[0].answer.set_exception(error)
        return
    for request, verdict in zip(batch, verdicts, strict=True):
        request.answer.set_result(verdict)
