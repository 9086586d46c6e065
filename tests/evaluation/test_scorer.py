"""One pass over the images gives probabilities and features, whichever engine computes it."""

import numpy as np
import pytest

from real_vs_ai.evaluation import scorer as scoring
from real_vs_ai.evaluation.scorer import open_scorer
from tests.evaluation.evaluation_material import colour_model, decode, make_run, write_images

LAYER = "global_average_pooling2d"


@pytest.fixture
def decoded(tmp_path):
    write_images(tmp_path / "test", n=6)
    return decode(tmp_path, splits=("test",))["test"]


def named(model):
    model.layers[3].name = LAYER
    return model


def test_file_and_network_give_the_same_probabilities_and_features(tmp_path, decoded, monkeypatch):
    model = named(colour_model())
    run, _ = make_run(tmp_path / "run", model)
    by_keras = open_scorer(model, None, layer=LAYER).outputs(decoded, description=None)
    # The file alone must suffice.
    monkeypatch.setattr(scoring, "_keras_network", None)
    by_file = open_scorer(model, run.model, layer=LAYER).outputs(decoded, description=None)
    assert [part.shape for part in by_file] == [(12, 1, 2), (12, 1, 2)]
    for ours, theirs in zip(by_file, by_keras, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_images_are_computed_once_however_often_they_are_asked_about(decoded):
    asked = []

    class Counting:
        def predict_on_batch(self, pixels):
            asked.append(len(pixels))
            return np.zeros((len(pixels), 5), np.float32)

    scorer = scoring.Scorer(Counting(), n_classes=2)
    for _ in range(3):
        probabilities, features = scorer.outputs(decoded, description=None)
    assert (probabilities.shape, features.shape) == ((12, 1, 2), (12, 1, 3))
    assert asked == [12]


def test_file_that_openvino_cannot_read_is_computed_by_keras(tmp_path, decoded):
    model = named(colour_model())
    (tmp_path / "model.h5").write_bytes(b"no model")
    probabilities, _ = open_scorer(model, tmp_path / "model.h5", layer=None).outputs(
        decoded, description=None
    )
    assert np.allclose(probabilities.sum(axis=-1), 1)
