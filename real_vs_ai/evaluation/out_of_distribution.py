"""Fit a model's out-of-distribution check, and count which labelled images fail it.

check = learn_check(model, splits)
write_check(run.model, check)
share_out_of_distribution(model, metadata=metadata, check=check, decoded=splits["test"])
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from real_vs_ai.dataset.decoded_images import DecodedImages
from real_vs_ai.evaluation.predictions import predict_probabilities
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.out_of_distribution import OutOfDistributionCheck, Sample, compare_size, fit_check

# Enough for a covariance of some hundred features, and for a quantile of one in two hundred.
MOST_IMAGES = 4000
_MOST_BYTES = 2**30
# A covariance of more features would weigh more than the network.
_WIDEST = 1280


def learn_check(model: keras.Model, splits: Mapping[str, DecodedImages]) -> OutOfDistributionCheck:
    """Fit the check on the training and validation images as the network sees them.

    Args:
        model: As it is saved.
        splits: "train" and "validation" are used, some thousand images of each.
    """
    layer = features_layer(model)
    samples = [
        _sample(model, layer.name, _draw(splits[split])) for split in ("train", "validation")
    ]
    return fit_check(*samples, layer=layer.name)


def share_out_of_distribution(
    model: keras.Model,
    *,
    metadata: ModelMetadata,
    check: OutOfDistributionCheck | None,
    decoded: DecodedImages,
) -> dict[str, Any]:
    """Count the out-of-distribution images among labelled ones.

    Args:
        model: The network.
        metadata: Its `training_images` tell the training images' sizes.
        check: From the model file, or None.
        decoded: The images; some thousand of them are drawn.

    Returns:
        "n" images, and the "share" of them that is out-of-distribution.
    """
    drawn = _draw(decoded)
    found = find_out_of_distribution(model, metadata=metadata, check=check, decoded=drawn)
    return {"n": len(drawn), "share": float(found.mean())}


def find_out_of_distribution(
    model: keras.Model,
    *,
    metadata: ModelMetadata,
    check: OutOfDistributionCheck | None,
    decoded: DecodedImages,
) -> np.ndarray:
    """Find the out-of-distribution images among labelled ones.

    Args:
        model: The network.
        metadata: Its `training_images` tell the training images' sizes.
        check: From the model file, or None.
        decoded: The images.

    Returns:
        Shape (n,), bool.
    """
    seen = metadata.model_input.seen_sizes(decoded.widths, decoded.heights)
    sizes = zip(*(sides.tolist() for sides in seen), strict=True)
    reasons = [compare_size(*size, metadata.training_images) for size in sizes]
    found = np.array([reason is not None for reason in reasons])
    if check is not None:
        sample = _sample(model, check.layer, decoded)
        reasons = check.compare(sample.features, sample.pixels)
        found |= [reason is not None for reason in reasons]
    return found


def features_layer(model: keras.Model) -> keras.layers.Layer:
    """The last layer before the softmax that gives one vector, of a size to store a covariance of.

    Dropout and noise are passed over: they do nothing to an image that is judged.
    """
    idle = (keras.layers.Dropout, keras.layers.GaussianNoise)
    candidates = [x for x in model.layers[-2::-1] if not isinstance(x, idle)]
    small = (x for x in candidates if len(x.output.shape) == 2 and x.output.shape[1] <= _WIDEST)
    return next(small, candidates[0])


def _sample(model: keras.Model, layer_name: str, decoded: DecodedImages) -> Sample:
    """What the network sees of each image: the mean of its crops' features, and its crops."""
    body = keras.Model(model.inputs, model.get_layer(layer_name).output)
    features = predict_probabilities(body, decoded.inputs, description=None)
    features = features.reshape(len(decoded), decoded.views, -1).mean(axis=1)
    return Sample(features, decoded.pixels, decoded.labels)


def _draw(decoded: DecodedImages) -> DecodedImages:
    most = min(MOST_IMAGES, max(1, _MOST_BYTES // decoded.pixels[:1].nbytes))
    return decoded.take(decoded.images.draw(most))
