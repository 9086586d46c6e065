"""The graph in a model file answers as Keras does, with the weights that the file holds."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import openvino as ov
import pytest

import ModelEvaluation
from real_vs_ai import Detector
from real_vs_ai.core.errors import InputError
from real_vs_ai.models import openvino_form
from real_vs_ai.models.keras_models import save_model
from real_vs_ai.models.model_file import ModelFileError, write_metadata
from real_vs_ai.models.openvino_form import OpenVINOFormError, read_form, write_form
from real_vs_ai.serving import engines
from tests.serving.trivial_model import METADATA

SIZE = 32
_GROUP = "real_vs_ai_openvino"


def images(n: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n, SIZE, SIZE, 3)).astype(np.float32)


def answers(path: Path, pixels: np.ndarray, *, layer: str | None = None) -> list[np.ndarray]:
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = ov.Core().compile_model(read_form(path, layer=layer), "CPU", settings)
    return list(compiled(pixels).values())


def randomise(model) -> None:
    """Weights and statistics that are not the initial ones."""
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if "batch_normalization" in layer.name:
            layer.set_weights([generator.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])


def residual(layers):
    """Two blocks as ResNet has them, noise, and a hidden layer."""
    x = inputs = layers.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same")(layers.Rescaling(1 / 127.5, offset=-1)(x))
    for _ in range(2):
        y = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(x))
        x = layers.Add()([x, layers.Activation("relu")(y)])
    x = layers.GaussianNoise(0.5)(layers.GlobalAveragePooling2D()(x))
    x = layers.Dropout(0.5)(layers.Dense(5, activation="relu", name="hidden")(x))
    return inputs, layers.Dense(2, activation="softmax")(x)


def mobile(layers):
    """Depthwise and grouped convolutions, pooling by mean and deviation, an unusual layer."""
    x = inputs = layers.Input((SIZE, SIZE, 3))
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", strides=2)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization(center=False)(x))
    x = layers.Conv2D(8, 3, groups=2)(layers.UpSampling2D(2, interpolation="bilinear")(x))
    x = layers.Reshape((-1, 1, 8))(layers.Cropping2D(2)(x))
    offsets = layers.Subtract()([x, layers.GlobalAveragePooling2D(keepdims=True)(x)])
    products = layers.Multiply()([offsets, layers.UnitNormalization(axis=1)(offsets)])
    return inputs, layers.Dense(2, activation="softmax")(
        layers.Flatten()(layers.GlobalAveragePooling2D(keepdims=True)(products))
    )


def nested(layers):
    """A network used as a layer, as Keras' examples of transfer learning have it."""
    import keras

    body = keras.Sequential([layers.Input((SIZE, SIZE, 3)), layers.Conv2D(4, 3), layers.Flatten()])
    inputs = layers.Input((SIZE, SIZE, 3))
    x = layers.Rescaling(1 / 255)(inputs)
    return inputs, layers.Dense(2, activation="softmax")(body(x))


def make(build):
    import keras

    keras.utils.set_random_seed(3)
    model = keras.Model(*build(keras.layers))
    randomise(model)
    return model


@pytest.fixture(scope="module")
def model():
    return make(residual)


@pytest.fixture
def path(model, tmp_path) -> Path:
    save_model(model, tmp_path / "model.h5", metadata=METADATA)
    return tmp_path / "model.h5"


@pytest.mark.parametrize("build", [residual, mobile, nested], ids=lambda build: build.__name__)
def test_it_answers_as_keras_does_for_any_number_of_images(build, tmp_path):
    model, path = make(build), tmp_path / "model.h5"
    save_model(model, path, metadata=METADATA)
    expected = model.predict(images(5), verbose=0)
    assert expected.std(axis=0).max() > 1e-4
    np.testing.assert_allclose(answers(path, images(5))[0], expected, atol=1e-5)
    np.testing.assert_allclose(answers(path, images(1))[0], expected[:1], atol=1e-5)


def test_features_of_a_layer_are_the_second_output(model, path):
    import keras

    hidden = keras.Model(model.inputs, model.get_layer("hidden").output)
    found = answers(path, images(3), layer="hidden")
    np.testing.assert_allclose(found[1], hidden.predict(images(3), verbose=0), atol=1e-5)
    assert len(answers(path, images(3), layer="no such layer")) == 1


def test_weights_lie_in_the_file_once(tmp_path):
    import keras

    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Dense(100, activation="relu")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))
    model.save(tmp_path / "model.h5")
    before = (tmp_path / "model.h5").stat().st_size
    write_form(tmp_path / "model.h5", model)
    assert before > 1_000_000 and (tmp_path / "model.h5").stat().st_size < before + 30_000


@pytest.mark.parametrize("number_type", [np.float32, np.float16])
def test_weights_are_those_that_the_file_holds_now(model, path, number_type):
    import keras

    with h5py.File(path, "r+") as file:
        name = next(iter(file["model_weights/hidden"].attrs["weight_names"]))
        group, name = file["model_weights/hidden"], str(name)
        changed = np.random.default_rng(2).normal(size=group[name].shape).astype(number_type)
        del group[name]
        group[name] = changed
    again = keras.models.load_model(path, compile=False)
    expected = again.predict(images(3), verbose=0)
    assert np.abs(expected - model.predict(images(3), verbose=0)).max() > 0.01
    np.testing.assert_allclose(answers(path, images(3))[0], expected, atol=1e-5)


def test_graph_of_another_network_is_not_used(path, tmp_path):
    other = make(nested)
    other.save(tmp_path / "other.h5")
    write_metadata(tmp_path / "other.h5", METADATA)
    with h5py.File(path) as source, h5py.File(tmp_path / "other.h5", "r+") as target:
        source.copy(_GROUP, target)
    detector = Detector.open(tmp_path / "other.h5")
    assert detector.engine.name == "keras"
    assert "graph of another network" in detector.engine.note
    with pytest.raises(OpenVINOFormError, match="another network"):
        Detector.open(tmp_path / "other.h5", engine="openvino")


@pytest.fixture
def without_graph(model, tmp_path) -> Path:
    """A file that plain Keras wrote, with metadata."""
    model.save(tmp_path / "plain.h5")
    write_metadata(tmp_path / "plain.h5", METADATA)
    return tmp_path / "plain.h5"


def test_file_without_a_graph_runs_in_keras_and_names_the_command(without_graph):
    detector = Detector.open(without_graph)
    assert detector.engine.name == "keras"
    command = f"python ModelEvaluation.py --openvino --model {without_graph}"
    assert command in detector.engine.note
    assert detector.predict(np.zeros((SIZE, SIZE, 3), np.uint8)).label in ("Fake", "Real")


def test_file_without_a_graph_needs_tensorflow_installed(without_graph, monkeypatch):
    monkeypatch.setattr(engines, "keras_is_installed", lambda: False)
    with pytest.raises(InputError, match=r"holds no graph.*pip install -r requirements.txt"):
        Detector.open(without_graph)


def test_the_command_writes_the_graph(model, without_graph, capsys):
    assert ModelEvaluation.main(["--openvino", "--model", str(without_graph)]) == 0
    assert "now holds the graph that OpenVINO runs" in capsys.readouterr().out
    assert Detector.open(without_graph).engine.name == "openvino"
    expected = model.predict(images(3), verbose=0)
    np.testing.assert_allclose(answers(without_graph, images(3))[0], expected, atol=1e-5)


def test_graph_that_answers_otherwise_is_not_written(model, without_graph, monkeypatch, capsys):
    import keras

    convert = openvino_form._convert
    swapped = keras.layers.Rescaling(-1.0, offset=1.0)(model.outputs[0])
    other = keras.Model(model.inputs, swapped)
    before = without_graph.read_bytes()
    monkeypatch.setattr(openvino_form, "_convert", lambda _, weights: convert(other, weights))
    assert ModelEvaluation.main(["--openvino", "--model", str(without_graph)]) == 1
    assert "differ from Keras'" in capsys.readouterr().err
    assert without_graph.read_bytes() == before


def test_network_that_cannot_be_converted_is_saved_for_keras(model, tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("no such operation\nin OpenVINO")

    monkeypatch.setattr(openvino_form, "_convert", fail)
    with caplog.at_level(logging.WARNING):
        save_model(model, tmp_path / "model.h5", metadata=METADATA)
    assert "runs in Keras alone: conversion to OpenVINO failed: no such operation" in caplog.text
    assert Detector.open(tmp_path / "model.h5").engine.name == "keras"


def damage_shape(file: h5py.File) -> None:
    group = file["model_weights/hidden"]
    name = str(next(iter(group.attrs["weight_names"])))
    del group[name]
    group[name] = np.zeros((5, 2), np.float32)


def damage_weights(file: h5py.File) -> None:
    del file["model_weights/hidden"]


def damage_graph(file: h5py.File) -> None:
    text = file[_GROUP]["xml"][: 2**9]
    del file[_GROUP]["xml"]
    file[_GROUP]["xml"] = text


def damage_group(file: h5py.File) -> None:
    del file[_GROUP].attrs["fingerprint"]


@pytest.mark.parametrize(
    "damage",
    [damage_shape, damage_weights, damage_graph, damage_group],
    ids=lambda damage: damage.__name__,
)
def test_damaged_files_are_refused_in_one_line(path, damage):
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises((OpenVINOFormError, ModelFileError)) as caught:
        read_form(path, layer=None)
    assert "\n" not in str(caught.value)


def test_file_that_is_no_model_is_refused_with_a_reason(tmp_path):
    (tmp_path / "model.h5").write_bytes(b"no model")
    with pytest.raises(OpenVINOFormError, match="cannot be read"):
        Detector.open_file(tmp_path / "model.h5", METADATA, engine="openvino")


@pytest.mark.slow
def test_a_run_on_another_library_has_its_graph_written_too(tmp_path):
    code = (
        "import sys, pathlib\n"
        "from real_vs_ai.models.keras_models import save_model\n"
        "from tests.serving.trivial_model import METADATA, build_brightness_model\n"
        "model = build_brightness_model(METADATA.class_names)\n"
        "save_model(model, pathlib.Path(sys.argv[1]), metadata=METADATA)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "model.h5"],
        env=os.environ | {"KERAS_BACKEND": "openvino"},
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert read_form(tmp_path / "model.h5", layer=None).input().partial_shape[1] == SIZE
