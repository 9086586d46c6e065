"""Tell out-of-distribution images from those like the training images: fit, store, compare.

The check compares the image's size, its sharpness and the network's features; a model file may also
hold a classifier of the traces that files leave in their pixels (see `pixel_classifier`).

Every image is resized to the network's square. One much larger than the training images loses the
fine detail where generators leave their traces; one much smaller never had it. An image's scale is
the square root of its area in pixels: resizing reduces it by scale / image_size on average.

The distance between features is Mahalanobis' to the nearest class, all classes sharing one
covariance (Lee et al. 2018). The statistics are HDF5 arrays in the model file; Keras ignores them.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from real_vs_ai.files import atomic_write
from real_vs_ai.pixel_classifier import PixelClassifier, PixelNetwork, are_plain, grey_values
from real_vs_ai.portraits import PORTRAIT, PortraitClassifier, read_portraits, write_portraits
from real_vs_ai.verdict import Reason, ReasonCode

# A few training images of odd sizes do not make such sizes in-distribution.
_QUANTILES = {"low": 0.01, "median": 0.5, "high": 0.99}
# Larger or smaller by more than this factor is out-of-distribution. On thumbnails of 64 pixels a
# model trained at 32 was measured to be right half of the time, and certain.
_LARGEST_FACTOR = 1.5

_GROUP = "real_vs_ai_out_of_distribution"
# As earlier releases called it.
_OLDER_GROUP = "real_vs_ai_appearance"
_ARRAYS = ("means", "whitening")
_NUMBERS = ("largest_distance", "least_sharpness", "largest_sharpness")
_CLASSIFIER = "classifier"
_CLASSIFIER_ARRAYS = ("steps", "weights")
_CLASSIFIER_NUMBERS = ("bias", "least_score")
_NETWORK = "network"
_PORTRAITS = "portraits"
_FORMAT_VERSION = 1
# Share of the validation images that each check may fail: together less than one in a hundred.
_SHARE_BY_DISTANCE = 0.005
_SHARE_BY_SHARPNESS = 0.002
# A feature's least variance, relative to the average: keeps the covariance invertible.
_SMALLEST_SPREAD = 1e-6
# Images compared at a time: each takes (classes × features) floats.
_ROWS = 4096


def summarise_training_images(
    widths: Sequence[int], heights: Sequence[int], sources: Sequence[str]
) -> dict[str, Any]:
    """Summarise the training images for `ModelMetadata.training_images`.

    Args:
        widths: Upright, in pixels, shape (n_images,).
        sources: The data set each image came from; "" where it is not known.

    Returns:
        `scale`: quantiles of the images' scales in pixels; `sources`: images of each source.
        {} without images.
    """
    areas = np.asarray(widths, dtype=np.float64) * np.asarray(heights, dtype=np.float64)
    if not areas.size:
        return {}
    quantiles = np.quantile(np.sqrt(areas), list(_QUANTILES.values()))
    scale = {
        name: round(float(value), 1) for name, value in zip(_QUANTILES, quantiles, strict=True)
    }
    counts = Counter(str(source) for source in sources if source)
    return {"scale": scale, "sources": dict(sorted(counts.items()))}


def compare_size(
    width: int,
    height: int,
    training_images: Mapping[str, Any],
    *,
    reduced_from: tuple[int, int] | None = None,
) -> Reason | None:
    """Why an image of this upright size, in pixels, is out-of-distribution, or None.

    Args:
        training_images: `ModelMetadata.training_images`; without sizes every size passes.
        reduced_from: Its width and height before the model reduced it.
    """
    if size_distance(width, height, training_images) <= _LARGEST_FACTOR:
        return None
    size = f"{width} × {height}"
    if reduced_from not in (None, (width, height)):
        size = f"{reduced_from[0]} × {reduced_from[1]}, reduced to {size}"
    return Reason(
        ReasonCode.SIZE,
        f"This model only knows pictures of {describe_sizes(training_images)}; yours is {size}, so "
        "any answer would be a guess.",
    )


def usual_scale(training_images: Mapping[str, Any]) -> float | None:
    """The middle of the training images' scales, or None where a model file does not tell them."""
    known = _scale_range(training_images)
    return math.sqrt(math.prod(known)) if known else None


def size_distance(width: int, height: int, training_images: Mapping[str, Any]) -> float:
    """How many times an image's scale lies beyond the training images', 1 where it is usual.

    Args:
        training_images: `ModelMetadata.training_images`; without sizes every size is usual.
    """
    known = _scale_range(training_images)
    if known is None:
        return 1.0
    scale = math.sqrt(width * height)
    return max(1.0, known[0] / scale, scale / known[1])


def describe_sizes(training_images: Mapping[str, Any], *, crops: bool = False) -> str:
    """The training images' sizes for people: "about 32 × 32 pixels"; "" where not known.

    Args:
        crops: Whether the model judges crops, and so reduces larger images first.
    """
    known = _scale_range(training_images)
    if known is None:
        return ""
    smallest, largest = (f"{round(scale)} × {round(scale)}" for scale in known)
    if crops:
        return f"about {smallest} pixels or more"
    if smallest == largest:
        return f"about {largest} pixels"
    return f"about {smallest} to {largest} pixels"


_PLAIN = Reason(
    ReasonCode.PLAIN,
    "It is probably a document, a screenshot or a drawing, since most of it is flat or of one "
    "colour. This model learnt from pictures of other kinds.",
)


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


@dataclass(frozen=True)
class OutOfDistributionCheck:
    """Statistics of the training images' features and sharpness, with limits.

    Attributes:
        layer: Name of the layer whose output the features are.
        means: Of each class, whitened, shape (n_classes, n_features), float32.
        whitening: Features @ whitening have the identity as covariance within the classes, shape
            (n_features, n_features), float32.
        largest_distance: Features further away are out-of-distribution.
        least_sharpness: Images less sharp are out-of-distribution.
        largest_sharpness: Sharper images are too.
        classifier: Tells the training images' pixels from others'; None where it was not fitted.
        network: Does so for images that were stored alike; None where it was not fitted.
        portraits: Finds portraits, which the model cannot judge; None where it judges them too.
    """

    layer: str
    means: np.ndarray
    whitening: np.ndarray
    largest_distance: float
    least_sharpness: float
    largest_sharpness: float
    classifier: PixelClassifier | None = None
    network: PixelNetwork | None = None
    portraits: PortraitClassifier | None = None

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Distance of features (n, n_features) to the nearest class, (n,): about 1 if normal."""
        result = np.empty(len(features), np.float32)
        for start in range(0, len(features), _ROWS):
            rows = slice(start, start + _ROWS)
            whitened = features[rows].astype(np.float32) @ self.whitening
            offsets = whitened[:, None, :] - self.means[None]
            result[rows] = np.sqrt(np.square(offsets).mean(axis=2).min(axis=1))
        return result

    def compare(
        self, features: np.ndarray, pixels: np.ndarray, *, whole: np.ndarray | None = None
    ) -> list[Reason | None]:
        """Why each image is out-of-distribution, None where it is in-distribution.

        Args:
            features: Shape (n, n_features).
            pixels: The network's input, shape (n, views, image_size, image_size, 3), uint8.
            whole: Features of the whole images, shape (n, n_features), to find portraits; None
                finds none.
        """
        found = self._compare_views(features, pixels)
        if whole is None or self.portraits is None:
            return found
        refused = self.portraits.find(whole)
        return [PORTRAIT if no else why for no, why in zip(refused, found, strict=True)]

    def _compare_views(self, features: np.ndarray, pixels: np.ndarray) -> list[Reason | None]:
        measured = zip(
            self.distances(features), sharpness(pixels), self._accepts(pixels), strict=True
        )
        found = [
            self._judge(float(distance), float(sharp), accepted=bool(accepted))
            for distance, sharp, accepted in measured
        ]
        if pixels.ndim < 5 or pixels.shape[1] == 1:
            return found
        plain = [are_plain(views) for views in pixels]
        return [
            _PLAIN if is_plain else reason for is_plain, reason in zip(plain, found, strict=True)
        ]

    def _accepts(self, pixels: np.ndarray) -> np.ndarray:
        """Whether the pixels pass the classifier and the network, shape (n,), bool."""
        accepted = np.ones(len(pixels), bool)
        views = pixels.reshape(-1, *pixels.shape[-3:])
        for part in filter(None, (self.classifier, self.network)):
            scores = part.scores(views).reshape(len(pixels), -1).mean(axis=1)
            accepted &= scores >= part.least_score
        return accepted

    def _judge(self, distance: float, sharp: float, *, accepted: bool) -> Reason | None:
        if sharp < self.least_sharpness:
            code, what = ReasonCode.SHARPNESS, "It has less detail than"
        elif sharp > self.largest_sharpness:
            code, what = ReasonCode.SHARPNESS, "It has harder edges or more noise than"
        # "Not <=" and not ">", so that NaN is out-of-distribution.
        elif not distance <= self.largest_distance:
            code, what = ReasonCode.FEATURES, "It looks different from"
        elif not accepted:
            code, what = ReasonCode.PIXELS, "Its finest detail and compression differ from"
        else:
            return None
        sentence = f"{what} the pictures this model learnt from, so any answer would be a guess."
        return Reason(code, sentence)


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


def write_check(path: Path, check: OutOfDistributionCheck) -> None:
    """Put the statistics into a model file; a killed process leaves the old file or the new one.

    Raises:
        OSError: The file is not HDF5, or cannot be written.
    """
    with atomic_write(path, edit=True) as staging, h5py.File(staging, "r+") as file:
        for name in (_GROUP, _OLDER_GROUP):
            if name in file:
                del file[name]
        group = file.create_group(_GROUP)
        group.attrs["format_version"] = _FORMAT_VERSION
        group.attrs["layer"] = check.layer
        for name in _NUMBERS:
            group.attrs[name] = getattr(check, name)
        for name in _ARRAYS:
            group.create_dataset(name, data=getattr(check, name))
        if check.classifier is not None:
            _write_classifier(group.create_group(_CLASSIFIER), check.classifier)
        if check.network is not None:
            _write_network(group.create_group(_NETWORK), check.network)
        if check.portraits is not None:
            write_portraits(group.create_group(_PORTRAITS), check.portraits)


def read_check(path: Path) -> OutOfDistributionCheck | None:
    """The statistics in a model file; None where there are none, or damaged ones.

    Raises:
        OSError: The file is not HDF5.
    """
    with h5py.File(path, "r") as file:
        group = file.get(_GROUP) or file.get(_OLDER_GROUP)
        if group is None or group.attrs.get("format_version") != _FORMAT_VERSION:
            return None
        try:
            arrays = {name: group[name][()].astype(np.float32) for name in _ARRAYS}
            numbers = {name: float(group.attrs[name]) for name in _NUMBERS}
            check = OutOfDistributionCheck(str(group.attrs["layer"]), **arrays, **numbers)
            if _CLASSIFIER in group:
                classifier = _read_classifier(group[_CLASSIFIER])
                check = dataclasses.replace(check, classifier=classifier)
            if _NETWORK in group:
                check = dataclasses.replace(check, network=_read_network(group[_NETWORK]))
            if _PORTRAITS in group:
                portraits = read_portraits(group[_PORTRAITS], n_features=len(arrays["whitening"]))
                check = dataclasses.replace(check, portraits=portraits)
        except (KeyError, ValueError, TypeError, AttributeError):
            return None
    if check.means.ndim != 2:
        return None
    n_features = check.means.shape[1]
    return check if check.whitening.shape == (n_features, n_features) else None


def _write_classifier(group: h5py.Group, classifier: PixelClassifier) -> None:
    for name in _CLASSIFIER_ARRAYS:
        group.create_dataset(name, data=getattr(classifier, name))
    for name in _CLASSIFIER_NUMBERS:
        group.attrs[name] = getattr(classifier, name)


def _read_classifier(group: h5py.Group) -> PixelClassifier:
    arrays = {name: group[name][()].astype(np.float32) for name in _CLASSIFIER_ARRAYS}
    numbers = {name: float(group.attrs[name]) for name in _CLASSIFIER_NUMBERS}
    classifier = PixelClassifier(**arrays, **numbers)
    # Refuses arrays that do not fit together.
    classifier.scores(np.zeros((1, 16, 16, 3), np.uint8))
    return classifier


def _write_network(group: h5py.Group, network: PixelNetwork) -> None:
    group.attrs["least_score"] = network.least_score
    group.create_dataset("weights", data=network.weights)
    for index, (kernel, bias) in enumerate(zip(network.kernels, network.biases, strict=True)):
        group.create_dataset(f"kernel_{index}", data=kernel)
        group.create_dataset(f"bias_{index}", data=bias)


def _read_network(group: h5py.Group) -> PixelNetwork:
    count = sum(name.startswith("kernel_") for name in group)
    kernels, biases = (
        tuple(group[f"{name}_{index}"][()].astype(np.float32) for index in range(count))
        for name in ("kernel", "bias")
    )
    weights, limit = group["weights"][()].astype(np.float32), float(group.attrs["least_score"])
    network = PixelNetwork(kernels, biases, weights, limit)
    # Refuses arrays that do not fit together.
    network.scores(np.zeros((1, 16, 16, 3), np.uint8))
    return network


def sharpness(pixels: np.ndarray) -> np.ndarray:
    """Mean absolute Laplacian of the images' grey values: what detail they have, 0 to 1020.

    Args:
        pixels: Shape (n, height, width, 3), uint8, at least 3 pixels high and wide; or (n, views,
            height, width, 3), for the mean over an image's views.

    Returns:
        Shape (n,), float32.
    """
    if pixels.ndim == 5:
        views = range(pixels.shape[1])
        return np.mean([sharpness(pixels[:, view]) for view in views], axis=0)
    grey = grey_values(pixels)
    centre = grey[:, 1:-1, 1:-1]
    neighbours = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return np.abs(4 * centre - neighbours).mean(axis=(1, 2))


def _scale_range(training_images: Mapping[str, Any]) -> tuple[float, float] | None:
    """The smallest and the largest usual scale, or None where a model file does not tell them."""
    scale = training_images.get("scale") if isinstance(training_images, Mapping) else None
    if not isinstance(scale, Mapping):
        return None
    try:
        low, high = float(scale["low"]), float(scale["high"])
    except (KeyError, TypeError, ValueError):
        return None
    # Do not trust values from the file; NaN fails these comparisons.
    return (low, high) if 0 < low <= high < math.inf else None
