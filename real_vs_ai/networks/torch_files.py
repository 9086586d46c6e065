"""Read the weights in PyTorch's files without PyTorch; no code from a file runs."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
