"""Fit a model's out-of-distribution check on its training and validation images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from real_vs_ai.dataset.decoded_images import DecodedImages
from real_vs_ai.out_of_distribution.check import OutOfDistributionCheck, sharpness

# Enough for a covariance of some hundred features, and for a quantile of one in two hundred.
MOST_IMAGES = 4000
_MOST_BYTES = 2**30
# Share of the validation images that each check may fail: together less than one in a hundred.
_SHARE_BY_DISTANCE = 0.005
_SHARE_BY_SHARPNESS = 0.002
# A feature's least variance, relative to the average: keeps the covariance invertible.
_SMALLEST_SPREAD = 1e-6
# Features of the network's inputs: (n, image_size, image_size, 3) in, (n, n_features) out.
Features = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Sample:
    """Images as the network saw them.

    Attributes:
        features: Output of the layer, shape (n, n_features).
        pixels: The network's input, shape (n, views, image_size, image_size, 3), uint8.
    """

    features: np.ndarray
    pixels: np.ndarray
    labels: np.ndarray


def learn_check(
    compute: Features, splits: Mapping[str, DecodedImages], *, layer: str
) -> OutOfDistributionCheck:
    """Fit the check on some thousand training and validation images as the network sees them.

    Args:
        compute: Gives the outputs of that layer of the model as it is saved.
    """
    samples = (_sample(compute, splits[split]) for split in ("train", "validation"))
    return fit_check(*samples, layer=layer)


def fit_check(train: Sample, validation: Sample, *, layer: str) -> OutOfDistributionCheck:
    """Fit the statistics on training images of every class, the limits on images held back."""
    from sklearn.covariance import ledoit_wolf

    features = train.features.astype(np.float64)
    classes = range(int(train.labels.max()) + 1)
    means = np.stack([features[train.labels == label].mean(axis=0) for label in classes])
    # Shrunk, since many features are (almost) always zero and their variance is too.
    covariance, _ = ledoit_wolf(features - means[train.labels], assume_centered=True)
    # Features that never change have no spread at all, and no inverse.
    floor = max(_SMALLEST_SPREAD * np.trace(covariance) / len(covariance), _SMALLEST_SPREAD**2)
    covariance = covariance + floor * np.eye(len(covariance))
    whitening = np.linalg.cholesky(np.linalg.inv(covariance))
    tails = (_SHARE_BY_SHARPNESS / 2, 1 - _SHARE_BY_SHARPNESS / 2)
    least, largest = np.quantile(sharpness(validation.pixels), tails)
    fitted = OutOfDistributionCheck(
        layer,
        (means @ whitening).astype(np.float32),
        whitening.astype(np.float32),
        largest_distance=np.inf,
        least_sharpness=float(least),
        largest_sharpness=float(largest),
    )
    distances = fitted.distances(validation.features)
    limit = float(np.quantile(distances, 1 - _SHARE_BY_DISTANCE))
    return dataclasses.replace(fitted, largest_distance=limit)


def _sample(compute: Features, decoded: DecodedImages) -> Sample:
    """Some thousand images as the network sees them, with the mean of their crops' features."""
    most = min(MOST_IMAGES, max(1, _MOST_BYTES // decoded.pixels[:1].nbytes))
    drawn = decoded.take(decoded.images.draw(most))
    features = compute(drawn.inputs).reshape(len(drawn), drawn.views, -1)
    return Sample(features.mean(axis=1), drawn.pixels, drawn.labels)
