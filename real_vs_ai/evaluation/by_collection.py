"""Count a model's verdicts by collection and generator, on clean images and after the web."""

from __future__ import annotations

from typing import Any

import numpy as np

from real_vs_ai.config import POSITIVE_CLASS, SEED
from real_vs_ai.dataset.labelled_images import manifest_column
from real_vs_ai.evaluation.judging import JudgedSplit, judge_changed
from real_vs_ai.evaluation.metrics import (
    RESAMPLES,
    Interval,
    bootstrap_weights,
    intervals_of,
    share_interval,
)
from real_vs_ai.model_file import calibrate
from real_vs_ai.perturbations import HARD, WEB
from real_vs_ai.predictions import Predictions
from real_vs_ai.serving.detector import Detector


def measure_collections(detector: Detector, judged: JudgedSplit, *, workers: int) -> dict[str, Any]:
    """Judge images clean and after the web, by collection and by generator.

    Args:
        detector: Of a model that tells Fake from Real.
        judged: The images, and the verdicts on them as they are.

    Returns:
        "split", "n", and "versions": for "clean", "web" (as sites and messengers send images on)
        and "hard" (worse) "overall" (see `_sum_up`) and the rows "collections" and "generators" (of
        fakes): "name", "class", "n", the shares of verdicts "fake", "real" and "uncertain" with
        exact intervals, and "auc", the mean over the other class's collections.
    """
    metadata, images = detector.metadata, judged.images
    clean = judged.rows(metadata)
    web, hard = judge_changed(detector, images, (WEB, HARD), split=judged.split, workers=workers)
    made_by = manifest_column(images.root, "generator")
    generators = np.array([made_by.get(path, "") for path in images.paths], dtype=object)
    return {
        "split": judged.split,
        "n": len(images),
        "versions": {
            name: _describe(rows, generators, temperature=metadata.temperature)
            for name, rows in {"clean": clean, "web": web, "hard": hard}.items()
        },
    }


def _describe(rows: Predictions, generators: np.ndarray, *, temperature: float) -> dict[str, Any]:
    index = rows.class_names.index(POSITIVE_CLASS)
    # The ranking counts every image, out-of-distribution ones too.
    scores = calibrate(rows.probabilities, temperature=temperature)[:, index]
    is_fake, decided = rows.labels == index, rows.decided
    sources = np.where(rows.sources == "", "unknown", rows.sources)

    def describe(name: str, own: np.ndarray, *, fake: bool) -> dict[str, Any]:
        verdicts = decided[own]
        certain = verdicts >= 0
        shares = {"fake": verdicts == index, "real": certain & (verdicts != index)}
        shares |= {"uncertain": ~certain}
        return {
            "name": str(name),
            "class": POSITIVE_CLASS if fake else rows.class_names[1 - index],
            "n": int(own.sum()),
            **{key: share_interval(which) for key, which in shares.items()},
            "wrong_of_certain": share_interval((verdicts != rows.labels[own])[certain]),
            "auc": _mean_auc(scores if fake else -scores, own, is_fake != fake, sources),
        }

    def describe_groups(groups: np.ndarray, *, fake: bool) -> list[dict[str, Any]]:
        of_class = (is_fake == fake) & (groups != "")
        names = np.unique(groups[of_class].astype(str))
        return [describe(name, of_class & (groups == name), fake=fake) for name in names]

    collections = [*describe_groups(sources, fake=False), *describe_groups(sources, fake=True)]
    made_by = describe_groups(generators, fake=True)
    together = np.zeros(len(rows))
    right = (scores >= 0.5) == is_fake
    halves = [float(right[is_fake == fake].mean()) for fake in (False, True) if fake in is_fake]
    return {
        "overall": {
            "pooled_auc": _mean_auc(scores, is_fake, ~is_fake, together),
            "balanced_accuracy": float(np.mean(halves)),
            "coverage": share_interval(decided >= 0),
            "certain_wrong": share_interval((decided >= 0) & (decided != rows.labels)),
            **_find_extremes(collections, made_by),
        },
        "collections": collections,
        "generators": made_by,
    }


def _find_extremes(collections: list[dict], generators: list[dict]) -> dict[str, Any]:
    """The mean area over collections, most false alarms, and the lowest area, by name; or None."""
    areas = [row["auc"]["value"] for row in collections if row["auc"]]
    real = [r for r in collections if r["class"] != POSITIVE_CLASS and r["wrong_of_certain"]]
    worst = max(real, key=lambda row: tuple(row["wrong_of_certain"].values()), default=None)
    made_by = [row for row in generators if row["auc"]]
    weakest = min(made_by, key=lambda row: row["auc"]["value"], default=None)
    return {
        "auc": float(np.mean(areas)) if areas else None,
        "worst_real": worst and {"name": worst["name"], **worst["wrong_of_certain"]},
        "worst_generator": weakest and {"name": weakest["name"], **weakest["auc"]},
    }


def _mean_auc(
    scores: np.ndarray, own: np.ndarray, other: np.ndarray, sources: np.ndarray
) -> Interval | None:
    """Mean area under the ROC curve against each source of the other class, with its interval."""
    if not other.any():
        return None
    names, which, counts = np.unique(
        sources[other].astype(str), return_inverse=True, return_counts=True
    )
    order = np.argsort(scores[other], kind="stable")
    theirs, n_ours = scores[other][order], int(own.sum())
    of_each = 1 / (n_ours * len(names) * counts[which][order])
    # How many of theirs each of ours is above; equal ones count half.
    ends = [np.searchsorted(theirs, scores[own], side=side) for side in ("left", "right")]
    # Drawn again among our images, and within each source of the others.
    groups = np.concatenate([np.zeros(n_ours, np.int64), 1 + which])
    areas = []
    for drawn in bootstrap_weights(groups, resamples=RESAMPLES, seed=SEED):
        below = np.cumsum(drawn[:, n_ours:][:, order] * of_each, axis=1)
        below = np.pad(below, ((0, 0), (1, 0)))
        above = (below[:, ends[0]] + below[:, ends[1]]) / 2
        areas.append((drawn[:, :n_ours] * above).sum(axis=1))
    return intervals_of({"auc": np.concatenate(areas)})["auc"]
