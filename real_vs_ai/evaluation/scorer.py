"""Ask a model about images once: probabilities and features come from the same pass.

OpenVINO computes a model's file: it starts in a second, where Keras traces a deep network for many,
and is faster on CPUs. Keras computes on GPUs, and what OpenVINO cannot read.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from real_vs_ai.dataset.decoded_images import DecodedImages, decode_images
from real_vs_ai.dataset.labelled_images import LabelledImages
from real_vs_ai.errors import InputError, RealVsAIError
from real_vs_ai.model_input import ModelInput
from real_vs_ai.options import available_workers
from real_vs_ai.out_of_distribution import OutOfDistributionCheck, read_check
from real_vs_ai.predictions import Predictions, as_texts, check_softmax
from real_vs_ai.reporting import progress

if TYPE_CHECKING:
    import keras

# One batch of float32 pixels; a ResNet101's activations take some 60 times as much.
_BATCH_PIXELS = 2**20
_LARGEST_BATCH = 256
# Whole images beyond this lie in a temporary file.
_WHOLE_BYTES = 2**30


class Network(Protocol):
    """Computes batches; a Keras model is one."""

    def predict_on_batch(self, pixels: np.ndarray) -> np.ndarray:
        """Outputs of RGB pixels, 0 to 255, shape (n, image_size, image_size, 3)."""


class Scorer:
    """A model that remembers what it said of the images that it was asked about.

    Attributes:
        check: The model's out-of-distribution check on the features, or None.
    """

    def __init__(self, network: Network, *, n_classes: int):
        """Make the scorer of a network that gives `n_classes` probabilities, then the features."""
        self._network = network
        self._n_classes = n_classes
        self.check: OutOfDistributionCheck | None = None
        self._known: list[tuple[DecodedImages, np.ndarray]] = []
        self._known_whole: list[tuple[LabelledImages, np.ndarray]] = []

    def predict_on_batch(self, pixels: np.ndarray) -> np.ndarray:
        """Probabilities alone, shape (n, n_classes), nothing remembered; see `Network`."""
        return self._network.predict_on_batch(pixels)[:, : self._n_classes]

    def outputs(
        self, decoded: DecodedImages, *, description: str | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (n, views, n_classes) and features (n, views, n_features), float64."""
        found = next((known for images, known in self._known if images is decoded), None)
        if found is None:
            found = predict_probabilities(self._network, decoded.inputs, description=description)
            found = found.reshape(len(decoded), decoded.views, -1)
            self._known.append((decoded, found))
        return found[..., : self._n_classes], found[..., self._n_classes :]

    def whole_features(self, images: LabelledImages, *, image_size: int) -> np.ndarray:
        """Features of the whole images, resized: (n, n_features), float64; reads the files again.

        Raises:
            InputError: A file cannot be read.
        """
        found = next((known for asked, known in self._known_whole if asked is images), None)
        if found is None:
            whole = decode_images(
                images,
                model_input=ModelInput(image_size),
                workers=available_workers(),
                max_memory_bytes=_WHOLE_BYTES,
            )
            if whole.failures:
                path, reason = whole.failures[0]
                raise InputError(f"{images.root / path} can no longer be read: {reason}")
            found = predict_probabilities(self._network, whole.inputs, description=None)
            found = found[:, self._n_classes :]
            self._known_whole.append((images, found))
        return found


def open_scorer(model: keras.Model, model_path: Path | None, *, layer: str | None) -> Scorer:
    """Choose the fastest way to compute a model here.

    Args:
        model_path: A file of the same network; None where there is none.
        layer: Name of the layer whose outputs are the features; None for no features.
    """
    network = open_network(model, model_path, layer=layer)
    return Scorer(network, n_classes=model.output_shape[-1])


def open_checked_scorer(model: keras.Model, model_path: Path) -> Scorer:
    """The scorer of a model file with the out-of-distribution check in it, if it holds one."""
    try:
        check = read_check(model_path)
    except OSError:
        # Keras reads more formats than HDF5.
        check = None
    scorer = open_scorer(model, model_path, layer=check.layer if check else None)
    scorer.check = check
    return scorer


def open_network(model: keras.Model, model_path: Path | None, *, layer: str | None) -> Network:
    """The same without a memory: gives the probabilities, then the layer's outputs."""
    # Reports are drawn again without Keras.
    from real_vs_ai.keras_models import sees_gpu

    network, image_size = None, model.input_shape[1]
    if model_path is not None and image_size is not None and not sees_gpu():
        network = _open_file(model_path, image_size=image_size, layer=layer)
    return network or _keras_network(model, layer)


def _open_file(model_path: Path, *, image_size: int, layer: str | None) -> Network | None:
    """The file compiled by OpenVINO, or None where that cannot be."""
    try:
        from real_vs_ai.serving.openvino_engine import Float32Network

        return Float32Network(model_path, image_size=image_size, layer=layer)
    except (ImportError, RealVsAIError, RuntimeError, OSError):
        return None


def _keras_network(model: keras.Model, layer: str | None) -> keras.Model:
    import keras

    if layer is None:
        return model
    outputs = [model.outputs[0], model.get_layer(layer).output]
    return keras.Model(model.inputs, keras.layers.Concatenate()(outputs))


def predict_probabilities(
    model: Network, pixels: np.ndarray, *, description: str | None
) -> np.ndarray:
    """A model's outputs in the order of the images.

    Args:
        model: Takes RGB 0 to 255.
        pixels: Shape (n_inputs, image_size, image_size, 3), uint8; may be a memory map.
        description: Text of the progress bar; None shows none.

    Returns:
        Shape (n_inputs, n_classes), float64.
    """
    image_size = pixels.shape[1]
    batch_size = int(np.clip(_BATCH_PIXELS // image_size**2, 1, _LARGEST_BATCH))
    outputs = []
    starts = range(0, len(pixels), batch_size)
    for start in progress(starts, description=description, unit="batch") if description else starts:
        batch = np.asarray(pixels[start : start + batch_size], dtype=np.float32)
        outputs.append(np.asarray(model.predict_on_batch(batch), dtype=np.float64))
    return np.concatenate(outputs)


def judge_mirrored(
    model: Network, probabilities: np.ndarray, pixels: np.ndarray, *, model_input: ModelInput
) -> np.ndarray:
    """`ModelInput.judge_mirrored` with a network that gives probabilities alone."""
    return model_input.judge_mirrored(
        probabilities, pixels, lambda some: predict_probabilities(model, some, description=None)
    )


def predict_images(
    scorer: Scorer, decoded: DecodedImages, *, split: str, model_input: ModelInput
) -> Predictions:
    """Ask a model about decoded images, in their order.

    Args:
        model_input: Says how the probabilities of an image's crops, or of the image and its mirror
            image, become the image's.

    Raises:
        InputError: There are no images, or the outputs are no softmax over the classes.
    """
    images = decoded.images
    if not len(images):
        raise InputError(
            f"Expected images that can be read in {images.root}, found none "
            f"({len(decoded.failures)} could not be read)."
        )
    outputs, _ = scorer.outputs(decoded, description=f"Scoring {split}")
    check_softmax(outputs.reshape(-1, outputs.shape[-1]), n_classes=len(images.class_names))
    outputs = judge_mirrored(scorer, outputs, decoded.inputs, model_input=model_input)
    classifier = scorer.check.portraits if scorer.check else None
    if classifier is None:
        portraits = np.zeros(len(images), bool)
    else:
        whole = scorer.whole_features(images, image_size=model_input.size)
        portraits = classifier.find(whole)
    return Predictions(
        class_names=images.class_names,
        paths=as_texts(f"{images.root.name}/{path}" for path in images.paths),
        splits=as_texts([split] * len(images)),
        labels=np.asarray(images.labels, dtype=np.int64),
        sources=as_texts(images.sources),
        widths=np.asarray(decoded.widths, dtype=np.int64),
        heights=np.asarray(decoded.heights, dtype=np.int64),
        portraits=portraits,
        probabilities=model_input.aggregate(outputs),
    )
