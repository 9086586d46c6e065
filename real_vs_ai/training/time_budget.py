"""Fit a run into a number of minutes: plan its steps from their measured speed.

The learning rate follows the position and not the count of steps. While the machine keeps its
speed, both grow alike. When it slows down, the position takes longer strides: the rate still ends
at its lowest value when the time is used up.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import keras

from real_vs_ai.reporting import plural
from real_vs_ai.training.checkpoints import Progress
from real_vs_ai.training.stages import FORWARD_SHARE, format_duration

# A stage takes at least this many steps (or all it has): a shorter one would only cost time.
FEWEST_STEPS = 10
# The plan is announced after this many steps; the first one, in which the network is traced, is not
# among them. Later steps replace the older ones, so that a slower machine is noticed.
_STEPS_BEFORE_PLAN = 4
_REMEMBERED_STEPS = 16
# A report's figures and files, and the tracing for its predictions as a share of the training's.
_REPORT_SECONDS = 15.0
_REPORT_TRACINGS = 0.3
# A plan that shrinks by more than this share is announced again.
_WORTH_SAYING = 0.25


@dataclass
class TimeBudget:
    """The time that a run has, in seconds, and what its evaluation will take of it.

    Attributes:
        minutes: For the whole run, over all its resumptions.
        clock: Tells the seconds since some instant.
        spent_before: Seconds that the run took before it was resumed.
        evaluation_images: Images that the network scores after the training.
        image_seconds: What the network takes to judge an image, where that was measured before the
            steps; None where they tell it.
        tracing_seconds: What the first step took, in which TensorFlow traces the network.
    """

    minutes: float
    clock: Callable[[], float] = time.monotonic
    spent_before: float = 0.0
    evaluation_images: int = 0
    image_seconds: float | None = None
    tracing_seconds: float = 0.0

    def __post_init__(self) -> None:
        self._started = self.clock()

    @property
    def spent(self) -> float:
        """Seconds that the run has taken so far, those before a resumption included."""
        return self.spent_before + self.clock() - self._started

    def left_for_training(self, *, image_seconds: float) -> float:
        """Seconds until the evaluation must begin; negative when it is late."""
        return 60 * self.minutes - self.spent - self.evaluation_seconds(image_seconds)

    def evaluation_seconds(self, image_seconds: float) -> float:
        """About what the evaluation and its report take."""
        tracing = _REPORT_TRACINGS * self.tracing_seconds
        return self.evaluation_images * image_seconds + _REPORT_SECONDS + tracing


@dataclass(frozen=True)
class StageWork:
    """What a stage would do if it had all the time.

    Attributes:
        steps_per_epoch: Each epoch ends with the validation images.
        step_share: Cost of one of its steps, where one with the whole network learning costs 1.
        later_steps: Steps of the stages after it, in steps with the whole network learning.
        evaluation_slowdown: How much longer the evaluation takes an image than validation does.
    """

    steps: int
    steps_per_epoch: int
    batch_size: int
    validation_images: int
    step_share: float
    later_steps: float
    evaluation_slowdown: float = 1.0


class Pace:
    """How far a stage has come, and how many steps it still takes.

    Attributes:
        position: Share of the way that is behind it, 0 to 1.
    """

    def __init__(self, budget: TimeBudget, work: StageWork, *, done: int, position: float):
        """Make the pace of a stage that has taken `done` steps, which have led to `position`."""
        self.budget = budget
        self.work = work
        self.done = done
        self.position = max(position, done / work.steps)
        self._durations: deque[float] = deque(maxlen=_REMEMBERED_STEPS)
        self._validations = 0
        self._validation_seconds = math.inf
        self._last: float | None = None
        self._is_traced = False

    @property
    def is_measured(self) -> bool:
        """Whether enough steps were timed to plan by them."""
        return len(self._durations) >= min(_STEPS_BEFORE_PLAN, self.work.steps - 1)

    @property
    def is_finished(self) -> bool:
        """Whether the stage has no more steps to take."""
        return self.position >= 1

    @property
    def is_cut_short(self) -> bool:
        """Whether the time ended the stage before its last step."""
        return self.is_finished and self.done < self.work.steps

    @property
    def step_seconds(self) -> float:
        """What a step takes at present; 0 before the first was timed."""
        return sum(self._durations) / len(self._durations) if self._durations else 0.0

    @property
    def image_seconds(self) -> float:
        """What the network takes to judge an image: measured, or guessed from the steps."""
        if math.isfinite(self._validation_seconds):
            return self._validation_seconds / self.work.validation_images
        forward = min(1.0, FORWARD_SHARE / self.work.step_share)
        return forward * self.step_seconds / self.work.batch_size

    @property
    def evaluation_seconds(self) -> float:
        """About what the evaluation will take after the training."""
        return self.budget.evaluation_seconds(self._evaluation_image_seconds)

    @property
    def _evaluation_image_seconds(self) -> float:
        """What the network takes to judge an image after the training."""
        return self.budget.image_seconds or self.image_seconds * self.work.evaluation_slowdown

    @property
    def planned_steps(self) -> int:
        """Steps of the whole stage, as it looks now."""
        return self.done + math.ceil(self._steps_left() - 1e-6)

    @property
    def seconds_left(self) -> float:
        """About what the rest of the stage takes, without validation."""
        return 0.0 if self.is_finished else self._steps_left() * self.step_seconds

    def start_timing(self) -> None:
        """An epoch begins: what passed since the last step was none of its steps."""
        self._last = self.budget.clock()

    def after_step(self) -> None:
        """Count a step, and move on by its share of the steps that are left."""
        now = self.budget.clock()
        took = now - (now if self._last is None else self._last)
        self._last = now
        if self._is_traced:
            self._durations.append(took)
        else:
            self._is_traced = True
            self.budget.tracing_seconds = took
        left = self._steps_left()
        self.done += 1
        self.position = 1.0 if left <= 1 + 1e-6 else self.position + (1 - self.position) / left

    def after_validation(self, seconds: float) -> None:
        """Note what the validation images took; tracing prolongs the first, which tells nothing."""
        self._validations += 1
        if self._validations > 1:
            self._validation_seconds = min(self._validation_seconds, seconds)

    def _steps_left(self) -> float:
        """Steps that are left to take, by the schedule or by the time."""
        work = self.work
        wanted = (1 - self.position) * work.steps
        if not self._durations:
            return wanted
        own = wanted * work.step_share
        seconds = self.budget.left_for_training(image_seconds=self._evaluation_image_seconds)
        seconds *= own / max(own + work.later_steps, 1e-9)
        possible = self._steps_within(seconds)
        fewest = min(FEWEST_STEPS, work.steps) - self.done
        return min(wanted, max(possible, fewest, 0.0))

    def _steps_within(self, seconds: float) -> float:
        """Steps that some seconds suffice for, each epoch's validation images included."""
        work = self.work
        validation = self.image_seconds * work.validation_images
        # At least one validation comes, after the last step.
        whole_epoch = work.steps_per_epoch * self.step_seconds + validation
        steps_in_epoch = work.steps_per_epoch - self.done % work.steps_per_epoch
        first_epoch = steps_in_epoch * self.step_seconds + validation
        if seconds <= first_epoch:
            return (seconds - validation) / self.step_seconds
        epochs, rest = divmod(seconds - first_epoch, whole_epoch)
        more = max(0.0, rest - validation) / self.step_seconds
        return steps_in_epoch + epochs * work.steps_per_epoch + more


@dataclass(eq=False)
class KeepPace(keras.callbacks.Callback):
    """Move the learning rate along with the pace, and stop when the pace is at its end.

    It stands before the callback that saves checkpoints.
    """

    pace: Pace
    position: keras.Variable
    progress: Progress
    say: Callable[[str], None]
    on_plan: Callable[[Pace], None]
    _announced: int = field(default=0, init=False)
    _validation_began: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        super().__init__()
        self.position.assign(self.pace.position)

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.pace.start_timing()

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        pace, progress = self.pace, self.progress
        pace.after_step()
        self.position.assign(pace.position)
        progress.position, progress.seconds = pace.position, pace.budget.spent
        if pace.is_finished:
            self.model.stop_training = True
        elif pace.is_measured:
            self._announce()

    def on_test_begin(self, logs: object = None) -> None:
        self._validation_began = self.pace.budget.clock()

    def on_test_end(self, logs: object = None) -> None:
        self.pace.after_validation(self.pace.budget.clock() - self._validation_began)

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        # For the checkpoint that follows.
        self.progress.seconds = self.pace.budget.spent

    def _announce(self) -> None:
        planned = self.pace.planned_steps
        if not self._announced:
            self.say(describe_plan(self.pace))
            self.on_plan(self.pace)
        elif planned < (1 - _WORTH_SAYING) * self._announced:
            self.say(f"Slower than planned: {planned:,} steps instead of {self._announced:,}.")
        else:
            return
        self._announced = planned


def describe_plan(pace: Pace) -> str:
    """A line for the user: the steps of a stage, their speed, and what follows."""
    work, planned = pace.work, pace.planned_steps
    epochs = planned / work.steps_per_epoch
    return (
        f"Planned for {pace.budget.minutes:g} min: {planned:,} of {plural(work.steps, 'step')} "
        f"({epochs:.1f} epochs) at {pace.step_seconds:.2f} s each, then about "
        f"{format_duration(pace.evaluation_seconds)} of evaluation."
    )
