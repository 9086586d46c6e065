"""Read and write the metadata in a model file, so that the file serves when copied alone.

The metadata is JSON in the HDF5 attribute `real_vs_ai` of `model.h5`. Training writes it; serving
reads it without TensorFlow.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from real_vs_ai.core.config import positive_index
from real_vs_ai.core.errors import InputError
from real_vs_ai.core.files import atomic_write
from real_vs_ai.models.model_input import ModelInput, logarithms, read_model_input, softmax

# The layer that enlarges a network's input, by its name in the file.
ENLARGING_LAYER = "enlarging"

_ATTRIBUTE = "real_vs_ai"
_FORMAT_VERSION = 1
# So files of earlier versions say that there is no threshold. A probability that is rounded to 0 or
# 1 would reach them.
_UNREACHABLE = {"lower_threshold": 0.0, "upper_threshold": 1.0, "minimum_confidence": 1.0}
# Options of Keras' layers that become dimensions of weights.
_DIMENSIONS = frozenset({"units", "filters", "num_heads", "key_dim", "input_dim", "output_dim"})
# No layer of a network for images enlarges, pads or reshapes to so many.
_HUGE = 65_536
# Compressed weights take little less space.
_MOST_UNPACKED = 4


class ModelFileError(InputError):
    """A model file that cannot be used; the message is one line that says why."""


@dataclass(frozen=True)
class ModelMetadata:
    """Everything that a verdict needs except the weights.

    Attributes:
        image_size: Side of the square input, in pixels.
        temperature: Divides the log-probabilities; 1.0 when not calibrated.
        offset: Added to the log-odds of Fake after that; 0.0 when not calibrated, and for models of
            other classes.
        calibrated: Whether temperature, offset and thresholds were fitted on validation images.
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
        input: How images become the network's input, as `ModelInput.stored` gives it; {} (older
            files) means the whole image, resized.
    """

    class_names: tuple[str, ...]
    image_size: int
    temperature: float = 1.0
    offset: float = 0.0
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
    input: dict[str, Any] = field(default_factory=dict)

    @property
    def model_input(self) -> ModelInput:
        """How images become the network's input."""
        return read_model_input(self.input, size=self.image_size)

    @property
    def positive_index(self) -> int | None:
        """Index of the Fake class when the model tells Fake from Real, otherwise None."""
        return positive_index(self.class_names)

    def calibrate(self, probabilities: np.ndarray) -> np.ndarray:
        """Calibrated probabilities of softmax outputs; both of shape (n_images, n_classes)."""
        fitted = {"temperature": self.temperature, "offset": self.offset}
        return calibrate(probabilities, **fitted, positive=self.positive_index or 0)


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


def check_weights(path: Path) -> None:
    """Refuse a model whose configuration does not fit its weights, before anything loads it.

    Keras would make weights of any size that a configuration names: of 2,000,000,000 units, 16 TB.

    Raises:
        ModelFileError: A layer's size is not found in the shapes of its weights, or the file is
            too small for the weights that it declares.
    """
    try:
        with h5py.File(path, "r") as file:
            layers = json.loads(file.attrs["model_config"])["config"]["layers"]
            dimensions: dict[str, set[int]] = {name: set() for name in file["model_weights"]}
            declared = 0
            for name, group in file["model_weights"].items():
                for dataset in _datasets(group):
                    dimensions[name].update(dataset.shape)
                    declared += dataset.size * dataset.dtype.itemsize
    except (OSError, KeyError, ValueError, TypeError, AttributeError):
        # Not one of Keras' files: the one that loads it says so.
        return
    if declared > _MOST_UNPACKED * path.stat().st_size:
        raise ModelFileError(
            f"Expected the weights in {path}, found a file of {path.stat().st_size:,} bytes that "
            f"declares {declared:,} bytes of them: it is damaged. Get the file again."
        )
    for layer in layers:
        name = layer["config"].get("name", "")
        for option, size in _sizes(layer["config"]):
            if size not in dimensions.get(name, ()):
                raise ModelFileError(
                    f"Expected the weights of {option} {size:,} for the layer {name!r} of {path}, "
                    "found none of that size: it is damaged. Get the file again."
                )


def _datasets(group: h5py.Group) -> list[h5py.Dataset]:
    datasets: list[h5py.Dataset] = []
    group.visititems(
        lambda _, item: datasets.append(item) if isinstance(item, h5py.Dataset) else None
    )
    return datasets


def _sizes(value: Any, option: str = "") -> Iterator[tuple[str, int]]:
    """The options of a layer that its weights must have as a dimension, and any huge number."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _sizes(inner, key)
    elif isinstance(value, list):
        for inner in value:
            yield from _sizes(inner, option)
    elif isinstance(value, int) and (
        option in _DIMENSIONS or (value >= _HUGE and "seed" not in option)
    ):
        yield option, value


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


def calibrate(
    probabilities: np.ndarray, *, temperature: float, offset: float = 0.0, positive: int = 0
) -> np.ndarray:
    """Softmax outputs with other log-odds: divided by a temperature, and shifted for two classes.

    A temperature alone (Guo et al. 2017) keeps 0.5 where it is; with an offset (Platt 1999) the
    point moves at which Fake and Real are equally likely.

    Args:
        probabilities: Softmax outputs, shape (n_images, n_classes).
        temperature: Above 1 softens, below 1 sharpens; the order of the classes never changes.
        offset: Added to the log-odds of the positive class.
        positive: Index of that class, Fake.

    Returns:
        Same shape, rows summing to 1, float64.
    """
    logits = logarithms(np.asarray(probabilities, dtype=np.float64)) / temperature
    logits[:, positive] += offset
    return softmax(logits)
