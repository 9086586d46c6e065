"""Build Keras' ResNet50, 101 and 152, and a shallow ResNet that can grow into them."""

from __future__ import annotations

import re
from typing import Any

import keras

from real_vs_ai.errors import InputError

# How Keras names the layers of a ResNet's residual blocks: stage, then block, both from 1.
_BLOCK_NAME = re.compile(r"conv(?P<stage>\d)_block(?P<block>\d+)_")
_STAGES = (2, 3, 4, 5)
_BRANCH = ("1_conv", "1_bn", "1_relu", "2_conv", "2_bn", "2_relu", "3_conv", "3_bn")


def keras_resnet(name: str, *, weights: str | None, input_tensor: Any = None) -> keras.Model:
    """One of Keras' ResNets without its top, by the name of its function there ("ResNet101")."""
    network = getattr(keras.applications, name)
    return network(include_top=False, weights=weights, input_tensor=input_tensor)


def resnet26(*, weights: str | None, input_tensor: Any = None) -> keras.Model:
    """ResNet50 with two blocks in each stage: a quick start for the deeper ones.

    Its trained weights fit ResNet50, 101 and 152, whose further blocks then start as identities
    (`model.load_weights`).

    Args:
        weights: None; nobody published ImageNet weights for these layers.
        input_tensor: Of shape (batch, side, side, 3), or None for images of any side.

    Raises:
        InputError: Weights are asked for.
    """
    if weights is not None:
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
