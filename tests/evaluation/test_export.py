"""Every exported file gives the same probabilities, or is not written."""

import dataclasses
import json

import numpy as np
import pytest

from real_vs_ai.evaluation import export
from real_vs_ai.evaluation.export import FORMATS, export_model
from real_vs_ai.model_file import ModelMetadata, read_metadata
from real_vs_ai.out_of_distribution.check import OutOfDistributionCheck, read_check
from real_vs_ai.serving.openvino_engine import OpenVINOEngine
from tests.evaluation.evaluation_material import SIZE, colour_model

METADATA = ModelMetadata(class_names=("Fake", "Real"), image_size=SIZE, temperature=1.7)
PIXELS = np.random.default_rng(0).integers(0, 256, (200, SIZE, SIZE, 3), dtype=np.uint8)


def export_to(folder, *formats, model=None, check=None, pixels=PIXELS):
    return export_model(
        model or colour_model(),
        formats=formats,
        folder=folder,
        metadata=METADATA,
        check=check,
        pixels=pixels,
    )


def test_file_is_checked_on_every_image_and_described(tmp_path):
    (result,) = export_to(tmp_path, "compact")
    assert (result.name, result.error, result.n) == ("compact", "", 200)
    assert result.difference < 1e-5
    assert result.path.exists()
    metadata = json.loads((tmp_path / "metadata.json").read_text())
    assert metadata["class_names"] == ["Fake", "Real"]
    assert metadata["temperature"] == 1.7


def test_compact_file_is_smaller_and_loads_with_plain_keras(tmp_path):
    import h5py
    import keras

    keras.utils.set_random_seed(1)
    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Conv2D(256, 3, activation="relu")(keras.layers.Rescaling(1 / 255)(inputs))
    x = keras.layers.BatchNormalization()(keras.layers.Conv2D(64, 3)(x))
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))
    check = OutOfDistributionCheck(
        layer=model.layers[-2].name,
        means=np.ones((2, 64), np.float32) / 3,
        whitening=np.eye(64, dtype=np.float32) / 3,
        largest_distance=2.0,
        least_sharpness=1.0,
        largest_sharpness=9.0,
    )
    (result,) = export_to(tmp_path, "compact", model=model, check=check)
    assert result.error == ""
    assert result.difference < 1e-3
    # The out-of-distribution check goes along, and keeps its precision.
    np.testing.assert_array_equal(read_check(result.path).whitening, check.whitening)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".h5"] == ["model.h5"]
    assert result.path.stat().st_size < 0.6 * 4 * model.count_params()
    assert read_metadata(result.path) == METADATA
    # The halved weights are those of the graph that OpenVINO runs.
    engine = OpenVINOEngine(result.path, image_size=SIZE, precision="f32")
    loaded = keras.models.load_model(result.path)
    expected = loaded.predict(PIXELS[:4].astype(np.float32), verbose=0)
    np.testing.assert_allclose(engine.predict(PIXELS[:4])[:, :2], expected, atol=1e-5)
    assert {weight.dtype for weight in loaded.weights} == {"float32"}
    # Losslessly compressed: what is read is the float16 of every large array.
    for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
        expected = theirs.astype(np.float16) if theirs.size >= 4096 else theirs
        np.testing.assert_array_equal(ours, expected.astype(np.float32))
    with h5py.File(result.path) as file:
        assert not any(name.startswith("optimizer") for name in file)


def test_compact_file_refuses_weights_that_float16_cannot_hold(tmp_path):
    import keras

    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(512, 3)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))
    kernel, bias = model.layers[1].get_weights()
    kernel[0, 0, 0, 0] = 1e6
    model.layers[1].set_weights([kernel, bias])
    (result,) = export_to(tmp_path, "compact", model=model)
    assert "cannot be stored as float16" in result.error
    assert not (tmp_path / "model.h5").exists()


@pytest.mark.optional
def test_onnx_is_written_or_names_its_package(tmp_path):
    import keras

    # Models whose input is a list of one must not ask their callers for a list.
    model = colour_model()
    (result,) = export_to(tmp_path, "onnx", model=keras.Model([model.inputs[0]], model.outputs))
    try:
        __import__("onnx")
    except ImportError:
        assert ".[export]" in result.error
        assert result.path is None
        assert {path.name for path in tmp_path.iterdir()} == {"metadata.json"}
    else:
        assert result.error == ""
        assert result.difference < 1e-5


def test_file_that_answers_otherwise_is_not_written(tmp_path, monkeypatch):
    def load_undecided(path):
        return lambda images: np.full((len(images), 2), 0.5)

    wrong = dataclasses.replace(FORMATS["compact"], load=load_undecided)
    monkeypatch.setitem(export.FORMATS, "compact", wrong)
    (result,) = export_to(tmp_path, "compact")
    assert "differ by up to" in result.error
    assert result.difference > 0.1
    assert {path.name for path in tmp_path.iterdir()} == {"metadata.json"}


def test_earlier_export_stays_when_a_new_one_fails(tmp_path, monkeypatch):
    (first,) = export_to(tmp_path, "compact")
    before = first.path.read_bytes()

    def fail(*_):
        raise OSError("No space left on device")

    failing = dataclasses.replace(FORMATS["compact"], write=fail)
    monkeypatch.setitem(export.FORMATS, "compact", failing)
    (second,) = export_to(tmp_path, "compact")
    assert second.error == "No space left on device"
    assert first.path.read_bytes() == before
