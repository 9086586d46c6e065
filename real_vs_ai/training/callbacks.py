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
from real_vs_ai.reporting import progress
from real_vs_ai.runs import write_history
from real_vs_ai.training.checkpoints import Progress, TrainingDivergedError, save_checkpoint
from real_vs_ai.training.devices import Hosts

# A running mean this many times the first loss (and above 1) has no way back.
_EXPLODED = 100.0


@dataclass(eq=False, kw_only=True)
class StopTrainingOnValidationLoss(keras.callbacks.Callback):
    """Stop when the validation loss exceeds the training loss; keep the best epoch's weights.

    Both losses hold the L2 penalty; the training loss is measured with noise, dropout and
    augmentation, so a validation loss above it means that the network overfits. When training ends,
    for this or any other reason, the weights of the epoch with the lowest validation loss are
    restored; they are on disk from the end of that epoch on.

    Attributes:
        path: Where the best weights are saved; ends in `.weights.h5`.
        patience: This many epochs in a row may have a validation loss above the training loss.
        keep: "best" keeps the epoch with the lowest validation loss, "last" the last one.
        writes: Whether this process saves the weights; another one does otherwise.
        best_loss: The lowest so far; a resumed run gives that of its earlier epochs.
        best_epoch: Its epoch, counted from 1; 0 before the first. Its weights are at `path`.
        stopped: Whether this callback stopped the training.
    """

    path: Path
    patience: int = 0
    keep: str = "best"
    writes: bool = True
    best_loss: float = math.inf
    best_epoch: int = 0
    stopped: bool = field(default=False, init=False)
    _epochs_above: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        super().__init__()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        logs = logs or {}
        if self.keep == "last" or logs["val_loss"] < self.best_loss:
            self.best_loss = float(logs["val_loss"])
            self.best_epoch = epoch + 1
            if self.writes:
                with atomic_write(self.path) as staging:
                    graph_of(self.model).save_weights(staging)
        self.count(logs)
        if self._epochs_above > self.patience:
            self.stopped = True
            self.model.stop_training = True

    def count(self, logs: Mapping[str, float]) -> None:
        """Count an epoch's losses only; for the epochs before a resumed run."""
        above = logs["val_loss"] > logs["loss"]
        self._epochs_above = self._epochs_above + 1 if above else 0

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        if self.best_epoch:
            graph_of(self.model).load_weights(self.path)


class OneTraining(keras.callbacks.CallbackList):
    """Callbacks for which several calls of `fit` are one training.

    An epoch that is taken up in its middle needs a `fit` of its own. Callbacks would reset
    themselves between the two; with this list they begin once and end with `finish`.
    """

    _begun = False

    def on_train_begin(self, logs: Any = None) -> None:
        if not self._begun:
            self._begun = True
            super().on_train_begin(logs)

    def on_train_end(self, logs: Any = None) -> None:
        """Wait for `finish`."""

    def finish(self) -> None:
        """Tell the callbacks that the training has ended."""
        super().on_train_end()


class AtNextEpoch(keras.callbacks.Callback):
    """Do something once, when the next epoch has begun and Keras has reset its metrics."""

    def __init__(self, action: Callable[[], None]):
        super().__init__()
        self._action: Callable[[], None] | None = action

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        if self._action:
            self._action()
            self._action = None


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
        checkpoint_path: Where the run's state is saved.
        checkpoint_steps: Also save after this many steps; 0 only after epochs.
        last_epoch: The stage ends with this epoch, counted from 1.
        hosts: Only the first process writes.
        on_epoch: Called after each epoch.
    """

    progress: Progress
    stage_name: str
    stop: StopTrainingOnValidationLoss
    history_path: Path
    checkpoint_path: Path
    checkpoint_steps: int
    steps_per_epoch: int
    last_epoch: int
    metrics: Sequence[keras.metrics.Metric]
    hosts: Hosts
    interrupted: threading.Event
    on_epoch: Callable[[Progress], None]
    _started: float = field(default=0.0, init=False)
    _steps: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        super().__init__()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._started = time.perf_counter()
        self._steps = 0

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self.progress.step += 1
        self._steps += 1
        if self.progress.step >= self.steps_per_epoch:
            # Validation comes next, and the checkpoint after it.
            return
        due = self.checkpoint_steps and self.progress.step % self.checkpoint_steps == 0
        if due or self.interrupted.is_set():
            self._save()
        self._stop_if_interrupted()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        progress, stop = self.progress, self.stop
        seconds = time.perf_counter() - self._started
        row = {"epoch": epoch + 1, "stage": self.stage_name}
        row.update({name: float(value) for name, value in (logs or {}).items()})
        rate = keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)
        row["learning_rate"] = float(rate)
        row["seconds"] = round(seconds, 3)
        row["images_per_second"] = round(self._steps * progress.batch_size / seconds, 2)
        progress.history.append(row)
        progress.epoch, progress.step = epoch + 1, 0
        progress.best_epoch, progress.best_loss = stop.best_epoch, stop.best_loss
        progress.stage_done = self.model.stop_training or epoch + 1 >= self.last_epoch
        if self.hosts.is_first:
            write_history(self.history_path, progress.history)
        self._save()
        self.on_epoch(progress)
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

    batch_size: int
    steps_per_epoch: int
    first_step: int
    title: str
    _bar: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        super().__init__()

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        self._bar = progress(
            description=f"{self.title}, epoch {epoch + 1}",
            unit="image",
            total=self.steps_per_epoch * self.batch_size,
        )
        if self.first_step:
            self._bar.update(self.first_step * self.batch_size)
            self.first_step = 0

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        logs = logs or {}
        text = f"loss {logs.get('loss', 0):.4f}, accuracy {logs.get('accuracy', 0):.4f}"
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(self.batch_size)

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
