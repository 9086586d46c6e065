"""Share one compiled model among the app's visitors or the clients of the service."""

from __future__ import annotations

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import numpy as np

from real_vs_ai.images import DecodedImage
from real_vs_ai.model_file import ModelMetadata, read_metadata
from real_vs_ai.runs import find_models, model_name
from real_vs_ai.serving.detector import Detector
from real_vs_ai.serving.judging_queue import JudgingQueue, ModelUnavailableError
from real_vs_ai.verdict import Verdict

# A closed model waits so long for requests that are still on their way.
_IDLE_SECONDS = 60.0


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
        self._opening: Future[JudgingQueue] = Future()
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
            return self._opening.result().detector

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
        # Reduced here, by the thread that asks.
        prepared = self.detector().prepare(image)
        return self._opening.result().submit(prepared)

    def close(self) -> None:
        """Let the threads end once no request has come for a while: others may still use it."""
        self._opening.add_done_callback(_end)

    def _serve(self, open_detector: Callable[[Path], Detector]) -> None:
        try:
            opened = JudgingQueue(open_detector(self.path))
        except Exception as error:  # Every caller learns what went wrong.
            self._opening.set_exception(error)
            return
        _exempt_from_garbage_collection()
        self._opening.set_result(opened)
        opened.run()


def _end(opening: Future[JudgingQueue]) -> None:
    if opening.exception() is None:
        opening.result().end(idle_seconds=_IDLE_SECONDS)


def _exempt_from_garbage_collection() -> None:
    """Look no more for garbage among what is there now: the libraries, and the model.

    Streamlit looks after every run of the page, before its last messages leave; over all that was
    imported this took 45 ms of every upload.
    """
    gc.collect()
    gc.freeze()
