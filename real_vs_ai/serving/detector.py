"""Judge images with a model.

Opening a model compiles it (a second or two); TensorFlow is not imported. One detector may be
shared by any number of threads. Where several models are released, each image is judged by the one
that fits its size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from real_vs_ai.config import SEED, UNCERTAIN
from real_vs_ai.errors import InputError
from real_vs_ai.images import DecodedImage
from real_vs_ai.model_file import ModelMetadata, calibrate, read_metadata
from real_vs_ai.out_of_distribution.check import (
    OutOfDistributionCheck,
    compare_size,
    read_check,
    size_distance,
)
from real_vs_ai.perturbations import WEB
from real_vs_ai.runs import find_models, model_name
from real_vs_ai.serving.engines import Engine, one_blas_thread, open_engine
from real_vs_ai.serving.look import ImageLike, Look, pixels_for_sharing, read_image
from real_vs_ai.verdict import CropScore, Reason, Verdict, apply_stability, make_verdict


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
            path: A run folder or an `.h5` file; None for the newest finished run in `models/`,
                otherwise the released models. Of a folder with several models, each image is
                judged by the one that fits its size.
            engine: "openvino" or "keras"; None chooses: Keras on a machine with a GPU that
                TensorFlow can use, otherwise OpenVINO, and Keras where OpenVINO cannot be used.
            precision: "f32" or "bf16"; None for bf16 where the CPU has it, otherwise f32.
            for_batches: Make ready for many images; the first single one waits longer.

        Raises:
            FileNotFoundError: There is no such model.
            ModelFileError: It cannot be read, or was not made by this project.
            RuntimeError: The engine named cannot run it here.
        """
        model_paths = find_models(path)
        how = {"engine": engine, "precision": precision, "for_batches": for_batches}
        how["lazy"] = len(model_paths) > 1
        detectors = [cls.open_file(one, read_metadata(one), **how) for one in model_paths]
        return detectors[0] if len(detectors) == 1 else RoutingDetector(detectors)

    @classmethod
    def open_file(
        cls,
        model_path: Path,
        metadata: ModelMetadata,
        *,
        engine: str | None = None,
        precision: str | None = None,
        for_batches: bool = False,
        lazy: bool = False,
    ) -> Detector:
        """Open one file with metadata that need not be its own; see `open`.

        Args:
            lazy: Compile the model when the first image needs it.
        """
        check = read_check(model_path)
        opened = open_engine(
            model_path,
            image_size=metadata.image_size,
            engine=engine,
            precision=precision,
            for_batches=for_batches,
            views=metadata.model_input.views,
            lazy=lazy,
        )
        return Detector(model_path, metadata, opened, check)

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
    def batch_size(self) -> int:
        """How many inputs of the network at a time suit the engine best."""
        return self.engine.batch_size

    @property
    def inputs_of_an_image(self) -> int:
        """How many inputs of the network one image makes at first."""
        return self.metadata.model_input.views

    @property
    def parallel_batches(self) -> int:
        """How many batches at once keep the engine busy."""
        return self.engine.parallel_batches

    @property
    def is_open(self) -> bool:
        """Whether its engine is ready; of several models, each waits for its first image."""
        return self.engine.is_open

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
        if not images:
            return []
        return self.judge([self.prepare(image) for image in images])

    def prepare(self, image: ImageLike, *, hold: bool = False) -> Look:
        """One image as the network's input.

        Args:
            hold: Hold the image until it is known whether a copy of it must be judged. Otherwise
                the copy is made now, which needs more time and less memory for many images.
        """
        image, width, height = read_image(image)
        model_input = self.metadata.model_input
        reason = compare_size(
            *model_input.seen_size(width, height),
            self.metadata.training_images,
            reduced_from=(width, height),
            crops=model_input.is_crops,
        )
        if not model_input.is_crops:
            return Look(model_input.prepare(image), size_reason=reason)
        look = Look(
            model_input.prepare(image),
            size_reason=reason,
            windows=model_input.windows(width, height),
            # An image without a verdict needs no copy.
            make_copy=None if reason else lambda: self._prepare_copy(image),
        )
        if not hold:
            look.let_go_of_image()
        return look

    def _prepare_copy(self, image: np.ndarray | DecodedImage) -> np.ndarray:
        return self.metadata.model_input.prepare(WEB.apply(pixels_for_sharing(image), seed=SEED))

    def judge(self, looks: Sequence[Look], *, in_batches: bool = False) -> list[Verdict]:
        """Verdicts for prepared images, in their order.

        Args:
            in_batches: Make no result depend on how many images came with it, at the price of a
                longer wait for few images.
        """
        while unfinished := [look for look in looks if look.verdict is None]:
            inputs = np.concatenate([look.inputs for look in unfinished])
            outputs = self.compute(inputs, in_batches=in_batches)
            ends = np.cumsum([len(look.inputs) for look in unfinished])
            for look, found in zip(unfinished, np.split(outputs, ends[:-1]), strict=True):
                look.outputs = found
            self.go_on(unfinished)
        return [look.verdict for look in looks]

    def compute(self, inputs: np.ndarray, *, in_batches: bool) -> np.ndarray:
        """The engine's outputs for any inputs of this model; see `Engine.predict`."""
        size = self.metadata.image_size
        if inputs.dtype != np.uint8 or inputs.shape[1:] != (size, size, 3) or not len(inputs):
            raise InputError(
                f"Expected pixels of shape (n, {size}, {size}, 3) and type uint8, found shape "
                f"{inputs.shape} and type {inputs.dtype}."
            )
        return self.engine.predict(inputs, in_batches=in_batches)

    def go_on(self, looks: Sequence[Look]) -> None:
        """Take in the outputs of some looks: each then has a verdict, or other inputs to compute.

        An unsure thumbnail is looked at again, mirrored. A photograph with a certain verdict is
        looked at again in a copy as sites send it on.
        """
        n_classes = len(self.metadata.class_names)
        model_input = self.metadata.model_input
        answered = []
        for look in looks:
            found = look.outputs[:, :n_classes]
            if look.probabilities is not None:
                look.probabilities = model_input.mix_mirrored(look.probabilities, found)
            else:
                look.probabilities, look.features = found, look.outputs[:, n_classes:]
                if model_input.are_unsure(found[:1])[0]:
                    look.inputs = np.ascontiguousarray(look.views[:, :, ::-1])
                    continue
            answered.append(look)
        if answered:
            self._conclude(answered)
        for look in answered:
            self._decide(look)

    def _conclude(self, looks: Sequence[Look]) -> None:
        """Find the looks' calibrated probabilities, and why they are out-of-distribution."""
        views = np.stack([look.views for look in looks])
        outputs = np.stack([look.probabilities for look in looks])
        features = np.stack([look.features for look in looks])
        probabilities = self.metadata.model_input.aggregate(outputs)
        calibrated = calibrate(probabilities, temperature=self.metadata.temperature)
        reasons: Sequence[Reason | None] = [None] * len(looks)
        if self._check is not None and features.shape[-1] == len(self._check.whitening):
            with one_blas_thread():
                reasons = self._check.compare(features.mean(axis=1), views)
        for index, look in enumerate(looks):
            look.uncalibrated = tuple(map(float, probabilities[index]))
            look.calibrated, look.reason = calibrated[index], reasons[index]

    def _decide(self, look: Look) -> None:
        """Make the verdict, or ask for a copy."""
        made = make_verdict(
            look.calibrated,
            self.metadata,
            out_of_distribution=(None if look.own else look.size_reason, look.reason),
        )
        made = replace(made, model=self.name, uncalibrated=look.uncalibrated)
        if look.own:
            look.verdict, _ = apply_stability(replace(look.own, copy=made))
            return
        if look.windows and not made.out_of_distribution:
            made = replace(made, crops=self._crop_scores(look.probabilities, look.windows))
        if look.make_copy is None or made.label == UNCERTAIN:
            look.verdict = made
            return
        look.own = made
        look.look_at(look.make_copy())

    def _crop_scores(
        self, outputs: np.ndarray, windows: Sequence[tuple[float, float, float, float]]
    ) -> tuple[CropScore, ...]:
        calibrated = calibrate(outputs, temperature=self.metadata.temperature)
        return tuple(map(CropScore, windows, map(tuple, calibrated.tolist())))


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
        image, width, height = read_image(image)
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

    def judge(self, looks: Sequence[Look], *, in_batches: bool = False) -> list[Verdict]:
        for index, detector in enumerate(self._detectors):
            own = [look for look in looks if look.model == index]
            detector.judge(own, in_batches=in_batches)
        return [look.verdict for look in looks]
