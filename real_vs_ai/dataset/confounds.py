"""Check whether the class can be guessed without looking at the pictures.

>>> labels = ["Fake"] * 20 + ["Real"] * 20
>>> widths = np.repeat([559, 1024], 20)
>>> found = measure_confounds(size_traits(widths, widths), labels, seed=42, advice="Resize them.")
>>> found.accuracy, bool(found.warning)
(1.0, True)

A small decision tree sees sizes, sources and the like, but no pixel. Where it beats chance clearly,
a network may learn the same instead of the pictures, and its metrics then say nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from real_vs_ai.core.intervals import Interval, mean_of_shares, share_interval

_FOLDS = 5
_FEWEST_IMAGES = 2 * _FOLDS
# Share of the way from chance to certainty: 0.75 balanced accuracy with two classes.
_WARNING_SHARE = 0.5
# From this number of one-class sources in each class on, sources are collections, not a confound.
_FEWEST_COLLECTIONS = 3


@dataclass(frozen=True)
class Confounds:
    """How well the class can be guessed from everything but the pixels.

    Attributes:
        accuracy: Balanced accuracy of the tree that sees every trait, cross-validated.
        low: Lower end of its 95 % interval.
        high: Upper end.
        by_trait: Balanced accuracy of a tree that sees one trait alone.
        warning: One sentence where the class can be guessed, otherwise "".
    """

    images: int
    counts: Mapping[str, int]
    chance: float
    accuracy: float
    low: float
    high: float
    by_trait: Mapping[str, float]
    warning: str


def measure_confounds(
    traits: Mapping[str, np.ndarray], labels: Sequence[str], *, seed: int, advice: str
) -> Confounds | None:
    """Cross-validate small decision trees; warn when the interval's low end is past the limit.

    Args:
        traits: Numbers of each trait, shape (n_images, n_columns).
        advice: Ends the warning: what to do about it.

    Returns:
        None where a class has too few images to tell anything.
    """
    counts = {str(name): number for name, number in sorted(Counter(labels).items())}
    if len(counts) < 2 or min(counts.values()) < _FEWEST_IMAGES:
        return None
    by_trait = {
        name: _guess(columns, labels, seed=seed)["value"] for name, columns in traits.items()
    }
    found = _guess(np.hstack(list(traits.values())), labels, seed=seed)
    accuracy, low, high = found["value"], found["low"], found["high"]
    chance = 1 / len(counts)
    limit = chance + _WARNING_SHARE * (1 - chance)
    warning = ""
    if low > limit:
        telling = sorted((-value, name) for name, value in by_trait.items() if value > limit)
        listed = ", ".join(f"{name} ({-value:.2f} alone)" for value, name in telling)
        warning = (
            f"Without looking at the pictures the class is guessed with balanced accuracy "
            f"{accuracy:.2f} (chance {chance:.2f})"
            + (f", from {listed}" if listed else "")
            + f". A model may learn that instead. {advice}"
        )
    return Confounds(len(labels), counts, chance, accuracy, low, high, by_trait, warning)


def size_traits(widths: np.ndarray, heights: np.ndarray) -> dict[str, np.ndarray]:
    """The traits of images of these sizes in pixels, shape (n_images,) each."""
    widths, heights = np.asarray(widths, np.float64), np.asarray(heights, np.float64)
    ratios = widths / np.maximum(heights, 1)
    return {
        "size in pixels": np.column_stack([widths, heights, ratios]),
        "square": (widths == heights).astype(np.float64)[:, None],
    }


def source_trait(sources: Sequence[str], labels: Sequence[str]) -> dict[str, np.ndarray]:
    """The data set each image came from; {} where every one of many is of one class.

    Such sources are collections: they name the class by their making, and no image shows which it
    came from.
    """
    pairs = set(zip(sources, labels, strict=True))
    by_class = Counter(label for _, label in pairs)
    names = sorted({source for source, _ in pairs})
    if len(pairs) == len(names) and min(by_class.values(), default=0) >= _FEWEST_COLLECTIONS:
        return {}
    return {"source": one_hot(sources)}


def one_hot(values: Sequence[str]) -> np.ndarray:
    """A column for each different value, shape (n_values, n_different), 0 or 1."""
    _, indices = np.unique(np.asarray(values, dtype=str), return_inverse=True)
    return np.eye(indices.max(initial=0) + 1)[indices]


def _guess(columns: np.ndarray, labels: Sequence[str], *, seed: int) -> Interval:
    """Balanced accuracy of a tree, cross-validated.

    Its interval is that of the mean of the classes' shares: a small class decides its width.
    """
    # Imported here: scikit-learn takes a second to load.
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.tree import DecisionTreeClassifier

    tree = DecisionTreeClassifier(
        max_depth=4,
        min_samples_leaf=max(5, len(labels) // 200),
        class_weight="balanced",
        random_state=seed,
    )
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    names = np.asarray(labels, dtype=str)
    right = cross_val_predict(tree, columns, names, cv=folds) == names
    shares = [share_interval(right[names == name]) for name in np.unique(names)]
    return mean_of_shares([share for share in shares if share is not None])
