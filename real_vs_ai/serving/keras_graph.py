"""Read the layers and weights of a Keras HDF5 file without Keras.

It reads models that are one flat graph from one input to one output, which is what this project
saves. `UnsupportedGraphError` says what else a file holds.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from real_vs_ai.errors import InputError

_WEIGHTS_GROUP = "model_weights"
# The weight that holds each kind's output channels, in its last axes.
_OUTPUT_KERNELS = {
    "Conv2D": "kernel",
    "DepthwiseConv2D": "kernel",
    "SeparableConv2D": "pointwise_kernel",
}


class UnsupportedGraphError(InputError):
    """The file holds something that this project's own converter does not know."""


@dataclass(frozen=True)
class Layer:
    """One layer of a graph.

    Attributes:
        kind: Keras' class name: "Conv2D".
        operands: Names of the layers whose outputs it receives, or numbers.
        weights: By Keras' names ("kernel", "bias"), float32.
    """

    name: str
    kind: str
    config: dict[str, Any]
    operands: tuple[str | float, ...]
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
    """Read a model file; see `StoredModel.graph`."""
    with StoredModel(path) as stored:
        return stored.graph()


class StoredModel:
    """A model file, opened when it is needed: one walk over its weights serves digest and layers.

    It is a context, at whose end the file is closed.
    """

    def __init__(self, path: Path) -> None:
        """Remember where the file is."""
        self.path = path

    def __enter__(self) -> StoredModel:
        return self

    def __exit__(self, *failure: object) -> None:
        if "_file" in vars(self):
            self._file.close()

    @cached_property
    def _file(self) -> h5py.File:
        return h5py.File(self.path, "r")

    @cached_property
    def _content(self) -> np.ndarray:
        """The file's bytes from where HDF5 counts, mapped, shape (n_bytes,), uint8."""
        # A plain array of it: slices of a `memmap` take longer to make than to read.
        start = self._file.userblock_size
        return np.memmap(self.path, np.uint8, "r", offset=start).view(np.ndarray)

    @cached_property
    def _items(self) -> dict[str, h5py.Group | h5py.Dataset]:
        """Groups and arrays of the weights by their path, in the file's order."""
        found: dict[str, h5py.Group | h5py.Dataset] = {}
        self._file[_WEIGHTS_GROUP].visititems(lambda name, item: found.update({name: item}))
        return found

    def digest(self) -> hashlib.blake2b:
        """Digest of graph and weights as they are stored, so that nothing is unpacked.

        Raises:
            OSError: The file is not HDF5, or not whole.
            KeyError: It holds no Keras model.
        """
        digest = hashlib.blake2b()
        digest.update(str(self._file.attrs["model_config"]).encode())
        for name, item in self._items.items():
            _update_digest(digest, name, item, self._content)
        return digest

    def graph(self) -> LayerGraph:
        """The layers with their weights.

        Raises:
            UnsupportedGraphError: This module cannot read the model.
            OSError: The file is not HDF5, or not whole.
        """
        try:
            stored = json.loads(self._file.attrs["model_config"])
            network = stored["config"]
            with ThreadPoolExecutor(os.cpu_count()) as workers:
                arrays = _ArrayReader(self._items, self._content, workers)
                read = list(_read_layers(stored["class_name"], network, arrays))
                layers = {layer.name: _with_weights(layer) for layer in read}
            output = _output_of(stored["class_name"], network, layers)
        except (KeyError, ValueError, TypeError, IndexError, AttributeError, zlib.error) as error:
            if isinstance(error, UnsupportedGraphError):
                raise
            reason = f"{type(error).__name__}: {error}"
            raise UnsupportedGraphError(f"it holds no flat Keras graph ({reason})") from error
        return LayerGraph(layers, output)


def _update_digest(
    digest: hashlib.blake2b, name: str, item: h5py.Group | h5py.Dataset, content: np.ndarray
) -> None:
    if isinstance(item, h5py.Group):
        digest.update(repr((name, list(item.attrs.get("weight_names", ())))).encode())
        return
    chunks = item.chunks
    digest.update(repr((name, item.dtype.str, item.shape, chunks)).encode())
    if chunks is None:
        digest.update(np.ascontiguousarray(item[()]))
        return
    for offset, mask, stored in _stored_chunks(item, content):
        digest.update(repr((offset, mask)).encode())
        digest.update(stored)


def _stored_chunks(dataset: h5py.Dataset, content: np.ndarray) -> list[tuple[Any, int, np.ndarray]]:
    """Offset, filters passed over and bytes of each chunk as they are stored.

    They come out of the mapped file: asking h5py for each of thousands takes several times longer.

    Raises:
        OSError: A chunk does not lie in the file.
    """
    chunks: list[tuple[Any, int, np.ndarray]] = []

    def note(chunk: Any) -> None:
        stored = content[chunk.byte_offset : chunk.byte_offset + chunk.size]
        chunks.append((chunk.chunk_offset, chunk.filter_mask, stored))
        if len(stored) != chunk.size:
            raise OSError(f"Expected {chunk.size} bytes of {dataset.name}, found {len(stored)}.")

    dataset.id.chunk_iter(note)
    return chunks


def fold_normalisation(graph: LayerGraph) -> LayerGraph:
    """Put each BatchNormalization into the convolution before it.

    It becomes a layer of kind "Identity" where that convolution has no other use, and stays as it
    is elsewhere. The result computes the same. The graph given is used up: its kernels are changed
    in place, for a copy of every one takes longer than the multiplication.
    """
    uses = Counter(name for layer in graph.layers.values() for name in layer.operands)
    layers = dict(graph.layers)
    for name, layer in graph.layers.items():
        source = layers.get(layer.operands[0]) if layer.operands else None
        if (
            layer.kind == "BatchNormalization"
            and source is not None
            and source.kind in _OUTPUT_KERNELS
            and source.config.get("activation") == "linear"
            and uses[source.name] == 1
            and layer.config["axis"] in (3, -1)
        ):
            layers[source.name] = _scaled(source, *normalisation_factors(layer))
            layers[name] = dataclasses.replace(layer, kind="Identity", weights={})
    return LayerGraph(layers, graph.output)


def normalisation_factors(layer: Layer) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset of a BatchNormalization at inference, shape (n_channels,) each."""
    weights = layer.weights
    scale = 1 / np.sqrt(weights["moving_variance"] + np.float32(layer.config["epsilon"]))
    scale = scale * weights.get("gamma", np.float32(1))
    return scale, weights.get("beta", np.float32(0)) - weights["moving_mean"] * scale


def _scaled(layer: Layer, scale: np.ndarray, offset: np.ndarray) -> Layer:
    """The convolution whose output channels are multiplied and shifted."""
    name = _OUTPUT_KERNELS[layer.kind]
    kernel = layer.weights[name]
    # A depthwise kernel's output channels are its last two axes, (channel, multiplier).
    by_channel = scale.reshape(kernel.shape[2:]) if layer.kind == "DepthwiseConv2D" else scale
    bias = layer.weights.get("bias", np.float32(0)) * scale + offset
    weights = {**layer.weights, name: np.multiply(kernel, by_channel, out=kernel), "bias": bias}
    return dataclasses.replace(layer, weights=weights)


def _with_weights(layer: Layer) -> Layer:
    """The layer with its weights, when they are unpacked."""
    weights = {name: array.result() for name, array in layer.weights.items()}
    return dataclasses.replace(layer, weights=weights)


def _read_layers(class_name: str, network: dict[str, Any], reader: _ArrayReader) -> Iterator[Layer]:
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
        yield Layer(name, stored["class_name"], config, operands, reader.weights(name))
        previous = (name,)


def _operands(stored: dict[str, Any]) -> tuple[str | float, ...]:
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


def _flat_arguments(arguments: Any, name: str) -> Iterator[str | float]:
    if isinstance(arguments, list):
        for argument in arguments:
            yield from _flat_arguments(argument, name)
    elif isinstance(arguments, dict) and arguments.get("class_name") == "__keras_tensor__":
        source, node, tensor = arguments["config"]["keras_history"]
        if node or tensor:
            raise UnsupportedGraphError(f"its layer {name} receives the second output of {source}")
        yield source
    elif isinstance(arguments, int | float) and not isinstance(arguments, bool):
        yield float(arguments)
    else:
        raise UnsupportedGraphError(f"its layer {name} is called with {arguments!r}")


@dataclass(frozen=True)
class _ArrayReader:
    """Reads the weights of a file, and unpacks them on every core."""

    items: Mapping[str, h5py.Group | h5py.Dataset]
    content: np.ndarray
    workers: Executor

    def weights(self, layer: str) -> dict[str, Future[np.ndarray]]:
        """Arrays of a layer, by Keras' names, being unpacked."""
        if layer not in self.items:
            return {}
        found = {}
        for stored in self.items[layer].attrs.get("weight_names", ()):
            weight_path = stored.decode() if isinstance(stored, bytes) else str(stored)
            name = weight_path.rsplit("/", 1)[-1].removesuffix(":0")
            found[name] = self._read(self.items[f"{layer}/{weight_path}"])
        return found

    def _read(self, dataset: h5py.Dataset) -> Future[np.ndarray]:
        """An array in float32; compact files hold float16, its bytes shuffled and deflated.

        HDF5 unpacks on one core alone. This is done here for what this project writes.
        """
        packed = (dataset.compression, dataset.shuffle, dataset.dtype.str, dataset.fletcher32)
        if packed == ("gzip", True, "<f2", False):
            chunks = _stored_chunks(dataset, self.content)
            if not any(mask for _, mask, _ in chunks):
                return self.workers.submit(_unpack, chunks, dataset.shape, dataset.chunks)
        return self.workers.submit(np.array, dataset[()], np.float32)


def _unpack(
    chunks: list[tuple[Any, int, np.ndarray]], shape: tuple[int, ...], chunk_shape: tuple[int, ...]
) -> np.ndarray:
    # Convolutions' kernels lie in memory as OpenVINO wants them: (channels out, in, height, width).
    if len(shape) == 4:
        whole = np.zeros([shape[axis] for axis in (3, 2, 0, 1)], np.float32).transpose(2, 3, 1, 0)
    else:
        whole = np.zeros(shape, np.float32)
    for offset, _, stored in chunks:
        # First the low bytes of all numbers, then the high ones.
        low, high = np.frombuffer(zlib.decompress(stored), np.uint8).reshape(2, -1)
        bits = high.astype("<u2")
        bits <<= 8
        bits |= low
        halves = bits.view("<f2").reshape(chunk_shape)
        place = tuple(slice(start, start + n) for start, n in zip(offset, chunk_shape, strict=True))
        target = whole[place]
        target[...] = halves[tuple(slice(n) for n in target.shape)]
    return whole


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
