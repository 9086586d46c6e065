"""Define Adam with a learning rate that falls along a polynomial over the real number of steps.

optimizer = make_optimizer(learning_rate=1e-3, decay_steps=epochs * steps_per_epoch,
                           warmup_steps=0, fused=True)
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

# The learning rate ends at this share of what it began with.
FINAL_SHARE = 0.01


class WarmedPolynomialDecay(keras.optimizers.schedules.PolynomialDecay):
    """PolynomialDecay whose first steps rise evenly to the line that it falls along.

    Large steps from random weights can end learning before it begins (Goyal et al. 2017).
    """

    def __init__(self, *args: Any, warmup_steps: int, **options: Any):
        """Make the schedule.

        Args:
            *args: As for PolynomialDecay.
            warmup_steps: Steps until the decay is reached; 0 for none.
            **options: As for PolynomialDecay.
        """
        super().__init__(*args, **options)
        self.warmup_steps = warmup_steps

    def __call__(self, step: Any) -> Any:
        """The learning rate at a step, counted from 0."""
        rate = super().__call__(step)
        if not self.warmup_steps:
            return rate
        risen = (ops.cast(step, rate.dtype) + 1) / self.warmup_steps
        return rate * ops.minimum(risen, 1.0)

    def get_config(self) -> dict[str, Any]:
        """Its arguments."""
        return {**super().get_config(), "warmup_steps": self.warmup_steps}


class PacedDecay(WarmedPolynomialDecay):
    """The same line, gone along by a variable from 0 to 1 in place of the count of steps."""

    def __init__(self, *args: Any, position: keras.Variable, **options: Any):
        """Make the schedule; the other arguments are those of WarmedPolynomialDecay."""
        super().__init__(*args, **options)
        self.position = position

    def __call__(self, step: Any) -> Any:
        """The learning rate at the variable's position."""
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
