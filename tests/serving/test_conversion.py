"""The converted network is free of slow operations and answers as Keras does."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import openvino as ov
import pytest

from real_vs_ai import Detector
from real_vs_ai.config import PACKAGED_RELEASED_MODEL_DIR
from real_vs_ai.errors import InputError
from real_vs_ai.model_file import write_metadata
from real_vs_ai.serving import engines
from real_vs_ai.serving.keras_graph import UnsupportedGraphError
from real_vs_ai.serving.openvino_layers import build_model
from tests.serving.trivial_model import METADATA

SIZE = 32
RELEASED = PACKAGED_RELEASED_MODEL_DIR / "model.h5"


def randomise(model) -> None:
    """Weights and statistics that are not the initial ones."""
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if "batch_normalization" in layer.name:
            layer.set_weights([generator.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
        elif getattr(layer, "bias", None) is not None:
            layer.bias.assign(generator.normal(0, 0.2, layer.bias.shape))


def images(n: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (n, size, size, 3)).astype(np.float32)


def answers(model: ov.Model, pixels: np.ndarray) -> np.ndarray:
    return ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(pixels)[0]


@pytest.fixture(scope="module")
def residual_model(tmp_path_factory) -> Path:
    """Two residual blocks as ResNet101 has them."""
    import keras

    keras.utils.set_random_seed(3)
    layers = keras.layers
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Conv2D(8, 3, strides=2, padding="same")(inputs)
    for _ in range(2):
        y = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same")(x))
        y = layers.Conv2D(8, 1)(layers.Activation("relu")(y))
        x = layers.Activation("relu")(layers.Add()([x, layers.BatchNormalization()(y)]))
    x = layers.GaussianNoise(0.5)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, layers.Dense(2, activation="softmax")(x))
    randomise(model)
    path = tmp_path_factory.mktemp("residual") / "model.h5"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def converted(residual_model) -> ov.Model:
    return build_model(residual_model)


def test_convolutions_follow_each_other_without_transposes_or_normalisation(converted):
    # The image itself arrives with its channels last.
    transposes = [n for n in converted.get_ordered_ops() if n.get_type_name() == "Transpose"]
    assert len(transposes) == 1
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = ov.Core().compile_model(converted, "CPU", settings).get_runtime_model()
    kinds = Counter(node.get_rt_info()["layerType"].value for node in compiled.get_ops())
    # The factors and sums of normalisation and residuals are done by the convolutions.
    assert kinds["Convolution"] == 5 and not kinds["Eltwise"] and not kinds["Subgraph"], kinds


def test_it_answers_as_keras_does_for_any_number_of_images(residual_model, converted):
    import keras

    compiled = ov.Core().compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    expected = keras.models.load_model(residual_model, compile=False).predict(images(5), verbose=0)
    assert expected.std() > 0.01
    np.testing.assert_allclose(compiled(images(5))[0], expected, atol=1e-5)
    np.testing.assert_allclose(compiled(images(1))[0], expected[:1], atol=1e-5)


@pytest.mark.skipif(not RELEASED.is_file(), reason="needs the released model")
def test_released_model_answers_as_in_keras(released_in_keras):
    expected = released_in_keras(images(4), training=False)
    np.testing.assert_allclose(answers(build_model(RELEASED), images(4)), expected, atol=1e-5)


def _convolutions(layers, x):
    x = layers.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)
    x = layers.ReLU()(layers.BatchNormalization(scale=False)(x))
    x = layers.Conv2D(8, 3, dilation_rate=2, groups=4, activation="relu")(x)
    return layers.Conv2D(6, (1, 3), strides=(1, 2))(x)


def _depthwise(layers, x):
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", strides=2)(x)
    x = layers.ReLU(6.0)(layers.BatchNormalization(center=False)(x))
    x = layers.DepthwiseConv2D((3, 1), activation="relu")(x)
    return layers.BatchNormalization()(layers.Conv2D(5, 1)(x))


def _pooling(layers, x):
    x = layers.ZeroPadding2D(((1, 0), (2, 3)))(x)
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    x = layers.AveragePooling2D(3, strides=2, padding="same")(layers.Conv2D(4, 1)(x))
    pooled = layers.GlobalAveragePooling2D(keepdims=True)(x)
    return layers.Concatenate()([x, layers.Multiply()([x, pooled])])


def _enlarging(layers, x):
    x = layers.UpSampling2D(2, interpolation="bilinear")(x)
    return layers.UpSampling2D((1, 3), interpolation="bilinear")(layers.Conv2D(4, 3, strides=3)(x))


def _rescaling(layers, x):
    x = layers.Rescaling([1 / 50, 1 / 60, 1 / 70], offset=[-1.0, 0.0, 1.0])(x)
    return layers.BatchNormalization()(layers.Subtract()([x, layers.Conv2D(3, 1)(x)]))


def _shapes(layers, x):
    x = layers.Activation("softmax")(layers.Conv2D(8, 4, strides=4)(x))
    x = layers.Flatten()(layers.Reshape((4, 16, 8))(x))
    x = layers.Reshape((2, -1, 3))(layers.Dense(48, activation="relu")(layers.Dropout(0.5)(x)))
    return layers.Multiply()([x, layers.GaussianNoise(0.2)(x)])


def mean_and_variance(layers, maps):
    mean = layers.GlobalAveragePooling2D(keepdims=True)(maps)
    centred = layers.Subtract()([maps, mean])
    variance = layers.GlobalAveragePooling2D(keepdims=True)(layers.Multiply()([centred, centred]))
    return layers.Concatenate()([mean, variance])


def mean_and_deviation(layers, maps):
    """Of maps in one column, as the heads by statistics of all stages have them."""
    column = layers.Reshape((-1, 1, maps.shape[-1]))(maps)
    mean = layers.GlobalAveragePooling2D(keepdims=True)(column)
    offsets = layers.Subtract()([column, mean])
    products = layers.Multiply()([offsets, layers.UnitNormalization(axis=1)(offsets)])
    return layers.Concatenate()([mean, layers.GlobalAveragePooling2D(keepdims=True)(products)])


def _variances(layers, x):
    return mean_and_variance(layers, layers.Conv2D(8, 3)(x))


def _column(layers, x):
    return mean_and_deviation(layers, layers.Conv2D(8, 3, strides=2)(x))


@pytest.mark.parametrize(
    "body",
    [_convolutions, _depthwise, _pooling, _enlarging, _rescaling, _shapes, _variances, _column],
    ids=lambda body: body.__name__.strip("_"),
)
def test_every_kind_of_layer_answers_as_in_keras(body, tmp_path):
    import keras

    keras.utils.set_random_seed(5)
    layers = keras.layers
    inputs = keras.Input((SIZE, SIZE, 3))
    x = body(layers, layers.Rescaling(1 / 127.5, offset=-1)(inputs))
    outputs = layers.Dense(3, activation="softmax")(layers.Flatten()(x))
    model = keras.Model(inputs, outputs)
    randomise(model)
    model.save(tmp_path / "model.h5")
    expected = model.predict(images(4), verbose=0)
    assert expected.std(axis=0).max() > 3e-4
    found = answers(build_model(tmp_path / "model.h5"), images(4))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_arithmetic_on_a_column_runs_along_a_row_without_transposes(tmp_path):
    import keras

    inputs = keras.Input((SIZE, SIZE, 3))
    x = keras.layers.Flatten()(_column(keras.layers, inputs))
    keras.Model(inputs, keras.layers.Dense(2)(x)).save(tmp_path / "model.h5")
    nodes = build_model(tmp_path / "model.h5").get_ordered_ops()
    widths = {
        node.output(0).get_partial_shape()[3].get_length()
        for node in nodes
        if node.get_type_name() in ("Subtract", "Multiply", "Divide")
    }
    assert widths == {15 * 15}
    # The image's, and the one before the classifier.
    assert sum(node.get_type_name() == "Transpose" for node in nodes) == 2


@pytest.fixture
def unusual_model(tmp_path) -> Path:
    """A model with a layer that has no builder."""
    import keras

    layers = keras.layers
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.GlobalAveragePooling2D()(layers.Cropping2D(2)(inputs))
    keras.Model(inputs, layers.Dense(2, activation="softmax")(x)).save(tmp_path / "model.h5")
    return tmp_path / "model.h5"


def test_unknown_layer_is_computed_by_keras(unusual_model):
    write_metadata(unusual_model, METADATA)
    detector = Detector.open(unusual_model)
    assert detector.engine.name == "keras"
    assert "Cropping2D" in detector.engine.note
    assert detector.predict(np.zeros((SIZE, SIZE, 3), np.uint8)).label in ("Fake", "Real")
    with pytest.raises(UnsupportedGraphError, match="Cropping2D"):
        Detector.open(unusual_model, engine="openvino")


def test_unknown_layer_without_tensorflow_names_the_command(unusual_model, monkeypatch):
    write_metadata(unusual_model, METADATA)
    monkeypatch.setattr(engines, "keras_is_installed", lambda: False)
    with pytest.raises(InputError, match=r"Cropping2D.*pip install -r requirements.txt"):
        Detector.open(unusual_model)


def test_file_that_is_no_model_is_refused_with_a_reason(tmp_path):
    broken = tmp_path / "model.h5"
    broken.write_bytes(b"no model")
    with pytest.raises(UnsupportedGraphError, match="conversion to OpenVINO failed") as caught:
        build_model(broken)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", ["kernel of another shape", "unknown operand", "no weights"])
def test_hostile_graphs_are_refused(residual_model, tmp_path, damage):
    path = tmp_path / "model.h5"
    path.write_bytes(residual_model.read_bytes())
    with h5py.File(path, "r+") as file:
        groups = file["model_weights"]
        group = groups[next(name for name in groups if name.startswith("dense"))]
        if damage == "kernel of another shape":
            kernel = str(next(n for n in group.attrs["weight_names"] if "kernel" in str(n)))
            del group[kernel]
            group[kernel] = np.zeros((5, 2), np.float32)
        elif damage == "no weights":
            group.attrs["weight_names"] = []
        else:
            config = str(file.attrs["model_config"])
            file.attrs["model_config"] = config.replace(
                '"keras_history": ["conv2d', '"keras_history": ["gone'
            )
    with pytest.raises(UnsupportedGraphError):
        build_model(path)
