"""Say how a model of Fake and Real does in one condition: as published, or after a change.

Shares of both classes stand apart, and their intervals are over sources: what is found of the
generated pictures says nothing about how many real ones are accused.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from real_vs_ai.core.intervals import (
    Interval,
    count_sources,
    exact_interval,
    mean_of_shares,
    share_by_source,
)
from real_vs_ai.verdicts.predictions import Predictions
from real_vs_ai.verdicts.verdict import UNDECIDED

# The names of the conditions that every report of a photograph model has.
CLEAN = "clean"
# Of the weakest groups, a report names so many.
_MOST_NAMED = 8


def describe_condition(rows: Predictions) -> dict[str, Any] | None:
    """Shares of verdicts by class, and balanced accuracy; None for models of other classes.

    Returns:
        "n"; for "generated" pictures "n", "sources", "unit" of the intervals ("source" or
        "picture"), and the shares "found", "called_real" and "unanswered"; for "real" ones the
        same with "accused" for "found"; "balanced_accuracy" with "forced" (at the class of highest
        probability) and, where both classes have answers, "answered".
    """
    index = rows.positive_index
    if index is None:
        return None
    forced, answered, classes = [], [], {}
    for name, found, label in (("generated", "found", index), ("real", "accused", 1 - index)):
        own = rows.take(rows.labels == label)
        if not len(own):
            continue
        sources, given = _units(own), own.decided
        several = count_sources(sources) > 1
        classes[name] = {
            "n": len(own),
            "sources": count_sources(sources) if several else 1,
            "unit": "source" if several else "picture",
            **_verdicts(given, sources, index=index, found=found),
        }
        forced.append(share_by_source(own.is_right, sources))
        certain = given != UNDECIDED
        answered.append(share_by_source(given[certain] == label, sources[certain]))
    return {"n": len(rows), **classes, "balanced_accuracy": _balanced(forced, answered)}


def _verdicts(given: np.ndarray, sources: np.ndarray, *, index: int, found: str) -> dict[str, Any]:
    shares = {found: given == index, "called_real": given == 1 - index}
    shares["unanswered"] = given == UNDECIDED
    return {name: share_by_source(which, sources) for name, which in shares.items()}


def _balanced(*columns: list[Interval | None]) -> dict[str, Interval]:
    """Means over both classes, where both have a share."""
    named = zip(("forced", "answered"), columns, strict=True)
    both = {name: [share for share in shares if share] for name, shares in named}
    return {name: mean_of_shares(shares) for name, shares in both.items() if len(shares) == 2}


def _units(rows: Predictions) -> np.ndarray:
    """The source of each picture; one whose source is not known is a source of its own."""
    return np.where(rows.sources == "", rows.paths, rows.sources)


def find_weakest(rows: Predictions, makers: np.ndarray) -> dict[str, list[dict[str, Any]]]:
    """The generators, makers and sources that the model does worst on, worst first.

    Few pictures prove little: groups are ordered by what their intervals leave at best.

    Args:
        makers: What made each picture: a generator, or a camera; "" where it is not known.

    Returns:
        "generators" and "generated_sources" by the share found, "real_makers" and "real_sources" by
        the share accused, of which each has rows "name", "n", "sources", "found" or "accused", and
        "called_real". A list is there if there are two groups; {} for models of other classes.
    """
    index = rows.positive_index
    if index is None:
        return {}
    is_fake = rows.labels == index
    groups = {
        "generators": (is_fake, makers, "found"),
        "generated_sources": (is_fake, rows.sources, "found"),
        "real_makers": (~is_fake, makers, "accused"),
        "real_sources": (~is_fake, rows.sources, "accused"),
    }
    weakest = {}
    for title, (own, names, share) in groups.items():
        misses = [
            _describe_group(rows.take(own & (names == name)), name, index=index, share=share)
            for name in sorted(set(names[own].tolist()) - {""})
        ]
        misses.sort(key=_badness)
        if len(misses) > 1:
            weakest[title] = misses[:_MOST_NAMED]
    return weakest


def _describe_group(rows: Predictions, name: str, *, index: int, share: str) -> dict[str, Any]:
    sources = _units(rows)
    shares = _verdicts(rows.decided, sources, index=index, found=share)
    del shares["unanswered"]
    return {"name": str(name), "n": len(rows), "sources": count_sources(sources), **shares}


def _badness(row: dict[str, Any]) -> tuple[float, float, str]:
    """Smallest for the group that is surely worst."""
    if "found" in row:
        at_best = exact_interval(row["found"]["value"] * row["n"], row["n"])["high"]
        return at_best, -row["called_real"]["value"], row["name"]
    at_best = exact_interval(row["accused"]["value"] * row["n"], row["n"])["low"]
    return -at_best, row["called_real"]["value"], row["name"]
