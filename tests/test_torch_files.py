"""Weights in both of torch's file formats are read, and nothing else."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import pytest

from real_vs_ai.errors import InputError
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


def archive_bytes(state, storages, *, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("weights/data.pkl", tensor_pickle(state))
        for key, values in storages.items():
            archive.writestr(f"weights/data/{key}", values.tobytes())
    return file.getvalue()


def write_archive(path, state):
    """A file of today's format with these arrays in half precision."""
    tensors, storages = {}, {}
    for key, (name, array) in enumerate(state.items()):
        strides = np.cumprod([1, *array.shape[:0:-1]])[::-1]
        tensors[name] = Tensor("HalfStorage", str(key), array.shape, strides.tolist())
        storages[str(key)] = array.astype(np.float16)
    path.write_bytes(archive_bytes(tensors, storages))


def test_archive_gives_the_numbers_in_the_order_of_the_strides(tmp_path):
    storage = np.arange(6, dtype=np.float16)
    state = {"a": Tensor("HalfStorage", "0", (2, 2), (1, 3), 1)}
    (tmp_path / "w.pth").write_bytes(archive_bytes(state, {"0": storage}))
    assert read_state_dict(tmp_path / "w.pth")["a"].tolist() == [[1, 4], [2, 5]]


def test_old_format_gives_the_same_numbers(tmp_path):
    state = {"a": Tensor("FloatStorage", "0", (3,), (1,))}
    head = [pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {})]
    values = np.array([1, 2, 3], np.float32)
    body = [tensor_pickle(state), pickle.dumps(["0"], 2), struct.pack("<q", 3), values.tobytes()]
    (tmp_path / "w.pth").write_bytes(b"".join([*head, *body]))
    assert read_state_dict(tmp_path / "w.pth")["a"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [((4,), (1,), 0), ((2,), (9,), 0), ((2,), (-1,), 1), ((1,), (1,), -1), ((9**9,), (0,), 0)],
)
def test_tensor_beyond_its_storage_is_refused(tmp_path, shape, strides, offset):
    state = {"a": Tensor("HalfStorage", "0", shape, strides, offset)}
    path = tmp_path / "w.pth"
    path.write_bytes(archive_bytes(state, {"0": np.zeros(3, np.float16)}))
    with pytest.raises(InputError, match="torch state dict"):
        read_state_dict(path)


def test_damaged_archives_are_refused_in_one_line(tmp_path):
    state = {"a": Tensor("HalfStorage", "0", (64,), (1,))}
    storages = {"0": np.ones(64, np.float16)}
    whole_file = archive_bytes(state, storages)
    changed = whole_file.replace(np.ones(64, np.float16).tobytes(), bytes(128))
    path = tmp_path / "w.pth"
    for content in (
        whole_file[: len(whole_file) // 2],
        changed,
        archive_bytes(state, {}),
        archive_bytes(state, storages, compression=zipfile.ZIP_DEFLATED),
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
@pytest.mark.parametrize("in_archive", [False, True])
def test_foreign_files_are_refused_and_run_nothing(tmp_path, capsys, content, in_archive):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    if in_archive:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("weights/data.pkl", content)
    with pytest.raises(InputError, match="torch"):
        read_state_dict(path)
    assert not capsys.readouterr().out
