"""An out-of-distribution image gets no verdict, on any engine."""

import numpy as np
import pytest

from real_vs_ai import Detector
from real_vs_ai.core.images import resize_image
from real_vs_ai.models.keras_models import load_model
from real_vs_ai.out_of_distribution.check import write_check
from real_vs_ai.out_of_distribution.learning import Sample, fit_check
from real_vs_ai.verdicts.verdict import ReasonCode
from tests.serving.trivial_model import IMAGE_SIZE, METADATA, judge_inputs, save_model

LAYER = "global_average_pooling2d"


def grey(brightness, *, tint=(0, 0, 0), noise=8, seed=0):
    """A grey image with some noise: what the model below learnt from when there is no tint."""
    generator = np.random.default_rng(seed)
    pixels = brightness + np.array(tint) + generator.normal(0, noise, (IMAGE_SIZE, IMAGE_SIZE, 3))
    return pixels.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def model_path(tmp_path_factory):
    import keras

    path = save_model(tmp_path_factory.mktemp("model") / "model.h5", METADATA)
    model = load_model(path)
    layer = next(x.name for x in model.layers if x.name.startswith(LAYER))
    body = keras.Model(model.inputs, model.get_layer(layer).output)

    def sample(first):
        generator = np.random.default_rng(first)
        levels = np.where(np.arange(300) % 2, 60, 190) + generator.normal(0, 15, 300)
        noise = generator.uniform(6, 10, 300)
        pairs = enumerate(zip(levels, noise, strict=True))
        images = [grey(level, noise=n, seed=first + i) for i, (level, n) in pairs]
        pixels = np.stack(images)
        features = body.predict(pixels.astype(np.float32), verbose=0)
        return Sample(features, pixels, np.arange(300) % 2)

    write_check(path, fit_check(sample(0), sample(1000), layer=layer))
    return path


@pytest.fixture(scope="module", params=["openvino", "keras"])
def detector(request, model_path):
    return Detector.open(model_path, engine=request.param, precision="f32")


def test_usual_images_get_their_verdicts_and_tinted_ones_none(detector):
    usual = detector.predict_batch([grey(190, seed=5000), grey(60, seed=5001)])
    assert [verdict.label for verdict in usual] == ["Fake", "Real"]
    assert not any(verdict.out_of_distribution for verdict in usual)
    tinted = detector.predict(grey(150, tint=(60, -60, 0), seed=5002))
    assert tinted.label == "Uncertain"
    assert tinted.reasons[0].code is ReasonCode.FEATURES
    assert (tinted.probability_fake, tinted.confidence, tinted.probabilities) == (None, None, {})


def test_same_images_are_out_of_distribution_alone_and_in_batches(detector):
    images = [grey(190, tint=(step, -step, 0), seed=step) for step in range(0, 60, 3)]
    alone = [detector.predict(image) for image in images]
    together = detector.predict_batch(images)
    assert [v.reasons for v in alone] == [v.reasons for v in together]
    assert {verdict.out_of_distribution for verdict in alone} == {True, False}


def test_image_without_detail_is_told(detector):
    verdict = detector.predict(grey(190, noise=0))
    assert verdict.label == "Uncertain"
    assert "less detail" in verdict.reasons[0].sentence


def test_engines_give_the_same_probabilities_as_without_features(model_path, tmp_path):
    plain = Detector.open(save_model(tmp_path / "plain.h5", METADATA), engine="keras")
    pixels = np.stack([resize_image(grey(20 * i, seed=i), IMAGE_SIZE) for i in range(12)])
    for engine in ("openvino", "keras"):
        found = judge_inputs(Detector.open(model_path, engine=engine, precision="f32"), pixels)[0]
        np.testing.assert_allclose(found, judge_inputs(plain, pixels)[0], atol=1e-5)
