"""Set out a report's numbers as tables, for the model card and the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from real_vs_ai.core.intervals import exact_interval
from real_vs_ai.core.reporting import format_table, plural
from real_vs_ai.evaluation.metrics import REPORTED_SPLITS

_GROUP_METRICS = ("accuracy", "false_positive_rate", "recall", "roc_auc")
# Headers and rows.
Table = tuple[list[str], list[list[Any]]]

# In the order of every table.
METRIC_TITLES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "f1": "F1",
    "roc_auc": "ROC AUC",
    "average_precision": "Average precision",
    "false_positive_rate": "False-positive rate",
    "recall_at_1_percent_fpr": "Recall at 1 % false positives",
    "recall_at_5_percent_fpr": "Recall at 5 % false positives",
    "loss": "Loss (cross-entropy)",
    "brier_score": "Brier score",
    "expected_calibration_error": "Expected calibration error (debiased)",
    "uncertain_share": "Share of Uncertain verdicts",
    "error_when_certain": "Error of certain verdicts",
}
_OTHER_TITLES = {
    "out_of_distribution": "out-of-distribution",
    "uncertain": "Uncertain for another reason",
    "certain_right": "certain and right",
    "certain_wrong": "certain and wrong",
    "certain_wrong_unchecked": "certain and wrong by the thresholds alone",
    "accuracy_unchecked": "accuracy at the class of highest probability",
}
_CONDITION_TITLES = (
    "generated: found",
    "generated: called Real",
    "real: accused",
    "real: called Real",
)
_BALANCED_TITLES = {
    "forced": "balanced accuracy, forced",
    "answered": "balanced accuracy of the answers",
}
# Of the sources, a terminal shows so many, and a model card so many.
_MOST_WORST = 7
MOST_LISTED = 10
_SUMMARY_TITLES = (
    "pooled ROC AUC",
    "mean ROC AUC",
    "balanced accuracy, forced",
    "coverage",
    "certain and wrong",
    "worst real source: wrong among certain",
    "worst generator: ROC AUC",
)


def report_tables(metrics: Mapping[str, Any]) -> dict[str, Table]:
    """Every table that the contents of `metrics.json` hold, by name.

    Returns:
        "data" and "results", and what there is of "over_sources", "worst_sources", "conditions",
        "per_source", "per_size", "robustness", "precisions", "reasons", "other_images",
        "comparison" and "collections". `by_collection` sets out every collection and generator.
    """
    main = metrics.get(next((s for s in REPORTED_SPLITS if s in metrics), ""), {})
    tables = {"data": _data(metrics), "results": _results(metrics)}
    found: dict[str, tuple[Callable[[Any], Table | None], Any]] = {
        "over_sources": (_over_sources, metrics.get("over_sources")),
        "worst_sources": (_worst_sources, main.get("per_source")),
        "conditions": (_conditions, main.get("conditions")),
        "per_source": (_sources, main.get("per_source")),
        "per_size": (_groups("shorter side"), main.get("per_size")),
        "robustness": (_robustness, metrics.get("robustness")),
        "precisions": (precision_table, metrics.get("precisions")),
        "other_images": (_other_images, metrics.get("other_images")),
        "comparison": (_comparison, metrics.get("comparison")),
    }
    made = {name: make(part) for name, (make, part) in found.items() if part}
    tables |= {name: table for name, table in made.items() if table}
    if "out_of_distribution" in metrics:
        tables["reasons"] = _reasons(metrics)
    for part in metrics.get("collections", ()):
        tables["collections"] = _collections(part)
    return tables


def _data(metrics: Mapping[str, Any]) -> Table:
    names = metrics["class_names"]
    rows = [
        [split, *(counts.get(name, 0) for name in names), sum(counts.values())]
        for split, counts in metrics.get("images", {}).items()
    ]
    return ["split", *names, "images"], rows


def _results(metrics: Mapping[str, Any]) -> Table:
    splits = [split for split in REPORTED_SPLITS if split in metrics]
    rows = [
        [title, *(interval_text(metrics[split].get(name)) for split in splits)]
        for name, title in METRIC_TITLES.items()
        if any(name in metrics[split] for split in splits)
    ]
    return ["metric", *(f"{split} (n = {metrics[split]['n']:,})" for split in splits)], rows


def _over_sources(counted: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    rows = [
        [
            split,
            row["class"],
            row["sources"],
            *map(interval_text, (row["certain"], row["wrong"])),
            f"{row['wrong_95']:.4f}",
        ]
        for split, by_class in counted.items()
        for row in by_class
    ]
    headers = ["split", "class", "sources", "certain", "wrong", "wrong, 95 % of sources at most"]
    return headers, rows


def _groups(title: str) -> Callable[[Mapping[str, Any]], Table]:
    def make(groups: Mapping[str, Any]) -> Table:
        rows = [
            [name, part["n"], *(interval_text(part.get(m)) for m in _GROUP_METRICS)]
            for name, part in groups.items()
        ]
        return [title, "images", *(METRIC_TITLES[m].lower() for m in _GROUP_METRICS)], rows

    return make


def _sources(groups: Mapping[str, Any]) -> Table:
    """The sources of lowest accuracy, worst first, as many as a model card shows."""
    return _groups("source")(dict(sorted(groups.items(), key=_at_best)[:MOST_LISTED]))


def _at_best(one: tuple[str, Mapping[str, Any]]) -> tuple[float, float]:
    """Smallest for the source that is surely worst; few images prove little."""
    _, part = one
    if not part.get("accuracy"):
        return 1.0, 1.0
    share, n = part["accuracy"]["value"], part["n"]
    return exact_interval(share * n, n)["high"], share


def headline(metrics: Mapping[str, Any], *, title: str | None = None) -> str:
    """The results for a terminal; where there are several sources, the worst ones with them."""
    tables = report_tables(metrics)
    texts = [format_table(*tables["results"], title=title)]
    if worst := tables.get("worst_sources"):
        texts.append(format_table(*worst, title="Accuracy by source, worst first"))
    return "\n\n".join(texts)


def _worst_sources(groups: Mapping[str, Any]) -> Table | None:
    """The sources of lowest accuracy; few images prove little, and so come later."""
    if len(groups) < 2:
        return None
    named = [(name, part) for name, part in groups.items() if part.get("accuracy")]
    named.sort(key=_at_best)
    rows = [
        [name, part["n"], interval_text(part["accuracy"])] for name, part in named[:_MOST_WORST]
    ]
    if more := len(named) - len(rows):
        n = sum(part["n"] for _, part in named[_MOST_WORST:])
        rows.append([plural(more, "better one"), n, "in collections.csv"])
    return ["source", "images", "accuracy"], rows


def _conditions(conditions: Mapping[str, Mapping[str, Any]]) -> Table:
    """What is found and who is accused, condition by condition."""
    titles = ["condition", "images", *_CONDITION_TITLES, *_BALANCED_TITLES.values()]
    rows = []
    for name, part in conditions.items():
        generated, real = part.get("generated", {}), part.get("real", {})
        shares = [generated.get("found"), generated.get("called_real")]
        shares += [real.get("accused"), real.get("called_real")]
        shares += [part["balanced_accuracy"].get(key) for key in _BALANCED_TITLES]
        rows.append([name, part["n"], *map(percent_text, shares)])
    return titles, rows


def _robustness(robustness: Mapping[str, Any]) -> Table:
    rows = [
        [row["name"], interval_text(row["accuracy"]), row["flips"], row["uncertain"]]
        for row in robustness["rows"]
    ]
    return ["change", "accuracy", "verdicts flipped", "Uncertain"], rows


def _reasons(metrics: Mapping[str, Any]) -> Table:
    shares = metrics["out_of_distribution"]
    counts = {split: metrics[split].get("reasons", {}) for split in shares}
    codes = sorted({code for by_code in counts.values() for code in by_code})
    rows = [[code, *(by_code.get(code, 0) for by_code in counts.values())] for code in codes]
    unlike = [f"{part['share']:.4f}" for part in shares.values()]
    headers = ["reason", *(f"{split} (n = {part['n']:,})" for split, part in shares.items())]
    return headers, [*rows, ["share out-of-distribution", *unlike]]


def _other_images(folders: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [title, *(interval_text(part[share]) for part in folders)]
        for share, title in _OTHER_TITLES.items()
    ]
    return ["share of the images", *(f"{p['data']} (n = {p['n']:,})" for p in folders)], rows


def _comparison(compared: Mapping[str, Any]) -> Table:
    rows = [
        [
            split,
            part["n"],
            interval_text(part["accuracy_difference"]),
            part["only_first"],
            part["only_second"],
            f"{part['p_value']:.3g}",
        ]
        for split, part in compared.items()
        if split != "model"
    ]
    right = ["only this model right", "only the other right"]
    return ["split", "images", "accuracy difference", *right, "p (McNemar)"], rows


def _collections(part: Mapping[str, Any]) -> Table:
    """What a release is judged by, for each version of a split's images."""

    def name_of(entry: Mapping[str, Any] | None, shown: Callable[[Mapping[str, Any]], str]) -> str:
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


def precision_table(found: Sequence[Mapping[str, Any]]) -> Table:
    """What each precision changes; benchmarks/bench_precision.py measures it."""
    rows = [
        [
            row["precision"],
            f"{row['images']} (n = {row['n']:,})",
            *(
                "no labels" if a is None else f"{a:.4f}"
                for a in (row["accuracy_f32"], row["accuracy"])
            ),
            f"{row['largest_difference']:.4f}",
            row["flipped"],
            row["uncertain_changed"],
        ]
        for row in found
    ]
    headers = ["precision", "images", "accuracy in f32", "accuracy", "largest difference"]
    return [*headers, "verdicts flipped", "to or from Uncertain"], rows


def interval_text(entry: Mapping[str, float] | None, *, digits: int = 4) -> str:
    """{"value": 0.95, "low": 0.94, "high": 0.96} → "0.9500 (0.9400 to 0.9600)"."""
    if not entry:
        return "not defined"
    value, low, high = (f"{entry[key]:.{digits}f}" for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def percent_text(entry: Mapping[str, Any] | None) -> str:
    """{"value": 0.95, "low": 0.94, "high": 0.96} → "95.0 % (94.0 to 96.0)"."""
    if not entry:
        return "none"
    return f"{100 * entry['value']:.1f} % ({100 * entry['low']:.1f} to {100 * entry['high']:.1f})"
