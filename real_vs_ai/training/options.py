"""Declare every option of ModelTraining.py with its default, without Keras, for a fast --help.

Later ones win: the defaults, the recipe, the stored configuration, the command line.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from real_vs_ai.cli import make_parser
from real_vs_ai.config import DATA_DIR, IMAGE_SIZE, MODELS_DIR, SEED
from real_vs_ai.dataset.views import ViewOptions
from real_vs_ai.errors import InputError
from real_vs_ai.model_file import read_enlargement, read_strides
from real_vs_ai.model_input import AGGREGATES, INPUT_KINDS, ModelInput
from real_vs_ai.options import add_fields, add_memory, add_workers, number, option, whole_number
from real_vs_ai.runs import NEWEST, RunFolder, find_unfinished_run
from real_vs_ai.training.backbones import BACKBONES
from real_vs_ai.training.recipes import RECIPES


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


@dataclass(frozen=True)
class TrainingOptions:
    """The options of a training run; each says what it means.

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
    recipe: str | None = option("start from a named set of options", choices=sorted(RECIPES))
    hold_out: tuple[str, ...] = option(
        "train without these sources (comma-separated) and validate on them alone, to see how the "
        "model does on unseen kinds of pictures",
        (),
        "SOURCES",
        type=_names,
    )
    portraits: tuple[str, ...] = option(
        "sources (comma-separated) of portraits; the model learns to recognise such pictures, and "
        "refuses them",
        (),
        "SOURCES",
        type=_names,
    )
    resume: Path | None = option(
        "resume an interrupted run (default: the newest unfinished one)",
        metavar="RUN",
        nargs="?",
        const=NEWEST,
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
        "side of the square that the network sees",
        IMAGE_SIZE,
        "PIXELS",
        flags=("--image-size", "--crop-size"),
        type=whole_number(32),
    )
    input: str = option(
        "resize: the whole image at that size; crops: squares of that size at native "
        "resolution, which keep the finest traces of large images",
        INPUT_KINDS[0],
        choices=INPUT_KINDS,
    )
    crops: int = option(
        "number of evenly spread crops by which an image is judged (with --input crops)",
        9,
        "N",
        type=whole_number(1),
    )
    aggregate: str = option(
        "how the crops' probabilities are combined",
        next(iter(AGGREGATES)),
        choices=tuple(AGGREGATES),
    )
    views: int = option(
        "number of random crops of each training image; an epoch uses one (with --input crops)",
        6,
        "N",
        type=whole_number(1),
    )
    history: float = option(
        "share of these crops that are first resampled and recompressed at random, as sites and "
        "messengers do (with --input crops)",
        1.0,
        "SHARE",
        type=number(0, 1),
    )
    stem_stride: int = option(
        "how much the first layers shrink the image; less keeps more of small images and takes 4 "
        "or 16 times as long (default: that of the model in --weights, otherwise the published "
        "one: 4, or 2 for EfficientNets)",
        type=int,
        choices=(4, 2, 1),
    )
    enlarge: int = option(
        "how many times the network enlarges its input before the first layer: ImageNet's filters "
        "know larger structures than small images have; 2 takes 4 times as long (default: that of "
        "the model in --weights, otherwise 1)",
        type=int,
        choices=(1, 2, 3, 4),
    )
    pooling: str = option(
        "how the head summarises the feature maps; stages takes mean and deviation of the maps of "
        "every stage, standardised, equal-stages the same with equal weight for each stage",
        "global-average",
        choices=("global-average", "average-flatten", "stages", "equal-stages"),
    )
    noise: float = option(
        "Gaussian noise on the features during training", 0.1, "STD", type=number(0, 10)
    )
    dense_units: int = option(
        "units of the head's hidden layer; 0 for none", 256, "N", type=whole_number(0)
    )
    l2: float = option("penalty on the hidden layer's weights", 1e-4, "WEIGHT", type=number(0, 10))
    dropout: float = option(
        "share of the hidden units left out during training", 0.4, "SHARE", type=number(0, 0.95)
    )
    batch_norm: str = option(
        "whether batch statistics are learnt; auto learns them from random weights or in batches "
        "of 64 or more",
        "auto",
        choices=("auto", "train", "frozen"),
    )
    batch_norm_momentum: float = option(
        "share of the old statistics kept at each step; 0.9 suits runs of a few hundred steps",
        0.99,
        "M",
        type=number(0, 0.9999),
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
    frozen_epochs: int | None = option(
        "epochs before those with only the head learning (default: 3, or 0 from random weights)",
        metavar="N",
        type=whole_number(0),
    )
    steps_per_epoch: int | None = option(
        "batches in an epoch (default: all the images once)", metavar="N", type=whole_number(1)
    )
    batch_size: int = option("images in a batch", 32, "N", type=whole_number(1))
    learning_rate: float = option(
        "first learning rate of the head alone, or from random weights; it falls to 1 %%",
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
    label_smoothing: float = option(
        "share of each label spread over all classes", 0.0, "SHARE", type=number(0, 0.9)
    )
    warmup_steps: int = option(
        "steps over which the learning rate first rises to its start", 0, "N", type=whole_number(0)
    )
    augmentation: str = option(
        "standard: rotate by 20 degrees, shift, shear and zoom by 0.2, flip; light: flip, shift "
        "by 0.1",
        "standard",
        choices=("standard", "light", "flip", "none"),
    )
    balance: str = option(
        "weigh the loss so that every class counts the same; sources also weighs each source in "
        "its class by the square root of its size",
        "classes",
        choices=("classes", "sources"),
    )
    stored_features: bool = option(
        "compute the frozen backbone's features once and train the head on them, hundreds of "
        "epochs in minutes (with --epochs 0 and --augmentation none)",
        False,
    )
    degrade: float = option(
        "share of the training images that are recompressed (JPEG), shrunk, cropped or blurred, "
        "which helps on pictures from the web",
        0.0,
        "SHARE",
        type=number(0, 1),
    )
    cutmix: float = option(
        "share of the pairs of training images that exchange a patch and as much of their labels "
        "(CutMix), so that the network learns fewer images by heart",
        0.0,
        "SHARE",
        type=number(0, 1),
    )
    patience: int = option(
        "how many epochs in a row the validation loss may exceed the training loss",
        0,
        "N",
        type=whole_number(0),
    )
    keep: str = option(
        "keep the weights of the epoch with the lowest validation loss, or of the last one, whose "
        "learning rate is lowest",
        "best",
        choices=("best", "last"),
    )
    early_stopping: int = option(
        "stop after this many epochs without a lower validation loss", 5, "N", type=whole_number(1)
    )
    seed: int = option(
        "seed of the weights, the order and the augmentation", SEED, "N", type=whole_number(0)
    )
    deterministic: bool = option(
        "make equal seeds give equal weights to the last bit, which takes longer", False
    )
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
    keep_checkpoints: bool = option("keep the checkpoints when the run has ended", False)
    tensorboard: bool = option("write logs for TensorBoard into the run's folder", False)
    command: tuple[str, ...] = ()

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
        InputError: A configuration file that cannot be used.
        FileNotFoundError: There is no run to resume, or no such configuration file.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = make_parser(description)
    add_fields(parser, TrainingOptions)
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="repeat a run: take the options from its config.json",
    )
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
    for name in ("hold_out", "portraits"):
        values[name] = tuple(values[name])
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


def read_stored_options(path: Path) -> dict[str, Any]:
    """The options that a run's `config.json` keeps; unknown ones are left out."""
    path = RunFolder(path).config if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"Expected a run's config.json at {path}, found none.")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))["options"]
        names = {field.name for field in dataclasses.fields(TrainingOptions)}
        return {name: value for name, value in stored.items() if name in names}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not the config.json of a training run: {error}") from error


def _check(parser: argparse.ArgumentParser, values: dict[str, Any]) -> None:
    frozen = values["frozen_epochs"]
    no_frozen_stage = frozen == 0 or (frozen is None and values["weights"] == "none")
    if values["epochs"] == 0 and no_frozen_stage:
        parser.error("--epochs is 0 and there are no --frozen-epochs: there is nothing to learn")
    changing = values["augmentation"] != "none" or values["degrade"] or values["cutmix"]
    if values["stored_features"] and (values["epochs"] or changing):
        parser.error(
            "--stored-features needs --epochs 0, --augmentation none, --degrade 0 and --cutmix 0: "
            "the features are computed once"
        )
    if values["minutes"] and values["deterministic"]:
        parser.error(
            "--minutes takes as many steps as the machine is fast, --deterministic repeats a run "
            "to the last bit: leave one of them out"
        )
    if values["portraits"] and values["input"] != "crops":
        parser.error("--portraits needs --input crops: another input is the whole image already")
    name = values["run_name"]
    if name and (Path(name).name != name or name.startswith(".")):
        parser.error(f"--run-name must be the plain name of a folder, got {name}")
