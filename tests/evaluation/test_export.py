"""Every exported file gives the same probabilities, or is not written."""

import json

import numpy as np
import pytest

from real_vs_ai.evaluation import export
from real_vs_ai.evaluation.export import FORMATS, export_model
from real_vs_ai.model_file import ModelMetadata, read_metadata
from real_vs_ai.out_of_distribution.check import OutOfDistributionCheck, read_check
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


def residual_model():
    """Every kind of layer that ResNets and their heads are made of, with random weights."""
    import keras

    keras.utils.set_random_seed(3)
    layers = keras.layers
    inputs = keras.Input((32, 32, 3))
    x = layers.Rescaling(1.0, offset=[-123.68, -116.779, -103.939])(inputs)
    x = layers.ZeroPadding2D(((3, 2), (1, 3)))(x)
    x = layers.Conv2D(8, 7, strides=2, name="stem.conv")(x)
    x = layers.BatchNormalization(epsilon=1.001e-5)(x)
    x = layers.Activation("relu")(x)
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    shortcut = layers.Conv2D(12, 1, strides=2)(x)
    x = layers.Conv2D(12, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.BatchNormalization(scale=False, center=False)(x)
    x = layers.ReLU()(layers.Add()([shortcut, x]))
    x = layers.GaussianNoise(0.1)(x)
    x = layers.Flatten()(layers.AveragePooling2D(2)(x))
    x = layers.Dropout(0.4)(layers.Dense(6, activation="relu")(x))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(x))
    generator = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.moving_mean.assign(generator.normal(size=layer.moving_mean.shape))
            layer.moving_variance.assign(generator.uniform(0.5, 2, layer.moving_mean.shape))
    return model


def test_built_in_formats_are_written_and_checked_on_every_image(tmp_path):
    results = export_to(tmp_path, "keras", "openvino")
    assert [result.name for result in results] == ["keras", "openvino"]
    for result in results:
        assert result.error == ""
        assert result.difference < 1e-5
        assert result.n == 200
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
    loaded = keras.models.load_model(result.path)
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


def test_saved_model_serves_without_keras(tmp_path):
    import keras
    import tensorflow as tf

    # Models whose input is a list of one must not ask their callers for a list.
    model = colour_model()
    in_list = keras.Model([model.inputs[0]], model.outputs)
    (result,) = export_to(tmp_path, "savedmodel", model=in_list)
    assert result.error == ""
    served = tf.saved_model.load(str(result.path))
    images = PIXELS[:3].astype(np.float32)
    expected = model.predict(images, verbose=0)
    assert served.serve(images).numpy() == pytest.approx(expected, abs=1e-6)


@pytest.mark.optional
@pytest.mark.parametrize(
    ("name", "package"), [("onnx", "onnx"), ("litert", "ai_edge_litert"), ("torch", "torch")]
)
def test_optional_formats_are_written_or_name_their_package(tmp_path, name, package):
    (result,) = export_to(tmp_path, name)
    try:
        __import__(package)
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

    wrong = export._Format("model.keras", FORMATS["keras"].write, load_undecided)
    monkeypatch.setitem(export.FORMATS, "keras", wrong)
    (result,) = export_to(tmp_path, "keras")
    assert "differ by up to" in result.error
    assert result.difference > 0.1
    assert {path.name for path in tmp_path.iterdir()} == {"metadata.json"}


def test_earlier_export_stays_when_a_new_one_fails(tmp_path, monkeypatch):
    (first,) = export_to(tmp_path, "keras")
    before = first.path.read_bytes()

    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setitem(
        export.FORMATS, "keras", export._Format("model.keras", fail, FORMATS["keras"].load)
    )
    (second,) = export_to(tmp_path, "keras")
    assert second.error == "No space left on device"
    assert first.path.read_bytes() == before


@pytest.mark.optional
def test_pytorch_gives_the_same_probabilities_as_keras(tmp_path):
    pytest.importorskip("torch", reason="torch is optional")
    pixels = np.random.default_rng(2).integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    (result,) = export_to(tmp_path, "torch", model=residual_model(), pixels=pixels)
    assert result.error == ""
    assert result.difference < 1e-5
