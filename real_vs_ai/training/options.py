"""Declare every option of a training, which are the fields of a recipe, and plan its stages.

Without Keras.

>>> TrainingOptions(epochs=5).dropout
0.4
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from real_vs_ai.core.config import DATA_DIR, IMAGE_SIZE, MODELS_DIR, SEED
from real_vs_ai.core.options import OptionError, Options, number, option, shared, whole_number
from real_vs_ai.dataset.views import ViewOptions
from real_vs_ai.models.model_file import read_enlargement, read_strides
from real_vs_ai.models.model_input import INPUT_KINDS, ModelInput
from real_vs_ai.models.runs import NEWEST
from real_vs_ai.networks.backbones import BACKBONES

_RECIPES = (Path(__file__).parent / "recipes").glob("*.json")
RECIPES = dict(sorted((path.stem, path) for path in _RECIPES))

_FROZEN_EPOCHS = 3
# Smaller batches estimate batch statistics too poorly to replace ImageNet's.
_FEWEST_IMAGES_FOR_STATISTICS = 64
# A forward pass alone costs about a third of a pass with its gradients.
FORWARD_SHARE = 1 / 3

# Fields that are not saved with a run.
NOT_STORED = ("resume", "command", "run_name", "set")

# Keras' names, which `config.json` holds; scoring uses the names f32 and bf16 as well.
_PRECISIONS = {"auto": "auto", "f32": "float32", "bf16": "mixed_bfloat16", "f16": "mixed_float16"}


def keras_precision(text: str) -> str:
    """The Keras policy that a value of --precision means; a policy means itself."""
    if text not in (*_PRECISIONS, *_PRECISIONS.values()):
        raise OptionError(f"expected {', '.join(_PRECISIONS)}, found {text}")
    return _PRECISIONS.get(text, text)


def _field(help_text: str, default: Any = None, **declaration: Any) -> Any:
    """A field that a recipe sets; the command line sets it by --set only."""
    return option(help_text, default, shown=False, **declaration)


def _share(help_text: str, default: float) -> Any:
    """A field from 0 to 1."""
    return _field(help_text, default, type=number(0, 1))


def _count(help_text: str, default: int | None = None, *, lowest: int = 0) -> Any:
    return _field(help_text, default, type=whole_number(lowest))


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(Options):
    """The options of a training run and the fields of its recipe; each says what it means.

    `recipe` and `set` name what `read_recipe` read, and `command` the command line, for the record.

    Raises:
        OptionError: A value is out of its range, or two of them exclude each other.
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
        (),
        "FIELD=VALUE",
        nargs="+",
        action="extend",
    )
    resume: Path | None = option(
        "resume an interrupted run (default: the newest unfinished one)",
        metavar="RUN",
        nargs="?",
        const=NEWEST,
        type=Path,
    )
    hold_out: tuple[str, ...] = _field(
        "sources, or parts of them such as 2/5, to train without and to validate on alone", ()
    )
    source_limit: int = _count(
        "most training images of each class of a source, drawn by the seed; 0: all", 0
    )
    backbone: str = option(
        "network that computes the features",
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
    crops: int = _count("evenly spread crops that judge an image", 9, lowest=1)
    overview: int = _count(
        "crops of the reduced picture that judge it too, each like the others", 0
    )
    mirror_below: float = _share(
        "judge a whole image again, mirrored, when its highest probability is below this", 0.0
    )
    views: int = _count("random crops of each training image", 6, lowest=1)
    history: float = _share("share of these crops that are first resampled and recompressed", 1.0)
    screenshots: float = _share("share of these histories that end with a screenshot", 0.0)
    encoded: float = _share(
        "share of these histories, where the file is no JPEG, that begin with a JPEG or WebP of "
        "good quality",
        0.7,
    )
    stem_stride: int | None = _field(
        "how much the first layers shrink the image (none: as in --weights, or as published)",
        type=whole_number(1),
        choices=(4, 2, 1),
    )
    enlarge: int | None = _field(
        "how many times the network enlarges its input (none: as in --weights, or 1)",
        type=whole_number(1),
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
    dense_units: int = _count("units of the hidden layer; 0: none", 256)
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
        "learn for about this many minutes at most, validation included, and fit warm-up and decay "
        "to them; the report comes after (default: no limit)",
        metavar="N",
        type=number(0, math.inf, ends=False),
    )
    frozen_epochs: int | None = _count(
        "epochs before those with only the head learning (none: 3, or 0 from random weights)"
    )
    steps_per_epoch: int | None = _count(
        "batches in an epoch (none: all the images once)", lowest=1
    )
    batch_size: int = option("images in a batch", 32, "N", type=whole_number(1))
    learning_rate: float = option(
        "first learning rate of the head alone, or from random weights",
        1e-3,
        "RATE",
        type=number(0, 10),
    )
    fine_tune_learning_rate: float = _field(
        "first learning rate of the whole network from trained weights", 1e-4, type=number(0, 10)
    )
    final_rate: float = _share("share of the first learning rate that a stage ends with", 0.01)
    blend: float = _share(
        "share of the learnt weights in those that are kept; the rest are those that the run began "
        "with, which know what it did not see again",
        1.0,
    )
    warmup_steps: int = _count("steps over which the learning rate rises to its first value", 0)
    weight_decay: float = _share("AdamW's; 0: Adam", 0.0)
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
        "by 0.1; keras: as standard by Keras' ImageDataGenerator, which is slower",
        "standard",
        choices=("standard", "light", "flip", "keras", "none"),
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
    degrade: float = _share(
        "share of the training images that are recompressed, shrunk, cropped or blurred", 0.0
    )
    cutmix: float = _share(
        "share of the pairs of training images that exchange a patch and as much of their labels",
        0.0,
    )
    patience: int = _count("epochs in a row whose validation loss may exceed the training loss", 0)
    early_stopping: int = _count(
        "epochs without a lower validation loss that end a stage", 5, lowest=1
    )
    keep: str = _field(
        "best: the weights of the lowest validation loss; last: of the last epoch",
        "best",
        choices=("best", "last"),
    )
    target_error: float = _field(
        "share of the certain verdicts on validation images that may be wrong; sets the thresholds",
        0.05,
        type=number(0, 0.5, ends=False),
    )
    source_risk: float = _field(
        "expected share of a new source's real images that may be called Fake; twice that of "
        "its generated ones, Real; 0: the thresholds bound the validation images, or every source",
        0.0,
        type=number(0, 0.25),
    )
    thumbnails: tuple[str, ...] = _field(
        "folders of pictures, any arrangement, whose thumbnails the model learns to refuse", ()
    )
    seed: int = option(
        "seed of the weights, the order and the augmentation", SEED, "N", type=whole_number(0)
    )
    deterministic: bool = _field("make equal seeds give equal weights to the last bit", False)
    precision: str = option(
        "number format of the arithmetic; auto takes half precision where the hardware has it",
        "auto",
        "auto|f32|bf16|f16",
        type=keras_precision,
        group="the machine",
    )
    workers: int = shared("--workers")
    cache_dir: Path | None = option(
        "folder that keeps the decoded images and features for the next run", type=Path, shown=False
    )
    memory: float = option(
        "decoded images of a split beyond this stay on disk, memory-mapped",
        4.0,
        "GB",
        type=number(0, 1e6),
    )
    checkpoint_steps: int = _count(
        "steps after which a checkpoint is saved too; 0: after each epoch only", 0
    )
    command: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        no_frozen_stage = self.frozen_epochs == 0 or (
            self.frozen_epochs is None and self.weights == "none"
        )
        if self.epochs == 0 and no_frozen_stage and not Path(self.weights).is_file():
            raise OptionError(
                "epochs is 0 and there are no frozen_epochs: there is nothing to learn, and no "
                "model.h5 in weights to finish again"
            )
        changing = self.augmentation != "none" or self.degrade or self.cutmix
        if self.stored_features and (self.epochs or changing):
            raise OptionError(
                "stored_features needs epochs 0, augmentation none, degrade 0 and cutmix 0: the "
                "features are computed once"
            )
        if self.minutes and self.deterministic:
            raise OptionError(
                "minutes takes as many steps as the machine is fast, deterministic repeats a run "
                "to the last bit: leave one of them out"
            )
        if self.thumbnails and self.input == "crops":
            raise OptionError(
                "thumbnails need input resize: a model of crops refuses small pictures"
            )
        if self.run_name and (Path(self.run_name).name != self.run_name or self.run_name[0] == "."):
            raise OptionError(f"run_name: expected the name of a folder, found {self.run_name}")

    def fitted_to_weights(self) -> TrainingOptions:
        """The options with the shape of the model that the weights come from, where none is set.

        Raises:
            ModelFileError: The file of the weights is damaged.
        """
        stride, enlarge = self.stem_stride, self.enlarge
        if stride is None:
            published, layer_names = next(iter(BACKBONES[self.backbone].stem_strides.items()))
            stride = read_strides(Path(self.weights), layer_names) or published
        if enlarge is None:
            enlarge = read_enlargement(Path(self.weights))
        return dataclasses.replace(self, stem_stride=stride, enlarge=enlarge)

    @property
    def model_input(self) -> ModelInput:
        """What the model is fed with."""
        return ModelInput(
            self.image_size,
            kind=self.input,
            crops=self.crops,
            overview=self.overview if self.input == "crops" else 0,
            mirror_below=self.mirror_below,
        )

    @property
    def view_options(self) -> ViewOptions | None:
        """What training sees of each image; None for what the model itself is fed with."""
        if self.input == "resize":
            return None
        return ViewOptions(
            self.views, self.history, self.seed, screenshots=self.screenshots, encoded=self.encoded
        )

    def stored(self) -> dict[str, Any]:
        """The options as `config.json` keeps them, to be read again by `--recipe`."""
        values = dataclasses.asdict(self)
        for name in NOT_STORED:
            del values[name]
        return {k: v.as_posix() if isinstance(v, Path) else v for k, v in values.items()}


@dataclass(frozen=True)
class Stage:
    """A part of the training with its own learning rate.

    Attributes:
        name: "frozen", "fine-tuning", or "training" from random weights.
        epochs: How many epochs it lasts at most.
        learning_rate: At its first step.
        train_backbone: Whether the backbone learns, or only the head.
        train_batch_norm: Whether batch statistics are learnt.
    """

    name: str
    epochs: int
    learning_rate: float
    train_backbone: bool
    train_batch_norm: bool

    @property
    def step_share(self) -> float:
        """Cost of one of its steps, where one with the whole network learning costs 1."""
        return 1.0 if self.train_backbone else FORWARD_SHARE


def plan_stages(options: TrainingOptions) -> list[Stage]:
    """Head first and then the whole network, or the whole network at once from random weights."""
    random_weights = options.weights == "none"
    frozen_epochs = options.frozen_epochs
    if frozen_epochs is None:
        frozen_epochs = 0 if random_weights else _FROZEN_EPOCHS
    statistics = {"train": True, "frozen": False}.get(
        options.batch_norm, random_weights or options.batch_size >= _FEWEST_IMAGES_FOR_STATISTICS
    )
    stages = []
    if frozen_epochs:
        stages.append(Stage("frozen", frozen_epochs, options.learning_rate, False, False))
    if options.epochs:
        from_scratch = random_weights and not frozen_epochs
        rate = options.learning_rate if from_scratch else options.fine_tune_learning_rate
        name = "training" if from_scratch else "fine-tuning"
        stages.append(Stage(name, options.epochs, rate, True, statistics))
    return stages
