"""Show how good each model is: key figures, drawings and the model card.

Run folders may be incomplete: a file that is missing or damaged gives what can be read of it.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import streamlit as st

from real_vs_ai.files import read_json
from real_vs_ai.model_file import ModelFileError, ModelMetadata, read_metadata
from real_vs_ai.runs import RunFolder, list_runs
from real_vs_ai.ui.model_choice import show_how_to_get_a_model
from real_vs_ai.ui.wording import (
    as_markdown,
    harmless_markdown,
    judges_photographs,
    known_sizes,
    percent,
    visible,
)

_MOST_FIGURES = 60
# The model card has the other metrics.
_HEADLINES = {
    "uncertain_share": "Pictures without an answer",
    "error_when_certain": "Wrong among the answers",
    "roc_auc": "Pairs ranked correctly (ROC AUC)",
}
_FIGURE_TITLES = {
    "confusion_matrix": "Verdicts on pictures of each class",
    "confusion_matrix_validation": "Verdicts on pictures of each class, validation",
    "history": "Training, epoch by epoch",
    "precision_recall": "Found pictures and right alarms, over all thresholds",
    "reliability": "Stated probability and what was seen",
    "roc": "Found pictures and false alarms, over all thresholds",
    "scores": "How the probabilities are spread",
}


def show_models_page(*, models_dir: Path) -> None:
    """Draw the page for the runs in `models_dir`."""
    st.title("Models")
    runs = {visible(run.name): run for run in list_runs(models_dir)}
    if not runs:
        show_how_to_get_a_model(models_dir)
        return
    # First the one for photographs.
    known = {name: _metadata_of(run) for name, run in runs.items()}
    names = sorted(runs, key=lambda name: not (known[name] and judges_photographs(known[name])))

    def describe(name: str) -> str:
        sizes = known_sizes([known[name]]) if known[name] else ""
        return f"{name}: for pictures of {sizes}" if sizes else name

    _show_run(runs[st.selectbox("Model", names, format_func=describe, key="shown_run")])


def _metadata_of(run: RunFolder) -> ModelMetadata | None:
    try:
        return read_metadata(run.model)
    except (OSError, ModelFileError):
        return None


def _show_run(run: RunFolder) -> None:
    st.header("How good it is")
    _show_headlines(read_metrics(run))
    figures = sorted(p for p in run.figures.glob("*.png") if p.is_file())[:_MOST_FIGURES]
    if figures:
        with (
            st.expander("Figures", icon=":material/image:"),
            st.grid(columns=2, min_column_width=340),
        ):
            for path in figures:
                _show_figure(path)
    card = ""
    with contextlib.suppress(OSError):
        card = run.model_card.read_text(encoding="utf-8", errors="replace")
    if card:
        with st.expander("Model card, with all metrics", icon=":material/description:"):
            st.markdown(harmless_markdown(card))


def _show_headlines(metrics: dict[str, dict[str, float]]) -> None:
    """The few numbers to know."""
    if not metrics:
        st.info("This model came without metrics.", icon=":material/info:")
        return
    with st.grid(columns=3, min_column_width=260):
        for name, metric in metrics.items():
            with st.container(border=True):
                st.metric(_HEADLINES[name], percent(metric["value"], digits=1))
                if {"low", "high"} <= metric.keys():
                    low, high = (percent(metric[end], digits=1) for end in ("low", "high"))
                    st.caption(f"95% interval: {low} to {high}")
    st.caption("On its test pictures. On other pictures it can be far worse.")


def _show_figure(path: Path) -> None:
    name = visible(path.stem.replace("_", " ").replace("-", " ")).capitalize()
    title = _FIGURE_TITLES.get(path.stem, name)
    with st.container(border=True):
        try:
            st.image(path.read_bytes(), alt=f"Figure: {title}", width="stretch")
        except (OSError, ValueError, SyntaxError):
            st.warning("This figure cannot be read.", icon=":material/broken_image:")
        st.caption(as_markdown(title))


def read_metrics(run: RunFolder) -> dict[str, dict[str, float]]:
    """`value`, `low` and `high` of the headlines on the test images, of those that are there."""
    try:
        told = read_json(run.metrics)["test"]
        found = {name: _numbers(told[name]) for name in _HEADLINES if name in told}
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return {}
    return {name: metric for name, metric in found.items() if "value" in metric}


def _numbers(entry: Any) -> dict[str, float]:
    parts = entry if isinstance(entry, Mapping) else {"value": entry}
    return {
        name: float(parts[name])
        for name in ("value", "low", "high")
        if isinstance(parts.get(name), int | float) and math.isfinite(parts[name])
    }
