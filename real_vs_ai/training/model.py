"""Build a Keras model from options: preprocessing, backbone and head as plain layers.

    model = build_model(
        backbone="resnet101", n_classes=2, image_size=224, weights="imagenet", head=head,
        stem_stride=4, batch_norm_momentum=0.99, class_names=("Fake", "Real"),
    )

The input is RGB, 0 to 255; the output is softmax in the order of the class names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras

from real_vs_ai.errors import InputError
from real_vs_ai.training.backbones import BACKBONES, Backbone, backbone_layers
from real_vs_ai.training.networks.head import HeadOptions, add_head
from real_vs_ai.training.networks.resnet import start_as_identity
from real_vs_ai.training.weights import load_weights


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
        stem_stride: How much the first layers shrink the image together; a key of the
            backbone's `stem_strides`. Less than published keeps more of a small image and reads
            the same weights.
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
    declared = BACKBONES[backbone]
    centred = keras.layers.Rescaling(
        declared.scale, offset=list(declared.offset), dtype="float32", name="preprocessing"
    )(inputs)
    body = declared.build(weights=None, input_tensor=centred)
    adapt = _stem_and_momentum(declared, stem_stride=stem_stride, momentum=batch_norm_momentum)
    # Before the head is added: its layers take their shapes from the maps' sizes.
    body = keras.models.clone_model(body, clone_function=adapt)
    outputs = add_head(
        body, head, stage_ends=declared.stage_ends(body), n_classes=len(class_names), seed=seed
    )
    model = keras.Model(body.inputs[0], outputs, name=backbone)
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
