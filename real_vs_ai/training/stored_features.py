"""Let a head learn alone, from features that the backbone computes once and a cache keeps."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import keras

from real_vs_ai.dataset.decoded_images import DecodedImages, store_features
from real_vs_ai.evaluation.judging import open_features
from real_vs_ai.models.keras_models import save_model
from real_vs_ai.models.model_file import ModelMetadata
from real_vs_ai.networks.head import POOL_LAYER, features_key, fix_standardisation, head_alone

Say = Callable[[str], None]
Splits = dict[str, DecodedImages]


def head_and_features(
    model: keras.Model, splits: Splits, hold_out: tuple[str, ...], *, is_learnt: bool, say: Say
) -> tuple[keras.Model, Splits, Splits]:
    """The model's head, what it learns from, and the splits of the report.

    Args:
        hold_out: Sources that leave the training images, after their features were stored.
        is_learnt: Whether nothing is left to learn, so that no feature is needed.

    Raises:
        InputError: The head cannot learn from stored features.
    """
    head, features = head_alone(model), splits
    if not is_learnt:
        key, names = features_key(model), splits["train"].images.class_names
        metadata = ModelMetadata(
            class_names=names, image_size=model.input_shape[1], backbone=model.name
        )
        # Through a model file, as evaluation computes them.
        with tempfile.TemporaryDirectory(prefix="real-vs-ai-") as folder:
            path = Path(folder) / "model.h5"
            save_model(model, path, metadata=metadata)
            compute = open_features(model, path, layer=POOL_LAYER)
        width = model.get_layer(POOL_LAYER).output.shape[-1]
        features = store_features(splits, compute, width=width, key=key, say=say)
    if hold_out:
        others = splits["train"].images.positions(hold_out)[1]
        features, splits = (
            {**held, "train": held["train"].take(others)} for held in (features, splits)
        )
    if not is_learnt:
        fix_standardisation(head, features["train"].inputs)
    return head, features, splits
