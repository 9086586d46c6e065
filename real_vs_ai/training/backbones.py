"""The backbones there are, and which layers of a model are its backbone's."""

from __future__ import annotations

from collections.abc import Callable

import keras

# The head's layers start with this; every other layer with weights is the backbone's.
HEAD_PREFIX = "head_"

# Takes an input tensor and weights (None or "imagenet"), returns a keras.Model that ends in
# feature maps. All of these learnt on BGR images less ImageNet's mean.
BACKBONES: dict[str, Callable[..., keras.Model]] = {
    "resnet50": keras.applications.ResNet50,
    "resnet101": keras.applications.ResNet101,
    "resnet152": keras.applications.ResNet152,
}


def backbone_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers between preprocessing and head."""
    fixed = (keras.layers.InputLayer, keras.layers.Rescaling)
    return [
        layer
        for layer in model.layers
        if not isinstance(layer, fixed) and not layer.name.startswith(HEAD_PREFIX)
    ]


def head_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers that follow the backbone."""
    return [layer for layer in model.layers if layer.name.startswith(HEAD_PREFIX)]


def first_convolution(model: keras.Model) -> keras.layers.Layer:
    """The layer that sees the image's channels."""
    return next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
