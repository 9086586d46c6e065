"""A model and the images it learnt from in, what tells others from them out.

appearance = learn_appearance(model, splits)
write_appearance(run.model, appearance)
share_outside(model, metadata=metadata, appearance=appearance, decoded=splits["test"])
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from real_vs_ai.appearance import Appearance, Seen, fit_appearance
from real_vs_ai.dataset.decoded_images import DecodedImages
from real_vs_ai.domain import compare_with_domain
from real_vs_ai.evaluation.predictions import predict_probabilities
from real_vs_ai.model_file import ModelMetadata

# Enough for a covariance of some hundred features, and for a quantile of one in two hundred.
_MOST_IMAGES = 4000
_MOST_BYTES = 2**28


def learn_appearance(model: keras.Model, splits: Mapping[str, DecodedImages]) -> Appearance:
    """What the training images look like to the network.

    Args:
        model: As it is saved.
        splits: "train" and "validation" are used, some thousand images of each.
    """
    layer = features_layer(model)
    seen = [_see(model, layer.name, _draw(splits[split])) for split in ("train", "validation")]
    return fit_appearance(*seen, layer=layer.name)


def share_outside(
    model: keras.Model,
    *,
    metadata: ModelMetadata,
    appearance: Appearance | None,
    decoded: DecodedImages,
) -> dict[str, Any]:
    """How many labelled images are turned away as unlike the training images.

    Args:
        model: The network.
        metadata: Its `domain` tells the training images' sizes.
        appearance: From the model file, or None.
        decoded: The images; some thousand of them are looked at.

    Returns:
        "n" images, and the "share" of them that is outside.
    """
    drawn = _draw(decoded)
    outside = find_outside(model, metadata=metadata, appearance=appearance, decoded=drawn)
    return {"n": len(drawn), "share": float(outside.mean())}


def find_outside(
    model: keras.Model,
    *,
    metadata: ModelMetadata,
    appearance: Appearance | None,
    decoded: DecodedImages,
) -> np.ndarray:
    """Which images are turned away as unlike the training images.

    Args:
        model: The network.
        metadata: Its `domain` tells the training images' sizes.
        appearance: From the model file, or None.
        decoded: The images.

    Returns:
        Shape (n,), bool.
    """
    sizes = zip(decoded.widths.tolist(), decoded.heights.tolist(), strict=True)
    outside = np.array([compare_with_domain(*size, metadata.domain).outside for size in sizes])
    if appearance is not None:
        seen = _see(model, appearance.layer, decoded)
        outside |= [fit.outside for fit in appearance.compare(seen.features, seen.pixels)]
    return outside


def features_layer(model: keras.Model) -> keras.layers.Layer:
    """The layer whose output the last one judges by; Dropout is passed over."""
    return next(x for x in model.layers[-2::-1] if not isinstance(x, keras.layers.Dropout))


def _see(model: keras.Model, layer_name: str, decoded: DecodedImages) -> Seen:
    """What the network sees of each image: the mean of its crops' features, and its crops."""
    body = keras.Model(model.inputs, model.get_layer(layer_name).output)
    features = predict_probabilities(body, decoded.inputs, description=None)
    features = features.reshape(len(decoded), decoded.views, -1).mean(axis=1)
    return Seen(features, decoded.pixels, decoded.labels)


def _draw(decoded: DecodedImages) -> DecodedImages:
    most = min(_MOST_IMAGES, max(1, _MOST_BYTES // decoded.pixels[:1].nbytes))
    return decoded.take(decoded.images.draw(most))
