"""Judge image files: the one way from bytes to an answer.

The command line and an evaluation judge many files (`judge_files`), the app and the service what
comes (`Judge`). Bytes are decoded, given to the model of their size, computed in full batches with
others, and explained by reasons. What the file says of its origin stands beside the verdict and
never changes it. A file that cannot be judged becomes an answer with its error.

An evaluation opens its detector in float32. It finds in each `answer.verdict`, of
out-of-distribution images too, the network's own probabilities (`uncalibrated`, in the order of the
model's classes). `verdict.recalibrate` then applies the calibration and thresholds that it fits.
"""

from __future__ import annotations

import functools
import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from real_vs_ai.core.config import MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS
from real_vs_ai.core.errors import one_line
from real_vs_ai.core.images import (
    DecodedImage,
    ImageError,
    ImageTooLargeError,
    decode_image,
    read_image_file,
)
from real_vs_ai.core.messages import Message
from real_vs_ai.models.model_file import ModelMetadata
from real_vs_ai.models.model_input import reduce_to
from real_vs_ai.provenance import Finding, read_provenance, read_trust_list
from real_vs_ai.serving.decoding_room import DecodingRoom
from real_vs_ai.serving.detector import Detector, ImageJudge, open_models
from real_vs_ai.serving.image_sources import ImageSource, read_source
from real_vs_ai.serving.micro_batcher import ModelUnavailableError, as_unavailable
from real_vs_ai.serving.served_model import ServedModel, served_models
from real_vs_ai.verdicts.conclusion import Conclusion, conclude
from real_vs_ai.verdicts.verdict import Verdict

# Images of a folder wait to be judged while a model has so many batches ahead.
_BATCHES_AHEAD = 6
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


# An answer whose verdict is pending.
_Begun = tuple[Answer, Future[Verdict] | Future[None]]


class Judge:
    """Judges what comes, by a model that opens while the caller continues.

    Threads may share it: what they ask at the same time is computed together.

    >>> from real_vs_ai.serving.fake_engine import fake_detector
    >>> judge = Judge(fake_detector())
    >>> judge.judge("notes.txt", b"no picture").error[:12]
    'not an image'

    Attributes:
        models: Each model that answers.
    """

    def __init__(
        self,
        model: str | Path | ImageJudge | None = None,
        *,
        max_bytes: int = MAX_IMAGE_BYTES,
        max_pixels: int = MAX_IMAGE_PIXELS,
    ) -> None:
        """Read the model's metadata and begin to open it.

        Args:
            model: A path as for `Detector.open`, or a detector that is open.
            max_bytes: Larger files are refused.
            max_pixels: Larger images (width × height) are refused.

        Raises:
            FileNotFoundError: There is no such file.
            ModelFileError: It is not one of our model files.
            InputError: The list of trusted signers cannot be read.
        """
        read_trust_list()
        self._limits = {"max_bytes": max_bytes, "max_pixels": max_pixels}
        self._room = DecodingRoom()
        self._opened: Future[ImageJudge] = Future()
        if isinstance(model, ImageJudge):
            self.models = tuple(detector.model for detector in model.detectors)
            self._opened.set_result(model)
            return
        self.models = served_models(model)
        threading.Thread(target=self._open, name="model", daemon=True).start()

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
        return not self._opened.done()

    def detector(self) -> ImageJudge:
        """The detector, once it is open; ModelUnavailableError if it could not be opened."""
        return self._opened.result()

    def judge_file(self, path: str | Path) -> Answer:
        """The answer for one file on this machine; one that cannot be read gives its error.

        Raises:
            ModelUnavailableError: The model cannot answer.
        """
        path = Path(path)
        try:
            data = read_image_file(path, max_bytes=self._limits["max_bytes"])
        except (ImageError, OSError) as error:
            return _unreadable(path.name, "", error)
        return self.judge(path.name, data)

    def judge(
        self, name: str, data: bytes, *, show: Callable[[DecodedImage], None] | None = None
    ) -> Answer:
        """The answer for one file.

        Args:
            show: Called with the decoded image while the model works.

        Raises:
            ModelUnavailableError: The model cannot answer: it could not be opened.
        """
        how: dict[str, Any] = {"detector": self.detector(), "show": show, **self._limits}
        return _finish(*self._room.run(data, lambda: _begin(name, lambda: data, **how)))

    def decode(self, data: bytes, *, longest_side: int | None = None) -> np.ndarray:
        """Upright RGB pixels of a file, (height, width, 3), uint8, within this judge's limits.

        No more files at a time than there are cores, and of huge ones one.

        Args:
            longest_side: Larger images are reduced to it in the same turn, so that the pixels of
                several huge ones are never held at once.
        """

        def pixels() -> np.ndarray:
            image = decode_image(data, **self._limits)
            return image.pixels if longest_side is None else reduce_to(image, longest_side)

        return self._room.run(data, pixels)

    def judge_pixels(self, pixels: np.ndarray) -> Verdict:
        """The verdict on upright RGB pixels, shape (height, width, 3), uint8.

        Raises:
            ModelUnavailableError: The model cannot answer.
        """
        try:
            return self.detector().predict(pixels)
        except Exception as error:
            raise as_unavailable(error) from error

    def heat_map(self, pixels: np.ndarray, verdict: Verdict) -> np.ndarray:
        """Where the picture of a certain verdict speaks for its class; see `explanation.heat_map`.

        The page asks for it of models of whole images; of crops it shows those that decide.

        Raises:
            ModelUnavailableError: The model cannot answer.
            ValueError: The verdict names no class.
        """
        from real_vs_ai.serving.explanation import heat_map

        detector = next(d for d in self.detector().detectors if d.name == verdict.model)
        index = detector.metadata.class_names.index(verdict.label)
        return heat_map(detector, pixels, class_index=index)

    def _open(self) -> None:
        try:
            # Now, so that nobody who asks for it waits for it.
            for model in self.models:
                _ = model.sha256
            self._opened.set_result(open_models(self.models))
        except Exception as error:  # Every caller learns what went wrong.
            self._opened.set_exception(as_unavailable(error))


def judge_files(
    sources: Iterable[ImageSource], *, detector: ImageJudge, workers: int
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
    places = {one: threading.Semaphore(_places(one)) for one in detector.detectors}

    def begin(source: ImageSource) -> _Begun:
        return _begin(source.name, lambda: read_source(source), detector=detector, places=places)

    begun: deque[_Begun] = deque()
    try:
        with detector.feeding(), ThreadPoolExecutor(workers, "decode") as decoders:
            for one in map_in_order(begin, sources, executor=decoders, ahead=workers):
                begun.append(one)
                while begun and (begun[0][1].done() or len(begun) > _MOST_AHEAD):
                    yield _finish(*begun.popleft())
        while begun:
            yield _finish(*begun.popleft())
    finally:
        # Once all places are free: a batch that still ran when the interpreter ends could crash it.
        for model, place in places.items():
            for _ in range(_places(model)):
                place.acquire()


def _places(detector: Detector) -> int:
    """How many images may wait for a model: they keep its engine busy."""
    inputs = _BATCHES_AHEAD * detector.engine.batch_size
    return max(_BATCHES_AHEAD, inputs // detector.inputs_of_an_image)


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
    detector: ImageJudge,
    places: Mapping[Detector, threading.Semaphore] | None = None,
    show: Callable[[DecodedImage], None] | None = None,
    max_bytes: int = MAX_IMAGE_BYTES,
    max_pixels: int = MAX_IMAGE_PIXELS,
) -> _Begun:
    """Everything but the verdict, which the model computes meanwhile; None where there is none.

    Args:
        places: How many images may wait for each model; None sets no limit.
    """
    digest = ""
    no_verdict: Future[None] = Future()
    no_verdict.set_result(None)
    try:
        data = read()
        digest = hashlib.sha256(data).hexdigest()
        image = decode_image(data, max_pixels=max_pixels, max_bytes=max_bytes)
        prepared = detector.prepare(image)
        place = places and places[prepared.detector]
        if place:
            place.acquire()
        verdict = prepared.judge()
        if place:
            verdict.add_done_callback(lambda _: place.release())
        if show:
            show(image)
        findings = read_provenance(data, image.image)
    except ModelUnavailableError:
        raise
    except (ImageError, OSError) as error:
        return _unreadable(name, digest, error), no_verdict
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


def _finish(answer: Answer, verdict: Future[Verdict] | Future[None]) -> Answer:
    """The answer with its verdict, once that is there; ModelUnavailableError if it never will."""
    try:
        return replace(answer, verdict=verdict.result())
    except ModelUnavailableError:
        raise
    except Exception as error:
        return _failed(answer.name, answer.sha256, error)


def _unreadable(name: str, digest: str, error: ImageError | OSError) -> Answer:
    reason = (isinstance(error, OSError) and error.strerror) or one_line(error)
    too_large = isinstance(error, ImageTooLargeError)
    return Answer(name, error=reason, exceeds_limit=too_large, sha256=digest)


def _failed(name: str, digest: str, error: Exception) -> Answer:
    # An error of one image belongs to that image: the others get their answers.
    reason = Message("error.not_judged", reason=one_line(error))
    return Answer(name, error=reason, sha256=digest)
