"""A layer's outputs are the same, whichever engine computes them."""

import numpy as np
import pytest

from real_vs_ai.evaluation import judging
from real_vs_ai.evaluation.judging import open_features
from tests.evaluation.evaluation_material import SIZE, colour_model, make_run

LAYER = "global_average_pooling2d"
PIXELS = np.random.default_rng(0).integers(0, 256, (300, SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture
def model():
    model = colour_model()
    model.layers[3].name = LAYER
    return model


def test_file_and_network_give_the_same_features(tmp_path, model, monkeypatch):
    run, _ = make_run(tmp_path / "run", model)
    monkeypatch.setattr(judging, "sees_gpu", lambda: True)
    by_keras = open_features(model, run.model, layer=LAYER)(PIXELS)
    monkeypatch.setattr(judging, "sees_gpu", lambda: False)
    by_file = open_features(model, run.model, layer=LAYER)(PIXELS)
    assert by_file.shape == by_keras.shape == (300, 2)
    np.testing.assert_allclose(by_file, by_keras, atol=1e-5)


def test_file_that_openvino_cannot_read_is_computed_by_keras(tmp_path, model):
    (tmp_path / "model.h5").write_bytes(b"no model")
    found = open_features(model, tmp_path / "model.h5", layer=LAYER)(PIXELS)
    run, _ = make_run(tmp_path / "run", model)
    np.testing.assert_allclose(found, open_features(model, run.model, layer=LAYER)(PIXELS), 1e-5)
