"""Save a trained model, fit its out-of-distribution check, and write the run's report."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import keras

from real_vs_ai.dataset.decoded_images import DecodedImages
from real_vs_ai.evaluation.report import write_report
from real_vs_ai.evaluation.scorer import open_network, predict_in_batches
from real_vs_ai.keras_models import save_model, to_float32
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.out_of_distribution.check import OutOfDistributionCheck, write_check
from real_vs_ai.out_of_distribution.learning import learn_check
from real_vs_ai.out_of_distribution.sizes import summarise_training_images
from real_vs_ai.out_of_distribution.thumbnails import copy_classifiers, fit_on_thumbnails
from real_vs_ai.reporting import format_table, plural
from real_vs_ai.runs import RunFolder, find_model
from real_vs_ai.training.options import TrainingOptions
from real_vs_ai.training.run_config import describe_data, package_versions
from real_vs_ai.training.trainer import Trained

# A covariance of more features would weigh more than the network.
_WIDEST = 1280


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
        done = "Nothing trained, the weights are those given"
        if self.epochs:
            epochs = plural(self.epochs, "epoch")
            done = f"{epochs} trained, the weights of epoch {self.best_epoch} kept"
        return f"{table}\n{done}. Model and report: {self.run.path}"


def finish(trained: Trained, *, say: Callable[[str], None]) -> TrainingResult:
    """Save the model, write the report, and clear the checkpoints away."""
    options, run, splits = trained.options, trained.run, trained.splits
    progress = trained.progress
    if not trained.writes:
        return TrainingResult(run, progress.epoch, progress.best_epoch, {})
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
    # In place of a copy of the network: frozen layers count as trainable again in the saved file.
    trained.model.trainable = True
    model = to_float32(trained.model)
    save_model(model, run.model, metadata=metadata)
    say("Training has ended; evaluating the model ...")
    layer = features_layer(model).name
    network, n_classes = open_network(model, run.model, layer=layer), model.output_shape[-1]
    check = learn_check(
        lambda inputs: predict_in_batches(network, inputs)[:, n_classes:],
        splits,
        layer=layer,
        portraits=options.portraits,
        hold_out=options.hold_out,
    )
    if options.thumbnails or options.thumbnails_from:
        check, said = _teach_thumbnails(options, check, splits, metadata)
        say(said)
    write_check(run.model, check)
    metrics = write_report(
        run,
        model=model,
        metadata=metadata,
        images={split: decoded.images for split, decoded in splits.items()},
        left_out={split: decoded.failures for split, decoded in splits.items()},
        history_csv=run.history,
        workers=options.workers,
        target_error=options.target_error,
        source_risk=options.source_risk,
    )
    _clear_checkpoints(run.checkpoints)
    return TrainingResult(run, progress.epoch, progress.best_epoch, metrics)


def features_layer(model: keras.Model) -> keras.layers.Layer:
    """The last layer before the softmax that gives one vector, of a size to store a covariance of.

    Dropout and noise are passed over: they do nothing to an image that is judged.
    """
    idle = (keras.layers.Dropout, keras.layers.GaussianNoise)
    candidates = [x for x in model.layers[-2::-1] if not isinstance(x, idle)]
    small = (x for x in candidates if len(x.output.shape) == 2 and x.output.shape[1] <= _WIDEST)
    return next(small, candidates[0])


def _teach_thumbnails(
    options: TrainingOptions,
    check: OutOfDistributionCheck,
    splits: dict[str, DecodedImages],
    metadata: ModelMetadata,
) -> tuple[OutOfDistributionCheck, str]:
    """The check with what recognises thumbnails of other pictures, and a table of what it does."""
    if options.thumbnails_from:
        source = find_model(options.thumbnails_from)
        return copy_classifiers(check, splits, metadata, source=source)
    folders = [Path(name) for name in options.thumbnails]
    return fit_on_thumbnails(check, splits, metadata, folders=folders, workers=options.workers)


def _clear_checkpoints(folder: Path) -> None:
    for pattern in ("*.npz", "*.weights.h5", ".*.npz", ".*.weights.h5"):
        for path in folder.glob(pattern):
            path.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()
