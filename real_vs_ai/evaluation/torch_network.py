"""Load the network of a `.pth` file in PyTorch; needs only torch, so the file can be copied.

    network = load_network("model.pth")
    probabilities = network(images)      # (n, 3, size, size), RGB 0 to 255 → (n, n_classes)

The file holds {"layers": …, "state_dict": …, "metadata": …}: the graph as plain lists, since
Keras' ResNets differ from torchvision's (strides and biases elsewhere).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from real_vs_ai.errors import InputError

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x,
    "relu": functional.relu,
    "softmax": lambda x: functional.softmax(x, dim=1),
}


def load_network(path: str | Path) -> KerasNetwork:
    """The network in a `.pth` file, ready to predict.

    Raises:
        FileNotFoundError: There is no such file.
    """
    # Tensors and plain values only: a stranger's file runs no code.
    stored = torch.load(path, map_location="cpu", weights_only=True)
    network = KerasNetwork(stored["layers"])
    network.load_state_dict(stored["state_dict"])
    return network.eval()


class KerasNetwork(nn.Module):
    """A flat Keras graph, run layer by layer."""

    def __init__(self, layers: Sequence[Mapping[str, Any]]) -> None:
        """Build the graph.

        Args:
            layers: {"name", "kind", "inputs", and what the kind needs} in the order of the graph.

        Raises:
            ValueError: A kind of layer that is not known here.
        """
        super().__init__()
        self._layers = [dict(layer) for layer in layers]
        self.blocks = nn.ModuleDict(
            {layer["name"]: _block(layer) for layer in self._layers if layer["kind"] != "input"}
        )

    def forward(self, images: Tensor) -> Tensor:
        """Probabilities of images, (n, 3, size, size), RGB 0 to 255."""
        values: dict[str, Tensor] = {}
        for layer in self._layers:
            if layer["kind"] == "input":
                values[layer["name"]] = images
                continue
            inputs = [values[name] for name in layer["inputs"]]
            values[layer["name"]] = self.blocks[layer["name"]](*inputs)
        return values[self._layers[-1]["name"]]


class _Rescale(nn.Module):
    def __init__(self, scale: float, offset: Sequence[float]) -> None:
        super().__init__()
        self.scale = scale
        self.register_buffer("offset", torch.tensor(offset).view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.offset


class _Padded(nn.Module):
    """Keras' "same" padding, which is uneven, before a convolution or pooling."""

    def __init__(self, inner: nn.Module, layer: Mapping[str, Any], *, fill: float) -> None:
        super().__init__()
        self.inner = inner
        self.layer = layer
        self.fill = fill
        self.activation = _ACTIVATIONS[layer.get("activation", "linear")]

    def forward(self, x: Tensor) -> Tensor:
        if self.layer["padding"] == "same":
            padding = [
                side
                for axis in (1, 0)
                for side in _same_padding(
                    x.shape[2 + axis], self.layer["size"][axis], self.layer["strides"][axis]
                )
            ]
            x = functional.pad(x, padding, value=self.fill)
        return self.activation(self.inner(x))


class _Call(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def _same_padding(length: int, size: int, stride: int) -> tuple[int, int]:
    total = max((math.ceil(length / stride) - 1) * stride + size - length, 0)
    return total // 2, total - total // 2


def _block(layer: Mapping[str, Any]) -> nn.Module:
    kind = layer["kind"]
    if kind == "convolution":
        inner = nn.Conv2d(
            layer["channels_in"],
            layer["channels_out"],
            layer["size"],
            layer["strides"],
            bias=layer["bias"],
        )
        return _Padded(inner, layer, fill=0.0)
    if kind == "max_pooling":
        return _Padded(nn.MaxPool2d(layer["size"], layer["strides"]), layer, fill=-math.inf)
    if kind == "average_pooling":
        return nn.AvgPool2d(layer["size"], layer["strides"])
    if kind == "batch_normalization":
        return nn.BatchNorm2d(layer["channels"], eps=layer["epsilon"])
    if kind == "dense":
        inner = nn.Linear(layer["channels_in"], layer["channels_out"], bias=layer["bias"])
        return nn.Sequential(inner, _Call(_ACTIVATIONS[layer["activation"]]))
    if kind == "rescaling":
        return _Rescale(layer["scale"], layer["offset"])
    if kind == "zero_padding":
        (top, bottom), (left, right) = layer["padding"]
        return nn.ZeroPad2d((left, right, top, bottom))
    if kind == "activation":
        return _Call(_ACTIVATIONS[layer["activation"]])
    simple: dict[str, Callable[..., Tensor]] = {
        "add": lambda *inputs: sum(inputs[1:], start=inputs[0]),
        "global_average_pooling": lambda x: x.mean(dim=(2, 3)),
        # Keras flattens height, width, channels in this order.
        "flatten": lambda x: x.movedim(1, -1).flatten(1) if x.ndim == 4 else x.flatten(1),
        "identity": lambda x: x,
    }
    if kind not in simple:
        raise InputError(f"Expected a known kind of layer, found {kind!r} ({layer['name']}).")
    return _Call(simple[kind])
