"""Pooling by stages computes mean and deviation, and plain Keras reads it back."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from small_runs import like_resnet50, tiny_backbone

from real_vs_ai.core.errors import InputError
from real_vs_ai.networks.head import POOL_LAYER, add_head, head_alone


def build(**options):
    values = {"noise": 0.2, "pooling": "stages", "dense_units": 8, "l2": 1e-4, "dropout": 0.2}
    head = SimpleNamespace(**{**values, **options}, seed=1)
    body = tiny_backbone(weights=None, input_tensor=keras.Input((32, 32, 3)))
    ends = like_resnet50(tiny_backbone).stage_ends(body)
    return keras.Model(body.inputs, add_head(body, head, stage_ends=ends, n_classes=2))


def pictures():
    return np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)


def test_stages_are_pooled_to_mean_and_deviation():
    model = build()
    maps = [model.get_layer(f"conv{i}_relu").output for i in (0, 1)]
    probe = keras.Model(model.inputs, [model.get_layer(POOL_LAYER).output, *maps])
    pooled, first, second = probe.predict(pictures(), verbose=0)
    expected = [f(m, axis=(1, 2)) for m in (first, second) for f in (np.mean, np.std)]
    assert pooled == pytest.approx(np.concatenate(expected, axis=1), abs=1e-5)


def test_equal_stages_weigh_the_same_whatever_their_size():
    model = build(pooling="equal-stages")
    outputs = [model.get_layer(name).output for name in ("head_unshift", "head_weights")]
    before, after = keras.Model(model.inputs, outputs).predict(pictures(), verbose=0)
    factors = np.repeat([np.sqrt(16 / 8), 1], [2 * 8, 2 * 16])
    assert after == pytest.approx(before * factors, abs=1e-5)
    assert model.get_layer("head_weights").trainable is False


@pytest.mark.parametrize("pooling", ["stages", "equal-stages"])
def test_plain_keras_reads_the_model_back(pooling, tmp_path):
    model = build(pooling=pooling)
    model.save(tmp_path / "model.h5")
    again = keras.models.load_model(tmp_path / "model.h5", compile=False)
    expected = model.predict(pictures(), verbose=0)
    assert again.predict(pictures(), verbose=0) == pytest.approx(expected, abs=1e-6)


def test_head_alone_shares_the_weights_of_the_model():
    model = build()
    head = head_alone(model)
    head.get_layer("head_dense").bias.assign(np.arange(8.0))
    pooled = keras.Model(model.inputs, model.get_layer(POOL_LAYER).output).predict(
        pictures(), verbose=0
    )
    expected = model.predict(pictures(), verbose=0)
    assert head.predict(pooled, verbose=0) == pytest.approx(expected, abs=1e-5)


def test_noise_before_the_pooling_cannot_be_stored():
    with pytest.raises(InputError, match="pooling stages"):
        head_alone(build(pooling="global-average"))
