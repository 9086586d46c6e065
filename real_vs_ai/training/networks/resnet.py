"""Build Keras' ResNet50, 101 and 152, and a shallow ResNet that can grow into them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import keras

from real_vs_ai.errors import InputError, one_line
from real_vs_ai.training.networks.tensorflow_js import read_layers_model

# How Keras names the layers of a ResNet's residual blocks: stage, then block, both from 1.
_BLOCK_NAME = re.compile(r"conv(?P<stage>\d)_block(?P<block>\d+)_")
# How an older Keras named them: block from a, and the shortcut as first branch.
_OLD_NAME = re.compile(r"(?P<kind>res|bn)(?P<stage>\d)(?P<block>[a-z])_branch(?P<branch>1|2[abc])")
_OLD_BRANCHES = ("1", "2a", "2b", "2c")
_OLD_STEM = {"conv1": "conv1_conv", "bn_conv1": "conv1_bn"}
_STAGES = (2, 3, 4, 5)
_BRANCH = ("1_conv", "1_bn", "1_relu", "2_conv", "2_bn", "2_relu", "3_conv", "3_bn")


def keras_resnet(name: str, *, weights: str | None, input_tensor: Any = None) -> keras.Model:
    """One of Keras' ResNets without its top, by the name of its function there ("ResNet101")."""
    network = getattr(keras.applications, name)
    return network(include_top=False, weights=weights, input_tensor=input_tensor)


def read_published_resnet(name: str, path: Path) -> keras.Model:
    """One of Keras' ResNets with the weights of a TensorFlow.js layers model.

    Args:
        name: As for `keras_resnet`.
        path: Its `model.json`. Keras published the same weights in two forms; the older names
            layers "res2a_branch2a" and has another epsilon, which the variances then hold.

    Raises:
        InputError: The file holds another network, or is not such a file.
        OSError: A file cannot be read.
    """
    configs, weights = read_layers_model(path)
    network = keras_resnet(name, weights=None)
    try:
        stored = {_present_name(old): old for old in weights}
        blocks = {residual_block(layer.name) for layer in network.layers}
        if not {residual_block(present) for present in stored} <= blocks | {None}:
            raise InputError("it is deeper")
        for layer in network.layers:
            if layer.weights:
                old = stored[layer.name]
                values = dict(weights[old])
                if isinstance(layer, keras.layers.BatchNormalization):
                    epsilon = configs[old]["epsilon"]
                    # NaN fails this comparison.
                    if not 0 < epsilon < 1:
                        raise InputError(f"its {old} has an epsilon of {epsilon}")
                    difference = epsilon - layer.epsilon
                    values["moving_variance"] = values["moving_variance"] + difference
                layer.set_weights([values[variable.name] for variable in layer.weights])
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"Expected the weights of {name} in {path}, found another network ({one_line(error)})."
        ) from error
    return network


def _present_name(layer_name: str) -> str:
    """Today's name of a layer that an older Keras named."""
    if layer_name in _OLD_STEM:
        return _OLD_STEM[layer_name]
    old = _OLD_NAME.fullmatch(layer_name)
    if old is None:
        return layer_name
    block = ord(old["block"]) - ord("a") + 1
    place = _OLD_BRANCHES.index(old["branch"])
    kind = "conv" if old["kind"] == "res" else "bn"
    return f"conv{old['stage']}_block{block}_{place}_{kind}"


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
