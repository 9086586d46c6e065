"""Train a model and write its run folder.

`options.resume` continues a killed run from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras
import numpy as np

from real_vs_ai.config import SPLITS, is_augmented_name
from real_vs_ai.dataset.decoded_images import DecodedImages, decode_images
from real_vs_ai.dataset.labelled_images import LabelledImages, list_labelled_images
from real_vs_ai.errors import InputError
from real_vs_ai.evaluation.out_of_distribution import features_layer, learn_check
from real_vs_ai.evaluation.report import count_evaluation_images, write_report
from real_vs_ai.evaluation.scorer import open_scorer
from real_vs_ai.files import read_json, write_json
from real_vs_ai.keras_models import save_model, to_float32
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.out_of_distribution import summarise_training_images, write_check
from real_vs_ai.reporting import format_table, plural
from real_vs_ai.runs import RunFolder
from real_vs_ai.training.checkpoints import Progress, checkpoint_path, load_checkpoint
from real_vs_ai.training.devices import Device, Hosts, join_hosts, multiply_adds, prepare_device
from real_vs_ai.training.model import build_model
from real_vs_ai.training.networks.head import HeadOptions, head_and_features
from real_vs_ai.training.options import TrainingOptions
from real_vs_ai.training.recipes import describe_recipe
from real_vs_ai.training.run_config import (
    describe_data,
    describe_run,
    note_changed_options,
    package_versions,
)
from real_vs_ai.training.stage_runner import StageRunner
from real_vs_ai.training.stages import estimate_seconds, format_duration, plan_stages
from real_vs_ai.training.time_budget import TimeBudget

Say = Callable[[str], None]

# Of each held-out source: enough for its false-alarm rate within about 5 points.
_HELD_OUT_IMAGES = 200


@dataclass(frozen=True)
class TrainingResult:
    """A finished run.

    Attributes:
        best_epoch: The epoch whose weights were kept.
        metrics: Contents of `metrics.json`; {} in processes that write no report.
    """

    run: RunFolder
    epochs: int
    best_epoch: int
    metrics: dict[str, Any]

    def __str__(self) -> str:
        if not self.metrics:
            return f"This process is done; the first one writes the report: {self.run.path}"
        names = ("accuracy", "precision", "recall", "f1", "roc_auc")
        rows = []
        for split in ("validation", "test"):
            values = self.metrics.get(split, {})
            if values:
                shown = [(values.get(name) or {}).get("value") for name in names]
                rows.append([split, values.get("n", ""), *shown])
        table = format_table(["split", "images", *names], rows)
        return (
            f"{table}\n{plural(self.epochs, 'epoch')} trained, the weights of epoch "
            f"{self.best_epoch} kept. Model and report: {self.run.path}"
        )


def train(options: TrainingOptions, *, say: Say) -> TrainingResult:
    """Train a model and write its run folder, or resume an interrupted run.

    Args:
        say: Takes one line at a time for the user.

    Raises:
        FileNotFoundError: There is no data, or there are no weights.
        FileExistsError: The run's folder already exists.
        ValueError: The data or the options cannot be used, or the loss diverged.
        OSError: The disk is full, or the weights could not be downloaded.
        MemoryError: Even one image at a time does not fit.
        KeyboardInterrupt: The user asked to stop; a checkpoint has been saved.
    """
    hosts = join_hosts()
    # Only the first of several processes speaks.
    say = say if hosts.is_first else lambda line: None
    if options.recipe:
        say(describe_recipe(options.recipe, dataclasses.asdict(options)))
    budget = _start_budget(options, hosts)
    splits = load_splits(options, say=say)
    batch_size = min(options.batch_size, len(splits["train"]))
    with hosts.together():
        device = prepare_device(
            precision=options.precision,
            deterministic=options.deterministic,
            image_size=options.image_size * options.enlarge,
            batch_size=batch_size,
            hosts=hosts,
        )
        say(device.description)
        options = dataclasses.replace(options, precision=device.precision)
        # Before the folder is made, so that weights that are not there leave nothing behind.
        with device.scope():
            model = build_from_options(options, splits["train"].images.class_names)
        run = _open_run(options, splits=splits, device=device, hosts=hosts)
        _say_plan(options, splits=splits, device=device, model=model, run=run, say=say)
        progress = load_checkpoint(checkpoint_path(run)) or Progress(batch_size)
        learner, seen = _choose_learner(
            options, model, splits, progress=progress, budget=budget, say=say
        )
        if budget:
            budget.spent_before = progress.seconds
            budget.evaluation_images = count_evaluation_images(
                splits, portraits=bool(options.portraits)
            )
        StageRunner(
            options=options,
            run=run,
            device=device,
            splits=seen,
            model=learner,
            progress=progress,
            hosts=hosts,
            say=say,
            budget=budget,
        ).run_all()
        hosts.leave()
    if not hosts.is_first:
        return TrainingResult(run, progress.epoch, progress.best_epoch, {})
    return _finish(options, run=run, model=model, splits=splits, progress=progress, say=say)


def _choose_learner(
    options: TrainingOptions,
    model: keras.Model,
    splits: dict[str, DecodedImages],
    *,
    progress: Progress,
    budget: TimeBudget | None,
    say: Say,
) -> tuple[keras.Model, Mapping[str, DecodedImages]]:
    """What learns, and from what: the model from images, or the head alone from stored features.

    With stored features, the sources held out leave the training images here.
    """
    learner, seen = model, splits
    if not options.stored_features:
        return learner, seen
    # A run that was killed in its report has nothing left to learn.
    if progress.stage < len(plan_stages(options)):
        hold_out = options.hold_out
        learner, seen = head_and_features(model, splits, say=say, budget=budget, hold_out=hold_out)
    if options.hold_out:
        kept = splits["train"].images.positions(options.hold_out)[1]
        splits["train"] = splits["train"].take(kept)
    return learner, seen


def _start_budget(options: TrainingOptions, hosts: Hosts) -> TimeBudget | None:
    """The clock of a run with --minutes, started; None without."""
    if options.minutes is None:
        return None
    if hosts.count > 1 or keras.backend.backend() != "tensorflow":
        raise InputError(
            "--minutes plans by the speed of one process on TensorFlow, found "
            f"{plural(hosts.count, 'process')} on {keras.backend.backend()}. "
            "Use --epochs and --steps-per-epoch."
        )
    return TimeBudget(minutes=options.minutes)


def load_splits(options: TrainingOptions, *, say: Say) -> dict[str, DecodedImages]:
    """List and decode train, validation and (where there is one) test.

    Raises:
        FileNotFoundError: There is no train or validation folder.
        InputError: The splits have other classes, or no readable image of one.
    """
    splits, listed = {}, {}
    class_names = None
    for split in SPLITS:
        folder = options.data / split
        if split == "test" and not folder.is_dir():
            say(f"No {folder}: the report will be on validation images only.")
            continue
        listed[split] = list_labelled_images(folder, class_names=class_names)
        class_names = listed[split].class_names
    if options.hold_out:
        listed = _hold_out(listed["train"], options)
    for split, images in listed.items():
        splits[split] = decode_images(
            images,
            model_input=options.model_input,
            workers=options.workers,
            cache_dir=options.cache_dir,
            max_memory_bytes=int(options.memory * 2**30),
            views=options.view_options if split == "train" else None,
        )
        _check_readable(split, splits[split], say=say)
    rows = [[split, *images.images.counts.values()] for split, images in splits.items()]
    say(format_table(["images", *(class_names or ())], rows))
    return splits


def _hold_out(train: LabelledImages, options: TrainingOptions) -> dict[str, LabelledImages]:
    """The splits of a run that validates on some sources of the training images, and on no other.

    With --stored-features the training images stay all, so that every such run takes their views
    and features from the cache; the head then learns from the others only.
    """
    held, others = train.positions(options.hold_out)
    # Copies and reconstructions are there to learn from: a user does not upload them.
    held = held[[not is_augmented_name(train.paths[i]) for i in held]]
    of_source = [held[np.array(train.sources, object)[held] == name] for name in options.hold_out]
    generator = np.random.default_rng(options.seed)
    drawn = np.concatenate([generator.permutation(p)[:_HELD_OUT_IMAGES] for p in of_source])
    return {
        "train": train if options.stored_features else train.take(others),
        "validation": train.take(np.sort(drawn)),
    }


def _check_readable(split: str, decoded: DecodedImages, *, say: Say) -> None:
    if decoded.failures:
        path, reason = decoded.failures[0]
        say(
            f"{plural(len(decoded.failures), 'file')} of {split} cannot be read and is left out, "
            f"for example {path}: {reason}"
        )
    empty = [name for name, count in decoded.images.counts.items() if not count]
    if empty:
        raise InputError(
            f"Expected readable images of every class in {decoded.images.root}, "
            f"found none of {', '.join(empty)}."
        )


def build_from_options(options: TrainingOptions, class_names: tuple[str, ...]) -> keras.Model:
    """The network that the options ask for, with its weights."""
    # A resumed run takes its weights from the checkpoint, if it came that far.
    has_checkpoint = options.resume and checkpoint_path(RunFolder(options.resume)).is_file()
    return build_model(
        backbone=options.backbone,
        class_names=class_names,
        image_size=options.image_size,
        weights="none" if has_checkpoint else options.weights,
        head=HeadOptions(
            noise=options.noise,
            pooling=options.pooling,
            dense_units=options.dense_units,
            l2=options.l2,
            dropout=options.dropout,
        ),
        stem_stride=options.stem_stride,
        enlarge=options.enlarge,
        batch_norm_momentum=options.batch_norm_momentum,
        seed=options.seed,
    )


def _open_run(
    options: TrainingOptions, *, splits: Mapping[str, DecodedImages], device: Device, hosts: Hosts
) -> RunFolder:
    """Make the run's folder, or check that the run to resume was made from the same data."""
    if options.resume:
        run = RunFolder(options.resume)
        stored = read_json(run.config)
        if describe_data(options.data, splits)["fingerprint"] != stored["data"]["fingerprint"]:
            raise InputError(
                f"The images in {options.data} have changed since {run.path} was started. "
                "Start a new run, or restore the images."
            )
        changed = note_changed_options(stored, options)
        if changed and hosts.is_first:
            write_json(run.config, changed)
        return run
    name = options.run_name or f"{datetime.now():%Y-%m-%d-%H%M%S}-{options.backbone}"
    if not hosts.is_first:
        # Answers when the first process has made the folder.
        return RunFolder(options.models_dir / hosts.share(name))
    run = RunFolder(options.models_dir / name)
    run.path.mkdir(parents=True, exist_ok=True)
    if _has_begun(run):
        raise FileExistsError(
            f"{run.path} already exists. Resume it with --resume {run.path}, "
            "or choose another --run-name."
        )
    run.checkpoints.mkdir(exist_ok=True)
    write_json(run.config, describe_run(options, splits=splits, device=device.description))
    hosts.share(name)
    return run


def _has_begun(run: RunFolder) -> bool:
    """Whether a folder holds anything; what a killed process left unfinished has hidden names."""
    return any(path.is_file() and path.name[0] != "." for path in run.path.rglob("*"))


def _say_plan(
    options: TrainingOptions,
    *,
    splits: Mapping[str, DecodedImages],
    device: Device,
    model: keras.Model,
    run: RunFolder,
    say: Say,
) -> None:
    stages = plan_stages(options)
    if options.weights == "none" and not options.frozen_epochs:
        say("Random weights: the whole network learns from the start, no frozen stage.")
    images = len(splits["train"])
    if options.steps_per_epoch:
        images = options.steps_per_epoch * min(options.batch_size, images)
    text = " and ".join(f"{plural(stage.epochs, 'epoch')} {stage.name}" for stage in stages)
    seconds = estimate_seconds(
        stages,
        multiply_adds=multiply_adds(model),
        training_rate=device.multiply_adds_per_second,
        images_per_epoch=images,
        validation_images=len(splits["validation"]),
    )
    limit = f"; it has {options.minutes:g} min in all" if options.minutes else ""
    say(f"{run.path}: at most {text}, about {format_duration(seconds)}{limit}.")


def _finish(
    options: TrainingOptions,
    *,
    run: RunFolder,
    model: keras.Model,
    splits: Mapping[str, DecodedImages],
    progress: Progress,
    say: Say,
) -> TrainingResult:
    """Save the model, write the report, and clear the checkpoints away."""
    data, train = describe_data(options.data, splits), splits["train"]
    metadata = ModelMetadata(
        class_names=train.images.class_names,
        image_size=options.image_size,
        input=options.model_input.stored(),
        backbone=options.backbone,
        training_data={key: data[key] for key in ("fingerprint", "counts", "sources")},
        versions=package_versions(),
        training_images=summarise_training_images(
            *options.model_input.seen_sizes(train.widths, train.heights), train.images.sources
        ),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    # The report is on the file that will be used: float32, whatever the precision of training.
    keras.config.set_dtype_policy("float32")
    # What did not learn is made to look as all the rest, in place of a copy of the network.
    model.trainable = True
    model = to_float32(model)
    save_model(model, run.model, metadata=metadata)
    say("Training has ended; evaluating the model ...")
    layer = features_layer(model).name
    scorer = open_scorer(model, run.model, layer=layer)
    scorer.check = learn_check(
        scorer, splits, layer=layer, portraits=options.portraits, hold_out=options.hold_out
    )
    write_check(run.model, scorer.check)
    metrics = write_report(
        run, model=model, metadata=metadata, decoded=splits, history_csv=run.history, scorer=scorer
    )
    if not options.keep_checkpoints:
        _clear_checkpoints(run.checkpoints)
    return TrainingResult(run, progress.epoch, progress.best_epoch, metrics)


def _clear_checkpoints(folder: Path) -> None:
    for pattern in ("*.npz", "*.weights.h5", ".*.npz", ".*.weights.h5"):
        for path in folder.glob(pattern):
            path.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()
