"""Write a model's HDF5 file again in less than half the bytes.

write_compact(Path("model.h5"), Path("compact/model.h5"))     # ResNet101: 174 → 80 MB

Weights are stored as float16, their bytes shuffled and deflated: filters that HDF5 itself undoes,
so that plain `keras.models.load_model` reads the file into float32 variables.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from real_vs_ai.errors import InputError

# Smaller arrays (biases, statistics) are few bytes; they keep their precision.
_SMALLEST_HALVED = 4096
_LARGEST_HALF = float(np.finfo(np.float16).max)
_DEFLATE_LEVEL = 9


def write_compact(source: Path, target: Path) -> None:
    """Copy a model file, its large float32 arrays as float16, all of them compressed.

    Args:
        source: HDF5, as Keras writes it; groups, attributes and their order are kept.
        target: Must not exist.

    Raises:
        FileExistsError: The target is there.
        ValueError: A weight is too large for float16.
        OSError: The source is not HDF5, or the disk is full.
    """
    if target.exists():
        raise FileExistsError(f"{target} is there already; nothing was written.")
    with h5py.File(source, "r") as old, h5py.File(target, "x", track_order=True) as new:
        _copy_group(old, new)


def _copy_group(old: h5py.Group, new: h5py.Group) -> None:
    _copy_attributes(old, new)
    for name, item in old.items():
        if isinstance(item, h5py.Group):
            _copy_group(item, new.create_group(name, track_order=True))
        else:
            _copy_array(item, new, name)


def _copy_array(old: h5py.Dataset, parent: h5py.Group, name: str) -> None:
    values = old[()]
    compression = {}
    if old.size >= _SMALLEST_HALVED and old.dtype == np.float32:
        if not np.all(np.abs(values) <= _LARGEST_HALF):
            raise InputError(
                f"This model cannot be stored as float16, as weights exceed ±{_LARGEST_HALF:g} in "
                f"{old.name}."
            )
        values = values.astype(np.float16)
        compression = {
            "chunks": True,
            "shuffle": True,
            "compression": "gzip",
            "compression_opts": _DEFLATE_LEVEL,
        }
    new = parent.create_dataset(name, data=values, **compression)
    _copy_attributes(old, new)


def _copy_attributes(old: h5py.Group | h5py.Dataset, new: h5py.Group | h5py.Dataset) -> None:
    for key, value in old.attrs.items():
        new.attrs[key] = value
