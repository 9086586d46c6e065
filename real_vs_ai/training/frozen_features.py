"""Compute a frozen backbone's features once, so that its head learns from them in minutes.

    head, splits = head_and_features(model, splits, say=print)

The head shares its layers with the model: when it has learnt, the model has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import keras
import numpy as np

from real_vs_ai.dataset.decoded_images import DecodedImages
from real_vs_ai.reporting import progress
from real_vs_ai.training.networks.head import NORM_LAYER, POOL_LAYER, head_alone

# One batch of float32 pixels.
_BATCH_PIXELS = 2**21


def head_and_features(
    model: keras.Model, splits: Mapping[str, DecodedImages], *, say: Callable[[str], None]
) -> tuple[keras.Model, dict[str, DecodedImages]]:
    """The model's head on its own, and what it learns from.

    Args:
        model: Its backbone will not learn.
        splits: "train" and "validation" are used, with all their views.
        say: Takes one line for the user.

    Returns:
        The head, and the splits with features of shape (n_images, views, n_features), float32, in
        place of their pixels.

    Raises:
        InputError: The head cannot learn from stored features.
    """
    head = head_alone(model)
    body = keras.Model(model.inputs, model.get_layer(POOL_LAYER).output)
    found = {}
    for split in ("train", "validation"):
        images = splits[split]
        say(f"Computing the features of {len(images) * images.views:,} {split} inputs once ...")
        found[split] = dataclasses.replace(images, pixels=_features(body, images, split=split))
    _fix_standardisation(head, found["train"].inputs)
    return head, found


def _fix_standardisation(head: keras.Model, features: np.ndarray) -> None:
    """Let the head standardise by all training features: moving averages would come to it late."""
    norm = next((layer for layer in head.layers if layer.name == NORM_LAYER), None)
    if norm is not None:
        norm.set_weights([features.mean(axis=0), features.var(axis=0)])
        norm.trainable = False


def _features(body: keras.Model, images: DecodedImages, *, split: str) -> np.ndarray:
    inputs = images.inputs
    step = max(1, _BATCH_PIXELS // int(np.prod(inputs.shape[1:3])))
    features = np.empty((len(inputs), body.output.shape[-1]), np.float32)
    starts = range(0, len(inputs), step)
    for start in progress(starts, description=f"Features of {split}", unit="batch"):
        batch = np.asarray(inputs[start : start + step], dtype=np.float32)
        features[start : start + step] = body.predict_on_batch(batch)
    return features.reshape(len(images), images.views, -1)
