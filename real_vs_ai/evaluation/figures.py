"""Draw figures from numbers; nothing is computed here.

Each function draws one PNG at `path`. What the numbers are is decided in report_figures.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter, StrMethodFormatter

from real_vs_ai.evaluation.figure_style import (
    BLUE,
    GREY,
    ORANGE,
    class_colour,
    enlarge_corner,
    label_bars,
    line_style,
    new_figure,
    percent,
    save_figure,
    shorten,
    stack_shares,
    styled,
    unit_square,
)
from real_vs_ai.evaluation.tables import interval_text

_HISTORY_PANELS = {
    "loss": "Loss (cross-entropy + L2)",
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "auc": "ROC AUC",
    "f1": "F1",
}
_THOUSANDS = StrMethodFormatter("{x:,.0f}")
# Curves are drawn a second time with this share of each axis enlarged.
_CORNER = 0.1
# Bins of fewer images than this say little.
_FEW = 30
# In percentage points of accuracy.
_LEAST_RANGE = 10.0


@dataclass(frozen=True)
class Curve:
    """A line to draw.

    Attributes:
        name: What it is of, for the legend.
        x: Shape (n_points,), 0 to 1.
        y: Shape (n_points,), 0 to 1.
        summary: The number that sums it up (area, average precision), with its interval.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    summary: dict[str, float] | None
    n: int


@dataclass(frozen=True)
class ReliabilityBins:
    """Stated probability and observed share, in equal-width bins; empty bins are left out.

    Attributes:
        stated: Mean probability in each bin, shape (n_bins,).
        observed: Share of images of the class in each bin, shape (n_bins,).
        counts: Images in each bin, shape (n_bins,).
        error: Expected calibration error.
        margins: How far the 95 % interval of each observed share (Wilson 1927) reaches below and
            above it, shape (2, n_bins).
    """

    name: str
    stated: np.ndarray
    observed: np.ndarray
    counts: np.ndarray
    error: float
    margins: np.ndarray


@styled
def draw_history(history: Mapping[str, Sequence], *, kept_epoch: float | None, path: Path) -> None:
    """Training and validation curves by epoch, one panel for each metric that was recorded.

    Args:
        history: The columns of `history.csv`: "epoch", "stage", "loss", "val_loss", …
        kept_epoch: The epoch whose weights were kept; marked.
    """
    names = [name for name in _HISTORY_PANELS if name in history]
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, panels = new_figure(rows, columns, width=4.4 * columns, height=3.7 * rows + 0.5)
    for name, axes in zip(names, panels, strict=False):
        epochs = history["epoch"]
        axes.plot(epochs, history[name], color=BLUE, marker="o", ms=4, label="training")
        if f"val_{name}" in history:
            look = {"color": ORANGE, "ls": "--", "marker": "s", "ms": 4}
            axes.plot(epochs, history[f"val_{name}"], label="validation", **look)
        _mark_stages(axes, epochs, history.get("stage", ()))
        if kept_epoch is not None:
            axes.axvline(kept_epoch, color=GREY, lw=6, alpha=0.25, label="weights kept")
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
    save_figure(figure, path, legend_columns=min(6, len(class_names)))


@styled
def draw_confusion_matrix(
    matrix: Sequence[Sequence[int]],
    *,
    class_names: Sequence[str],
    verdicts: Sequence[str],
    title: str,
    path: Path,
) -> None:
    """Counts, and shares of each true class: rows are true classes, columns verdicts."""
    counts = np.asarray(matrix)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros(counts.shape), where=totals > 0)
    rows, columns = counts.shape
    figure, (axes,) = new_figure(width=4.2 + 1.2 * columns, height=3.2 + 1.1 * rows)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(rows, columns):
        axes.text(
            column,
            row,
            f"{counts[row, column]:,}\n{percent(shares[row, column])}",
            ha="center",
            va="center",
            fontsize=16 if columns < 5 else 11,
            color="white" if shares[row, column] > 0.55 else "black",
        )
    axes.set_xticks(range(columns), [shorten(name, 16) for name in verdicts])
    names = [shorten(name, 16) for name in class_names]
    ticks = [f"{name}\n(n = {n:,})" for name, n in zip(names, totals[:, 0], strict=True)]
    axes.set_yticks(range(rows), ticks)
    axes.set(xlabel="verdict", ylabel="true class", title=title)
    axes.grid(visible=False)
    bar = figure.colorbar(image, ax=axes, shrink=0.85, format=PercentFormatter(1.0, decimals=0))
    bar.set_label("share of the true class")
    save_figure(figure, path)


@styled
def draw_roc(curves: Sequence[Curve], *, positive: str, path: Path) -> None:
    """Recall against false-positive rate, whole and near the corner, with area and interval."""
    figure, panels = new_figure(1, 2, width=12.0, height=7.2)
    panels[0].plot([0, 1], [0, 1], color=GREY, lw=1.2, ls=":", label="chance")
    _draw_curves(curves, panels, "AUC")
    unit_square(panels[0], x="false-positive rate", y="recall (true-positive rate)")
    panels[0].set_title(f"ROC curve, {positive}")
    at_least = min(float(np.interp(_CORNER / 10, curve.x, curve.y)) for curve in curves)
    enlarge_corner(panels[1], x=(0, _CORNER), y=(at_least, 1), like=panels[0])
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    save_figure(figure, path)


@styled
def draw_precision_recall(
    curves: Sequence[Curve], *, positive: str, prevalence: float | None, path: Path
) -> None:
    """Precision against recall, whole and near the corner, with average precision and interval."""
    figure, panels = new_figure(1, 2, width=12.0, height=7.2)
    if prevalence is not None:
        label = f"chance ({percent(prevalence)})"
        panels[0].axhline(prevalence, color=GREY, lw=1.2, ls=":", label=label)
    _draw_curves(curves, panels, "AP")
    unit_square(panels[0], x="recall", y="precision")
    panels[0].set_title(f"Precision and recall, {positive}")
    start = 1 - 2 * _CORNER
    at_least = min(float(curve.y[curve.x >= start].min(initial=1)) for curve in curves)
    middle = min(float(np.interp(1 - _CORNER / 2, curve.x, curve.y)) for curve in curves)
    enlarge_corner(panels[1], x=(start, 1), y=(max(at_least, 2 * middle - 1), 1), like=panels[0])
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    save_figure(figure, path)


def _draw_curves(curves: Sequence[Curve], panels: Sequence[Axes], summary: str) -> None:
    for i, curve in enumerate(curves):
        name = f"{shorten(curve.name)} (n = {curve.n:,})"
        label = f"{name}\n{summary} {interval_text(curve.summary, digits=3)}"
        for axes in panels:
            axes.plot(curve.x, curve.y, color=class_colour(i), ls=line_style(i), label=label)


@styled
def draw_reliability(
    bins: Sequence[ReliabilityBins], *, stated: str, observed: str, path: Path
) -> None:
    """Stated probability against observed share with intervals, and how many images lie where."""
    figure, axes = new_figure(1, 2, width=12.0, height=6.6)
    axes[0].plot([0, 1], [0, 1], color=GREY, lw=1.2, ls=":", label="perfect calibration")
    for i, part in enumerate(bins):
        look = {"color": (ORANGE, BLUE)[i % 2], "marker": "os"[i % 2]}
        line = {"ls": ("--", "-")[i % 2]}
        label = f"{part.name}: ECE {part.error:.3f}"
        axes[0].errorbar(
            part.stated, part.observed, yerr=part.margins, capsize=3, label=label, **look, **line
        )
        few = part.counts < _FEW
        axes[0].plot(part.stated[few], part.observed[few], ls="", mfc="white", ms=9, **look)
        axes[1].plot(part.stated, part.counts, **look, **line)
    unit_square(axes[0], x=stated, y=observed)
    axes[0].set_title(f"Reliability, 95 % intervals\n(hollow: fewer than {_FEW} images)")
    axes[1].axhline(_FEW, color=GREY, lw=1.2, ls=":")
    axes[1].set(xlabel=stated, ylabel="images in the bin (log scale)", xlim=(-0.03, 1.03))
    axes[1].set_yscale("log")
    axes[1].set_ylim(bottom=0.8)
    axes[1].yaxis.set_major_formatter(_THOUSANDS)
    axes[1].yaxis.set_minor_formatter(NullFormatter())
    axes[1].set_title(f"Where the {sum(bins[0].counts):,} images lie\n(dotted: {_FEW} images)")
    save_figure(figure, path, legend_columns=3)


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
        counts: Images in each bin between `edges`, for each true class.
        bounds: Of the Uncertain band; equal when there is none.
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
    save_figure(figure, path, legend_columns=3)


@styled
def draw_robustness(
    rows: Sequence[Mapping], *, shares: Mapping[str, Sequence[float]], title: str, path: Path
) -> None:
    """What each change does to the accuracy on the same images, and to the verdicts.

    Args:
        rows: {"name", "accuracy": {"value", "low", "high"}} of each change, the unchanged first.
            With "difference" of the same form, that paired interval is drawn.
        shares: {"turned": share of each row, "Uncertain": …}.
    """
    figure, (left, right) = new_figure(1, 2, width=12.5, height=1.8 + 0.42 * len(rows))
    positions = np.arange(len(rows))
    unchanged = rows[0]["accuracy"]["value"]
    paired = all("difference" in row for row in rows)
    key, offset = ("difference", 0.0) if paired else ("accuracy", unchanged)
    values = 100 * np.array(
        [[row[key][part] - offset for part in ("value", "low", "high")] for row in rows]
    )
    kind = "95 % interval of the difference" if paired else "95 % interval of the accuracy"
    left.axvline(0, color=GREY, lw=1.4, ls=":", label="unchanged")
    left.hlines(positions, values[:, 1], values[:, 2], color=BLUE, lw=3, alpha=0.5)
    left.plot(values[:, 0], positions, "o", color=BLUE, label=kind)
    left.set_yticks(positions, [row["name"] for row in rows])
    # The unchanged images stand at 0, and small differences must not look large.
    left.set(
        ylim=(len(rows) - 0.4, -0.6),
        xlim=(min(-_LEAST_RANGE, 1.05 * values.min()), max(2.0, 1.05 * values.max())),
        xlabel="change in accuracy, in percentage points",
        title=f"{title}, accuracy unchanged {percent(unchanged)}",
    )
    stack_shares(right, shares, positions)
    right.set_yticks(positions, [""] * len(rows))
    right.set(
        ylim=(len(rows) - 0.4, -0.6),
        xlim=(0, max(0.25, 1.05 * float(np.sum(list(shares.values()), axis=0).max()))),
        xlabel="share of verdicts",
        title="Verdicts",
    )
    right.xaxis.set_major_formatter(PercentFormatter(1.0))
    save_figure(figure, path, legend_columns=4)


@styled
def draw_risk_coverage(
    curves: Sequence[Curve], *, chosen: Mapping[str, tuple[float, float]], path: Path
) -> None:
    """Mistakes against coverage, when the most confident images are answered.

    Args:
        chosen: Coverage and share of mistakes of each split's verdicts.
    """
    figure, (axes,) = new_figure(width=6.6, height=5.6)
    for i, curve in enumerate(curves):
        look = {"color": class_colour(i), "ls": line_style(i)}
        axes.plot(curve.x, curve.y, label=f"{curve.name} (n = {curve.n:,})", **look)
        if curve.name in chosen:
            label = f"{curve.name}, the verdicts"
            axes.plot(*chosen[curve.name], "o", ms=11, color=class_colour(i), label=label)
    axes.set(xlabel="coverage", ylabel="share of mistakes in it", title="Risk and coverage")
    axes.set_ylim(bottom=-0.02)
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    save_figure(figure, path, legend_columns=2)


def _mark_stages(axes: Axes, epochs: Sequence, stages: Sequence[str]) -> None:
    """A line where one stage of training gives way to the next, with both names."""
    changes = [i for i in range(1, len(stages)) if stages[i] != stages[i - 1]]
    for i in changes:
        middle = (epochs[i] + epochs[i - 1]) / 2
        axes.axvline(middle, color="black", lw=1.2, ls=":")
        for text, side in ((f"{stages[i - 1]} ", "right"), (f" {stages[i]}", "left")):
            where = {"ha": side, "va": "top", "transform": axes.get_xaxis_transform()}
            axes.text(middle, 0.995, text, fontsize=10, color=GREY, **where)
