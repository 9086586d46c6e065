"""Stop, pace, record and save a run between its steps and epochs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from tqdm import tqdm

from real_vs_ai.core.files import atomic_write
from real_vs_ai.core.reporting import plural, progress
from real_vs_ai.models.keras_models import graph_of
from real_vs_ai.models.runs import write_history
from real_vs_ai.training.options import Stage, plan_stages
from real_vs_ai.training.run_state import Learning, TrainingDivergedError, restore, save_checkpoint

# A running mean this many times the first loss (and above 1) has no way back.
_EXPLODED = 100.0
# A stage takes at least this many steps (or all it has): a shorter one would only cost time.
FEWEST_STEPS = 10


class StopTrainingOnValidationLoss(keras.callbacks.Callback):
    """Stop when the validation loss exceeds the training loss; save the best epoch's weights.

    Both losses hold the L2 penalty; the training loss is measured with noise, dropout and
    augmentation, so a validation loss above it means that the network overfits. Also stops when the
    validation loss has not fallen for some epochs.

    Attributes:
        epochs: Losses of the stage's epochs, those before a resumption included.
        reason: Why the training was stopped; "" while it was not.
    """

    def __init__(self, learning: Learning, stage: Stage):
        super().__init__()
        self.learning = learning
        self.epochs: list[dict[str, Any]] = learning.progress.stage_rows(stage.name)
        self.reason = ""

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        logs, progress, options = logs or {}, self.learning.progress, self.learning.options
        if options.keep == "last" or logs["val_loss"] < progress.best_loss:
            progress.best_epoch, progress.best_loss = epoch + 1, float(logs["val_loss"])
            if self.learning.hosts.is_first:
                with atomic_write(self.learning.run.best_weights) as staging:
                    graph_of(self.model).save_weights(staging)
        self.epochs.append(dict(logs))
        above = [row["val_loss"] > row["loss"] for row in self.epochs[-options.patience - 1 :]]
        losses = [row["val_loss"] for row in self.epochs]
        if len(above) > options.patience and all(above):
            self.reason = "the validation loss exceeds the training loss"
        elif len(losses) - 1 - losses.index(min(losses)) >= options.early_stopping:
            self.reason = f"no lower validation loss in {plural(options.early_stopping, 'epoch')}"
        if self.reason:
            self.model.stop_training = True


class AveragedWeights(keras.callbacks.Callback):
    """Validate and keep the running averages of the weights; learning goes on from the weights.

    Stands between the callback that keeps weights and the one that saves checkpoints.
    """

    def on_test_begin(self, logs: Any = None) -> None:
        self._exchange()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._exchange()

    def _exchange(self) -> None:
        optimizer = self.model.optimizer
        # Half precision wraps it.
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        pairs = zip(
            optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True
        )
        for variable, average in pairs:
            value = keras.ops.convert_to_numpy(variable)
            variable.assign(average)
            average.assign(value)


class DivergenceGuard(keras.callbacks.Callback):
    """Raise as soon as the loss is not a number or has exploded, before anything is saved."""

    def __init__(self, *, advice: str):
        super().__init__()
        self.advice = advice
        self._first: float | None = None

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        # The running mean of the epoch's loss.
        loss = float((logs or {})["loss"])
        self._first = loss if self._first is None else self._first
        exploded = loss > _EXPLODED * max(1.0, self._first)
        if exploded or not math.isfinite(loss):
            raise TrainingDivergedError(
                f"The loss became {loss:.4g} at step {batch + 1} of this epoch: the learning rate "
                f"is too high for this data or precision. {self.advice}"
            )

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        loss = float((logs or {}).get("val_loss", 0.0))
        if not math.isfinite(loss):
            raise TrainingDivergedError(
                f"The validation loss became {loss} in epoch {epoch + 1}. {self.advice}"
            )


class TimeLimit(keras.callbacks.Callback):
    """Move a stage's learning rate along with the clock, and stop when its minutes are over.

    The time that is left after the first step, in which TensorFlow traces the network, is shared
    with the stages to come. A stage whose epochs need less time decays and ends as without a limit.

    Released models were trained so, and their recipes name their minutes. It stands before the
    callback that saves checkpoints.

    Attributes:
        position: The schedule's variable, 0 to 1.
        done: Steps of the stage that are done, those before a resumption included.
    """

    def __init__(
        self,
        learning: Learning,
        stage: Stage,
        position: keras.Variable,
        clock: Callable[[], float] = time.monotonic,
    ):
        super().__init__()
        self.progress, self.position, self._clock = learning.progress, position, clock
        self.steps = stage.epochs * learning.steps_per_epoch
        epochs = self.progress.epoch - self.progress.epochs_before(stage.name)
        self.done = epochs * learning.steps_per_epoch + self.progress.step
        self._first = max(self.progress.position, self.done / self.steps)
        self.progress.position = self._first
        position.assign(self._first)
        later = plan_stages(learning.options)[self.progress.stage + 1 :]
        # In steps with the whole network learning.
        own = (1 - self._first) * self.steps * stage.step_share
        others = sum(x.epochs * x.step_share for x in later) * learning.steps_per_epoch
        self._share = own / max(own + others, 1e-9)
        self._limit = 60 * (learning.options.minutes or math.inf)
        self._last, self._start, self._end = clock(), math.inf, math.inf

    @property
    def is_cut_short(self) -> bool:
        """Whether the time ended the stage before its last step."""
        return self.progress.position >= 1 and self.done < self.steps

    @property
    def seconds_left(self) -> float:
        """What the rest of the stage takes at most."""
        return max(0.0, self._end - self.progress.seconds)

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        self._tick()
        self.done += 1
        seconds = self.progress.seconds
        if math.isinf(self._end):
            self._start = seconds
            self._end = seconds + max(1.0, (self._limit - seconds) * self._share)
        self._move()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        """Count the validation, before the checkpoint that follows."""
        self._tick()
        self._move()

    def _tick(self) -> None:
        now = self._clock()
        self.progress.seconds += now - self._last
        self._last = now

    def _move(self) -> None:
        used = (self.progress.seconds - self._start) / (self._end - self._start)
        moved = max(self._first + (1 - self._first) * used, self.done / self.steps)
        # Fewer steps would only cost the time.
        highest = 1.0 if self.done >= min(FEWEST_STEPS, self.steps) else 0.99
        self.progress.position = min(moved, highest)
        self.position.assign(self.progress.position)
        self.model.stop_training |= self.progress.position >= 1


class Recorder(keras.callbacks.Callback):
    """Keep the history, write `history.csv`, save checkpoints, and obey a request to stop.

    Stands last in the list, so that a checkpoint knows what the others decided.
    """

    def __init__(
        self,
        learning: Learning,
        stage: Stage,
        metrics: Sequence[keras.metrics.Metric],
        limit: TimeLimit | None,
    ):
        super().__init__()
        self.learning, self.progress = learning, learning.progress
        self.stage, self.metrics, self.limit = stage, metrics, limit
        self.last_epoch = self.progress.epochs_before(stage.name) + stage.epochs

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._started = time.perf_counter()
        self._first_step = self.progress.step
        if self.progress.step:
            # Keras has reset them; the epoch goes on from its middle.
            restore(self.learning.run.checkpoint, self.model, "metrics", metrics=self.metrics)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self.progress.step += 1
        if self.progress.step >= self.learning.steps_per_epoch:
            # Validation comes next, and the checkpoint after it.
            return
        every = self.learning.options.checkpoint_steps
        due = every and self.progress.step % every == 0
        if due or self.learning.interrupted.is_set():
            self._save()
        self._stop_if_interrupted()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        progress, seconds = self.progress, time.perf_counter() - self._started
        row: dict[str, Any] = {"epoch": epoch + 1, "stage": self.stage.name}
        row.update({name: float(value) for name, value in (logs or {}).items()})
        for split in ("", "val_"):
            # With more classes it is a metric of its own: the mean of each class's.
            if f"{split}precision" in row and f"{split}f1" not in row:
                both = row[f"{split}precision"], row[f"{split}recall"]
                row[f"{split}f1"] = 2 * both[0] * both[1] / (sum(both) or 1.0)
        rate = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        row["learning_rate"] = float(rate)
        row["steps"] = progress.step
        row["seconds"] = round(seconds, 3)
        images = (progress.step - self._first_step) * progress.batch_size
        row["images_per_second"] = round(images / seconds, 2)
        progress.history.append(row)
        progress.epoch, progress.step = epoch + 1, 0
        progress.stage_done = self.model.stop_training or epoch + 1 >= self.last_epoch
        if self.learning.hosts.is_first:
            write_history(self.learning.run.history, progress.history)
        self._save()
        self._tell()
        # What the first one wrote is there for all of them from here on.
        self.learning.hosts.wait()
        self._stop_if_interrupted()

    def _save(self) -> None:
        if self.learning.hosts.is_first:
            save_checkpoint(
                self.learning.run.checkpoint, self.model, self.progress, metrics=self.metrics
            )

    def _tell(self) -> None:
        """Say how the epoch went."""
        progress = self.progress
        row = progress.history[-1]
        left = (self.last_epoch - progress.epoch) * row["seconds"]
        left = min(left, self.limit.seconds_left) if self.limit else left
        self.learning.say(
            f"epoch {progress.epoch}/{self.last_epoch} {row['stage']}: "
            f"loss {row['loss']:.4f}, accuracy {row['accuracy']:.4f}; "
            f"validation loss {row['val_loss']:.4f}, accuracy {row['val_accuracy']:.4f}; "
            f"{row['images_per_second']:.0f} images/s, {tqdm.format_interval(row['seconds'])}"
            + (f", at most {tqdm.format_interval(left)} left" if left else "")
        )

    def _stop_if_interrupted(self) -> None:
        if self.learning.interrupted.is_set():
            raise KeyboardInterrupt


class ProgressBar(keras.callbacks.Callback):
    """A bar for each epoch on a terminal: images a second, time left, loss and accuracy."""

    def __init__(self, learning: Learning, stage: Stage):
        super().__init__()
        self.progress, self.steps_per_epoch = learning.progress, learning.steps_per_epoch
        self.title = stage.name.capitalize()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._bar = progress(
            description=f"{self.title}, epoch {epoch + 1}",
            unit="image",
            total=self.steps_per_epoch * self.progress.batch_size,
        )
        self._bar.update(self.progress.step * self.progress.batch_size)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        logs = logs or {}
        text = f"loss {logs.get('loss', 0):.4f}, accuracy {logs.get('accuracy', 0):.4f}"
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(self.progress.batch_size)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._bar.close()
