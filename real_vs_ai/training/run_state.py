"""Save all that a run needs to resume, in one file that appears whole or not at all.

The file holds the weights, the optimizer's variables, the state of the random layers, the running
metrics and, as JSON, how far the run has come.
"""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from real_vs_ai.errors import InputError
from real_vs_ai.files import atomic_write
from real_vs_ai.keras_models import graph_of
from real_vs_ai.runs import RunFolder

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
        seconds: What the run has taken so far; of runs with --minutes.
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


def checkpoint_path(run: RunFolder) -> Path:
    """Where a run's newest checkpoint is."""
    return run.checkpoints / "state.npz"


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
        for group, variables in {**_variables(model), "metrics": _metric_variables(metrics)}.items()
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
        np.savez(file, **arrays, **{_PROGRESS: np.frombuffer(text.encode(), dtype=np.uint8)})


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


def restore_variables(
    path: Path, model: keras.Model, *, groups: Sequence[str] = ("layers", "optimizer")
) -> None:
    """Put weights, random layers and the optimizer back into a compiled model.

    Raises:
        InputError: The checkpoint is of another network.
    """
    variables = _variables(model)
    with np.load(path) as stored:
        for group in groups:
            _assign(stored, group, variables[group])


def resume_stage(path: Path, model: keras.Model, progress: Progress, *, best_weights: Path) -> None:
    """Put a compiled model where its stage stands: at the checkpoint, or at the weights kept."""
    saved = load_checkpoint(path)
    if saved and saved.stage == progress.stage:
        restore_variables(path, model)
        return
    if saved:
        # The random layers continue from where the stage before left them, killed or not.
        restore_variables(path, model, groups=("layers",))
    if progress.best_epoch:
        graph_of(model).load_weights(best_weights)


def restore_metrics(path: Path, metrics: Sequence[keras.metrics.Metric]) -> None:
    """Put the running values of an interrupted epoch's metrics back."""
    with np.load(path) as stored:
        _assign(stored, "metrics", _metric_variables(metrics))


def _variables(model: keras.Model) -> dict[str, list[Any]]:
    return {
        # The graph is flat, and the layers' own lists hold the random layers' state as well.
        "layers": [variable for layer in model.layers for variable in layer.variables],
        "optimizer": list(model.optimizer.variables),
    }


def _metric_variables(metrics: Sequence[keras.metrics.Metric]) -> list[Any]:
    return [variable for metric in metrics for variable in metric.variables]


def _assign(stored: Any, group: str, variables: Sequence[Any]) -> None:
    count = sum(name.startswith(f"{group}/") for name in stored.files)
    if count != len(variables):
        raise InputError(
            f"Expected a checkpoint with {len(variables)} {group} variables, found {count}. "
            "Resume with the options the run was started with."
        )
    for i, variable in enumerate(variables):
        variable.assign(stored[f"{group}/{i}"])
