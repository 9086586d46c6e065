"""Draw every figure of a report from its predictions and metrics, without a model.

>>> history = {"epoch": [1.0, 2.0, 3.0], "val_loss": [0.7, 0.5, 0.6]}
>>> kept_epoch(history, keep="best"), kept_epoch(history, keep="last")
(2.0, 3.0)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter
from sklearn.metrics import confusion_matrix

from real_vs_ai.config import UNCERTAIN
from real_vs_ai.evaluation.curves import (
    Answers,
    draw_precision_recall,
    draw_reliability,
    draw_risk_coverage,
    draw_roc,
    draw_scores,
    rank_classes,
)
from real_vs_ai.evaluation.figure_style import (
    BLUE,
    CLASS_COLOURS,
    GREY,
    ORANGE,
    THOUSANDS,
    VERMILION,
    new_figure,
    percent,
    save_figure,
    shorten,
    styled,
)
from real_vs_ai.evaluation.metrics import REPORTED_SPLITS
from real_vs_ai.files import read_json
from real_vs_ai.predictions import Predictions
from real_vs_ai.runs import RunFolder
from real_vs_ai.verdict import UNDECIDED

_HISTORY_PANELS = {
    "loss": "Loss (cross-entropy + L2)",
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "auc": "ROC AUC",
    "f1": "F1",
}
# In percentage points of accuracy.
_LEAST_RANGE = 10.0


def draw_report(
    run: RunFolder,
    predictions: Predictions,
    metrics: Mapping,
    *,
    history: Mapping[str, Sequence] | None,
) -> list[Path]:
    """Draw what the data allow.

    Args:
        metrics: The contents of `metrics.json` for the predictions.

    Returns:
        The PNG files, in the order of a report.
    """
    drawn: list[Path] = []

    def place(name: str) -> Path:
        drawn.append(run.figures / f"{name}.png")
        return drawn[-1]

    answers = []
    for split in (name for name in REPORTED_SPLITS if name in predictions.split_names):
        rows = predictions.of_split(split)
        answers.append(Answers(split, rows, metrics[split]))
    # The report is about the first one; the figures of the others have their names.
    main = answers[0]
    if history and len(history["epoch"]):
        config = read_json(run.config) if run.config.is_file() else {}
        keep = config.get("options", {}).get("keep", "best")
        draw_history(history, keep=keep, path=place("history"))
    if metrics.get("images"):
        draw_class_distribution(metrics["images"], path=place("class_distribution"))
    for part in answers:
        name = "confusion_matrix" if part is main else f"confusion_matrix_{part.split}"
        draw_confusion_matrix(part.rows, split=part.split, path=place(name))
    if ranked := rank_classes(answers):
        draw_roc(ranked, path=place("roc"))
        draw_precision_recall(ranked, path=place("precision_recall"))
    draw_reliability(main, calibrated=metrics.get("calibrated", False), path=place("reliability"))
    draw_scores(main, thresholds=metrics["thresholds"], path=place("scores"))
    draw_risk_coverage(answers, path=place("risk_coverage"))
    if metrics.get("robustness"):
        draw_robustness(metrics["robustness"], path=place("robustness"))
    return drawn


@styled
def draw_history(history: Mapping[str, Sequence], *, keep: str, path: Path) -> None:
    """Training and validation curves by epoch, one panel for each metric that was recorded.

    Args:
        history: The columns of `history.csv`: "epoch", "stage", "loss", "val_loss", …
        keep: See `kept_epoch`.
    """
    names = [name for name in _HISTORY_PANELS if name in history]
    kept, epochs = kept_epoch(history, keep=keep), history["epoch"]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, panels = new_figure(rows, columns, width=4.4 * columns, height=3.7 * rows + 0.5)
    for name, axes in zip(names, panels, strict=False):
        axes.plot(epochs, history[name], color=BLUE, marker="o", ms=4, label="training")
        if f"val_{name}" in history:
            look = {"color": ORANGE, "ls": "--", "marker": "s", "ms": 4}
            axes.plot(epochs, history[f"val_{name}"], label="validation", **look)
        _mark_stages(axes, epochs, history.get("stage", ()))
        if kept is not None:
            axes.axvline(kept, color=GREY, lw=6, alpha=0.25, label="weights kept")
        axes.set(title=_HISTORY_PANELS[name], xlabel="epoch")
        # Room at the top for the names of the stages.
        axes.margins(y=0.14)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    save_figure(figure, path)


def kept_epoch(history: Mapping[str, Sequence], *, keep: str) -> float | None:
    """The epoch whose weights were kept; None without validation losses to choose it by.

    Args:
        keep: "last", or "best" for the epoch with the lowest validation loss, as training has it.
    """
    losses = np.array(history.get("val_loss", ()), dtype=float)
    if keep == "last":
        return history["epoch"][-1]
    return history["epoch"][int(np.nanargmin(losses))] if np.isfinite(losses).any() else None


def _mark_stages(axes: Axes, epochs: Sequence, stages: Sequence[str]) -> None:
    """A line where one stage of training gives way to the next, with both names."""
    changes = [i for i in range(1, len(stages)) if stages[i] != stages[i - 1]]
    for i in changes:
        middle = (epochs[i] + epochs[i - 1]) / 2
        axes.axvline(middle, color="black", lw=1.2, ls=":")
        for text, side in ((f"{stages[i - 1]} ", "right"), (f" {stages[i]}", "left")):
            where = {"ha": side, "va": "top", "transform": axes.get_xaxis_transform()}
            axes.text(middle, 0.995, text, fontsize=10, color=GREY, **where)


@styled
def draw_class_distribution(counts: Mapping[str, Mapping[str, int]], *, path: Path) -> None:
    """Images of each class in each split.

    Args:
        counts: {"train": {"Fake": 50, "Real": 48}, "validation": …}.
    """
    splits = list(counts)
    class_names = list(dict.fromkeys(name for split in counts.values() for name in split))
    figure, (axes,) = new_figure(width=max(7.0, 1.1 * len(splits) * len(class_names)))
    width = 0.8 / len(class_names)
    for i, name in enumerate(class_names):
        values = [counts[split].get(name, 0) for split in splits]
        bars = axes.bar(
            np.arange(len(splits)) + (i - (len(class_names) - 1) / 2) * width,
            values,
            width * 0.92,
            color=CLASS_COLOURS[i % len(CLASS_COLOURS)],
            label=shorten(name),
            hatch="" if i % 2 == 0 else "//",
            edgecolor="white",
        )
        axes.bar_label(bars, labels=[f"{value:,}" for value in values], padding=3, fontsize=12)
    axes.margins(y=0.12)
    ticks = [f"{split}\n{sum(counts[split].values()):,} images" for split in splits]
    axes.set_xticks(range(len(splits)), ticks)
    axes.set(ylabel="images", title="Images of each class")
    axes.yaxis.set_major_formatter(THOUSANDS)
    axes.grid(visible=False, axis="x")
    save_figure(figure, path, legend_columns=min(6, len(class_names)))


def verdict_matrix(rows: Predictions) -> np.ndarray:
    """How many images of each class (rows) get each verdict (columns, the last one Uncertain)."""
    decided, classes = rows.decided, len(rows.class_names)
    columns = np.where(decided == UNDECIDED, classes, decided)
    return confusion_matrix(rows.labels, columns, labels=range(classes + 1))[:-1]


@styled
def draw_confusion_matrix(rows: Predictions, *, split: str, path: Path) -> None:
    """Counts, and shares of each true class: rows are true classes, columns verdicts."""
    counts = verdict_matrix(rows)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    height, width = counts.shape
    figure, (axes,) = new_figure(width=4.2 + 1.2 * width, height=3.2 + 1.1 * height)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(height, width):
        axes.text(
            column,
            row,
            f"{counts[row, column]:,}\n{percent(shares[row, column])}",
            ha="center",
            va="center",
            fontsize=16 if width < 5 else 11,
            color="white" if shares[row, column] > 0.55 else "black",
        )
    names = [shorten(name, 16) for name in (*rows.class_names, UNCERTAIN)]
    axes.set_xticks(range(width), names)
    ticks = [f"{name}\n(n = {n:,})" for name, n in zip(names[:-1], totals[:, 0], strict=True)]
    axes.set_yticks(range(height), ticks)
    title = f"{split}: verdicts on {len(rows):,} images"
    axes.set(xlabel="verdict", ylabel="true class", title=title)
    axes.grid(visible=False)
    bar = figure.colorbar(image, ax=axes, shrink=0.85, format=PercentFormatter(1.0, decimals=0))
    bar.set_label("share of the true class")
    save_figure(figure, path)


@styled
def draw_robustness(robustness: Mapping, *, path: Path) -> None:
    """What each change does to the accuracy on the same images, and to the verdicts.

    Args:
        robustness: What `measure_robustness` returns.
    """
    rows, n = robustness["rows"], robustness["n"]
    figure, (left, right) = new_figure(1, 2, width=12.5, height=1.8 + 0.42 * len(rows))
    positions = np.arange(len(rows))
    values = 100 * np.array(
        [[row["difference"][key] for key in ("value", "low", "high")] for row in rows]
    )
    left.axvline(0, color=GREY, lw=1.4, ls=":", label="unchanged")
    left.hlines(positions, values[:, 1], values[:, 2], color=BLUE, lw=3, alpha=0.5)
    label = "95 % interval of the difference"
    left.plot(values[:, 0], positions, "o", color=BLUE, label=label)
    left.set_yticks(positions, [row["name"] for row in rows])
    unchanged = percent(rows[0]["accuracy"]["value"])
    # The unchanged images stand at 0, and small differences must not look large.
    left.set(
        ylim=(len(rows) - 0.4, -0.6),
        xlim=(min(-_LEAST_RANGE, 1.05 * values.min()), max(2.0, 1.05 * values.max())),
        xlabel="change in accuracy, in percentage points",
        title=f"{n:,} {robustness['split']} images, accuracy unchanged {unchanged}",
    )
    turned, uncertain = (np.array([row[key] / n for row in rows]) for key in ("flips", "uncertain"))
    look = {"height": 0.7, "edgecolor": "white"}
    right.barh(positions, turned, color=VERMILION, label="turned to another class", **look)
    right.barh(positions, uncertain, left=turned, color=GREY, hatch="//", label="Uncertain", **look)
    right.set_yticks(positions, [""] * len(rows))
    right.set(
        ylim=(len(rows) - 0.4, -0.6),
        xlim=(0, max(0.25, 1.05 * float((turned + uncertain).max()))),
        xlabel="share of verdicts",
        title="Verdicts",
    )
    right.xaxis.set_major_formatter(PercentFormatter(1.0))
    save_figure(figure, path, legend_columns=4)
