"""Define what a model is compiled with: learning rate, Adam, fused operations, and metrics."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from real_vs_ai.core.config import positive_index


class WarmedPolynomialDecay(keras.optimizers.schedules.PolynomialDecay):
    """PolynomialDecay whose first steps rise evenly to the line that it falls along.

    Large steps from random weights can end learning before it begins (Goyal et al. 2017).
    """

    def __init__(
        self, *args: Any, warmup_steps: int, position: keras.Variable | None = None, **options: Any
    ):
        """Make the schedule.

        Args:
            warmup_steps: Steps until the decay is reached; 0 for none.
            position: How far the stage has come, 0 to 1; None counts the steps.
        """
        super().__init__(*args, **options)
        self.warmup_steps = warmup_steps
        self.position = position

    def __call__(self, step: Any) -> Any:
        if self.position is not None:
            step = ops.convert_to_tensor(self.position) * self.decay_steps
        rate = super().__call__(step)
        if not self.warmup_steps:
            return rate
        risen = (ops.cast(step, rate.dtype) + 1) / self.warmup_steps
        return rate * ops.minimum(risen, 1.0)


def make_optimizer(
    schedule: keras.optimizers.schedules.LearningRateSchedule,
    *,
    fused: bool,
    weight_decay: float = 0.0,
    averaging: float = 0.0,
) -> keras.optimizers.Adam:
    """Adam, or AdamW where the weights decay.

    Args:
        fused: Use TensorFlow's one operation for each variable; needs a single device.
        weight_decay: Share of the weights that decays, times the learning rate, at each step;
            biases and normalisations stay out.
        averaging: Share of the old average that each step keeps of the weights' running averages;
            0 for no averages.
    """
    optimizer = (FusedAdam if fused else PlainAdam)(
        schedule,
        weight_decay=weight_decay or None,
        use_ema=averaging > 0,
        ema_momentum=averaging or 0.99,
    )
    if weight_decay:
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


class PlainAdam(keras.optimizers.Adam):
    """Adam that leaves the weights alone when `fit` ends."""

    def finalize_variable_values(self, var_list: Any) -> None:
        """Do nothing: `fit` ends with every epoch, and `AveragedWeights` keeps the averages."""


class FusedAdam(PlainAdam):
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
    """Metrics of a softmax model: of the Fake class where there are two, else means over classes.

    F1 of two classes follows from precision and recall.
    """
    positive = positive_index(class_names)
    accuracy = keras.metrics.CategoricalAccuracy(name="accuracy")
    if positive is None:
        n = len(class_names)
        means = [MeanOverClasses(name, n_classes=n) for name in ("precision", "recall", "f1")]
        return [accuracy, *means, _AUC(name="auc", multi_label=True, num_labels=n)]
    weights = [float(i == positive) for i in range(2)]
    return [
        accuracy,
        _Precision(name="precision", class_id=positive),
        _Recall(name="recall", class_id=positive),
        _AUC(name="auc", multi_label=True, num_labels=2, label_weights=weights),
    ]


class MeanOverClasses(keras.metrics.Metric):
    """Precision, recall or F1 at the class of highest probability, averaged over the classes.

    A mixed image counts as one of the class that it shows most of.
    """

    def __init__(self, name: str, *, n_classes: int):
        """Make the metric.

        Args:
            name: "precision", "recall" or "f1".
        """
        super().__init__(name=name)
        self.n_classes = n_classes
        # Rows: right, called so, of the class.
        self.counts = self.add_variable((3, n_classes), initializer="zeros", name="counts")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        """Count a batch; both have shape (n_images, n_classes)."""
        shown, called = (
            ops.one_hot(ops.argmax(y, axis=-1), self.n_classes) for y in (y_true, y_pred)
        )
        weight = 1.0 if sample_weight is None else ops.reshape(sample_weight, (-1, 1))
        sums = [ops.sum(part * weight, axis=0) for part in (shown * called, called, shown)]
        self.counts.assign_add(ops.cast(ops.stack(sums), self.counts.dtype))

    def result(self) -> Any:
        """The mean so far; a class that was never called, or never shown, counts as 0."""
        right, called, of_class = (self.counts[i] for i in range(3))
        parts = {
            "precision": (right, called),
            "recall": (right, of_class),
            "f1": (2 * right, called + of_class),
        }
        return ops.mean(ops.divide_no_nan(*parts[self.name]))


class _OfShownClass:
    """Counts a mixed image as one of the class that it shows most of."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        # The metric beside this class has it.
        super().update_state(ops.round(y_true), y_pred, sample_weight)  # type: ignore[misc]


class _Precision(_OfShownClass, keras.metrics.Precision):
    pass


class _Recall(_OfShownClass, keras.metrics.Recall):
    pass


class _AUC(_OfShownClass, keras.metrics.AUC):
    pass
