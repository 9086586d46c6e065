"""Load the weights that a network starts from: ImageNet's, a file's, a model's, or random ones.

load_weights(model, "imagenet", backbone="resnet101", class_names=("Fake", "Real"))
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import h5py
import keras
import numpy as np

from real_vs_ai.errors import InputError, RealVsAIError, one_line
from real_vs_ai.model_file import ModelFileError, read_metadata
from real_vs_ai.training.backbones import BACKBONES, backbone_layers, first_convolution, head_layers
from real_vs_ai.training.networks.resnet import residual_block, start_as_identity

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
    read = BACKBONES[backbone].read_weights.get(path.suffix.lower())
    if read is not None:
        _load_backbone_weights(model, read(path), in_bgr=in_bgr)
    elif _is_whole_model(path):
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
        network.load_weights(path)
    except (ValueError, KeyError, IndexError, AttributeError) as error:
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
    blocks = {residual_block(layer.name) for layer in backbone_layers(model)}
    if not {residual_block(name) for name in stored} <= blocks | {None}:
        raise InputError(
            f"{path} is deeper than {backbone}, and blocks would be lost. "
            f"Use --backbone {metadata.backbone or 'NAME'}."
        )
    for layer in backbone_layers(model):
        if layer.name not in stored and _follows(layer, stored):
            start_as_identity(layer)
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


def _follows(layer: keras.layers.Layer, stored: Mapping[str, list]) -> bool:
    """Whether a layer belongs to a block that comes after the blocks of a shallower network."""
    position = residual_block(layer.name)
    if position is None or position[1] == 1:
        return False
    stage, _ = position
    return f"conv{stage}_block1_3_bn" in stored


def _copy_head(model: keras.Model, stored: Mapping[str, list], *, same_classes: bool) -> None:
    head = head_layers(model)
    fits = all(
        [value.shape for value in stored.get(layer.name, [])]
        == [tuple(variable.shape) for variable in layer.weights]
        for layer in head
    )
    if fits and same_classes:
        for layer in head:
            layer.set_weights(stored[layer.name])
