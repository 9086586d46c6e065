"""Compute a frozen backbone's features once, so that its head learns from them in minutes.

    head, splits = head_and_features(model, splits, say=print)

The head shares its layers with the model: when it has learnt, the model has.
"""

from __future__ import annotations

import dataclasses
import hashlib
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from real_vs_ai.dataset.decoded_images import DecodedImages
from real_vs_ai.evaluation.scorer import Network, open_network
from real_vs_ai.files import atomic_write
from real_vs_ai.keras_models import save_model
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.reporting import progress
from real_vs_ai.training.networks.head import NORM_LAYER, POOL_LAYER, head_alone
from real_vs_ai.training.time_budget import TimeBudget

# One batch of float32 pixels.
_BATCH_PIXELS = 2**19


def head_and_features(
    model: keras.Model,
    splits: Mapping[str, DecodedImages],
    *,
    say: Callable[[str], None],
    budget: TimeBudget | None,
    hold_out: Sequence[str] = (),
) -> tuple[keras.Model, dict[str, DecodedImages]]:
    """The model's head on its own, and what it learns from.

    Args:
        model: Its backbone will not learn.
        splits: "train" and "validation" are used, with all their views.
        budget: Learns what the network takes to judge an image.
        hold_out: The head does not learn from the training images of these sources.

    Returns:
        The head, and the splits with features of shape (n_images, views, n_features), float32, in
        place of their pixels.

    Raises:
        InputError: The head cannot learn from stored features.
    """
    head = head_alone(model)
    network = _open(model, splits["train"])
    found, started, count = {}, time.perf_counter(), 0
    for split in ("train", "validation"):
        images = splits[split]
        features = _read_features(model, images)
        if features is None:
            say(f"Computing the features of {len(images) * images.views:,} {split} inputs once ...")
            features = _features(network, images, n_classes=model.output_shape[-1], split=split)
            _keep_features(model, images, features)
            count += len(images.inputs)
        found[split] = dataclasses.replace(images, pixels=features)
    if budget and count:
        budget.image_seconds = (time.perf_counter() - started) / count
    if hold_out:
        found["train"] = found["train"].take(found["train"].images.positions(hold_out)[1])
    _fix_standardisation(head, found["train"].inputs)
    return head, found


def _fix_standardisation(head: keras.Model, features: np.ndarray) -> None:
    """Let the head standardise by all training features: moving averages would come to it late."""
    norm = next((layer for layer in head.layers if layer.name == NORM_LAYER), None)
    if norm is not None:
        norm.set_weights([features.mean(axis=0), features.var(axis=0)])
        norm.trainable = False


def _open(model: keras.Model, images: DecodedImages) -> Network:
    """The network with the pooled features after its probabilities."""
    metadata = ModelMetadata(
        class_names=images.images.class_names, image_size=model.input_shape[1], backbone=model.name
    )
    with tempfile.TemporaryDirectory(prefix="real-vs-ai-") as folder:
        path = Path(folder) / "model.h5"
        save_model(model, path, metadata=metadata)
        return open_network(model, path, layer=POOL_LAYER)


def _features(network: Network, images: DecodedImages, *, n_classes: int, split: str) -> np.ndarray:
    inputs = images.inputs
    step = max(1, _BATCH_PIXELS // int(np.prod(inputs.shape[1:3])))
    parts = []
    starts = range(0, len(inputs), step)
    for start in progress(starts, description=f"Features of {split}", unit="batch"):
        batch = np.asarray(inputs[start : start + step], dtype=np.float32)
        parts.append(np.float32(network.predict_on_batch(batch)[:, n_classes:]))
    return np.concatenate(parts).reshape(len(images), images.views, -1)


def _keep_features(model: keras.Model, images: DecodedImages, features: np.ndarray) -> None:
    """Keep them next to the decoded images, where those are kept."""
    if images.cache is not None:
        with atomic_write(_features_path(model, images.cache)) as staging:
            np.save(staging, features)


def _read_features(model: keras.Model, images: DecodedImages) -> np.ndarray | None:
    """The features that an earlier run kept, or None."""
    if images.cache is None:
        return None
    try:
        features = np.load(_features_path(model, images.cache))
    except (OSError, ValueError):
        return None
    width = model.get_layer(POOL_LAYER).output.shape[-1]
    return features if features.shape == (len(images), images.views, width) else None


def _features_path(model: keras.Model, cache: Path) -> Path:
    digest = hashlib.sha256()
    body = keras.Model(model.inputs, model.get_layer(POOL_LAYER).output)
    for weights in body.get_weights():
        digest.update(np.ascontiguousarray(weights).tobytes())
    return cache.with_name(f"{cache.name}-features-{digest.hexdigest()[:12]}.npy")
