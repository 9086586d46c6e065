"""Import Keras, load a saved model, and save one: the only code that knows Keras' files.

This module does not import Keras until a function needs it.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from real_vs_ai.core.errors import InputError, one_line
from real_vs_ai.core.files import atomic_write
from real_vs_ai.models.model_file import (
    ModelFileError,
    ModelMetadata,
    check_weights,
    read_metadata,
    write_metadata,
)
from real_vs_ai.out_of_distribution.check import read_check

if TYPE_CHECKING:
    import keras

# Images of a model that takes any size: ImageNet's networks learn at it.
USUAL_SIZE = 224


class MissingKerasError(InputError):
    """Keras or TensorFlow is not installed; the message says how to install them."""


def keras_is_installed() -> bool:
    """Whether Keras and its backend are installed; imports neither."""
    needed = ("keras", os.environ.get("KERAS_BACKEND", "tensorflow"))
    return all(importlib.util.find_spec(name) is not None for name in needed)


def import_keras_quietly() -> None:
    """Import Keras; TensorFlow's remarks about its build and missing GPUs do not show.

    Set TF_CPP_MIN_LOG_LEVEL=0 in the environment to see them.

    Raises:
        MissingKerasError: Keras or its backend is not installed.
    """
    if not keras_is_installed():
        raise MissingKerasError(
            "Expected TensorFlow and Keras for this, found only what the app needs. "
            "Run: pip install -r requirements.txt"
        )
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ:
        import keras

        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    # A report asks several models about batches of several sizes; retracing is then expected.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    # The first lines come before that setting is read, straight from C++.
    with _without_standard_error():
        import keras  # noqa: F401


def open_model(
    path: Path, *, class_names: tuple[str, ...] | None
) -> tuple[keras.Model, ModelMetadata, bool]:
    """Load a model, and what it says of itself.

    Args:
        class_names: Of a model that does not name its classes, otherwise not looked at.

    Returns:
        The model, its metadata, and whether the file carried them.

    Raises:
        InputError: It cannot be loaded, or its classes or input are not known.
    """
    model = load_model(path)
    input_size = model.input_shape[1]
    try:
        metadata, has_metadata = read_metadata(path), True
    except ModelFileError as error:
        if class_names is None:
            raise ModelFileError(
                f"{path} does not name its classes. Name them in the order of its "
                f"{model.output_shape[-1]} outputs: --class-names Fake Real"
            ) from error
        metadata = ModelMetadata(
            class_names=class_names, image_size=input_size or USUAL_SIZE, backbone=model.name
        )
        has_metadata = False
    if len(metadata.class_names) != model.output_shape[-1]:
        raise ModelFileError(
            f"Expected one output for each of {', '.join(metadata.class_names)}, found "
            f"{model.output_shape[-1]} outputs in {path}. Name its classes with --class-names."
        )
    if input_size not in (None, metadata.image_size):
        raise ModelFileError(
            f"Expected an image size of {input_size}, the input of {path}, "
            f"received {metadata.image_size}."
        )
    return model, metadata, has_metadata


def load_model(path: Path) -> keras.Model:
    """Load a Keras model without compiling it.

    Raises:
        ModelFileError: It is not a Keras model for square RGB images, or its configuration does not
            fit its weights.
    """
    check_weights(path)
    import_keras_quietly()
    import keras

    try:
        model = keras.models.load_model(path, compile=False)
    # Keras raises whatever the damaged part of a file happens to cause.
    except Exception as error:
        reason = one_line(error)
        raise ModelFileError(f"{path} is not a Keras model that can be loaded: {reason}") from error
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2]:
        raise ModelFileError(
            f"Expected a model for square RGB images (None, size, size, 3), found input {shape} "
            f"in {path}."
        )
    return model


def load_for_inference(path: Path) -> keras.Model:
    """Load a Keras model for an engine.

    Its second output are the features that the file has statistics of, if it has any.

    Raises:
        ModelFileError: It is not a Keras model for square RGB images.
    """
    model = load_model(path)
    import keras

    check = read_check(path)
    layers = {layer.name: layer for layer in model.layers}
    layer = layers.get(check.layer) if check else None
    if layer is None or len(layer.output.shape) != 2:
        return model
    return keras.Model(model.inputs, [model.outputs[0], layer.output], name=model.name)


def sees_gpu() -> bool:
    """Whether Keras' backend runs on a GPU; imports Keras."""
    import keras

    return any(device.startswith("gpu") for device in keras.distribution.list_devices())


def graph_of(model: keras.Model) -> keras.Model:
    """The same layers without what compiling added; copies and files then hold no optimizer."""
    import keras

    return keras.Model(model.inputs, model.outputs, name=model.name)


def to_float32(model: keras.Model) -> keras.Model:
    """The same model with every layer in float32, whatever precision it was trained in."""

    import keras

    def in_float32(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = {**layer.get_config(), "dtype": "float32", "trainable": True}
        return layer.__class__.from_config(config)

    # A clone of a ResNet101 takes seconds.
    if all(layer.dtype_policy.name == "float32" and layer.trainable for layer in model.layers):
        return graph_of(model)
    clone = keras.models.clone_model(graph_of(model), clone_function=in_float32)
    clone.set_weights(model.get_weights())
    return clone


def save_model(model: keras.Model, path: Path, *, metadata: ModelMetadata) -> None:
    """Write `model.h5` in float32, without optimizer; a killed process leaves the old or the new.

    The file serves without Keras, unless OpenVINO cannot convert the network; a warning says so.

    Raises:
        OSError: The disk is full, or the folder cannot be written to.
    """
    from absl import logging as keras_logging

    from real_vs_ai.models.openvino_form import OpenVINOFormError, write_form

    verbosity = keras_logging.get_verbosity()
    # Keras warns that HDF5 is its older format; this project's contract asks for it.
    keras_logging.set_verbosity(keras_logging.ERROR)
    try:
        with atomic_write(path) as staging:
            model = to_float32(model)
            model.save(staging, include_optimizer=False)
            write_metadata(staging, metadata)
            try:
                write_form(staging, model)
            except OpenVINOFormError as error:
                logging.getLogger(__name__).warning("%s runs in Keras alone: %s", path, error)
    finally:
        keras_logging.set_verbosity(verbosity)


@contextmanager
def _without_standard_error() -> Iterator[None]:
    sys.stderr.flush()
    saved = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(nowhere)
