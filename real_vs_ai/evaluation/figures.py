"""Draw figures from numbers; nothing is computed here.

    draw_roc([Curve("test", x, y, summary, n)], path=run.figures / "roc.png")

Each function draws one PNG. What the numbers are is decided in curves.py and metrics.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter, StrMethodFormatter

from real_vs_ai.evaluation.curves import Curve, ReliabilityBins
from real_vs_ai.evaluation.figure_style import (
    BLUE,
    GREY,
    ORANGE,
    VERMILION,
    class_colour,
    label_bars,
    line_style,
    new_figure,
    percent,
    save_figure,
    shorten,
    styled,
    unit_square,
    with_interval,
)

_HISTORY_PANELS = {
    "loss": "Loss (cross-entropy + L2)",
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "auc": "ROC AUC",
    "f1": "F1",
}
_THOUSANDS = StrMethodFormatter("{x:,.0f}")


@styled
def draw_history(history: Mapping[str, Sequence], *, best_epoch: int | None, path: Path) -> None:
    """Training and validation curves by epoch, one panel for each metric that was recorded.

    Args:
        history: The columns of `history.csv`: "epoch", "stage", "loss", "val_loss", …
        best_epoch: The epoch whose weights were kept; marked.
        path: Where the PNG goes.
    """
    names = [name for name in _HISTORY_PANELS if name in history]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, panels = new_figure(rows, columns, width=4.4 * columns, height=3.7 * rows + 0.5)
    for name, axes in zip(names, panels, strict=False):
        epochs = history["epoch"]
        axes.plot(epochs, history[name], color=BLUE, marker="o", ms=4, label="training")
        if f"val_{name}" in history:
            axes.plot(
                epochs,
                history[f"val_{name}"],
                color=ORANGE,
                ls="--",
                marker="s",
                ms=4,
                label="validation",
            )
        _mark_stages(axes, epochs, history.get("stage", ()))
        if best_epoch is not None:
            axes.axvline(best_epoch, color=GREY, lw=6, alpha=0.25, label="weights kept")
        axes.set(title=_HISTORY_PANELS[name], xlabel="epoch")
        # Room at the top for the names of the stages.
        axes.margins(y=0.14)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for axes in panels[len(names) :]:
        axes.set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    save_figure(figure, path)


@styled
def draw_class_distribution(counts: Mapping[str, Mapping[str, int]], *, path: Path) -> None:
    """Images of each class in each split.

    Args:
        counts: {"train": {"Fake": 50, "Real": 48}, "validation": …}.
        path: Where the PNG goes.
    """
    splits = list(counts)
    class_names = list(dict.fromkeys(name for split in counts.values() for name in split))
    figure, (axes,) = new_figure(width=max(7.0, 1.1 * len(splits) * len(class_names)))
    width = 0.8 / len(class_names)
    for i, name in enumerate(class_names):
        values = [counts[split].get(name, 0) for split in splits]
        positions = np.arange(len(splits)) + (i - (len(class_names) - 1) / 2) * width
        bars = axes.bar(
            positions,
            values,
            width * 0.92,
            color=class_colour(i),
            label=shorten(name),
            hatch="" if i % 2 == 0 else "//",
            edgecolor="white",
        )
        label_bars(axes, bars, [f"{value:,}" for value in values])
    totals = [sum(counts[split].values()) for split in splits]
    ticks = [f"{split}\n{total:,} images" for split, total in zip(splits, totals, strict=True)]
    axes.set_xticks(range(len(splits)), ticks)
    axes.set(ylabel="images", title="Images of each class")
    axes.yaxis.set_major_formatter(_THOUSANDS)
    axes.grid(visible=False, axis="x")
    figure.legend(loc="outside lower center", ncols=min(6, len(class_names)))
    save_figure(figure, path)


@styled
def draw_confusion_matrix(
    matrix: Sequence[Sequence[int]], *, class_names: Sequence[str], title: str, path: Path
) -> None:
    """Counts, and shares of each true class.

    Args:
        matrix: Rows are true classes, columns predicted ones.
        class_names: In this order.
        title: Which images.
        path: Where the PNG goes.
    """
    counts = np.asarray(matrix)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    size = len(class_names)
    figure, (axes,) = new_figure(width=4.2 + 1.2 * size, height=3.2 + 1.1 * size)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(size, size):
        axes.text(
            column,
            row,
            f"{counts[row, column]:,}\n{percent(shares[row, column])}",
            ha="center",
            va="center",
            fontsize=16 if size < 4 else 11,
            color="white" if shares[row, column] > 0.55 else "black",
        )
    names = [shorten(name, 16) for name in class_names]
    axes.set_xticks(range(size), names)
    rows = [f"{name}\n(n = {n:,})" for name, n in zip(names, totals[:, 0], strict=True)]
    axes.set_yticks(range(size), rows)
    axes.set(xlabel="predicted class", ylabel="true class", title=title)
    axes.grid(visible=False)
    bar = figure.colorbar(image, ax=axes, shrink=0.85, format=PercentFormatter(1.0, decimals=0))
    bar.set_label("share of the true class")
    save_figure(figure, path)


@styled
def draw_roc(curves: Sequence[Curve], *, positive: str, path: Path) -> None:
    """Recall against false-positive rate, with the area and its interval."""
    figure, (axes,) = new_figure(width=6.6, height=6.6)
    axes.plot([0, 1], [0, 1], color=GREY, lw=1.2, ls=":", label="chance")
    for i, curve in enumerate(curves):
        label = f"{shorten(curve.name)} (n = {curve.n:,})\nAUC {with_interval(curve.summary)}"
        axes.plot(curve.x, curve.y, color=class_colour(i), ls=line_style(i), label=label)
    unit_square(axes, x="false-positive rate", y="recall (true-positive rate)")
    axes.set_title(f"ROC curve, {positive}")
    axes.legend(loc="lower right")
    save_figure(figure, path)


@styled
def draw_precision_recall(
    curves: Sequence[Curve], *, positive: str, prevalence: float | None, path: Path
) -> None:
    """Precision against recall, with the average precision and its interval."""
    figure, (axes,) = new_figure(width=6.6, height=6.6)
    if prevalence is not None:
        label = f"chance ({percent(prevalence)})"
        axes.axhline(prevalence, color=GREY, lw=1.2, ls=":", label=label)
    for i, curve in enumerate(curves):
        label = f"{shorten(curve.name)} (n = {curve.n:,})\nAP {with_interval(curve.summary)}"
        axes.plot(curve.x, curve.y, color=class_colour(i), ls=line_style(i), label=label)
    unit_square(axes, x="recall", y="precision")
    axes.set_title(f"Precision and recall, {positive}")
    axes.legend(loc="lower left")
    save_figure(figure, path)


@styled
def draw_reliability(
    bins: Sequence[ReliabilityBins], *, stated: str, observed: str, path: Path
) -> None:
    """Stated probability against observed share, and how many images lie where.

    Args:
        bins: Before and after calibration.
        stated: Label of the horizontal axis.
        observed: Label of the vertical axis.
        path: Where the PNG goes.
    """
    figure, axes = new_figure(1, 2, width=12.0, height=6.4)
    axes[0].plot([0, 1], [0, 1], color=GREY, lw=1.2, ls=":", label="perfect calibration")
    for i, part in enumerate(bins):
        look = {"color": (ORANGE, BLUE)[i % 2], "ls": ("--", "-")[i % 2], "marker": "os"[i % 2]}
        label = f"{part.name}: ECE {part.error:.3f}"
        axes[0].plot(part.stated, part.observed, label=label, **look)
        axes[1].plot(part.stated, part.counts, **look)
    unit_square(axes[0], x=stated, y=observed)
    axes[0].set_title("Reliability")
    axes[1].set(xlabel=stated, ylabel="images in the bin (log scale)", xlim=(-0.03, 1.03))
    axes[1].set_yscale("log")
    axes[1].set_ylim(bottom=0.8)
    axes[1].yaxis.set_major_formatter(_THOUSANDS)
    axes[1].yaxis.set_minor_formatter(NullFormatter())
    axes[1].set_title(f"Where the {sum(bins[0].counts):,} images lie")
    figure.legend(loc="outside lower center", ncols=3)
    save_figure(figure, path)


@styled
def draw_score_histogram(
    counts: Mapping[str, np.ndarray],
    *,
    edges: np.ndarray,
    bounds: tuple[float, float],
    axis: str,
    path: Path,
) -> None:
    """How the scores of each true class are spread, with the Uncertain band.

    Args:
        counts: Images in each bin, for each true class.
        edges: Of the bins, 0 to 1.
        bounds: Of the Uncertain band; equal when there is none.
        axis: What the score is.
        path: Where the PNG goes.
    """
    figure, (axes,) = new_figure(width=8.0)
    for i, (name, values) in enumerate(counts.items()):
        label = f"{shorten(name)} (n = {int(values.sum()):,})"
        axes.stairs(values, edges, color=class_colour(i), lw=2.4, ls=line_style(i), label=label)
        axes.stairs(values, edges, color=class_colour(i), fill=True, alpha=0.15)
    if bounds[1] > bounds[0]:
        label = f"Uncertain: {bounds[0]:.2f} to {bounds[1]:.2f}"
        axes.axvspan(*bounds, color=GREY, alpha=0.25, lw=0, label=label)
    axes.set_yscale("symlog", linthresh=1)
    axes.set(xlabel=axis, ylabel="images (log scale)", xlim=(0, 1), ylim=(0, None))
    axes.yaxis.set_major_formatter(_THOUSANDS)
    axes.set_title("Scores by true class")
    figure.legend(loc="outside lower center", ncols=3)
    save_figure(figure, path)


@styled
def draw_robustness(
    rows: Sequence[Mapping], *, shares: Mapping[str, Sequence[float]], title: str, path: Path
) -> None:
    """Accuracy after each change, and what became of the verdicts.

    Args:
        rows: {"name", "accuracy": {"value", "low", "high"}} of each change, the unchanged first.
        shares: {"turned": share of each row, "Uncertain": …}.
        title: Which images.
        path: Where the PNG goes.
    """
    figure, (left, right) = new_figure(1, 2, width=12.5, height=1.6 + 0.42 * len(rows))
    positions = np.arange(len(rows))
    values = np.array([[row["accuracy"][key] for key in ("value", "low", "high")] for row in rows])
    left.axvline(values[0, 0], color=GREY, lw=1.4, ls=":", label="unchanged")
    left.hlines(positions, values[:, 1], values[:, 2], color=BLUE, lw=3, alpha=0.5)
    left.plot(values[:, 0], positions, "o", color=BLUE, label="accuracy, 95 % interval")
    left.set_yticks(positions, [row["name"] for row in rows])
    left.set(ylim=(len(rows) - 0.4, -0.6), xlabel="accuracy", title=title)
    left.xaxis.set_major_formatter(PercentFormatter(1.0))
    start = np.zeros(len(rows))
    for i, (name, share) in enumerate(shares.items()):
        colour, hatch = ((VERMILION, ""), (GREY, "//"))[i % 2]
        right.barh(
            positions,
            share,
            0.7,
            left=start,
            label=name,
            color=colour,
            hatch=hatch,
            edgecolor="white",
        )
        start = start + np.asarray(share)
    right.set_yticks(positions, [""] * len(rows))
    right.set(ylim=(len(rows) - 0.4, -0.6), xlabel="share of verdicts", title="Verdicts")
    right.xaxis.set_major_formatter(PercentFormatter(1.0))
    figure.legend(loc="outside lower center", ncols=4)
    save_figure(figure, path)


@styled
def draw_risk_coverage(
    curves: Sequence[Curve],
    *,
    chosen: Mapping[str, tuple[float, float]],
    rules: Sequence[Mapping],
    path: Path,
) -> None:
    """Mistakes against coverage, and the coverage that each rule for thresholds allows.

    Args:
        curves: Coverage and share of mistakes of each split.
        chosen: Both of each split at the model's thresholds.
        rules: The `threshold_rules` of `metrics.json`; empty draws the first panel only.
        path: Where the PNG goes.
    """
    figure, panels = new_figure(1, 2 if rules else 1, width=12.0 if rules else 6.6, height=5.6)
    for i, curve in enumerate(curves):
        look = {"color": class_colour(i), "ls": line_style(i)}
        panels[0].plot(curve.x, curve.y, label=f"{curve.name} (n = {curve.n:,})", **look)
        if curve.name in chosen:
            label = f"{curve.name}, at the thresholds"
            panels[0].plot(*chosen[curve.name], "o", ms=11, color=class_colour(i), label=label)
    panels[0].set(xlabel="coverage", ylabel="share of mistakes in it", title="Risk and coverage")
    for i, (name, title) in enumerate(
        (("worst_source", "worst source"), ("conformal", "conformal over sources"))
    ):
        lines = (("coverage", "-", "coverage"), ("worst", ":", "most mistakes of a source"))
        for key, ls, what in lines if rules else ():
            panels[1].plot(
                [row["rate"] for row in rules],
                [row[name][key] for row in rules],
                color=class_colour(i),
                ls=ls,
                marker="os"[i],
                label=f"{title}: {what}",
            )
    if rules:
        panels[1].set(xlabel="stated rate of false alarms and misses", title="Rules for thresholds")
    for axes in panels:
        axes.set_ylim(bottom=-0.02)
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    figure.legend(loc="outside lower center", ncols=2)
    save_figure(figure, path)


def _mark_stages(axes: Axes, epochs: Sequence, stages: Sequence[str]) -> None:
    """A line where one stage of training gives way to the next, with both names."""
    changes = [i for i in range(1, len(stages)) if stages[i] != stages[i - 1]]
    for i in changes:
        middle = (epochs[i] + epochs[i - 1]) / 2
        axes.axvline(middle, color="black", lw=1.2, ls=":")
        for text, side in ((f"{stages[i - 1]} ", "right"), (f" {stages[i]}", "left")):
            axes.text(
                middle,
                0.995,
                text,
                ha=side,
                va="top",
                fontsize=10,
                color=GREY,
                transform=axes.get_xaxis_transform(),
            )
