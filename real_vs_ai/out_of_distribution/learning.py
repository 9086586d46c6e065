"""Fit a model's out-of-distribution check on its training and validation images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from real_vs_ai.config import POSITIVE_CLASS, SEED
from real_vs_ai.dataset.decoded_images import DecodedImages, decode_images
from real_vs_ai.dataset.labelled_images import LabelledImages, draw_from_each, source_weights
from real_vs_ai.errors import InputError
from real_vs_ai.model_input import ModelInput
from real_vs_ai.options import available_workers
from real_vs_ai.out_of_distribution.check import (
    OutOfDistributionCheck,
    PortraitClassifier,
    sharpness,
)

# Enough for a covariance of some hundred features, and for a quantile of one in two hundred.
MOST_IMAGES = 4000
_MOST_BYTES = 2**30
# Enough to learn a kind of picture from.
_MOST_OF_SOURCE = 300
_NEITHER, _OTHER, _PORTRAIT = range(3)
# Share of the held-back real images of other sources that may be taken for portraits.
_FALSE_SHARE = 0.02
_REGULARISATION = 0.02
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
    compute: Features,
    splits: Mapping[str, DecodedImages],
    *,
    layer: str,
    portraits: Sequence[str] = (),
    hold_out: Sequence[str] = (),
) -> OutOfDistributionCheck:
    """Fit the check on some thousand training and validation images as the network sees them.

    Args:
        compute: Gives the outputs of that layer of the model as it is saved.
        portraits: Sources of portraits, which the model shall refuse.
        hold_out: Sources that the classifier of portraits does not learn from.
    """
    samples = (_sample(compute, splits[split]) for split in ("train", "validation"))
    fitted = fit_check(*samples, layer=layer)
    if not portraits:
        return fitted
    return dataclasses.replace(
        fitted, portraits=_learn_portraits(compute, splits, names=portraits, hold_out=hold_out)
    )


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


def _learn_portraits(
    compute: Features,
    splits: Mapping[str, DecodedImages],
    *,
    names: Sequence[str],
    hold_out: Sequence[str],
) -> PortraitClassifier | None:
    """Learn portraits from their sources, and what is none from the other real images.

    Generated images of other sources teach nothing, since their galleries hold portraits too. None
    where there are no such images to learn from.
    """
    train, validation = splits["train"].images, splits["validation"].images
    kinds = _kinds(train, names)
    kinds[np.isin(_sources(train), list(hold_out))] = _NEITHER
    taught = np.flatnonzero(kinds != _NEITHER)
    taught = taught[draw_from_each(_sources(train)[taught], most=_MOST_OF_SOURCE, seed=SEED)]
    others = np.flatnonzero(_kinds(validation, names) == _OTHER)
    is_portrait = kinds[taught] == _PORTRAIT
    if not len(others) or not len(taught) or is_portrait.all() or not is_portrait.any():
        return None
    chosen, image_size = train.take(taught), splits["train"].pixels.shape[-2]
    return fit_portraits(
        _whole_features(compute, chosen, image_size=image_size),
        is_portrait,
        _sources(chosen),
        _whole_features(compute, validation.take(others), image_size=image_size),
    )


def _whole_features(compute: Features, images: LabelledImages, *, image_size: int) -> np.ndarray:
    """Features of the whole images, resized: (n, n_features); reads the files again.

    Raises:
        InputError: A file cannot be read.
    """
    whole = decode_images(
        images,
        model_input=ModelInput(image_size),
        workers=available_workers(),
        max_memory_bytes=_MOST_BYTES,
    )
    if whole.failures:
        path, reason = whole.failures[0]
        raise InputError(f"{images.root / path} can no longer be read: {reason}")
    return compute(whole.inputs)


def _kinds(images: LabelledImages, names: Sequence[str]) -> np.ndarray:
    """Whether each image is of a portraits' source, another real image, or neither."""
    fake = np.array(images.class_names)[images.labels] == POSITIVE_CLASS
    is_portrait = np.isin(_sources(images), list(names))
    return np.where(is_portrait, _PORTRAIT, np.where(fake, _NEITHER, _OTHER))


def _sources(images: LabelledImages) -> np.ndarray:
    return np.array(images.sources, dtype=str)


def fit_portraits(
    features: np.ndarray, portraits: np.ndarray, sources: np.ndarray, held_back: np.ndarray
) -> PortraitClassifier:
    """Fit the classifier, and a limit that few held-back images exceed.

    Sources count by the square root of their size, portraits as much as all others.

    Args:
        features: Of the whole images, shape (n_images, n_features).
        portraits: Which of them are portraits, shape (n_images,), bool: some are, and some are not.
        sources: The data set each came from, shape (n_images,).
        held_back: Features of other images that mostly are no portraits, shape (n, n_features).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(features)
    fitted = LogisticRegression(C=_REGULARISATION, max_iter=1000)
    fitted.fit(
        scaler.transform(features), portraits, sample_weight=source_weights(portraits, sources)
    )
    weights = (fitted.coef_[0] / scaler.scale_).astype(np.float32)
    limit = np.quantile(held_back.astype(np.float32) @ weights, 1 - _FALSE_SHARE)
    return PortraitClassifier(weights, -float(limit))
