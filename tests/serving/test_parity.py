"""The served networks agree with Keras in float32, and bf16 with float32 within stated limits."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import openvino as ov
import pytest

from real_vs_ai import Detector
from real_vs_ai.core.config import UNCERTAIN
from real_vs_ai.core.images import open_image
from real_vs_ai.models.keras_models import save_model
from real_vs_ai.models.model_file import ModelMetadata
from real_vs_ai.serving.openvino_engine import best_precision
from real_vs_ai.verdicts.verdict import decide_label
from tests.serving.trivial_model import judge_inputs

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).resolve().parents[2]
RELEASED = REPOSITORY / "models" / "released"
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
    metadata = ModelMetadata(
        class_names=("Fake", "Real"),
        image_size=32,
        calibrated=True,
        lower_threshold=LOWER,
        upper_threshold=UPPER,
    )
    save_model(model, path, metadata=metadata)
    return path


@pytest.fixture(params=["untrained", "released"])
def reference(request) -> Detector:
    """A model as Keras computes it."""
    if request.param == "untrained":
        return Detector.open(request.getfixturevalue("resnet"), engine="keras")
    return request.getfixturevalue("released_keras_detector")


def compare(detector, images, expected, labels) -> tuple[np.ndarray, int]:
    """Differences of the probabilities; asserts that no verdict goes from Fake to Real or back."""
    found = judge_inputs(detector, images)[0]
    served = [decide_label(row, detector.metadata) for row in found]
    changed = [(a, b) for a, b in zip(labels, served, strict=True) if a != b]
    assert all(UNCERTAIN in pair for pair in changed)
    np.testing.assert_array_equal(
        found[:64], judge_inputs(detector, images[:64])[0], err_msg="not repeatable"
    )
    return np.abs(found - expected), len(changed)


def test_float32_computes_what_keras_computes(reference, images):
    expected = judge_inputs(reference, images)[0]
    assert expected[:, 0].std() > 0.2
    labels = [decide_label(row, reference.metadata) for row in expected]
    detector = Detector.open(reference.model_path, engine="openvino", precision="f32")
    difference, changed = compare(detector, images, expected, labels)
    assert difference.max() <= 1e-4
    assert changed == 0


# Largest and mean difference of a thumbnail's probability in bf16.
BF16_LIMITS = (0.06, 0.002)


def test_photographs_are_judged_in_float32_on_every_processor():
    path = RELEASED / "photographs" / "model.h5"
    assert Detector.open(path, engine="openvino").engine.precision == "f32"


def test_bf16_stays_close_to_float32_and_turns_no_verdict(images):
    if best_precision(ov.Core()) != "bf16":
        pytest.skip("this processor does not compute in bf16")
    path = RELEASED / "model.h5"
    detectors = {
        precision: Detector.open(path, engine="openvino", precision=precision)
        for precision in ("f32", "bf16", None)
    }
    assert detectors[None].engine.precision == "bf16"
    expected = judge_inputs(detectors["f32"], images)[0]
    labels = [decide_label(row, detectors["f32"].metadata) for row in expected]
    difference, _ = compare(detectors["bf16"], images, expected, labels)
    largest, mean = BF16_LIMITS
    # Exactly the same would mean that bf16 was not used.
    assert 0 < difference.max() <= largest
    assert difference.mean() <= mean
