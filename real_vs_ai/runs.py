"""The only code that knows the names inside a run folder, and which model is meant.

run = find_run(None)            # the newest finished run, otherwise the released model
model_path = find_model("models/first-try")
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from real_vs_ai.config import MODELS_DIR, PACKAGED_RELEASED_MODEL_DIR, RELEASED_MODEL_DIR
from real_vs_ai.files import list_folders

# Models that an error lists.
_MOST_NAMED = 10


@dataclass(frozen=True)
class RunFolder:
    """One training run, `models/<run>/`, or the released model's folder.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def model(self) -> Path:
        return self.path / "model.h5"

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def history(self) -> Path:
        return self.path / "history.csv"

    @property
    def metrics(self) -> Path:
        """Written last: a run that has it is finished."""
        return self.path / "metrics.json"

    @property
    def predictions(self) -> Path:
        return self.path / "predictions.csv"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    @property
    def model_card(self) -> Path:
        return self.path / "MODEL_CARD.md"

    @property
    def classification_report(self) -> Path:
        return self.path / "classification_report.txt"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def is_finished(self) -> bool:
        return self.metrics.is_file() and self.model.is_file()


def list_runs(models_dir: Path = MODELS_DIR) -> list[RunFolder]:
    """Finished runs, newest first, the released model last."""
    folders = [path for path in list_folders(models_dir) if path.name != RELEASED_MODEL_DIR.name]
    runs = [run for run in map(RunFolder, folders) if run.is_finished]
    runs.sort(key=lambda run: (run.metrics.stat().st_mtime, run.name), reverse=True)
    released = released_run(models_dir)
    return [*runs, released] if released else runs


def released_run(models_dir: Path = MODELS_DIR) -> RunFolder | None:
    """The released model's folder: in `models_dir`, otherwise the one beside the code."""
    for path in (models_dir / RELEASED_MODEL_DIR.name, PACKAGED_RELEASED_MODEL_DIR):
        if RunFolder(path).model.is_file():
            return RunFolder(path)
    return None


def find_model(path: str | Path | None, *, models_dir: Path = MODELS_DIR) -> Path:
    """The `.h5` file that `--model` means.

    Args:
        path: A run folder, an `.h5` file, or None for the newest finished run (otherwise the
            released model).
        models_dir: Where runs are looked for when `path` is None.

    Raises:
        FileNotFoundError: There is no such model, or none at all.
    """
    if path is None:
        runs = list_runs(models_dir)
        if not runs:
            raise FileNotFoundError(
                f"Expected a finished run in {models_dir} or a released model, found none. "
                "Run ModelTraining.py first, or RunPipeline.py --demo for a small trained model."
            )
        return runs[0].model
    path = Path(path)
    if path.is_dir():
        run = RunFolder(path)
        if not run.model.is_file():
            raise FileNotFoundError(
                f"Expected {run.model.name} in the run folder {path}, found none: "
                "the run has not finished. Resume it with ModelTraining.py, or name another "
                f"model. {_known_models(models_dir)}"
            )
        return run.model
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a run folder or an .h5 file at {path}, found nothing. "
            f"{_known_models(models_dir)}"
        )
    return path


def model_name(path: Path) -> str:
    """What people call a model file: its run folder's name, or its own."""
    return RunFolder(path.parent).name if path.name == "model.h5" else path.name


def _known_models(models_dir: Path) -> str:
    """A sentence that names the models there are."""
    names = [run.path.as_posix() for run in list_runs(models_dir)]
    if not names:
        return "There is no finished model yet: run ModelTraining.py."
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"There are: {', '.join(names[:_MOST_NAMED])}{more}."
