"""Build batches from decoded images with tf.data: shuffled, degraded, mixed, augmented, labelled.

Every batch depends on the seed and the step alone, so that a resumed run sees what an undisturbed
one would have seen. Both classes are degraded alike, so that a network cannot take compression for
a class, and learns what survives it.
"""

from __future__ import annotations

import functools
import math
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import tensorflow as tf

from real_vs_ai.dataset.decoded_images import DecodedImages
from real_vs_ai.perturbations.histories import degrade
from real_vs_ai.perturbations.warps import STANDARD_RANGES, AffineRanges, affine_rows
from real_vs_ai.training.devices import Hosts

# Batches made ahead while the network learns.
_PREFETCH = 4


AUGMENTATIONS: dict[str, AffineRanges | None] = {
    "standard": STANDARD_RANGES,
    "flip": AffineRanges(rotation=0.0, shift=0.0, shear=0.0, zoom=0.0, flip=True),
    "light": AffineRanges(rotation=0.0, shift=0.1, shear=0.0, zoom=0.0, flip=True),
    # Keras' own generator warps the pixels: see `warp_by_keras`.
    "keras": None,
    "none": None,
}


def training_batches(
    decoded: DecodedImages,
    *,
    batch_size: int,
    steps_per_epoch: int,
    first_step: int,
    seed: int,
    augmentation: str,
    degrade: float,
    hosts: Hosts,
    cutmix: float = 0.0,
    weights: np.ndarray | None = None,
    draw_by: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Endless batches of (images, labels) from a step on.

    Args:
        batch_size: Images in a batch of all processes together, at most as many as there are.
        steps_per_epoch: Steps after which the images are shuffled; more take them once more.
        degrade: Share of the images that are degraded first; see `degrade_images`.
        cutmix: Share of the pairs of neighbours that exchange a patch; see `exchange_patches`.
        weights: How much each image counts in the loss, shape (n_images,); None for all alike.
        draw_by: Draw each image as often as this says, shape (n_images,); None takes all in turn.
        hosts: This process makes its part of every batch.

    Returns:
        Images of shape (batch, image_size, image_size, 3), float32, 0 to 255 (or features, where
        the decoded images hold these); labels of shape (batch, n_classes), float32, rows summing
        to 1, one-hot without `cutmix`; and the images' weights, if there are any.
    """
    one_hot = np.eye(len(decoded.images.class_names), dtype=np.float32)
    size, ranges = decoded.pixels.shape[2], AUGMENTATIONS[augmentation]
    part, rows = batch_size // hosts.count, hosts.rows(batch_size)
    counts = _weights(decoded, weights)
    change = functools.partial(
        _change, degrade=degrade, cutmix=cutmix, by_keras=augmentation == "keras"
    )

    def load(number: np.int64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        step = int(number)
        order = {"batch_size": batch_size, "steps_per_epoch": steps_per_epoch, "seed": seed}
        indices = batch_indices(len(decoded), step=step, draw_by=draw_by, **order)[rows]
        # Where draws repeat images within an epoch, each step shows other views of them.
        turn = step // steps_per_epoch if draw_by is None else step
        pixels = decoded.view_of_each(_first_views(len(decoded), seed)[indices] + turn, indices)
        labels, draws = one_hot[decoded.labels[indices]], (batch_size, (seed, step))
        pixels, labels = change(pixels, labels, draws, rows)
        return pixels, labels, counts[indices]

    def prepare(step: tf.Tensor) -> tuple[tf.Tensor, ...]:
        pixels, labels, weight = _call(load, step, images=part, decoded=decoded)
        images = tf.cast(pixels, tf.float32)
        if ranges is not None:
            changes = draw_changes(batch_size, ranges, size=size, seed=[seed, step])
            images = warp_images(images, changes[rows])
        return (images, labels) if weights is None else (images, labels, weight)

    steps = tf.data.Dataset.counter(first_step)
    return steps.map(prepare, num_parallel_calls=2).prefetch(_PREFETCH)


def _change(
    pixels: np.ndarray,
    labels: np.ndarray,
    draws: tuple[int, tuple[int, int]],
    rows: slice,
    *,
    degrade: float,
    cutmix: float,
    by_keras: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Degrade, mix and warp this process' rows of a batch, by the batch's size and its seed."""
    if degrade:
        pixels = degrade_images(pixels, draw_degradations(*draws)[rows], share=degrade)
    if cutmix:
        patches = draw_patches(*draws)[rows]
        pixels, labels = exchange_patches(pixels, labels, patches, share=cutmix)
    if by_keras:
        pixels = warp_by_keras(pixels, seeds=draw_seeds(*draws)[rows])
    return pixels, labels


def evaluation_batches(
    decoded: DecodedImages, *, batch_size: int, hosts: Hosts, weights: np.ndarray | None = None
) -> tf.data.Dataset:
    """All images once, in order: (images, one-hot labels) as `training_batches` gives them.

    Of an image that has several crops, one is given. The images' weights come third, if there are
    any. Shares of several processes are equally large: a few images may come twice to make them so.
    """
    one_hot = np.eye(len(decoded.images.class_names), dtype=np.float32)
    counts = _weights(decoded, weights)
    share = -(-len(decoded) // hosts.count)
    indices = np.arange(hosts.index * share, (hosts.index + 1) * share) % len(decoded)

    def load(batch: np.int64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows = indices[batch * batch_size : (batch + 1) * batch_size]
        # Each image gives another of its crops: all places count, at the price of one.
        return decoded.view_of_each(rows, rows), one_hot[decoded.labels[rows]], counts[rows]

    def prepare(batch: tf.Tensor) -> tuple[tf.Tensor, ...]:
        pixels, labels, weight = _call(load, batch, images=None, decoded=decoded)
        pair = (tf.cast(pixels, tf.float32), labels)
        return pair if weights is None else (*pair, weight)

    batches = tf.data.Dataset.range(-(-share // batch_size))
    return batches.map(prepare).prefetch(_PREFETCH)


def _call(
    load: Callable[[np.int64], tuple[np.ndarray, np.ndarray, np.ndarray]],
    number: tf.Tensor,
    *,
    images: int | None,
    decoded: DecodedImages,
) -> list[tf.Tensor]:
    """Pixels, labels and weights of a batch from a Python function.

    `images` is their number, or None for any; `decoded` tells the shape and type of the pixels.

    Not by `Dataset.from_generator`: it makes the C library give freed memory back to the system
    at once (M_TRIM_THRESHOLD of 128 KiB), for the network's tensors too. Every step then takes
    four times the page faults, and 15 % more CPU time.
    """
    types = (tf.as_dtype(decoded.pixels.dtype), tf.float32, tf.float32)
    n_classes = len(decoded.images.class_names)
    shapes = ((images, *decoded.pixels.shape[2:]), (images, n_classes), (images,))
    found = tf.numpy_function(load, [number], types)
    return [tf.ensure_shape(part, shape) for part, shape in zip(found, shapes, strict=True)]


def _weights(decoded: DecodedImages, weights: np.ndarray | None) -> np.ndarray:
    return np.ones(len(decoded), np.float32) if weights is None else weights.astype(np.float32)


def batch_indices(
    n_images: int,
    *,
    batch_size: int,
    steps_per_epoch: int,
    step: int,
    seed: int,
    draw_by: np.ndarray | None = None,
) -> np.ndarray:
    """Which images a step learns from, shape (batch_size,), int64.

    Within an epoch no image comes twice before every whole batch of the others has come; the
    few that do not fill a batch wait for the next order. With `draw_by`, shape (n_images,), images
    are drawn by these weights with replacement.
    """
    if draw_by is not None:
        # Another stream than those of orders, degradations and patches.
        generator = np.random.default_rng((seed, step, 2))
        return generator.choice(n_images, size=batch_size, p=draw_by / draw_by.sum())
    epoch, step_in_epoch = divmod(step, steps_per_epoch)
    batches = n_images // batch_size
    passes, batch = divmod(step_in_epoch, batches)
    order = _order(n_images, seed, epoch, passes)
    return order[batch * batch_size : (batch + 1) * batch_size]


@functools.lru_cache(maxsize=2)
def _order(n_images: int, seed: int, epoch: int, passes: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch, passes)).permutation(n_images)


@functools.lru_cache(maxsize=2)
def _first_views(n_images: int, seed: int) -> np.ndarray:
    """Which view of each image the first epoch learns from; each later epoch takes the next."""
    return np.random.default_rng((seed, 1)).integers(0, 2**31, size=n_images)


def draw_changes(count: int, ranges: AffineRanges, *, size: int, seed: list[Any]) -> tf.Tensor:
    """A random warp for each of `count` images of this side; the seed is two integers.

    Returns:
        Projective transforms from output to input pixels, shape (count, 8), float32.
    """
    draws = tf.random.stateless_uniform((7, count), seed=seed, minval=-1.0, maxval=1.0)
    rows = affine_rows(ranges, width=size, height=size, draws=tf.unstack(draws), xp=tf)
    zeros = tf.zeros(count)
    return tf.stack([*rows[0], *rows[1], zeros, zeros], axis=1)


def warp_images(images: tf.Tensor, transforms: tf.Tensor) -> tf.Tensor:
    """Change every image in one bilinear resampling, edges repeated; TensorFlow has no bicubic.

    Args:
        images: Shape (batch, size, size, 3), float32, as the result.
        transforms: What `draw_changes` gave, shape (batch, 8).
    """
    size = images.shape[1]
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms,
        output_shape=tf.constant([size, size]),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="NEAREST",
    )


def draw_seeds(count: int, seed: Sequence[int]) -> np.ndarray:
    """A seed for each of `count` images, shape (count,), int64."""
    # Another stream than those of degradations, patches and draws.
    return np.random.default_rng((*seed, 3)).integers(0, 2**31, count)


def warp_by_keras(pixels: np.ndarray, *, seeds: np.ndarray) -> np.ndarray:
    """Change every image as Keras' ImageDataGenerator does, by `STANDARD_RANGES`.

    Args:
        pixels: Shape (n, size, size, 3), uint8, as the result; not changed.
        seeds: Of each image's change, shape (n,).
    """
    generator = _keras_generator()
    # The generator seeds all of NumPy: two threads would draw from each other's seeds.
    with _drawing:
        drawn = [generator.get_random_transform(pixels.shape[1:], int(seed)) for seed in seeds]
    changed = [
        generator.apply_transform(image.astype(np.float32), change)
        for image, change in zip(pixels, drawn, strict=True)
    ]
    return np.clip(np.rint(changed), 0, 255).astype(np.uint8)


_drawing = threading.Lock()


@cache
def _keras_generator() -> Any:
    ranges = STANDARD_RANGES
    return tf.keras.preprocessing.image.ImageDataGenerator(
        rotation_range=ranges.rotation,
        width_shift_range=ranges.shift,
        height_shift_range=ranges.shift,
        # In degrees, where the ranges have a tangent.
        shear_range=math.degrees(math.atan(ranges.shear)),
        zoom_range=ranges.zoom,
        horizontal_flip=ranges.flip,
        fill_mode="nearest",
    )


# Below this a batch is done before threads have begun.
_FEWEST_FOR_THREADS = 16


def draw_degradations(count: int, seed: Sequence[int]) -> np.ndarray:
    """What `degrade_images` does to each of `count` images, shape (count, 7), from 0 to 1."""
    return np.random.default_rng(tuple(seed)).random((count, 7))


def degrade_images(pixels: np.ndarray, draws: np.ndarray, *, share: float) -> np.ndarray:
    """Degrade some images as `perturbations.degrade` does; the others stay as they are.

    Args:
        pixels: Shape (n, side, side, 3), uint8, as the result; not changed.
        draws: Shape (n, 7), from `draw_degradations`.
    """
    chosen = np.flatnonzero(draws[:, 0] < share)
    degraded = pixels.copy()
    at_once = map if len(chosen) < _FEWEST_FOR_THREADS else _threads().map
    results = at_once(degrade, pixels[chosen], draws[chosen])
    for index, result in zip(chosen, results, strict=True):
        degraded[index] = result
    return degraded


def draw_patches(count: int, seed: Sequence[int]) -> np.ndarray:
    """What `exchange_patches` does to each of `count` images, shape (count, 4), from 0 to 1."""
    # Another stream than that of `draw_degradations`.
    return np.random.default_rng((*seed, 1)).random((count, 4))


def exchange_patches(
    pixels: np.ndarray, labels: np.ndarray, draws: np.ndarray, *, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Let some pairs of neighbours exchange a square, and the same share of their labels: CutMix.

    The network then cannot learn images by heart (Yun et al. 2019). The first image pairs with
    the second, the third with the fourth; the last of an odd number stays as it is. The patch's
    area is drawn evenly from none to the whole image.

    Args:
        pixels: Shape (n, side, side, 3), as the first result; not changed.
        labels: Shape (n, n_classes), rows summing to 1, as the second result; not changed.
        draws: Shape (n, 4), from `draw_patches`; those of a pair's first image count.
        share: Of the pairs that exchange a patch.
    """
    pixels, labels = pixels.copy(), labels.copy()
    side = pixels.shape[1]
    for first in range(0, len(pixels) - 1, 2):
        chance, area, top, left = draws[first]
        if chance >= share:
            continue
        size = round(side * math.sqrt(area))
        row, column = (int(place * (side - size + 1)) for place in (top, left))
        pair = slice(first, first + 2)
        patches = pixels[pair, row : row + size, column : column + size]
        patches[:] = patches[::-1].copy()
        moved = (size / side) ** 2
        labels[pair] = (1 - moved) * labels[pair] + moved * labels[pair][::-1]
    return pixels, labels


@cache
def _threads() -> ThreadPoolExecutor:
    # Pillow's codecs run without Python's lock.
    return ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1))
