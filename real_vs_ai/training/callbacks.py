"""Stop, record and save a run between its epochs."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras

from real_vs_ai.files import atomic_write
from real_vs_ai.keras_models import graph_of
from real_vs_ai.reporting import plural, progress
from real_vs_ai.runs import write_history
from real_vs_ai.training.checkpoints import (
    Progress,
    TrainingDivergedError,
    restore_metrics,
    save_checkpoint,
)
from real_vs_ai.training.devices import Hosts

# A running mean this many times the first loss (and above 1) has no way back.
_EXPLODED = 100.0


@dataclass(eq=False, kw_only=True)
class StopTrainingOnValidationLoss(keras.callbacks.Callback):
    """Stop when the validation loss exceeds the training loss; save the best epoch's weights.

    Both losses hold the L2 penalty; the training loss is measured with noise, dropout and
    augmentation, so a validation loss above it means that the network overfits. Also stops when the
    validation loss has not fallen for some epochs.

    Attributes:
        path: Where the best weights are saved; ends in `.weights.h5`.
        progress: Its best epoch (from 1) and loss are kept up to date.
        patience: This many epochs in a row may have a validation loss above the training loss.
        early_stopping: After this many epochs without a lower validation loss training stops.
        keep: "best" keeps the epoch with the lowest validation loss, "last" the last one.
        writes: Whether this process saves the weights; another one does otherwise.
        epochs: Losses of the stage's epochs; a resumed run gives the earlier ones.
        reason: Why the training was stopped; "" while it was not.
    """

    path: Path
    progress: Progress
    patience: int = 0
    early_stopping: float = math.inf
    keep: str = "best"
    writes: bool = True
    epochs: list[Mapping[str, float]] = field(default_factory=list)
    reason: str = field(default="", init=False)

    def __post_init__(self) -> None:
        super().__init__()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        logs, progress = logs or {}, self.progress
        if self.keep == "last" or logs["val_loss"] < progress.best_loss:
            progress.best_epoch, progress.best_loss = epoch + 1, float(logs["val_loss"])
            if self.writes:
                with atomic_write(self.path) as staging:
                    graph_of(self.model).save_weights(staging)
        self.epochs.append(logs)
        above = [row["val_loss"] > row["loss"] for row in self.epochs[-self.patience - 1 :]]
        losses = [row["val_loss"] for row in self.epochs]
        if len(above) > self.patience and all(above):
            self.reason = "the validation loss exceeds the training loss"
        elif len(losses) - 1 - losses.index(min(losses)) >= self.early_stopping:
            self.reason = f"no lower validation loss in {plural(int(self.early_stopping), 'epoch')}"
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


@dataclass(eq=False, kw_only=True)
class Recorder(keras.callbacks.Callback):
    """Keep the history, write `history.csv`, save checkpoints, and obey a request to stop.

    Stands last in the list, so that a checkpoint knows what the others decided.

    Attributes:
        progress: Kept up to date.
        last_epoch: The stage ends with this epoch, counted from 1.
        checkpoint_path: Where the run's state is saved.
        checkpoint_steps: Also save after this many steps; 0 only after epochs.
        hosts: Only the first process writes.
        on_epoch: Called after each epoch.
    """

    progress: Progress
    stage_name: str
    last_epoch: int
    history_path: Path
    checkpoint_path: Path
    checkpoint_steps: int
    steps_per_epoch: int
    metrics: Sequence[keras.metrics.Metric]
    hosts: Hosts
    interrupted: threading.Event
    on_epoch: Callable[[], None]
    _started: float = field(default=0.0, init=False)
    _first_step: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        super().__init__()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._started = time.perf_counter()
        self._first_step = self.progress.step
        if self.progress.step:
            # Keras has reset them; the epoch goes on from its middle.
            restore_metrics(self.checkpoint_path, self.metrics)

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self.progress.step += 1
        if self.progress.step >= self.steps_per_epoch:
            # Validation comes next, and the checkpoint after it.
            return
        due = self.checkpoint_steps and self.progress.step % self.checkpoint_steps == 0
        if due or self.interrupted.is_set():
            self._save()
        self._stop_if_interrupted()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        progress, seconds = self.progress, time.perf_counter() - self._started
        row = {"epoch": epoch + 1, "stage": self.stage_name}
        row.update({name: float(value) for name, value in (logs or {}).items()})
        for split in ("", "val_"):
            if f"{split}precision" in row:
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
        if self.hosts.is_first:
            write_history(self.history_path, progress.history)
        self._save()
        self.on_epoch()
        # What the first one wrote is there for all of them from here on.
        self.hosts.wait()
        self._stop_if_interrupted()

    def _save(self) -> None:
        if self.hosts.is_first:
            save_checkpoint(self.checkpoint_path, self.model, self.progress, metrics=self.metrics)

    def _stop_if_interrupted(self) -> None:
        if self.interrupted.is_set():
            raise KeyboardInterrupt


@dataclass(eq=False, kw_only=True)
class ProgressBar(keras.callbacks.Callback):
    """A bar for each epoch on a terminal: images a second, time left, loss and accuracy."""

    progress: Progress
    steps_per_epoch: int
    title: str
    _bar: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        super().__init__()

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


@contextmanager
def catch_interruption() -> Iterator[threading.Event]:
    """An event that Ctrl-C (or a scheduler's SIGTERM) sets; a second Ctrl-C breaks off at once."""
    interrupted = threading.Event()

    def note(signal_number: int, frame: Any) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()
        os.write(2, b"\nStopping after this step (press Ctrl-C again to break off) ...\n")

    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may set handlers; elsewhere interruption works as usual.
        yield interrupted
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
