"""Name sets of options: those of the released model and of earlier systems.

A recipe only sets defaults: an explicit option wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What the three steps of the released model share: 32 pixels that the network enlarges to 64, all
# layers learning, batch statistics that follow within some hundred steps, a schedule that nothing
# ends early.
_RELEASED: dict[str, Any] = {
    "image_size": 32,
    "enlarge": 2,
    "batch_size": 128,
    "frozen_epochs": 0,
    "batch_norm": "train",
    "batch_norm_momentum": 0.97,
    "augmentation": "light",
    "patience": 100,
    "early_stopping": 100,
}

# What both steps of a model of photographs share: crops at native resolution, most of them after a
# random history; a schedule that nothing ends early, and the weights at its end, since the
# validation loss on collections that training never saw is unsteady.
_PHOTOGRAPHS: dict[str, Any] = {
    "backbone": "efficientnet-lite0",
    "image_size": 224,
    "input": "crops",
    "views": 4,
    "history": 0.9,
    "aggregate": "extremes",
    "pooling": "equal-stages",
    "dropout": 0.5,
    "label_smoothing": 0.1,
    # Most portraits that it learns from are generated.
    "portraits": ("stylegan-faces", "unsplash-faces"),
    "patience": 100,
    "early_stopping": 100,
    "keep": "last",
}

RECIPES: dict[str, dict[str, Any]] = {
    # The released model's first step: a shallow network, which sees more images in the same time.
    "released-shallow": {
        **_RELEASED,
        "backbone": "resnet50",
        "weights": "imagenet",
        "epochs": 19,
        "steps_per_epoch": 200,
        "fine_tune_learning_rate": 3e-4,
        "warmup_steps": 100,
        "degrade": 0.25,
    },
    # Its second step: with --weights models/<run of the first>/model.h5.
    "released-grown": {
        **_RELEASED,
        "backbone": "resnet101",
        "epochs": 3,
        "steps_per_epoch": 490,
        "fine_tune_learning_rate": 1.5e-4,
        "warmup_steps": 200,
        "degrade": 0.35,
    },
    # Its third step, from the second one's model.h5: mixed images, so that it learns none by heart.
    "released-mixed": {
        **_RELEASED,
        "backbone": "resnet101",
        "epochs": 3,
        "steps_per_epoch": 698,
        "fine_tune_learning_rate": 1.5e-4,
        "warmup_steps": 150,
        "degrade": 0.45,
        "cutmix": 0.5,
        "seed": 7,
    },
    # The head alone, from features that are computed once.
    "photographs": {
        **_PHOTOGRAPHS,
        "stored_features": True,
        "epochs": 0,
        "frozen_epochs": 30,
        "learning_rate": 2e-3,
        "batch_size": 256,
        "augmentation": "none",
    },
    # Then the whole network: with --weights models/<run of the first>/model.h5.
    "photographs-tuned": {
        **_PHOTOGRAPHS,
        "epochs": 3,
        "frozen_epochs": 0,
        "batch_size": 32,
        "batch_norm": "frozen",
        "augmentation": "flip",
        "fine_tune_learning_rate": 1e-4,
        "warmup_steps": 40,
    },
    # CIFAKE's images are 32 pixels wide; nothing is gained by enlarging them seven times.
    "resnet101-cifake": {
        "backbone": "resnet101",
        "image_size": 32,
        "stem_stride": 1,
        "pooling": "global-average",
        "noise": 0.1,
        "dense_units": 256,
        "dropout": 0.4,
        "batch_size": 128,
        "augmentation": "light",
    },
    # Frozen base, AveragePooling, Flatten, Dense 256, Dropout 0.5; then the whole network.
    "resnet50-two-stage": {
        "backbone": "resnet50",
        "image_size": 224,
        "pooling": "average-flatten",
        "noise": 0.0,
        "dense_units": 256,
        "l2": 0.0,
        "dropout": 0.5,
        "frozen_epochs": 10,
        "learning_rate": 1e-3,
        "fine_tune_learning_rate": 1e-5,
        "augmentation": "none",
    },
    # GlobalAveragePooling, Dropout and Dense layers on augmented 224-pixel images.
    "resnet50-augmented": {
        "backbone": "resnet50",
        "image_size": 224,
        "pooling": "global-average",
        "noise": 0.0,
        "dense_units": 256,
        "l2": 0.0,
        "dropout": 0.5,
        "frozen_epochs": 5,
        "augmentation": "standard",
        "early_stopping": 5,
    },
    # Any number of classes (benign, malignant, normal), split by DataSplitD1.py per class.
    "resnet101-multiclass": {
        "backbone": "resnet101",
        "image_size": 224,
        "pooling": "global-average",
        "noise": 0.1,
        "dense_units": 256,
        "dropout": 0.4,
        "frozen_epochs": 5,
        "augmentation": "standard",
        "early_stopping": 5,
    },
}


def _as_text(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def describe_recipe(name: str, options: Mapping[str, Any]) -> str:
    """Say what a recipe sets, and which of the options in force differ from it."""

    def words(names: list[str]) -> str:
        flags = {key: f"--{key.replace('_', '-')}" for key in names}
        return " ".join(
            flag if options[key] is True else f"{flag} {_as_text(options[key])}"
            for key, flag in flags.items()
        )

    recipe = RECIPES[name]
    kept = [key for key, value in recipe.items() if options[key] == value]
    changed = [key for key in recipe if key not in kept]
    others = f" Given otherwise: {words(changed)}." if changed else ""
    return f"Recipe {name}: {words(kept)}.{others}"
