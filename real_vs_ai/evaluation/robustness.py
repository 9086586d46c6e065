"""Measure how a model's verdicts hold when images are perturbed.

robustness = measure_robustness(scorer, images, split="test", metadata=metadata, workers=2,
                                max_images=2000)
robustness["rows"][0]     # {"name": "unchanged", "accuracy": {"value": …}, "flips": 0, …}
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from joblib import Parallel, delayed

from real_vs_ai.config import SEED
from real_vs_ai.dataset.labelled_images import LabelledImages
from real_vs_ai.errors import InputError
from real_vs_ai.evaluation.metrics import compute_metrics
from real_vs_ai.evaluation.scorer import Network, predict_probabilities
from real_vs_ai.images import ImageError, open_image
from real_vs_ai.model_file import ModelMetadata, calibrate
from real_vs_ai.model_input import ModelInput
from real_vs_ai.perturbations import PERTURBATIONS, PERTURBATIONS_VERSION
from real_vs_ai.reporting import progress_bar
from real_vs_ai.verdict import decide

UNCHANGED = "unchanged"
# Of the metrics, those that a table of twenty changes has room for.
_KEPT = ("accuracy", "recall", "false_positive_rate", "roc_auc")
# Changed images that one worker sends back at a time.
_CHUNK_BYTES = 64 * 2**20


def measure_robustness(
    scorer: Network,
    images: LabelledImages,
    *,
    split: str,
    metadata: ModelMetadata,
    workers: int,
    max_images: int,
) -> dict[str, Any]:
    """Judge the same images as they are and after each of `PERTURBATIONS`.

    Args:
        scorer: Of the model.
        images: The files; unreadable ones are passed over.
        split: Their split, for the report.
        metadata: Of the model, with its calibration.
        workers: Processes that decode and change images.
        max_images: If there are more, so many are drawn, evenly over the classes.

    Returns:
        "split", "n", "perturbations" (see `describe_perturbations`), and "rows": for each change
        its name, metrics with intervals, "flips" (verdicts turned from one class to another) and
        "uncertain" (verdicts given up).
    """
    chosen = images.take(images.draw(max_images))
    labels, probabilities = _predict_all(scorer, chosen, metadata=metadata, workers=workers)
    if not len(labels):
        raise InputError(f"Expected images that can be read in {images.root}, found none.")
    names = [UNCHANGED, *(perturbation.name for perturbation in PERTURBATIONS)]
    before = None
    rows = []
    for index, name in enumerate(names):
        calibrated = calibrate(probabilities[:, index], temperature=metadata.temperature)
        decided = decide(calibrated, metadata)
        before = decided if before is None else before
        numbers = compute_metrics(labels, calibrated, class_names=metadata.class_names, seed=SEED)
        certain = (before >= 0) & (decided >= 0)
        rows.append(
            {
                "name": name,
                **{key: numbers[key] for key in _KEPT if key in numbers},
                "flips": int(np.sum(certain & (decided != before))),
                "uncertain": int(np.sum(decided < 0)),
            }
        )
    return {
        "split": split,
        "n": len(labels),
        "perturbations": describe_perturbations(),
        "rows": rows,
    }


def describe_perturbations() -> dict[str, Any]:
    """What a stored table must have been measured with to hold still."""
    return {"version": PERTURBATIONS_VERSION, "names": [p.name for p in PERTURBATIONS]}


def _predict_all(
    scorer: Network, images: LabelledImages, *, metadata: ModelMetadata, workers: int
) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,) and probabilities (n, 1 + changes, n_classes) of the readable images."""
    model_input = metadata.model_input
    size, views = model_input.size, model_input.views
    variants = 1 + len(PERTURBATIONS)
    chunk = max(1, _CHUNK_BYTES // (variants * views * size * size * 3))
    starts = range(0, len(images), chunk)
    parallel = Parallel(n_jobs=workers if len(images) > chunk else 1)
    root = str(images.root.resolve())
    # A few at a time: joblib's own generator does not wait for who takes from it, and would pile
    # up what the network has not come to yet.
    window = 2 * max(1, workers)
    windows = (starts[first : first + window] for first in range(0, len(starts), window))
    results = itertools.chain.from_iterable(
        parallel(
            delayed(_change_chunk)(root, images.paths[s : s + chunk], model_input) for s in some
        )
        for some in windows
    )
    labels, outputs = [], []
    with progress_bar(description="Changing and scoring", unit="image", total=len(images)) as bar:
        for start, (positions, pixels) in zip(starts, results, strict=True):
            bar.update(min(chunk, len(images) - start))
            if not len(positions):
                continue
            flat = pixels.reshape(-1, size, size, 3)
            probabilities = predict_probabilities(scorer, flat, description=None)
            of_images = model_input.aggregate(
                probabilities.reshape(len(positions) * variants, views, -1)
            )
            outputs.append(of_images.reshape(len(positions), variants, -1))
            labels.extend(images.labels[start + position] for position in positions)
    n_classes = len(metadata.class_names)
    empty = np.empty((0, variants, n_classes))
    return np.array(labels, dtype=np.int64), np.concatenate(outputs) if outputs else empty


def _change_chunk(
    root: str, paths: Sequence[str], model_input: ModelInput
) -> tuple[list[int], np.ndarray]:
    """Positions of the readable files, and (n, 1 + changes, views, size, size, 3), in a worker."""
    positions, changed = [], []
    for position, path in enumerate(paths):
        try:
            pixels = open_image(Path(root) / path)
        except (ImageError, OSError):
            # Named by the report's own decoding already.
            continue
        # By the name alone, so that noise is the same in any order and number of workers.
        seed = zlib.crc32(path.encode("utf-8", "surrogateescape"))
        variants = [pixels, *(p.apply(pixels, seed=seed) for p in PERTURBATIONS)]
        changed.append(np.stack([model_input.prepare(variant) for variant in variants]))
        positions.append(position)
    size = model_input.size
    shape = (0, 1 + len(PERTURBATIONS), model_input.views, size, size, 3)
    return positions, np.stack(changed) if changed else np.empty(shape, dtype=np.uint8)
