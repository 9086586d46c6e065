"""Fit a model's out-of-distribution check on its training and validation images.

Thumbnails of other pictures, of the training images' size and stored like them, pass the check of
size, sharpness and features. Two classifiers of pixels learn to refuse them.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from real_vs_ai.core.config import SEED
from real_vs_ai.core.errors import InputError
from real_vs_ai.core.files import list_files
from real_vs_ai.core.images import ImageError, open_image, resize_image
from real_vs_ai.core.parallel import Pool, run_each
from real_vs_ai.core.reporting import format_table
from real_vs_ai.dataset.decoded_images import DecodedImages
from real_vs_ai.models.model_file import ModelMetadata
from real_vs_ai.out_of_distribution.check import OutOfDistributionCheck, sharpness
from real_vs_ai.out_of_distribution.pixel_classifier import PixelNetwork, fit_classifier
from real_vs_ai.perturbations.web_changes import recompress

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
_FILTERS = ("BOX", "BILINEAR", "HAMMING", "BICUBIC", "LANCZOS", "NEAREST")
# Pillow's own quality half of the time: thumbnails are often saved with it, and so is CIFAKE.
_USUAL_QUALITY = 75
_QUALITIES = (50, 95)
# Thumbnails of one picture in any way, and such as are stored like CIFAKE.
_PER_PICTURE = 3
_USUAL_PER_PICTURE = 4
_MOST_PICTURES = 4000
_PICTURES_OF_CHUNK = 16
_MOST_IMAGES = 20_000
# One picture in so many is held back, to state how many thumbnails still pass.
_HELD_BACK = 8
# The network's convolutions have these widths; the rest says how it is trained.
_WIDTHS = (24, 48, 48, 96, 128)
_PASSES = 6
_BATCH = 64
_LEARNING_RATE = 1.5e-3


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


def fit_on_thumbnails(
    check: OutOfDistributionCheck,
    splits: Mapping[str, DecodedImages],
    metadata: ModelMetadata,
    *,
    folders: Sequence[Path],
    workers: int,
) -> tuple[OutOfDistributionCheck, str]:
    """Fit both classifiers of pixels, and say what they do.

    Args:
        check: Of a model of whole images.
        splits: "train" and "validation", which sets the limits, as the network sees them.
        metadata: The model's.
        folders: Pictures of other kinds, in any arrangement.

    Returns:
        The check with the classifiers, and a table.

    Raises:
        InputError: There are too few pictures.
    """
    parts = (splits["train"], splits["validation"])
    train, validation = (part.take(part.images.draw(_MOST_IMAGES)).inputs for part in parts)
    scale = metadata.training_images["scale"]
    side = round(math.sqrt(scale["low"] * scale["high"]))
    others, held_back = make_thumbnails(
        folders, side=side, image_size=metadata.image_size, workers=workers
    )
    check = dataclasses.replace(
        check,
        classifier=fit_classifier(train, others, validation, seed=SEED),
        network=_fit_network(train, others, validation),
    )
    return check, _describe(check, validation, held_back)


def _describe(check: OutOfDistributionCheck, validation: np.ndarray, held_back: np.ndarray) -> str:
    tested = {"validation images": validation, "thumbnails of held-back pictures": held_back}
    rows = []
    for name, part in tested.items():
        passed = [fitted.accepts(part) for fitted in (check.classifier, check.network) if fitted]
        passed.append(passed[0] & passed[1])
        rows.append([f"{name} that pass", len(part), *(which.mean() for which in passed)])
    return format_table(
        ["", "images", "statistics", "network", "both"], rows, title="Classifiers of pixels"
    )


def _fit_network(train: np.ndarray, others: np.ndarray, validation: np.ndarray) -> PixelNetwork:
    """Train the network that tells training images from thumbnails stored alike."""
    import keras

    keras.utils.set_random_seed(SEED)
    layers = keras.layers
    inputs = x = layers.Input(train.shape[1:])
    x = layers.Rescaling(1 / 64, -2)(x)
    pairs = []
    for index, width in enumerate(_WIDTHS):
        step = 1 + index % 2
        convolution = layers.Conv2D(width, 3, step, padding="same", use_bias=False)
        pairs.append((convolution, layers.BatchNormalization()))
        x = layers.ReLU()(pairs[-1][1](convolution(x)))
    x = layers.Dropout(0.3)(layers.GlobalAveragePooling2D()(x))
    last = layers.Dense(1, activation="sigmoid")
    model = keras.Model(inputs, last(x))
    pixels = np.concatenate([train, others])
    # Mirrored, the blocks of the compression lie where they lay.
    pixels = np.concatenate([pixels, pixels[:, :, ::-1]])
    labels = np.tile(np.repeat([1.0, 0.0], [len(train), len(others)]), 2)
    steps = max(1, len(pixels) * _PASSES // _BATCH)
    rate = keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, steps)
    loss = keras.losses.BinaryCrossentropy(label_smoothing=0.02)
    model.compile(keras.optimizers.AdamW(rate, weight_decay=1e-3), loss)
    share = {0.0: len(train) / len(others), 1.0: 1.0}
    model.fit(pixels, labels, batch_size=_BATCH, epochs=_PASSES, verbose=0, class_weight=share)
    kernels, biases = zip(*(_fold(*pair) for pair in pairs), strict=True)
    network = PixelNetwork(kernels, biases, np.asarray(last.kernel)[:, 0], least_score=-np.inf)
    return network.with_limit(validation)


def _fold(convolution: Any, normalisation: Any) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and bias of a convolution that does the normalisation's work too."""
    mean, variance, gamma, beta = (
        np.asarray(getattr(normalisation, name))
        for name in ("moving_mean", "moving_variance", "gamma", "beta")
    )
    scale = gamma / np.sqrt(variance + normalisation.epsilon)
    return np.asarray(convolution.kernel) * scale, beta - mean * scale


def make_thumbnails(
    folders: Sequence[Path], *, side: int, image_size: int, workers: int
) -> tuple[np.ndarray, np.ndarray]:
    """Reduce pictures in many ways, as the network's input.

    Args:
        folders: Pictures in any arrangement; as many are drawn from each.
        side: Of most thumbnails, in pixels.
        image_size: Of the network's input, in pixels.

    Returns:
        Thumbnails to fit on and thumbnails of held-back pictures, each of shape (n, image_size,
        image_size, 3), uint8.

    Raises:
        InputError: There are too few pictures that can be read.
    """
    generator = np.random.default_rng(SEED)
    drawn = []
    for folder in folders:
        paths = list_files(folder)
        most = -(-_MOST_PICTURES // len(folders))
        drawn += [folder / paths[i] for i in generator.permutation(len(paths))[:most]]
    made = run_each(
        _reduce,
        drawn,
        side,
        image_size,
        size=_PICTURES_OF_CHUNK,
        pool=Pool(workers),
        description="Reducing",
        unit="picture",
        fewest=2 * _PICTURES_OF_CHUNK,
    )
    parts = [np.stack(thumbnails) for thumbnails in made if thumbnails]
    if len(parts) < 2 * _HELD_BACK:
        raise InputError(
            f"Expected at least {2 * _HELD_BACK} pictures that can be read in "
            f"{', '.join(map(str, folders))}, found {len(parts)}."
        )
    held_back = parts[::_HELD_BACK]
    others = [part for index, part in enumerate(parts) if index % _HELD_BACK]
    return np.concatenate(others), np.concatenate(held_back)


def draw_thumbnail(pixels: np.ndarray, *, side: int, generator: np.random.Generator) -> np.ndarray:
    """Reduce a picture in a way drawn at random: cut square or squeezed, and then stored.

    Args:
        pixels: Shape (height, width, 3), uint8.
        side: Of the thumbnail, in pixels.
        generator: Draws.
    """
    thumbnail = _shrink(pixels, side=side, generator=generator)
    way = generator.random()
    if way < 0.2:
        return thumbnail
    usual = generator.random() < 0.5
    quality = _USUAL_QUALITY if usual else int(generator.integers(*_QUALITIES))
    return recompress(thumbnail, file_format="JPEG" if way < 0.9 else "WEBP", quality=quality)


def _shrink(pixels: np.ndarray, *, side: int, generator: np.random.Generator) -> np.ndarray:
    """Reduce a picture with any filter, most cut square and some squeezed."""
    image = Image.fromarray(pixels)
    if generator.random() < 0.7:
        short = min(image.size)
        left, top = (int(generator.integers(side - short + 1)) for side in image.size)
        image = image.crop((left, top, left + short, top + short))
    method = Image.Resampling[_FILTERS[generator.integers(len(_FILTERS))]]
    return np.asarray(image.resize((side, side), method))


def _reduce(path: Path, side: int, image_size: int) -> list[np.ndarray]:
    """Some thumbnails of one picture as the network's input; none where it cannot be read."""
    try:
        pixels = open_image(path)
    except (ImageError, OSError):
        return []
    generator = np.random.default_rng(zlib.crc32(path.name.encode("utf-8", "surrogateescape")))
    # Most at the very size of the training images, where nothing else tells them.
    sides = [side] * (_PER_PICTURE - 1) + [int(side * generator.uniform(0.75, 1.4))]
    thumbnails = [draw_thumbnail(pixels, side=max(8, s), generator=generator) for s in sides]
    for _ in range(_USUAL_PER_PICTURE):
        small = _shrink(pixels, side=side, generator=generator)
        thumbnails.append(recompress(small, file_format="JPEG", quality=_USUAL_QUALITY))
    return [resize_image(thumbnail, image_size) for thumbnail in thumbnails]
