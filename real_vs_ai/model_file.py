"""Read and write the metadata in a model file, so that the file serves when copied alone.

The metadata is JSON in the HDF5 attribute `real_vs_ai` of `model.h5`. Training writes it; serving
reads it without TensorFlow.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from real_vs_ai.config import positive_index
from real_vs_ai.errors import InputError
from real_vs_ai.files import atomic_write
from real_vs_ai.model_input import ModelInput, logarithms, read_model_input, softmax

# The layer that enlarges a network's input, by its name in the file.
ENLARGING_LAYER = "enlarging"

_ATTRIBUTE = "real_vs_ai"
_FORMAT_VERSION = 1
# So files of earlier versions say that there is no threshold. A probability that is rounded to 0 or
# 1 would reach them.
_UNREACHABLE = {"lower_threshold": 0.0, "upper_threshold": 1.0, "minimum_confidence": 1.0}


class ModelFileError(InputError):
    """A model file that cannot be used; the message is one line that says why."""


@dataclass(frozen=True)
class ModelMetadata:
    """Everything that a verdict needs except the weights.

    Attributes:
        image_size: Side of the square input, in pixels.
        temperature: Divides the log-probabilities; 1.0 when not calibrated.
        calibrated: Whether temperature and thresholds were fitted on validation images.
        lower_threshold: For `verdict.decide`, of models that tell Fake from Real; 0 to 1. None: no
            threshold, so that no image is called Real.
        upper_threshold: As lower_threshold, and never below it. None: no image is called Fake.
        minimum_confidence: For `verdict.decide`, of models of other classes; 0 to 1. None: no image
            gets a class.
        backbone: "resnet101", …
        metrics: The `test` part of `metrics.json`, or {}.
        training_images: Sizes and sources of the training images, for telling
            out-of-distribution images; or {}.
        created: When training ended, ISO 8601 in UTC.
        confirm_on_copy: Whether a certain verdict of a model of crops must survive on a copy as
            sites send pictures on; otherwise no copy is judged.
        input: How images become the network's input, as `ModelInput.stored` gives it; {} (older
            files) means the whole image, resized.
    """

    class_names: tuple[str, ...]
    image_size: int
    temperature: float = 1.0
    calibrated: bool = False
    lower_threshold: float | None = 0.5
    upper_threshold: float | None = 0.5
    minimum_confidence: float | None = 0.0
    backbone: str = ""
    training_data: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    training_images: dict[str, Any] = field(default_factory=dict)
    created: str = ""
    confirm_on_copy: bool = True
    input: dict[str, Any] = field(default_factory=dict)

    @property
    def model_input(self) -> ModelInput:
        """How images become the network's input."""
        return read_model_input(self.input, size=self.image_size)

    @property
    def positive_index(self) -> int | None:
        """Index of the Fake class when the model tells Fake from Real, otherwise None."""
        return positive_index(self.class_names)


def write_metadata(path: Path, metadata: ModelMetadata) -> None:
    """Store the metadata in a model file; a killed process leaves the old file or the new one."""
    text = json.dumps(
        {"format_version": _FORMAT_VERSION, **dataclasses.asdict(metadata)}, allow_nan=False
    )
    with atomic_write(path, edit=True) as staging, h5py.File(staging, "r+") as file:
        # As a string of variable length: HDF5 limits attributes of other kinds to 64 KiB.
        file.attrs[_ATTRIBUTE] = text


def read_metadata(path: Path) -> ModelMetadata:
    """Read the metadata of a model file.

    Raises:
        FileNotFoundError: There is no such file.
        ModelFileError: It is not HDF5, or has no metadata, or damaged ones.
    """
    if not path.is_file():
        raise FileNotFoundError(f"Expected a model file at {path}, found none.")
    try:
        with h5py.File(path, "r") as file:
            stored = file.attrs.get(_ATTRIBUTE)
    except OSError as error:
        raise ModelFileError(
            f"{path} is not a readable HDF5 file (damaged or incomplete)."
        ) from error
    if stored is None:
        raise ModelFileError(
            f"{path} has no real_vs_ai metadata. ModelTraining.py writes it; for a model "
            "made elsewhere run ModelEvaluation.py --class-names A B first."
        )
    try:
        values = json.loads(stored)
        names = {f.name for f in dataclasses.fields(ModelMetadata)}
        known = {key: value for key, value in values.items() if key in names}
        known["class_names"] = tuple(known["class_names"])
        for name, unreachable in _UNREACHABLE.items():
            if known.get(name) == unreachable:
                known[name] = None
        metadata = ModelMetadata(**known)
        # Here, so that an input of a later version is refused before anything is judged by it.
        _ = metadata.model_input
        return metadata
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelFileError(f"{path} has damaged real_vs_ai metadata: {error}") from error


def read_strides(path: Path, layer_names: Iterable[str]) -> int | None:
    """How much some layers of a model file shrink an image together.

    None where it is not a model file, or of another network.
    """
    layers = _read_layers(path)
    try:
        return int(np.prod([layers[name]["strides"][0] for name in layer_names]))
    except (KeyError, ValueError, TypeError, IndexError):
        return None


def read_enlargement(path: Path) -> int:
    """How many times the network in a model file enlarges its input; 1 for another file."""
    try:
        return int(_read_layers(path)[ENLARGING_LAYER]["size"][0])
    except (KeyError, ValueError, TypeError, IndexError):
        return 1


def _read_layers(path: Path) -> dict[str, dict[str, Any]]:
    """The layers' configurations by name; none where it is not a model file."""
    try:
        with h5py.File(path, "r") as file:
            layers = json.loads(file.attrs["model_config"])["config"]["layers"]
        return {layer["config"]["name"]: layer["config"] for layer in layers}
    except (OSError, KeyError, ValueError, TypeError):
        return {}


def calibrate(probabilities: np.ndarray, *, temperature: float) -> np.ndarray:
    """Temperature scaling (Guo et al. 2017) of softmax outputs.

    Args:
        probabilities: Softmax outputs, shape (n_images, n_classes).
        temperature: Above 1 softens, below 1 sharpens; the order of the classes never changes.

    Returns:
        Same shape, rows summing to 1, float64.
    """
    return softmax(logarithms(np.asarray(probabilities, dtype=np.float64)) / temperature)
