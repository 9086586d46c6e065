"""Plan what learns when, and how the learning rate falls: by the steps, or by the clock.

With --minutes a stage times its first steps and plans how many fit; half way it measures again and
corrects the plan. The learning rate then follows the plan, and is lowest when the time is used.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
from keras import ops

from real_vs_ai.reporting import plural
from real_vs_ai.training.checkpoints import Progress
from real_vs_ai.training.options import TrainingOptions

_FROZEN_EPOCHS = 3
# Smaller batches estimate batch statistics too poorly to replace ImageNet's.
_FEWEST_IMAGES_FOR_STATISTICS = 64
# A forward pass alone costs about a third of a pass with its gradients.
FORWARD_SHARE = 1 / 3
# A stage takes at least this many steps (or all it has): a shorter one would only cost time.
FEWEST_STEPS = 10
# Steps to time before the plan, after the first one, in which TensorFlow traces the network.
_TIMED_STEPS = 4
_REMEMBERED_STEPS = 16
# A report's figures and files, and the tracing for its predictions as a share of the training's.
_REPORT_SECONDS = 15.0
_REPORT_TRACINGS = 0.3


@dataclass(frozen=True)
class Stage:
    """A part of the training with its own learning rate.

    Attributes:
        name: "frozen", "fine-tuning", or "training" from random weights.
        epochs: How many epochs it lasts at most.
        learning_rate: At its first step.
        train_backbone: Whether the backbone learns, or only the head.
        train_batch_norm: Whether batch statistics are learnt.
    """

    name: str
    epochs: int
    learning_rate: float
    train_backbone: bool
    train_batch_norm: bool

    @property
    def step_share(self) -> float:
        """Cost of one of its steps, where one with the whole network learning costs 1."""
        return 1.0 if self.train_backbone else FORWARD_SHARE


def plan_stages(options: TrainingOptions) -> list[Stage]:
    """Head first and then the whole network, or the whole network at once from random weights."""
    random_weights = options.weights == "none"
    frozen_epochs = options.frozen_epochs
    if frozen_epochs is None:
        frozen_epochs = 0 if random_weights else _FROZEN_EPOCHS
    statistics = {"train": True, "frozen": False}.get(
        options.batch_norm, random_weights or options.batch_size >= _FEWEST_IMAGES_FOR_STATISTICS
    )
    stages = []
    if frozen_epochs:
        stages.append(Stage("frozen", frozen_epochs, options.learning_rate, False, False))
    if options.epochs:
        from_scratch = random_weights and not frozen_epochs
        rate = options.learning_rate if from_scratch else options.fine_tune_learning_rate
        name = "training" if from_scratch else "fine-tuning"
        stages.append(Stage(name, options.epochs, rate, True, statistics))
    return stages


def format_duration(seconds: float) -> str:
    """A duration for people.

    >>> [format_duration(seconds) for seconds in (40, 700, 12_000, 190_000)]
    ['40 s', '12 min', '3 h 20 min', '2 d 4 h']
    """
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


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

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "warmup_steps": self.warmup_steps}


@dataclass
class TimeBudget:
    """The time that a run has, in seconds, and what its evaluation will take of it.

    Attributes:
        minutes: For the whole run, over all its resumptions.
        clock: Tells the seconds since some instant.
        spent_before: Seconds that the run took before it was resumed.
        evaluation_images: Images that the network scores after the training.
        evaluation_slowdown: How much longer the evaluation takes an image than validation does.
        image_seconds: What the network takes to judge an image, where that was measured before the
            steps; None where they tell it.
        tracing_seconds: What the first step took, in which TensorFlow traces the network.
    """

    minutes: float
    clock: Callable[[], float] = time.monotonic
    spent_before: float = 0.0
    evaluation_images: int = 0
    evaluation_slowdown: float = 1.0
    image_seconds: float | None = None
    tracing_seconds: float = 0.0

    def __post_init__(self) -> None:
        self._started = self.clock()

    @property
    def spent(self) -> float:
        """Seconds that the run has taken so far, those before a resumption included."""
        return self.spent_before + self.clock() - self._started

    def evaluation_seconds(self, image_seconds: float) -> float:
        """About what the evaluation and its report take, by what validation takes an image."""
        each = self.image_seconds or image_seconds * self.evaluation_slowdown
        tracing = _REPORT_TRACINGS * self.tracing_seconds
        return self.evaluation_images * each + _REPORT_SECONDS + tracing


@dataclass(eq=False, kw_only=True)
class KeepPace(keras.callbacks.Callback):
    """Move the position along with the steps, and stop when the stage's time is used.

    It stands before the callback that saves checkpoints.

    Attributes:
        position: The schedule's variable, 0 to 1.
        progress: Its `position` and `seconds` are kept up to date for the checkpoint.
        steps: Steps of the whole stage if it had all the time.
        steps_per_epoch: Each epoch ends with the validation images.
        done: Steps that were done before.
        step_share: Cost of one of its steps, where one with the whole network learning costs 1.
        later_steps: Steps of the stages after it, in steps with the whole network learning.
    """

    budget: TimeBudget
    position: keras.Variable
    progress: Progress
    say: Callable[[str], None]
    steps: int
    steps_per_epoch: int
    done: int
    validation_images: int
    step_share: float = 1.0
    later_steps: float = 0.0
    step_seconds: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        super().__init__()
        self.progress.position = max(self.progress.position, self.done / self.steps)
        self.position.assign(self.progress.position)
        self._durations: deque[float] = deque(maxlen=_REMEMBERED_STEPS)
        self._is_traced = self._is_corrected = False
        self._end = math.inf
        self._last = self._validation_began = self.budget.clock()
        self._validations: list[float] = []

    @property
    def is_cut_short(self) -> bool:
        """Whether the time ended the stage before its last step."""
        return self.progress.position >= 1 and self.done < self.steps

    @property
    def seconds_left(self) -> float:
        """About what the rest of the stage takes, without validation."""
        return 0.0 if self.progress.position >= 1 else self._steps_left() * self.step_seconds

    @property
    def evaluation_seconds(self) -> float:
        """About what the evaluation will take after the training."""
        seconds = self._validation_seconds / max(1, self.validation_images)
        return self.budget.evaluation_seconds(seconds)

    @property
    def _validation_seconds(self) -> float:
        """What an epoch's validation takes: measured, or guessed from the steps."""
        # Tracing prolongs the first one, which tells nothing.
        if self._validations[1:]:
            return self._validations[-1]
        forward = min(1.0, FORWARD_SHARE / self.step_share) * self.step_seconds
        return forward * self.validation_images / self.progress.batch_size

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self._last = self.budget.clock()

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        now, progress = self.budget.clock(), self.progress
        if self._is_traced:
            self._durations.append(now - self._last)
        else:
            self.budget.tracing_seconds, self._is_traced = now - self._last, True
        self._last = now
        self.done += 1
        if math.isinf(self._end):
            if 0 < len(self._durations) == min(_TIMED_STEPS, self.steps - 1):
                self._plan()
                self._announce()
        elif progress.position > 0.5 and not self._is_corrected:
            self._plan()
            self._is_corrected = True
        left = self._steps_left()
        progress.position += (1 - progress.position) / (1 + left) if left >= 0.5 else 1
        progress.position = min(1.0, progress.position)
        progress.seconds = self.budget.spent
        self.position.assign(progress.position)
        if progress.position >= 1:
            self.model.stop_training = True

    def on_test_begin(self, logs: object = None) -> None:
        self._validation_began = self.budget.clock()

    def on_test_end(self, logs: object = None) -> None:
        self._validations.append(self.budget.clock() - self._validation_began)

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        # For the checkpoint that follows.
        self.progress.seconds = self.budget.spent

    def _plan(self) -> None:
        """Set the instant at which the steps must end: its share of the time, less validation."""
        self.step_seconds = sum(self._durations) / len(self._durations)
        own = (1 - self.progress.position) * self.steps * self.step_share
        seconds = 60 * self.budget.minutes - self.budget.spent - self.evaluation_seconds
        seconds *= own / max(own + self.later_steps, 1e-9)
        self._end = self.budget.clock() + seconds - self._validation_seconds

    def _steps_left(self) -> float:
        """Steps that are left to take after this one, by the schedule or by the time."""
        wanted = self.steps - self.done
        if math.isinf(self._end):
            return wanted
        seconds, validation = self._end - self.budget.clock(), self._validation_seconds
        if self.done % self.steps_per_epoch == 0:
            seconds -= validation
        possible = seconds / (self.step_seconds + validation / self.steps_per_epoch)
        return min(wanted, max(possible, min(FEWEST_STEPS, self.steps) - self.done))

    def _announce(self) -> None:
        planned = self.done + math.ceil(self._steps_left())
        self.say(
            f"Planned for {self.budget.minutes:g} min: about {planned:,} of "
            f"{plural(self.steps, 'step')} ({planned / self.steps_per_epoch:.1f} epochs) at "
            f"{self.step_seconds:.2f} s each, then about "
            f"{format_duration(self.evaluation_seconds)} of evaluation."
        )
