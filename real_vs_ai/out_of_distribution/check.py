"""Compare an image's sharpness and the network's features with the training images'.

A model file may also hold classifiers of the traces that files leave in their pixels, and one that
finds portraits. The distance between features is Mahalanobis' to the nearest class, all classes
sharing one covariance (Lee et al. 2018). The statistics are HDF5 arrays in the model file; Keras
ignores them.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from real_vs_ai.files import atomic_write
from real_vs_ai.out_of_distribution.pixel_classifier import (
    PixelClassifier,
    PixelNetwork,
    are_plain,
    grey_values,
)
from real_vs_ai.out_of_distribution.portraits import PORTRAIT, PortraitClassifier
from real_vs_ai.verdict import Reason, ReasonCode

_GROUP = "real_vs_ai_out_of_distribution"
_FORMAT_VERSION = 1
# Parts of the check, each in a group of its own; and what one of several arrays is called.
_PARTS = {"classifier": PixelClassifier, "network": PixelNetwork, "portraits": PortraitClassifier}
_ONE_OF = {"kernels": "kernel", "biases": "bias"}
# Share of the validation images that each check may fail: together less than one in a hundred.
_SHARE_BY_DISTANCE = 0.005
_SHARE_BY_SHARPNESS = 0.002
# A feature's least variance, relative to the average: keeps the covariance invertible.
_SMALLEST_SPREAD = 1e-6
# Images compared at a time: each takes (classes × features) floats.
_ROWS = 4096
T = TypeVar("T")

_PLAIN = Reason(
    ReasonCode.PLAIN,
    "We take it for a document, a screenshot or a drawing, since most of it is flat or of one "
    "colour; that is a guess. This model learnt from pictures of other kinds.",
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
        if _GROUP in file:
            del file[_GROUP]
        group = file.create_group(_GROUP)
        group.attrs["format_version"] = _FORMAT_VERSION
        _write_fields(group, check)


def read_check(path: Path) -> OutOfDistributionCheck | None:
    """The statistics in a model file; None where there are none, or damaged ones.

    Files of Keras' other formats hold none.

    Raises:
        OSError: There is no such file.
    """
    if path.is_file() and not h5py.is_hdf5(path):
        return None
    with h5py.File(path, "r") as file:
        group = file.get(_GROUP)
        if group is None or group.attrs.get("format_version") != _FORMAT_VERSION:
            return None
        try:
            check = _read_fields(OutOfDistributionCheck, group)
            _try_out(check)
        except (KeyError, ValueError, TypeError, AttributeError, IndexError):
            return None
    return check


def _write_fields(group: h5py.Group, part: Any) -> None:
    """Put a dataclass into a group: arrays, numbers and texts, tuples of arrays, and parts."""
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if dataclasses.is_dataclass(value):
            _write_fields(group.create_group(field.name), value)
        elif isinstance(value, tuple):
            for index, array in enumerate(value):
                group.create_dataset(f"{_ONE_OF[field.name]}_{index}", data=array)
        elif isinstance(value, np.ndarray):
            group.create_dataset(field.name, data=value)
        elif value is not None:
            group.attrs[field.name] = value


def _read_fields(kind: type[T], group: h5py.Group) -> T:
    """The dataclass that `_write_fields` put there; KeyError where something is missing."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(kind):
        name = field.name
        if name in _PARTS:
            values[name] = _read_fields(_PARTS[name], group[name]) if name in group else None
        elif name in _ONE_OF:
            count = sum(key.startswith(f"{_ONE_OF[name]}_") for key in group)
            arrays = [group[f"{_ONE_OF[name]}_{index}"][()] for index in range(count)]
            values[name] = tuple(array.astype(np.float32) for array in arrays)
        elif name in group:
            values[name] = group[name][()].astype(np.float32)
        else:
            value = group.attrs[name]
            values[name] = value if isinstance(value, str) else float(value)
    return kind(**values)


def _try_out(check: OutOfDistributionCheck) -> None:
    """Refuse arrays that do not fit together, by a ValueError or IndexError."""
    n_features = check.means.shape[1]
    features, pixels = np.zeros((1, n_features)), np.zeros((1, 1, 16, 16, 3), np.uint8)
    check.compare(features, pixels, whole=features)


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
