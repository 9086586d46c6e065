"""Train a model: options, images, network and device first, then the stages of `loop.py`.

`options.resume` continues a killed run from its last checkpoint. `run_folder.py` saves and reports.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

import keras
import numpy as np

from real_vs_ai.core.config import SPLITS, is_augmented_name
from real_vs_ai.core.errors import InputError
from real_vs_ai.core.reporting import format_table, plural
from real_vs_ai.dataset.decoded_images import DecodedImages, decode_images, store_features
from real_vs_ai.dataset.labelled_images import LabelledImages, list_labelled_images
from real_vs_ai.evaluation.judging import open_features
from real_vs_ai.models.keras_models import save_model
from real_vs_ai.models.model_file import ModelMetadata
from real_vs_ai.models.runs import RunFolder
from real_vs_ai.networks.head import POOL_LAYER, features_key, fix_standardisation, head_alone
from real_vs_ai.networks.model import build_model
from real_vs_ai.out_of_distribution.learning import MOST_IMAGES
from real_vs_ai.training.command_line import describe_recipe
from real_vs_ai.training.devices import Hosts, join_hosts, prepare_device
from real_vs_ai.training.loop import catch_interruption, image_weights, run_stages
from real_vs_ai.training.options import TrainingOptions, plan_stages
from real_vs_ai.training.run_folder import open_run
from real_vs_ai.training.run_state import Learning, Progress, TimeBudget, Trained, load_checkpoint

Say = Callable[[str], None]

# So many images of each held-out source give its false-alarm rate within about 5 points.
_HELD_OUT_IMAGES = 200


def train(options: TrainingOptions, *, say: Say) -> Trained:
    """Train a model in its run folder, or resume an interrupted run.

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
    say = say if hosts.is_first else lambda line: None
    if options.recipe and not options.resume:
        say(describe_recipe(options))
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
        run = open_run(options, splits=splits, device=device.description, hosts=hosts)
        progress = load_checkpoint(run.checkpoint) or Progress(batch_size)
        _say_plan(options, splits["train"].images, run=run, say=say)
        if budget:
            budget.spent_before, budget.evaluation_slowdown = progress.seconds, device.gain
            budget.evaluation_images = count_evaluation_images(splits)
        learner, seen, splits = _learner(
            options, model, splits, progress=progress, budget=budget, say=say
        )
        with catch_interruption() as interrupted:
            learning = Learning(
                options=options,
                run=run,
                device=device,
                hosts=hosts,
                model=learner,
                train=seen["train"],
                validation=seen["validation"],
                progress=progress,
                interrupted=interrupted,
                say=say,
                budget=budget,
            )
            run_stages(learning)
        hosts.leave()
    return Trained(options, run, model, splits, progress, writes=hosts.is_first)


def _learner(
    options: TrainingOptions,
    model: keras.Model,
    splits: dict[str, DecodedImages],
    *,
    progress: Progress,
    budget: TimeBudget | None,
    say: Say,
) -> tuple[keras.Model, dict[str, DecodedImages], dict[str, DecodedImages]]:
    """What learns, what it learns from, and the splits of the report.

    With stored features the head learns alone, and sources that are held out leave the splits.

    Raises:
        InputError: The head cannot learn from stored features.
    """
    if not options.stored_features:
        return model, splits, splits
    head, seen = head_alone(model), splits
    # A run that was killed in its report has nothing left to learn.
    unfinished = progress.stage < len(plan_stages(options))
    if unfinished:
        seen = _features(model, splits, budget=budget, say=say)
    if options.hold_out:
        others = splits["train"].images.positions(options.hold_out)[1]
        seen, splits = ({**held, "train": held["train"].take(others)} for held in (seen, splits))
    if unfinished:
        fix_standardisation(head, seen["train"].inputs)
    return head, seen, splits


def _features(
    model: keras.Model, splits: Mapping[str, DecodedImages], *, budget: TimeBudget | None, say: Say
) -> dict[str, DecodedImages]:
    """The splits to learn from, with the backbone's features in place of their pixels."""
    width = model.get_layer(POOL_LAYER).output.shape[-1]
    metadata = ModelMetadata(
        class_names=splits["train"].images.class_names,
        image_size=model.input_shape[1],
        backbone=model.name,
    )
    with tempfile.TemporaryDirectory(prefix="real-vs-ai-") as folder:
        path = Path(folder) / "model.h5"
        save_model(model, path, metadata=metadata)
        pooled = open_features(model, path, layer=POOL_LAYER)
    count, started = 0, time.perf_counter()

    def compute(inputs: np.ndarray) -> np.ndarray:
        nonlocal count
        count += len(inputs)
        return pooled(inputs)

    seen = store_features(splits, compute, width=width, key=features_key(model), say=say)
    if budget and count:
        budget.image_seconds = (time.perf_counter() - started) / count
    return seen


def _start_budget(options: TrainingOptions, hosts: Hosts) -> TimeBudget | None:
    """The clock of a run with --minutes, started; None without."""
    if options.minutes is None:
        return None
    if hosts.count > 1 or keras.backend.backend() != "tensorflow":
        raise InputError(
            "--minutes plans by the speed of one process on TensorFlow, found "
            f"{plural(hosts.count, 'process')} on {keras.backend.backend()}. "
            "Use --epochs, and steps_per_epoch in a recipe."
        )
    return TimeBudget(minutes=options.minutes)


def count_evaluation_images(splits: Mapping[str, DecodedImages]) -> int:
    """How often the network computes an image, or a crop of one, from training's end to its report.

    The check is fitted on some of the training and validation images, and the report judges every
    image but those of training.
    """
    learnt = (
        min(MOST_IMAGES, len(splits[name])) * splits[name].views for name in ("train", "validation")
    )
    judged = (decoded for split, decoded in splits.items() if split != "train")
    # A photograph's copy is judged too.
    return sum(learnt) + sum(
        len(decoded) * decoded.views * (1 + (decoded.views > 1)) for decoded in judged
    )


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
    if options.source_limit:
        listed["train"] = limit_sources(
            listed["train"], most=options.source_limit, seed=options.seed
        )
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


def limit_sources(images: LabelledImages, *, most: int, seed: int) -> LabelledImages:
    """At most so many images of each class of a source, in the old order.

    A hash of seed and path draws them, so that other sources change nothing.
    """

    def place(position: int) -> bytes:
        text = f"{seed}\0{images.paths[position]}"
        return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()

    members = defaultdict(list)
    for position, key in enumerate(zip(images.labels.tolist(), images.sources, strict=True)):
        members[key].append(position)
    drawn = (sorted(positions, key=place)[:most] for positions in members.values())
    return images.take(np.array(sorted(itertools.chain(*drawn)), dtype=np.int64))


def _hold_out(train: LabelledImages, options: TrainingOptions) -> dict[str, LabelledImages]:
    """The splits of a run that validates on some sources of the training images, and on no other.

    With stored features the training images stay all, so that every such run takes their views
    and features from the cache; the head then learns from the others only.
    """
    held, others = train.positions(options.hold_out)
    # Copies are there to learn from: a user does not upload them.
    held = held[[not is_augmented_name(train.paths[i]) for i in held]]
    return {
        "train": train if options.stored_features else train.take(others),
        "validation": limit_sources(train.take(held), most=_HELD_OUT_IMAGES, seed=options.seed),
    }


def _check_readable(split: str, decoded: DecodedImages, *, say: Say) -> None:
    if decoded.failures:
        path, reason = decoded.failures[0]
        say(
            f"Left out of {split}, as unreadable: {plural(len(decoded.failures), 'file')}, "
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
    # A resumed run takes its weights from the checkpoint, if it came that far; a head's checkpoint
    # has no backbone.
    has_checkpoint = options.resume and RunFolder(options.resume).checkpoint.is_file()
    has_checkpoint = has_checkpoint and not options.stored_features
    weights = "none" if has_checkpoint else options.weights
    return build_model(dataclasses.replace(options, weights=weights), class_names=class_names)


def _say_plan(options: TrainingOptions, train: LabelledImages, *, run: RunFolder, say: Say) -> None:
    stages = plan_stages(options)
    if options.weights == "none" and not options.frozen_epochs:
        say("Random weights: the whole network learns from the start, no frozen stage.")
    if options.balance != "classes":
        say("Every class counts the same, and in it a source by the root of its size.")
    elif image_weights(train, train, balance="classes") is not None:
        say("The classes are unbalanced: their losses are weighted.")
    text = " and ".join(f"{plural(stage.epochs, 'epoch')} {stage.name}" for stage in stages)
    limit = f"; it has {options.minutes:g} min in all" if options.minutes else ""
    say(f"{run.path}: at most {text or 'no epoch'}{limit}.")
