"""Read the layers and weights of a Keras HDF5 file without Keras.

It reads models that are one flat graph from one input to one output, which is what this project
saves. `UnsupportedGraphError` says what else a file holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from real_vs_ai.errors import RealVsAIError
from real_vs_ai.model_file import check_weights


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


def read_layers(path: Path) -> tuple[list[Layer], str]:
    """The layers of a model file with their weights, and the name of the output's.

    They stand in the file's order: every layer follows those it receives from.

    Raises:
        UnsupportedGraphError: This module cannot read the model.
        ModelFileError: Its configuration does not fit its weights.
        OSError: The file is not HDF5, or not whole.
    """
    check_weights(path)
    try:
        with h5py.File(path, "r") as file:
            stored = json.loads(file.attrs["model_config"])
            if stored["class_name"] != "Functional":
                raise UnsupportedGraphError(f"it is a model of kind {stored['class_name']}")
            network, weights = stored["config"], file["model_weights"]
            layers = [_read_layer(layer, weights) for layer in network["layers"]]
        return layers, _output_of(network, layers)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UnsupportedGraphError(f"it holds no flat Keras graph ({reason})") from error


def _read_layer(stored: dict[str, Any], weights: h5py.Group) -> Layer:
    config = stored["config"]
    name = config["name"]
    if "layers" in config:
        raise UnsupportedGraphError(f"its layer {name} is a model of its own")
    if config.get("data_format") == "channels_first":
        raise UnsupportedGraphError(f"its layer {name} has its channels first")
    return Layer(name, stored["class_name"], config, _operands(stored), _weights(weights, name))


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


def _output_of(network: dict[str, Any], layers: Sequence[Layer]) -> str:
    inputs = [layer.name for layer in layers if layer.kind == "InputLayer"]
    if len(inputs) != 1:
        raise UnsupportedGraphError(f"it has {len(inputs)} inputs")
    outputs = network["output_layers"]
    # One output is stored as [name, 0, 0] or as [[name, 0, 0]].
    outputs = outputs if isinstance(outputs[0], list) else [outputs]
    names = {layer.name for layer in layers}
    if len(outputs) != 1 or outputs[0][0] not in names:
        raise UnsupportedGraphError(f"it has {len(outputs)} outputs")
    return outputs[0][0]
