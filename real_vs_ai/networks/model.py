"""Build a Keras model from options: preprocessing, backbone and head as plain layers.

The input is RGB, 0 to 255; the output is softmax in the order of the class names.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from real_vs_ai.core.errors import InputError, RealVsAIError, one_line
from real_vs_ai.models.model_file import ENLARGING_LAYER, ModelFileError, read_metadata
from real_vs_ai.networks.backbones import (
    BACKBONES,
    Backbone,
    backbone_layers,
    first_convolution,
    head_layers,
)
from real_vs_ai.networks.head import add_head

# How Keras names the layers of a ResNet's residual blocks: stage, then block, both from 1.
_BLOCK_NAME = re.compile(r"conv(?P<stage>\d)_block(?P<block>\d+)_")


def build_model(options: Any, *, class_names: Sequence[str]) -> keras.Model:
    """The network, with its weights, in the current precision policy.

    Args:
        options: The fields of `TrainingOptions` from `backbone` to `batch_norm_momentum`.
        class_names: In the order of the outputs, two or more.

    Raises:
        InputError: A stem stride that the backbone does not have, or weights that do not fit.
        OSError: The weights could not be downloaded or read.
    """
    backbone, size = options.backbone, options.image_size
    keras.utils.set_random_seed(options.seed)
    declared = BACKBONES[backbone]
    inputs = keras.Input((size, size, 3), name="image")
    prepared = _prepared(inputs, declared, enlarge=options.enlarge)
    body = declared.build(weights=None, input_tensor=prepared)
    adapt = _stem_and_momentum(
        declared, stem_stride=options.stem_stride, momentum=options.batch_norm_momentum
    )
    # Before the head is added: its layers take their shapes from the maps' sizes.
    body = keras.models.clone_model(body, clone_function=adapt)
    ends = declared.stage_ends(body)
    outputs = add_head(body, options, stage_ends=ends, n_classes=len(class_names))
    model = keras.Model(body.inputs[0], outputs, name=backbone)
    if options.weights == "none":
        # Random networks of this depth learn slowly from the start; as identities, their blocks
        # join in one by one.
        for layer in backbone_layers(model):
            _start_as_identity(layer)
    load_weights(model, options.weights, backbone=backbone, class_names=tuple(class_names))
    return model


def _prepared(inputs: Any, backbone: Backbone, *, enlarge: int) -> Any:
    """Pixels of 0 to 255 as the backbone wants them."""
    # In float32: bfloat16 would round 0 to 255 to steps of one.
    x = keras.layers.Rescaling(
        backbone.scale, offset=list(backbone.offset), dtype="float32", name="preprocessing"
    )(inputs)
    if enlarge == 1:
        return x
    return keras.layers.UpSampling2D(enlarge, interpolation="bilinear", name=ENLARGING_LAYER)(x)


def set_trainable(model: keras.Model, *, backbone: bool, batch_norm: bool) -> None:
    """Choose what learns: the head always, the backbone or not, its batch statistics or not.

    A BatchNormalization layer that does not learn also uses its moving averages in training.
    """
    for layer in backbone_layers(model):
        normalises = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = backbone and (batch_norm or not normalises)


def _stem_and_momentum(
    backbone: Backbone, *, stem_stride: int, momentum: float
) -> Callable[[keras.layers.Layer], keras.layers.Layer]:
    """A clone function that changes strides and momentum, which no weight's shape depends on."""
    if stem_stride not in backbone.stem_strides:
        possible = ", ".join(map(str, backbone.stem_strides))
        raise InputError(f"Expected a stem stride in {possible}, got {stem_stride}.")
    strides = backbone.stem_strides[stem_stride]

    def adapt(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        if layer.name in strides:
            config["strides"] = strides[layer.name]
        if isinstance(layer, keras.layers.BatchNormalization):
            config["momentum"] = momentum
        return layer.__class__.from_config(config)

    return adapt


_WEIGHTS_PAGE = "https://keras.io/api/applications/resnet/"


def load_weights(
    model: keras.Model, weights: str, *, backbone: str, class_names: tuple[str, ...]
) -> None:
    """Put weights into a model that `build_model` made.

    Args:
        model: Changed in place.
        weights: "none" leaves the random weights. "imagenet" lets Keras download its file, or
            reads an installed package's. A path is either a backbone's weights file as it is
            published (without top), or a `model.h5` of this project, whose head is taken too
            when its classes are the same. When that model is shallower, the blocks it lacks
            start as identities: the deeper network begins with the same output.
        backbone: A name in `BACKBONES`.

    Raises:
        OSError: The download failed, or the file cannot be read.
        ValueError: The file holds another network.
    """
    if weights == "none":
        return
    in_bgr = BACKBONES[backbone].weights_in_bgr
    if weights == "imagenet":
        _load_backbone_weights(model, _imagenet(backbone), in_bgr=in_bgr)
        return
    path = Path(weights)
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected --weights imagenet, none, or the path of a weights file; "
            f"found no file at {path}."
        )
    if _is_whole_model(path):
        _copy_model_weights(model, path, backbone=backbone, class_names=class_names)
    else:
        _load_backbone_weights(model, _read_backbone(path, backbone), in_bgr=in_bgr)


def _imagenet(backbone: str) -> keras.Model:
    try:
        return BACKBONES[backbone].build(weights="imagenet")
    except RealVsAIError:
        raise
    except Exception as error:
        # Keras raises a bare Exception when a download fails, and names the address in it.
        address = re.search(r"https?://\S+?\.h5", str(error))
        raise OSError(
            "Expected to download ImageNet weights, but it failed "
            f"({one_line(error)}). Use --weights none to start from random "
            "weights, or fetch the file elsewhere and name it with --weights PATH: "
            f"{address.group() if address else _WEIGHTS_PAGE}"
        ) from error


def _is_whole_model(path: Path) -> bool:
    try:
        with h5py.File(path, "r") as file:
            return "model_config" in file.attrs
    except OSError as error:
        raise OSError(f"{path} is not a readable HDF5 weights file: {error}") from error


def _read_backbone(path: Path, backbone: str) -> keras.Model:
    network = BACKBONES[backbone].build(weights=None)
    try:
        # Keras warns of a layer that the file lacks, and leaves its random weights.
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            network.load_weights(path)
    except (ValueError, KeyError, IndexError, AttributeError, UserWarning) as error:
        reason = one_line(error)
        raise InputError(
            f"{path} does not hold the weights of {backbone} without its top ({reason}). "
            "Name the file whose name ends in _notop.h5, or another --backbone."
        ) from error
    return network


def _load_backbone_weights(model: keras.Model, source: keras.Model, *, in_bgr: bool) -> None:
    """Copy a network's weights into a backbone, which is fed RGB."""
    stored = {layer.name: layer.get_weights() for layer in source.layers}
    for layer in backbone_layers(model):
        if layer.weights:
            layer.set_weights(stored[layer.name])
    if not in_bgr:
        return
    convolution = first_convolution(model)
    kernel, *bias = convolution.get_weights()
    convolution.set_weights([np.ascontiguousarray(kernel[:, :, ::-1, :]), *bias])


def _copy_model_weights(
    model: keras.Model, path: Path, *, backbone: str, class_names: tuple[str, ...]
) -> None:
    try:
        metadata = read_metadata(path)
    except ModelFileError as error:
        raise InputError(
            f"{path} is a whole Keras model, but not one that ModelTraining.py made. "
            "Name one that is, or a file of backbone weights."
        ) from error
    source = keras.models.load_model(path, compile=False)
    stored = {layer.name: layer.get_weights() for layer in source.layers}
    blocks = {_residual_block(layer.name) for layer in backbone_layers(model)}
    if not {_residual_block(name) for name in stored} <= blocks | {None}:
        raise InputError(
            f"{path} is deeper than {backbone}, and blocks would be lost. "
            f"Use --backbone {metadata.backbone or 'NAME'}."
        )
    for layer in backbone_layers(model):
        if layer.name not in stored and _follows(layer, stored):
            _start_as_identity(layer)
            continue
        values = stored.get(layer.name, [])
        shapes = [value.shape for value in values]
        if shapes != [tuple(variable.shape) for variable in layer.weights]:
            raise InputError(
                f"Expected {backbone} in {path}, found {metadata.backbone or 'another network'} "
                f"({layer.name} differs). Use --backbone {metadata.backbone or 'NAME'}."
            )
        layer.set_weights(values)
    _copy_head(model, stored, same_classes=metadata.class_names == class_names)


def _follows(layer: keras.layers.Layer, stored: Mapping[str, list[Any]]) -> bool:
    """Whether a layer belongs to a block that comes after the blocks of a shallower network."""
    position = _residual_block(layer.name)
    if position is None or position[1] == 1:
        return False
    stage, _ = position
    return f"conv{stage}_block1_3_bn" in stored


def _copy_head(model: keras.Model, stored: Mapping[str, list[Any]], *, same_classes: bool) -> None:
    head = head_layers(model)
    fits = all(
        [value.shape for value in stored.get(layer.name, [])]
        == [tuple(variable.shape) for variable in layer.weights]
        for layer in head
    )
    if fits and same_classes:
        for layer in head:
            layer.set_weights(stored[layer.name])


def _residual_block(layer_name: str) -> tuple[int, int] | None:
    """Stage and block that a backbone's layer belongs to, or None outside the blocks."""
    block = _BLOCK_NAME.match(layer_name)
    return (int(block["stage"]), int(block["block"])) if block else None


def _start_as_identity(layer: keras.layers.Layer) -> None:
    """Zero the scale that a residual branch ends with; other layers stay as they are.

    The block then passes its input on (Goyal et al. 2017, section 5.1).
    """
    if _residual_block(layer.name) and layer.name.endswith("_3_bn"):
        layer.gamma.assign(keras.ops.zeros_like(layer.gamma))
