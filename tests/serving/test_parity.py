"""The served ResNet agrees with Keras on real images, untrained and as released."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from real_vs_ai import Detector
from real_vs_ai.config import UNCERTAIN
from real_vs_ai.images import open_image
from real_vs_ai.model_file import ModelMetadata, write_metadata
from real_vs_ai.verdict import decide_label

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("REAL_VS_AI_SHARED", REPOSITORY.parent / "shared"))
ARCHIVE = SHARED / "data" / "cifake-mini.zip"
# Between them a verdict may flip and stays Uncertain: as wide as a calibrated model's.
LOWER, UPPER = 0.35, 0.65


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    if not ARCHIVE.is_file():
        pytest.skip(f"real images are not there: {ARCHIVE}")
    with zipfile.ZipFile(ARCHIVE) as archive:
        # Whole batches of Keras' engine: it would be traced again for a smaller one.
        names = sorted(n for n in archive.namelist() if n.lower().endswith(".jpg"))[::16][:256]
        return np.stack([open_image(archive.read(name)) for name in names])


@pytest.fixture(scope="module")
def resnet(images, tmp_path_factory) -> Path:
    """ResNet50 with random weights whose head spreads these images from Fake to Real."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    inputs = keras.Input((32, 32, 3))
    scaled = layers.Rescaling(1.0, offset=[-123.68, -116.779, -103.939])(inputs)
    backbone = keras.applications.ResNet50(include_top=False, weights=None, input_tensor=scaled)
    features = layers.GlobalAveragePooling2D()(backbone.output)
    outputs = layers.Dense(2, activation="softmax", name="outputs")(features)
    model = keras.Model(inputs, outputs)
    # Called, it is not traced.
    sample = keras.Model(inputs, features)(images[:200].astype(np.float32)).numpy()
    # The direction in which the features differ most, scaled to logits of a trained model's size.
    centre = sample.mean(axis=0)
    direction = np.linalg.svd(sample - centre, full_matrices=False)[2][0]
    direction *= 3.0 / ((sample - centre) @ direction).std()
    kernel = np.stack([direction / 2, -direction / 2], axis=1)
    model.get_layer("outputs").set_weights([kernel, -centre @ kernel])
    path = tmp_path_factory.mktemp("resnet") / "model.h5"
    model.save(path)
    write_metadata(
        path,
        ModelMetadata(
            class_names=("Fake", "Real"),
            image_size=32,
            calibrated=True,
            lower_threshold=LOWER,
            upper_threshold=UPPER,
        ),
    )
    return path


@pytest.fixture(params=["untrained", "released"])
def reference(request) -> Detector:
    """A model as Keras computes it."""
    if request.param == "untrained":
        return Detector.open(request.getfixturevalue("resnet"), engine="keras")
    return request.getfixturevalue("released_keras_detector")


def test_no_precision_moves_a_probability_far_or_flips_a_verdict(reference, images):
    import openvino as ov

    from real_vs_ai.serving.openvino_engine import best_precision

    model = reference.model_path
    expected = reference.predict_pixels(images)
    assert expected[:, 0].std() > 0.2
    labels = [decide_label(row, reference.metadata) for row in expected]
    for precision in dict.fromkeys(["f32", best_precision(ov.Core())]):
        detector = Detector.open(model, engine="openvino", precision=precision)
        found = detector.predict_pixels(images)
        difference = np.abs(found - expected)
        served = [decide_label(row, detector.metadata) for row in found]
        changed = [(a, b) for a, b in zip(labels, served, strict=True) if a != b]
        flips = [pair for pair in changed if UNCERTAIN not in pair]
        print(
            f"{model.parent.name}, {precision}: probabilities differ by at most "
            f"{difference.max():.6f}, on average {difference.mean():.6f}; of {len(images)} "
            f"verdicts {len(changed)} change to or from Uncertain"
        )
        assert not flips
        assert difference.max() <= (1e-4 if precision == "f32" else 0.03)
        np.testing.assert_array_equal(
            found[:64], detector.predict_pixels(images[:64]), err_msg="not repeatable"
        )
