"""Train a model, from top to bottom: images, network, run folder, loop.

`options.resume` continues a killed run from its last checkpoint. `run_folder.py` saves and reports.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras

from real_vs_ai.core.errors import InputError
from real_vs_ai.core.reporting import plural
from real_vs_ai.models.runs import RunFolder
from real_vs_ai.networks.model import build_model
from real_vs_ai.training.command_line import describe_recipe
from real_vs_ai.training.devices import Hosts, join_hosts, prepare_device
from real_vs_ai.training.images import load_splits
from real_vs_ai.training.loop import catch_interruption, run_stages
from real_vs_ai.training.options import TrainingOptions, plan_stages
from real_vs_ai.training.run_folder import open_run
from real_vs_ai.training.run_state import Learning, Progress, Trained, load_checkpoint
from real_vs_ai.training.stored_features import head_and_features


def train(options: TrainingOptions, *, say: Callable[[str], None]) -> Trained:
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
    _check_minutes(options, hosts)

    splits = load_splits(options, say=say)
    batch_size = min(options.batch_size, len(splits["train"]))
    with hosts.together():
        device = prepare_device(
            precision=options.precision,
            deterministic=options.deterministic,
            batch_size=batch_size,
            hosts=hosts,
        )
        say(device.description)
        options = dataclasses.replace(options, precision=device.precision)

        # A checkpoint holds all weights, but where a head learns alone.
        resumed = None if options.stored_features else options.resume
        has_weights = resumed and RunFolder(resumed).checkpoint.is_file()
        start = dataclasses.replace(options, weights="none") if has_weights else options
        # Before the folder is made, so that weights that are not there leave nothing behind.
        with device.scope():
            model = build_model(start, class_names=splits["train"].images.class_names)
        run = open_run(options, splits=splits, device=device.description, hosts=hosts)
        progress = load_checkpoint(run.checkpoint) or Progress(batch_size)

        learner, seen = model, splits
        if options.stored_features:
            is_learnt = progress.stage >= len(plan_stages(options))
            learner, seen, splits = head_and_features(
                model, splits, options.hold_out, is_learnt=is_learnt, say=say
            )
        with catch_interruption() as interrupted:
            learning = Learning(
                options,
                run,
                device,
                hosts,
                model=learner,
                images=seen,
                progress=progress,
                interrupted=interrupted,
                say=say,
            )
            run_stages(learning)
        hosts.leave()
    return Trained(options, run, model, splits, progress, writes=hosts.is_first)


def _check_minutes(options: TrainingOptions, hosts: Hosts) -> None:
    if options.minutes and (hosts.count > 1 or keras.backend.backend() != "tensorflow"):
        raise InputError(
            "--minutes goes by the clock of one process on TensorFlow, found "
            f"{plural(hosts.count, 'process')} on {keras.backend.backend()}. "
            "Use --epochs, and steps_per_epoch in a recipe."
        )
