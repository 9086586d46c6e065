"""Draw figures in one style: images of each class, history, verdicts, and the worst mistakes.

Fonts are legible at half size, and colours differ for colour-blind readers.

>>> history = {"epoch": [1.0, 2.0, 3.0], "val_loss": [0.7, 0.5, 0.6]}
>>> kept_epoch(history, keep="best"), kept_epoch(history, keep="last")
(2.0, 3.0)
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter
from sklearn.metrics import confusion_matrix

from real_vs_ai.core.config import UNCERTAIN
from real_vs_ai.core.files import atomic_write
from real_vs_ai.core.reporting import plural
from real_vs_ai.dataset.labelled_images import LabelledImages
from real_vs_ai.evaluation.judging import middle_view
from real_vs_ai.models.model_file import ModelMetadata
from real_vs_ai.serving.engines import Engine
from real_vs_ai.serving.explanation import enlarge, occlude, overlay_heatmap, scale_to_1
from real_vs_ai.verdicts.predictions import Predictions
from real_vs_ai.verdicts.verdict import UNDECIDED

# Okabe & Ito's palette: told apart with every common colour blindness, and in print.
VERMILION, BLUE, GREEN, ORANGE = "#D55E00", "#0072B2", "#009E73", "#E69F00"
PURPLE, SKY, BLACK, GREY = "#CC79A7", "#56B4E9", "#000000", "#6E6E6E"
# Fake and Real in this order; further classes take the next ones.
CLASS_COLOURS = (VERMILION, BLUE, GREEN, ORANGE, PURPLE, SKY, BLACK)
# Lines differ by dashes as well, for black-and-white print.
LINE_STYLES = ("-", "--", "-.", ":")
DOTS_PER_INCH = 200
THOUSANDS = StrMethodFormatter("{x:,.0f}")

STYLE = {
    "font.size": 14,
    "axes.titlesize": 15,
    "axes.labelsize": 14,
    "xtick.labelsize": 12,
    "ytick.labelsize": 12,
    "legend.fontsize": 12,
    "lines.linewidth": 2.2,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.8,
    "legend.frameon": True,
    "legend.framealpha": 0.9,
    "legend.edgecolor": "none",
    "figure.facecolor": "white",
    # Class names and sources are data: "$" in them must not start a formula.
    "text.parse_math": False,
}

_HISTORY_PANELS = {
    "loss": "Loss (cross-entropy + L2)",
    "accuracy": "Accuracy",
    "precision": "Precision",
    "recall": "Recall",
    "auc": "ROC AUC",
    "f1": "F1",
}
# Further sources of a split share a bar.
_MOST_SOURCES = 12
_MOST_MISTAKES = 12
# Parts on each side of a picture whose share in the answer is shown.
_PARTS = 4
_PAIRS_IN_A_ROW = 3
_OVERLAY_STRENGTH = 0.65
_NAME_LENGTH = 20


# Makes a drawing function use the house style, whatever the user's settings are.
styled = style.context(STYLE, after_reset=True)


def new_figure(
    rows: int = 1, columns: int = 1, *, width: float = 7.0, height: float = 5.0
) -> tuple[Figure, list[Axes]]:
    """An empty figure of the house style, sizes in inches; no window, no global state."""
    figure = Figure(figsize=(width, height))
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.ravel())


def save_figure(figure: Figure, path: Path, *, legend_columns: int = 0) -> None:
    """Write a figure as PNG, whole or not at all; the same figure gives the same bytes.

    Args:
        legend_columns: Of a legend of all panels below them; 0 for none.
    """
    if legend_columns:
        figure.legend(loc="outside lower center", ncols=legend_columns)
    with atomic_write(path) as staging, warnings.catch_warnings():
        # Names in scripts that the font lacks are drawn as boxes; that is no news to the user.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(staging, dpi=DOTS_PER_INCH, metadata={"Software": None})


def line_look(index: int) -> dict[str, Any]:
    """The colour and the dashes of the nth class or line."""
    return {
        "color": CLASS_COLOURS[index % len(CLASS_COLOURS)],
        "ls": LINE_STYLES[index % len(LINE_STYLES)],
    }


def shorten(text: str, length: int = 24) -> str:
    """A name that fits into a figure, on one line."""
    text = "".join(character if character.isprintable() else "?" for character in text)
    return text if len(text) <= length else f"{text[: length - 1]}…"


@styled
def draw_history(history: Mapping[str, Sequence[Any]], *, keep: str, path: Path) -> None:
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
            look: dict[str, Any] = {"color": ORANGE, "ls": "--", "marker": "s", "ms": 4}
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


def kept_epoch(history: Mapping[str, Sequence[Any]], *, keep: str) -> float | None:
    """The epoch whose weights were kept; None without validation losses to choose it by.

    Args:
        keep: "last", or "best" for the epoch with the lowest validation loss, as training has it.
    """
    losses = np.array(history.get("val_loss", ()), dtype=float)
    if keep == "last":
        return history["epoch"][-1]
    return history["epoch"][int(np.nanargmin(losses))] if np.isfinite(losses).any() else None


def _mark_stages(axes: Axes, epochs: Sequence[Any], stages: Sequence[str]) -> None:
    """A line where one stage of training gives way to the next, with both names."""
    changes = [i for i in range(1, len(stages)) if stages[i] != stages[i - 1]]
    for i in changes:
        middle = (epochs[i] + epochs[i - 1]) / 2
        axes.axvline(middle, color="black", lw=1.2, ls=":")
        for text, side in ((f"{stages[i - 1]} ", "right"), (f" {stages[i]}", "left")):
            transform = axes.get_xaxis_transform()
            axes.text(
                middle, 0.995, text, fontsize=10, color=GREY, ha=side, va="top", transform=transform
            )


@styled
def draw_class_distribution(
    counts: Mapping[str, Mapping[str, int]],
    sources: Mapping[str, Mapping[str, Mapping[str, int]]],
    *,
    path: Path,
) -> None:
    """Images of each class in each split; where there are several sources, also of each source.

    Args:
        counts: {"train": {"Fake": 50, "Real": 48}, "validation": …}.
        sources: {"train": {"Fake": {"cifake": 30, "mine": 20}, "Real": …}, …}.
    """
    names = list(dict.fromkeys(name for split in counts.values() for name in split))
    several = {
        split: by_class
        for split, by_class in sources.items()
        if len({source for found in by_class.values() for source in found}) > 1
    }
    columns = 2 if several else 1
    rows = -(-(1 + len(several)) // columns)
    width = 7.0 * columns if several else max(7.0, 1.1 * len(counts) * len(names))
    figure, panels = new_figure(rows, columns, width=width, height=5.4 * rows)
    _draw_classes(panels[0], counts, names)
    for axes, (split, by_class) in zip(panels[1:], several.items(), strict=False):
        _draw_sources(axes, split, by_class, names)
    for axes in panels[1 + len(several) :]:
        axes.set_visible(False)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(names)))
    save_figure(figure, path)


def _class_look(index: int) -> dict[str, Any]:
    hatch = "" if index % 2 == 0 else "//"
    colour = CLASS_COLOURS[index % len(CLASS_COLOURS)]
    return {"color": colour, "hatch": hatch, "edgecolor": "white"}


def _draw_classes(
    axes: Axes, counts: Mapping[str, Mapping[str, int]], names: Sequence[str]
) -> None:
    width = 0.8 / len(names)
    for i, name in enumerate(names):
        values = [split.get(name, 0) for split in counts.values()]
        places = np.arange(len(counts)) + (i - (len(names) - 1) / 2) * width
        bars = axes.bar(places, values, width * 0.92, label=shorten(name), **_class_look(i))
        axes.bar_label(bars, labels=[f"{value:,}" for value in values], padding=3, fontsize=12)
    ticks = [f"{split}\n{plural(sum(found.values()), 'image')}" for split, found in counts.items()]
    axes.set_xticks(range(len(counts)), ticks)
    axes.set(ylabel="images", title="Images of each class")
    axes.margins(y=0.12)
    axes.yaxis.set_major_formatter(THOUSANDS)
    axes.grid(visible=False, axis="x")


def _draw_sources(
    axes: Axes, split: str, by_class: Mapping[str, Mapping[str, int]], names: Sequence[str]
) -> None:
    """The largest sources of a split, and all others together, each class in its colour."""
    totals: Counter[str] = Counter()
    for found in by_class.values():
        totals.update(found)
    largest = [source for source, _ in totals.most_common(_MOST_SOURCES)]
    others = [source for source in totals if source not in set(largest)]
    bars = [([source], shorten(source)) for source in largest]
    bars += [(others, plural(len(others), "other"))] if others else []
    reached = np.zeros(len(bars))
    for i, name in enumerate(names):
        found = by_class.get(name, {})
        values = np.array([sum(found.get(source, 0) for source in some) for some, _ in bars])
        axes.barh(range(len(bars)), values, left=reached, **_class_look(i))
        reached += values
    axes.set_yticks(range(len(bars)), [label for _, label in bars])
    axes.invert_yaxis()
    axes.set(xlabel="images", title=f"{split}: {len(totals):,} sources")
    axes.xaxis.set_major_formatter(THOUSANDS)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(visible=False, axis="y")


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
            f"{counts[row, column]:,}\n{100 * shares[row, column]:.1f} %",
            ha="center",
            va="center",
            fontsize=16 if width < 5 else 11,
            color="white" if shares[row, column] > 0.55 else "black",
        )
    names = [shorten(name, 16) for name in (*rows.class_names, UNCERTAIN)]
    axes.set_xticks(range(width), names)
    ticks = [f"{name}\n(n = {n:,})" for name, n in zip(names[:-1], totals[:, 0], strict=True)]
    axes.set_yticks(range(height), ticks)
    title = f"{split}: verdicts on {plural(len(rows), 'image')}"
    axes.set(xlabel="verdict", ylabel="true class", title=title)
    axes.grid(visible=False)
    bar = figure.colorbar(image, ax=axes, shrink=0.85, format=PercentFormatter(1.0, decimals=0))
    bar.set_label("share of the true class")
    save_figure(figure, path)


def most_confident_mistakes(rows: Predictions, *, most: int) -> np.ndarray:
    """Positions of the errors of highest confidence, first the worst; equal ones in their order."""
    confidence = rows.calibrated.max(axis=1)
    wrong = np.flatnonzero(~rows.is_right)
    return wrong[np.argsort(-confidence[wrong], kind="stable")][:most]


def draw_mistakes(
    rows: Predictions,
    images: LabelledImages,
    *,
    metadata: ModelMetadata,
    engine: Engine,
    path: Path,
) -> None:
    """Draw a sheet of the worst mistakes; a model without any leaves no sheet, not even an old one.

    Args:
        rows: The verdicts on the images of one split, in their order.
        engine: That of the model that gave them.
    """
    worst = most_confident_mistakes(rows, most=_MOST_MISTAKES)
    if not len(worst):
        path.unlink(missing_ok=True)
        return
    # The crop in the middle stands for several: the sheet has room for one picture of each.
    pixels = np.stack([middle_view(images.root / images.paths[i], metadata) for i in worst])
    title = (
        f"The {len(worst)} most confident of {plural(int(np.sum(~rows.is_right)), 'error')} on "
        f"{plural(len(rows), 'image')} of {rows.splits[0]}\n"
        "(right of each: the parts that speak for the predicted class, by occlusion)"
    )
    shown = rows.take(worst)
    heatmaps = _heatmaps(engine, pixels, shown, n_classes=len(metadata.class_names))
    _draw_sheet(shown, pixels, heatmaps, title=title, path=path)


def _heatmaps(
    engine: Engine, inputs: np.ndarray, rows: Predictions, *, n_classes: int
) -> list[np.ndarray]:
    effects = occlude(
        lambda some: engine.predict(some)[:, :n_classes],
        inputs,
        class_indices=rows.calibrated.argmax(axis=1).tolist(),
        colours=inputs.mean(axis=(1, 2)),
        parts=_PARTS,
    )
    return [scale_to_1(enlarge(of_input, inputs.shape[1:3])) for of_input in effects]


@styled
def _draw_sheet(
    rows: Predictions, pixels: np.ndarray, heatmaps: Sequence[np.ndarray], *, title: str, path: Path
) -> None:
    lines = -(-len(rows) // _PAIRS_IN_A_ROW)
    figure, axes = new_figure(lines, 2 * _PAIRS_IN_A_ROW, width=13.5, height=2.75 * lines + 1.0)
    for panel in axes:
        panel.set_axis_off()
    names = [shorten(name, 12) for name in rows.class_names]
    for i, (image, of_classes) in enumerate(zip(pixels, rows.calibrated, strict=True)):
        left, right = axes[2 * i : 2 * i + 2]
        left.imshow(image, interpolation="nearest")
        left.set_title(f"is {names[rows.labels[i]]}\n{_short_name(rows.paths[i])}", fontsize=11)
        overlay = overlay_heatmap(image, heatmaps[i], strength=_OVERLAY_STRENGTH)
        right.imshow(overlay, interpolation="nearest")
        called = f"called {names[of_classes.argmax()]}\nwith {of_classes.max():.3f}"
        right.set_title(called, fontsize=11)
    figure.suptitle(title, fontsize=14)
    save_figure(figure, path)


def _short_name(path: str) -> str:
    """The end of a file's name, which tells images of one source apart."""
    name = shorten(PurePosixPath(path).name, 500)
    return name if len(name) <= _NAME_LENGTH else f"…{name[1 - _NAME_LENGTH :]}"
