"""Run each stage: compile, fit, keep the best weights, save checkpoints.

StageRunner(options=options, run=run, …).run_all()
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from real_vs_ai.dataset.decoded_images import DecodedImages
from real_vs_ai.dataset.labelled_images import LabelledImages
from real_vs_ai.evaluation.report_figures import draw_history_file
from real_vs_ai.keras_models import graph_of
from real_vs_ai.reporting import plural
from real_vs_ai.runs import RunFolder
from real_vs_ai.training import callbacks as cb
from real_vs_ai.training.checkpoints import (
    Progress,
    checkpoint_path,
    load_checkpoint,
    restore_metrics,
    restore_variables,
)
from real_vs_ai.training.compilation import epoch_metrics, fuse_batch_norm, make_optimizer
from real_vs_ai.training.datasets import Shard, evaluation_batches, training_batches
from real_vs_ai.training.devices import Device, Hosts, is_out_of_memory
from real_vs_ai.training.model import set_trainable
from real_vs_ai.training.options import TrainingOptions
from real_vs_ai.training.run_config import note_plan
from real_vs_ai.training.stages import Stage, format_duration, plan_stages
from real_vs_ai.training.time_budget import KeepPace, Pace, StageWork, TimeBudget

# Classes are weighted when the largest has this many times the images of the smallest.
_UNBALANCED = 1.1
# Shorter epochs are over before anyone looks at their curves.
_SECONDS_WORTH_A_FIGURE = 20


@dataclass
class StageRunner:
    """Runs the stages of a run from where it stands.

    Attributes:
        splits: The images; "train" and "validation" are used.
        model: Built under the device's scope; learns in place.
        progress: How far the run has come; kept up to date.
        say: Takes one line at a time for the user.
    """

    options: TrainingOptions
    run: RunFolder
    device: Device
    splits: Mapping[str, DecodedImages]
    model: keras.Model
    progress: Progress
    hosts: Hosts
    say: Callable[[str], None]
    budget: TimeBudget | None = None

    def __post_init__(self) -> None:
        self.run.checkpoints.mkdir(exist_ok=True)
        self.shard = Shard(self.hosts.index, self.hosts.count)
        self.checkpoint = checkpoint_path(self.run)
        self.best_weights = self.run.checkpoints / "best.weights.h5"
        self.weights = self._weights()

    def _weights(self) -> dict[str, np.ndarray | None]:
        """How much each image counts, so that both losses are of one kind."""
        images = {split: self.splits[split].images for split in ("train", "validation")}
        if self.options.balance == "sources":
            self.say("Every class counts the same, and in it a source by the root of its size.")
            return {split: source_weights(listed) for split, listed in images.items()}
        by_class = class_weights(images["train"].counts)
        if by_class is None:
            return dict.fromkeys(images)
        self.say("The classes are unbalanced: their losses are weighted.")
        table = np.array([by_class[i] for i in range(len(by_class))])
        return {split: table[listed.labels] for split, listed in images.items()}

    def run_all(self) -> None:
        """Run every stage that is not done; the model ends with the best weights of the run."""
        stages = plan_stages(self.options)
        with cb.catch_interruption() as interrupted:
            while self.progress.stage < len(stages):
                stage = self._place(stages[self.progress.stage])
                try:
                    if not self.progress.stage_done:
                        self._run_stage(stage, interrupted)
                except KeyboardInterrupt:
                    self._say_interrupted()
                    raise
                except Exception as error:
                    # Backends have no common error for it; everything else passes on.
                    if self.hosts.count > 1 or not is_out_of_memory(error):
                        raise
                    self._halve_batch(stage, error)
                    continue
                self.progress.stage += 1
                self.progress.stage_done = False
                self.progress.position = 0.0
        if self.progress.best_epoch:
            graph_of(self.model).load_weights(self.best_weights)

    def _place(self, stage: Stage) -> Stage:
        """The stage from where it really begins: the one before may have stopped early."""
        rows = self.progress.stage_rows(stage.name)
        return replace(stage, first_epoch=rows[0]["epoch"] - 1 if rows else self.progress.epoch)

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch; images that fill no whole batch wait for the next order."""
        whole_batches = len(self.splits["train"]) // self.progress.batch_size
        return self.options.steps_per_epoch or whole_batches

    def _run_stage(self, stage: Stage, interrupted: threading.Event) -> None:
        resumed = self._compile(stage)
        self.pace = self._make_pace(stage)
        stop = cb.StopTrainingOnValidationLoss(
            path=self.best_weights,
            patience=self.options.patience,
            keep=self.options.keep,
            writes=self.hosts.is_first,
            best_loss=self.progress.best_loss,
            best_epoch=self.progress.best_epoch,
        )
        early = keras.callbacks.EarlyStopping(
            monitor="val_loss", mode="min", patience=self.options.early_stopping
        )
        callbacks = self._callbacks(stage, stop, early, interrupted, resumed=resumed)
        callbacks.on_train_begin()
        for row in self.progress.stage_rows(stage.name):
            stop.count(row)
            early.on_epoch_end(row["epoch"] - 1, row)
        if self.progress.step:
            self._fit(callbacks, self.progress.epoch + 1, self.steps_per_epoch - self.progress.step)
        if not self.model.stop_training and self.progress.epoch < stage.last_epoch:
            self._fit(callbacks, stage.last_epoch, self.steps_per_epoch)
        callbacks.finish()
        reason = self._reason(stop, early)
        self.say(f"Stage {stage.name} ended after epoch {self.progress.epoch}: {reason}.")

    def _fit(self, callbacks: cb.OneTraining, last_epoch: int, steps: int) -> None:
        progress = self.progress
        batches = training_batches(
            self.splits["train"],
            batch_size=progress.batch_size,
            steps_per_epoch=self.steps_per_epoch,
            first_step=progress.epoch * self.steps_per_epoch + progress.step,
            seed=self.options.seed,
            augmentation=self.options.augmentation,
            degrade=self.options.degrade,
            cutmix=self.options.cutmix,
            shard=self.shard,
            weights=self.weights["train"],
        )
        validation = evaluation_batches(
            self.splits["validation"],
            batch_size=max(32, progress.batch_size) // self.hosts.count,
            shard=self.shard,
            weights=self.weights["validation"],
        )
        self.model.fit(
            batches,
            validation_data=validation,
            initial_epoch=progress.epoch,
            epochs=last_epoch,
            steps_per_epoch=steps,
            callbacks=callbacks,
            shuffle=False,
            verbose=0,
        )

    def _compile(self, stage: Stage) -> bool:
        """Compile for a stage; True when its checkpoint was loaded."""
        model, options = self.model, self.options
        set_trainable(model, backbone=stage.train_backbone, batch_norm=stage.train_batch_norm)
        if self.device.fused_operations:
            fuse_batch_norm(model)
        with self.device.scope():
            metrics = epoch_metrics(self.splits["train"].images.class_names)
            self.position = keras.Variable(0.0, trainable=False) if self.budget else None
            optimizer = make_optimizer(
                learning_rate=stage.learning_rate,
                decay_steps=stage.epochs * self.steps_per_epoch,
                warmup_steps=options.warmup_steps,
                fused=self.device.fused_operations,
                position=self.position,
            )
            model.compile(
                optimizer=optimizer,
                loss=keras.losses.CategoricalCrossentropy(label_smoothing=options.label_smoothing),
                metrics=metrics,
                jit_compile=self.device.jit_compile,
            )
            model.optimizer.build(model.trainable_variables)
        # Keras keeps the loss apart from the metrics.
        self.metrics = [*(m for m in model.metrics if m.name == "loss"), *metrics]
        saved = load_checkpoint(self.checkpoint)
        if saved and saved.stage == self.progress.stage:
            restore_variables(self.checkpoint, model)
            return True
        if saved:
            # The random layers continue from where the stage before left them, killed or not.
            restore_variables(self.checkpoint, model, groups=("layers",))
        if self.progress.best_epoch:
            graph_of(model).load_weights(self.best_weights)
        return False

    def _callbacks(
        self,
        stage: Stage,
        stop: cb.StopTrainingOnValidationLoss,
        early: keras.callbacks.EarlyStopping,
        interrupted: threading.Event,
        *,
        resumed: bool,
    ) -> cb.OneTraining:
        recorder = cb.Recorder(
            progress=self.progress,
            stage_name=stage.name,
            stop=stop,
            history_path=self.run.history,
            checkpoint_path=self.checkpoint,
            checkpoint_steps=self.options.checkpoint_steps,
            steps_per_epoch=self.steps_per_epoch,
            last_epoch=stage.last_epoch,
            metrics=self.metrics,
            hosts=self.hosts,
            interrupted=interrupted,
            on_epoch=lambda progress: self._after_epoch(stage),
        )
        guard = cb.DivergenceGuard(
            advice=f"Resume from the last checkpoint with --resume {self.run.path} and a lower "
            f"learning rate (now {stage.learning_rate:g}), or start again with "
            "--precision f32."
        )
        bar = cb.ProgressBar(
            batch_size=self.progress.batch_size,
            steps_per_epoch=self.steps_per_epoch,
            first_step=self.progress.step,
            title=stage.name.capitalize(),
        )
        members: list[Any] = [guard, bar, stop, early]
        if self.pace:
            members.append(
                KeepPace(
                    self.pace,
                    position=self.position,
                    progress=self.progress,
                    say=self.say,
                    on_plan=lambda pace: note_plan(self.run, stage.name, pace),
                )
            )
        if self.options.tensorboard and self.hosts.is_first:
            members.append(keras.callbacks.TensorBoard(self.run.path / "tensorboard"))
        if resumed and self.progress.step:
            members.append(cb.AtNextEpoch(lambda: restore_metrics(self.checkpoint, self.metrics)))
        return cb.OneTraining([*members, recorder], add_history=True, model=self.model)

    def _after_epoch(self, stage: Stage) -> None:
        progress = self.progress
        row = progress.history[-1]
        left = (stage.last_epoch - progress.epoch) * row["seconds"]
        if self.pace:
            left = self.pace.seconds_left
        self.say(
            f"epoch {progress.epoch}/{stage.last_epoch} {stage.name}: "
            f"loss {row['loss']:.4f}, accuracy {row['accuracy']:.4f}; "
            f"validation loss {row['val_loss']:.4f}, accuracy {row['val_accuracy']:.4f}; "
            f"{row['images_per_second']:.0f} images/s, {format_duration(row['seconds'])}"
            + (f", at most {format_duration(left)} left" if left else "")
        )
        if row["seconds"] >= _SECONDS_WORTH_A_FIGURE and self.hosts.is_first:
            columns = {name: [r[name] for r in progress.history] for name in progress.history[0]}
            path = self.run.figures / "history.png"
            draw_history_file(columns, keep=self.options.keep, path=path)

    def _reason(
        self, stop: cb.StopTrainingOnValidationLoss, early: keras.callbacks.EarlyStopping
    ) -> str:
        kept = f"the weights of epoch {stop.best_epoch} are kept"
        if self.pace and self.pace.is_cut_short:
            return f"its time is used after {plural(self.pace.done, 'step')}; {kept}"
        if stop.stopped:
            return f"the validation loss exceeds the training loss; {kept}"
        if early.stopped_epoch:
            return f"no lower validation loss in {plural(early.patience, 'epoch')}; {kept}"
        return f"all its epochs are done; {kept}"

    def _make_pace(self, stage: Stage) -> Pace | None:
        """The pace of a stage in a run with --minutes; None without."""
        if self.budget is None:
            return None
        progress, later = self.progress, plan_stages(self.options)[self.progress.stage + 1 :]
        steps = self.steps_per_epoch
        work = StageWork(
            steps=stage.epochs * steps,
            steps_per_epoch=steps,
            batch_size=progress.batch_size,
            validation_images=len(self.splits["validation"]),
            step_share=stage.step_share,
            later_steps=sum(other.epochs * steps * other.step_share for other in later),
            evaluation_slowdown=self.device.gain,
        )
        done = (progress.epoch - stage.first_epoch) * steps + progress.step
        return Pace(self.budget, work, done=done, position=progress.position)

    def _halve_batch(self, stage: Stage, error: Exception) -> None:
        progress = self.progress
        begun = progress.epoch > stage.first_epoch or progress.step
        half = progress.batch_size // 2
        if begun or half < 1:
            raise MemoryError(
                f"Out of memory in batches of {progress.batch_size}. Resume with --resume "
                f"{self.run.path} when memory is free, or start again with --batch-size "
                f"{max(1, half)}."
            ) from error
        self.say(f"Out of memory in batches of {progress.batch_size}: continuing with {half}.")
        progress.batch_size = half

    def _say_interrupted(self) -> None:
        if self.checkpoint.is_file():
            self.say(f"Saved. Resume with: python ModelTraining.py --resume {self.run.path}")
        else:
            self.say(f"Nothing was learnt yet; delete {self.run.path} or resume it.")


def class_weights(counts: Mapping[str, int]) -> dict[int, float] | None:
    """Weights that let every class count the same, or None when they are balanced already."""
    numbers = list(counts.values())
    if max(numbers) <= _UNBALANCED * min(numbers):
        return None
    return {i: sum(numbers) / (len(numbers) * number) for i, number in enumerate(numbers)}


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
