"""The training loop: compile, callbacks, fit, keep, checkpoint.

`fit_stage` is the way from the options to Keras' `fit`. `run_stages` calls it, and deals with full
memory and interruptions around it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from real_vs_ai.core.errors import InputError
from real_vs_ai.core.files import atomic_write
from real_vs_ai.core.reporting import plural
from real_vs_ai.dataset.labelled_images import source_weights
from real_vs_ai.models.keras_models import graph_of
from real_vs_ai.networks.model import set_trainable
from real_vs_ai.training.batches import evaluation_batches, training_batches
from real_vs_ai.training.callbacks import (
    AveragedWeights,
    DivergenceGuard,
    ProgressBar,
    Recorder,
    StopTrainingOnValidationLoss,
    TimeLimit,
)
from real_vs_ai.training.compilation import (
    WarmedPolynomialDecay,
    epoch_metrics,
    fuse_batch_norm,
    make_optimizer,
)
from real_vs_ai.training.devices import is_out_of_memory
from real_vs_ai.training.images import image_weights
from real_vs_ai.training.options import Stage, plan_stages
from real_vs_ai.training.run_state import Learning, resume_stage

if TYPE_CHECKING:
    import tensorflow as tf


def fit_stage(learning: Learning, stage: Stage) -> None:
    """Train one stage from where it stands; the model ends with the weights to keep."""
    model, progress, steps = learning.model, learning.progress, learning.steps_per_epoch
    limited = learning.options.minutes is not None
    position = keras.Variable(progress.position, trainable=False) if limited else None
    metrics = compile_stage(learning, stage, position)
    resume_stage(learning.run, model, progress)

    keep = StopTrainingOnValidationLoss(learning, stage)
    limit = TimeLimit(learning, stage, position) if limited else None
    guard = DivergenceGuard(
        advice=f"Resume from the last checkpoint with --resume {learning.run.path} and a lower "
        f"learning rate (now {stage.learning_rate:g}), or start again with --precision f32."
    )
    averages = AveragedWeights() if learning.options.averaging else None
    checkpoint = Recorder(learning, stage, metrics, limit)
    callbacks = [guard, ProgressBar(learning, stage), keep, averages, limit, checkpoint]

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

    graph_of(model).load_weights(learning.run.best_weights)
    reason = keep.reason or "all its epochs are done"
    if limit and limit.is_cut_short:
        reason = f"its time is used after {plural(limit.done, 'step')}"
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


def _batches(learning: Learning) -> tf.data.Dataset:
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
        hosts=learning.hosts,
        weights=None if draws else image_weights(images, images, balance=options.balance),
        draw_by=source_weights(images.labels, images.sources) if draws else None,
    )


def _validation(learning: Learning) -> tf.data.Dataset:
    hosts, images = learning.hosts, learning.validation.images
    return evaluation_batches(
        learning.validation,
        batch_size=max(32, learning.progress.batch_size) // hosts.count,
        hosts=hosts,
        weights=image_weights(images, learning.train.images, balance=learning.options.balance),
    )


def run_stages(learning: Learning) -> None:
    """Fit every stage that is not done; where memory is full, in smaller batches."""
    progress, say = learning.progress, learning.say
    learning.run.checkpoints.mkdir(exist_ok=True)
    stages = plan_stages(learning.options)
    epochs = " and ".join(f"{plural(stage.epochs, 'epoch')} {stage.name}" for stage in stages)
    minutes = learning.options.minutes
    limit = f"; it learns for at most {minutes:g} min" if minutes else ""
    say(f"{learning.run.path}: at most {epochs or 'no epoch'}{limit}.")
    share = learning.options.blend
    begun_with = _first_weights(learning) if share < 1 else []
    while progress.stage < len(stages):
        stage = stages[progress.stage]
        try:
            if not progress.stage_done:
                fit_stage(learning, stage)
        except KeyboardInterrupt:
            saved = f"Saved. Resume with: python ModelTraining.py --resume {learning.run.path}"
            nothing = f"Nothing was learnt yet; delete {learning.run.path} or resume it."
            say(saved if learning.run.checkpoint.is_file() else nothing)
            raise
        except Exception as error:
            # Backends have no common error for it; everything else passes on.
            if learning.hosts.count > 1 or not is_out_of_memory(error):
                raise
            _halve_batch(learning, stage, error)
            continue
        progress.stage += 1
        progress.stage_done, progress.position = False, 0.0
    if progress.best_epoch:
        graph_of(learning.model).load_weights(learning.run.best_weights)
    if begun_with:
        learning.model.set_weights(blend(begun_with, learning.model.get_weights(), share=share))
        say(f"The weights kept are {share:g} of the learnt ones and {1 - share:g} of the first.")


def _first_weights(learning: Learning) -> list[np.ndarray]:
    """The weights that the run began with: a resumed run's network has random ones.

    Raises:
        InputError: The run is resumed, and they were not kept.
    """
    model, run = learning.model, learning.run
    if run.first_weights.is_file():
        graph_of(model).load_weights(run.first_weights)
    elif run.checkpoint.is_file():
        raise InputError(
            f"Expected the weights that the run began with in {run.first_weights}, found none, "
            "so that they cannot be blended. Start the run again."
        )
    elif learning.hosts.is_first:
        with atomic_write(run.first_weights) as staging:
            graph_of(model).save_weights(staging)
    return model.get_weights()


def blend(
    first: Sequence[np.ndarray], learnt: Sequence[np.ndarray], *, share: float
) -> list[np.ndarray]:
    """The weights between two ends of a run (Wortsman et al. 2022, "Robust fine-tuning").

    A run that learns on from another forgets sources that it does not see again; between the two,
    a network knows both, where a line of weights joins them.

    Args:
        share: Of the learnt weights, 0 to 1; whole numbers (seeds) are those learnt.
    """
    return [
        ((1 - share) * a + share * b).astype(b.dtype) if b.dtype.kind == "f" else b
        for a, b in zip(first, learnt, strict=True)
    ]


def _halve_batch(learning: Learning, stage: Stage, error: Exception) -> None:
    progress = learning.progress
    begun = progress.stage_rows(stage.name) or progress.step
    half = progress.batch_size // 2
    if begun or half < 1:
        raise MemoryError(
            f"Out of memory in batches of {progress.batch_size}. Resume with --resume "
            f"{learning.run.path} when memory is free, or start again with --batch-size "
            f"{max(1, half)}."
        ) from error
    learning.say(f"Out of memory in batches of {progress.batch_size}: continuing with {half}.")
    progress.batch_size = half


@contextmanager
def catch_interruption() -> Iterator[threading.Event]:
    """An event that Ctrl-C (or a scheduler's SIGTERM) sets; a second Ctrl-C breaks off at once."""
    interrupted = threading.Event()

    def note(signal_number: int, frame: Any) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()
        os.write(2, b"\nStopping after this step (press Ctrl-C again to break off) ...\n")

    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may set handlers; elsewhere interruption works as usual.
        yield interrupted
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
