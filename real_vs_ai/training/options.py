"""Declare every option of ModelTraining.py and every field of a recipe, without Keras.

A recipe is a JSON file of fields; `--recipe` takes its name, its path, or a run's `config.json`.
Later ones win: the defaults, the recipe, the run to resume, the command line.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from real_vs_ai.cli import make_parser
from real_vs_ai.config import DATA_DIR, IMAGE_SIZE, MODELS_DIR, SEED
from real_vs_ai.dataset.views import ViewOptions
from real_vs_ai.errors import InputError
from real_vs_ai.model_file import read_enlargement, read_strides
from real_vs_ai.model_input import AGGREGATES, INPUT_KINDS, ModelInput
from real_vs_ai.networks.backbones import BACKBONES
from real_vs_ai.options import add_fields, add_memory, add_workers, number, option, whole_number
from real_vs_ai.runs import NEWEST, RunFolder, find_unfinished_run

_RECIPES = (Path(__file__).parent / "recipes").glob("*.json")
RECIPES = dict(sorted((path.stem, path) for path in _RECIPES))
# More than any recipe or record of a run.
_LARGEST_BYTES = 2**24


def _names(text: str) -> tuple[str, ...]:
    """The type of an option that takes names with commas between them."""
    return tuple(filter(None, (name.strip() for name in text.split(","))))


# Keras' names, which `config.json` holds; scoring uses the names f32 and bf16 as well.
_PRECISIONS = {"auto": "auto", "f32": "float32", "bf16": "mixed_bfloat16", "f16": "mixed_float16"}


def keras_precision(text: str) -> str:
    """The Keras policy that a value of --precision means; a policy means itself."""
    if text not in (*_PRECISIONS, *_PRECISIONS.values()):
        raise argparse.ArgumentTypeError(f"expected {', '.join(_PRECISIONS)}, found {text}")
    return _PRECISIONS.get(text, text)


def _field(help_text: str, default: Any = None, **declaration: Any) -> Any:
    """A field that a recipe sets; the command line sets it by --set only."""
    return option(help_text, default, shown=False, **declaration)


@dataclass(frozen=True)
class TrainingOptions:
    """The options of a training run and the fields of its recipe; each says what it means.

    `resume` becomes the path of the run folder, and `command` is the command line, for the record.
    """

    data: Path = option(
        "folder with train/, validation/ and test/, each with a folder for each class",
        DATA_DIR,
        "DIR",
        group="the run",
    )
    models_dir: Path = option("folder in which the run gets its own", MODELS_DIR, "DIR")
    run_name: str | None = option(
        "name of the run's folder (default: date, time and backbone)", metavar="NAME"
    )
    recipe: str | None = option(
        f"take the fields of a recipe: {', '.join(RECIPES)}, a JSON file of your own, or the "
        "config.json of a run to repeat",
        metavar="NAME|PATH",
    )
    set: tuple[str, ...] = option(
        "set fields of the recipe that have no option here (docs/training.md lists them)",
        metavar="FIELD=VALUE",
        nargs="+",
        action="extend",
    )
    resume: Path | None = option(
        "resume an interrupted run (default: the newest unfinished one)",
        metavar="RUN",
        nargs="?",
        const=NEWEST,
    )
    hold_out: tuple[str, ...] = _field(
        "sources to train without and to validate on alone", (), type=_names
    )
    portraits: tuple[str, ...] = _field(
        "sources of portraits; the model learns to recognise and refuse such pictures",
        (),
        type=_names,
    )
    backbone: str = option(
        "network that computes the features; resnet26 has no ImageNet weights and is a quick start "
        "for the other ResNets",
        "resnet101",
        choices=tuple(BACKBONES),
        group="the network",
    )
    weights: str = option(
        "weights to start from: ImageNet's (downloaded once, or from a package of "
        "the extra photographs), random ones, a file of backbone weights, or the model.h5 "
        "of an earlier run, even one with a shallower backbone",
        "imagenet",
        "imagenet|none|PATH",
    )
    image_size: int = option(
        "side of the square that the network sees", IMAGE_SIZE, "PIXELS", type=whole_number(32)
    )
    input: str = _field(
        "resize: the whole image at that size; crops: squares of it at native resolution",
        INPUT_KINDS[0],
        choices=INPUT_KINDS,
    )
    crops: int = _field("evenly spread crops that judge an image", 9, type=whole_number(1))
    aggregate: str = _field(
        "how the crops' probabilities are combined",
        next(iter(AGGREGATES)),
        choices=tuple(AGGREGATES),
    )
    mirror_below: float = _field(
        "judge a whole image again, mirrored, when its highest probability is below this",
        0.0,
        type=number(0, 1),
    )
    views: int = _field("random crops of each training image", 6, type=whole_number(1))
    history: float = _field(
        "share of these crops that are first resampled and recompressed", 1.0, type=number(0, 1)
    )
    screenshots: float = _field(
        "share of these histories that end with a screenshot", 0.0, type=number(0, 1)
    )
    stem_stride: int = _field(
        "how much the first layers shrink the image (none: as in --weights, or as published)",
        type=int,
        choices=(4, 2, 1),
    )
    enlarge: int = _field(
        "how many times the network enlarges its input (none: as in --weights, or 1)",
        type=int,
        choices=(1, 2, 3, 4),
    )
    pooling: str = _field(
        "how the head summarises the feature maps",
        "global-average",
        choices=("global-average", "average-flatten", "stages", "equal-stages"),
    )
    noise: float = option(
        "Gaussian noise on the features during training", 0.1, "STD", type=number(0, 10)
    )
    dense_units: int = _field("units of the hidden layer; 0: none", 256, type=whole_number(0))
    l2: float = option("penalty on the hidden layer's weights", 1e-4, "WEIGHT", type=number(0, 10))
    dropout: float = option(
        "share of the hidden units left out during training", 0.4, "SHARE", type=number(0, 0.95)
    )
    batch_norm: str = _field(
        "whether batch statistics are learnt; auto: from random weights, or in batches of 64",
        "auto",
        choices=("auto", "train", "frozen"),
    )
    batch_norm_momentum: float = _field(
        "share of the old batch statistics that a step keeps", 0.99, type=number(0, 0.9999)
    )
    epochs: int = option(
        "epochs with the whole network learning", 20, "N", type=whole_number(0), group="learning"
    )
    minutes: float | None = option(
        "end within about this many minutes, evaluation included: take as many steps as there is "
        "time for, and fit warm-up and decay to them (default: no limit)",
        metavar="N",
        type=number(0, math.inf, ends=False),
    )
    frozen_epochs: int | None = _field(
        "epochs before those with only the head learning (none: 3, or 0 from random weights)",
        type=whole_number(0),
    )
    steps_per_epoch: int | None = _field(
        "batches in an epoch (none: all the images once)", type=whole_number(1)
    )
    batch_size: int = option("images in a batch", 32, "N", type=whole_number(1))
    learning_rate: float = option(
        "first learning rate of the head alone, or from random weights",
        1e-3,
        "RATE",
        type=number(0, 10),
    )
    fine_tune_learning_rate: float = option(
        "first learning rate of the whole network from trained weights",
        1e-4,
        "RATE",
        type=number(0, 10),
    )
    final_rate: float = _field(
        "share of the first learning rate that a stage ends with", 0.01, type=number(0, 1)
    )
    warmup_steps: int = _field(
        "steps over which the learning rate rises to its first value", 0, type=whole_number(0)
    )
    weight_decay: float = _field("AdamW's; 0: Adam", 0.0, type=number(0, 1))
    averaging: float = _field(
        "share of the old average that a step keeps of the weights' averages, which are validated "
        "and kept; 0: the weights themselves",
        0.0,
        type=number(0, 0.99999),
    )
    label_smoothing: float = _field(
        "share of each label spread over all classes", 0.0, type=number(0, 0.9)
    )
    augmentation: str = option(
        "standard: rotate by 20 degrees, shift, shear and zoom by 0.2, flip; light: flip, shift "
        "by 0.1",
        "standard",
        choices=("standard", "light", "flip", "none"),
    )
    balance: str = _field(
        "classes: every class counts the same in the loss; sources: and each source in it by the "
        "root of its size; draws: batches draw images so",
        "classes",
        choices=("classes", "sources", "draws"),
    )
    stored_features: bool = _field(
        "compute the frozen backbone's features once and train the head on them", False
    )
    degrade: float = _field(
        "share of the training images that are recompressed, shrunk, cropped or blurred",
        0.0,
        type=number(0, 1),
    )
    cutmix: float = _field(
        "share of the pairs of training images that exchange a patch and as much of their labels",
        0.0,
        type=number(0, 1),
    )
    patience: int = option(
        "how many epochs in a row the validation loss may exceed the training loss",
        0,
        "N",
        type=whole_number(0),
    )
    early_stopping: int = _field(
        "epochs without a lower validation loss that end a stage", 5, type=whole_number(1)
    )
    keep: str = _field(
        "best: the weights of the lowest validation loss; last: of the last epoch",
        "best",
        choices=("best", "last"),
    )
    thumbnails: tuple[str, ...] = _field(
        "folders of pictures, any arrangement, whose thumbnails the model learns to refuse",
        (),
        type=_names,
    )
    thumbnails_from: str | None = _field(
        "a model of the same image size to take this from instead, such as models/released"
    )
    seed: int = option(
        "seed of the weights, the order and the augmentation", SEED, "N", type=whole_number(0)
    )
    deterministic: bool = _field("make equal seeds give equal weights to the last bit", False)
    precision: str = option(
        "number format of the arithmetic; auto measures which one is fastest here",
        "auto",
        "auto|f32|bf16|f16",
        type=keras_precision,
        group="the machine",
    )
    workers: int = option(add=add_workers)
    cache_dir: Path | None = option(
        "keep the decoded images in this folder for the next run", metavar="DIR", type=Path
    )
    memory: float = option(add=add_memory)
    checkpoint_steps: int = option(
        "also save a checkpoint every N steps; 0 saves after each epoch only",
        0,
        "N",
        type=whole_number(0),
    )
    command: tuple[str, ...] = ()

    @property
    def model_input(self) -> ModelInput:
        """What the model is fed with."""
        return ModelInput(
            self.image_size,
            kind=self.input,
            crops=self.crops,
            aggregate_by=self.aggregate,
            mirror_below=self.mirror_below,
        )

    @property
    def view_options(self) -> ViewOptions | None:
        """What training sees of each image; None for what the model itself is fed with."""
        if self.input == "resize":
            return None
        return ViewOptions(self.views, self.history, self.seed, screenshots=self.screenshots)

    def stored(self) -> dict[str, Any]:
        """The options as `config.json` keeps them, to be read again by `--recipe`."""
        values = dataclasses.asdict(self)
        for name in _NOT_STORED:
            del values[name]
        return {k: v.as_posix() if isinstance(v, Path) else v for k, v in values.items()}


_NOT_STORED = ("resume", "command", "run_name", "set")
_FIELDS = {field.name: field for field in dataclasses.fields(TrainingOptions)}


def parse_training_options(
    argv: Sequence[str] | None, *, description: str | None, program: str = "ModelTraining.py"
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
    return TrainingOptions(**{**values, "resume": resume, "command": (program, *argv)})


def _stem_stride(weights: str, backbone: str) -> int:
    """The stride of the model that the weights come from, otherwise the published one."""
    declared = BACKBONES[backbone]
    layer_names = declared.stem_strides[declared.published_stem_stride]
    return read_strides(Path(weights), layer_names) or declared.published_stem_stride


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
    """Say what a recipe sets, and which of the options in force differ from it."""
    recipe, values = read_recipe(options.recipe), dataclasses.asdict(options)
    recipe = {name: value for name, value in recipe.items() if name not in _NOT_STORED}

    def words(names: Sequence[str]) -> str:
        return ", ".join(f"{name} {values[name]}" for name in names)

    kept = [name for name, value in recipe.items() if values[name] == value and name != "recipe"]
    changed = [name for name in recipe if values[name] != recipe[name] and name != "recipe"]
    others = f" Given otherwise: {words(changed)}." if changed else ""
    return f"Recipe {options.recipe}: {words(kept)}.{others}"


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
    if values["portraits"] and values["input"] != "crops":
        parser.error("portraits needs input crops: another input is the whole image already")
    if values["thumbnails"] and values["thumbnails_from"]:
        parser.error("thumbnails and thumbnails_from exclude each other")
    if (values["thumbnails"] or values["thumbnails_from"]) and values["input"] == "crops":
        parser.error("thumbnails need input resize: a model of crops refuses small pictures")
    name = values["run_name"]
    if name and (Path(name).name != name or name.startswith(".")):
        parser.error(f"--run-name must be the plain name of a folder, got {name}")
