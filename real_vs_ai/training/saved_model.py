"""A saved Keras model in, the model and what is known of it out, or one clear line why not.

model, metadata, has_metadata = open_model(path, class_names=None, image_size=None)
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from real_vs_ai.model_file import ModelFileError, ModelMetadata, read_metadata
from real_vs_ai.training.backend import import_keras_quietly

if TYPE_CHECKING:
    import keras


def open_model(
    path: Path, *, class_names: tuple[str, ...] | None, image_size: int | None
) -> tuple[keras.Model, ModelMetadata, bool]:
    """Load a model, and what it says of itself.

    Args:
        path: The `.h5` file (or any other that Keras reads).
        class_names: Of a model that does not say its classes, otherwise not looked at.
        image_size: Of such a model, in pixels; None asks the model's input.

    Returns:
        The model, its metadata, and whether the file carried them.

    Raises:
        ValueError: It cannot be loaded, or its classes or input are not known.
    """
    model = load_model(path)
    input_size = model.input_shape[1]
    try:
        metadata, has_metadata = read_metadata(path), True
    except ModelFileError as error:
        if class_names is None:
            raise ModelFileError(
                f"{path} does not say its classes. Name them in the order of its "
                f"{model.output_shape[-1]} outputs: --class-names Fake Real"
            ) from error
        image_size = image_size or input_size
        if image_size is None:
            raise ModelFileError(
                f"{path} takes images of any size. Name one with --image-size 224"
            ) from error
        metadata = ModelMetadata(
            class_names=class_names, image_size=image_size, backbone=model.name
        )
        has_metadata = False
    if input_size not in (None, metadata.image_size):
        raise ModelFileError(
            f"Expected an image size of {input_size}, the input of {path}, "
            f"received {metadata.image_size}."
        )
    return model, metadata, has_metadata


def load_model(path: Path) -> keras.Model:
    """Load a Keras model without compiling it.

    Raises:
        ModelFileError: It is no Keras model for square RGB images.
    """
    import_keras_quietly()
    import keras

    try:
        model = keras.models.load_model(path, compile=False)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelFileError(f"{path} is not a Keras model that can be loaded: {reason}") from error
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2]:
        raise ModelFileError(
            f"Expected a model for square RGB images (None, size, size, 3), found input {shape} "
            f"in {path}."
        )
    return model
