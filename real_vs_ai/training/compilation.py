"""Define what a model is compiled with: Adam with a falling learning rate, and metrics.

optimizer = make_optimizer(learning_rate=1e-3, decay_steps=epochs * steps_per_epoch,
                           warmup_steps=0, fused=True)
model.compile(optimizer=optimizer, metrics=epoch_metrics(("Fake", "Real")), …)

The metrics are those of the Fake class where there is one, otherwise means over the classes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from real_vs_ai.config import POSITIVE_CLASS

# The learning rate ends at this share of what it began with.
FINAL_SHARE = 0.01


class WarmedPolynomialDecay(keras.optimizers.schedules.PolynomialDecay):
    """PolynomialDecay whose first steps rise evenly to the line that it falls along.

    Large steps from random weights can end learning before it begins (Goyal et al. 2017).
    """

    def __init__(self, *args: Any, warmup_steps: int, **options: Any):
        """Make the schedule, with steps until the decay is reached; 0 for none."""
        super().__init__(*args, **options)
        self.warmup_steps = warmup_steps

    def __call__(self, step: Any) -> Any:
        rate = super().__call__(step)
        if not self.warmup_steps:
            return rate
        risen = (ops.cast(step, rate.dtype) + 1) / self.warmup_steps
        return rate * ops.minimum(risen, 1.0)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "warmup_steps": self.warmup_steps}


class PacedDecay(WarmedPolynomialDecay):
    """The same line, gone along by a variable from 0 to 1 instead of the count of steps."""

    def __init__(self, *args: Any, position: keras.Variable, **options: Any):
        """Make the schedule; the other arguments are those of WarmedPolynomialDecay."""
        super().__init__(*args, **options)
        self.position = position

    def __call__(self, step: Any) -> Any:
        return super().__call__(ops.convert_to_tensor(self.position) * self.decay_steps)


def make_optimizer(
    *,
    learning_rate: float,
    decay_steps: int,
    warmup_steps: int,
    fused: bool,
    position: keras.Variable | None = None,
) -> keras.optimizers.Adam:
    """Adam under a PolynomialDecay (of power 1) that ends with the last step.

    Args:
        learning_rate: At the first step, or what warm-up leads to.
        decay_steps: Steps of the whole stage, warm-up among them.
        warmup_steps: Steps over which the learning rate first rises.
        fused: Use TensorFlow's one operation for each variable; needs a single device.
        position: Where on its way the learning rate is, 0 to 1; None counts the steps.
    """
    options = {
        "initial_learning_rate": learning_rate,
        "decay_steps": max(1, decay_steps),
        "end_learning_rate": learning_rate * FINAL_SHARE,
        "warmup_steps": warmup_steps,
    }
    if position is None:
        schedule = WarmedPolynomialDecay(**options)
    else:
        schedule = PacedDecay(position=position, **options)
    return (FusedAdam if fused else keras.optimizers.Adam)(schedule)


class FusedAdam(keras.optimizers.Adam):
    """The same numbers as Adam in one operation for each variable, on the TensorFlow backend.

    Keras writes Adam as a dozen small operations; on ResNet101's 418 variables they take a third
    of the time until the first step, and memory bandwidth at every step.
    """

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable and its moments."""
        import tensorflow as tf

        index = self._get_variable_index(variable)
        step = ops.cast(self.iterations + 1, variable.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=ops.power(ops.cast(self.beta_1, variable.dtype), step),
            beta2_power=ops.power(ops.cast(self.beta_2, variable.dtype), step),
            lr=ops.cast(learning_rate, variable.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=ops.cast(gradient, variable.dtype),
        )


def fuse_batch_norm(model: keras.Model) -> None:
    """Make batch normalisation learn through TensorFlow's one operation; numbers stay the same.

    Keras writes it as a dozen elementwise operations, which wait for memory: a ResNet50 on a CPU
    trains about 30 % faster with one. The layers stay Keras' own, so that files and copies of the
    model know nothing of it. Only for the TensorFlow backend.
    """
    for layer in model.layers:
        if _can_be_fused(layer):
            layer.call = functools.partial(_fused_batch_norm, layer)


def _can_be_fused(layer: keras.layers.Layer) -> bool:
    if not isinstance(layer, keras.layers.BatchNormalization) or len(layer.input.shape) != 4:
        return False
    special = layer.renorm or layer.synchronized or not (layer.scale and layer.center)
    return layer.axis in (-1, 3) and not special


def _fused_batch_norm(
    layer: keras.layers.BatchNormalization, inputs: Any, training: Any = None, mask: Any = None
) -> Any:
    """`BatchNormalization.call` for images, shape (batch, height, width, channels)."""
    if not (training and layer.trainable):
        return type(layer).call(layer, inputs, training=training, mask=mask)
    import tensorflow as tf

    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=ops.cast(layer.gamma, "float32"),
        offset=ops.cast(layer.beta, "float32"),
        mean=[],
        variance=[],
        epsilon=layer.epsilon,
        is_training=True,
    )
    # TensorFlow gives the variance of the population that the batch is a sample of.
    count = ops.cast(tf.size(inputs) // tf.shape(inputs)[-1], variance.dtype)
    variance *= (count - 1) / count
    kept = layer.momentum
    layer.moving_mean.assign(kept * layer.moving_mean + (1 - kept) * mean)
    layer.moving_variance.assign(kept * layer.moving_variance + (1 - kept) * variance)
    return outputs


def epoch_metrics(class_names: Sequence[str]) -> list[keras.metrics.Metric]:
    """Metrics to compile a softmax model with, for one-hot labels in the order of the classes."""
    names = tuple(class_names)
    positive = names.index(POSITIVE_CLASS) if POSITIVE_CLASS in names and len(names) == 2 else None
    options = {"n_classes": len(names), "positive": positive}
    weights = None if positive is None else [float(i == positive) for i in range(len(names))]
    return [
        keras.metrics.CategoricalAccuracy(name="accuracy"),
        ClassMetric(name="precision", **options),
        ClassMetric(name="recall", **options),
        _AUC(name="auc", multi_label=True, num_labels=len(names), label_weights=weights),
        ClassMetric(name="f1", **options),
    ]


class _AUC(keras.metrics.AUC):
    """Counts a mixed image as one of the class that it shows most of."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        super().update_state(ops.round(y_true), y_pred, sample_weight)


# Each is 0 where it would divide by 0: nothing was taken for the class, or nothing is of it.
_FORMULAS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "precision": lambda hits, predicted, actual: ops.divide_no_nan(hits, predicted),
    "recall": lambda hits, predicted, actual: ops.divide_no_nan(hits, actual),
    "f1": lambda hits, predicted, actual: ops.divide_no_nan(2.0 * hits, predicted + actual),
}


class ClassMetric(keras.metrics.Metric):
    """Precision, recall or F1 (its name says which) of the most probable class."""

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
        values = _FORMULAS[self.name](self.hits, self.predicted, self.actual)
        return ops.mean(values) if self.positive is None else values[self.positive]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "n_classes": self.n_classes, "positive": self.positive}
