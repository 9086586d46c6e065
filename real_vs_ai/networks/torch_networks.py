"""Read the weights in PyTorch's files without PyTorch, and build FLUX.2's tiny autoencoder of them.

No code from a file runs. TAEF2 (github.com/madebyollin/taesd, MIT) has an encoder that reduces an
image eight times to 32 maps, and a decoder that makes an image of these again. Both are residual
blocks of 3 × 3 convolutions with 64 channels.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from real_vs_ai.errors import InputError, one_line

_MAGIC = (0x1950A86A20F9469CFC6C, 1001)
_DTYPES = {"FloatStorage": np.float32, "HalfStorage": np.float16, "LongStorage": np.int64}
# What damaged and foreign files make unpickling and unpacking raise.
_READING_ERRORS = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    EOFError,
    LookupError,
    AttributeError,
    TypeError,
    ValueError,
    RuntimeError,
    ArithmeticError,
    MemoryError,
)


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Read a state dict: an array for each name.

    Only float and integer tensors and the containers around them are built; anything else in the
    file is refused, so that a file cannot run code.

    Args:
        path: A file in torch's first format (several pickles, then the raw numbers), or in its
            present one (a zip archive).

    Raises:
        InputError: The file is damaged, of another format, or holds something else.
        FileNotFoundError: There is no such file.
    """
    reader = _read_archive if zipfile.is_zipfile(path) else _read_pickles
    try:
        return {name: tensor.array() for name, tensor in reader(path).items()}
    except _READING_ERRORS as error:
        raise InputError(
            f"Expected a torch state dict, received {path}, which is damaged or something else: "
            f"{one_line(error)}"
        ) from error


@dataclass
class _Tensor:
    storages: dict[str, np.ndarray]
    key: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        """The tensor's numbers, copied."""
        numbers = self.storages[self.key]
        steps = zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((size - 1) * stride for size, stride in steps)
        # Anything else would read memory that is not the file's.
        if min(self.offset, *self.strides, 0) < 0 or min(self.shape, default=1) < 1:
            raise InputError(f"a tensor of shape {self.shape} and strides {self.strides}")
        if last >= len(numbers):
            raise InputError(f"{len(numbers)} numbers where a tensor needs {last + 1}")
        # A tensor may name one number many times; the copy could then fill the memory.
        if np.prod(self.shape, dtype=object) > len(numbers):
            raise InputError(f"{len(numbers)} numbers for a tensor of shape {self.shape}")
        strides = [stride * numbers.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(numbers[self.offset :], self.shape, strides).copy()


def _read_pickles(path: Path) -> dict[str, _Tensor]:
    with path.open("rb") as file:
        head = tuple(_ArrayUnpickler(file).load() for _ in range(2))
        if head != _MAGIC:
            raise InputError("its first bytes are of another format")
        # Byte order and sizes of the machine it was saved on.
        _ArrayUnpickler(file).load()
        reader = _ArrayUnpickler(file)
        state = reader.load()
        for key in _ArrayUnpickler(file).load():
            # A count of 8 bytes stands before each storage.
            count = int.from_bytes(file.read(8), "little")
            reader.fill(key, lambda size, n=count: file.read(n * size))
    return state


def _read_archive(path: Path) -> dict[str, _Tensor]:
    with zipfile.ZipFile(path) as archive:
        entries = {name.partition("/")[2]: name for name in archive.namelist()}
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise InputError("torch does not compress its archives")
        with archive.open(entries["data.pkl"]) as file:
            reader = _ArrayUnpickler(file)
            state = reader.load()
        for key in reader.dtypes:
            reader.fill(key, lambda _, name=entries[f"data/{key}"]: archive.read(name))
    return state


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles tensors as arrays and refuses every other class."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self.dtypes: dict[str, np.dtype] = {}
        self._storages: dict[str, np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda key, offset, shape, strides, *_: _Tensor(
                self._storages, key, offset, tuple(shape), tuple(strides)
            )
        if module == "torch" and name in _DTYPES:
            return name
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")

    def persistent_load(self, pid: Any) -> str:
        _, kind, key, *_ = pid
        self.dtypes[key] = np.dtype(_DTYPES[kind]).newbyteorder("<")
        return key

    def fill(self, key: str, read: Callable[[int], bytes]) -> None:
        """Keep a storage's numbers, which `read` gives when told how many bytes each has."""
        dtype = self.dtypes[key]
        self._storages[key] = np.frombuffer(read(dtype.itemsize), dtype)


_AUTOENCODER_FILES = ("taef2_encoder.pth", "taef2_decoder.pth")
_PUBLISHED_AT = (
    "github.com/madebyollin/taesd, commit 5cccb12dc72074a4be35680c3b108548a7c69978 (MIT)"
)
# A residual block, where "pooled" also adds a normalised projection of its input.
_BLOCK, _POOLED = "block", "pooled"
# One entry for each numbered layer of the published files; "" has no weights of its own.
_ENCODER = (
    *("convolution", _BLOCK),
    *("halve", _BLOCK, _BLOCK, _BLOCK) * 2,
    *("halve", _POOLED, _POOLED, _POOLED, "convolution"),
)
_DECODER = (
    *("bound", "convolution", "relu", _POOLED, _POOLED, _POOLED),
    *("double", "plain convolution", _BLOCK, _BLOCK, _BLOCK) * 2,
    *("double", "plain convolution", _BLOCK, "convolution"),
)
# Latents are bounded to ±3 before they are decoded.
_BOUND = 3.0
_GROUPS = 4
_layers = keras.layers


def open_autoencoder(folder: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A function that encodes and decodes one image.

    It takes and gives pixels of shape (height, width, 3), uint8, with sides that are multiples of
    8.

    Args:
        folder: Holds both halves, by their published names.

    Raises:
        FileNotFoundError: A file is missing.
        InputError: One is damaged or of another network, or holds numbers that are not finite.
    """
    names = " and ".join(_AUTOENCODER_FILES)
    missing = [name for name in _AUTOENCODER_FILES if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"Expected {names} in {folder}, found no {' and no '.join(missing)}. Copy both from "
            f"{_PUBLISHED_AT}, or name their folder with --weights."
        )
    try:
        model = tiny_autoencoder(*(read_state_dict(folder / name) for name in _AUTOENCODER_FILES))
    except InputError as error:
        raise InputError(f"{error}. Copy {names} again from {_PUBLISHED_AT}.") from error

    def reconstruct(pixels: np.ndarray) -> np.ndarray:
        scaled = np.asarray(model.predict_on_batch(pixels[None] / np.float32(255.0)))[0]
        return np.rint(np.clip(scaled, 0.0, 1.0) * 255.0).astype(np.uint8)

    return reconstruct


def tiny_autoencoder(
    encoder: Mapping[str, np.ndarray], decoder: Mapping[str, np.ndarray]
) -> keras.Model:
    """Build the two halves of their state dicts, which also give the numbers of channels.

    Returns:
        A model from images (batch, height, width, 3), 0 to 1, to images alike, not clipped.

    Raises:
        InputError: A state dict is of another network, or holds numbers that are not finite.
    """
    inputs = keras.Input((None, None, 3))
    latents = _build(inputs, encoder, _ENCODER, half="encoder")
    outputs = _build(latents, decoder, _DECODER, half="decoder")
    if outputs.shape[-1] != 3:
        raise InputError(f"Expected a decoder of 3 colours, found {outputs.shape[-1]}")
    model = keras.Model(inputs, outputs, name="tiny_autoencoder")
    # Images come in many sizes: compiling for each would take longer than it saves.
    model.compile(jit_compile=False)
    return model


def _build(x: Any, state: Mapping[str, np.ndarray], plan: tuple[str, ...], *, half: str) -> Any:
    weights = {name: np.asarray(array, np.float32) for name, array in state.items()}
    try:
        for number, kind in enumerate(plan):
            x = _layer(x, kind, str(number), weights)
    except (KeyError, ValueError) as error:
        raise InputError(
            f"Expected the {half} of TAEF2, found another network ({error})"
        ) from error
    if weights:
        raise InputError(f"Expected the {half} of TAEF2, found {next(iter(weights))} as well")
    return x


def _layer(x: Any, kind: str, name: str, weights: dict[str, np.ndarray]) -> Any:
    if kind in (_BLOCK, _POOLED):
        return _block(x, name, weights, pooled=kind == _POOLED)
    if kind == "halve":
        # The published network pads both sides; "same" would pad only the far ones.
        x = _layers.ZeroPadding2D(1)(x)
        return _convolution(x, name, weights, bias=False, strides=2, padding="valid")
    if kind == "double":
        return _layers.UpSampling2D(2)(x)
    if kind == "relu":
        return _layers.ReLU()(x)
    if kind == "bound":
        return _layers.Rescaling(_BOUND)(
            _layers.Activation("tanh")(_layers.Rescaling(1 / _BOUND)(x))
        )
    return _convolution(x, name, weights, bias=kind == "convolution")


def _block(x: Any, name: str, weights: dict[str, np.ndarray], *, pooled: bool) -> Any:
    if pooled:
        y = _convolution(x, f"{name}.pool.0", weights, bias=False, kernel=1)
        norm = _layers.GroupNormalization(_GROUPS, epsilon=1e-5)
        y = _fill(norm, y, [weights.pop(f"{name}.pool.1.{part}") for part in ("weight", "bias")])
        y = _convolution(_layers.ReLU()(y), f"{name}.pool.3", weights, bias=False, kernel=1)
        x = _layers.Add()([x, y])
    y = x
    for position in (0, 2, 4):
        y = _convolution(y, f"{name}.conv.{position}", weights)
        y = _layers.ReLU()(y) if position < 4 else y
    return _layers.ReLU()(_layers.Add()([x, y]))


def _convolution(
    x: Any,
    name: str,
    weights: dict[str, np.ndarray],
    *,
    bias: bool = True,
    kernel: int = 3,
    **options: Any,
) -> Any:
    arrays = [weights.pop(f"{name}.weight").transpose(2, 3, 1, 0)]
    if bias:
        arrays.append(weights.pop(f"{name}.bias"))
    layer = _layers.Conv2D(
        arrays[0].shape[-1], kernel, use_bias=bias, **{"padding": "same", **options}
    )
    return _fill(layer, x, arrays)


def _fill(layer: Any, x: Any, arrays: list[np.ndarray]) -> Any:
    """The layer laid on `x`, with these weights."""
    if not all(np.isfinite(array).all() for array in arrays):
        raise InputError("weights that are not finite")
    y = layer(x)
    layer.set_weights(arrays)
    return y
