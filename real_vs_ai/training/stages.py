"""Plan a run's stages and estimate how long they take; nothing is trained here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from real_vs_ai.training.options import TrainingOptions

_FROZEN_EPOCHS = 3
# Smaller batches estimate batch statistics too poorly to replace ImageNet's.
_FEWEST_IMAGES_FOR_STATISTICS = 64
# A forward pass alone costs about a third of a pass with its gradients.
FORWARD_SHARE = 1 / 3


@dataclass(frozen=True)
class Stage:
    """A part of the training with its own learning rate.

    Attributes:
        name: "frozen", "fine-tuning", or "training" from random weights.
        first_epoch: Epochs of the stages before it.
        epochs: How many epochs it lasts at most.
        learning_rate: At its first step.
        train_backbone: Whether the backbone learns, or only the head.
        train_batch_norm: Whether batch statistics are learnt.
    """

    name: str
    first_epoch: int
    epochs: int
    learning_rate: float
    train_backbone: bool
    train_batch_norm: bool

    @property
    def step_share(self) -> float:
        """Cost of one of its steps, where one with the whole network learning costs 1."""
        return 1.0 if self.train_backbone else FORWARD_SHARE

    @property
    def last_epoch(self) -> int:
        """The number of its last epoch, counted from 1 over all stages."""
        return self.first_epoch + self.epochs


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
        stages.append(Stage("frozen", 0, frozen_epochs, options.learning_rate, False, False))
    if options.epochs:
        from_scratch = random_weights and not frozen_epochs
        rate = options.learning_rate if from_scratch else options.fine_tune_learning_rate
        name = "training" if from_scratch else "fine-tuning"
        stages.append(Stage(name, frozen_epochs, options.epochs, rate, True, statistics))
    return stages


def estimate_seconds(
    stages: Sequence[Stage],
    *,
    multiply_adds: int,
    training_rate: float,
    images_per_epoch: int,
    validation_images: int,
) -> float:
    """About how long the stages take when none of them stops early.

    Args:
        training_rate: Multiply-adds (forward) a second while learning, measured on a block.
    """
    forward = validation_images * FORWARD_SHARE
    images = sum(s.epochs * (images_per_epoch * s.step_share + forward) for s in stages)
    return images * multiply_adds / training_rate


def format_duration(seconds: float) -> str:
    """A duration for people.

    >>> [format_duration(seconds) for seconds in (40, 700, 12_000, 190_000)]
    ['40 s', '12 min', '3 h 20 min', '2 d 4 h']
    """
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"
