"""Measure how a model's verdicts hold when images are perturbed."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from joblib import Parallel, delayed

from real_vs_ai.config import SEED, UNCERTAIN
from real_vs_ai.dataset.labelled_images import LabelledImages, manifest_column
from real_vs_ai.errors import InputError
from real_vs_ai.evaluation.calibration import share_interval
from real_vs_ai.evaluation.metrics import (
    Table,
    accuracy_difference,
    compute_metrics,
    interval_text,
    percent_text,
)
from real_vs_ai.evaluation.scorer import Network, judge_mirrored, predict_probabilities
from real_vs_ai.images import ImageError, decode_image, open_image
from real_vs_ai.model_file import ModelMetadata, calibrate
from real_vs_ai.model_input import ModelInput
from real_vs_ai.perturbations import HARD, PERTURBATIONS, PERTURBATIONS_VERSION, WEB
from real_vs_ai.reporting import progress
from real_vs_ai.verdict import decide

if TYPE_CHECKING:
    from real_vs_ai.serving.detector import Detector

UNCHANGED = "unchanged"
# A table of twenty changes has room for these metrics.
_KEPT = ("accuracy", "recall", "false_positive_rate", "roc_auc")
# Changed images that one worker sends back at a time.
_CHUNK_BYTES = 64 * 2**20
# Images that are decoded, changed and judged together.
_TOGETHER = 16
_SUMMARY_TITLES = (
    "mean ROC AUC",
    "balanced accuracy, forced",
    "coverage",
    "certain and wrong",
    "worst real source: wrong among certain",
    "worst generator: ROC AUC",
)
# What each image is judged as: untouched, as sites and messengers send it on, and worse.
VERSIONS = {"clean": None, "web": WEB, "hard": HARD}


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
        images: The files; unreadable ones are passed over.
        max_images: If there are more, so many are drawn, evenly over the classes.

    Returns:
        "split", "n", "perturbations" (see `describe_perturbations`), and "rows": for each change
        its name, metrics with intervals, "difference" (of its accuracy from the unchanged images',
        with a paired interval), "flips" (verdicts turned from one class to another) and
        "uncertain" (verdicts given up).
    """
    chosen = images.take(images.draw(max_images))
    labels, probabilities = _predict_all(scorer, chosen, metadata=metadata, workers=workers)
    if not len(labels):
        raise InputError(f"Expected images that can be read in {images.root}, found none.")
    names = [UNCHANGED, *(perturbation.name for perturbation in PERTURBATIONS)]
    before = right_before = None
    rows = []
    for index, name in enumerate(names):
        calibrated = calibrate(probabilities[:, index], temperature=metadata.temperature)
        decided = decide(calibrated, metadata)
        right = calibrated.argmax(axis=1) == labels
        if before is None:
            before, right_before = decided, right
        numbers = compute_metrics(labels, calibrated, class_names=metadata.class_names, seed=SEED)
        certain = (before >= 0) & (decided >= 0)
        rows.append(
            {
                "name": name,
                **{key: numbers[key] for key in _KEPT if key in numbers},
                "difference": accuracy_difference(labels, right, right_before, seed=SEED),
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
    with progress(description="Changing and scoring", unit="image", total=len(images)) as bar:
        for start, (positions, pixels) in zip(starts, results, strict=True):
            bar.update(min(chunk, len(images) - start))
            if not len(positions):
                continue
            flat = pixels.reshape(-1, size, size, 3)
            probabilities = predict_probabilities(scorer, flat, description=None)
            of_views = probabilities.reshape(len(positions) * variants, views, -1)
            of_views = judge_mirrored(scorer, of_views, flat, model_input=model_input)
            of_images = model_input.aggregate(of_views)
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


def measure_collections(
    judge: Detector, images: LabelledImages, *, split: str, workers: int
) -> dict[str, Any]:
    """Judge images as the app does, clean and after the web, by collection and by generator.

    Args:
        judge: Of a model that tells Fake from Real.
        images: The files; unreadable ones are passed over.

    Returns:
        "split", "n", and "versions": for each of `VERSIONS` "overall" (see `_sum_up`) and the rows
        "collections" and "generators" (of fakes): "name", "class", "n", the shares of verdicts
        "fake", "real" and "uncertain" with exact intervals, and "auc", the mean over the other
        class's collections.
    """
    readable, scores, decided = [], [], []
    with progress(description=f"Judging {split}", unit="image", total=len(images)) as bar:
        for start in range(0, len(images), _TOGETHER):
            paths = images.paths[start : start + _TOGETHER]
            for position, row in _judge_some(judge, images.root, paths, workers=workers):
                readable.append(start + position)
                scores.append([score for score, _ in row])
                decided.append([verdict for _, verdict in row])
            bar.update(len(paths))
    if not readable:
        raise InputError(f"Expected images that can be read in {images.root}, found none.")
    known = images.take(readable)
    made_by = manifest_column(images.root, "generator")
    generators = np.array([made_by.get(path, "") for path in known.paths], dtype=object)
    is_fake = known.labels == judge.metadata.positive_index
    sources = np.array([source or "unknown" for source in known.sources], dtype=object)
    return {
        "split": split,
        "n": len(known),
        "versions": {
            name: _describe_version(column, verdicts, is_fake, sources, generators)
            for name, column, verdicts in zip(
                VERSIONS, np.array(scores).T, np.array(decided).T, strict=True
            )
        },
    }


def _judge_some(
    judge: Detector, root: Path, paths: Sequence[str], *, workers: int
) -> Iterator[tuple[int, list[tuple[float, int]]]]:
    """Position of each readable image; score and verdict (1 Fake, 0 Real, -1) of each version."""

    def prepare(path: str) -> list | None:
        try:
            image = decode_image(root / path)
        except (ImageError, OSError):
            return None
        pixels = image.pixels
        changes = VERSIONS.values()
        return [judge.prepare(c.apply(pixels, seed=SEED) if c else image) for c in changes]

    with ThreadPoolExecutor(workers) as threads:
        prepared = list(threads.map(prepare, paths))
    flat = [version for versions in prepared if versions for version in versions]
    verdicts = iter(judge.judge(flat, in_batches=True) if flat else ())
    positive = judge.metadata.positive_index
    for position, versions in enumerate(prepared):
        row = []
        for version in versions or ():
            verdict = next(verdicts)
            score = verdict.probability_fake
            if score is None:
                # Out-of-distribution: no verdict, but the ranking counts every image.
                score = judge.judge_pixels(version.pixels[None], in_batches=True)[0][0, positive]
            named = judge.metadata.class_names[positive]
            certain = -1 if verdict.label == UNCERTAIN else int(verdict.label == named)
            row.append((float(score), certain))
        if row:
            yield position, row


def _describe_version(
    scores: np.ndarray,
    decided: np.ndarray,
    is_fake: np.ndarray,
    sources: np.ndarray,
    generators: np.ndarray,
) -> dict[str, Any]:
    def rows(groups: np.ndarray, chosen: np.ndarray) -> list[dict[str, Any]]:
        found = []
        for fake in (False, True):
            for name in np.unique(groups[chosen & (is_fake == fake)].astype(str)):
                own = chosen & (is_fake == fake) & (groups == name)
                verdicts = decided[own]
                shares = {"fake": verdicts == 1, "real": verdicts == 0, "uncertain": verdicts < 0}
                found.append(
                    {
                        "name": str(name),
                        "class": "Fake" if fake else "Real",
                        "n": int(own.sum()),
                        **{key: share_interval(which) for key, which in shares.items()},
                        "wrong_of_certain": share_interval(verdicts[verdicts >= 0] != fake),
                        "auc": _mean_auc(scores, own, is_fake != fake, sources, higher=fake),
                    }
                )
        return found

    collections = rows(sources, np.ones(len(scores), dtype=bool))
    made_by = rows(generators, is_fake & (generators != ""))
    return {
        "overall": _sum_up(scores, decided, is_fake, collections, made_by),
        "collections": collections,
        "generators": made_by,
    }


def _mean_auc(
    scores: np.ndarray, own: np.ndarray, other: np.ndarray, sources: np.ndarray, *, higher: bool
) -> dict[str, float] | None:
    """Mean area under the ROC curve against each source of the other class; DeLong's interval."""
    if not other.any():
        return None
    sign = 1 if higher else -1
    ours, theirs = sign * scores[own][:, None], sign * scores[other]
    wins = (ours > theirs) + 0.5 * (ours == theirs)
    names, which, counts = np.unique(
        sources[other].astype(str), return_inverse=True, return_counts=True
    )
    weights = 1 / (len(names) * counts[which])
    of_each = wins @ weights
    variance = of_each.var() / len(of_each)
    for index in range(len(names)):
        beaten = wins[:, which == index].mean(axis=0)
        variance += beaten.var() / len(beaten) / len(names) ** 2
    value, reach = float(of_each.mean()), 1.96 * float(np.sqrt(variance))
    return {"value": value, "low": max(0.0, value - reach), "high": min(1.0, value + reach)}


def _sum_up(
    scores: np.ndarray,
    decided: np.ndarray,
    is_fake: np.ndarray,
    collections: Sequence[dict[str, Any]],
    generators: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """The numbers of a version that a release is judged by.

    Returns:
        "auc" (mean over collections), "balanced_accuracy" (no verdict left Uncertain), "coverage"
        and "certain_wrong" (shares of all images), "worst_real" (most false alarms among its
        certain verdicts) and "worst_generator" (lowest area), by name; None where there is none.
    """
    areas = [row["auc"]["value"] for row in collections if row["auc"]]
    right = (scores >= 0.5) == is_fake
    halves = [float(right[is_fake == fake].mean()) for fake in (False, True) if fake in is_fake]
    real = [row for row in collections if row["class"] == "Real" and row["wrong_of_certain"]]
    worst = max(real, key=lambda row: tuple(row["wrong_of_certain"].values()), default=None)
    made_by = [row for row in generators if row["auc"]]
    weakest = min(made_by, key=lambda row: row["auc"]["value"], default=None)
    return {
        "auc": float(np.mean(areas)) if areas else None,
        "balanced_accuracy": float(np.mean(halves)),
        "coverage": share_interval(decided >= 0),
        "certain_wrong": share_interval((decided >= 0) & (decided != is_fake)),
        "worst_real": worst and {"name": worst["name"], **worst["wrong_of_certain"]},
        "worst_generator": weakest and {"name": weakest["name"], **weakest["auc"]},
    }


def robustness_table(robustness: Mapping) -> Table:
    """Accuracy and verdicts after each change."""
    rows = [
        [row["name"], interval_text(row["accuracy"]), row["flips"], row["uncertain"]]
        for row in robustness["rows"]
    ]
    return ["change", "accuracy", "verdicts flipped", "Uncertain"], rows


def collections_table(part: Mapping) -> Table:
    """What a release is judged by, for each version of a split's images."""

    def name_of(entry: Mapping | None, shown: Callable[[Mapping], str]) -> str:
        return f"{entry['name']}: {shown(entry)}" if entry else "none"

    rows = []
    for name, version in part["versions"].items():
        found = version["overall"]
        rows.append(
            [
                name,
                "not defined" if found["auc"] is None else f"{found['auc']:.3f}",
                f"{found['balanced_accuracy']:.3f}",
                percent_text(found["coverage"]),
                percent_text(found["certain_wrong"]),
                name_of(found["worst_real"], percent_text),
                name_of(found["worst_generator"], lambda entry: f"{entry['value']:.3f}"),
            ]
        )
    return ["version", *_SUMMARY_TITLES], rows
