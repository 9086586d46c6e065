"""Measure what a report holds beside its metrics.

On request: changed images, images of another kind, another model. Of photographs always: verdicts
by collection and generator, also after the web.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import binomtest

from real_vs_ai.core.config import POSITIVE_CLASS
from real_vs_ai.core.intervals import Interval, share_interval
from real_vs_ai.dataset.labelled_images import LabelledImages
from real_vs_ai.evaluation.conditions import CLEAN, describe_condition
from real_vs_ai.evaluation.judging import JudgedSplit, judge_changed, judge_split
from real_vs_ai.evaluation.metrics import (
    bootstrap,
    compute_metrics,
    intervals_of,
    mean_interval,
    ranking,
)
from real_vs_ai.evaluation.report import Evaluation
from real_vs_ai.perturbations.web_changes import HARD, PERTURBATIONS, PERTURBATIONS_VERSION, WEB
from real_vs_ai.serving.detector import Detector
from real_vs_ai.verdicts.predictions import Predictions
from real_vs_ai.verdicts.verdict import decide

# Drawn evenly over the classes: enough to tell a change of one percentage point.
MOST_IMAGES = 1000
# What the conditions WEB and HARD are called.
CHANGED = ("web", "hard")
# A table of twenty changes has room for these metrics.
_KEPT = ("accuracy", "recall", "false_positive_rate", "roc_auc")
# A stored table holds for these; with others its verdicts would be different ones.
_CALIBRATION = ("temperature", "thresholds", "data", "input")


def measure_robustness(detector: Detector, judged: JudgedSplit, *, workers: int) -> dict[str, Any]:
    """Judge the same images as they are and after each of `PERTURBATIONS`.

    Args:
        judged: The images, of which some are drawn where they are many, and the verdicts on them.

    Returns:
        "split", "n", "perturbations" (see `describe_perturbations`), and "rows": for each change
        its name, metrics with intervals, "difference" (of its accuracy from the unchanged images',
        with a paired interval), "flips" (verdicts turned from one class to another) and
        "uncertain" (verdicts given up); "conditions": see `describe_condition`, by change.
    """
    chosen, metadata = judged.images.draw(MOST_IMAGES), detector.metadata
    images, unchanged = judged.images.take(chosen), judged.rows(metadata).take(chosen)
    changed = judge_changed(detector, images, PERTURBATIONS, split=judged.split, workers=workers)
    names = ["unchanged", *(change.name for change in PERTURBATIONS)]
    labels, before = unchanged.labels, unchanged.decided
    right_before = unchanged.is_right.astype(np.float64)
    rows, short = [], {WEB.name: CHANGED[0], HARD.name: CHANGED[1]}
    conditions = {
        short.get(name, name): described
        for name, answers in zip(names[1:], changed, strict=True)
        if (described := describe_condition(answers))
    }
    for name, answers in zip(names, [unchanged, *changed], strict=True):
        numbers = compute_metrics(labels, answers.calibrated, class_names=answers.class_names)
        given = answers.decided
        rows.append(
            {
                "name": name,
                **{key: numbers[key] for key in _KEPT if key in numbers},
                "difference": mean_interval(answers.is_right - right_before, labels),
                "flips": int(np.sum((given >= 0) & (before >= 0) & (given != before))),
                "uncertain": int(np.sum(given < 0)),
            }
        )
    return {
        "split": judged.split,
        "n": len(labels),
        "perturbations": describe_perturbations(),
        "rows": rows,
        "conditions": conditions,
    }


def describe_perturbations() -> dict[str, Any]:
    """What a stored table must have been measured with to hold still."""
    return {"version": PERTURBATIONS_VERSION, "names": [p.name for p in PERTURBATIONS]}


def measure_collections(detector: Detector, judged: JudgedSplit, *, workers: int) -> dict[str, Any]:
    """Judge images clean and after the web, by collection and by generator.

    Args:
        detector: Of a model that tells Fake from Real.
        judged: The images, and the verdicts on them as they are.

    Returns:
        "split", "n", and "versions": for "clean", "web" (as sites and messengers send images on)
        and "hard" (worse) "overall" (see `_sum_up`) and the rows "collections" and "generators" (of
        fakes): "name", "class", "n", the shares of verdicts "fake", "real" and "uncertain" with
        exact intervals, and "auc", the mean over the other class's collections. "conditions" are
        those of "web" and "hard", see `describe_condition`.
    """
    metadata, images = detector.metadata, judged.images
    clean = judged.rows(metadata)
    web, hard = judge_changed(detector, images, (WEB, HARD), split=judged.split, workers=workers)
    versions = {CLEAN: clean, **dict(zip(CHANGED, (web, hard), strict=True))}
    return {
        "split": judged.split,
        "n": len(images),
        "versions": {name: _describe(rows, judged.makers) for name, rows in versions.items()},
        "conditions": {name: describe_condition(versions[name]) for name in CHANGED},
    }


def _describe(rows: Predictions, generators: np.ndarray) -> dict[str, Any]:
    index = rows.class_names.index(POSITIVE_CLASS)
    # The ranking counts every image, out-of-distribution ones too.
    scores = rows.calibrated[:, index]
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


def _find_extremes(
    collections: list[dict[str, Any]], generators: list[dict[str, Any]]
) -> dict[str, Any]:
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
    _, which, counts = np.unique(
        sources[other].astype(str), return_inverse=True, return_counts=True
    )
    ours = np.zeros(int(own.sum()), np.int64)
    # Every source of theirs counts alike.
    weights = np.concatenate([ours + 1.0, 1 / counts[which]])
    both = np.concatenate([scores[own], scores[other]])
    positive = np.arange(len(both)) < len(ours)

    def areas(drawn: np.ndarray) -> dict[str, np.ndarray]:
        return {"auc": ranking(drawn * weights, positive=positive, scores=both)["roc_auc"]}

    # Drawn again among our images, and within each source of the others.
    return intervals_of(bootstrap(areas, np.concatenate([ours, 1 + which])))["auc"]


def measure_other_images(
    detector: Detector, name: str, splits: Mapping[str, LabelledImages], *, workers: int
) -> list[dict[str, Any]]:
    """Count how often the model would be wrong and certain on images of another kind.

    Args:
        name: Of the images.
        splits: Training images among them are left out.

    Returns:
        For each split "data" (its name), "n" images, and six shares with exact 95 % intervals:
        "out_of_distribution", "uncertain", "certain_right" and "certain_wrong", which add up to 1;
        "certain_wrong_unchecked" (by the thresholds alone) and "accuracy_unchecked".
    """
    metadata, counted = detector.metadata, []
    judged = {split: images for split, images in splits.items() if split != "train"}
    for split, images in judged.items():
        rows = judge_split(detector, images, split=split, workers=workers).rows(metadata)
        decided, labels, unlike = rows.decided, rows.labels, rows.out_of_distribution
        alone = decide(rows.calibrated, metadata)
        shares = {
            "out_of_distribution": unlike,
            "uncertain": ~unlike & (decided < 0),
            "certain_right": decided == labels,
            "certain_wrong": (decided >= 0) & (decided != labels),
            "certain_wrong_unchecked": (alone >= 0) & (alone != labels),
            "accuracy_unchecked": rows.is_right,
        }
        data = name if len(judged) == 1 else f"{name}, {split}"
        exact = {share: share_interval(which) for share, which in shares.items()}
        counted.append({"data": data, "n": len(rows), **exact})
    return counted


def compare_models(evaluation: Evaluation, other: Detector, *, workers: int) -> dict[str, Any]:
    """Test whether another model errs on other images than the one evaluated.

    Returns:
        For each split the accuracies' difference with its interval, and McNemar's test.
    """
    compared: dict[str, Any] = {"model": other.name}
    for split, part in evaluation.judged.items():
        first = evaluation.predictions.of_split(split)
        judged = judge_split(other, part.images, split=split, workers=workers)
        second = judged.rows(other.metadata)
        difference = first.is_right.astype(np.float64) - second.is_right
        compared[split] = {
            "n": len(first),
            "accuracy_difference": mean_interval(difference, first.labels),
            **mcnemar_test(first.is_right, second.is_right),
        }
    return compared


def mcnemar_test(first_correct: np.ndarray, second_correct: np.ndarray) -> dict[str, float]:
    """Whether two models err differently on the same images (exact test, McNemar 1947).

    Args:
        first_correct: Whether the first model is right, shape (n_images,), bool.

    Returns:
        Counts of images that only one of them has right, and the two-sided p-value.
    """
    only_first = int(np.sum(first_correct & ~second_correct))
    only_second = int(np.sum(~first_correct & second_correct))
    disagreements = only_first + only_second
    p_value = binomtest(only_first, disagreements).pvalue if disagreements else 1.0
    return {"only_first": only_first, "only_second": only_second, "p_value": float(p_value)}


def add_extras(
    evaluation: Evaluation,
    detector: Detector,
    *,
    stored: Mapping[str, Any],
    robustness: bool,
    others: Sequence[tuple[str, Mapping[str, LabelledImages]]],
    compared: Detector | None,
    workers: int,
) -> dict[str, str]:
    """Add to the metrics what was asked for, and what an earlier report holds of it still.

    Args:
        stored: `metrics.json` of the earlier report, or {}.
        others: Images of another kind: their name, and by split.
        compared: Another model, of the same classes.

    Returns:
        Titles of the tables of what was measured; see `report_tables`.
    """
    metrics, main, titles = evaluation.metrics, evaluation.main, {}
    detector = detector.with_metadata(evaluation.metadata)
    keep_extras(metrics, stored, split=main.split)
    if robustness:
        found = metrics["robustness"] = measure_robustness(detector, main, workers=workers)
        _add_conditions(metrics[main.split], found)
        titles["robustness"] = f"Robustness: {found['n']:,} {main.split} images"
    if others:
        parts = metrics["other_images"] = [
            part
            for name, splits in others
            for part in measure_other_images(detector, name, splits, workers=workers)
        ]
        images = ", ".join(f"{part['n']:,} of {part['data']}" for part in parts)
        titles["other_images"] = f"Images of another kind: {images}"
    if compared:
        metrics["comparison"] = compare_models(evaluation, compared, workers=workers)
        titles["comparison"] = f"Accuracy compared with {compared.name}"
    test, metadata = evaluation.judged.get("test"), evaluation.metadata
    if test and metadata.positive_index is not None and metadata.model_input.is_crops:
        metrics["collections"] = [measure_collections(detector, test, workers=workers)]
        _add_conditions(metrics["test"], metrics["collections"][0])
        titles["collections"] = f"By collection: {test.split}"
    if len(metrics[main.split].get("conditions", ())) > 1:
        titles["conditions"] = f"What it finds and whom it accuses: {main.split}"
    return titles


def _add_conditions(metrics: dict[str, Any], measured: dict[str, Any]) -> None:
    """Put the conditions of a part of the report to those of its split."""
    metrics.setdefault("conditions", {}).update(measured.pop("conditions"))


def keep_extras(metrics: dict[str, Any], stored: Mapping[str, Any], *, split: str) -> None:
    """Keep what an earlier report measured with the same calibration on the same data.

    Args:
        split: What the report is about.
    """
    if any(stored.get(name) != metrics.get(name) for name in _CALIBRATION):
        return
    if stored.get("offset", 0.0) != metrics.get("offset", 0.0):
        return
    robustness = stored.get("robustness") or {}
    if robustness.get("perturbations") == describe_perturbations():
        metrics["robustness"] = robustness
        earlier = stored.get(split, {}).get("conditions", {})
        if split in metrics and earlier:
            metrics[split]["conditions"] = {**earlier, **metrics[split].get("conditions", {})}
    if stored.get("other_images"):
        metrics["other_images"] = stored["other_images"]
