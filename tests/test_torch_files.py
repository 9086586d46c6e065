"""Weights in a file of torch's first format are read, and nothing else."""

import pickle
import struct
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import pytest

from real_vs_ai.core.errors import InputError
from real_vs_ai.networks.torch_files import read_state_dict


class Tensor(NamedTuple):
    """What torch notes about a tensor."""

    kind: str
    key: str
    shape: tuple
    strides: tuple
    offset: int = 0


def tensor_pickle(state):
    """What torch writes for a state dict of `Tensor`s, protocol 2."""
    parts = [b"\x80\x02}("]
    for name, tensor in state.items():
        kind, key, shape, strides, offset = tensor
        number = [text(name), b"ctorch._utils\n_rebuild_tensor_v2\n(("]
        number += [text("storage"), f"ctorch\n{kind}\n".encode(), text(key), text("cpu")]
        number += [b"K\x01tQ", whole(offset), numbers(shape), numbers(strides), b"\x89}tR"]
        parts += number
    return b"".join([*parts, b"u."])


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def whole(value):
    return b"J" + struct.pack("<i", value)


def numbers(values):
    return b"(" + b"".join(map(whole, values)) + b"t"


def file_bytes(state, storage):
    """A file of tensors that share one storage."""
    parts = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {})]
    count = struct.pack("<q", len(storage))
    return b"".join(
        [*parts, tensor_pickle(state), pickle.dumps(["0"], 2), count, storage.tobytes()]
    )


def test_file_gives_the_numbers_in_the_order_of_the_strides(tmp_path):
    state = {
        "a": Tensor("FloatStorage", "0", (2, 2), (1, 3), 1),
        "b": Tensor("FloatStorage", "0", (3,), (1,)),
    }
    (tmp_path / "w.pth").write_bytes(file_bytes(state, np.arange(6, dtype=np.float32)))
    read = read_state_dict(tmp_path / "w.pth")
    assert {name: array.tolist() for name, array in read.items()} == {
        "a": [[1, 4], [2, 5]],
        "b": [0, 1, 2],
    }


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [((4,), (1,), 0), ((2,), (9,), 0), ((2,), (-1,), 1), ((1,), (1,), -1), ((9**9,), (0,), 0)],
)
def test_tensor_beyond_its_storage_is_refused(tmp_path, shape, strides, offset):
    state = {"a": Tensor("FloatStorage", "0", shape, strides, offset)}
    path = tmp_path / "w.pth"
    path.write_bytes(file_bytes(state, np.zeros(3, np.float32)))
    with pytest.raises(InputError, match="torch state dict"):
        read_state_dict(path)


def test_damaged_files_are_refused_in_one_line(tmp_path):
    state = {"a": Tensor("FloatStorage", "0", (64,), (1,))}
    whole_file = file_bytes(state, np.ones(64, np.float32))
    other_key = {"a": Tensor("FloatStorage", "1", (64,), (1,))}
    path = tmp_path / "w.pth"
    for content in (
        whole_file[: len(whole_file) // 2],
        whole_file[:-4],
        file_bytes(other_key, np.ones(64, np.float32)),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match="torch state dict") as error:
            read_state_dict(path)
        assert "\n" not in str(error.value)


class Runs:
    def __reduce__(self):
        return (print, ("code from the file ran",))


@pytest.mark.parametrize(
    "content",
    [pickle.dumps(Runs()), b"", b"no pickle", b"\x80\x02.", pickle.dumps(OrderedDict(a=1))],
)
def test_foreign_files_are_refused_and_run_nothing(tmp_path, capsys, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(InputError, match="torch"):
        read_state_dict(path)
    assert not capsys.readouterr().out
