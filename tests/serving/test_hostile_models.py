"""A model file whose configuration does not fit its weights is refused before memory is taken."""

from __future__ import annotations

import json
import shutil

import h5py
import pytest

import ImageScoring
from real_vs_ai.models import keras_models
from real_vs_ai.models.model_file import ModelFileError, check_weights
from real_vs_ai.serving.detector import Detector
from tests.serving.conftest import model_path  # noqa: F401 (a fixture)
from tests.serving.trivial_model import encode, uniform_image


@pytest.fixture
def hostile(model_path, tmp_path):  # noqa: F811
    return shutil.copy(model_path, tmp_path / "model.h5")


def configure(path, layer: str, **options) -> None:
    """Change a layer's options in the file, and leave its weights."""
    with h5py.File(path, "r+") as file:
        model = json.loads(file.attrs["model_config"])
        found = next(one for one in model["config"]["layers"] if one["config"]["name"] == layer)
        found["config"].update(options)
        file.attrs["model_config"] = json.dumps(model)


@pytest.mark.parametrize(
    ("layer", "options"),
    [
        ("outputs", {"units": 2_000_000_000}),
        ("outputs", {"units": 3_000}),
        ("last_conv", {"filters": 1_000_000}),
        ("last_conv", {"padding": [[10**7, 10**7], [1, 1]]}),
    ],
)
@pytest.mark.parametrize("engine", [None, "openvino", "keras"])
def test_sizes_that_no_weights_have_are_refused(hostile, layer, options, engine, monkeypatch):
    configure(hostile, layer, **options)
    monkeypatch.setattr(keras_models, "import_keras_quietly", lambda: pytest.fail("Keras loads it"))
    with pytest.raises(ModelFileError, match=f"'{layer}'.*damaged") as refused:
        Detector.open(hostile, engine=engine)
    assert "\n" not in str(refused.value)


def test_weights_that_the_file_only_declares_are_refused(hostile):
    with h5py.File(hostile, "r+") as file:
        group = next(iter(file["model_weights"]["outputs"].values()))
        while not isinstance(next(iter(group.values())), h5py.Dataset):
            group = next(iter(group.values()))
        del group["kernel"]
        group.create_dataset("kernel", shape=(10**6, 10**6), chunks=(100, 100), dtype="f4")
    with pytest.raises(ModelFileError, match="declares 4,000,0"):
        Detector.open(hostile)


def test_ordinary_models_pass(model_path, tmp_path):  # noqa: F811
    check_weights(model_path)
    (tmp_path / "no-model.h5").write_bytes(b"not HDF5")
    check_weights(tmp_path / "no-model.h5")


def test_the_command_line_says_so_in_one_line(hostile, tmp_path, capsys):
    configure(hostile, "outputs", units=2_000_000_000)
    (tmp_path / "a.png").write_bytes(encode(uniform_image(200)))
    assert ImageScoring.main([str(tmp_path / "a.png"), "--model", str(hostile)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: Expected the weights of units 2,000,000,000")
    assert error.count("\n") == 1
