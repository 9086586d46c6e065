"""Images in, verdicts out.

    detector = Detector.open("models/released")
    verdict = detector.predict("photograph.jpg")
    print(verdict.label, verdict.probability_fake)

The first opening of a model compiles it (some seconds); later ones take a moment, and TensorFlow is
not imported. One detector may be shared by any number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from real_vs_ai.appearance import Appearance, read_appearance
from real_vs_ai.config import UNCERTAIN
from real_vs_ai.domain import FAMILIAR, DomainFit, compare_with_domain
from real_vs_ai.errors import InputError
from real_vs_ai.images import DecodedImage, decode_image, resize_image
from real_vs_ai.model_file import ModelMetadata, calibrate, decide_label, read_metadata
from real_vs_ai.runs import find_model
from real_vs_ai.serving.engines import Engine, open_engine

ImageLike = str | Path | bytes | np.ndarray | DecodedImage


@dataclass(frozen=True)
class Verdict:
    """What the model says of one image.

    Attributes:
        label: A class name ("Fake", "Real"), or "Uncertain".
        probability_fake: Calibrated, 0 to 1; None for models of other classes than Fake and Real.
        confidence: Calibrated probability of the most probable class.
        probabilities: The same for every class, summing to 1.
        reasons: Why the label is Uncertain or to be taken with care, one sentence each.
        domain: How the image compares with those the model learnt from; its note is among the
            reasons.
    """

    label: str
    probability_fake: float | None
    confidence: float
    probabilities: dict[str, float]
    reasons: tuple[str, ...] = ()
    domain: DomainFit = FAMILIAR


@dataclass(frozen=True)
class PreparedImage:
    """One image as the network's input.

    Attributes:
        pixels: RGB, shape (image_size, image_size, 3), uint8.
        domain: How the image compares with those the model learnt from.
    """

    pixels: np.ndarray
    domain: DomainFit


class Detector:
    """A model file made ready to judge images.

    Attributes:
        model_path: The `.h5` file.
        metadata: What the file says of the model.
    """

    def __init__(
        self,
        model_path: Path,
        metadata: ModelMetadata,
        engine: Engine,
        appearance: Appearance | None,
    ) -> None:
        """For `Detector.open`, which finds the four."""
        self.model_path = model_path
        self.metadata = metadata
        self._engine = engine
        self._appearance = appearance

    @classmethod
    def open(
        cls,
        path: str | Path | None = None,
        *,
        engine: str | None = None,
        precision: str | None = None,
    ) -> Detector:
        """Read a model and compile it, or read what was compiled before.

        Args:
            path: A run folder or an `.h5` file; None for the newest finished run in `models/`,
                otherwise the released model.
            engine: "openvino" or "keras"; None chooses: Keras on a machine with a GPU that
                TensorFlow can use, otherwise OpenVINO, and Keras where OpenVINO cannot be used.
            precision: "f32", "bf16" or "int8" (after `ImageScoring.py --precision int8` or
                `quantization.ensure_int8`); None for bf16 where the CPU has it, otherwise f32.

        Raises:
            FileNotFoundError: There is no such model.
            ModelFileError: It cannot be read, or was not made by this project.
            RuntimeError: The engine named cannot run it here.
        """
        model_path = find_model(path)
        metadata = read_metadata(model_path)
        opened = open_engine(
            model_path, image_size=metadata.image_size, engine=engine, precision=precision
        )
        return cls(model_path, metadata, opened, read_appearance(model_path))

    @property
    def engine_name(self) -> str:
        """ "openvino" or "keras"."""
        return self._engine.name

    @property
    def engine_note(self) -> str:
        """Why this engine was chosen in place of the usual one, or ""."""
        return self._engine.note

    @property
    def precision(self) -> str:
        """What it computes in: "f32", "bf16" or "int8"."""
        return self._engine.precision

    @property
    def batch_size(self) -> int:
        """How many images at a time suit the engine best."""
        return self._engine.batch_size

    @property
    def parallel_batches(self) -> int:
        """How many batches at once keep the engine busy."""
        return self._engine.parallel_batches

    def predict(self, image: ImageLike) -> Verdict:
        """The verdict for one image.

        Args:
            image: A path, a file's bytes, upright RGB pixels, shape (height, width, 3), uint8, or
                an image that is decoded already.

        Raises:
            ImageError: It cannot be decoded.
            FileNotFoundError: There is no such file.
        """
        return self.predict_batch([image])[0]

    def predict_batch(self, images: Sequence[ImageLike]) -> list[Verdict]:
        """Verdicts for several images, in their order; one that cannot be decoded raises."""
        if not images:
            return []
        prepared = [self.prepare(image) for image in images]
        probabilities, looks = self.judge_pixels(np.stack([image.pixels for image in prepared]))
        domains = [
            image.domain.otherwise(look) for image, look in zip(prepared, looks, strict=True)
        ]
        return self.verdicts(probabilities, domains)

    def prepare(self, image: ImageLike) -> PreparedImage:
        """One image as the network's input."""
        if isinstance(image, np.ndarray):
            _check_pixels(image)
            height, width = image.shape[:2]
        else:
            image = image if isinstance(image, DecodedImage) else decode_image(image)
            width, height = image.width, image.height
        return PreparedImage(
            resize_image(image, self.metadata.image_size),
            compare_with_domain(width, height, self.metadata.domain),
        )

    def predict_pixels(self, pixels: np.ndarray, *, in_batches: bool = False) -> np.ndarray:
        """Calibrated probabilities alone; see `judge_pixels`."""
        return self.judge_pixels(pixels, in_batches=in_batches)[0]

    def judge_pixels(
        self, pixels: np.ndarray, *, in_batches: bool = False
    ) -> tuple[np.ndarray, list[DomainFit]]:
        """What the network says of images that are already prepared.

        Args:
            pixels: Shape (n, image_size, image_size, 3), uint8, n at least 1.
            in_batches: Let no result depend on how many images came with it, at the price of a
                longer wait for few images.

        Returns:
            Calibrated probabilities, shape (n, n_classes), rows summing to 1, in the order of
            `metadata.class_names`; and how each image looks beside those the model learnt from.
        """
        size = self.metadata.image_size
        if pixels.dtype != np.uint8 or pixels.shape[1:] != (size, size, 3) or not len(pixels):
            raise InputError(
                f"Expected pixels of shape (n, {size}, {size}, 3) and type uint8, found shape "
                f"{pixels.shape} and type {pixels.dtype}."
            )
        outputs = self._engine.predict(pixels, in_batches=in_batches)
        n_classes = len(self.metadata.class_names)
        probabilities, features = outputs[:, :n_classes], outputs[:, n_classes:]
        calibrated = calibrate(probabilities, temperature=self.metadata.temperature)
        if self._appearance is None or features.shape[1] != len(self._appearance.whitening):
            return calibrated, [FAMILIAR] * len(pixels)
        return calibrated, self._appearance.compare(features, pixels)

    def verdicts(
        self, probabilities: np.ndarray, domains: Sequence[DomainFit] | None = None
    ) -> list[Verdict]:
        """What calibrated probabilities mean for each image.

        Args:
            probabilities: Shape (n, n_classes).
            domains: How each image compares with the training images; None where not known.
        """
        domains = [FAMILIAR] * len(probabilities) if domains is None else domains
        return [
            make_verdict(row, self.metadata, domain=domain)
            for row, domain in zip(probabilities, domains, strict=True)
        ]


def make_verdict(
    probabilities: np.ndarray, metadata: ModelMetadata, *, domain: DomainFit = FAMILIAR
) -> Verdict:
    """The verdict for one image's calibrated probabilities, shape (n_classes,).

    An image outside the model's domain is Uncertain whatever its probabilities.
    """
    label = UNCERTAIN if domain.outside else decide_label(probabilities, metadata)
    positive = metadata.positive_index
    reasons = [domain.note] if domain.note else []
    if label == UNCERTAIN and not domain.outside:
        reasons.append(_why_uncertain(metadata))
    if not metadata.calibrated:
        reasons.append("This model's probabilities are not calibrated.")
    return Verdict(
        label=label,
        probability_fake=None if positive is None else float(probabilities[positive]),
        confidence=float(probabilities.max()),
        probabilities=dict(zip(metadata.class_names, map(float, probabilities), strict=True)),
        reasons=tuple(reasons),
        domain=domain,
    )


def _check_pixels(pixels: np.ndarray) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise InputError(
            "Expected pixels of shape (height, width, 3) and type uint8, found shape "
            f"{pixels.shape} and type {pixels.dtype}."
        )


def _why_uncertain(metadata: ModelMetadata) -> str:
    if metadata.positive_index is None:
        return (
            f"No class reaches this model's minimum confidence {metadata.minimum_confidence:.2f}."
        )
    return (
        f"Its probability lies between this model's thresholds {metadata.lower_threshold:.2f} "
        f"and {metadata.upper_threshold:.2f}."
    )
