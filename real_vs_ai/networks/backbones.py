"""Declare each backbone once: its network, its preprocessing and its weights.

To add one, write its network and add it to `BACKBONES`: the options, the preprocessing inside the
model file and the loading of weights follow. Keras is imported when a network is built, so that
this list costs `--help` nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from real_vs_ai.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    import keras

_RESNET_STAGES = (2, 3, 4, 5)
_RESNET_BRANCH = ("1_conv", "1_bn", "1_relu", "2_conv", "2_bn", "2_relu", "3_conv", "3_bn")
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
        read_weights: Reads a published file of another format than Keras', by its suffix.
    """

    build: Callable[..., keras.Model]
    scale: float
    offset: tuple[float, float, float]
    weights_in_bgr: bool
    stem_strides: Mapping[int, Mapping[str, int]]
    stage_ends: Callable[[keras.Model], list[str]]
    read_weights: Mapping[str, Callable[[Path], keras.Model]] = field(default_factory=dict)

    @property
    def published_stem_stride(self) -> int:
        return next(iter(self.stem_strides))


def _resnet(name: str | None) -> Backbone:
    """A ResNet: one of Keras' by its function there, or the shallow one of this project."""

    def build(*, weights: str | None, input_tensor: Any = None) -> keras.Model:
        import keras

        if name is None:
            return _resnet26(weights=weights, input_tensor=input_tensor)
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


def _resnet26(*, weights: str | None, input_tensor: Any = None) -> keras.Model:
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
    import keras

    deep = keras.applications.ResNet50(include_top=False, weights=None, input_tensor=input_tensor)
    x = deep.get_layer("pool1_pool").output
    for stage in _RESNET_STAGES:
        for block in (1, 2):
            x = _block_of(deep, f"conv{stage}_block{block}_", x, projects=block == 1)
    return keras.Model(deep.inputs, x, name="resnet26")


def _block_of(network: keras.Model, prefix: str, x: Any, *, projects: bool) -> Any:
    """One block of a network, laid on another tensor."""
    shortcut = branch = x
    for name in ("0_conv", "0_bn") if projects else ():
        shortcut = network.get_layer(prefix + name)(shortcut)
    for name in _RESNET_BRANCH:
        branch = network.get_layer(prefix + name)(branch)
    total = network.get_layer(prefix + "add")([shortcut, branch])
    return network.get_layer(prefix + "out")(total)


def _efficientnet_lite(name: str) -> Backbone:
    def build(*, weights: str | None, input_tensor: Any = None) -> keras.Model:
        from real_vs_ai.networks.efficientnet_lite import efficientnet_lite

        return efficientnet_lite(name, weights=weights, input_tensor=input_tensor)

    def read(path: Path) -> keras.Model:
        from real_vs_ai.networks.efficientnet_lite import read_published_weights

        return read_published_weights(name, path)

    return Backbone(
        build=build,
        scale=1 / 128,
        offset=(-127 / 128,) * 3,
        weights_in_bgr=False,
        stem_strides={2: {"stem_conv": 2}, 1: {"stem_conv": 1}},
        # The last stage of each resolution counts; the seventh ends in the top.
        stage_ends=lambda body: _last_layers(
            body, [*(f"block{stage}" for stage in (1, 2, 3, 5, 7)), "top_"]
        ),
        read_weights={".pth": read},
    )


BACKBONES: dict[str, Backbone] = {
    "resnet26": _resnet(None),
    "resnet50": _resnet("ResNet50"),
    "resnet101": _resnet("ResNet101"),
    "resnet152": _resnet("ResNet152"),
    "efficientnet-lite0": _efficientnet_lite("efficientnet-lite0"),
    "efficientnet-lite2": _efficientnet_lite("efficientnet-lite2"),
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
