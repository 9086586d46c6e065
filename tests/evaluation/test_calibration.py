"""Temperature and thresholds are fitted where they should be and agree with the verdicts."""

import numpy as np
import pytest

from real_vs_ai.evaluation.calibration import calibrate_metadata, fit_log_odds, fit_temperature
from real_vs_ai.models.model_file import ModelMetadata, calibrate
from real_vs_ai.verdicts.thresholds import choose_threshold
from real_vs_ai.verdicts.verdict import decide

METADATA = ModelMetadata(class_names=("Fake", "Real"), image_size=8)


def calibrated_images(n, *, n_classes=2, scale=1.5, seed=0):
    """Labels drawn from the probabilities themselves: perfectly calibrated."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(n, n_classes)) * scale
    probabilities = calibrate(np.exp(logits), temperature=1.0)
    cumulated = probabilities.cumsum(axis=1)
    labels = (generator.random((n, 1)) > cumulated).sum(axis=1)
    return labels, probabilities


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_temperature_of_sharpened_probabilities_is_found(temperature, n_classes):
    labels, probabilities = calibrated_images(20_000, n_classes=n_classes)
    sharpened = calibrate(probabilities, temperature=1 / temperature)
    assert fit_temperature(labels, sharpened) == pytest.approx(temperature, rel=0.05)


@pytest.mark.parametrize(("temperature", "offset"), [(0.5, 1.5), (2.0, -1.0)])
def test_slope_and_offset_of_distorted_log_odds_are_found(temperature, offset):
    labels, probabilities = calibrated_images(40_000)
    distorted = calibrate(
        calibrate(probabilities, temperature=1.0, offset=-offset), temperature=1 / temperature
    )
    found = fit_log_odds(labels, distorted, positive=0, sources=None)
    assert found == pytest.approx((temperature, offset), rel=0.07)


def test_probability_holds_for_equal_classes_and_sources_that_weigh_alike():
    generator = np.random.default_rng(2)
    odds, labels, sources = [], [], []
    # One source holds most pictures, and all of its generated ones look real.
    for name, label, mean, count in (
        ("large", 0, -2.0, 3000),
        *((f"fake {i}", 0, 2.0, 20) for i in range(40)),
        *((f"real {i}", 1, -2.0, 60) for i in range(40)),
    ):
        odds += [generator.normal(mean, 1.0, count)]
        labels += [np.full(count, label)]
        sources += [np.full(count, name, dtype=object)]
    odds, labels, sources = (np.concatenate(part) for part in (odds, labels, sources))
    fake = 1 / (1 + np.exp(-odds))
    probabilities = np.stack([fake, 1 - fake], axis=1)
    alike, by_source = (
        calibrate_metadata(METADATA, labels, probabilities, target_error=0.1, sources=names)[0]
        for names in (None, sources)
    )
    middle = np.array([[0.5, 0.5]])
    assert by_source.calibrate(middle)[0, 0] == pytest.approx(0.5, abs=0.05)
    assert alike.calibrate(middle)[0, 0] > 0.55


def test_faultless_validation_does_not_ask_for_endless_confidence():
    labels = np.array([0, 1] * 20)
    probabilities = np.where(labels[:, None] == [0, 1], 0.9, 0.1)
    temperature = fit_temperature(labels, probabilities)
    confidence = calibrate(probabilities, temperature=temperature).max()
    both = fit_log_odds(labels, probabilities, positive=0, sources=None)
    assert both == pytest.approx((temperature, 0), rel=0.01, abs=1e-3)
    # Platt's targets: (20 + 1) / (20 + 2).
    assert confidence == pytest.approx(21 / 22, abs=1e-3)


def test_band_keeps_the_target_error_on_new_images():
    errors = []
    for seed in range(10):
        labels, probabilities = calibrated_images(2000, scale=2.0, seed=seed)
        metadata, thresholds = calibrate_metadata(
            METADATA, labels, probabilities, target_error=0.05
        )
        assert metadata.calibrated
        assert metadata.lower_threshold <= 0.5 <= metadata.upper_threshold
        assert thresholds["validation"]["upper"]["reached"]
        new_labels, new = calibrated_images(20_000, scale=2.0, seed=seed + 100)
        decided = decide(metadata.calibrate(new), metadata)
        assert 0.1 < np.mean(decided < 0) < 0.9
        errors.append(np.mean(decided[decided >= 0] != new_labels[decided >= 0]))
    assert np.mean(errors) < 0.055


def test_model_good_enough_needs_no_band():
    labels = np.array([0, 1] * 200)
    probabilities = np.where(labels[:, None] == [0, 1], 0.99, 0.01)
    metadata, _ = calibrate_metadata(METADATA, labels, probabilities, target_error=0.05)
    assert (metadata.lower_threshold, metadata.upper_threshold) == (0.5, 0.5)


def test_threshold_lies_between_scores_and_never_splits_equal_ones():
    scores = np.array([0.9, 0.9, 0.9, 0.7, 0.7, 0.6])
    correct = np.array([True, True, True, True, False, False])
    found = choose_threshold(scores, correct, target_error=0.3, lowest=0.5)
    assert found.value == pytest.approx(0.8)
    assert (found.n, found.error, found.reached) == (3, 0.0, True)


def test_unreachable_target_leaves_little_certain_and_says_so():
    generator = np.random.default_rng(0)
    labels, scores = generator.integers(0, 2, 100), generator.random(100)
    probabilities = np.stack([scores, 1 - scores], axis=1)
    metadata, thresholds = calibrate_metadata(METADATA, labels, probabilities, target_error=0.01)
    assert not thresholds["validation"]["upper"]["reached"]
    assert thresholds["target_error"] == 0.01
    decided = decide(metadata.calibrate(probabilities), metadata)
    assert np.mean(decided < 0) > 0.9


def test_few_faultless_images_keep_the_mistakes_seen_within_the_target():
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    correct = np.array([True, True, True, False])
    found = choose_threshold(scores, correct, target_error=0.05, lowest=0.5)
    assert (found.value, found.n, found.reached) == (pytest.approx(0.65), 3, False)


def test_nothing_is_certain_when_the_best_score_is_wrong():
    found = choose_threshold(
        np.array([0.9, 0.8]), np.array([False, True]), target_error=0.05, lowest=0.5
    )
    assert (found.value, found.n, found.reached) == (None, 0, False)
    none = choose_threshold(np.array([0.2]), np.array([True]), target_error=0.05, lowest=0.5)
    assert (none.value, none.error, none.reached) == (None, None, False)


def test_other_classes_get_a_minimum_confidence():
    labels, probabilities = calibrated_images(3000, n_classes=3, scale=2.0)
    metadata = ModelMetadata(class_names=("benign", "malignant", "normal"), image_size=8)
    fitted, thresholds = calibrate_metadata(metadata, labels, probabilities, target_error=0.1)
    assert 0.3 < fitted.minimum_confidence < 0.95
    assert thresholds["minimum_confidence"] == fitted.minimum_confidence
