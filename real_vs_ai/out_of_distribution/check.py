"""Compare an image's size, its sharpness and the network's features with the training images'.

Every image is resized to the network's square. One much larger than the training images loses the
fine detail where generators leave their traces; one much smaller never had it. An image's scale is
the square root of its area in pixels: resizing reduces it by scale / image_size on average.

A model file may also hold classifiers of the traces that files leave in their pixels. The distance
between features is Mahalanobis' to the nearest class, all classes sharing one covariance (Lee et
al. 2018). The statistics are HDF5 arrays in the model file; Keras ignores them.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import h5py
import numpy as np

from real_vs_ai.core.files import atomic_write
from real_vs_ai.core.messages import Message
from real_vs_ai.out_of_distribution.pixel_classifier import (
    PixelClassifier,
    PixelNetwork,
    are_plain,
    grey_values,
)
from real_vs_ai.verdicts.verdict import Reason, ReasonCode

_GROUP = "real_vs_ai_out_of_distribution"
_FORMAT_VERSION = 1
# A few training images of odd sizes do not make such sizes in-distribution.
_QUANTILES = {"low": 0.01, "median": 0.5, "high": 0.99}
# Larger or smaller by more than this factor is out-of-distribution. On thumbnails of 64 pixels a
# model trained at 32 was measured to be right half of the time, and certain.
LARGEST_FACTOR = 1.5
# Images compared at a time: each takes (classes × features) floats.
_ROWS = 4096
T = TypeVar("T")

_PLAIN = Reason(ReasonCode.PLAIN, Message("reason.plain"))


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
    """

    layer: str
    means: np.ndarray
    whitening: np.ndarray
    largest_distance: float
    least_sharpness: float
    largest_sharpness: float
    classifier: PixelClassifier | None = None
    network: PixelNetwork | None = None

    def distances(self, features: np.ndarray) -> np.ndarray:
        """Distance of features (n, n_features) to the nearest class, (n,): about 1 if normal."""
        result = np.empty(len(features), np.float32)
        for start in range(0, len(features), _ROWS):
            rows = slice(start, start + _ROWS)
            whitened = features[rows].astype(np.float32) @ self.whitening
            offsets = whitened[:, None, :] - self.means[None]
            result[rows] = np.sqrt(np.square(offsets).mean(axis=2).min(axis=1))
        return result

    def compare(self, features: np.ndarray, pixels: np.ndarray) -> list[Reason | None]:
        """Why each image is out-of-distribution, None where it is in-distribution.

        Args:
            features: Shape (n, n_features).
            pixels: The network's input, shape (n, views, image_size, image_size, 3), uint8.
        """
        is_crops = pixels.ndim == 5 and pixels.shape[1] > 1
        plain = [is_crops and are_plain(views) for views in pixels]
        measured = (self.distances(features), sharpness(pixels), self._accepts(pixels))
        return [self._judge(*image) for image in zip(plain, *measured, strict=True)]

    def _accepts(self, pixels: np.ndarray) -> np.ndarray:
        """Whether the pixels pass the classifier and the network, shape (n,), bool."""
        accepted = np.ones(len(pixels), bool)
        views = pixels.reshape(-1, *pixels.shape[-3:])
        for part in filter(None, (self.classifier, self.network)):
            scores = part.scores(views).reshape(len(pixels), -1).mean(axis=1)
            accepted &= scores >= part.least_score
        return accepted

    def _judge(
        self, is_plain: bool, distance: float, sharp: float, accepted: bool
    ) -> Reason | None:
        if is_plain:
            return _PLAIN
        if sharp < self.least_sharpness:
            code, key = ReasonCode.SHARPNESS, "reason.blurred"
        elif sharp > self.largest_sharpness:
            code, key = ReasonCode.SHARPNESS, "reason.noisy"
        # "Not <=" and not ">", so that NaN is out-of-distribution.
        elif not distance <= self.largest_distance:
            code, key = ReasonCode.FEATURES, "reason.features"
        elif not accepted:
            code, key = ReasonCode.PIXELS, "reason.pixels"
        else:
            return None
        return Reason(code, Message(key))


# Parts of the check, each in a group of its own; and what one of several arrays is called.
_PARTS = {"classifier": PixelClassifier, "network": PixelNetwork}
_ONE_OF = {"kernels": "kernel", "biases": "bias"}


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
            # Arrays that do not fit together fail here.
            features = np.zeros((1, check.means.shape[1]))
            check.compare(features, np.zeros((1, 1, 16, 16, 3), np.uint8))
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


def _read_fields(kind: Callable[..., T], group: h5py.Group) -> T:
    """The dataclass that `_write_fields` put there; KeyError where something is missing."""
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cast(Any, kind)):
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
    crops: bool = False,
) -> Reason | None:
    """Why an image of this upright size, in pixels, is out-of-distribution, or None.

    Args:
        training_images: `ModelMetadata.training_images`; without sizes every size passes.
        reduced_from: Its width and height before the model reduced it.
        crops: Whether the model judges crops, and so reduces larger images first.
    """
    if size_distance(width, height, training_images) <= LARGEST_FACTOR:
        return None
    size = Message("size.pixels", width=width, height=height)
    if reduced_from not in (None, (width, height)):
        before = Message("size.pixels", width=reduced_from[0], height=reduced_from[1])
        size = Message("size.reduced", before=before, size=size)
    usual = scale_range(training_images)
    if crops and usual and width * height < usual[0] ** 2:
        return Reason(ReasonCode.SIZE, Message("reason.too_small", side=round(usual[0]), size=size))
    known = describe_sizes(training_images, crops=crops)
    return Reason(ReasonCode.SIZE, Message("reason.size", known=known, size=size))


def size_distance(width: int, height: int, training_images: Mapping[str, Any]) -> float:
    """How many times an image's scale lies beyond the training images', 1 where it is usual.

    Args:
        training_images: `ModelMetadata.training_images`; without sizes every size is usual.
    """
    known = scale_range(training_images)
    if known is None:
        return 1.0
    scale = math.sqrt(width * height)
    return max(1.0, known[0] / scale, scale / known[1])


def describe_sizes(training_images: Mapping[str, Any], *, crops: bool = False) -> str:
    """The training images' sizes for people: "about 32 × 32 pixels"; "" where not known.

    Args:
        crops: Whether the model judges crops, and so reduces larger images first.
    """
    known = scale_range(training_images)
    if known is None:
        return ""
    smallest, largest = map(round, known)
    if crops:
        return Message("size.at_least", side=smallest)
    if smallest == largest:
        return Message("size.about", side=largest)
    return Message("size.between", smallest=smallest, largest=largest)


def scale_range(training_images: Mapping[str, Any]) -> tuple[float, float] | None:
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
