"""Compute accuracy, and precision, recall, AUC and F1 of the positive class, in every epoch.

With a Fake class they are Fake's; otherwise the mean over the classes (macro).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from real_vs_ai.config import POSITIVE_CLASS


def epoch_metrics(class_names: Sequence[str]) -> list[keras.metrics.Metric]:
    """Metrics to compile a softmax model with, for one-hot labels.

    Args:
        class_names: In the order of the outputs.
    """
    names = tuple(class_names)
    positive = names.index(POSITIVE_CLASS) if POSITIVE_CLASS in names and len(names) == 2 else None
    options = {"n_classes": len(names), "positive": positive}
    weights = None if positive is None else [float(i == positive) for i in range(len(names))]
    return [
        keras.metrics.CategoricalAccuracy(name="accuracy"),
        Precision(name="precision", **options),
        Recall(name="recall", **options),
        keras.metrics.AUC(
            name="auc", multi_label=True, num_labels=len(names), label_weights=weights
        ),
        F1(name="f1", **options),
    ]


class _FromCounts(keras.metrics.Metric):
    """A metric of the most probable class, from counts of hits, predictions and labels."""

    def __init__(self, *, n_classes: int, positive: int | None, name: str, dtype: Any = None):
        super().__init__(name=name, dtype=dtype)
        self.n_classes = n_classes
        self.positive = positive
        shape = (n_classes,)
        self.hits = self.add_variable(shape, initializer="zeros", name="hits")
        self.predicted = self.add_variable(shape, initializer="zeros", name="predicted")
        self.actual = self.add_variable(shape, initializer="zeros", name="actual")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count a batch; shapes (batch, n_classes). Class weights do not count images twice."""
        actual = ops.cast(ops.convert_to_tensor(y_true), self.dtype)
        predicted = ops.one_hot(ops.argmax(y_pred, axis=-1), self.n_classes, dtype=self.dtype)
        self.hits.assign_add(ops.sum(actual * predicted, axis=0))
        self.predicted.assign_add(ops.sum(predicted, axis=0))
        self.actual.assign_add(ops.sum(actual, axis=0))

    def result(self) -> Any:
        """The positive class's value, or the mean over the classes."""
        values = self.by_class()
        return ops.mean(values) if self.positive is None else values[self.positive]

    def by_class(self) -> Any:
        """The value of each class, shape (n_classes,)."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """What a metric of the same kind is made from."""
        return {**super().get_config(), "n_classes": self.n_classes, "positive": self.positive}


class Precision(_FromCounts):
    """Share of the images taken for a class that are of it; 0 when none was taken for it."""

    def by_class(self) -> Any:
        """The precision of each class, shape (n_classes,)."""
        return ops.divide_no_nan(self.hits, self.predicted)


class Recall(_FromCounts):
    """Share of a class's images that were taken for it."""

    def by_class(self) -> Any:
        """The recall of each class, shape (n_classes,)."""
        return ops.divide_no_nan(self.hits, self.actual)


class F1(_FromCounts):
    """Harmonic mean of precision and recall."""

    def by_class(self) -> Any:
        """The F1 score of each class, shape (n_classes,)."""
        return ops.divide_no_nan(2.0 * self.hits, self.predicted + self.actual)
