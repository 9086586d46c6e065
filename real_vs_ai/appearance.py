"""How an image looks to a model, beside the images it learnt from: its features, its sharpness.

    appearance = fit_appearance(train, validation)
    write_appearance(Path("model.h5"), appearance)
    read_appearance(Path("model.h5")).compare(features, pixels)     # a DomainFit for each image

The features' distance is Mahalanobis' to the nearest class, all classes sharing one covariance (Lee
et al. 2018), on what the last layer but one gives. The statistics lie in the model file as HDF5
arrays, which Keras passes over.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from real_vs_ai.domain import FAMILIAR, DomainFit

_GROUP = "real_vs_ai_appearance"
_ARRAYS = ("means", "whitening")
_NUMBERS = ("largest_distance", "least_sharpness", "largest_sharpness")
_FORMAT_VERSION = 1
# Share of the validation images that each check may turn away: together less than one in a hundred.
_SHARE_BY_DISTANCE = 0.005
_SHARE_BY_SHARPNESS = 0.002
# Of a feature's variance, beside the average one's: keeps the covariance invertible.
_SMALLEST_SPREAD = 1e-6
# Of the images that are compared at a time: (images, classes, features) floats.
_ROWS = 4096


@dataclass(frozen=True)
class Seen:
    """Images as the network saw them.

    Attributes:
        features: Output of the layer, shape (n, n_features).
        pixels: The network's input, shape (n, views, image_size, image_size, 3), uint8.
        labels: Classes, shape (n,), int.
    """

    features: np.ndarray
    pixels: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Appearance:
    """What is usual among the images a model learnt from.

    Attributes:
        layer: Name of the layer whose output the features are.
        means: Of each class, whitened, shape (n_classes, n_features), float32.
        whitening: Features @ whitening have the identity as covariance within the classes, shape
            (n_features, n_features), float32.
        largest_distance: Features further away are unlike the training images'.
        least_sharpness: Images less sharp are unlike them too.
        largest_sharpness: As are sharper ones.
    """

    layer: str
    means: np.ndarray
    whitening: np.ndarray
    largest_distance: float
    least_sharpness: float
    largest_sharpness: float

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Distance to the nearest class, shape (n,), float32: 1 is usual where features are normal.

        Args:
            features: Shape (n, n_features).
        """
        result = np.empty(len(features), np.float32)
        for start in range(0, len(features), _ROWS):
            rows = slice(start, start + _ROWS)
            whitened = features[rows].astype(np.float32) @ self.whitening
            offsets = whitened[:, None, :] - self.means[None]
            result[rows] = np.sqrt(np.square(offsets).mean(axis=2).min(axis=1))
        return result

    def compare(self, features: np.ndarray, pixels: np.ndarray) -> list[DomainFit]:
        """Which images look unlike those the model learnt from.

        Args:
            features: Shape (n, n_features).
            pixels: The network's input, shape (n, image_size, image_size, 3), uint8.
        """
        measured = zip(self.distances(features), sharpness(pixels), strict=True)
        return [self._judge(float(distance), float(sharp)) for distance, sharp in measured]

    def _judge(self, distance: float, sharp: float) -> DomainFit:
        if sharp < self.least_sharpness:
            what = "It has less detail than"
        elif sharp > self.largest_sharpness:
            what = "It has harder edges or more noise than"
        # Not a number must not pass for near.
        elif not distance <= self.largest_distance:
            what = "To the network it looks unlike"
        else:
            return FAMILIAR
        return DomainFit(f"{what} the images this model learnt from.", outside=True)


def fit_appearance(train: Seen, validation: Seen, *, layer: str) -> Appearance:
    """Learn what is usual; what counts as unlike is set on images the network did not learn from.

    Args:
        train: Training images, some of every class.
        validation: Held back ones.
        layer: Name of the layer that the features come from.
    """
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
    fitted = Appearance(
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


def write_appearance(path: Path, appearance: Appearance) -> None:
    """Put the statistics into a model file; a killed process leaves the old file or the new one.

    Raises:
        OSError: The file is not HDF5, or cannot be written.
    """
    staging = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        shutil.copyfile(path, staging)
        with h5py.File(staging, "r+") as file:
            if _GROUP in file:
                del file[_GROUP]
            group = file.create_group(_GROUP)
            group.attrs["format_version"] = _FORMAT_VERSION
            group.attrs["layer"] = appearance.layer
            for name in _NUMBERS:
                group.attrs[name] = getattr(appearance, name)
            for name in _ARRAYS:
                group.create_dataset(name, data=getattr(appearance, name))
        staging.replace(path)
    finally:
        staging.unlink(missing_ok=True)


def read_appearance(path: Path) -> Appearance | None:
    """The statistics in a model file; None where there are none, or damaged ones.

    Raises:
        OSError: The file is not HDF5.
    """
    with h5py.File(path, "r") as file:
        group = file.get(_GROUP)
        if group is None or group.attrs.get("format_version") != _FORMAT_VERSION:
            return None
        try:
            arrays = {name: group[name][()].astype(np.float32) for name in _ARRAYS}
            numbers = {name: float(group.attrs[name]) for name in _NUMBERS}
            appearance = Appearance(str(group.attrs["layer"]), **arrays, **numbers)
        except (KeyError, ValueError, TypeError, AttributeError):
            return None
    n_features = appearance.whitening.shape[-1]
    fits = appearance.whitening.shape == (n_features, n_features) and appearance.means.ndim == 2
    return appearance if fits and appearance.means.shape[1] == n_features else None


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
    grey = pixels.astype(np.float32).mean(axis=3)
    centre = grey[:, 1:-1, 1:-1]
    neighbours = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return np.abs(4 * centre - neighbours).mean(axis=(1, 2))
