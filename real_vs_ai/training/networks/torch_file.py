"""Read the tensors of a PyTorch file without PyTorch, and without running code from the file.

tensors = read_state_dict(Path("efficientnet-lite0-57934424.pth"))
tensors["_conv_stem.weight"].shape              # (32, 3, 3, 3)
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from real_vs_ai.errors import InputError


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Read a torch state dict without torch.

    Only float and integer tensors and the containers around them are built; anything else in the
    file is refused, so that a file cannot run code.

    Args:
        path: A file in torch's first format (several pickles, then the raw numbers).

    Raises:
        InputError: The file is of another format or holds something else.
    """
    if zipfile.is_zipfile(path):
        raise InputError(f"Expected torch's first file format, received a zip archive: {path}")
    with path.open("rb") as file:
        try:
            magic, protocol = (_ArrayUnpickler(file).load() for _ in range(2))
            # Byte order and sizes of the machine it was saved on.
            _ArrayUnpickler(file).load()
            reader = _ArrayUnpickler(file)
            state = reader.load()
            keys = _ArrayUnpickler(file).load()
            reader.fill(file, keys)
        except _UNPICKLING_ERRORS as error:
            raise InputError(f"Expected a torch state dict, received {path}: {error}") from error
    if (magic, protocol) != (0x1950A86A20F9469CFC6C, 1001):
        raise InputError(f"Expected torch's first file format, received another: {path}")
    return {name: tensor.array() for name, tensor in state.items()}


# What damaged and foreign files make unpickling raise.
_UNPICKLING_ERRORS = (
    pickle.UnpicklingError,
    EOFError,
    KeyError,
    AttributeError,
    IndexError,
    TypeError,
    ValueError,
)
_DTYPES = {"FloatStorage": np.float32, "LongStorage": np.int64}


@dataclass
class _Tensor:
    storages: dict[str, np.ndarray]
    key: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> np.ndarray:
        """The tensor's numbers, copied."""
        numbers = self.storages[self.key][self.offset :]
        strides = [stride * numbers.itemsize for stride in self.strides]
        return np.lib.stride_tricks.as_strided(numbers, self.shape, strides).copy()


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles tensors as arrays and refuses every other class."""

    def __init__(self, file: Any) -> None:
        super().__init__(file)
        self._storages: dict[str, np.ndarray] = {}
        self._dtypes: dict[str, type] = {}

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
        self._dtypes[key] = _DTYPES[kind]
        return key

    def fill(self, file: Any, keys: list[str]) -> None:
        """Read the numbers that follow the pickles, a count of 8 bytes before each storage."""
        for key in keys:
            count = int.from_bytes(file.read(8), "little")
            dtype = np.dtype(self._dtypes[key])
            self._storages[key] = np.frombuffer(file.read(count * dtype.itemsize), dtype)
