"""The network has the right layers, loads its weights and saves a plain file."""

import functools
import subprocess
import sys

import keras
import numpy as np
import pytest
from small_runs import build_network as build
from small_runs import like_resnet50, tiny_backbone

from real_vs_ai.models.keras_models import save_model
from real_vs_ai.models.model_file import ModelMetadata, read_metadata
from real_vs_ai.networks import backbones
from real_vs_ai.networks.backbones import backbone_layers, first_convolution
from real_vs_ai.networks.model import set_trainable
from real_vs_ai.training.command_line import parse_training_options


def saved(model, folder, **metadata):
    """The path of the model's file."""
    path = folder / "model.h5"
    save_model(model, path, metadata=ModelMetadata(("Fake", "Real"), 32, **metadata))
    return path


def images(count=3, size=32):
    return np.random.default_rng(5).integers(0, 256, (count, size, size, 3)).astype(np.float32)


def layer_types(model):
    return [type(layer).__name__ for layer in model.layers]


def test_head_is_noise_pooling_dense_dropout_softmax_in_this_order(tiny):
    model = build(class_names=("benign", "malignant", "normal"))
    expected = "GaussianNoise GlobalAveragePooling2D Dense Dropout Dense"
    assert " ".join(layer_types(model)[-5:]) == expected
    noise, _, hidden, dropout, outputs = model.layers[-5:]
    assert noise.stddev == 0.1
    assert hidden.activation is keras.activations.relu
    assert float(hidden.kernel_regularizer.l2) == pytest.approx(1e-4)
    assert dropout.rate == 0.4
    assert outputs.units == 3
    assert outputs.activation is keras.activations.softmax
    assert model.predict(images(), verbose=0).sum(axis=1) == pytest.approx(1)


def test_average_flatten_head_pools_seven_by_seven(tiny):
    head = {"noise": 0, "pooling": "average-flatten", "dense_units": 256, "l2": 0, "dropout": 0.5}
    model = build(image_size=112, **head)
    assert layer_types(model)[-5:] == ["AveragePooling2D", "Flatten", "Dense", "Dropout", "Dense"]
    assert model.get_layer("head_pool").pool_size == (7, 7)
    assert model.get_layer("head_flatten").output.shape == (None, 16)


def test_unstrided_stem_keeps_the_weights_shapes_and_enlarges_the_features():
    published, whole = build(), build(stem_stride=1)
    # Whose head takes its shapes from every stage's maps.
    build(stem_stride=2, pooling="stages")
    shapes = [[w.shape for w in m.get_weights()] for m in (published, whole)]
    assert shapes[0] == shapes[1]
    assert backbone_layers(published)[-1].output.shape[1:3] == (1, 1)
    assert backbone_layers(whole)[-1].output.shape[1:3] == (4, 4)
    model = whole
    # The graph is flat and of plain layers, so that any tool can read it.
    assert not any(isinstance(layer, keras.Model) for layer in model.layers)
    assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)


def test_enlarging_network_sees_what_it_would_see_of_a_larger_image(tiny):
    enlarging, larger = build(enlarge=2), build(image_size=64)
    larger.set_weights(enlarging.get_weights())
    pixels = images()
    resized = np.asarray(keras.ops.image.resize(pixels, (64, 64), "bilinear"))
    expected = larger.predict(resized, verbose=0)
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(enlarging.predict(pixels, verbose=0), expected, atol=1e-5)
    assert all(layer.name != "enlarging" for layer in backbone_layers(enlarging))


def test_rescaling_and_reversed_kernel_equal_keras_own_preprocessing():
    """What ImageNet's weights were trained for, computed as Keras says and as our graph does."""
    original = keras.applications.ResNet50(include_top=False, weights=None)
    from real_vs_ai.networks.model import _load_backbone_weights

    model = build()
    _load_backbone_weights(model, original, in_bgr=True)
    features = keras.Model(model.inputs, backbone_layers(model)[-1].output)
    pixels = images()
    expected = original.predict(
        keras.applications.resnet.preprocess_input(pixels.copy()), verbose=0
    )
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(features.predict(pixels, verbose=0), expected, atol=1e-3, rtol=1e-3)


def test_backbone_weights_file_is_read_and_its_channels_reversed(tiny, tmp_path):
    from real_vs_ai.networks.backbones import BACKBONES

    keras.utils.set_random_seed(3)
    source = BACKBONES["resnet50"].build(weights=None)
    path = tmp_path / "backbone.weights.h5"
    source.save_weights(path)
    kernel = first_convolution(build(weights=str(path))).get_weights()[0]
    np.testing.assert_array_equal(kernel, source.get_layer("conv0").get_weights()[0][:, :, ::-1])


def test_weights_of_another_network_are_refused(tiny, tmp_path):
    inputs = keras.Input((None, None, 3))
    path = tmp_path / "other.weights.h5"
    keras.Model(inputs, keras.layers.Conv2D(2, 1)(inputs)).save_weights(path)
    with pytest.raises(ValueError, match="does not hold the weights of resnet50"):
        build(weights=str(path))


def test_missing_weights_file_and_damaged_file_are_one_clear_line(tiny, tmp_path):
    with pytest.raises(FileNotFoundError, match="imagenet, none, or the path"):
        build(weights=str(tmp_path / "none.h5"))
    (tmp_path / "bad.h5").write_bytes(b"no HDF5")
    with pytest.raises(OSError, match="not a readable HDF5"):
        build(weights=str(tmp_path / "bad.h5"))


def test_failed_download_names_the_file_and_the_ways_out(tiny):
    with pytest.raises(OSError, match=r"--weights none.*https://example\.org/tiny_notop\.h5"):
        build(weights="imagenet")


def test_own_model_file_gives_backbone_and_head_when_classes_agree(tiny, tmp_path):
    trained = build(seed=7)
    path = saved(trained, tmp_path, backbone="resnet50")
    again = build(weights=str(path), seed=8)
    pixels = images()
    np.testing.assert_allclose(
        again.predict(pixels, verbose=0), trained.predict(pixels, verbose=0), atol=1e-6
    )
    three = build(weights=str(path), class_names=("a", "b", "c"), seed=8)
    for ours, theirs in zip(backbone_layers(three), backbone_layers(trained), strict=True):
        for a, b in zip(ours.get_weights(), theirs.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    assert three.layers[-1].units == 3


def test_own_model_file_of_another_backbone_is_refused(tiny, tmp_path, monkeypatch):
    wider = functools.partial(tiny_backbone, filters=(4, 16))
    monkeypatch.setitem(backbones.BACKBONES, "resnet101", like_resnet50(wider))
    path = saved(build(), tmp_path, backbone="tiny")
    with pytest.raises(ValueError, match="Use --backbone tiny"):
        build(weights=str(path), backbone="resnet101")


def short_resnet(*, weights, input_tensor=None, blocks=(1, 1)):
    """Two stages of residual blocks, named as keras.applications names them."""
    layers = keras.layers
    inputs = keras.Input((None, None, 3)) if input_tensor is None else input_tensor
    x = layers.Conv2D(8, 7, strides=2, padding="same", name="conv1_conv")(inputs)
    for stage, count in enumerate(blocks, 2):
        for block in range(1, count + 1):
            name = f"conv{stage}_block{block}_"
            branch = layers.Conv2D(8, 3, padding="same", name=f"{name}3_conv")(x)
            branch = layers.BatchNormalization(name=f"{name}3_bn")(branch)
            x = layers.ReLU(name=f"{name}out")(layers.Add(name=f"{name}add")([x, branch]))
    start = inputs if input_tensor is None else inputs._keras_history.operation.output
    return keras.Model(keras.utils.get_source_inputs(start), x)


@pytest.fixture
def shallow_and_deep(monkeypatch):
    """resnet50 and resnet101 are networks of one block, and of two and three, in a stage."""
    monkeypatch.setitem(backbones.BACKBONES, "resnet50", like_resnet50(short_resnet))
    deep = functools.partial(short_resnet, blocks=(2, 3))
    monkeypatch.setitem(backbones.BACKBONES, "resnet101", like_resnet50(deep))


def trained_weights(model, generator):
    """Weights as after training: none of the scales is zero."""
    for layer in model.layers:
        shapes = [weight.shape for weight in layer.get_weights()]
        layer.set_weights([generator.uniform(0.1, 0.5, shape) for shape in shapes])


def test_deeper_network_begins_with_the_output_of_the_shallower_one(shallow_and_deep, tmp_path):
    shallow = build()
    trained_weights(shallow, np.random.default_rng(0))
    path = saved(shallow, tmp_path, backbone="resnet50")
    deep = build(backbone="resnet101", weights=str(path), seed=9)
    assert len(deep.layers) > len(shallow.layers)
    expected = shallow.predict(images(), verbose=0)
    np.testing.assert_allclose(deep.predict(images(), verbose=0), expected, atol=1e-6)
    # The new blocks take part in learning from the first step.
    deep.compile(keras.optimizers.SGD(0.1), "categorical_crossentropy")
    deep.train_on_batch(images(4), np.eye(2)[[0, 1, 0, 1]])
    assert np.any(deep.get_layer("conv3_block3_3_bn").gamma.numpy())


def test_shallower_network_refuses_the_weights_of_a_deeper_one(shallow_and_deep, tmp_path):
    path = saved(build(backbone="resnet101"), tmp_path, backbone="resnet101")
    with pytest.raises(ValueError, match="Use --backbone resnet101"):
        build(weights=str(path))


@pytest.mark.parametrize("given", [2, 1])
@pytest.mark.parametrize(("field", "usual"), [("stem_stride", 4), ("enlarge", 1)])
def test_training_from_a_model_keeps_its_shape_by_default(tmp_path, field, usual, given):
    path = saved(build(**{field: 2}), tmp_path, backbone="resnet50")
    asked = ("--set", f"{field}=1") if given == 1 else ()
    options = parse_training_options(["--weights", str(path), *asked], description="test")
    assert getattr(options, field) == given
    options = parse_training_options(["--weights", "none"], description="test")
    assert getattr(options, field) == usual


def test_batch_norm_momentum_is_set_everywhere(tiny):
    model = build(batch_norm_momentum=0.8)
    layers = [x for x in model.layers if isinstance(x, keras.layers.BatchNormalization)]
    assert layers
    assert all(layer.momentum == 0.8 for layer in layers)


@pytest.mark.parametrize(("backbone", "batch_norm"), [(False, False), (True, False), (True, True)])
def test_what_is_trainable_changes_and_the_rest_does_not(tiny, backbone, batch_norm):
    model = build()
    set_trainable(model, backbone=backbone, batch_norm=batch_norm)
    model.compile("adam", "categorical_crossentropy")
    before = {layer.name: layer.get_weights() for layer in model.layers}
    model.train_on_batch(images(8), np.eye(2)[[0, 1] * 4])

    def changed(layer):
        pairs = zip(before[layer.name], layer.get_weights(), strict=True)
        return any(not np.array_equal(a, b) for a, b in pairs)

    assert changed(model.get_layer("head_dense"))
    assert changed(model.get_layer("conv0")) == backbone
    assert changed(model.get_layer("conv0_bn")) == (backbone and batch_norm)


def test_saved_model_loads_with_plain_keras_and_gives_equal_outputs(tiny, set_precision, tmp_path):
    """In a process that never heard of this package, from a model trained in half precision."""
    set_precision("mixed_bfloat16", "mixed_float16")
    model = build()
    model.compile("adam", "categorical_crossentropy")
    model.train_on_batch(images(8), np.eye(2)[[0, 1] * 4])
    path = tmp_path / "model.h5"
    metadata = ModelMetadata(("Fake", "Real"), 32, backbone="resnet50")
    save_model(model, path, metadata=metadata)
    assert read_metadata(path) == metadata
    assert [p.name for p in tmp_path.iterdir()] == ["model.h5"]
    np.save(tmp_path / "x.npy", images())
    code = (
        "import keras, numpy as np, sys\n"
        "m = keras.models.load_model('model.h5')\n"
        "assert not m.compiled\n"
        "assert {l.compute_dtype for l in m.layers} == {'float32'}\n"
        "assert 'real_vs_ai' not in sys.modules\n"
        "np.save('y.npy', m.predict(np.load('x.npy'), verbose=0))\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
    keras.config.set_dtype_policy("float32")
    from real_vs_ai.models.keras_models import to_float32

    expected = to_float32(model).predict(images(), verbose=0)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, atol=1e-6)
    # Half precision itself differs by its rounding only.
    np.testing.assert_allclose(expected, model.predict(images(), verbose=0), atol=0.02)
