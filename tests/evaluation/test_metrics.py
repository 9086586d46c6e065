"""Metrics equal scikit-learn's, their intervals hold, and few images give no error."""

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from real_vs_ai.core.config import positive_index
from real_vs_ai.evaluation.extras import mcnemar_test
from real_vs_ai.evaluation.metrics import compute_metrics, image_sums, ranking

FAKE_REAL = ("Fake", "Real")
THREE = ("benign", "malignant", "normal")


def expected_calibration_error(labels, probabilities):
    values = image_sums(np.ones((1, len(labels))), labels, probabilities)
    return values["expected_calibration_error"][0]


def draw_images(n, *, n_classes=2, seed=0, decimals=None):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, n_classes, n)
    logits = generator.normal(size=(n, n_classes))
    logits[np.arange(n), labels] += 1.2
    if decimals is not None:
        # Few different scores: ties everywhere.
        logits = np.round(logits, decimals)
    exponentials = np.exp(logits)
    return labels, exponentials / exponentials.sum(axis=1, keepdims=True)


def measure(labels, probabilities, *, class_names=FAKE_REAL, **options):
    return compute_metrics(labels, probabilities, class_names=class_names, **options)


def values(numbers):
    return {name: v["value"] for name, v in numbers.items() if isinstance(v, dict) and "value" in v}


def recall_at(limit, positive, scores):
    false_positive_rate, recall, _ = sklearn_metrics.roc_curve(
        positive, scores, drop_intermediate=False
    )
    return recall[false_positive_rate <= limit].max()


@pytest.mark.parametrize("decimals", [None, 0])
def test_binary_metrics_equal_scikit_learns_to_the_last_digit(decimals):
    labels, probabilities = draw_images(1001, decimals=decimals)
    is_fake, scores = labels == 0, probabilities[:, 0]
    called_fake = probabilities.argmax(axis=1) == 0
    expected = {
        "loss": sklearn_metrics.log_loss(labels, probabilities),
        "accuracy": sklearn_metrics.accuracy_score(is_fake, called_fake),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(is_fake, called_fake),
        "precision": sklearn_metrics.precision_score(is_fake, called_fake),
        "recall": sklearn_metrics.recall_score(is_fake, called_fake),
        "f1": sklearn_metrics.f1_score(is_fake, called_fake),
        "roc_auc": sklearn_metrics.roc_auc_score(is_fake, scores),
        "average_precision": sklearn_metrics.average_precision_score(is_fake, scores),
        "brier_score": sklearn_metrics.brier_score_loss(is_fake, scores),
        "false_positive_rate": 1 - sklearn_metrics.recall_score(~is_fake, ~called_fake),
        "recall_at_1_percent_fpr": recall_at(0.01, is_fake, scores),
        "recall_at_5_percent_fpr": recall_at(0.05, is_fake, scores),
    }
    found = values(measure(labels, probabilities))
    # Summed in another order.
    for name in ("false_positive_rate", "roc_auc", "average_precision"):
        assert found.pop(name) == pytest.approx(expected.pop(name), rel=1e-13)
    assert {name: found[name] for name in expected} == expected


def test_macro_metrics_of_three_classes_equal_scikit_learns():
    labels, probabilities = draw_images(900, n_classes=3, seed=3)
    predicted = probabilities.argmax(axis=1)
    expected = {
        "loss": sklearn_metrics.log_loss(labels, probabilities),
        "accuracy": sklearn_metrics.accuracy_score(labels, predicted),
        "balanced_accuracy": sklearn_metrics.balanced_accuracy_score(labels, predicted),
        "precision": sklearn_metrics.precision_score(labels, predicted, average="macro"),
        "recall": sklearn_metrics.recall_score(labels, predicted, average="macro"),
        "f1": sklearn_metrics.f1_score(labels, predicted, average="macro"),
        "roc_auc": sklearn_metrics.roc_auc_score(labels, probabilities, multi_class="ovr"),
        "average_precision": sklearn_metrics.average_precision_score(
            np.eye(3)[labels], probabilities
        ),
        "brier_score": sklearn_metrics.brier_score_loss(labels, probabilities),
    }
    numbers = measure(labels, probabilities, class_names=THREE)
    found = values(numbers)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-14)
    recalls = sklearn_metrics.recall_score(labels, predicted, average=None)
    per_class = [numbers["per_class"][name]["recall"]["value"] for name in THREE]
    assert per_class == pytest.approx(list(recalls), rel=1e-14)
    assert (
        numbers["confusion_matrix"] == sklearn_metrics.confusion_matrix(labels, predicted).tolist()
    )


def test_intervals_hold_the_value_and_narrow_with_more_images():
    widths = []
    for n in (200, 5000):
        labels, probabilities = draw_images(n, seed=n)
        numbers = measure(labels, probabilities)
        intervals = [v for v in numbers.values() if isinstance(v, dict) and "low" in v]
        assert all(v["low"] <= v["value"] <= v["high"] for v in intervals if v["value"] > 0.1)
        widths.append(numbers["accuracy"]["high"] - numbers["accuracy"]["low"])
    assert widths[1] < widths[0] / 3


def test_interval_of_a_share_is_close_to_the_exact_one():
    labels = np.array([0] * 1000 + [1] * 1000)
    probabilities = np.tile([0.9, 0.1], (2000, 1))
    probabilities[1100:] = [0.1, 0.9]
    rate = measure(labels, probabilities)["false_positive_rate"]
    assert rate["value"] == 0.1
    # Clopper and Pearson's interval for 100 of 1,000.
    assert rate["low"] == pytest.approx(0.0821, abs=0.003)
    assert rate["high"] == pytest.approx(0.1203, abs=0.003)


@pytest.mark.parametrize("decimals", [None, 0])
def test_ranking_of_resamples_equals_scikit_learns_with_sample_weights(decimals):
    labels, probabilities = draw_images(400, decimals=decimals, seed=4)
    positive, scores = labels == 0, probabilities[:, 0]
    weights = np.random.default_rng(0).integers(0, 4, (3, 400)).astype(np.float64)
    found = ranking(weights, positive=positive, scores=scores)
    for row, drawn in enumerate(weights):
        assert found["roc_auc"][row] == pytest.approx(
            sklearn_metrics.roc_auc_score(positive, scores, sample_weight=drawn), rel=1e-12
        )
        assert found["average_precision"][row] == pytest.approx(
            sklearn_metrics.average_precision_score(positive, scores, sample_weight=drawn),
            rel=1e-12,
        )


def test_chunks_of_resamples_change_nothing(monkeypatch):
    labels, probabilities = draw_images(300)
    whole = measure(labels, probabilities)
    monkeypatch.setattr("real_vs_ai.evaluation.metrics._CHUNK_WEIGHTS", 300 * 1000)
    assert measure(labels, probabilities) == whole


def test_calibration_error_of_hand_made_bins():
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.9, 0.1], [0.35, 0.65]])
    # Confidence 0.9 with 2 of 3 right, confidence 0.65 with 1 of 1 right.
    expected = 3 / 4 * abs(0.9 - 2 / 3) + 1 / 4 * abs(0.65 - 1)
    assert expected_calibration_error(labels, probabilities) == pytest.approx(expected)


def test_chance_calibration_error_lies_in_its_interval():
    rng = np.random.default_rng(0)
    fake = rng.random(500)
    labels = (rng.random(500) > fake).astype(int)
    probabilities = np.stack([fake, 1 - fake], axis=1)
    found = measure(labels, probabilities)["expected_calibration_error"]
    assert found["low"] <= found["value"] <= found["high"]
    assert found["value"] < expected_calibration_error(labels, probabilities)


def test_one_sided_calibration_error_does_not_cancel_out():
    fake = np.array([0.4] * 10 + [0.6] * 10)
    labels = np.array([0] * 2 + [1] * 8 + [0] * 4 + [1] * 6)
    # Stated 0.4 and 0.6, seen 0.2 and 0.4; by confidence 0.6 stated, 0.6 seen.
    found = expected_calibration_error(labels, np.stack([fake, 1 - fake], axis=1))
    assert found == pytest.approx(0.2)


def test_images_of_one_class_have_the_metrics_that_are_defined():
    labels = np.ones(20, dtype=int)
    probabilities = np.tile([0.2, 0.8], (20, 1))
    probabilities[:5] = [0.7, 0.3]
    found = values(measure(labels, probabilities))
    assert found["false_positive_rate"] == 0.25
    assert found["accuracy"] == 0.75
    assert not {"recall", "precision", "f1", "roc_auc", "average_precision"} & set(found)


def test_one_image_has_metrics():
    numbers = measure(np.array([0]), np.array([[0.8, 0.2]]))
    assert numbers["n"] == 1
    assert numbers["accuracy"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert numbers["recall"]["value"] == 1.0


def test_nothing_called_fake_counts_as_precision_zero():
    labels = np.array([0, 1, 1])
    probabilities = np.tile([0.1, 0.9], (3, 1))
    found = values(measure(labels, probabilities))
    assert (found["precision"], found["recall"], found["f1"]) == (0.0, 0.0, 0.0)


def test_uncertain_verdicts_are_counted_apart():
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.9, 0.1], [0.1, 0.9]])
    decided = np.array([0, -1, 0, 1])
    found = values(measure(labels, probabilities, decided=decided))
    assert found["uncertain_share"] == 0.25
    assert found["error_when_certain"] == pytest.approx(1 / 3)


def test_fake_is_positive_wherever_it_stands():
    labels, probabilities = draw_images(100)
    normal = measure(labels, probabilities)
    swapped = measure(1 - labels, probabilities[:, ::-1], class_names=("Real", "Fake"))
    first, second = values(normal), values(swapped)
    # Its bias is estimated from other resamples.
    name = "expected_calibration_error"
    assert first.pop(name) == pytest.approx(second.pop(name), abs=0.01)
    assert first == pytest.approx(second)
    assert (positive_index(("Real", "Fake")), positive_index(("cat", "dog"))) == (1, None)


def test_mcnemar_equals_the_binomial_test_on_disagreements():
    first = np.array([True] * 15 + [False] * 5 + [True] * 30)
    second = np.array([False] * 15 + [True] * 5 + [True] * 30)
    found = mcnemar_test(first, second)
    assert (found["only_first"], found["only_second"]) == (15, 5)
    # Two-sided binomial probability of 5 or fewer among 20.
    assert found["p_value"] == pytest.approx(0.04138947, abs=1e-7)
    assert mcnemar_test(first, first)["p_value"] == 1.0
