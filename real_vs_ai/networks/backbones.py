"""Declare each backbone once: its network, its preprocessing and its weights.

To add one, write its network and add it to `BACKBONES`: the options, the preprocessing inside the
model file and the loading of weights follow. Keras is imported when a network is built, so that
this list costs `--help` nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

# The head's layers start with this; every other layer with weights is the backbone's.
HEAD_PREFIX = "head_"


@dataclass(frozen=True)
class Backbone:
    """A network that makes feature maps of an image.

    Attributes:
        build: Takes `weights` (None or "imagenet") and `input_tensor` (None for images of any
            side); returns a model that ends in feature maps.
        scale: Pixels of 0 to 255 enter as `scale * pixel + offset`.
        offset: One number for red, green and blue each.
        weights_in_bgr: Whether published weights learnt on images with blue first.
        stem_strides: The strides of the first layers, by layer and by how much they shrink the
            image together; the published ones first.
        stage_ends: Names the layers that end its stages, for the pooling by stages.
    """

    build: Callable[..., keras.Model]
    scale: float
    offset: tuple[float, float, float]
    weights_in_bgr: bool
    stem_strides: Mapping[int, Mapping[str, int]]
    stage_ends: Callable[[keras.Model], list[str]]


def _resnet(name: str) -> Backbone:
    """A ResNet of Keras', by the name of its function there."""

    def build(*, weights: str | None, input_tensor: Any = None) -> keras.Model:
        import keras

        network = getattr(keras.applications, name)
        return network(include_top=False, weights=weights, input_tensor=input_tensor)

    return Backbone(
        build=build,
        scale=1.0,
        # Less the mean of ImageNet's images, red, green, blue (Simonyan & Zisserman 2014).
        offset=(-123.68, -116.779, -103.939),
        weights_in_bgr=True,
        stem_strides={
            4: {"conv1_conv": 2, "pool1_pool": 2},
            2: {"conv1_conv": 1, "pool1_pool": 2},
            1: {"conv1_conv": 1, "pool1_pool": 1},
        },
        stage_ends=lambda body: _last_layers(body, [f"conv{stage}_" for stage in range(1, 6)]),
    )


def _efficientnet_lite0(*, weights: str | None, input_tensor: Any = None) -> keras.Model:
    from real_vs_ai.networks.efficientnet_lite import efficientnet_lite0

    return efficientnet_lite0(weights=weights, input_tensor=input_tensor)


BACKBONES: dict[str, Backbone] = {
    "resnet50": _resnet("ResNet50"),
    "resnet101": _resnet("ResNet101"),
    "resnet152": _resnet("ResNet152"),
    "efficientnet-lite0": Backbone(
        build=_efficientnet_lite0,
        scale=1 / 128,
        offset=(-127 / 128,) * 3,
        weights_in_bgr=False,
        stem_strides={2: {"stem_conv": 2}, 1: {"stem_conv": 1}},
        # The last stage of each resolution counts; the seventh ends in the top.
        stage_ends=lambda body: _last_layers(
            body, [*(f"block{stage}" for stage in (1, 2, 3, 5, 7)), "top_"]
        ),
    ),
}


def _last_layers(body: keras.Model, prefixes: Sequence[str]) -> list[str]:
    """The last layer of each part of a network, by how the names of its layers begin."""
    names = [layer.name for layer in body.layers]
    ends = [[name for name in names if name.startswith(prefix)][-1:] for prefix in prefixes]
    return [name for end in ends for name in end]


def backbone_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers between preprocessing and head."""
    return [
        layer
        for layer in model.layers
        if type(layer).__name__ not in ("InputLayer", "Rescaling", "UpSampling2D")
        and not layer.name.startswith(HEAD_PREFIX)
    ]


def head_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """The layers that follow the backbone."""
    return [layer for layer in model.layers if layer.name.startswith(HEAD_PREFIX)]


def first_convolution(model: keras.Model) -> keras.layers.Layer:
    """The layer that sees the image's channels."""
    return next(layer for layer in model.layers if type(layer).__name__ == "Conv2D")
