"""The training loop: compile, callbacks, fit, keep, checkpoint.

`fit_stage` is the way from the options to Keras' `fit`. Hosts, memory and interruptions are dealt
with around it, in `trainer.py`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from real_vs_ai.dataset.decoded_images import DecodedImages
from real_vs_ai.dataset.labelled_images import LabelledImages
from real_vs_ai.evaluation.figures import draw_history
from real_vs_ai.keras_models import graph_of
from real_vs_ai.networks.model import set_trainable
from real_vs_ai.reporting import plural
from real_vs_ai.runs import RunFolder
from real_vs_ai.training.batches import Shard, evaluation_batches, training_batches
from real_vs_ai.training.callbacks import (
    AveragedWeights,
    DivergenceGuard,
    ProgressBar,
    Recorder,
    StopTrainingOnValidationLoss,
)
from real_vs_ai.training.checkpoints import Progress, checkpoint_path, resume_stage
from real_vs_ai.training.compilation import epoch_metrics, fuse_batch_norm, make_optimizer
from real_vs_ai.training.devices import Device, Hosts
from real_vs_ai.training.options import TrainingOptions
from real_vs_ai.training.schedule import (
    KeepPace,
    Stage,
    TimeBudget,
    WarmedPolynomialDecay,
    format_duration,
    plan_stages,
)

# Classes are weighted when the largest has this many times the images of the smallest.
_UNBALANCED = 1.1
# Shorter epochs are over before anyone looks at their curves.
_SECONDS_WORTH_A_FIGURE = 20


@dataclass(frozen=True)
class Learning:
    """What the stages of one run share.

    Attributes:
        model: Built under the device's scope; learns in place.
        progress: How far the run has come; kept up to date.
        interrupted: Set when the user asks to stop.
        say: Takes one line at a time for the user.
        budget: The clock of a run with --minutes.
    """

    options: TrainingOptions
    run: RunFolder
    device: Device
    hosts: Hosts
    model: keras.Model
    train: DecodedImages
    validation: DecodedImages
    progress: Progress
    interrupted: threading.Event
    say: Callable[[str], None]
    budget: TimeBudget | None

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch; images that fill no whole batch wait for the next order."""
        return self.options.steps_per_epoch or len(self.train) // self.progress.batch_size

    @property
    def best_weights(self) -> Path:
        """Where the weights to keep are, from the end of their epoch on."""
        return self.run.checkpoints / "best.weights.h5"

    @property
    def checkpoint(self) -> Path:
        """Where the state to resume from is."""
        return checkpoint_path(self.run)


def fit_stage(learning: Learning, stage: Stage) -> None:
    """Train one stage from where it stands; the model ends with the weights to keep."""
    model, progress, steps = learning.model, learning.progress, learning.steps_per_epoch
    position = keras.Variable(progress.position, trainable=False) if learning.budget else None
    metrics = compile_stage(learning, stage, position)
    resume_stage(learning.checkpoint, model, progress, best_weights=learning.best_weights)

    options = learning.options
    keep = StopTrainingOnValidationLoss(
        path=learning.best_weights,
        progress=progress,
        patience=options.patience,
        early_stopping=options.early_stopping,
        keep=options.keep,
        writes=learning.hosts.is_first,
        epochs=progress.stage_rows(stage.name),
    )
    pace = _pace(learning, stage, position)
    guard = DivergenceGuard(
        advice=f"Resume from the last checkpoint with --resume {learning.run.path} and a lower "
        f"learning rate (now {stage.learning_rate:g}), or start again with --precision f32."
    )
    bar = ProgressBar(progress=progress, steps_per_epoch=steps, title=stage.name.capitalize())
    averages = AveragedWeights() if options.averaging else None
    checkpoint = _checkpoint(learning, stage, metrics, pace)
    callbacks = [guard, bar, keep, averages, pace, checkpoint]

    validation = _validation(learning)
    # One epoch at a time: a resumed run begins in the middle of one.
    while not progress.stage_done:
        model.fit(
            _batches(learning),
            validation_data=validation,
            initial_epoch=progress.epoch,
            epochs=progress.epoch + 1,
            steps_per_epoch=steps - progress.step,
            callbacks=[callback for callback in callbacks if callback],
            shuffle=False,
            verbose=0,
        )

    graph_of(model).load_weights(learning.best_weights)
    reason = keep.reason or "all its epochs are done"
    if pace and pace.is_cut_short:
        reason = f"its time is used after {plural(pace.done, 'step')}"
    learning.say(
        f"Stage {stage.name} ended after epoch {progress.epoch}: {reason}; "
        f"the weights of epoch {progress.best_epoch} are kept."
    )


def compile_stage(
    learning: Learning, stage: Stage, position: keras.Variable | None
) -> list[keras.metrics.Metric]:
    """Choose what learns and compile the model; the metrics whose state a checkpoint holds."""
    options, model, device = learning.options, learning.model, learning.device
    set_trainable(model, backbone=stage.train_backbone, batch_norm=stage.train_batch_norm)
    if device.fused_operations:
        fuse_batch_norm(model)
    schedule = WarmedPolynomialDecay(
        stage.learning_rate,
        decay_steps=max(1, stage.epochs * learning.steps_per_epoch),
        end_learning_rate=stage.learning_rate * options.final_rate,
        warmup_steps=options.warmup_steps,
        position=position,
    )
    with device.scope():
        metrics = epoch_metrics(learning.train.images.class_names)
        optimizer = make_optimizer(
            schedule,
            fused=device.fused_operations,
            weight_decay=options.weight_decay,
            averaging=options.averaging,
        )
        model.compile(
            optimizer=optimizer,
            loss=keras.losses.CategoricalCrossentropy(label_smoothing=options.label_smoothing),
            metrics=metrics,
            jit_compile=device.jit_compile,
        )
        model.optimizer.build(model.trainable_variables)
    # Keras keeps the loss apart from the metrics.
    return [*(m for m in model.metrics if m.name == "loss"), *metrics]


def _checkpoint(
    learning: Learning, stage: Stage, metrics: list[keras.metrics.Metric], pace: KeepPace | None
) -> Recorder:
    """What saves the run's state; the last of the callbacks."""
    progress = learning.progress
    last_epoch = progress.epochs_before(stage.name) + stage.epochs
    return Recorder(
        progress=progress,
        stage_name=stage.name,
        last_epoch=last_epoch,
        history_path=learning.run.history,
        checkpoint_path=learning.checkpoint,
        checkpoint_steps=learning.options.checkpoint_steps,
        steps_per_epoch=learning.steps_per_epoch,
        metrics=metrics,
        hosts=learning.hosts,
        interrupted=learning.interrupted,
        on_epoch=lambda: _after_epoch(learning, last_epoch, pace),
    )


def _pace(learning: Learning, stage: Stage, position: keras.Variable | None) -> KeepPace | None:
    """What lets a stage of a run with --minutes end in time; None without a limit."""
    if learning.budget is None:
        return None
    progress, steps = learning.progress, learning.steps_per_epoch
    later = plan_stages(learning.options)[progress.stage + 1 :]
    return KeepPace(
        budget=learning.budget,
        position=position,
        progress=progress,
        say=learning.say,
        steps=stage.epochs * steps,
        steps_per_epoch=steps,
        done=(progress.epoch - progress.epochs_before(stage.name)) * steps + progress.step,
        validation_images=len(learning.validation),
        step_share=stage.step_share,
        later_steps=sum(other.epochs * steps * other.step_share for other in later),
    )


def _batches(learning: Learning):
    """Training batches from the step on that the run has come to."""
    options, progress = learning.options, learning.progress
    images, steps = learning.train.images, learning.steps_per_epoch
    draws = options.balance == "draws"
    return training_batches(
        learning.train,
        batch_size=progress.batch_size,
        steps_per_epoch=steps,
        first_step=progress.epoch * steps + progress.step,
        seed=options.seed,
        augmentation=options.augmentation,
        degrade=options.degrade,
        cutmix=options.cutmix,
        shard=Shard(learning.hosts.index, learning.hosts.count),
        weights=None if draws else image_weights(images, images, balance=options.balance),
        draw_by=source_weights(images) if draws else None,
    )


def _validation(learning: Learning):
    hosts, images = learning.hosts, learning.validation.images
    return evaluation_batches(
        learning.validation,
        batch_size=max(32, learning.progress.batch_size) // hosts.count,
        shard=Shard(hosts.index, hosts.count),
        weights=image_weights(images, learning.train.images, balance=learning.options.balance),
    )


def _after_epoch(learning: Learning, last_epoch: int, pace: KeepPace | None) -> None:
    progress = learning.progress
    row = progress.history[-1]
    left = pace.seconds_left if pace else (last_epoch - progress.epoch) * row["seconds"]
    learning.say(
        f"epoch {progress.epoch}/{last_epoch} {row['stage']}: "
        f"loss {row['loss']:.4f}, accuracy {row['accuracy']:.4f}; "
        f"validation loss {row['val_loss']:.4f}, accuracy {row['val_accuracy']:.4f}; "
        f"{row['images_per_second']:.0f} images/s, {format_duration(row['seconds'])}"
        + (f", at most {format_duration(left)} left" if left else "")
    )
    if row["seconds"] >= _SECONDS_WORTH_A_FIGURE and learning.hosts.is_first:
        columns = {name: [r.get(name) for r in progress.history] for name in row}
        path = learning.run.figures / "history.png"
        draw_history(columns, keep=learning.options.keep, path=path)


def image_weights(
    images: LabelledImages, train: LabelledImages, *, balance: str
) -> np.ndarray | None:
    """How much each image counts in the loss, alike in training and validation; None for alike.

    Args:
        train: The training images, whose classes decide whether they are weighted.
        balance: "classes", or another value to weigh the sources in each class too.
    """
    if balance != "classes":
        return source_weights(images)
    numbers = list(train.counts.values())
    if max(numbers) <= _UNBALANCED * min(numbers):
        return None
    by_class = np.array([sum(numbers) / (len(numbers) * number) for number in numbers])
    return by_class[images.labels]


def source_weights(images: LabelledImages) -> np.ndarray:
    """Weights that let every class count the same, and the square root of each source's size in it.

    A large source then teaches more than a small one, and does not drown it.

    Returns:
        Shape (n_images,), with a mean of 1.
    """
    weights = np.zeros(len(images))
    sources = np.array(images.sources, dtype=object)
    for label in range(len(images.class_names)):
        of_class = images.labels == label
        for source in sorted(set(sources[of_class])):
            members = of_class & (sources == source)
            weights[members] = 1 / np.sqrt(members.sum())
        weights[of_class] /= max(weights[of_class].sum(), 1e-12)
    return weights * len(images) / len(images.class_names)
