"""Show each model's quality and training, compare two, and follow one in training.

Run folders are read while they are written: a file that is missing, damaged or half written gives
what can be read of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from real_vs_ai.files import list_folders
from real_vs_ai.model_file import ModelFileError, ModelMetadata, read_metadata
from real_vs_ai.reporting import plural
from real_vs_ai.runs import RunFolder, list_runs
from real_vs_ai.runs import read_history as read_columns
from real_vs_ai.ui.model_choice import show_how_to_get_a_model
from real_vs_ai.ui.wording import (
    as_markdown,
    harmless_markdown,
    judges_photographs,
    known_sizes,
    percent,
    visible,
)

_LIVE_SECONDS = 3
# Text files of a run are small; a larger one is not what its name says.
_MOST_BYTES = 20 * 2**20
_MOST_FIGURES = 60
_VALIDATION_PREFIX = "val_"
# Columns of history.csv that are no curves.
_NOT_CURVES = frozenset({"epoch", "stage", "learning_rate", "seconds", "images_per_second"})
_NETWORK = "network"
# These are counts.
_COUNTS = frozenset({"n", "n_images", "count"})
# These are neither counts nor shares from 0 to 1.
_NOT_SHARES = frozenset({"loss", "brier_score"})
_HEADLINES = ("uncertain_share", "error_when_certain", "roc_auc")
# In the order of the table.
_METRIC_WORDS = {
    "n": "Pictures",
    "uncertain_share": "Pictures without an answer",
    "error_when_certain": "Wrong among the answers",
    "accuracy": "Right, if every picture must get an answer (accuracy)",
    "recall": "AI-generated pictures found then (recall)",
    "false_positive_rate": "Real pictures called AI-generated then (false positives)",
    "precision": "Right when it says AI-generated then (precision)",
    "balanced_accuracy": "Right, each class counted alike (balanced accuracy)",
    "f1": "Precision and recall in one (F1)",
    "roc_auc": "Pairs ranked correctly (ROC AUC)",
    "average_precision": "Precision over all thresholds (average precision)",
    "recall_at_1_percent_fpr": "Found, if 1 % of real pictures may be accused",
    "recall_at_5_percent_fpr": "Found, if 5 % of real pictures may be accused",
    "expected_calibration_error": "Gap between stated and true probability (calibration error)",
    "brier_score": "Squared error of the probability (Brier score)",
    "loss": "Loss (cross-entropy)",
}
_FIGURE_TITLES = {
    "class_distribution": "Pictures of each class",
    "confusion_matrix": "Verdicts on pictures of each class",
    "confusion_matrix_validation": "Verdicts on pictures of each class, validation",
    "history": "Training, epoch by epoch",
    "precision_recall": "Found pictures and right alarms, over all thresholds",
    "reliability": "Stated probability and what was seen",
    "robustness": "What recompressing, resizing and other changes do",
    "roc": "Found pictures and false alarms, over all thresholds",
    "scores": "How the probabilities are spread",
}


@dataclass(frozen=True)
class Metric:
    """A metric and its 95 % interval; `low` and `high` are None where there is none."""

    value: float
    low: float | None = None
    high: float | None = None


def show_models_page(*, models_dir: Path) -> None:
    """Draw the page for the runs in `models_dir`."""
    st.title("Models")
    runs = {visible(run.name): run for run in list_runs(models_dir)}
    training = unfinished_runs(models_dir)
    if not runs and not training:
        show_how_to_get_a_model(models_dir)
        return
    one, two, live = st.tabs(
        [
            ":material/model_training: One model",
            ":material/compare_arrows: Compare two",
            ":material/monitoring: In training",
        ],
        on_change="rerun",
        default=None if runs else ":material/monitoring: In training",
        key="models_tabs",
    )
    with one:
        if one.open and runs:
            _show_run(_choose_run(runs))
    with two:
        if two.open:
            _show_comparison(runs)
    with live:
        if live.open:
            _show_training(training)


def _choose_run(runs: dict[str, RunFolder]) -> RunFolder:
    """Offer the models with what each judges, first the one for photographs."""
    known = {name: _metadata_of(run) for name, run in runs.items()}
    names = sorted(runs, key=lambda name: not (known[name] and judges_photographs(known[name])))

    def describe(name: str) -> str:
        sizes = known_sizes([known[name]]) if known[name] else ""
        return f"{name}: for pictures of {sizes}" if sizes else name

    return runs[st.selectbox("Model", names, format_func=describe, key="shown_run")]


def _metadata_of(run: RunFolder) -> ModelMetadata | None:
    try:
        return read_metadata(run.model)
    except (OSError, ModelFileError):
        return None


def _show_run(run: RunFolder) -> None:
    metrics = read_metrics(run)
    st.header("How good it is")
    if metrics:
        _show_headline(metrics)
        with st.expander("All metrics", icon=":material/table:"):
            st.markdown(metrics_table(metrics))
            st.caption("In brackets the 95 % interval.")
    else:
        st.info("This model came without metrics.", icon=":material/info:")
    curves = read_history(run.history)
    if curves:
        with st.expander("How it was trained", icon=":material/show_chart:"):
            _show_curves({run.name: curves})
    figures = _list_figures(run)
    # The drawing is many times higher than wide, so it has a place of its own.
    drawing = [path for path in figures if path.stem == _NETWORK]
    others = [path for path in figures if path.stem != _NETWORK]
    for title, paths, columns in (("Figures", others, 2), ("Drawing of the network", drawing, 1)):
        if paths:
            with (
                st.expander(title, icon=":material/image:"),
                st.grid(columns=columns, min_column_width=340),
            ):
                for path in paths:
                    _show_figure(path)
    card = _read_text(run.model_card)
    if card:
        with st.expander("Model card", icon=":material/description:"):
            st.markdown(harmless_markdown(card))


def _show_headline(metrics: dict[str, dict[str, Metric]]) -> None:
    """The few numbers to know, of the first split: the test images where there are any."""
    split, numbers = next(iter(metrics.items()))
    with st.grid(columns=3, min_column_width=260):
        for name in filter(numbers.get, _HEADLINES):
            metric = numbers[name]
            with st.container(border=True):
                st.metric(_words(name), percent(metric.value, digits=1))
                if metric.low is not None:
                    low, high = percent(metric.low, digits=1), percent(metric.high, digits=1)
                    st.caption(f"95% interval: {low} to {high}")
    count = f"{numbers['n'].value:,.0f} " if "n" in numbers else ""
    st.caption(f"On {count}{as_markdown(split)} pictures. On other pictures it can be far worse.")


def _show_figure(path: Path) -> None:
    name = visible(path.stem.replace("_", " ").replace("-", " ")).capitalize()
    title = _FIGURE_TITLES.get(path.stem, name)
    with st.container(border=True):
        try:
            st.image(path.read_bytes(), alt=f"Figure: {title}", width="stretch")
        except (OSError, ValueError, SyntaxError):
            st.warning("This figure cannot be read.", icon=":material/broken_image:")
        st.caption(as_markdown(title))


def _show_comparison(runs: dict[str, RunFolder]) -> None:
    if len(runs) < 2:
        st.info("There is only one model yet, so none to compare it with.", icon=":material/info:")
        return
    names = list(runs)
    left, right = st.columns(2)
    first = left.selectbox("First model", names, index=0, key="first_run")
    second = right.selectbox("Second model", names, index=1, key="second_run")
    if first == second:
        st.info("Choose two different models.", icon=":material/info:")
        return
    tables = [read_metrics(runs[name]).get("test", {}) for name in (first, second)]
    if all(tables):
        st.header("On their test pictures")
        st.markdown(difference_table(tables[0], tables[1], names=(first, second)))
        st.caption(
            "Compare only models tested on the same pictures. Where the intervals overlap, the "
            "difference may be chance; `python ModelEvaluation.py` tests it."
        )
    else:
        st.info("Not both of them have metrics on test images.", icon=":material/info:")
    histories = {name: read_history(runs[name].history) for name in (first, second)}
    if any(histories.values()):
        st.header("Training")
        _show_curves(histories)


def _show_training(training: Sequence[RunFolder]) -> None:
    if not training:
        st.info(
            "No run is in training. `python ModelTraining.py` starts one; it appears here with "
            "its first finished epoch.",
            icon=":material/info:",
        )
        return
    runs = {visible(run.name): run for run in training}
    name = st.selectbox("Run", list(runs), key="live_run")
    _show_live(runs[name])


@st.fragment(run_every=_LIVE_SECONDS)
def _show_live(run: RunFolder) -> None:
    if run.metrics.is_file():
        st.success("This run has finished. Reload the page to see it.", icon=":material/flag:")
        return
    curves = read_history(run.history)
    epochs = plural(len(curves.get("loss", {}).get("train", ())), "epoch")
    st.caption(f"{epochs} so far; looks again every {_LIVE_SECONDS} seconds.")
    if curves:
        _show_curves({run.name: curves})


def _show_curves(histories: dict[str, dict[str, dict[str, list[float]]]]) -> None:
    """One chart for each quantity, a line for each run and split."""
    import pandas as pd

    quantities = list(dict.fromkeys(name for curves in histories.values() for name in curves))
    with st.grid(columns=2, min_column_width=340):
        for quantity in quantities:
            lines = {
                f"{visible(run)}, {split}" if len(histories) > 1 else split: pd.Series(
                    values, index=range(1, len(values) + 1)
                )
                for run, curves in histories.items()
                for split, values in curves.get(quantity, {}).items()
            }
            title = quantity.replace("_", " ")
            with st.container():
                st.markdown(f"**{as_markdown(title)}**")
                st.line_chart(
                    pd.DataFrame(lines), x_label="epoch", height=240, alt=f"{title} over the epochs"
                )


def metrics_table(metrics: dict[str, dict[str, Metric]]) -> str:
    """Markdown: a row for each metric, a column for each split."""
    splits = list(metrics)
    names = _in_order({name for values in metrics.values() for name in values})
    lines = [f"| Metric | {' | '.join(splits)} |", "|---" * (len(splits) + 1) + "|"]
    for name in names:
        cells = [_cell(name, metrics[split].get(name)) for split in splits]
        lines.append(f"| {as_markdown(_words(name))} | {' | '.join(cells)} |")
    return "\n".join(lines)


def difference_table(
    first: dict[str, Metric], second: dict[str, Metric], *, names: tuple[str, str]
) -> str:
    """Markdown: the metrics that both have, and the second minus the first."""
    heads = " | ".join(as_markdown(name) for name in names)
    lines = [f"| Metric | {heads} | Difference |", "|---|---|---|---|"]
    for name in _in_order(first.keys() & second.keys()):
        difference = second[name].value - first[name].value
        cells = f"{_cell(name, first[name])} | {_cell(name, second[name])}"
        lines.append(f"| {as_markdown(_words(name))} | {cells} | {_change(name, difference)} |")
    return "\n".join(lines)


def _words(name: str) -> str:
    return _METRIC_WORDS.get(name, visible(name.replace("_", " ")).capitalize())


def _in_order(names: Iterable[str]) -> list[str]:
    known = list(_METRIC_WORDS)
    return sorted(names, key=lambda name: (known.index(name) if name in known else 99, name))


def _change(name: str, difference: float) -> str:
    if name in _COUNTS or math.isnan(difference):
        return ""
    if name in _NOT_SHARES:
        return f"{difference:+.4f}"
    return f"{100 * difference:+.2f} points"


def _cell(name: str, metric: Metric | None) -> str:
    if metric is None:
        return ""
    if name in _COUNTS:
        return f"{metric.value:,.0f}"

    def shown(value: float) -> str:
        return f"{value:.4f}" if name in _NOT_SHARES else percent(value, digits=2)

    if metric.low is None:
        return shown(metric.value)
    # Resampled calibration errors are too high; older reports did not correct that.
    biased = "" if metric.low <= metric.value <= metric.high else ", biased"
    return f"{shown(metric.value)} ({shown(metric.low)} to {shown(metric.high)}{biased})"


def unfinished_runs(models_dir: Path) -> list[RunFolder]:
    """Runs that have begun and have no final metrics yet, newest first."""
    folders = map(RunFolder, list_folders(models_dir))
    begun = [run for run in folders if run.history.is_file() and not run.metrics.is_file()]
    return sorted(begun, key=lambda run: run.history.stat().st_mtime, reverse=True)


def read_metrics(run: RunFolder) -> dict[str, dict[str, Metric]]:
    """The metrics of each split, the test images' first; {} when there are none."""
    try:
        document = json.loads(_read_text(run.metrics))
    except ValueError:
        return {}
    splits = {}
    for split in ("test", "validation", "train"):
        entries = document.get(split) if isinstance(document, Mapping) else None
        parts = entries.items() if isinstance(entries, Mapping) else ()
        splits[split] = {name: metric for name, part in parts if (metric := _metric(part))}
    return {split: metrics for split, metrics in splits.items() if metrics}


def _metric(entry: Any) -> Metric | None:
    parts = entry if isinstance(entry, Mapping) else {"value": entry}
    value, low, high = (_number(parts.get(name)) for name in ("value", "low", "high"))
    if value is None:
        return None
    return Metric(value) if None in (low, high) else Metric(value, low, high)


def _number(told: Any) -> float | None:
    try:
        number = float(told)
    except (TypeError, ValueError, OverflowError):
        return None
    return None if math.isnan(number) else number


def read_history(path: Path) -> dict[str, dict[str, list[float]]]:
    """The curves of `history.csv`: of each quantity those of "train" and "validation".

    A curve has a number for each epoch, NaN where the file has none.
    """
    curves: dict[str, dict[str, list[float]]] = {}
    for column, values in read_columns(path, strict=False).items():
        if column.casefold() in _NOT_CURVES or all(map(math.isnan, values)):
            continue
        name = column.removeprefix(_VALIDATION_PREFIX)
        curves.setdefault(name, {})["train" if name == column else "validation"] = values
    return curves


def _list_figures(run: RunFolder) -> list[Path]:
    return sorted(p for p in run.figures.glob("*.png") if p.is_file())[:_MOST_FIGURES]


def _read_text(path: Path) -> str:
    """A small text file's content, or "" when there is none that can be read."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            return ""
        return path.read_text(encoding="utf-8", errors="replace").replace("\0", "�")
    except OSError:
        return ""
