"""Judge image files: the one way from bytes to an answer.

The command line and an evaluation judge many files (`judge_files`), the app and the service what
comes (`Judge`). Bytes are decoded, given to the model of their size, computed in full batches with
others, checked on a copy where the verdict is certain, and explained by reasons. What the file says
of its origin stands beside the verdict and never changes it. A file that cannot be judged becomes
an answer with its error.

An evaluation opens its detector in float32 and without thresholds (`verdict.without_thresholds`),
so that the copy of every image is judged. It finds in each `answer.verdict`, of out-of-distribution
images too, the network's own probabilities (`uncalibrated`, in the order of the model's classes).
`verdict.recalibrate` then applies the temperature and thresholds that it fits.
"""

from __future__ import annotations

import functools
import gc
import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from real_vs_ai.config import MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS
from real_vs_ai.errors import InputError, one_line
from real_vs_ai.files import hash_file, read_json
from real_vs_ai.images import DecodedImage, ImageError, ImageTooLargeError, decode_image
from real_vs_ai.model_file import ModelMetadata, read_metadata
from real_vs_ai.provenance import Finding, read_provenance, read_trust_list
from real_vs_ai.runs import RunFolder, find_models, model_name
from real_vs_ai.serving.conclusion import Conclusion, conclude
from real_vs_ai.serving.decoding_room import DecodingRoom
from real_vs_ai.serving.detector import Detector
from real_vs_ai.serving.image_sources import ImageSource, read_source
from real_vs_ai.serving.judging_queue import JudgingQueue, ModelUnavailableError, as_unavailable
from real_vs_ai.track_record import TrackRecord, read_track_record
from real_vs_ai.verdict import Verdict, thresholds_of

# A model that is to be closed waits so long that no check of a caller can still be under way.
_IDLE_SECONDS = 60.0
# Larger images are reduced to their inputs at once: 50 megapixels take 200 MB.
_MOST_HELD_PIXELS = 25_000_000
# Verdicts that wait for the verdict of an image before them: a kill loses them.
_MOST_AHEAD = 512
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Answer:
    """What is known of one image file.

    Attributes:
        name: Its `ImageSource.name`, or what the sender called it: do not trust it.
        verdict: None when the file cannot be judged.
        error: One line that says why, or "".
        exceeds_limit: Whether it was refused for its size.
        width: In pixels, upright; None when the file cannot be read.
        format: The file's real format ("JPEG"), or "".
        notes: What was done to it in decoding, one sentence each.
        findings: What the file says of its origin.
        sha256: Of the file's bytes, hexadecimal; "" when they cannot be read.
    """

    name: str
    verdict: Verdict | None = None
    error: str = ""
    exceeds_limit: bool = False
    width: int | None = None
    height: int | None = None
    format: str = ""
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()
    sha256: str = ""

    @functools.cached_property
    def conclusion(self) -> Conclusion:
        """What the file says and what the model sees, as one conclusion."""
        return conclude(self.verdict, self.findings, self.error)


# All but the verdict on a file, and the verdict that is awaited.
_Begun = tuple[Answer, Future[Verdict | None]]


@dataclass(frozen=True)
class ServedModel:
    """A model that answers, as tables, pages and reports speak of it.

    Attributes:
        name: What people call it.
        path: The `.h5` file.
        metadata: What the file said of the model when it was read.
    """

    name: str
    path: Path
    metadata: ModelMetadata

    @functools.cached_property
    def sha256(self) -> str:
        """Of the file, hexadecimal; reading it takes a while."""
        return hash_file(self.path)

    @functools.cached_property
    def record(self) -> TrackRecord:
        """How often it answers and is wrong.

        The report beside the file says it, by kinds of pictures too; without one, the file does.
        """
        own = self.metadata.metrics
        try:
            told = read_json(RunFolder(self.path.parent).metrics)["test"]
            # The report may be another model's.
            return read_track_record(told if told["n"] == own["n"] else own)
        except (OSError, InputError, KeyError, TypeError):
            return read_track_record(own)

    def describe(self) -> dict[str, Any]:
        """The same for JSON."""
        metadata = self.metadata
        return {
            "name": self.name,
            "sha256": self.sha256,
            "class_names": list(metadata.class_names),
            "image_size": metadata.image_size,
            "calibrated": metadata.calibrated,
            "thresholds": thresholds_of(metadata),
            "created": metadata.created,
            "versions": metadata.versions,
        }


def served_models(path: Path | None) -> tuple[ServedModel, ...]:
    """The models that `Detector.open` would open."""
    return tuple(ServedModel(model_name(p), p, read_metadata(p)) for p in find_models(path))


class Judge:
    """Judges what comes, by a model that opens while the caller continues.

    All callers share one queue: what waits together is judged together, in the order it came.

    Attributes:
        path: The `.h5` file, or a folder with several models that answer together.
        models: Each model that answers.
    """

    def __init__(
        self,
        path: Path,
        *,
        open_detector: Callable[[Path], Detector] = Detector.open,
        max_bytes: int = MAX_IMAGE_BYTES,
        max_pixels: int = MAX_IMAGE_PIXELS,
    ) -> None:
        """Read the model's metadata and begin to open it.

        Args:
            max_bytes: Larger files are refused.
            max_pixels: Larger images (width × height) are refused.

        Raises:
            FileNotFoundError: There is no such file.
            ModelFileError: It is not one of our model files.
            InputError: The list of trusted signers cannot be read.
        """
        read_trust_list()
        self.path = path
        self.models = served_models(path)
        self._limits = {"max_bytes": max_bytes, "max_pixels": max_pixels}
        self._room = DecodingRoom()
        self._opening: Future[JudgingQueue] = Future()
        threading.Thread(
            target=self._serve, args=(open_detector,), name="model", daemon=True
        ).start()

    @property
    def metadata(self) -> ModelMetadata:
        """Of the first model; all have its classes."""
        return self.models[0].metadata

    def model_of(self, verdict: Verdict | None) -> ServedModel:
        """The model that gave a verdict; the first one where none did."""
        name = verdict.model if verdict else ""
        return next((model for model in self.models if model.name == name), self.models[0])

    @property
    def is_opening(self) -> bool:
        """Whether the model is still being read and compiled."""
        return not self._opening.done()

    def detector(self) -> Detector:
        """The detector, once it is open; ModelUnavailableError if it could not be opened."""
        return self._queue().detector

    def judge(
        self, name: str, data: bytes, *, show: Callable[[DecodedImage], None] | None = None
    ) -> Answer:
        """The answer for one file.

        Args:
            show: Called with the decoded image while the model works.

        Raises:
            ModelUnavailableError: The model cannot answer: it could not be opened, or was closed.
        """
        waiting = self._queue()
        how = {"waiting": waiting, "show": show, **self._limits}
        return _finish(*self._room.run(data, lambda: _begin(name, lambda: data, **how)))

    def decode(self, data: bytes) -> DecodedImage:
        """`decode_image` with this judge's limits, no more at a time than there are cores."""
        return self._room.run(data, lambda: decode_image(data, **self._limits))

    def judge_pixels(self, pixels: np.ndarray) -> Verdict:
        """The verdict on upright RGB pixels, shape (height, width, 3), uint8.

        Raises:
            ModelUnavailableError: The model cannot answer.
        """
        waiting = self._queue()
        try:
            return waiting.submit(waiting.detector.prepare(pixels, hold=True)).result()
        except Exception as error:
            raise as_unavailable(error) from error

    def close(self) -> None:
        """Let the threads end once no request has come for a while: others may still use it."""

        def end(opening: Future[JudgingQueue]) -> None:
            if opening.exception() is None:
                opening.result().end(idle_seconds=_IDLE_SECONDS)

        self._opening.add_done_callback(end)

    def _queue(self) -> JudgingQueue:
        return self._opening.result()

    def _serve(self, open_detector: Callable[[Path], Detector]) -> None:
        try:
            opened = JudgingQueue(open_detector(self.path))
        except Exception as error:  # Every caller learns what went wrong.
            self._opening.set_exception(as_unavailable(error))
            return
        # Streamlit looks for garbage after every run of the page, before its last messages leave:
        # among the libraries and the model, which stay, this took 45 ms of every upload.
        gc.collect()
        gc.freeze()
        self._opening.set_result(opened)
        opened.run()


def judge_files(
    sources: Iterable[ImageSource], *, detector: Detector, workers: int
) -> Iterator[Answer]:
    """Judge many files, each model's in full batches; the answers come in the order of the files.

    Images are decoded by a few threads while the engine works on earlier ones. Only as many are in
    memory as keep both busy.

    Args:
        sources: Taken one by one, never all at once.
        detector: Opened with `for_batches`, unless there are few images.
        workers: Threads that decode, at least 1.

    Raises:
        ModelUnavailableError: A model cannot be opened.
        InputError: The list of trusted signers cannot be read.
    """
    read_trust_list()
    waiting = JudgingQueue(detector, is_shared=False)
    judging = threading.Thread(target=waiting.run, name="judging", daemon=True)

    def begin(source: ImageSource) -> _Begun:
        return _begin(source.name, lambda: read_source(source), waiting=waiting)

    judging.start()
    begun: deque[_Begun] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as decoders:
        try:
            for one in map_in_order(begin, sources, executor=decoders, ahead=workers):
                begun.append(one)
                while begun and begun[0][1].done():
                    yield _finish(*begun.popleft())
                if len(begun) > _MOST_AHEAD:
                    with waiting.awaited():
                        answer = _finish(*begun.popleft())
                    yield answer
            waiting.end()
            while begun:
                yield _finish(*begun.popleft())
        finally:
            waiting.close()
            judging.join()


def map_in_order(
    function: Callable[[T], R], items: Iterable[T], *, executor: Executor, ahead: int
) -> Iterator[R]:
    """`executor.map` that takes only `ahead` items before their results are wanted."""
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(executor.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _begin(
    name: str,
    read: Callable[[], bytes],
    *,
    waiting: JudgingQueue,
    show: Callable[[DecodedImage], None] | None = None,
    max_bytes: int = MAX_IMAGE_BYTES,
    max_pixels: int = MAX_IMAGE_PIXELS,
) -> _Begun:
    """Everything but the verdict, which the model computes meanwhile; None where there is none."""
    digest = ""
    no_verdict: Future[None] = Future()
    no_verdict.set_result(None)
    try:
        data = read()
        digest = hashlib.sha256(data).hexdigest()
        image = decode_image(data, max_pixels=max_pixels, max_bytes=max_bytes)
        hold = image.width * image.height <= _MOST_HELD_PIXELS
        verdict = waiting.submit(waiting.detector.prepare(image, hold=hold))
        if show:
            show(image)
        findings = read_provenance(data, image.image)
    except ModelUnavailableError:
        raise
    except (ImageError, OSError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or one_line(error)
        too_large = isinstance(error, ImageTooLargeError)
        answer = Answer(name, error=reason, exceeds_limit=too_large, sha256=digest)
        return answer, no_verdict
    except Exception as error:
        return _failed(name, digest, error), no_verdict
    answer = Answer(
        name,
        width=image.width,
        height=image.height,
        format=image.format,
        notes=image.notes,
        findings=findings,
        sha256=digest,
    )
    return answer, verdict


def _finish(answer: Answer, verdict: Future[Verdict | None]) -> Answer:
    """The answer with its verdict, once that is there; ModelUnavailableError if it never will."""
    try:
        return replace(answer, verdict=verdict.result())
    except ModelUnavailableError:
        raise
    except Exception as error:
        return _failed(answer.name, answer.sha256, error)


def _failed(name: str, digest: str, error: Exception) -> Answer:
    # An error of one image belongs to that image: the others get their answers.
    return Answer(name, error=f"could not be judged: {one_line(error)}", sha256=digest)
