"""Train a model on labelled folders: `train(TrainingOptions(…))`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from real_vs_ai.training.options import TrainingOptions

if TYPE_CHECKING:
    from real_vs_ai.training.run_state import Trained

__all__ = ["TrainingOptions", "train"]


def _print_at_once(line: str) -> None:
    print(line, flush=True)


def train(
    options: TrainingOptions | None = None, *, say: Callable[[str], None] = _print_at_once
) -> Trained:
    """Train a model in its own run folder, evaluate it and write its report.

    Args:
        options: The defaults train a ResNet101 on the images in data/.
        say: Takes one line at a time for the user.

    Returns:
        The run's folder (`run`), the Keras model and the contents of metrics.json (`metrics`).

    Raises:
        FileNotFoundError: There is no data, or there are no weights.
        FileExistsError: The run's folder already exists.
        RealVsAIError: The data or the options cannot be used, or the loss diverged.
        KeyboardInterrupt: The user asked to stop; a checkpoint has been saved.
    """
    # Keras takes seconds to import, which --help does not need.
    from real_vs_ai.models.keras_models import import_keras_quietly

    import_keras_quietly()
    from real_vs_ai.training import run_folder, trainer

    options = (options or TrainingOptions()).fitted_to_weights()
    return run_folder.finish(trainer.train(options, say=say), say=say)
