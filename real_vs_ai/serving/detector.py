"""Judge images with a model.

    detector = Detector.open("models/released")
    verdict = detector.predict("photograph.jpg")
    print(verdict.label, verdict.probability_fake, verdict.reasons)

The first opening of a model compiles it (some seconds); later ones take a moment, and TensorFlow is
not imported. One detector may be shared by any number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from real_vs_ai.errors import InputError
from real_vs_ai.images import DecodedImage, decode_image, resize_image
from real_vs_ai.model_file import ModelMetadata, calibrate, read_metadata
from real_vs_ai.out_of_distribution import OutOfDistributionCheck, compare_size, read_check
from real_vs_ai.runs import find_model
from real_vs_ai.serving.engines import Engine, open_engine
from real_vs_ai.verdict import Reason, Verdict, make_verdict

ImageLike = str | Path | bytes | np.ndarray | DecodedImage


@dataclass(frozen=True)
class PreparedImage:
    """One image as the network's input.

    Attributes:
        pixels: RGB, shape (image_size, image_size, 3), uint8.
        size_reason: Why its size makes it out-of-distribution, or None.
    """

    pixels: np.ndarray
    size_reason: Reason | None = None


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
        check: OutOfDistributionCheck | None,
    ) -> None:
        """For `Detector.open`, which finds the four."""
        self.model_path = model_path
        self.metadata = metadata
        self._engine = engine
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
        """Read a model and compile it, or read what was compiled before.

        Args:
            path: A run folder or an `.h5` file; None for the newest finished run in `models/`,
                otherwise the released model.
            engine: "openvino" or "keras"; None chooses: Keras on a machine with a GPU that
                TensorFlow can use, otherwise OpenVINO, and Keras where OpenVINO cannot be used.
            precision: "f32", "bf16" or "int8" (after `ImageScoring.py --precision int8` or
                `quantization.ensure_int8`); None for bf16 where the CPU has it, otherwise f32.
            for_batches: Make ready for many images; the first single one waits longer.

        Raises:
            FileNotFoundError: There is no such model.
            ModelFileError: It cannot be read, or was not made by this project.
            RuntimeError: The engine named cannot run it here.
        """
        model_path = find_model(path)
        metadata = read_metadata(model_path)
        opened = open_engine(
            model_path,
            image_size=metadata.image_size,
            engine=engine,
            precision=precision,
            for_batches=for_batches,
        )
        return cls(model_path, metadata, opened, read_check(model_path))

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
        return self.judge([self.prepare(image) for image in images])

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
            compare_size(width, height, self.metadata.training_images),
        )

    def judge(self, images: Sequence[PreparedImage]) -> list[Verdict]:
        """Verdicts for prepared images, in their order, at least one."""
        outputs = self.judge_pixels(np.stack([image.pixels for image in images]))
        return [
            self.verdict(probabilities, image.size_reason, reason)
            for image, probabilities, reason in zip(images, *outputs, strict=True)
        ]

    def verdict(self, probabilities: np.ndarray, *out_of_distribution: Reason | None) -> Verdict:
        """The verdict for one image; see `make_verdict`."""
        return make_verdict(probabilities, self.metadata, out_of_distribution=out_of_distribution)

    def predict_pixels(self, pixels: np.ndarray, *, in_batches: bool = False) -> np.ndarray:
        """Calibrated probabilities alone; see `judge_pixels`."""
        return self.judge_pixels(pixels, in_batches=in_batches)[0]

    def judge_pixels(
        self, pixels: np.ndarray, *, in_batches: bool = False
    ) -> tuple[np.ndarray, list[Reason | None]]:
        """What the network says about prepared pixels.

        Args:
            pixels: Shape (n, image_size, image_size, 3), uint8, n at least 1.
            in_batches: Make no result depend on how many images came with it, at the price of a
                longer wait for few images.

        Returns:
            Calibrated probabilities, shape (n, n_classes), rows summing to 1, in the order of
            `metadata.class_names`; and why the features or the sharpness of each image make it
            out-of-distribution, None where they do not.
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
        if self._check is None or features.shape[1] != len(self._check.whitening):
            return calibrated, [None] * len(pixels)
        return calibrated, self._check.compare(features, pixels)


def _check_pixels(pixels: np.ndarray) -> None:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise InputError(
            "Expected pixels of shape (height, width, 3) and type uint8, found shape "
            f"{pixels.shape} and type {pixels.dtype}."
        )
