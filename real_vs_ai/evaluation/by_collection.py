"""What a report says of each collection, generator and source: all in a CSV file, the worst here.

The model card shows the worst ones; `collections.csv` beside it holds every one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from real_vs_ai.evaluation.metrics import REPORTED_SPLITS
from real_vs_ai.evaluation.tables import MOST_LISTED, Table, percent_text

_MOST_CAMERAS = 3
_INTERVALS = {
    "fake": "called_fake",
    "real": "called_real",
    "uncertain": "uncertain",
    "wrong_of_certain": "wrong_of_certain",
    "auc": "roc_auc",
    "accuracy": "accuracy",
    "false_positive_rate": "false_positive_rate",
    "recall": "recall",
}
COLLECTION_COLUMNS = (
    *("split", "condition", "kind", "name", "class", "images"),
    *(column + end for column in _INTERVALS.values() for end in ("", "_low", "_high")),
)


def collection_rows(metrics: Mapping[str, Any]) -> Iterator[list[Any]]:
    """The rows of `collections.csv`, in the order of `COLLECTION_COLUMNS`.

    A row of kind "collection" or "generator" tells the verdicts in one condition. A row of kind
    "source" or "size" tells how good the class of highest probability is, and has no condition.
    What is not measured is "".
    """
    for part in metrics.get("collections", ()):
        for condition, version in part["versions"].items():
            for kind in ("collection", "generator"):
                for row in version[f"{kind}s"]:
                    told = [part["split"], condition, kind, row["name"], row["class"], row["n"]]
                    yield told + _cells(row)
    for split in REPORTED_SPLITS:
        for kind in ("source", "size"):
            for name, row in metrics.get(split, {}).get(f"per_{kind}", {}).items():
                cells = _cells({**row, "auc": row.get("roc_auc")})
                yield [split, "", kind, name, "", row["n"], *cells]


def _cells(row: Mapping[str, Any]) -> list[Any]:
    entries = [row.get(name) or {} for name in _INTERVALS]
    return [entry.get(key, "") for entry in entries for key in ("value", "low", "high")]


def worst_tables(metrics: Mapping[str, Any]) -> dict[str, list[Table]]:
    """The worst collections, generators and cameras, worst first, at most 10 of each (3 cameras).

    Returns:
        Tables of "accusations" and of "misses", by what their intervals leave at best on the
        pictures as published; [] where nothing was measured. Real groups without an accusation
        are left out.
    """
    if parts := metrics.get("collections"):
        worst = _from_collections(parts[0]["versions"])
    else:
        worst = {"accusations": [], "misses": []}
    main = metrics.get(next((s for s in REPORTED_SPLITS if s in metrics), ""), {})
    weakest = main.get("weakest", {})
    titles = {"real_makers": "camera or maker"}
    if not parts:
        titles |= {"real_sources": "collection"}
    worst["accusations"] += _from_weakest(weakest, titles, share="accused", title="called Fake")
    if not parts:
        titles = {"generators": "generator", "generated_sources": "collection"}
        worst["misses"] += _from_weakest(weakest, titles, share="found", title="found")
    return worst


def _from_collections(versions: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Table]]:
    names = list(versions)
    by_name = {
        (kind, version): {row["name"]: row for row in versions[version][f"{kind}s"]}
        for kind in ("collection", "generator")
        for version in names
    }

    def shown(kind: str, name: str, share: str) -> list[str]:
        return [percent_text(by_name[kind, v].get(name, {}).get(share)) for v in names]

    def is_accused(name: str) -> bool:
        found = (by_name["collection", version].get(name) for version in names)
        return any(row and row["fake"]["value"] > 0 for row in found)

    def table(kind: str, is_real: bool) -> list[Table]:
        rows = [
            row
            for row in by_name[kind, names[0]].values()
            if (row["class"] == "Real") is is_real and (not is_real or is_accused(row["name"]))
        ]
        rows.sort(key=_accused_at_best if is_real else _found_at_best)
        shares = {"fake": "called Fake"} if is_real else {"fake": "found", "real": "called Real"}
        headers = [f"{title}, {version}" for title in shares.values() for version in names]
        cells = [
            [row["name"], row["n"], *(text for s in shares for text in shown(kind, row["name"], s))]
            for row in rows[:MOST_LISTED]
        ]
        return [([kind, "images", *headers], cells)] if cells else []

    return {
        "accusations": table("collection", True),
        "misses": [*table("generator", False), *table("collection", False)],
    }


def _found_at_best(row: Mapping[str, Any]) -> tuple[float, float, str]:
    return row["fake"]["high"], -row["real"]["value"], row["name"]


def _accused_at_best(row: Mapping[str, Any]) -> tuple[float, float, str]:
    return -row["fake"]["low"], -row["fake"]["value"], row["name"]


def _from_weakest(
    weakest: Mapping[str, Sequence[Mapping[str, Any]]],
    titles: Mapping[str, str],
    *,
    share: str,
    title: str,
) -> list[Table]:
    tables = []
    for group, named in titles.items():
        most = _MOST_CAMERAS if group == "real_makers" else MOST_LISTED
        rows = [
            [row["name"], row["n"], row["sources"]]
            + [percent_text(row[key]) for key in (share, "called_real")]
            for row in weakest.get(group, ())[:most]
            if _counts(row, share)
        ]
        if rows:
            tables.append(([named, "images", "sources", title, "called Real"], rows))
    return tables


def _counts(row: Mapping[str, Any], share: str) -> bool:
    """Whether a group is worth a line: one of real pictures, only if any of them is accused."""
    return share == "found" or row[share]["value"] > 0
