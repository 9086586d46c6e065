"""Judge images with a model.

Opening a model compiles it (a second or two); TensorFlow is not imported. One detector may be
shared by any number of threads; what they ask at the same time is computed together. Where several
models are released, each image is judged by the one that fits its size.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from real_vs_ai.core.errors import InputError
from real_vs_ai.core.images import DecodedImage, decode_image
from real_vs_ai.core.parallel import one_blas_thread
from real_vs_ai.models.model_file import ModelMetadata
from real_vs_ai.models.model_input import Window
from real_vs_ai.out_of_distribution.check import (
    LARGEST_FACTOR,
    OutOfDistributionCheck,
    compare_size,
    read_check,
    size_distance,
)
from real_vs_ai.serving.engines import Engine, open_engine
from real_vs_ai.serving.micro_batcher import MicroBatcher
from real_vs_ai.serving.served_model import ServedModel, served_models
from real_vs_ai.verdicts.verdict import CropScore, Reason, Verdict, make_verdict

ImageLike = str | Path | bytes | np.ndarray | DecodedImage


@dataclass(frozen=True)
class Seen:
    """What a network makes of some inputs of one image.

    Attributes:
        probabilities: Uncalibrated, shape (n_inputs, n_classes).
        reason: Why the image is out-of-distribution; None where it is not.
    """

    probabilities: np.ndarray
    reason: Reason | None


# Gives inputs of the network and receives what it makes of them, until there is a verdict.
# The first step is sent None, as Python asks.
Steps = Generator[np.ndarray, Any, Verdict]


@dataclass(frozen=True)
class PreparedImage:
    """An image as the input of the model that judges it.

    Attributes:
        detector: Has this model.
        inputs: Shape (views, image_size, image_size, 3), uint8.
        size_reason: Why its size is out-of-distribution; None where it is not.
        windows: Where each input lies in the image, for models of crops.
    """

    detector: Detector
    inputs: np.ndarray
    size_reason: Reason | None = None
    windows: Sequence[Window] = ()

    def judge(self) -> Future[Verdict]:
        """Ask the model for the verdict without waiting for it."""
        return self.detector.judge_prepared(self)


class ImageJudge(ABC):
    """What a model and several models that answer together have in common.

    Attributes:
        detectors: One for each model.
    """

    detectors: tuple[Detector, ...]

    @abstractmethod
    def choose(self, width: int, height: int) -> Detector:
        """The detector that judges images of this size, in pixels."""

    def predict(self, image: ImageLike) -> Verdict:
        """The verdict for one image.

        Args:
            image: A path, bytes, a decoded image, or upright RGB pixels, shape (height, width, 3),
                uint8.

        Raises:
            ImageError: It cannot be decoded.
            FileNotFoundError: There is no such file.
        """
        return self.prepare(image).judge().result()

    def predict_batch(self, images: Sequence[ImageLike]) -> list[Verdict]:
        """Verdicts for several images, in their order; one that cannot be decoded raises."""
        return self.judge([self.prepare(image) for image in images])

    def prepare(self, image: ImageLike) -> PreparedImage:
        """One image as the input of the network that judges it."""
        image, width, height = _read_image(image)
        return self.choose(width, height).prepare_decoded(image, width, height)

    def judge(self, images: Sequence[PreparedImage]) -> list[Verdict]:
        """Verdicts for prepared images, in their order."""
        with self.feeding():
            verdicts = [image.judge() for image in images]
        return [verdict.result() for verdict in verdicts]

    @contextlib.contextmanager
    def feeding(self) -> Iterator[None]:
        """Let the models wait for full batches meanwhile; see `MicroBatcher.feeding`."""
        with contextlib.ExitStack() as stack:
            for detector in self.detectors:
                stack.enter_context(detector.batcher.feeding())
            yield


class Detector(ImageJudge):
    """One model made ready to judge images.

    Attributes:
        model: Its name, file and metadata.
        engine: What computes; its `name`, `precision` and `note` say how, and why so.
        batcher: Through which all images go to the engine.
    """

    def __init__(
        self, model: ServedModel, engine: Engine, check: OutOfDistributionCheck | None = None
    ) -> None:
        """For `Detector.open`, which finds the three.

        Args:
            check: None judges images of every kind.
        """
        self.model, self.engine, self._check = model, engine, check
        self.batcher: MicroBatcher[Seen] = MicroBatcher(engine, self._see)
        self.detectors = (self,)

    @staticmethod
    def open(
        path: str | Path | None = None,
        *,
        engine: str | None = None,
        precision: str | None = None,
        for_batches: bool = False,
    ) -> Detector | RoutingDetector:
        """Read a model and compile it.

        Args:
            path: A run folder or an `.h5` file; None for the run that was made the default,
                otherwise the released models. Of a folder with several models, each image is
                judged by the one that fits its size.
            engine: "openvino" or "keras"; None chooses: Keras on a machine with a GPU that
                TensorFlow can use, otherwise OpenVINO, and Keras where OpenVINO cannot be used.
            precision: "f32" or "bf16"; None for f32 where images are judged by crops or the
                CPU has no bf16, otherwise bf16.
            for_batches: Make no result depend, not even in its last digit, on how many images came
                with it, at the price of a longer wait for few images.

        Raises:
            FileNotFoundError: There is no such model.
            ModelFileError: It cannot be read, was not made by this project, or was replaced.
            RuntimeError: The engine named cannot run it here.
        """
        how = {"engine": engine, "precision": precision, "for_batches": for_batches}
        return open_models(served_models(path), **how)

    @classmethod
    def open_file(
        cls, model_path: Path, metadata: ModelMetadata, *, lazy: bool = False, **how: Any
    ) -> Detector:
        """Open one file with metadata that need not be its own.

        Args:
            lazy: Compile the model when the first image needs it.
            how: Engine, precision and `for_batches`, as for `open`.
        """
        return cls._open(ServedModel.read(model_path, metadata), lazy=lazy, **how)

    @classmethod
    def _open(cls, model: ServedModel, *, lazy: bool, **how: Any) -> Detector:
        opened = open_engine(
            model.path,
            image_size=model.metadata.image_size,
            views=model.metadata.model_input.views,
            lazy=lazy,
            **how,
        )
        detector = cls(model, opened, read_check(model.path))
        model.require_unchanged()
        return detector

    def with_metadata(self, metadata: ModelMetadata) -> Detector:
        """The same network, deciding with other metadata: thresholds, temperature."""
        return Detector(replace(self.model, metadata=metadata), self.engine, self._check)

    @property
    def metadata(self) -> ModelMetadata:
        return self.model.metadata

    @property
    def model_path(self) -> Path:
        return self.model.path

    @property
    def name(self) -> str:
        """What people call the model."""
        return self.model.name

    @property
    def inputs_of_an_image(self) -> int:
        """How many inputs of the network one image makes at first."""
        return self.metadata.model_input.views

    def choose(self, width: int, height: int) -> Detector:
        return self

    def prepare_decoded(
        self, image: np.ndarray | DecodedImage, width: int, height: int
    ) -> PreparedImage:
        """An image of this size as the network's input."""
        model_input = self.metadata.model_input
        reason = compare_size(
            *model_input.seen_size(width, height),
            self.metadata.training_images,
            reduced_from=(width, height),
            crops=model_input.is_crops,
        )
        inputs = model_input.prepare(image)
        if not model_input.is_crops or reason:
            return PreparedImage(self, inputs, reason)

        windows = model_input.windows(width, height)
        return PreparedImage(self, inputs, windows=windows)

    def judge_prepared(self, image: PreparedImage) -> Future[Verdict]:
        """Ask for the verdict on an image that this detector prepared, without waiting for it."""
        steps = self._steps(image)
        verdict: Future[Verdict] = Future()

        def go_on(seen: Future[Seen] | None = None) -> None:
            try:
                inputs = steps.send(seen and seen.result())
                asked = self._ask(inputs, ahead=seen is not None)
            except StopIteration as end:
                verdict.set_result(end.value)
            except Exception as error:
                verdict.set_exception(error)
            else:
                asked.add_done_callback(go_on)

        go_on()
        return verdict

    def _ask(self, inputs: np.ndarray, *, ahead: bool) -> Future[Seen]:
        size = self.metadata.image_size
        if inputs.dtype != np.uint8 or inputs.shape[1:] != (size, size, 3) or not len(inputs):
            raise InputError(
                f"Expected pixels of shape (n, {size}, {size}, 3) and type uint8, found shape "
                f"{inputs.shape} and type {inputs.dtype}."
            )
        return self.batcher.submit(inputs, ahead=ahead)

    def _see(self, inputs: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> list[Seen]:
        """What the engine's outputs say of images: of all at once, since the check is faster so."""
        n_classes, check = len(self.metadata.class_names), self._check
        reasons: Sequence[Reason | None] = [None] * len(inputs)
        if check:
            features = np.stack([of_image[:, n_classes:] for of_image in outputs]).mean(axis=1)
            if features.shape[1] == len(check.whitening):
                with one_blas_thread():
                    reasons = check.compare(features, np.stack(inputs))
        return [Seen(o[:, :n_classes], r) for o, r in zip(outputs, reasons, strict=True)]

    def _steps(self, image: PreparedImage) -> Steps:
        """Judge an image; an unsure thumbnail is looked at again, mirrored."""
        model_input = self.metadata.model_input
        seen = yield image.inputs
        probabilities = seen.probabilities
        if probabilities.max() < model_input.mirror_below:
            mirrored = yield np.ascontiguousarray(image.inputs[:, :, ::-1])
            probabilities = model_input.mix_mirrored(probabilities, mirrored.probabilities)
        own = self._verdict(probabilities, image.size_reason, seen.reason)
        if image.windows and not own.out_of_distribution:
            scores = self.metadata.calibrate(probabilities).tolist()
            own = replace(own, crops=tuple(map(CropScore, image.windows, map(tuple, scores))))
        return own

    def _verdict(self, probabilities: np.ndarray, *reasons: Reason | None) -> Verdict:
        """From the uncalibrated probabilities of an image's views, shape (views, n_classes)."""
        uncalibrated = self.metadata.model_input.aggregate(probabilities[None])
        calibrated = self.metadata.calibrate(uncalibrated)
        made = make_verdict(calibrated[0], self.metadata, out_of_distribution=reasons)
        return replace(made, model=self.name, uncalibrated=tuple(map(float, uncalibrated[0])))


class RoutingDetector(ImageJudge):
    """Several models: each image goes to the one whose training sizes include its size.

    If several know the size, the nearest answers; ties go to the first. If none does, one that
    judges crops refuses the image, so that the refusal does not name the size of thumbnails.
    """

    def __init__(self, detectors: Sequence[Detector]) -> None:
        """For `Detector.open`, which finds them.

        Raises:
            InputError: Their classes differ.
        """
        first = detectors[0]
        for other in detectors:
            if other.metadata.class_names != first.metadata.class_names:
                raise InputError(
                    f"Expected models of the same classes, found {first.metadata.class_names} in "
                    f"{first.model_path} and {other.metadata.class_names} in {other.model_path}. "
                    "Name one of them with --model."
                )
        self.detectors = tuple(detectors)

    def choose(self, width: int, height: int) -> Detector:
        distances = [
            size_distance(
                *detector.metadata.model_input.seen_size(width, height),
                detector.metadata.training_images,
            )
            for detector in self.detectors
        ]
        nearest = self.detectors[int(np.argmin(distances))]
        if min(distances) <= LARGEST_FACTOR:
            return nearest
        # None can judge it: the model of photographs tells the user what it needs.
        of_photographs = (one for one in self.detectors if one.metadata.model_input.is_crops)
        return next(of_photographs, nearest)


def open_models(models: Sequence[ServedModel], **how: Any) -> Detector | RoutingDetector:
    """Open one model, or several that answer together; see `Detector.open`."""
    lazy = len(models) > 1
    detectors = [Detector._open(model, lazy=lazy, **how) for model in models]
    return RoutingDetector(detectors) if lazy else detectors[0]


def _read_image(image: ImageLike) -> tuple[np.ndarray | DecodedImage, int, int]:
    """The decoded image, its width and its height."""
    if not isinstance(image, np.ndarray):
        image = image if isinstance(image, DecodedImage) else decode_image(image)
        return image, image.width, image.height
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(
            "Expected pixels of shape (height, width, 3) and type uint8, found shape "
            f"{image.shape} and type {image.dtype}."
        )
    return image, image.shape[1], image.shape[0]
