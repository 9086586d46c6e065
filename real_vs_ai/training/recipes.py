"""Name sets of options: those of the released model and of earlier systems.

A recipe only sets defaults: an explicit option wins.
"""

from __future__ import annotations

from typing import Any

# What both steps of the released model share: 32 pixels, all layers learning, batch statistics that
# follow within some hundred steps, a schedule that nothing ends early.
_RELEASED: dict[str, Any] = {
    "image_size": 32,
    "stem_stride": 2,
    "batch_size": 128,
    "frozen_epochs": 0,
    "batch_norm": "train",
    "batch_norm_momentum": 0.97,
    "augmentation": "light",
    "patience": 100,
    "early_stopping": 100,
}

RECIPES: dict[str, dict[str, Any]] = {
    # The released model's first step: a shallow network, which sees more images in the same time.
    "released-shallow": {
        **_RELEASED,
        "backbone": "resnet26",
        "weights": "none",
        "epochs": 9,
        "steps_per_epoch": 347,
        "learning_rate": 1e-3,
        "warmup_steps": 300,
        "degrade": 0.4,
    },
    # Its second step: with --weights models/<run of the first>/model.h5.
    "released-grown": {
        **_RELEASED,
        "backbone": "resnet101",
        "epochs": 3,
        "steps_per_epoch": 450,
        "fine_tune_learning_rate": 4e-4,
        "warmup_steps": 100,
        # Less than before: it costs accuracy on images as they are.
        "degrade": 0.25,
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
