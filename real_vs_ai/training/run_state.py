"""Hold what the stages of a run share, and save all that it needs to resume.

A checkpoint is one file, which appears whole or not at all. It holds the weights, the optimizer's
variables, the state of the random layers, the running metrics and, as JSON, how far the run has
come.
"""

from __future__ import annotations

import dataclasses
import json
import threading
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from real_vs_ai.core.errors import InputError
from real_vs_ai.core.files import atomic_write
from real_vs_ai.core.reporting import plural
from real_vs_ai.dataset.decoded_images import DecodedImages
from real_vs_ai.evaluation.tables import headline
from real_vs_ai.models.keras_models import graph_of
from real_vs_ai.models.runs import RunFolder
from real_vs_ai.training.devices import Device, Hosts
from real_vs_ai.training.options import TrainingOptions

_PROGRESS = "progress"


class TrainingDivergedError(InputError):
    """The loss or the weights are no longer numbers; the message says what to do."""


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        stage: Index of the stage that is under way.
        step: Steps done in the epoch that is under way.
        batch_size: Images in a batch; it may be lower than asked for.
        history: One row for each whole epoch, as `history.csv` has them.
        best_epoch: The epoch (from 1) with the lowest validation loss so far, 0 for none.
        stage_done: Whether the stage needs no more epochs.
        position: How far the stage's learning rate has fallen, 0 to 1; of runs with --minutes.
        seconds: What its learning has taken so far; of runs with --minutes.
    """

    batch_size: int
    stage: int = 0
    epoch: int = 0
    step: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_loss: float = float("inf")
    stage_done: bool = False
    position: float = 0.0
    seconds: float = 0.0

    def stage_rows(self, stage_name: str) -> list[dict[str, Any]]:
        """The history of one stage."""
        return [row for row in self.history if row["stage"] == stage_name]

    def epochs_before(self, stage_name: str) -> int:
        """Epochs of the stages before this one, some of which may have stopped early."""
        rows = self.stage_rows(stage_name)
        return rows[0]["epoch"] - 1 if rows else self.epoch


@dataclass(frozen=True)
class Learning:
    """What the stages of one run share.

    Attributes:
        model: Built under the device's scope; learns in place.
        progress: How far the run has come; kept up to date.
        interrupted: Set when the user asks to stop.
        say: Takes one line at a time for the user.
    """

    options: TrainingOptions
    run: RunFolder
    device: Device
    hosts: Hosts
    model: keras.Model
    images: Mapping[str, DecodedImages]
    progress: Progress
    interrupted: threading.Event
    say: Callable[[str], None]

    @property
    def train(self) -> DecodedImages:
        """What the network learns from."""
        return self.images["train"]

    @property
    def validation(self) -> DecodedImages:
        """What every epoch is validated on."""
        return self.images["validation"]

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch; images that fill no whole batch wait for the next order."""
        return self.options.steps_per_epoch or len(self.train) // self.progress.batch_size


@dataclass(frozen=True)
class Trained:
    """A model that has learnt; str() says what came of it.

    Attributes:
        splits: The images that it learnt from and is reported on.
        writes: Whether this process writes the report; of several only the first does.
        metrics: Contents of `metrics.json`; {} before the report, and in processes that write none.
    """

    options: TrainingOptions
    run: RunFolder
    model: keras.Model
    splits: dict[str, DecodedImages]
    progress: Progress
    writes: bool
    metrics: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.metrics:
            return f"This process is done; the first one writes the report: {self.run.path}"
        table = "\n\n".join([headline(self.metrics), *self.metrics.get("notes", ())])
        done = "Nothing trained, the weights are those given"
        if self.progress.epoch:
            epochs = plural(self.progress.epoch, "epoch")
            done = f"{epochs} trained, the weights of epoch {self.progress.best_epoch} kept"
        return f"{table}\n{done}. Model and report: {self.run.path}"


def save_checkpoint(
    path: Path, model: keras.Model, progress: Progress, *, metrics: Sequence[keras.metrics.Metric]
) -> None:
    """Write a checkpoint replacing the one before.

    Raises:
        OSError: The disk is full; the checkpoint before is still there.
        TrainingDivergedError: The last step ruined the weights; likewise.
    """
    text = json.dumps(dataclasses.asdict(progress))
    arrays = {
        f"{group}/{i}": keras.ops.convert_to_numpy(variable)
        for group, variables in _variables(model, metrics).items()
        for i, variable in enumerate(variables)
    }
    # The loss shows that a step ruined the weights only after the next step.
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise TrainingDivergedError(
            f"The weights are no longer numbers after step {progress.step} of this epoch, so they "
            "are not saved: the learning rate is too high for this data or precision. Resume from "
            "the checkpoint before with a lower --learning-rate, or use --precision float32."
        )
    with atomic_write(path) as staging, staging.open("wb") as file:
        arrays[_PROGRESS] = np.frombuffer(text.encode(), dtype=np.uint8)
        np.savez(file, allow_pickle=False, **arrays)


def load_checkpoint(path: Path) -> Progress | None:
    """How far the run had come, None without a checkpoint; InputError if the file is damaged."""
    if not path.is_file():
        return None
    try:
        with np.load(path) as stored:
            return Progress(**json.loads(stored[_PROGRESS].tobytes()))
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is not a checkpoint of this version ({error}). Delete it to start again."
        ) from error


def restore(
    path: Path, model: keras.Model, *groups: str, metrics: Sequence[keras.metrics.Metric] = ()
) -> None:
    """Put "layers" (with the random ones' state), "optimizer" or "metrics" back as they were saved.

    Raises:
        InputError: The checkpoint is of another network.
    """
    variables = _variables(model, metrics)
    with np.load(path) as stored:
        for group in groups:
            count = sum(name.startswith(f"{group}/") for name in stored.files)
            if count != len(variables[group]):
                raise InputError(
                    f"Expected a checkpoint with {len(variables[group])} {group} variables, found "
                    f"{count}. Resume with the options the run was started with."
                )
            for i, variable in enumerate(variables[group]):
                variable.assign(stored[f"{group}/{i}"])


def resume_stage(run: RunFolder, model: keras.Model, progress: Progress) -> None:
    """Put a compiled model where its stage stands: at the checkpoint, or at the weights kept."""
    saved = load_checkpoint(run.checkpoint)
    if saved and saved.stage == progress.stage:
        restore(run.checkpoint, model, "layers", "optimizer")
        return
    if saved:
        # The random layers continue from where the stage before left them, killed or not.
        restore(run.checkpoint, model, "layers")
    if progress.best_epoch:
        graph_of(model).load_weights(run.best_weights)


def _variables(model: keras.Model, metrics: Sequence[keras.metrics.Metric]) -> dict[str, list[Any]]:
    return {
        # The graph is flat, and the layers' own lists hold the random layers' state as well.
        "layers": [variable for layer in model.layers for variable in layer.variables],
        "optimizer": list(model.optimizer.variables),
        "metrics": [variable for metric in metrics for variable in metric.variables],
    }
