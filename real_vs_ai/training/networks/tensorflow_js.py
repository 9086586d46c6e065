"""Read the weights of a TensorFlow.js layers model: a `model.json` and the shards beside it.

Keras' own ResNet weights are published in this form too, in packages that reach machines which
cannot download them from Keras. TensorFlow.js' converter would need a TensorFlow of its own.

Format: https://www.tensorflow.org/js/guide/save_load
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from real_vs_ai.errors import InputError

# More than any published network; a damaged file must not fill the memory.
_LARGEST_BYTES = 2**31
# What nesting without end and numbers without end raise.
_ENDLESS = (RecursionError, OverflowError)


def read_layers_model(path: Path) -> tuple[dict[str, dict], dict[str, dict[str, np.ndarray]]]:
    """The layers of a TensorFlow.js layers model.

    Args:
        path: The `model.json`.

    Returns:
        Two dictionaries by the layer's name: its configuration, as Keras writes it; and its
        weights, float32, by their name in the layer ("kernel").

    Raises:
        InputError: Not such a file, or its weights are missing, cut or quantised.
        OSError: A file cannot be read.
    """
    try:
        document = json.loads(path.read_bytes())
        layers = document["modelTopology"]["model_config"]["config"]["layers"]
        configs = {layer["config"]["name"]: layer["config"] for layer in layers}
        weights: dict[str, dict[str, np.ndarray]] = {}
        shards = [_shard(path, n) for group in document["weightsManifest"] for n in group["paths"]]
        if sum(shard.stat().st_size for shard in shards) > _LARGEST_BYTES:
            raise InputError(f"The weights beside {path} are larger than {_LARGEST_BYTES:,} bytes.")
        for group in document["weightsManifest"]:
            for name, values in _arrays(path, group):
                layer_name, _, weight_name = name.rpartition("/")
                weights.setdefault(layer_name, {})[weight_name] = values
    except (ValueError, LookupError, TypeError, AttributeError, *_ENDLESS) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} is not the model.json of a TensorFlow.js layers model."
        ) from error
    return configs, weights


def _arrays(path: Path, group: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of one group of shards, which lie in them one after the other."""
    content = b"".join(_shard(path, name).read_bytes() for name in group["paths"])
    start = 0
    for weight in group["weights"]:
        name, shape = str(weight["name"]), [int(length) for length in weight["shape"]]
        if weight["dtype"] != "float32" or "quantization" in weight:
            raise InputError(f"Expected float32 in {path}, found other numbers in {name}.")
        count = math.prod(shape)
        if min(shape, default=0) < 0 or start + 4 * count > len(content):
            raise InputError(f"The weights beside {path} are cut: {name} is not whole.")
        yield name, np.frombuffer(content, "<f4", count, start).reshape(shape)
        start += 4 * count
    if start != len(content):
        raise InputError(f"The weights beside {path} are longer than it says.")


def _shard(path: Path, name: str) -> Path:
    """A file of weights, which must lie beside the model."""
    if Path(name).name != name:
        raise InputError(f"{path} names weights in another folder: {name}.")
    return path.with_name(name)
