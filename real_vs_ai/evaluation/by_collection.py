"""Count a model's verdicts by collection and generator, on clean images and after the web."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from real_vs_ai.config import SEED
from real_vs_ai.dataset.labelled_images import LabelledImages, manifest_column
from real_vs_ai.errors import InputError
from real_vs_ai.evaluation.judging import judge_versions
from real_vs_ai.evaluation.metrics import (
    RESAMPLES,
    Interval,
    Table,
    bootstrap_weights,
    interval_text,
    intervals_of,
    percent_text,
    share_interval,
)
from real_vs_ai.model_file import calibrate
from real_vs_ai.perturbations import HARD, WEB
from real_vs_ai.serving.detector import Detector

# What each image is judged as: untouched, as sites and messengers send it on, and worse.
VERSIONS = {"clean": None, "web": WEB, "hard": HARD}
_SUMMARY_TITLES = (
    "pooled ROC AUC",
    "mean ROC AUC",
    "balanced accuracy, forced",
    "coverage",
    "certain and wrong",
    "worst real source: wrong among certain",
    "worst generator: ROC AUC",
)
_FAKE, _REAL, _NEITHER = 1, 0, -1


def measure_collections(
    detector: Detector, images: LabelledImages, *, split: str, workers: int
) -> dict[str, Any]:
    """Judge images clean and after the web, by collection and by generator.

    Args:
        detector: Of a model that tells Fake from Real.
        images: The files; unreadable ones are passed over.

    Returns:
        "split", "n", and "versions": for each of `VERSIONS` "overall" (see `_sum_up`) and the rows
        "collections" and "generators" (of fakes): "name", "class", "n", the shares of verdicts
        "fake", "real" and "uncertain" with exact intervals, and "auc", the mean over the other
        class's collections.
    """
    judged = list(judge_versions(detector, images, VERSIONS, workers=workers))
    if not judged:
        raise InputError(f"Expected images that can be read in {images.root}, found none.")
    metadata = detector.metadata
    known = images.take([position for position, _ in judged])
    made_by = manifest_column(images.root, "generator")
    generators = np.array([made_by.get(path, "") for path in known.paths], dtype=object)
    is_fake = known.labels == metadata.positive_index
    sources = np.array([source or "unknown" for source in known.sources], dtype=object)
    codes = dict.fromkeys(metadata.class_names, _REAL)
    codes[metadata.class_names[metadata.positive_index]] = _FAKE
    versions = {}
    for index, name in enumerate(VERSIONS):
        verdicts = [of_image[index] for _, of_image in judged]
        # The ranking counts every image, out-of-distribution ones too.
        outputs = np.array([verdict.uncalibrated for verdict in verdicts])
        scores = calibrate(outputs, temperature=metadata.temperature)[:, metadata.positive_index]
        given = np.array([codes.get(verdict.label, _NEITHER) for verdict in verdicts])
        versions[name] = _describe_version(scores, given, is_fake, sources, generators)
    return {"split": split, "n": len(known), "versions": versions}


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
) -> Interval | None:
    """Mean area under the ROC curve against each source of the other class, with its interval."""
    if not other.any():
        return None
    sign = 1 if higher else -1
    ours, theirs = sign * scores[own][:, None], sign * scores[other]
    wins = (ours > theirs) + 0.5 * (ours == theirs)
    names, which, counts = np.unique(
        sources[other].astype(str), return_inverse=True, return_counts=True
    )
    of_each = 1 / (len(ours) * len(names) * counts[which])
    # Drawn again among our images, and within each source of the others.
    groups = np.concatenate([np.zeros(len(ours), np.int64), 1 + which])
    areas = [
        ((drawn[:, : len(ours)] @ wins) * (drawn[:, len(ours) :] * of_each)).sum(axis=1)
        for drawn in bootstrap_weights(groups, resamples=RESAMPLES, seed=SEED)
    ]
    return intervals_of({"auc": np.concatenate(areas)})["auc"]


def _sum_up(
    scores: np.ndarray,
    decided: np.ndarray,
    is_fake: np.ndarray,
    collections: Sequence[dict[str, Any]],
    generators: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """The numbers of a version that a release is judged by.

    Returns:
        "pooled_auc" (of all images together, with its interval), "auc" (mean over collections),
        "balanced_accuracy" (no verdict left Uncertain), "coverage"
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
    together = np.zeros(len(scores))
    return {
        "pooled_auc": _mean_auc(scores, is_fake, ~is_fake, together, higher=True),
        "auc": float(np.mean(areas)) if areas else None,
        "balanced_accuracy": float(np.mean(halves)),
        "coverage": share_interval(decided >= 0),
        "certain_wrong": share_interval((decided >= 0) & (decided != is_fake)),
        "worst_real": worst and {"name": worst["name"], **worst["wrong_of_certain"]},
        "worst_generator": weakest and {"name": weakest["name"], **weakest["auc"]},
    }


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
                interval_text(found.get("pooled_auc")),
                "not defined" if found["auc"] is None else f"{found['auc']:.3f}",
                f"{found['balanced_accuracy']:.3f}",
                percent_text(found["coverage"]),
                percent_text(found["certain_wrong"]),
                name_of(found["worst_real"], percent_text),
                name_of(found["worst_generator"], lambda entry: f"{entry['value']:.3f}"),
            ]
        )
    return ["version", *_SUMMARY_TITLES], rows
