"""Judge without a model file: an engine for tests of code that uses a `Judge` or a `Detector`.

>>> import numpy as np
>>> from real_vs_ai.serving.judge import Judge
>>> judge = Judge(fake_detector(FakeEngine(lambda pixels: 0.9 if pixels[0, 0, 0] else 0.1)))
>>> judge.judge_pixels(np.full((40, 30, 3), 255, np.uint8)).label
'Fake'
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from real_vs_ai.models.model_file import ModelMetadata
from real_vs_ai.serving.detector import Detector
from real_vs_ai.serving.served_model import ServedModel

_METADATA = ModelMetadata(("Fake", "Real"), image_size=32)


def share_of_red(pixels: np.ndarray) -> float:
    """The mean of red, 0 to 1."""
    return float(pixels[..., 0].mean()) / 255


class FakeEngine:
    """Answers by a function of the pixels, which may wait or raise; see `engines.Engine`.

    Attributes:
        batches: How many inputs each call of `predict` had, in the order they came.
    """

    name, precision, note, is_open = "fake", "f32", "", True

    def __init__(
        self,
        probability_fake: Callable[[np.ndarray], float] = share_of_red,
        *,
        batch_size: int = 4,
        parallel_batches: int = 2,
    ) -> None:
        """Begin with no batches.

        Args:
            probability_fake: Of one input of the network, shape (image_size, image_size, 3), uint8.
        """
        self.batch_size, self.parallel_batches = batch_size, parallel_batches
        self.batches: list[int] = []
        self._probability_fake = probability_fake

    def predict(self, pixels: np.ndarray) -> np.ndarray:
        self.batches.append(len(pixels))
        fake = np.array([self._probability_fake(one) for one in pixels], np.float32)
        return np.stack([fake, 1 - fake], axis=1)


def fake_detector(
    engine: FakeEngine | None = None, *, metadata: ModelMetadata = _METADATA, name: str = "fake"
) -> Detector:
    """A detector with this engine, in place of `Detector.open`.

    Args:
        metadata: Of the model that it stands for, with Fake and Real as its classes.
    """
    return Detector(ServedModel(name, Path(f"{name}.h5"), metadata), engine or FakeEngine())
