"""Fit a model's out-of-distribution check, and count which labelled images fail it.

check = learn_check(scorer, splits, layer=layer)
write_check(run.model, check)
share_out_of_distribution(scorer, metadata=metadata, check=check, decoded=splits["test"])
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from real_vs_ai.dataset.decoded_images import DecodedImages
from real_vs_ai.evaluation.scorer import Scorer
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.out_of_distribution import OutOfDistributionCheck, Sample, compare_size, fit_check

# Enough for a covariance of some hundred features, and for a quantile of one in two hundred.
MOST_IMAGES = 4000
_MOST_BYTES = 2**30
# A covariance of more features would weigh more than the network.
_WIDEST = 1280


def learn_check(
    scorer: Scorer, splits: Mapping[str, DecodedImages], *, layer: str
) -> OutOfDistributionCheck:
    """Fit the check on the training and validation images as the network sees them.

    Args:
        scorer: Of the model as it is saved, with that layer's features.
        splits: "train" and "validation" are used, some thousand images of each.
        layer: Name of the layer that the features come from.
    """
    validation = splits["validation"]
    # The report asks about every validation image anyway, but about no training image.
    train = splits["train"].take(_draw(splits["train"]))
    samples = [
        _sample(scorer, train, np.arange(len(train))),
        _sample(scorer, validation, _draw(validation)),
    ]
    return fit_check(*samples, layer=layer)


def share_out_of_distribution(
    scorer: Scorer,
    *,
    metadata: ModelMetadata,
    check: OutOfDistributionCheck | None,
    decoded: DecodedImages,
) -> dict[str, Any]:
    """Count the out-of-distribution images among labelled ones.

    Args:
        scorer: Of the model, with the features that the check compares.
        metadata: Its `training_images` tell the training images' sizes.
        check: From the model file, or None.
        decoded: The images; some thousand of them are drawn.

    Returns:
        "n" images, and the "share" of them that is out-of-distribution.
    """
    drawn = _draw(decoded)
    found = find_out_of_distribution(
        scorer, metadata=metadata, check=check, decoded=decoded, positions=drawn
    )
    return {"n": len(drawn), "share": float(found.mean())}


def find_out_of_distribution(
    scorer: Scorer,
    *,
    metadata: ModelMetadata,
    check: OutOfDistributionCheck | None,
    decoded: DecodedImages,
    positions: np.ndarray,
) -> np.ndarray:
    """Find the out-of-distribution images among labelled ones.

    Args:
        scorer: Of the model, with the features that the check compares.
        metadata: Its `training_images` tell the training images' sizes.
        check: From the model file, or None.
        decoded: The images.
        positions: Which of them to look at, shape (n,).

    Returns:
        Shape (n,), bool.
    """
    seen = metadata.model_input.seen_sizes(decoded.widths[positions], decoded.heights[positions])
    sizes = zip(*(sides.tolist() for sides in seen), strict=True)
    reasons = [compare_size(*size, metadata.training_images) for size in sizes]
    found = np.array([reason is not None for reason in reasons])
    if check is not None:
        sample = _sample(scorer, decoded, positions)
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


def _sample(scorer: Scorer, decoded: DecodedImages, positions: np.ndarray) -> Sample:
    """What the network sees of some images: the mean of their crops' features, and their crops."""
    _, features = scorer.outputs(decoded, description=None)
    drawn = decoded.take(positions)
    return Sample(features[positions].mean(axis=1), drawn.pixels, drawn.labels)


def _draw(decoded: DecodedImages) -> np.ndarray:
    """Positions of some thousand images."""
    most = min(MOST_IMAGES, max(1, _MOST_BYTES // decoded.pixels[:1].nbytes))
    return decoded.images.draw(most)
