"""One pass over the images gives probabilities and features, whichever engine computes it."""

import numpy as np
import pytest

from real_vs_ai.evaluation import scorer
from real_vs_ai.evaluation.scorer import open_network, predict_in_batches
from tests.evaluation.evaluation_material import SIZE, colour_model, make_run

LAYER = "global_average_pooling2d"
PIXELS = np.random.default_rng(0).integers(0, 256, (300, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture
def model():
    model = colour_model()
    model.layers[3].name = LAYER
    return model


def test_file_and_network_give_the_same_probabilities_and_features(tmp_path, model, monkeypatch):
    run, _ = make_run(tmp_path / "run", model)
    by_keras = predict_in_batches(scorer._keras_network(model, LAYER), PIXELS)
    # The file alone must suffice.
    monkeypatch.setattr(scorer, "_keras_network", None)
    by_file = predict_in_batches(open_network(model, run.model, layer=LAYER), PIXELS)
    assert by_file.shape == by_keras.shape == (300, 4)
    np.testing.assert_allclose(by_file, by_keras, atol=1e-5)


def test_file_that_openvino_cannot_read_is_computed_by_keras(tmp_path, model):
    (tmp_path / "model.h5").write_bytes(b"no model")
    found = predict_in_batches(open_network(model, tmp_path / "model.h5", layer=LAYER), PIXELS)
    assert np.allclose(found[:, :2].sum(axis=1), 1)
