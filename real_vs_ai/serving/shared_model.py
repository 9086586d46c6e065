"""Share one compiled model among all who ask: the app's visitors, or the clients of the service.

    model = SharedModel(Path("models/released/model.h5"))
    verdict = model.submit(pixels).result()

Requests wait in one queue and are answered in the order they came, those that wait together as one
batch. Each caller asks for a few images at a time, so that somebody with one image stands behind a
handful of others, never behind somebody's five hundred.
"""

from __future__ import annotations

import contextlib
import gc
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np

from real_vs_ai.errors import RealVsAIError
from real_vs_ai.images import DecodedImage
from real_vs_ai.model_file import ModelMetadata, read_metadata
from real_vs_ai.runs import find_models, model_name
from real_vs_ai.serving.detector import Detector, PreparedImage
from real_vs_ai.verdict import Verdict

# A batch may hold this many requests, more where the engine takes more at a time.
_SMALLEST_LIMIT = 16
# Side by side; engines want about as many as there are cores.
_MOST_BATCHES = 256
# Of a model that is to be closed: until no caller's check can be under way any more.
_IDLE_SECONDS = 60.0
_Request = tuple[PreparedImage, "Future[Verdict]"]


class ModelUnavailableError(RealVsAIError, RuntimeError):
    """The model cannot answer (deleted, damaged, closed); the message says why."""


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
    """Answers in threads of its own; the model is opened there while the caller goes on.

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
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._retiring = self._closed = False
        threading.Thread(
            target=self._serve, args=(open_detector,), name="model", daemon=True
        ).start()

    @property
    def is_opening(self) -> bool:
        """Whether the model is still being read and compiled."""
        return not self._opening.done()

    def detector(self) -> Detector:
        """The detector, once it is open.

        Raises:
            ModelUnavailableError: It could not be opened.
        """
        with as_unavailable():
            return self._opening.result()

    def predict_batch(self, images: list[np.ndarray]) -> list[Verdict]:
        """Verdicts for several images; waits for their turn.

        Args:
            images: Each of shape (height, width, 3), uint8.

        Raises:
            ModelUnavailableError: The model cannot answer.
        """
        with as_unavailable():
            answers = [self.submit(pixels) for pixels in images]
            return [answer.result() for answer in answers]

    def submit(self, image: DecodedImage | np.ndarray) -> Future[Verdict]:
        """Ask for a verdict without waiting for it.

        Args:
            image: Decoded, or its pixels, shape (height, width, 3), uint8.

        Raises:
            ModelUnavailableError: The model could not be opened, or was closed.
        """
        # Reduced here, by the thread that asks: what waits in the queue is small.
        prepared = self.detector().prepare(image)
        answer: Future[Verdict] = Future()
        with self._gate:
            if self._closed:
                raise ModelUnavailableError("the model was replaced; check the image again")
            self._requests.put((prepared, answer))
        return answer

    def close(self) -> None:
        """Let the threads end once nobody has asked for a while: others may be at work with it."""
        self._retiring = True
        self._requests.put(None)

    def _serve(self, open_detector: Callable[[Path], Detector]) -> None:
        try:
            detector = open_detector(self.path)
        except Exception as error:  # Every caller learns what went wrong.
            self._opening.set_exception(error)
            return
        _exempt_from_garbage_collection()
        self._opening.set_result(detector)
        # As many batches side by side as keep the engine busy. A batch is taken only when one of
        # them has ended, so that the requests of that time come together.
        free = threading.Semaphore(1)

        def answer(batch: list[_Request]) -> None:
            try:
                _answer(detector, batch)
            finally:
                free.release()

        with ThreadPoolExecutor(_MOST_BATCHES, thread_name_prefix="judge") as judges:
            ended, first = False, True
            while not ended:
                free.acquire()
                batch, ended = self._next_batch(max(_SMALLEST_LIMIT, detector.batch_size))
                answered = judges.submit(answer, batch)
                if first:
                    # The engine compiles its form for batches to know how many it wants. The first
                    # visitor need not wait for that.
                    first = False
                    answered.add_done_callback(lambda _: _widen(free, detector))

    def _next_batch(self, largest: int) -> tuple[list[_Request], bool]:
        """The requests that wait now, at least one, and whether the service ends after them."""
        batch: list[_Request] = []
        while len(batch) < largest:
            patience = _IDLE_SECONDS if self._retiring else None
            try:
                request = self._requests.get(block=not batch, timeout=patience)
            except queue.Empty:
                if batch or not self._end():
                    break
                return [], True
            # None only wakes the thread, so that its patience ends.
            if request is not None:
                batch.append(request)
        return batch, False

    def _end(self) -> bool:
        """Take no more requests, unless one came just now."""
        with self._gate:
            self._closed = self._requests.empty()
            return self._closed


def _widen(free: threading.Semaphore, detector: Detector) -> None:
    """Let as many batches run side by side as the engine wants, not one after another."""
    # Where it cannot be compiled, batches go on one after another, and tell their callers.
    with contextlib.suppress(Exception):
        for _ in range(min(detector.parallel_batches, _MOST_BATCHES) - 1):
            free.release()


def _exempt_from_garbage_collection() -> None:
    """Look no more for garbage among what is there now: the libraries, and the model.

    Streamlit looks after every run of the page, before its last messages leave; over all that was
    imported this took 45 ms of every upload.
    """
    gc.collect()
    gc.freeze()


def _answer(detector: Detector, batch: list[_Request]) -> None:
    if not batch:
        return
    try:
        verdicts = detector.judge([image for image, _ in batch])
    except Exception as error:
        if len(batch) > 1:
            # One image must not spoil the answers of the others.
            for request in batch:
                _answer(detector, [request])
            return
        batch[0][1].set_exception(error)
        return
    for (_, answer), verdict in zip(batch, verdicts, strict=True):
        answer.set_result(verdict)
