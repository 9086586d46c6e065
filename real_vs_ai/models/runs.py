"""Name the files of a run folder, and find the model that is meant."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from real_vs_ai.core.config import MODELS_DIR, PACKAGED_RELEASED_MODEL_DIR, RELEASED_MODEL_DIR
from real_vs_ai.core.errors import InputError
from real_vs_ai.core.files import list_folders, read_table, table_columns, write_table, write_text
from real_vs_ai.core.transactions import finish_replacing

# The name that stands for the newest unfinished run.
NEWEST = "newest"
# In the folder of runs: the name of the run that answers where no model is named.
DEFAULT_FILE = "default.txt"
# Models that an error lists.
_MOST_NAMED = 10


def _file(name: str) -> property:
    return property(lambda run: run.path / name)


@dataclass(frozen=True)
class RunFolder:
    """One training run, `models/<run>/`, or the released model's folder."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's name; that of a released model in a folder of its own names both."""
        path = self.path.resolve()
        own = path.name
        return f"{path.parent.name}/{own}" if path.parent.name == RELEASED_MODEL_DIR.name else own

    model = _file("model.h5")
    config = _file("config.json")
    history = _file("history.csv")
    # Written last: a run that has it is finished.
    metrics = _file("metrics.json")
    predictions = _file("predictions.csv")
    figures = _file("figures")
    model_card = _file("MODEL_CARD.md")
    collections = _file("collections.csv")
    network = _file("network.txt")
    classification_report = _file("classification_report.txt")
    # Other formats of the model, no further models.
    exports = _file("exports")
    checkpoints = _file("checkpoints")
    # The state to resume from, the weights to keep from the end of their epoch on, and those that
    # a run with `blend` began with.
    checkpoint = _file("checkpoints/state.npz")
    best_weights = _file("checkpoints/best.weights.h5")
    first_weights = _file("checkpoints/first.weights.h5")

    @property
    def is_finished(self) -> bool:
        return self.metrics.is_file() and self.model.is_file()


def list_runs(models_dir: Path = MODELS_DIR) -> list[RunFolder]:
    """Finished runs: the default one first, then the released ones, then the last trained ones.

    Raises:
        FileNotFoundError: The run that was made the default is not there any more.
    """
    chosen, released = chosen_run(models_dir), released_runs(models_dir)
    runs = [*([chosen] if chosen else []), *released, *_trained_runs(models_dir)]
    return list({run.path.resolve(): run for run in runs}.values())


def newest_run(models_dir: Path = MODELS_DIR) -> RunFolder | None:
    """The finished run that was trained last; evaluating an older one again changes nothing."""
    return next(iter(_trained_runs(models_dir)), None)


def how_to_use(run: RunFolder) -> str:
    """Say how the scripts and the page use a new run: none of them takes it for its date."""
    return (
        f"\nUse the new model {run.path}:\n"
        f"  python ImageScoring.py PICTURE --model {run.path}\n"
        f"  python App.py --model {run.path}\n"
        "Let it answer wherever no model is named (now others do):\n"
        f"  python ImageScoring.py --model {run.path} --make-default"
    )


def _trained_runs(models_dir: Path) -> list[RunFolder]:
    """Finished runs but the released ones, the one trained last first."""
    folders = [path for path in list_folders(models_dir) if path.name != RELEASED_MODEL_DIR.name]
    for folder in folders:
        _finish_report(folder)
    runs = [run for run in map(RunFolder, folders) if run.is_finished]

    def begun(run: RunFolder) -> tuple[float, str]:
        # Training writes its configuration when it begins; a report replaces the other files.
        file = run.config if run.config.is_file() else run.metrics
        return file.stat().st_mtime, run.name

    return sorted(runs, key=begun, reverse=True)


def make_default(path: Path, *, models_dir: Path = MODELS_DIR) -> str:
    """Write down which run answers where no model is named; returns a sentence that says so.

    Args:
        path: A run folder in `models_dir`. The folder of all released models ends the choice.

    Raises:
        FileNotFoundError: There is no finished run at the path.
        InputError: It lies elsewhere, or is a file.
    """
    find_model(path, models_dir=models_dir)
    folder, inside = path.resolve(), models_dir.resolve()
    if not folder.is_dir() or inside not in folder.parents:
        raise InputError(
            f"Expected a run folder in {models_dir} to make the default, found {path}."
        )
    written = models_dir / DEFAULT_FILE
    if folder == inside / RELEASED_MODEL_DIR.name:
        written.unlink(missing_ok=True)
        return "The released models answer where no --model is named."
    write_text(written, f"{folder.relative_to(inside).as_posix()}\n")
    return f"{path} answers where no --model is named ({written} says so)."


def chosen_run(models_dir: Path = MODELS_DIR) -> RunFolder | None:
    """The run that `make_default` wrote down, or None.

    Raises:
        FileNotFoundError: It is not there any more.
    """
    written = models_dir / DEFAULT_FILE
    if not written.is_file():
        return None
    name = written.read_text(encoding="utf-8").strip()
    run = RunFolder(models_dir / name)
    if not name or not run.model.is_file():
        raise FileNotFoundError(
            f"Expected the default model {run.model}, which {written} names, found none. Choose "
            f"another with ImageScoring.py --make-default, or delete {written}."
        )
    return run


def find_unfinished_run(name: str, *, models_dir: Path) -> RunFolder:
    """The run that `--resume` means: a folder, or the newest unfinished one in `models_dir`."""
    if name != NEWEST:
        run = RunFolder(Path(name))
        if not run.config.is_file():
            raise FileNotFoundError(f"Expected a training run to resume at {name}, found none.")
        if run.is_finished:
            raise InputError(
                f"{run.path} is finished. To train longer start a new run from it with "
                f"--weights {run.model}."
            )
        return run
    runs = map(RunFolder, list_folders(models_dir))
    unfinished = [run for run in runs if run.config.is_file() and not run.is_finished]
    if not unfinished:
        raise FileNotFoundError(
            f"Expected an unfinished run in {models_dir}, found none. "
            "Start a new one without --resume."
        )
    return max(unfinished, key=lambda run: run.config.stat().st_mtime)


def released_run(models_dir: Path = MODELS_DIR) -> RunFolder | None:
    """The released model's folder: in `models_dir`, otherwise the one next to the code."""
    for path in (models_dir / RELEASED_MODEL_DIR.name, PACKAGED_RELEASED_MODEL_DIR):
        if RunFolder(path).model.is_file():
            return RunFolder(path)
    return None


def released_runs(models_dir: Path = MODELS_DIR) -> list[RunFolder]:
    """All released models' folders: the first one, then those in folders inside of it."""
    first = released_run(models_dir)
    return [RunFolder(path.parent) for path in find_models(first.path)] if first else []


def find_models(path: str | Path | None, *, models_dir: Path = MODELS_DIR) -> tuple[Path, ...]:
    """The `.h5` files that answer together, each image by the one that fits its size.

    Args:
        path: As of `find_model`; a folder may hold folders with further models. None means the run
            that was made the default, otherwise all released models.
        models_dir: Where runs are looked for when `path` is None.

    Raises:
        FileNotFoundError: There is no such model, or none at all.
    """
    first = find_model(path, models_dir=models_dir)
    folder = first.parent if path is None else Path(path)
    if not folder.is_dir() or first != RunFolder(folder).model:
        return (first,)
    exports = RunFolder(folder).exports
    inside = (RunFolder(inner).model for inner in list_folders(folder) if inner != exports)
    return (first, *(model for model in inside if model.is_file()))


def find_model(path: str | Path | None, *, models_dir: Path = MODELS_DIR) -> Path:
    """The `.h5` file that `--model` means.

    Args:
        path: A run folder, an `.h5` file, or None for the run that was made the default (otherwise
            the released model).

    Raises:
        FileNotFoundError: There is no such model, or none at all.
    """
    if path is None:
        run = chosen_run(models_dir) or released_run(models_dir)
        if run is None:
            raise FileNotFoundError(
                f"Expected a released model in {models_dir}, found none. Name one with --model, or "
                "choose one for good with ImageScoring.py --make-default. "
                f"{_known_models(models_dir)}"
            )
        return run.model
    path = Path(path)
    _finish_report(path if path.is_dir() else path.parent)
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


def _finish_report(folder: Path) -> None:
    """Bring in what a killed evaluation had decided on, where this process may write."""
    with contextlib.suppress(OSError):
        finish_replacing(folder)


def model_name(path: Path) -> str:
    """What people call a model file: its run folder's name, or its own."""
    return RunFolder(path.parent).name if path.name == "model.h5" else path.name


def _known_models(models_dir: Path) -> str:
    """A sentence that names the models there are."""
    runs = [*_trained_runs(models_dir), *released_runs(models_dir)]
    names = [run.path.as_posix() for run in runs]
    if not names:
        return "There is no finished model yet: run ModelTraining.py."
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"There are: {', '.join(names[:_MOST_NAMED])}{more}."


def write_history(path: Path, history: Sequence[Mapping[str, Any]]) -> None:
    """Write `history.csv`, one row for each epoch."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    write_table(path, columns, ([row.get(name, "") for name in columns] for row in history))


def read_history(path: Path) -> dict[str, list[Any]]:
    """The columns of `history.csv`: texts of "stage", numbers of the others; {} without epochs.

    Args:
        path: The file; a path where there is none gives {}.

    Raises:
        InputError: There is no `epoch` column, a line is damaged, or a cell is not a number.
    """
    if not path.is_file():
        return {}
    names = list(dict.fromkeys(["epoch", *table_columns(path)]))
    history: dict[str, list[Any]] = {}
    for name, cells in zip(names, zip(*read_table(path, names), strict=True), strict=False):
        try:
            history[name] = [cell if name == "stage" else float(cell or "nan") for cell in cells]
        except ValueError as error:
            raise InputError(f"Expected numbers in {name} of {path}: {error}.") from error
    return history
