"""Heat maps show the evidence where the model sees it, as Keras would compute them."""

from __future__ import annotations

import numpy as np
import pytest

from real_vs_ai.config import PACKAGED_RELEASED_MODEL_DIR
from real_vs_ai.serving.explanation import GradCam, overlay_heatmap
from real_vs_ai.serving.keras_graph import UnsupportedGraphError
from tests.serving.test_conversion import mean_and_deviation, mean_and_variance, randomise

SIZE = 32
RELEASED = PACKAGED_RELEASED_MODEL_DIR / "model.h5"


def photographs(n: int) -> list[np.ndarray]:
    return list(np.random.default_rng(2).integers(0, 256, (n, SIZE, SIZE, 3), dtype=np.uint8))


def maps_of_keras(model, layer: str, images, *, classes) -> np.ndarray:
    """Grad-CAM by TensorFlow's own gradient, of images as large as the input, 0 to 1."""
    import keras
    import tensorflow as tf

    last = model.layers[-1]
    parts = keras.Model(model.inputs, [model.get_layer(layer).output, last.input])
    with tf.GradientTape() as tape:
        maps, features = parts(np.stack(images).astype(np.float32), training=False)
        logits = tf.matmul(features, last.kernel) + last.bias
        own = tf.one_hot(classes, last.units)
        others = tf.reduce_logsumexp(logits - 1e30 * own, axis=1)
        log_odds = tf.reduce_sum(own * logits, axis=1) - others
    weights = tf.reduce_mean(tape.gradient(log_odds, maps), axis=(1, 2), keepdims=True)
    cells = tf.nn.relu(tf.reduce_sum(weights * maps, axis=-1, keepdims=True))
    enlarged = np.maximum(tf.image.resize(cells, (SIZE, SIZE))[..., 0].numpy(), 0)
    return enlarged / np.maximum(enlarged.max(axis=(1, 2), keepdims=True), 1e-30)


def assert_same_maps(model, path, *, n_classes: int) -> None:
    compiled, images, classes = GradCam(path), photographs(n_classes), range(n_classes)
    expected = maps_of_keras(model, compiled.layer_name, images, classes=list(classes))
    found = compiled(images, class_indices=classes)
    assert expected.max() == 1
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
    x = layers.Conv2D(8, 2, strides=2, activation="relu")(x)
    return layers.Flatten()(layers.Conv2D(4, 1)(x))


def _variance_head(layers, maps):
    return layers.Flatten()(mean_and_variance(layers, maps))


def _stages_head(layers, maps):
    """As `--pooling stages` makes it: mean and deviation, standardised and cut off."""
    x = layers.BatchNormalization()(layers.Flatten()(mean_and_deviation(layers, maps)))
    return layers.ReLU(max_value=12.0)(layers.Rescaling(1.0, offset=6.0)(x))


def _average_head(layers, maps):
    return layers.Flatten()(layers.AveragePooling2D(3)(maps))


@pytest.mark.parametrize(
    "head",
    [_dense_head, _residual_tail, _mobile_tail, _variance_head, _stages_head, _average_head],
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


@pytest.fixture(scope="module")
def red_and_blue(tmp_path_factory):
    """Class 0 speaks for red, class 1 for blue; the weights are set by hand."""
    import keras

    inputs = keras.Input((16, 16, 3))
    maps = keras.layers.Conv2D(2, 1, use_bias=False, name="maps")(inputs)
    pooled = keras.layers.GlobalAveragePooling2D()(maps)
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(pooled))
    kernel = np.zeros((1, 1, 3, 2), np.float32)
    kernel[0, 0, 0, 0] = kernel[0, 0, 2, 1] = 1
    model.get_layer("maps").set_weights([kernel])
    model.layers[-1].set_weights([np.eye(2, dtype=np.float32), np.zeros(2, np.float32)])
    path = tmp_path_factory.mktemp("colours") / "model.h5"
    model.save(path)
    return GradCam(path)


def red_left_blue_right(size=16):
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[:, : size // 2, 0] = 255
    pixels[:, size // 2 :, 2] = 255
    return pixels


def test_heatmap_lies_on_the_pixels_that_speak_for_the_class(red_and_blue):
    red, blue = red_and_blue([red_left_blue_right()] * 2, class_indices=[0, 1])
    assert red.shape == (16, 16)
    assert red.dtype == np.float32
    assert red[:, :8].min() == 1
    assert red[:, 8:].max() == 0
    assert np.array_equal(blue, red[:, ::-1])


def test_saturated_softmax_still_has_a_heatmap(red_and_blue):
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[4:8, 4:8, 0] = 255
    # The logits differ by 100: the softmax is exactly 1 in float32.
    pixels[:, :, 0] = np.maximum(pixels[:, :, 0], 100)
    (heatmap,) = red_and_blue([pixels], class_indices=[0])
    assert heatmap[4:8, 4:8].min() == 1
    assert heatmap[12:, 12:].max() < 0.5


def test_heatmap_has_the_size_of_the_image_it_explains(red_and_blue):
    (heatmap,) = red_and_blue([red_left_blue_right(40)[:30]], class_indices=[0])
    assert heatmap.shape == (30, 40)
    assert heatmap[:, :15].mean() > 0.9
    assert heatmap[:, 25:].mean() < 0.1


def test_classes_that_the_model_does_not_have_are_refused(red_and_blue):
    with pytest.raises(ValueError, match="below 2"):
        red_and_blue(photographs(1), class_indices=[2])


def test_layer_with_too_few_cells_is_passed_over(tmp_path):
    import keras

    inputs = keras.Input((16, 16, 3))
    middle = keras.layers.Conv2D(4, 3, strides=4, padding="same", name="middle")(inputs)
    tiny = keras.layers.Conv2D(4, 4, name="tiny")(middle)
    outputs = keras.layers.Dense(2, "softmax")(keras.layers.GlobalAveragePooling2D()(tiny))
    keras.Model(inputs, outputs).save(tmp_path / "model.h5")
    assert GradCam(tmp_path / "model.h5").layer_name == "middle"


def test_model_whose_layers_have_no_gradient_says_so(tmp_path):
    import keras

    layers = keras.layers
    inputs = keras.Input((SIZE, SIZE, 3))
    maps = layers.Conv2D(4, 4, strides=4)(inputs)
    x = layers.GlobalAveragePooling2D()(layers.MaxPooling2D(4)(maps))
    keras.Model(inputs, layers.Dense(2, activation="softmax")(x)).save(tmp_path / "model.h5")
    with pytest.raises(UnsupportedGraphError, match=r"no heat maps of this model: .*MaxPool"):
        GradCam(tmp_path / "model.h5")


def test_overlay_leaves_places_without_evidence_as_they_are():
    pixels = np.full((4, 4, 3), 90, np.uint8)
    heatmap = np.zeros((4, 4), np.float32)
    heatmap[0, 0] = 1
    covered = overlay_heatmap(pixels, heatmap, strength=0.8)
    assert covered.dtype == np.uint8
    assert np.array_equal(covered[1:], pixels[1:])
    assert not np.array_equal(covered[0, 0], pixels[0, 0])
    np.testing.assert_array_equal(overlay_heatmap(pixels, heatmap, strength=0.0), pixels)


def test_overlay_has_the_colours_of_inferno():
    from matplotlib import colormaps

    heatmap = np.linspace(0, 1, 1000, dtype=np.float32)[None]
    black = np.zeros((1, 1000, 3), np.uint8)
    expected = colormaps["inferno"](heatmap)[..., :3] * 255 * heatmap[..., None]
    found = overlay_heatmap(black, heatmap, strength=1.0)
    np.testing.assert_allclose(found, expected, atol=8)
