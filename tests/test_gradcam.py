"""Grad-CAM finds the evidence where it was put."""

import numpy as np
import pytest

from real_vs_ai.gradcam import GradCam, overlay_heatmap


def grad_cam(model, pixels, class_index, layer=None):
    return GradCam(model, layer=layer)([pixels], class_indices=[class_index])[0]


@pytest.fixture(scope="module")
def bright_red_model():
    """Class 0 speaks for red, class 1 for blue; the weights are set by hand."""
    import keras

    inputs = keras.Input((16, 16, 3))
    maps = keras.layers.Conv2D(2, 1, use_bias=False, name="maps")(inputs)
    pooled = keras.layers.GlobalAveragePooling2D()(maps)
    outputs = keras.layers.Dense(2, activation="softmax")(pooled)
    model = keras.Model(inputs, outputs)
    kernel = np.zeros((1, 1, 3, 2), np.float32)
    kernel[0, 0, 0, 0] = kernel[0, 0, 2, 1] = 1
    model.get_layer("maps").set_weights([kernel])
    model.layers[-1].set_weights([np.eye(2, dtype=np.float32), np.zeros(2, np.float32)])
    return model


def red_left_blue_right(size=16):
    pixels = np.zeros((size, size, 3), np.uint8)
    pixels[:, : size // 2, 0] = 255
    pixels[:, size // 2 :, 2] = 255
    return pixels


def test_heatmap_lies_on_the_pixels_that_speak_for_the_class(bright_red_model):
    pixels = red_left_blue_right()
    red = grad_cam(bright_red_model, pixels, 0)
    blue = grad_cam(bright_red_model, pixels, 1)
    assert red.shape == (16, 16)
    assert red.dtype == np.float32
    assert red[:, :8].min() == 1
    assert red[:, 8:].max() == 0
    assert np.array_equal(blue, red[:, ::-1])


def test_saturated_softmax_still_has_a_heatmap(bright_red_model):
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[4:8, 4:8, 0] = 255
    pixels[:, :, 0] = np.maximum(pixels[:, :, 0], 100)
    assert bright_red_model.predict(pixels[None].astype("float32"), verbose=0)[0, 0] == 1.0
    heatmap = grad_cam(bright_red_model, pixels, 0)
    assert heatmap[4:8, 4:8].min() == 1
    assert heatmap[12:, 12:].max() < 0.5


def test_heatmap_has_the_size_of_the_image_it_explains(bright_red_model):
    image = red_left_blue_right(40)[:30]
    heatmap = grad_cam(bright_red_model, image, 0)
    assert heatmap.shape == (30, 40)
    assert heatmap[:, :15].mean() > 0.9
    assert heatmap[:, 25:].mean() < 0.1


def test_many_images_are_explained_in_their_order(bright_red_model):
    images = [np.roll(red_left_blue_right(), shift, axis=1) for shift in range(7)]
    heatmaps = GradCam(bright_red_model)(images, class_indices=[0] * 7)
    for shift, heatmap in enumerate(heatmaps):
        assert np.array_equal(heatmap, np.roll(heatmaps[0], shift, axis=1))


def test_layer_with_too_few_cells_is_passed_over():
    import keras

    inputs = keras.Input((16, 16, 3))
    middle = keras.layers.Conv2D(4, 3, strides=4, padding="same", name="middle")(inputs)
    tiny = keras.layers.Conv2D(4, 4, name="tiny")(middle)
    outputs = keras.layers.Dense(2, "softmax")(keras.layers.GlobalAveragePooling2D()(tiny))
    model = keras.Model(inputs, outputs)
    assert GradCam(model).layer_name == "middle"
    assert GradCam(model, layer="tiny").layer_name == "tiny"


def test_unknown_layer_and_class_are_named(bright_red_model):
    with pytest.raises(ValueError, match="'nowhere'"):
        grad_cam(bright_red_model, red_left_blue_right(), 0, layer="nowhere")
    with pytest.raises(ValueError, match="below 2"):
        grad_cam(bright_red_model, red_left_blue_right(), 2)


def test_overlay_leaves_places_without_evidence_as_they_are():
    pixels = np.full((4, 4, 3), 90, np.uint8)
    heatmap = np.zeros((4, 4), np.float32)
    heatmap[0, 0] = 1
    covered = overlay_heatmap(pixels, heatmap, strength=0.8)
    assert covered.dtype == np.uint8
    assert np.array_equal(covered[1:], pixels[1:])
    assert not np.array_equal(covered[0, 0], pixels[0, 0])


def test_overlay_has_the_colours_of_inferno():
    from matplotlib import colormaps

    heatmap = np.linspace(0, 1, 1000, dtype=np.float32)[None]
    black = np.zeros((1, 1000, 3), np.uint8)
    expected = colormaps["inferno"](heatmap)[..., :3] * 255 * heatmap[..., None]
    found = overlay_heatmap(black, heatmap, strength=1.0)
    np.testing.assert_allclose(found, expected, atol=8)
