"""Open a run's folder, record what the run was made from, and save and report what it made.

`config.json` holds the record. The report follows the model file and its out-of-distribution check.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import platform
import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import metadata as package_metadata
from pathlib import Path
from typing import Any

import keras

from real_vs_ai import __version__
from real_vs_ai.core.config import MANIFEST_NAME
from real_vs_ai.core.errors import InputError
from real_vs_ai.core.files import read_json, write_json
from real_vs_ai.dataset.decoded_images import DecodedImages
from real_vs_ai.evaluation.judging import open_detector, open_features
from real_vs_ai.evaluation.report import evaluate_model
from real_vs_ai.evaluation.report_files import write_evaluation
from real_vs_ai.models.keras_models import save_model, to_float32
from real_vs_ai.models.model_file import ModelMetadata
from real_vs_ai.models.runs import RunFolder
from real_vs_ai.out_of_distribution.check import summarise_training_images, write_check
from real_vs_ai.out_of_distribution.learning import fit_on_thumbnails, learn_check
from real_vs_ai.training.devices import Hosts
from real_vs_ai.training.options import TrainingOptions
from real_vs_ai.training.run_state import Trained

_PACKAGES = ("keras", "tensorflow", "jax", "numpy", "pillow", "scikit-learn", "h5py")
# A covariance of more features would weigh more than the network.
_WIDEST = 1280


def open_run(
    options: TrainingOptions, *, splits: Mapping[str, DecodedImages], device: str, hosts: Hosts
) -> RunFolder:
    """Make the run's folder, or check that the run to resume was made from the same data."""
    record = describe_run(options, splits=splits, device=device)
    if options.resume:
        return _reopen(options, record, hosts)
    name = options.run_name or f"{datetime.now():%Y-%m-%d-%H%M%S}-{options.backbone}"
    if hosts.is_first:
        run = RunFolder(options.models_dir / name)
        run.path.mkdir(parents=True, exist_ok=True)
        # What a killed process left unfinished has hidden names.
        if any(path.is_file() and path.name[0] != "." for path in run.path.rglob("*")):
            raise FileExistsError(
                f"{run.path} already exists. Resume it with --resume {run.path}, "
                "or choose another --run-name."
            )
        run.checkpoints.mkdir(exist_ok=True)
        write_json(run.config, record)
    # The other processes wait here until the first one has made the folder.
    return RunFolder(options.models_dir / hosts.share(name))


def _reopen(options: TrainingOptions, record: dict[str, Any], hosts: Hosts) -> RunFolder:
    """The folder of the run to resume, with the options that have changed noted."""
    if options.resume is None:
        raise InputError("Expected a run to resume, found none.")
    run = RunFolder(options.resume)
    stored = read_json(run.config)
    if record["data"]["fingerprint"] != stored["data"]["fingerprint"]:
        raise InputError(
            f"The images in {options.data} have changed since {run.path} was started. "
            "Start a new run, or restore the images."
        )
    changed = note_changed_options(stored, options)
    if changed and hosts.is_first:
        write_json(run.config, changed)
    return run


def describe_run(
    options: TrainingOptions, *, splits: Mapping[str, DecodedImages], device: str
) -> dict[str, Any]:
    """Everything that is needed to repeat a run, as `config.json` holds it."""
    return {
        "options": options.stored(),
        "seed": options.seed,
        "command": list(options.command),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": device,
        "versions": package_versions(),
        "platform": platform.platform(),
        "git": git_state(Path(__file__).resolve().parent),
        "data": describe_data(options.data, splits),
    }


def note_changed_options(stored: dict[str, Any], options: TrainingOptions) -> dict[str, Any] | None:
    """What `config.json` must hold when other options resume a run; None with the same.

    Raises:
        InputError: The batch size differs: the steps of an epoch are counted by it.
    """
    now, before = json.loads(json.dumps(options.stored())), stored["options"]
    changed = {name: [before.get(name), now[name]] for name in now if now[name] != before.get(name)}
    if not changed:
        return None
    if "batch_size" in changed:
        raise InputError(
            f"Expected --batch-size {before.get('batch_size')} as the run began with, received "
            f"{now['batch_size']}. Leave it out, or start a new run."
        )
    entry = {
        "command": list(options.command),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "changed": changed,
    }
    return {**stored, "options": now, "resumed": [*stored.get("resumed", []), entry]}


def describe_data(folder: Path, splits: Mapping[str, DecodedImages]) -> dict[str, Any]:
    """Fingerprint, counts, sources and unreadable files of the data."""
    return {
        "folder": folder.as_posix(),
        "fingerprint": data_fingerprint(folder, splits),
        "counts": {split: images.images.counts for split, images in splits.items()},
        "sources": {split: sorted(set(images.images.sources)) for split, images in splits.items()},
        "unreadable": {
            split: [list(failure) for failure in images.failures]
            for split, images in splits.items()
            if images.failures
        },
    }


def data_fingerprint(folder: Path, splits: Mapping[str, DecodedImages]) -> str:
    """SHA-256 of the manifest, and of every image's name, class and pixels as they were decoded.

    The same images give the same fingerprint wherever and whenever they were unpacked.
    """
    digest = hashlib.sha256()
    manifest = folder / MANIFEST_NAME
    if manifest.is_file():
        digest.update(manifest.read_bytes())
    for split, images in splits.items():
        digest.update(f"{split} {images.images.class_names}\n".encode())
        for path, label in zip(images.images.paths, images.labels, strict=True):
            digest.update(f"{path}\0{label}\n".encode("utf-8", "surrogateescape"))
        for pixels in images.pixels:
            digest.update(pixels.tobytes())
    return digest.hexdigest()


def package_versions() -> dict[str, str]:
    """Versions of Python, of this project and of what it calculates with."""
    versions = {"real_vs_ai": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = package_metadata.version(name)
        except package_metadata.PackageNotFoundError:
            continue
    return versions


def git_state(folder: Path) -> dict[str, Any] | None:
    """The commit of the code, and whether it was changed since; None outside a repository."""
    describe = ("describe", "--always", "--exclude=*", "--abbrev=40", "--dirty")
    try:
        found = subprocess.check_output(
            ["git", "-C", str(folder), *describe], stderr=subprocess.DEVNULL, text=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError):
        return None
    commit, dirty, _ = found.strip().partition("-dirty")
    return {"commit": commit, "changed": bool(dirty)}


def finish(trained: Trained, *, say: Callable[[str], None]) -> Trained:
    """Save the model, write the report, and clear the checkpoints away; with the metrics."""
    options, run, splits = trained.options, trained.run, trained.splits
    if not trained.writes:
        return trained
    data, train = describe_data(options.data, splits), splits["train"]
    sizes = map(options.model_input.seen_size, train.widths.tolist(), train.heights.tolist())
    widths, heights = zip(*sizes, strict=True)
    metadata = ModelMetadata(
        class_names=train.images.class_names,
        image_size=options.image_size,
        input=options.model_input.stored(),
        backbone=options.backbone,
        training_data={key: data[key] for key in ("fingerprint", "counts", "sources")},
        versions=package_versions(),
        training_images=summarise_training_images(widths, heights, train.images.sources),
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
    check = learn_check(open_features(model, run.model, layer=layer), splits, layer=layer)
    if options.thumbnails:
        folders = [Path(name) for name in options.thumbnails]
        check, said = fit_on_thumbnails(
            check, splits, metadata, folders=folders, workers=options.workers
        )
        say(said)
    write_check(run.model, check)
    metrics = write_report(trained, model, metadata)
    _clear_checkpoints(run.checkpoints)
    return dataclasses.replace(trained, metrics=metrics)


def write_report(trained: Trained, model: keras.Model, metadata: ModelMetadata) -> dict[str, Any]:
    """Evaluate the run's model, store the results in it, and write the report; the metrics."""
    options, run, splits = trained.options, trained.run, trained.splits
    evaluation = evaluate_model(
        open_detector(run.model, metadata),
        {split: decoded.images for split, decoded in splits.items()},
        left_out={split: decoded.failures for split, decoded in splits.items()},
        target_error=options.source_risk or options.target_error,
        by_source=options.source_risk > 0,
        workers=options.workers,
    )
    write_evaluation(run, evaluation, model=model, store_in=run.model)
    return evaluation.metrics


def features_layer(model: keras.Model) -> keras.layers.Layer:
    """The last layer before the softmax that gives one vector, of a size to store a covariance of.

    Dropout and noise are passed over: they do nothing to an image that is judged.
    """
    idle = (keras.layers.Dropout, keras.layers.GaussianNoise)
    candidates = [x for x in model.layers[-2::-1] if not isinstance(x, idle)]
    small = (x for x in candidates if len(x.output.shape) == 2 and x.output.shape[1] <= _WIDEST)
    return next(small, candidates[0])


def _clear_checkpoints(folder: Path) -> None:
    for pattern in ("*.npz", "*.weights.h5", ".*.npz", ".*.weights.h5"):
        for path in folder.glob(pattern):
            path.unlink()
    with contextlib.suppress(OSError):
        folder.rmdir()
