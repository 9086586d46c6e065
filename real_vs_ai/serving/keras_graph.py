"""Read the layers and weights of a Keras HDF5 file without Keras.

It reads models that are one flat graph from one input to one output, which is what this project
saves. `UnsupportedGraphError` says what else a file holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from real_vs_ai.errors import RealVsAIError


class UnsupportedGraphError(RealVsAIError, RuntimeError):
    """OpenVINO cannot compute the file's network; the message is one line that says why."""


@dataclass(frozen=True)
class Layer:
    """One layer of a graph.

    Attributes:
        kind: Keras' class name: "Conv2D".
        operands: Names of the layers whose outputs it receives.
        weights: By Keras' names ("kernel", "bias"), float32.
    """

    name: str
    kind: str
    config: dict[str, Any]
    operands: tuple[str, ...]
    weights: dict[str, np.ndarray]


@dataclass(frozen=True)
class LayerGraph:
    """A network from one input to one output.

    Attributes:
        layers: By name, in the file's order: every layer follows those it receives from.
    """

    layers: dict[str, Layer]
    output: str


def read_graph(path: Path) -> LayerGraph:
    """Read the layers of a model file with their weights.

    Raises:
        UnsupportedGraphError: This module cannot read the model.
        OSError: The file is not HDF5, or not whole.
    """
    try:
        with h5py.File(path, "r") as file:
            stored = json.loads(file.attrs["model_config"])
            kind, network = stored["class_name"], stored["config"]
            read = list(_read_layers(kind, network, file["model_weights"]))
        layers = {layer.name: layer for layer in read}
        return LayerGraph(layers, _output_of(kind, network, layers))
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        if isinstance(error, UnsupportedGraphError):
            raise
        reason = f"{type(error).__name__}: {error}"
        raise UnsupportedGraphError(f"it holds no flat Keras graph ({reason})") from error


def _read_layers(class_name: str, network: dict[str, Any], weights: h5py.Group) -> Iterator[Layer]:
    if class_name not in ("Functional", "Sequential"):
        raise UnsupportedGraphError(f"it is a model of kind {class_name}")
    previous: tuple[str, ...] = ()
    for stored in network["layers"]:
        config = stored["config"]
        name = config["name"]
        if "layers" in config:
            raise UnsupportedGraphError(f"its layer {name} is a model of its own")
        if config.get("data_format") == "channels_first":
            raise UnsupportedGraphError(f"its layer {name} has its channels first")
        operands = previous if class_name == "Sequential" else _operands(stored)
        yield Layer(name, stored["class_name"], config, operands, _weights(weights, name))
        previous = (name,)


def _operands(stored: dict[str, Any]) -> tuple[str, ...]:
    """What one layer receives, lists of inputs laid out in a row."""
    nodes = stored["inbound_nodes"]
    if not nodes:
        return ()
    name = stored["config"]["name"]
    if len(nodes) > 1:
        raise UnsupportedGraphError(f"its layer {name} is used {len(nodes)} times")
    options = nodes[0]["kwargs"]
    if options.get("training") or "__keras_tensor__" in json.dumps(options):
        raise UnsupportedGraphError(f"its layer {name} is called with special arguments")
    return tuple(_flat_arguments(nodes[0]["args"], name))


def _flat_arguments(arguments: Any, name: str) -> Iterator[str]:
    if isinstance(arguments, list):
        for argument in arguments:
            yield from _flat_arguments(argument, name)
    elif isinstance(arguments, dict) and arguments.get("class_name") == "__keras_tensor__":
        source, node, tensor = arguments["config"]["keras_history"]
        if node or tensor:
            raise UnsupportedGraphError(f"its layer {name} receives the second output of {source}")
        yield source
    else:
        raise UnsupportedGraphError(f"its layer {name} is called with {arguments!r}")


def _weights(group: h5py.Group, layer: str) -> dict[str, np.ndarray]:
    """Arrays of a layer by Keras' names; compact files hold them in float16."""
    if layer not in group:
        return {}
    found = {}
    for stored in group[layer].attrs.get("weight_names", ()):
        path = stored.decode() if isinstance(stored, bytes) else str(stored)
        name = path.rsplit("/", 1)[-1].removesuffix(":0")
        found[name] = np.asarray(group[layer][path][()], np.float32)
    return found


def _output_of(class_name: str, network: dict[str, Any], layers: dict[str, Layer]) -> str:
    inputs = [name for name, layer in layers.items() if layer.kind == "InputLayer"]
    if len(inputs) != 1:
        raise UnsupportedGraphError(f"it has {len(inputs)} inputs")
    if class_name == "Sequential":
        return list(layers)[-1]
    outputs = network["output_layers"]
    # One output is stored as [name, 0, 0] or as [[name, 0, 0]].
    outputs = outputs if isinstance(outputs[0], list) else [outputs]
    if len(outputs) != 1 or outputs[0][0] not in layers:
        raise UnsupportedGraphError(f"it has {len(outputs)} outputs")
    return outputs[0][0]
