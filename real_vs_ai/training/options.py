"""Declare every option of ModelTraining.py with its default, without Keras, for a fast --help.

    options = parse_training_options(["--epochs", "5"], description=__doc__)

Later ones win: the defaults, the recipe, the stored configuration, the command line.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from real_vs_ai.cli import make_parser
from real_vs_ai.config import DATA_DIR, IMAGE_SIZE, MODELS_DIR, SEED
from real_vs_ai.dataset.views import ViewOptions
from real_vs_ai.errors import InputError
from real_vs_ai.files import list_folders
from real_vs_ai.model_file import read_strides
from real_vs_ai.model_input import AGGREGATES, INPUT_KINDS, ModelInput
from real_vs_ai.options import add_memory, add_workers, number, whole_number
from real_vs_ai.runs import RunFolder
from real_vs_ai.training.backbones import BACKBONES
from real_vs_ai.training.recipes import RECIPES

_NEWEST = "newest"


@dataclass(frozen=True)
class TrainingOptions:
    """What a training run is asked to do; `add_options` says what each one means.

    Attributes:
        resume: The run folder to go on with, or None for a new run.
        command: The command line, for the record.
    """

    data: Path
    models_dir: Path
    run_name: str | None
    recipe: str | None
    backbone: str
    weights: str
    image_size: int
    input: str
    crops: int
    aggregate: str
    views: int
    stored_features: bool
    balance: str
    history: float
    stem_stride: int
    pooling: str
    noise: float
    dense_units: int
    l2: float
    dropout: float
    batch_norm: str
    batch_norm_momentum: float
    epochs: int
    minutes: float | None
    frozen_epochs: int | None
    steps_per_epoch: int | None
    batch_size: int
    learning_rate: float
    fine_tune_learning_rate: float
    label_smoothing: float
    warmup_steps: int
    augmentation: str
    degrade: float
    patience: int
    early_stopping: int
    seed: int
    deterministic: bool
    precision: str
    workers: int
    cache_dir: Path | None
    memory: float
    checkpoint_steps: int
    keep_checkpoints: bool
    tensorboard: bool
    resume: Path | None
    command: tuple[str, ...]

    @property
    def model_input(self) -> ModelInput:
        """What the model is fed with."""
        return ModelInput(
            self.image_size, kind=self.input, crops=self.crops, aggregate_by=self.aggregate
        )

    @property
    def view_options(self) -> ViewOptions | None:
        """What training sees of each image; None for what the model itself is fed with."""
        if self.input == "resize":
            return None
        return ViewOptions(count=self.views, history=self.history, seed=self.seed)

    def stored(self) -> dict[str, Any]:
        """The options as `config.json` keeps them, to be read again by `--config`."""
        values = dataclasses.asdict(self)
        for name in ("resume", "command", "run_name"):
            del values[name]
        return {k: v.as_posix() if isinstance(v, Path) else v for k, v in values.items()}


def parse_training_options(
    argv: Sequence[str] | None, *, description: str | None, program: str = "ModelTraining.py"
) -> TrainingOptions:
    """Read the command line of ModelTraining.py.

    Raises:
        SystemExit: Wrong usage (code 2), or --help.
        ValueError: A configuration file that cannot be used.
        FileNotFoundError: There is no run to resume, or no such configuration file.
    """
    import sys

    argv = list(sys.argv[1:] if argv is None else argv)
    parser = make_parser(description)
    add_options(parser)
    first = parser.parse_args(argv)
    parser.set_defaults(**RECIPES.get(first.recipe, {}))
    if first.config is not None:
        parser.set_defaults(**read_stored_options(first.config))
    resume = None
    if first.resume is not None:
        resume = find_unfinished_run(first.resume, models_dir=first.models_dir).path
        parser.set_defaults(**read_stored_options(RunFolder(resume).config))
    values = vars(parser.parse_args(argv))
    del values["config"]
    _check(parser, values)
    if values["stem_stride"] is None:
        values["stem_stride"] = _stem_stride(values["weights"], values["backbone"])
    return TrainingOptions(**{**values, "resume": resume, "command": (program, *argv)})


def _stem_stride(weights: str, backbone: str) -> int:
    """The stride of the model that the weights come from, otherwise the published one."""
    declared = BACKBONES[backbone]
    layer_names = declared.stem_strides[declared.published_stem_stride]
    return read_strides(Path(weights), layer_names) or declared.published_stem_stride


def read_stored_options(path: Path) -> dict[str, Any]:
    """The options that a run's `config.json` keeps; unknown ones are left out.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a run's configuration.
    """
    path = RunFolder(path).config if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"Expected a run's config.json at {path}, found none.")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))["options"]
        names = {field.name for field in dataclasses.fields(TrainingOptions)}
        return {name: value for name, value in stored.items() if name in names}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not the config.json of a training run: {error}") from error


def find_unfinished_run(name: str, *, models_dir: Path) -> RunFolder:
    """The run that `--resume` means: a folder, or the newest unfinished one in `models_dir`.

    Raises:
        FileNotFoundError: There is none.
        ValueError: The run is finished.
    """
    if name != _NEWEST:
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


def add_options(parser: argparse.ArgumentParser) -> None:
    """Declare every option with its default."""
    _add_run_options(parser.add_argument_group("the run"))
    _add_network_options(parser.add_argument_group("the network"))
    _add_learning_options(parser.add_argument_group("learning"))
    _add_machine_options(parser.add_argument_group("the machine"))


def _add_run_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--data",
        type=Path,
        default=DATA_DIR,
        metavar="DIR",
        help="holds train/, validation/ and test/ with a folder for each class",
    )
    add(
        "--models-dir",
        type=Path,
        default=MODELS_DIR,
        metavar="DIR",
        help="where the run's folder is made",
    )
    add("--run-name", metavar="NAME", help="the folder's name (default: date, time and backbone)")
    add("--recipe", choices=sorted(RECIPES), help="a named set of options to start from")
    add(
        "--config",
        type=Path,
        metavar="FILE",
        help="repeat a run: take the options of its config.json",
    )
    add(
        "--resume",
        nargs="?",
        const=_NEWEST,
        metavar="RUN",
        help="go on with an interrupted run (default: the newest unfinished one)",
    )


def _add_network_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--backbone",
        default="resnet101",
        choices=tuple(BACKBONES),
        help="the network that makes features of an image; resnet26 has no ImageNet weights and "
        "is a quick start for the others",
    )
    add(
        "--weights",
        default="imagenet",
        metavar="imagenet|none|PATH",
        help="weights to start from: ImageNet's (downloaded once, or from the package that "
        "requirements-photographs.txt names), random ones, a file with the backbone's weights, "
        "or the model.h5 of an earlier run, also of a shallower backbone",
    )
    add(
        "--image-size",
        "--crop-size",
        type=whole_number(32),
        default=IMAGE_SIZE,
        metavar="PIXELS",
        help="side of the square that the network sees",
    )
    add(
        "--input",
        choices=INPUT_KINDS,
        default=INPUT_KINDS[0],
        help="resize: the whole image at that size; crops: squares of that size at native "
        "resolution, which keep the finest traces of large images",
    )
    add(
        "--crops",
        type=whole_number(1),
        default=9,
        metavar="N",
        help="crops that are judged of each image, spread evenly (with --input crops)",
    )
    add(
        "--aggregate",
        choices=tuple(AGGREGATES),
        default=next(iter(AGGREGATES)),
        help="how the crops' probabilities become the image's",
    )
    add(
        "--views",
        type=whole_number(1),
        default=6,
        metavar="N",
        help="random crops made of each training image; an epoch takes one (with --input crops)",
    )
    add(
        "--history",
        type=number(0, 1),
        default=1.0,
        metavar="SHARE",
        help="share of them that are first resampled and recompressed at random, as pictures are "
        "on their way (with --input crops)",
    )
    add(
        "--stem-stride",
        type=int,
        choices=(4, 2, 1),
        help="how much the first layers shrink the image; less keeps more of small images "
        "and costs 4 or 16 times the time (default: that of the model named by --weights, "
        "otherwise the published one: 4, or 2 for EfficientNets)",
    )
    add(
        "--pooling",
        choices=("global-average", "average-flatten", "stages"),
        default="global-average",
        help="how the head summarises the feature maps; stages: mean and deviation of every "
        "stage's, standardised",
    )
    add(
        "--noise",
        type=number(0, 10),
        default=0.1,
        metavar="STD",
        help="Gaussian noise on the features while learning",
    )
    add(
        "--dense-units",
        type=whole_number(0),
        default=256,
        metavar="N",
        help="units of the head's hidden layer; 0 for none",
    )
    add(
        "--l2",
        type=number(0, 10),
        default=1e-4,
        metavar="WEIGHT",
        help="penalty on the hidden layer's weights",
    )
    add(
        "--dropout",
        type=number(0, 0.95),
        default=0.4,
        metavar="SHARE",
        help="share of the hidden units left out while learning",
    )
    add(
        "--batch-norm",
        choices=("auto", "train", "frozen"),
        default="auto",
        help="whether batch statistics are learnt; auto: only from random weights, or in batches "
        "of 64 or more",
    )
    add(
        "--batch-norm-momentum",
        type=number(0, 0.9999),
        default=0.99,
        metavar="M",
        help="share of the old statistics kept at each step; 0.9 suits runs of a few hundred steps",
    )


def _add_learning_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--epochs",
        type=whole_number(0),
        default=20,
        metavar="N",
        help="epochs with the whole network learning",
    )
    add(
        "--minutes",
        type=number(0, math.inf, ends=False),
        metavar="N",
        help="end within about so many minutes, evaluation included: takes as many steps of the "
        "epochs as there is time for, and fits warm-up and decay to them (default: no limit)",
    )
    add(
        "--frozen-epochs",
        type=whole_number(0),
        metavar="N",
        help="epochs before that with only the head learning (default: 3, or 0 from random "
        "weights)",
    )
    add(
        "--steps-per-epoch",
        type=whole_number(1),
        metavar="N",
        help="batches in an epoch (default: all the images once)",
    )
    add("--batch-size", type=whole_number(1), default=32, metavar="N", help="images in a batch")
    add(
        "--learning-rate",
        type=number(0, 10),
        default=1e-3,
        metavar="RATE",
        help="at the start, for the head alone or from random weights; falls to 1 %%",
    )
    add(
        "--fine-tune-learning-rate",
        type=number(0, 10),
        default=1e-4,
        metavar="RATE",
        help="at the start, for the whole network from trained weights",
    )
    add(
        "--label-smoothing",
        type=number(0, 0.9),
        default=0.0,
        metavar="SHARE",
        help="share of each label spread over all classes",
    )
    add(
        "--warmup-steps",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="steps over which the learning rate first rises to its start",
    )
    add(
        "--augmentation",
        choices=("standard", "light", "flip", "none"),
        default="standard",
        help="standard: rotation 20 degrees, shift, shear and zoom 0.2, flip; light: flip and "
        "shift 0.1",
    )
    add(
        "--balance",
        choices=("classes", "sources"),
        default="classes",
        help="what counts the same in the loss: every class; or every class, and in it each "
        "source by the square root of its size",
    )
    add(
        "--stored-features",
        action="store_true",
        help="compute the frozen backbone's features once and learn the head from them: hundreds "
        "of epochs in minutes (with --epochs 0 and --augmentation none)",
    )
    add(
        "--degrade",
        type=number(0, 1),
        default=0.0,
        metavar="SHARE",
        help="share of the images recompressed (JPEG), shrunk or blurred while learning; a model "
        "trained so holds better on pictures from the web",
    )
    add(
        "--patience",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="epochs in a row that the validation loss may exceed the training loss",
    )
    add(
        "--early-stopping",
        type=whole_number(1),
        default=5,
        metavar="N",
        help="stop after so many epochs without a lower validation loss",
    )
    add(
        "--seed",
        type=whole_number(0),
        default=SEED,
        metavar="N",
        help="of the weights, the order and the augmentation",
    )
    add(
        "--deterministic",
        action="store_true",
        help="the same seed gives the same weights to the last bit; slower",
    )


def _add_machine_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add(
        "--precision",
        default="auto",
        choices=("auto", "float32", "mixed_bfloat16", "mixed_float16"),
        help="of the arithmetic; auto measures which is fastest here",
    )
    add_workers(group)
    add(
        "--cache-dir",
        type=Path,
        metavar="DIR",
        help="keep the decoded images there for the next run",
    )
    add_memory(group)
    add(
        "--checkpoint-steps",
        type=whole_number(0),
        default=0,
        metavar="N",
        help="also save a checkpoint every N steps; 0: after each epoch only",
    )
    add("--keep-checkpoints", action="store_true", help="keep them when the run has ended")
    add("--tensorboard", action="store_true", help="write logs for TensorBoard into the run")


def _check(parser: argparse.ArgumentParser, values: dict[str, Any]) -> None:
    frozen = values["frozen_epochs"]
    no_frozen_stage = frozen == 0 or (frozen is None and values["weights"] == "none")
    if values["epochs"] == 0 and no_frozen_stage:
        parser.error("--epochs is 0 and there are no --frozen-epochs: there is nothing to learn")
    moving = values["epochs"] or values["augmentation"] != "none" or values["degrade"]
    if values["stored_features"] and moving:
        parser.error(
            "--stored-features needs --epochs 0, --augmentation none and --degrade 0: the features "
            "are computed once"
        )
    if values["stored_features"] and values["minutes"]:
        parser.error("--minutes cannot shorten --stored-features, whose steps cost next to nothing")
    if values["minutes"] and values["deterministic"]:
        parser.error(
            "--minutes takes as many steps as the machine is fast, --deterministic repeats a run "
            "to the last bit: leave one of them out"
        )
    name = values["run_name"]
    if name and (Path(name).name != name or name.startswith(".")):
        parser.error(f"--run-name must be the plain name of a folder, got {name}")
