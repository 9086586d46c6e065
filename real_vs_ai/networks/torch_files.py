"""Read the weights in a file of PyTorch without PyTorch; no code from the file runs.

Such a file, of torch's first format, holds several pickles and then the raw numbers.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from real_vs_ai.core.errors import InputError, one_line

_MAGIC = (0x1950A86A20F9469CFC6C, 1001)
_DTYPES = {"FloatStorage": np.float32, "LongStorage": np.int64}
# What damaged and foreign files make unpickling raise.
_READING_ERRORS = (
    *(pickle.UnpicklingError, EOFError, LookupError, AttributeError, TypeError, ValueError),
    *(ArithmeticError, MemoryError),
)


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Read a state dict: an array for each name.

    Only float and integer tensors and the containers around them are built; anything else in the
    file is refused, so that a file cannot run code.

    Raises:
        InputError: The file is damaged, of another format, or holds something else.
        FileNotFoundError: There is no such file.
    """
    try:
        with path.open("rb") as file:
            return _read(file)
    except _READING_ERRORS as error:
        raise InputError(
            f"Expected a torch state dict, received {path}, which is damaged or something else: "
            f"{one_line(error)}"
        ) from error


def _read(file: IO[bytes]) -> dict[str, np.ndarray]:
    head = tuple(_TensorUnpickler(file).load() for _ in range(2))
    if head != _MAGIC:
        raise InputError("its first bytes are of another format")
    # Byte order and sizes of the machine it was saved on.
    _TensorUnpickler(file).load()
    reader = _TensorUnpickler(file)
    state = reader.load()
    storages = {}
    for key in _TensorUnpickler(file).load():
        # A count of 8 bytes stands before each storage.
        count, dtype = int.from_bytes(file.read(8), "little"), reader.dtypes[key]
        storages[key] = np.frombuffer(file.read(count * dtype.itemsize), dtype)
    return {name: tensor.array(storages[tensor.key]) for name, tensor in state.items()}


class _Tensor(NamedTuple):
    key: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, numbers: np.ndarray) -> np.ndarray:
        """The tensor's numbers, copied from those of its storage."""
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


class _TensorUnpickler(pickle.Unpickler):
    """Unpickles tensors and refuses every other class."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.dtypes: dict[str, np.dtype] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda key, offset, shape, strides, *_: _Tensor(key, offset, shape, strides)
        if module == "torch" and name in _DTYPES:
            return name
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")

    def persistent_load(self, pid: Any) -> str:
        _, kind, key, *_ = pid
        self.dtypes[key] = np.dtype(_DTYPES[kind]).newbyteorder("<")
        return key
