"""Metrics of an epoch agree with scikit-learn's."""

import numpy as np
import pytest
from sklearn import metrics as sk

from real_vs_ai.training.compilation import epoch_metrics


def measured(class_names, labels, probabilities):
    results = {}
    for metric in epoch_metrics(class_names):
        for part in np.array_split(np.arange(len(labels)), 3):
            metric.update_state(np.eye(len(class_names))[labels[part]], probabilities[part])
        results[metric.name] = float(metric.result())
    return results


def scores(n_classes, *, seed=0, n=400):
    generator = np.random.default_rng(seed)
    # Unbalanced on purpose: precision, recall and accuracy then differ.
    labels = generator.choice(
        n_classes, n, p=np.arange(1, n_classes + 1) / sum(range(n_classes + 1))
    )
    logits = generator.normal(size=(n, n_classes)) + 1.5 * np.eye(n_classes)[labels]
    return labels, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def test_two_classes_count_fake_as_positive():
    labels, probabilities = scores(2)
    fake, found = labels == 0, probabilities.argmax(axis=1) == 0
    results = measured(("Fake", "Real"), labels, probabilities)
    assert results["accuracy"] == pytest.approx(sk.accuracy_score(fake, found))
    assert results["precision"] == pytest.approx(sk.precision_score(fake, found))
    assert results["recall"] == pytest.approx(sk.recall_score(fake, found))
    # Keras counts over 200 thresholds.
    assert results["auc"] == pytest.approx(sk.roc_auc_score(fake, probabilities[:, 0]), abs=0.003)
    assert len({round(value, 4) for value in results.values()}) == 4


def test_more_classes_have_the_means_over_their_classes():
    labels, probabilities = scores(3)
    results = measured(("a", "b", "c"), labels, probabilities)
    called = probabilities.argmax(axis=1)
    macro = sk.precision_recall_fscore_support(labels, called, average="macro")[:3]
    found = [results[name] for name in ("precision", "recall", "f1")]
    assert found == pytest.approx(macro, abs=1e-6)
    assert len(set(np.round(found, 4))) == 3
    assert results["accuracy"] == pytest.approx((probabilities.argmax(axis=1) == labels).mean())
    auc = sk.roc_auc_score(labels, probabilities, multi_class="ovr")
    assert results["auc"] == pytest.approx(auc, abs=0.003)


def test_mixed_images_count_as_the_class_that_they_show_most_of():
    labels, probabilities = scores(2)
    mixed = np.where(np.eye(2)[labels] > 0, 0.7, 0.3)
    results = {}
    for metric in epoch_metrics(("Fake", "Real")):
        metric.update_state(mixed, probabilities)
        results[metric.name] = float(metric.result())
    expected = measured(("Fake", "Real"), labels, probabilities)
    assert results == pytest.approx(expected)


def test_class_that_is_never_called_counts_as_zero():
    results = {}
    for metric in epoch_metrics(("a", "b", "c"))[1:4]:
        metric.update_state(np.eye(3)[[0, 1, 2]], np.eye(3)[[0, 1, 1]])
        results[metric.name] = float(metric.result())
    assert results == pytest.approx({"precision": 0.5, "recall": 2 / 3, "f1": (1 + 2 / 3) / 3})
