"""Compiled graphs give the Grad-CAM maps that Keras gives."""

from __future__ import annotations

import numpy as np
import pytest

from real_vs_ai.config import PACKAGED_RELEASED_MODEL_DIR
from real_vs_ai.gradcam import GradCam
from real_vs_ai.serving import explanation
from real_vs_ai.serving.explanation import CompiledGradCam, Explainer
from real_vs_ai.serving.keras_graph import UnsupportedGraphError
from tests.serving.test_conversion import randomise
from tests.serving.trivial_model import METADATA, uniform_image, write_metadata

SIZE = 32
RELEASED = PACKAGED_RELEASED_MODEL_DIR / "model.h5"


def photographs(n: int) -> list[np.ndarray]:
    return list(np.random.default_rng(2).integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8))


def assert_same_maps(model, path, *, n_classes: int) -> None:
    by_keras, compiled = GradCam(model), CompiledGradCam(path)
    assert compiled.layer_name == by_keras.layer_name
    images = photographs(n_classes)
    expected = by_keras(images, class_indices=range(n_classes))
    found = compiled(images, class_indices=range(n_classes))
    assert max(heatmap.max() for heatmap in expected) == 1
    np.testing.assert_allclose(found, expected, atol=1e-3)


def _dense_head(layers, maps):
    hidden = layers.Dense(16, activation="relu")(layers.GlobalAveragePooling2D()(maps))
    return layers.Dropout(0.4)(hidden)


def _residual_tail(layers, maps):
    """Strided blocks after the last layer with enough cells, as in ResNet at 32 pixels."""
    x = layers.Conv2D(8, 3, strides=2, padding="same")(maps)
    y = layers.Conv2D(8, 3, padding="same")(layers.ReLU()(layers.BatchNormalization()(x)))
    x = layers.Activation("relu")(layers.Add()([x, layers.BatchNormalization()(y)]))
    return layers.GlobalAveragePooling2D()(layers.ZeroPadding2D(1)(x))


def _mobile_tail(layers, maps):
    x = layers.DepthwiseConv2D(3, strides=2, padding="same")(maps)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.Conv2D(8, 2, strides=2, activation="silu")(x)
    return layers.Flatten()(layers.Conv2D(4, 1, activation="sigmoid")(x))


def _deviation_head(layers, maps):
    mean = layers.GlobalAveragePooling2D(keepdims=True)(maps)
    centred = layers.Subtract()([maps, mean])
    variance = layers.GlobalAveragePooling2D(keepdims=True)(layers.Multiply()([centred, centred]))
    return layers.Flatten()(layers.Concatenate()([mean, layers.Activation("tanh")(variance)]))


def _stages_head(layers, maps):
    """As `--pooling stages` makes it: mean and deviation, standardised and cut off."""
    column = layers.Reshape((-1, 1, maps.shape[-1]))(maps)
    mean = layers.GlobalAveragePooling2D(keepdims=True)(column)
    offsets = layers.Subtract()([column, mean])
    products = layers.Multiply()([offsets, layers.UnitNormalization(axis=1)(offsets)])
    parts = [layers.Flatten()(mean), layers.GlobalAveragePooling2D()(products)]
    x = layers.BatchNormalization()(layers.Concatenate()(parts))
    return layers.ReLU(max_value=12.0)(layers.Rescaling(1.0, offset=6.0)(x))


def _average_head(layers, maps):
    return layers.Flatten()(layers.AveragePooling2D(3)(maps))


@pytest.mark.parametrize(
    "head",
    [_dense_head, _residual_tail, _mobile_tail, _deviation_head, _stages_head, _average_head],
    ids=lambda head: head.__name__.strip("_"),
)
def test_maps_are_those_of_keras(head, tmp_path):
    import keras

    keras.utils.set_random_seed(7)
    layers = keras.layers
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    maps = layers.Conv2D(8, 5, strides=4, padding="same", activation="relu", name="maps")(x)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(head(layers, maps)))
    randomise(model)
    model.save(tmp_path / "model.h5")
    assert_same_maps(model, tmp_path / "model.h5", n_classes=3)


@pytest.mark.skipif(not RELEASED.is_file(), reason="needs the released model")
def test_released_model_has_the_maps_of_keras(released_in_keras):
    assert_same_maps(released_in_keras, RELEASED, n_classes=2)


@pytest.fixture
def pooled_model(tmp_path):
    """Its last feature maps with enough cells are followed by a maximum, which has no rule."""
    import keras

    layers = keras.layers
    inputs = keras.Input((SIZE, SIZE, 3))
    maps = layers.Conv2D(4, 4, strides=8)(inputs)
    x = layers.GlobalAveragePooling2D()(layers.MaxPooling2D(2)(maps))
    model = keras.Model(inputs, layers.Dense(2, activation="softmax")(x))
    model.save(tmp_path / "model.h5")
    write_metadata(tmp_path / "model.h5", METADATA)
    return tmp_path / "model.h5"


def test_heads_without_a_rule_are_explained_by_keras(pooled_model):
    with pytest.raises(UnsupportedGraphError, match="MaxPool"):
        CompiledGradCam(pooled_model)
    explained = Explainer(pooled_model).explain(uniform_image(90), class_name="Fake")
    assert explained.heatmap.shape == (40, 48)


def test_head_without_gradient_rule_names_the_install_command(pooled_model, monkeypatch):
    monkeypatch.setattr(explanation, "keras_is_installed", lambda: False)
    with pytest.raises(ValueError, match=r"MaxPool.*pip install -r requirements.txt"):
        Explainer(pooled_model).explain(uniform_image(90), class_name="Fake")


def test_classes_that_the_model_does_not_have_are_refused(model_path):
    with pytest.raises(ValueError, match="below 2"):
        CompiledGradCam(model_path)(photographs(1), class_indices=[2])
