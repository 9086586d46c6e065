"""Write a ResNet as a PyTorch file: a state dict with the names of `torchvision.models`.

The head and what the input needs stand beside it, under "head." and "input.". `pth_loader.py`
judges images with the file; it needs PyTorch alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from real_vs_ai.core.errors import InputError

if TYPE_CHECKING:
    import keras

# torchvision adds this to a variance; Keras' ResNets add more.
_EPSILON = 1e-5
_BLOCK = re.compile(r"conv(\d)_block(\d+)_(\d)_(conv|bn)")
_DEPTHS = ("resnet50", "resnet101", "resnet152")


def state_of(model: keras.Model) -> dict[str, np.ndarray]:
    """A ResNet's weights under torchvision's names, and its head.

    Convolutions' biases go into the means of the normalisations that follow them.

    Raises:
        InputError: It is no ResNet of this project.
    """
    layers = {layer.name: layer for layer in model.layers}
    if not {"conv5_block3_out", "preprocessing", "head_pool"} <= set(layers):
        raise InputError(f"expected {', '.join(_DEPTHS)} for pth, found {model.name}")
    state: dict[str, np.ndarray] = {}
    for name, layer in layers.items():
        target = _torchvision_name(name)
        if target and name.endswith("conv"):
            state[f"{target}.weight"] = np.asarray(layer.kernel).transpose(3, 2, 0, 1)
        elif target:
            before = layers[name.removesuffix("bn") + "conv"]
            state |= {f"{target}.{key}": x for key, x in _normalisation(layer, before).items()}
    return state | dict(_input(layers)) | dict(_head(layers))


def _torchvision_name(name: str) -> str:
    """ "layer3.0.bn1" of "conv4_block1_1_bn", "" of layers without weights."""
    if name in ("conv1_conv", "conv1_bn"):
        return name.removeprefix("conv1_").replace("conv", "conv1").replace("bn", "bn1")
    found = _BLOCK.fullmatch(name)
    if not found:
        return ""
    stage, block, place, kind = found.groups()
    shortcut = f"downsample.{int(kind == 'bn')}"
    inner = shortcut if place == "0" else f"{kind}{place}"
    return f"layer{int(stage) - 1}.{int(block) - 1}.{inner}"


def _normalisation(layer: Any, convolution: Any) -> dict[str, np.ndarray]:
    bias = np.asarray(convolution.bias) if convolution.use_bias else 0.0
    return {
        "weight": np.asarray(layer.gamma),
        "bias": np.asarray(layer.beta),
        "running_mean": np.asarray(layer.moving_mean) - bias,
        "running_var": np.asarray(layer.moving_variance) + (layer.epsilon - _EPSILON),
        "num_batches_tracked": np.array(0),
    }


def _input(layers: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    yield "input.offset", np.asarray(layers["preprocessing"].offset, np.float32)
    enlarging = layers.get("enlarging")
    yield "input.enlarge", np.array(enlarging.size[0] if enlarging else 1)
    yield "input.stride", np.array(layers["conv1_conv"].strides[0])
    yield "pool.stride", np.array(layers["pool1_pool"].strides[0])


def _head(layers: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """What the loader needs of the head; Dense weights of a flattened map follow its channels."""
    order, pool = None, layers["head_pool"]
    # Of statistics of all stages nothing is pooled.
    maps = pool.input.shape[1:3] if not isinstance(pool.input, list) else (1, 1)
    yield "head.pool", np.array(getattr(pool, "pool_size", maps))
    if norm := layers.get("head_norm"):
        deviation = np.sqrt(np.asarray(norm.moving_variance) + norm.epsilon)
        weights = layers.get("head_weights")
        yield "head.mean", np.asarray(norm.moving_mean)
        yield "head.deviation", deviation
        yield "head.scale", np.asarray(weights.gamma) if weights else np.ones_like(deviation)
    if "head_flatten" in layers:
        pooled = pool.output.shape[1:]
        order = np.arange(np.prod(pooled)).reshape(pooled).transpose(2, 0, 1).ravel()
    for name in ("dense", "probabilities"):
        if layer := layers.get(f"head_{name}"):
            kernel = np.asarray(layer.kernel)
            yield f"head.{name}.weight", (kernel if order is None else kernel[order]).T
            yield f"head.{name}.bias", np.asarray(layer.bias)
            order = None


def write_torch(model: keras.Model, path: Path) -> None:
    """Write the state dict for `torch.load(path, weights_only=True)`.

    Raises:
        ImportError: PyTorch is not installed.
        InputError: It is no ResNet of this project.
    """
    state = state_of(model)
    import torch

    torch.save({k: torch.tensor(np.ascontiguousarray(v)) for k, v in state.items()}, path)


def load_torch(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The network in a file that `write_torch` wrote, from pixels to probabilities."""
    import torch

    from real_vs_ai.evaluation.pth_loader import predict

    state = torch.load(path, weights_only=True)
    return lambda pixels: predict(state, torch.from_numpy(pixels)).numpy()
