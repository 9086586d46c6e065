"""Read the command line of ModelTraining.py and the recipe that it names, without Keras.

A recipe is a JSON file of fields; `--recipe` takes its name, its path, or a run's `config.json`.
Later ones win: the defaults, the recipe, the run to resume, the command line.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from real_vs_ai.core.errors import InputError
from real_vs_ai.core.options import OptionError, read_value
from real_vs_ai.models.runs import RunFolder, find_unfinished_run
from real_vs_ai.training.options import NOT_STORED, RECIPES, TrainingOptions

# More than any recipe or record of a run.
_LARGEST_BYTES = 2**24
_FIELDS = {field.name: field for field in dataclasses.fields(TrainingOptions)}


def parse_training_options(
    argv: Sequence[str] | None, *, description: str | None
) -> TrainingOptions:
    """Read the command line of ModelTraining.py, and the recipe that it names.

    Raises:
        SystemExit: Wrong usage (code 2), or --help.
        InputError: A recipe that cannot be used.
        FileNotFoundError: There is no run to resume, or no such recipe.
    """
    # For scripts alone: it sets how errors show.
    from real_vs_ai.core.cli import add_fields, make_parser

    argv = list(sys.argv[1:] if argv is None else argv)
    parser = make_parser(description)
    add_fields(parser, TrainingOptions, given_only=True)
    given = vars(parser.parse_args(argv))
    fields = read_recipe(given["recipe"]) if "recipe" in given else {}
    resumed = {}
    if "resume" in given:
        models_dir = given.get("models_dir", TrainingOptions.models_dir)
        run = find_unfinished_run(str(given["resume"]), models_dir=models_dir)
        fields |= read_recipe(str(run.config))
        resumed["resume"] = run.path
    fields |= read_fields(_pairs(given.get("set", ())), origin="--set")
    try:
        options = TrainingOptions(
            **{**fields, **given, **resumed}, command=("ModelTraining.py", *argv)
        )
    except OptionError as error:
        parser.error(str(error))
    return options.fitted_to_weights()


def read_recipe(name: str) -> dict[str, Any]:
    """The fields that a recipe sets, checked.

    Args:
        name: Of a recipe in `RECIPES`; or the path of a JSON file of fields, which may name another
            recipe to start from as "recipe"; or of a run's `config.json` or folder.

    Raises:
        FileNotFoundError: There is no such recipe.
        InputError: The file is not a recipe, or has an unknown or a wrong field.
    """
    path = RECIPES.get(name, Path(name))
    path = RunFolder(path).config if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(
            f"Expected a recipe ({', '.join(RECIPES)}) or the path of one, found no file at {path}."
        )
    if path.stat().st_size > _LARGEST_BYTES:
        raise InputError(f"{path} is too large for a recipe.")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        is_record = isinstance(stored.get("options"), dict)
        fields = dict(stored["options"] if is_record else stored)
    except (ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{path} is not a recipe or the config.json of a run: {error}.") from error
    if is_record:
        # A file of an earlier version may hold options that are gone.
        known = {name: value for name, value in fields.items() if name in _FIELDS}
        return read_fields(known, origin=str(path))
    fields.pop("description", None)
    start = fields.get("recipe")
    if start is not None and start not in RECIPES:
        raise InputError(f"{path}: expected a recipe in {', '.join(RECIPES)}, found {start}.")
    return {**(read_recipe(start) if start else {}), **read_fields(fields, origin=str(path))}


def read_fields(fields: Mapping[str, Any], *, origin: str) -> dict[str, Any]:
    """Check fields as the command line checks its options; InputError names `origin`."""
    unknown = [name for name in fields if name not in _FIELDS or name in ("command", "set")]
    if unknown:
        close = difflib.get_close_matches(unknown[0], _FIELDS, n=1)
        hint = f"Did you mean {close[0]}?" if close else "docs/training.md lists the fields."
        raise InputError(f"{origin}: there is no field {unknown[0]}. {hint}")
    try:
        return {name: read_value(_FIELDS[name], value) for name, value in fields.items()}
    except OptionError as error:
        raise InputError(f"{origin}: {error}") from error


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    """FIELD=VALUE, as a dictionary."""
    pairs = dict(text.partition("=")[::2] for text in texts)
    if not all(pairs.values()):
        raise InputError(f"Expected --set FIELD=VALUE, found {' '.join(texts)}.")
    return pairs


def describe_recipe(options: TrainingOptions) -> str:
    """Say what a recipe sets, and where an option in force differs from it."""
    values = dataclasses.asdict(options)
    settings = [
        f"{name} {values[name]}" + (f" (not {value})" if values[name] != value else "")
        for name, value in read_recipe(options.recipe or "").items()
        if name not in ("recipe", *NOT_STORED)
    ]
    return f"Recipe {options.recipe}: {', '.join(settings)}."
