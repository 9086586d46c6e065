"""Compute a frozen backbone's features once, and keep them beside the decoded images.

A head then learns hundreds of epochs from them in minutes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from real_vs_ai.dataset.decoded_images import DecodedImages
from real_vs_ai.files import atomic_write
from real_vs_ai.reporting import progress

# One batch of float32 pixels.
_BATCH_PIXELS = 2**19


def store_features(
    splits: Mapping[str, DecodedImages],
    compute: Callable[[np.ndarray], np.ndarray],
    *,
    width: int,
    key: str,
    say: Callable[[str], None],
) -> dict[str, DecodedImages]:
    """The splits with features in place of their pixels, for all their views.

    Args:
        compute: Takes inputs of shape (n, side, side, 3), float32; returns (n, width).
        width: How many features an input has.
        key: Names the network; another one computes other features.

    Returns:
        "train" and "validation", with features of shape (n_images, views, width), float32.
    """
    found = {}
    for split in ("train", "validation"):
        images = splits[split]
        features = _read(images, width=width, key=key)
        if features is None:
            say(f"Computing the features of {len(images.inputs):,} {split} inputs once ...")
            features = _compute(images, compute, split=split)
            _keep(images, features, key=key)
        found[split] = dataclasses.replace(images, pixels=features)
    return found


def _compute(
    images: DecodedImages, compute: Callable[[np.ndarray], np.ndarray], *, split: str
) -> np.ndarray:
    inputs = images.inputs
    step = max(1, _BATCH_PIXELS // int(np.prod(inputs.shape[1:3])))
    starts = range(0, len(inputs), step)
    parts = [
        np.float32(compute(np.asarray(inputs[start : start + step], dtype=np.float32)))
        for start in progress(starts, description=f"Features of {split}", unit="batch")
    ]
    return np.concatenate(parts).reshape(len(images), images.views, -1)


def _keep(images: DecodedImages, features: np.ndarray, *, key: str) -> None:
    if images.cache is not None:
        path = images.cache.with_name(f"{images.cache.name}-features-{key}.npy")
        with atomic_write(path) as staging:
            np.save(staging, features)


def _read(images: DecodedImages, *, width: int, key: str) -> np.ndarray | None:
    """The features that an earlier run kept, or None."""
    if images.cache is None:
        return None
    try:
        features = np.load(images.cache.with_name(f"{images.cache.name}-features-{key}.npy"))
    except (OSError, ValueError):
        return None
    return features if features.shape == (len(images), images.views, width) else None
