"""OpenVINO's form of a model: what makes it fast is in it, and it answers as Keras does."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from real_vs_ai.serving.conversion import IR_NAME, ConversionError, convert

SIZE = 32


@pytest.fixture(scope="module")
def residual_model(tmp_path_factory) -> Path:
    """Two residual blocks as ResNet101 has them, with statistics that are not the initial ones."""
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
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([generator.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    path = tmp_path_factory.mktemp("residual") / "model.h5"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def converted(residual_model, tmp_path_factory) -> ov.Model:
    path = convert(residual_model, output_dir=tmp_path_factory.mktemp("converted"))
    return ov.Core().read_model(path)


def test_no_layout_changes_and_no_normalisation_are_left_between_the_convolutions(converted):
    kinds = Counter(node.get_type_name() for node in converted.get_ordered_ops())
    assert kinds["Convolution"] == 5
    # The image itself arrives with its channels last.
    assert kinds["Transpose"] == 1
    assert kinds["BatchNormInference"] == 0
    # The normalisation's factor is in the weights, its offset in one sum after each convolution.
    assert kinds["Multiply"] == 0
    assert kinds["Add"] <= 5 + 2 + 1


def test_it_answers_as_keras_does_for_any_number_of_images(residual_model, converted):
    import keras

    compiled = ov.Core().compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    images = np.random.default_rng(1).integers(0, 256, (5, SIZE, SIZE, 3)).astype(np.float32)
    expected = keras.models.load_model(residual_model, compile=False).predict(images, verbose=0)
    assert expected.std() > 0.01
    np.testing.assert_allclose(compiled(images)[0], expected, atol=1e-5)
    np.testing.assert_allclose(compiled(images[:1])[0], expected[:1], atol=1e-5)


def test_nothing_in_the_current_folder_is_run(residual_model, tmp_path, monkeypatch):
    (tmp_path / "numpy.py").write_text("open('was_run', 'w').close(); raise SystemExit")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    assert convert(residual_model, output_dir=tmp_path / "out").is_file()
    assert not (tmp_path / "was_run").exists()


def test_a_file_that_is_no_model_says_why_and_leaves_no_form(tmp_path):
    broken = tmp_path / "model.h5"
    broken.write_bytes(b"no model")
    with pytest.raises(ConversionError, match="conversion to OpenVINO failed") as caught:
        convert(broken, output_dir=tmp_path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / IR_NAME).exists()
