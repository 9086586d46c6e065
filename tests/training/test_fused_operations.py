"""TensorFlow's fused operations give the numbers of the layers and the optimizer that Keras has."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from real_vs_ai.models.keras_models import to_float32
from real_vs_ai.training.compilation import WarmedPolynomialDecay, fuse_batch_norm, make_optimizer

SIDE = 6


def normalising_model(**options):
    keras.utils.set_random_seed(3)
    layers = keras.layers
    x = inputs = keras.Input((SIDE, SIDE, 3))
    for stride in (1, 2):
        x = layers.Conv2D(4, 3, stride, use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.8, epsilon=0.01, **options)(x)
        x = layers.ReLU()(x)
    x = layers.Dense(2, activation="softmax", dtype="float32")(layers.Flatten()(x))
    return keras.Model(inputs, x)


def learn(model, *, fused, steps=4):
    if fused:
        fuse_batch_norm(model)
    model.compile(keras.optimizers.SGD(0.05), "categorical_crossentropy", jit_compile=False)
    generator = np.random.default_rng(7)
    for _ in range(steps):
        pixels = generator.uniform(-3, 5, (8, SIDE, SIDE, 3)).astype(np.float32)
        model.train_on_batch(pixels, np.eye(2, dtype=np.float32)[generator.integers(0, 2, 8)])
    return model


@pytest.mark.parametrize(("policy", "error"), [("float32", 2e-5), ("mixed_bfloat16", 4e-3)])
def test_fused_batch_norm_learns_the_same_weights_and_statistics(set_precision, policy, error):
    set_precision(policy)
    fused = learn(normalising_model(), fused=True)
    plain = learn(normalising_model(), fused=False)
    untrained = normalising_model().get_weights()
    for ours, theirs, before in zip(
        fused.get_weights(), plain.get_weights(), untrained, strict=True
    ):
        assert np.abs(theirs - before).max() > error
        np.testing.assert_allclose(ours, theirs, rtol=error, atol=error)


def test_copies_and_files_of_a_fused_model_hold_keras_own_layers(tmp_path):
    model = learn(normalising_model(), fused=True)
    model.save(tmp_path / "model.h5")
    read = keras.models.load_model(tmp_path / "model.h5", compile=False)
    pixels = np.random.default_rng(0).uniform(-3, 5, (4, SIDE, SIDE, 3))
    for copy in (read, to_float32(model)):
        assert [type(x) for x in copy.layers] == [type(x) for x in normalising_model().layers]
        copied = keras.Model(copy.inputs[0], copy.outputs[0])(pixels)
        np.testing.assert_allclose(copied.numpy(), model(pixels).numpy(), atol=1e-6)


def test_frozen_statistics_stay_and_other_kinds_of_normalisation_keep_keras_own_way():
    frozen = normalising_model()
    for layer in frozen.layers:
        layer.trainable = not isinstance(layer, keras.layers.BatchNormalization)
    before = [layer.get_weights() for layer in frozen.layers if not layer.trainable]
    learn(frozen, fused=True)
    after = [layer.get_weights() for layer in frozen.layers if not layer.trainable]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
    plain, unscaled = normalising_model(), normalising_model(scale=False)
    fuse_batch_norm(plain)
    fuse_batch_norm(unscaled)
    changed = [["call" in vars(layer) for layer in model.layers] for model in (plain, unscaled)]
    assert sum(changed[0]) == 2
    assert sum(changed[1]) == 0


@pytest.mark.parametrize("more", [{}, {"weight_decay": 0.1}, {"averaging": 0.9}])
def test_fused_adam_gives_adams_numbers(more):
    generator = np.random.default_rng(0)
    start, gradients = generator.normal(size=(3, 4)), generator.normal(size=(30, 3, 4))
    ends = []
    for fused in (True, False):
        variable = keras.Variable(start)
        schedule = WarmedPolynomialDecay(0.1, 30, end_learning_rate=0.001, warmup_steps=0)
        optimizer = make_optimizer(schedule, fused=fused, **more)
        for gradient in gradients:
            optimizer.apply_gradients([(tf.constant(gradient, tf.float32), variable)])
        ends.append([variable.numpy(), *(value.numpy() for value in optimizer.variables)])
    for ours, theirs in zip(*ends, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    assert float(optimizer.learning_rate) == pytest.approx(0.001)
