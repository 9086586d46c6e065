"""Judge images with a model.

Opening a model compiles it (a second or two); TensorFlow is not imported. One detector may be
shared by any number of threads. Where several models are released, each image is judged by the one
that fits its size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from real_vs_ai.config import SEED, UNCERTAIN
from real_vs_ai.errors import InputError
from real_vs_ai.images import DecodedImage, decode_image
from real_vs_ai.model_file import ModelMetadata, calibrate, read_metadata
from real_vs_ai.model_input import Window, as_pillow
from real_vs_ai.out_of_distribution.check import (
    OutOfDistributionCheck,
    compare_size,
    read_check,
    size_distance,
)
from real_vs_ai.perturbations import WEB
from real_vs_ai.runs import find_models, model_name
from real_vs_ai.serving.engines import Engine, one_blas_thread, open_engine
from real_vs_ai.verdict import CropScore, Reason, Verdict, apply_stability, make_verdict

ImageLike = str | Path | bytes | np.ndarray | DecodedImage
# Gives inputs of the network; receives their uncalibrated probabilities, and why they are
# out-of-distribution.
Steps = Generator[np.ndarray, tuple[np.ndarray, Reason | None], Verdict]
# Twice the longer side of what sites send on.
_LARGE = 2 * 768


class Look:
    """An image on its way to a verdict: what the network must compute of it next.

    Attributes:
        inputs: What it must compute next, shape (n, image_size, image_size, 3), uint8.
        outputs: What it made of them, once it has; see `Engine.predict`.
        make_copy: Makes the inputs of a copy as sites send pictures on; it holds the image.
        model: Which of several models judges the image, from 0.
        verdict: None until nothing is left to compute.
        error: What went wrong in place of a verdict.
        answer: Gives the verdict to others.
        came: When it came into a queue, by `time.monotonic`.
        taken: How many inputs the queue has handed out, of which `answered` have their outputs.
        is_apart: Judged alone, since a part of it failed: parts that come later do not count.
    """

    def __init__(self, views: np.ndarray, make_copy: Callable[[], np.ndarray] | None) -> None:
        """Begin with an image as the network's input; `begin` then says how it is judged."""
        self.inputs, self.make_copy = views, make_copy
        self.outputs: np.ndarray | None = None
        self.model = 0
        self.verdict: Verdict | None = None
        self.error: Exception | None = None
        self.answer: Future[Verdict] = Future()
        self.came, self.taken, self.answered, self.is_apart = 0.0, 0, 0, False

    def begin(self, steps: Steps) -> None:
        """Follow these steps, which first give the inputs that are there already."""
        self._steps = steps
        next(steps)

    def go_on(self, probabilities: np.ndarray, reason: Reason | None) -> None:
        """Take in what the inputs gave: there are then other inputs, a verdict or an error."""
        try:
            self.inputs = self._steps.send((probabilities, reason))
        except StopIteration as end:
            self.verdict = end.value
        except Exception as error:
            self.error = error

    @property
    def is_finished(self) -> bool:
        return self.verdict is not None or self.error is not None

    def finish(self, error: Exception | None = None) -> None:
        """Answer with the verdict or an error, unless another part of the image failed before."""
        error = error or self.error
        with contextlib.suppress(InvalidStateError):
            if error:
                self.answer.set_exception(error)
            else:
                self.answer.set_result(self.verdict)

    def let_go_of_image(self) -> None:
        """Make the copy now, so that the image's pixels are held no longer."""
        if self.make_copy:
            copy = self.make_copy()
            self.make_copy = lambda: copy


class Detector:
    """A model file made ready to judge images.

    Attributes:
        model_path: The `.h5` file.
        engine: What computes; its `name`, `precision` and `note` say how, and why so.
    """

    def __init__(
        self,
        model_path: Path,
        metadata: ModelMetadata,
        engine: Engine,
        check: OutOfDistributionCheck | None,
    ) -> None:
        """For `Detector.open`, which finds the four."""
        self.model_path = model_path
        self.metadata = metadata
        self.engine = engine
        self._check = check

    @classmethod
    def open(
        cls,
        path: str | Path | None = None,
        *,
        engine: str | None = None,
        precision: str | None = None,
        for_batches: bool = False,
    ) -> Detector:
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
            ModelFileError: It cannot be read, or was not made by this project.
            RuntimeError: The engine named cannot run it here.
        """
        paths = find_models(path)
        how = {"engine": engine, "precision": precision, "for_batches": for_batches}
        several = len(paths) > 1
        detectors = [cls.open_file(p, read_metadata(p), lazy=several, **how) for p in paths]
        return detectors[0] if len(detectors) == 1 else RoutingDetector(detectors)

    @classmethod
    def open_file(
        cls, model_path: Path, metadata: ModelMetadata, *, lazy: bool = False, **how: Any
    ) -> Detector:
        """Open one file with metadata that need not be its own.

        Args:
            lazy: Compile the model when the first image needs it.
            how: Engine, precision and `for_batches`, as for `open`.
        """
        opened = open_engine(
            model_path,
            image_size=metadata.image_size,
            views=metadata.model_input.views,
            lazy=lazy,
            **how,
        )
        return Detector(model_path, metadata, opened, read_check(model_path))

    def with_metadata(self, metadata: ModelMetadata) -> Detector:
        """The same network, deciding with other metadata: thresholds, temperature."""
        return Detector(self.model_path, metadata, self.engine, self._check)

    @property
    def name(self) -> str:
        """What people call the model."""
        return model_name(self.model_path)

    @property
    def detectors(self) -> tuple[Detector, ...]:
        """The detectors of the models that answer together: this one alone."""
        return (self,)

    @property
    def inputs_of_an_image(self) -> int:
        """How many inputs of the network one image makes at first."""
        return self.metadata.model_input.views

    def predict(self, image: ImageLike) -> Verdict:
        """The verdict for one image.

        Args:
            image: A path, bytes, a decoded image, or upright RGB pixels, shape (height, width, 3),
                uint8.

        Raises:
            ImageError: It cannot be decoded.
            FileNotFoundError: There is no such file.
        """
        return self.judge([self.prepare(image, hold=True)])[0]

    def predict_batch(self, images: Sequence[ImageLike]) -> list[Verdict]:
        """Verdicts for several images, in their order; one that cannot be decoded raises."""
        return self.judge([self.prepare(image) for image in images])

    def prepare(self, image: ImageLike, *, hold: bool = False) -> Look:
        """One image as the network's input.

        Args:
            hold: Hold the image until it is known whether a copy of it must be judged. Otherwise
                the copy is made now, which needs more time and less memory for many images.
        """
        image, width, height = _read_image(image)
        model_input = self.metadata.model_input
        reason = compare_size(
            *model_input.seen_size(width, height),
            self.metadata.training_images,
            reduced_from=(width, height),
            crops=model_input.is_crops,
        )
        views = model_input.prepare(image)
        # An image without a verdict needs no copy.
        if not model_input.is_crops or reason:
            return self.look_at(views, size_reason=reason)
        windows = model_input.windows(width, height)
        look = self.look_at(views, windows=windows, make_copy=lambda: self._prepare_copy(image))
        if not hold:
            look.let_go_of_image()
        return look

    def look_at(
        self,
        views: np.ndarray,
        *,
        size_reason: Reason | None = None,
        windows: Sequence[Window] = (),
        make_copy: Callable[[], np.ndarray] | None = None,
    ) -> Look:
        """Begin to judge an image by its views, shape (views, image_size, image_size, 3), uint8."""
        look = Look(views, make_copy)
        look.begin(self._steps(look, size_reason, windows))
        return look

    def _prepare_copy(self, image: np.ndarray | DecodedImage) -> np.ndarray:
        return self.metadata.model_input.prepare(WEB.apply(_pixels_for_sharing(image), seed=SEED))

    def judge(self, looks: Sequence[Look]) -> list[Verdict]:
        """Verdicts for prepared images, in their order."""
        while unfinished := [look for look in looks if not look.is_finished]:
            outputs = self.compute(np.concatenate([look.inputs for look in unfinished]))
            ends = np.cumsum([len(look.inputs) for look in unfinished])
            for look, found in zip(unfinished, np.split(outputs, ends[:-1]), strict=True):
                look.outputs = found
            self.go_on(unfinished)
        for look in looks:
            if look.error:
                raise look.error
        return [look.verdict for look in looks]

    def compute(self, inputs: np.ndarray) -> np.ndarray:
        """The engine's outputs for any inputs of this model; see `Engine.predict`."""
        size = self.metadata.image_size
        if inputs.dtype != np.uint8 or inputs.shape[1:] != (size, size, 3) or not len(inputs):
            raise InputError(
                f"Expected pixels of shape (n, {size}, {size}, 3) and type uint8, found shape "
                f"{inputs.shape} and type {inputs.dtype}."
            )
        return self.engine.predict(inputs)

    def go_on(self, looks: Sequence[Look]) -> None:
        """Take in the outputs of some looks."""
        n_classes, check = len(self.metadata.class_names), self._check
        reasons: Sequence[Reason | None] = [None] * len(looks)
        if looks and check:
            features = np.stack([look.outputs[:, n_classes:] for look in looks]).mean(axis=1)
            if features.shape[1] == len(check.whitening):
                with one_blas_thread():
                    reasons = check.compare(features, np.stack([look.inputs for look in looks]))
        for look, reason in zip(looks, reasons, strict=True):
            look.go_on(look.outputs[:, :n_classes], reason)

    def _steps(self, look: Look, size_reason: Reason | None, windows: Sequence[Window]) -> Steps:
        """Judge an image; an unsure thumbnail is looked at again, mirrored.

        A photograph with a certain verdict is looked at again in a copy as sites send it on.
        """
        model_input, views = self.metadata.model_input, look.inputs
        found, reason = yield views
        if found.max() < model_input.mirror_below:
            mirrored, _ = yield np.ascontiguousarray(views[:, :, ::-1])
            found = model_input.mix_mirrored(found, mirrored)
        own = self._verdict(found, size_reason, reason)
        if windows and not own.out_of_distribution:
            scores = calibrate(found, temperature=self.metadata.temperature).tolist()
            own = replace(own, crops=tuple(map(CropScore, windows, map(tuple, scores))))
        if look.make_copy is None or own.label == UNCERTAIN:
            return own
        found, reason = yield look.make_copy()
        return apply_stability(replace(own, copy=self._verdict(found, reason)))

    def _verdict(self, found: np.ndarray, *reasons: Reason | None) -> Verdict:
        """From the uncalibrated probabilities of an image's views, shape (views, n_classes)."""
        uncalibrated = self.metadata.model_input.aggregate(found[None])
        calibrated = calibrate(uncalibrated, temperature=self.metadata.temperature)
        made = make_verdict(calibrated[0], self.metadata, out_of_distribution=reasons)
        return replace(made, model=self.name, uncalibrated=tuple(map(float, uncalibrated[0])))


class RoutingDetector(Detector):
    """Several models as one: each image goes to the model whose training sizes include it.

    Of models that all do or all do not, the first of the nearest in size answers.
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
        super().__init__(first.model_path, first.metadata, first.engine, first._check)
        self._detectors = tuple(detectors)

    @property
    def detectors(self) -> tuple[Detector, ...]:
        return self._detectors

    def prepare(self, image: ImageLike, *, hold: bool = False) -> Look:
        image, width, height = _read_image(image)
        distances = [
            size_distance(
                *detector.metadata.model_input.seen_size(width, height),
                detector.metadata.training_images,
            )
            for detector in self._detectors
        ]
        index = int(np.argmin(distances))
        look = self._detectors[index].prepare(image, hold=hold)
        look.model = index
        return look

    def judge(self, looks: Sequence[Look]) -> list[Verdict]:
        for index, detector in enumerate(self._detectors):
            detector.judge([look for look in looks if look.model == index])
        return [look.verdict for look in looks]


def _pixels_for_sharing(image: np.ndarray | DecodedImage) -> np.ndarray:
    """The image's pixels; of a large one whole squares of pixels averaged, a cheap first step."""
    held = as_pillow(image)
    factor = max(held.size) // _LARGE
    return np.asarray(held.reduce(factor) if factor > 1 else held)


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
