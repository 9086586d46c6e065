"""Named sets of options, one for each earlier system that this one descends from.

A recipe only sets defaults: any option given beside `--recipe` wins.
"""

from __future__ import annotations

from typing import Any

RECIPES: dict[str, dict[str, Any]] = {
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
