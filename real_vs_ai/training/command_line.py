"""Read the command line of ModelTraining.py and the recipe that it names, without Keras.

A recipe is a JSON file of fields; `--recipe` takes its name, its path, or a run's `config.json`.
Later ones win: the defaults, the recipe, the run to resume, the command line.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from real_vs_ai.cli import add_fields, make_parser
from real_vs_ai.errors import InputError
from real_vs_ai.model_file import read_enlargement, read_strides
from real_vs_ai.networks.backbones import BACKBONES
from real_vs_ai.runs import RunFolder, find_unfinished_run
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
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = make_parser(description)
    add_fields(parser, TrainingOptions)
    first = parser.parse_args(argv)
    fields = read_recipe(first.recipe) if first.recipe else {}
    resume = None
    if first.resume is not None:
        resume = find_unfinished_run(first.resume, models_dir=first.models_dir).path
        fields |= read_recipe(str(RunFolder(resume).config))
    fields |= read_fields(_pairs(first.set or ()), origin="--set")
    parser.set_defaults(**fields)
    hidden = {
        n: f.metadata["default"] for n, f in _FIELDS.items() if not f.metadata.get("shown", 1)
    }
    values = {**hidden, **fields, **vars(parser.parse_args(argv)), "set": tuple(first.set or ())}
    _check(parser, values)
    if values["stem_stride"] is None:
        values["stem_stride"] = _stem_stride(values["weights"], values["backbone"])
    if values["enlarge"] is None:
        values["enlarge"] = read_enlargement(Path(values["weights"]))
    return TrainingOptions(**{**values, "resume": resume, "command": ("ModelTraining.py", *argv)})


def _stem_stride(weights: str, backbone: str) -> int:
    """The stride of the model that the weights come from, otherwise the published one."""
    published, layer_names = next(iter(BACKBONES[backbone].stem_strides.items()))
    return read_strides(Path(weights), layer_names) or published


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
    parser = _FieldParser(prog=origin, add_help=False, allow_abbrev=False)
    add_fields(parser, TrainingOptions, hidden=True)
    read: dict[str, Any] = {}
    for name, value in fields.items():
        default = _FIELDS[name].metadata.get("default")
        flag = "--" + name.replace("_", "-")
        if default is False:
            if value not in (True, False, "true", "false"):
                parser.error(f"argument {flag}: expected true or false, found {value}")
            read[name] = value in (True, "true")
        elif value is None and default is None:
            read[name] = None
        else:
            text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
            read[name] = getattr(parser.parse_args([f"{flag}={text}"]), name)
    return read


class _FieldParser(argparse.ArgumentParser):
    """Reads one field; an error names it as the recipe does."""

    def error(self, message: str) -> NoReturn:
        found = re.sub(
            r"argument --([\w-]+)", lambda flag: flag[1].replace("-", "_"), message, count=1
        )
        raise InputError(f"{self.prog}: {found}")


def _pairs(texts: Sequence[str]) -> dict[str, str]:
    """FIELD=VALUE, as a dictionary."""
    pairs = dict(text.partition("=")[::2] for text in texts)
    if not all(pairs.values()):
        raise InputError(f"Expected --set FIELD=VALUE, found {' '.join(texts)}.")
    return pairs


def describe_recipe(options: TrainingOptions) -> str:
    """Say what a recipe sets, and where an option in force differs from it."""
    values = dataclasses.asdict(options)
    told = [
        f"{name} {values[name]}" + (f" (not {value})" if values[name] != value else "")
        for name, value in read_recipe(options.recipe).items()
        if name not in ("recipe", *NOT_STORED)
    ]
    return f"Recipe {options.recipe}: {', '.join(told)}."


def _check(parser: argparse.ArgumentParser, values: dict[str, Any]) -> None:
    frozen = values["frozen_epochs"]
    no_frozen_stage = frozen == 0 or (frozen is None and values["weights"] == "none")
    if values["epochs"] == 0 and no_frozen_stage and not Path(values["weights"]).is_file():
        parser.error(
            "--epochs is 0 and there are no frozen_epochs: there is nothing to learn, and no "
            "model.h5 in --weights to finish again"
        )
    changing = values["augmentation"] != "none" or values["degrade"] or values["cutmix"]
    if values["stored_features"] and (values["epochs"] or changing):
        parser.error(
            "stored_features needs --epochs 0, --augmentation none, degrade 0 and cutmix 0: the "
            "features are computed once"
        )
    if values["minutes"] and values["deterministic"]:
        parser.error(
            "--minutes takes as many steps as the machine is fast, deterministic repeats a run "
            "to the last bit: leave one of them out"
        )
    if values["thumbnails"] and values["input"] == "crops":
        parser.error("thumbnails need input resize: a model of crops refuses small pictures")
    name = values["run_name"]
    if name and (Path(name).name != name or name.startswith(".")):
        parser.error(f"--run-name must be the plain name of a folder, got {name}")
