"""Options in, a Keras model out: preprocessing, backbone and head, one flat graph of plain layers.

    model = build_model(
        backbone="resnet101", n_classes=2, image_size=224, weights="imagenet", head=head,
        stem_stride=4, batch_norm_momentum=0.99, class_names=("Fake", "Real"),
    )

The input is RGB, 0 to 255; the output is softmax in the order of the class names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from real_vs_ai.errors import InputError
from real_vs_ai.training.backbones import BACKBONES, backbone_layers, start_as_identity
from real_vs_ai.training.weights import load_weights

# Mean of ImageNet's training images, red, green, blue (Simonyan & Zisserman 2014); "caffe mode".
_IMAGENET_MEAN = (123.68, 116.779, 103.939)
# Strides of the stem's convolution and its pooling, by the product of the two.
_STEM_STRIDES = {4: (2, 2), 2: (1, 2), 1: (1, 1)}


@dataclass(frozen=True)
class HeadOptions:
    """What follows the backbone.

    Attributes:
        noise: Standard deviation of the Gaussian noise on the features, in training only.
        pooling: "global-average", or "average-flatten": 7 × 7 averages, laid out in a row.
        dense_units: Units of the hidden layer; 0 leaves it out.
        l2: Weight of the hidden layer's L2 penalty.
        dropout: Share of the hidden units left out, in training only.
    """

    noise: float
    pooling: str
    dense_units: int
    l2: float
    dropout: float


def build_model(
    *,
    backbone: str,
    class_names: Sequence[str],
    image_size: int,
    weights: str,
    head: HeadOptions,
    stem_stride: int,
    batch_norm_momentum: float,
    seed: int,
) -> keras.Model:
    """The network, with its weights, in the current precision policy.

    Args:
        backbone: A name in `BACKBONES`.
        class_names: In the order of the outputs, two or more.
        image_size: Side of the square input in pixels, at least 32.
        weights: "imagenet", "none" (random), or the path of a backbone's weights file or of a
            `model.h5` made by this project; see `weights.load_weights`.
        head: What follows the backbone.
        stem_stride: How much the first convolution and pooling shrink the image together: 4 as
            published; 2 or 1 keep more of a small image and read the same weights.
        batch_norm_momentum: Share of the old moving averages that each step keeps.
        seed: Of the random weights, the noise and the dropout.

    Raises:
        ValueError: An unknown backbone, an image size below 32, weights that do not fit.
        OSError: The weights could not be downloaded or read.
    """
    if backbone not in BACKBONES:
        raise InputError(f"Expected a backbone in {', '.join(BACKBONES)}, got {backbone}.")
    if image_size < 32:
        raise InputError(f"Expected an image size of at least 32 pixels, got {image_size}.")
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((image_size, image_size, 3), name="image")
    # In float32: bfloat16 would round 0 to 255 to steps of one.
    centred = keras.layers.Rescaling(
        1.0, offset=[-mean for mean in _IMAGENET_MEAN], dtype="float32", name="preprocessing"
    )(inputs)
    body = BACKBONES[backbone](include_top=False, weights=None, input_tensor=centred)
    outputs = _add_head(body.output, head, n_classes=len(class_names), seed=seed)
    model = keras.Model(inputs, outputs, name=backbone)
    adapt = _stem_and_momentum(stem_stride=stem_stride, momentum=batch_norm_momentum)
    model = keras.models.clone_model(model, clone_function=adapt)
    if weights == "none":
        # Random networks of this depth learn slowly from the start; as identities, their blocks
        # join in one by one.
        for layer in backbone_layers(model):
            start_as_identity(layer)
    load_weights(model, weights, backbone=backbone, class_names=tuple(class_names))
    return model


def feature_layer(model: keras.Model) -> keras.layers.Layer:
    """The backbone's last layer: its output are the feature maps that the head receives."""
    return backbone_layers(model)[-1]


def set_trainable(model: keras.Model, *, backbone: bool, batch_norm: bool) -> None:
    """Choose what learns: the head always, the backbone or not, its batch statistics or not.

    A BatchNormalization layer that does not learn also uses its moving averages in training.
    """
    for layer in backbone_layers(model):
        normalises = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = backbone and (batch_norm or not normalises)


def _add_head(features: Any, head: HeadOptions, *, n_classes: int, seed: int) -> Any:
    layers = keras.layers
    x = features
    if head.noise:
        x = layers.GaussianNoise(head.noise, seed=seed, name="head_noise")(x)
    if head.pooling == "average-flatten":
        x = layers.AveragePooling2D(min(7, *x.shape[1:3]), name="head_pool")(x)
        x = layers.Flatten(name="head_flatten")(x)
    elif head.pooling == "global-average":
        x = layers.GlobalAveragePooling2D(name="head_pool")(x)
    else:
        raise InputError(
            f"Expected the pooling global-average or average-flatten, got {head.pooling}."
        )
    if head.dense_units:
        penalty = keras.regularizers.L2(head.l2) if head.l2 else None
        x = layers.Dense(
            head.dense_units, activation="relu", kernel_regularizer=penalty, name="head_dense"
        )(x)
    if head.dropout:
        x = layers.Dropout(head.dropout, seed=seed + 1, name="head_dropout")(x)
    # In float32, as small probabilities would be lost in half precision.
    return layers.Dense(
        n_classes, activation="softmax", dtype="float32", name="head_probabilities"
    )(x)


def _stem_and_momentum(
    *, stem_stride: int, momentum: float
) -> Callable[[keras.layers.Layer], keras.layers.Layer]:
    """A clone function that changes strides and momentum, which no weight's shape depends on."""
    if stem_stride not in _STEM_STRIDES:
        raise InputError(f"Expected a stem stride of 4, 2 or 1, got {stem_stride}.")
    convolution_stride, pooling_stride = _STEM_STRIDES[stem_stride]
    strides = {"conv1_conv": convolution_stride, "pool1_pool": pooling_stride}

    def adapt(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if layer.name in strides:
            config["strides"] = strides[layer.name]
        if isinstance(layer, keras.layers.BatchNormalization):
            config["momentum"] = momentum
        return layer.__class__.from_config(config)

    return adapt
