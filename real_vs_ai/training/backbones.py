"""The backbones there are, and which layers of a model are its backbone's."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import keras

from real_vs_ai.errors import InputError

# The head's layers start with this; every other layer with weights is the backbone's.
HEAD_PREFIX = "head_"

# How Keras names the layers of a ResNet's residual blocks: stage, then block, both from 1.
_BLOCK_NAME = re.compile(r"conv(?P<stage>\d)_block(?P<block>\d+)_")
_STAGES = (2, 3, 4, 5)
_BRANCH = ("1_conv", "1_bn", "1_relu", "2_conv", "2_bn", "2_relu", "3_conv", "3_bn")


def resnet26(*, include_top: bool, weights: str | None, input_tensor: Any = None) -> keras.Model:
    """ResNet50 with two blocks in each stage: a quick start for the deeper ones.

    Its trained weights fit ResNet50, 101 and 152, whose further blocks then start as identities
    (`weights.load_weights`).

    Args:
        include_top: False; there is no classifier.
        weights: None; nobody published ImageNet weights for these layers.
        input_tensor: Of shape (batch, side, side, 3), or None for images of any side.

    Raises:
        ValueError: Other arguments than these.
    """
    if include_top or weights is not None:
        raise InputError(
            "There are no published weights for resnet26. "
            "Use --weights none, or another --backbone."
        )
    deep = keras.applications.ResNet50(include_top=False, weights=None, input_tensor=input_tensor)
    x = deep.get_layer("pool1_pool").output
    for stage in _STAGES:
        for block in (1, 2):
            x = _residual_block(deep, f"conv{stage}_block{block}_", x, projects=block == 1)
    return keras.Model(deep.inputs, x, name="resnet26")


def _residual_block(network: keras.Model, prefix: str, x: Any, *, projects: bool) -> Any:
    """One block of a network, laid on another tensor."""
    shortcut = branch = x
    for name in ("0_conv", "0_bn") if projects else ():
        shortcut = network.get_layer(prefix + name)(shortcut)
    for name in _BRANCH:
        branch = network.get_layer(prefix + name)(branch)
    total = network.get_layer(prefix + "add")([shortcut, branch])
    return network.get_layer(prefix + "out")(total)


# Takes an input tensor and weights (None or "imagenet"), returns a keras.Model that ends in
# feature maps. Those with ImageNet weights learnt on BGR images less ImageNet's mean.
BACKBONES: dict[str, Callable[..., keras.Model]] = {
    "resnet26": resnet26,
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


def residual_block(layer_name: str) -> tuple[int, int] | None:
    """Stage and block that a backbone's layer belongs to, or None outside the blocks."""
    found = _BLOCK_NAME.match(layer_name)
    return (int(found["stage"]), int(found["block"])) if found else None


def start_as_identity(layer: keras.layers.Layer) -> None:
    """Zero the scale that a residual branch ends with; other layers stay as they are.

    The block then passes its input on (Goyal et al. 2017, section 5.1).
    """
    if residual_block(layer.name) and layer.name.endswith("_3_bn"):
        layer.gamma.assign(keras.ops.zeros_like(layer.gamma))
