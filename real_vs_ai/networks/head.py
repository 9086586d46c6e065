"""Build what follows a backbone: noise, pooling, a hidden layer, dropout and the softmax."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from real_vs_ai.core.errors import InputError

# The layer whose output is one vector for each image: everything before it can be computed once
# while only the head learns.
POOL_LAYER = "head_pool"
NORM_LAYER = "head_norm"
# By statistics of all stages.
_BY_STAGES = ("stages", "equal-stages")
# Standardised features are cut off here, so that odd images cannot outvote everything else.
_LARGEST_FEATURE = 6.0
_layers = keras.layers


def add_head(body: keras.Model, head: Any, *, stage_ends: Sequence[str], n_classes: int) -> Any:
    """The softmax over a backbone's feature maps, whose stages end with the layers named.

    Args:
        head: The fields `pooling`, `noise`, `dense_units`, `l2`, `dropout` and `seed` of
            `TrainingOptions`. Noise and dropout are there in training only.
    """
    if head.pooling in _BY_STAGES:
        x = _standardised(_stage_statistics(body, stage_ends))
        if head.pooling == "equal-stages":
            x = _weighed([body.get_layer(name).output.shape[-1] for name in stage_ends], x)
        x = _noise(x, head)
    else:
        x = _pooled(_noise(body.output, head), head.pooling)
    penalty = keras.regularizers.L2(head.l2) if head.l2 else None
    if head.dense_units:
        x = _layers.Dense(
            head.dense_units, activation="relu", kernel_regularizer=penalty, name="head_dense"
        )(x)
    if head.dropout:
        x = _layers.Dropout(head.dropout, seed=head.seed + 1, name="head_dropout")(x)
    # In float32, as small probabilities would be lost in half precision.
    return _layers.Dense(
        n_classes,
        activation="softmax",
        dtype="float32",
        kernel_regularizer=None if head.dense_units else penalty,
        name="head_probabilities",
    )(x)


def head_alone(model: keras.Model) -> keras.Model:
    """The layers after the pooling as a model of their own; when it has learnt, the model has.

    Raises:
        InputError: Noise comes before the pooling, so that the pooled features are not fixed.
    """
    names = [layer.name for layer in model.layers]
    position = names.index(POOL_LAYER)
    if "head_noise" in names[:position]:
        raise InputError(
            "Expected a head whose noise follows the pooling, to learn from stored features. Use "
            "the pooling stages, or --noise 0."
        )
    pooled = model.get_layer(POOL_LAYER).output
    inputs = keras.Input(pooled.shape[1:], name="features")
    x = inputs
    for layer in model.layers[position + 1 :]:
        x = layer(x)
    return keras.Model(inputs, x, name="head")


def _noise(x: Any, head: Any) -> Any:
    if not head.noise:
        return x
    return _layers.GaussianNoise(head.noise, seed=head.seed, name="head_noise")(x)


def _pooled(x: Any, pooling: str) -> Any:
    if pooling == "global-average":
        return _layers.GlobalAveragePooling2D(name=POOL_LAYER)(x)
    x = _layers.AveragePooling2D(min(7, *x.shape[1:3]), name=POOL_LAYER)(x)
    return _layers.Flatten(name="head_flatten")(x)


def _stage_statistics(body: keras.Model, stage_ends: Sequence[str]) -> Any:
    """Mean and standard deviation over each stage's maps, in one row, in plain Keras layers."""
    parts = []
    for name in stage_ends:
        maps = body.get_layer(name).output
        height, width, channels = maps.shape[1:]
        prefix = f"head_{name}"
        # In one column: Keras' HDF5 files keep the axis of a normalisation only if it is one.
        column = _layers.Reshape((height * width, 1, channels), name=f"{prefix}_column")(maps)
        mean = _layers.GlobalAveragePooling2D(keepdims=True, name=f"{prefix}_centre")(column)
        offsets = _layers.Subtract(name=f"{prefix}_offsets")([column, mean])
        # The length of the offsets is their product with themselves at length one.
        unit = _layers.UnitNormalization(axis=1, name=f"{prefix}_unit")(offsets)
        products = _layers.Multiply(name=f"{prefix}_products")([offsets, unit])
        length = _layers.GlobalAveragePooling2D(name=f"{prefix}_length")(products)
        scale = math.sqrt(height * width)
        parts.append(_layers.Flatten(name=f"{prefix}_mean")(mean))
        parts.append(_layers.Rescaling(scale, name=f"{prefix}_deviation")(length))
    return _layers.Concatenate(name=POOL_LAYER)(parts)


def _standardised(x: Any) -> Any:
    """Features with mean 0 and deviation 1 over the training images, cut off on both sides."""
    x = _layers.BatchNormalization(
        center=False, scale=False, epsilon=1e-6, momentum=0.98, name=NORM_LAYER
    )(x)
    # From -6 to 6, laid out from 0 to 12: the next layer's bias takes the shift up.
    x = _layers.Rescaling(1.0, offset=_LARGEST_FEATURE, name="head_shift")(x)
    x = _layers.ReLU(max_value=2 * _LARGEST_FEATURE, name="head_clip")(x)
    return _layers.Rescaling(1.0, offset=-_LARGEST_FEATURE, name="head_unshift")(x)


def _weighed(channels: Sequence[int], x: Any) -> Any:
    """The features of each stage times a number, so that those of all stages have the same power.

    Otherwise the last stages, with most maps, outvote the first ones, which see the finest traces.
    """
    factors = np.repeat([math.sqrt(max(channels) / n) for n in channels], [2 * n for n in channels])
    # A normalisation that only multiplies: HDF5's attributes are too small for so many numbers.
    layer = _layers.BatchNormalization(center=False, epsilon=0.0, name="head_weights")
    x = layer(x)
    layer.set_weights([factors, np.zeros_like(factors), np.ones_like(factors)])
    layer.trainable = False
    return x


def fix_standardisation(head: keras.Model, features: np.ndarray) -> None:
    """Let the head standardise by all training features: moving averages would come to it late.

    Args:
        head: From `head_alone`; one that does not standardise stays as it is.
        features: Shape (n, n_features).
    """
    norm = next((layer for layer in head.layers if layer.name == NORM_LAYER), None)
    if norm is not None:
        norm.set_weights([features.mean(axis=0), features.var(axis=0)])
        norm.trainable = False


def features_key(model: keras.Model) -> str:
    """Twelve hexadecimal digits for what a network computes up to its pooling."""
    digest = hashlib.sha256()
    body = keras.Model(model.inputs, model.get_layer(POOL_LAYER).output)
    # Strides and enlarging change what the same weights compute, and the maps' sizes.
    digest.update(repr([(layer.name, layer.output.shape) for layer in body.layers]).encode())
    for weights in body.get_weights():
        digest.update(np.ascontiguousarray(weights).tobytes())
    return digest.hexdigest()[:12]
