"""Show each model's quality and training, compare two, and follow one in training.

show_models_page(models_dir=Path("models"))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from real_vs_ai.reporting import plural
from real_vs_ai.runs import RunFolder, list_runs
from real_vs_ai.ui.model_choice import show_how_to_get_a_model
from real_vs_ai.ui.run_files import (
    Curve,
    Metric,
    list_figures,
    read_history,
    read_metrics,
    read_text,
    unfinished_runs,
)
from real_vs_ai.ui.wording import as_markdown, visible

_LIVE_SECONDS = 3
_NETWORK = "network"
# Counts are no shares of anything.
_COUNTS = frozenset({"n", "n_images", "count"})


def show_models_page(*, models_dir: Path) -> None:
    """Draw the page; `models_dir` is where runs are looked for."""
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
            _show_run(runs[st.selectbox("Model", list(runs), key="shown_run")])
    with two:
        if two.open:
            _show_comparison(runs)
    with live:
        if live.open:
            _show_training(training)


def _show_run(run: RunFolder) -> None:
    metrics = read_metrics(run)
    st.header("How good it is")
    if metrics:
        st.markdown(metrics_table(metrics))
        st.caption("In brackets the 95 % interval. All but the loss are shares from 0 to 1.")
    else:
        st.info("This model came without metrics.", icon=":material/info:")
    curves = read_history(run.history)
    if curves:
        st.header("How it was trained")
        _show_curves({run.name: curves})
    figures = list_figures(run)
    if figures:
        st.header("Figures")
        with st.grid(columns=2, min_column_width=340):
            for path in (path for path in figures if path.stem != _NETWORK):
                _show_figure(path)
        for path in (path for path in figures if path.stem == _NETWORK):
            # Many times higher than wide.
            with st.expander("Drawing of the network"):
                _show_figure(path)
    card = read_text(run.model_card)
    if card:
        st.header("Model card")
        # As text: a card can come from strangers, and Markdown can load pictures from anywhere.
        st.code(card, language=None, wrap_lines=True)


def _show_figure(path: Path) -> None:
    name = visible(path.stem.replace("_", " ").replace("-", " ")).capitalize()
    with st.container(border=True):
        try:
            st.image(path.read_bytes(), alt=f"Figure: {name}", width="stretch")
        except (OSError, ValueError, SyntaxError):
            st.warning("This figure cannot be read.", icon=":material/broken_image:")
        st.caption(as_markdown(name))


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
        st.header("On their test images")
        st.markdown(comparison_table(tables[0], tables[1], names=(first, second)))
        st.caption(
            "Compare only models tested on the same images. Where the intervals overlap, the "
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
    loss = curves.get("loss", Curve())
    epochs = plural(len(loss.training), "epoch")
    st.caption(f"{epochs} so far; looks again every {_LIVE_SECONDS} seconds.")
    if curves:
        _show_curves({run.name: curves})


def _show_curves(histories: dict[str, dict[str, Curve]]) -> None:
    """One chart for each quantity, a line for each run and split."""
    import pandas as pd

    quantities = list(dict.fromkeys(name for curves in histories.values() for name in curves))
    with st.grid(columns=2, min_column_width=340):
        for quantity in quantities:
            lines = {}
            for run_name, curves in histories.items():
                curve = curves.get(quantity, Curve())
                prefix = f"{visible(run_name)}, " if len(histories) > 1 else ""
                for split, values in (("train", curve.training), ("validation", curve.validation)):
                    if values:
                        lines[f"{prefix}{split}"] = pd.Series(
                            values, index=range(1, len(values) + 1)
                        )
            title = quantity.replace("_", " ")
            with st.container():
                st.markdown(f"**{as_markdown(title)}**")
                st.line_chart(
                    pd.DataFrame(lines), x_label="epoch", height=240, alt=f"{title} over the epochs"
                )


def metrics_table(metrics: dict[str, dict[str, Metric]]) -> str:
    """Markdown: a row for each metric, a column for each split."""
    splits = list(metrics)
    names = list(dict.fromkeys(name for values in metrics.values() for name in values))
    lines = [f"| Metric | {' | '.join(splits)} |", "|---" * (len(splits) + 1) + "|"]
    for name in names:
        cells = [_cell(name, metrics[split].get(name)) for split in splits]
        lines.append(f"| {as_markdown(name.replace('_', ' '))} | {' | '.join(cells)} |")
    return "\n".join(lines)


def comparison_table(
    first: dict[str, Metric], second: dict[str, Metric], *, names: tuple[str, str]
) -> str:
    """Markdown: the metrics that both have, and the second minus the first."""
    heads = " | ".join(as_markdown(name) for name in names)
    lines = [f"| Metric | {heads} | Difference |", "|---|---|---|---|"]
    for name in (name for name in first if name in second):
        difference = second[name].value - first[name].value
        shown = "" if name in _COUNTS or math.isnan(difference) else f"{difference:+.4f}"
        cells = f"{_cell(name, first[name])} | {_cell(name, second[name])} | {shown}"
        lines.append(f"| {as_markdown(name.replace('_', ' '))} | {cells} |")
    return "\n".join(lines)


def _cell(name: str, metric: Metric | None) -> str:
    if metric is None:
        return ""
    if name in _COUNTS:
        return f"{metric.value:,.0f}"
    if metric.low is None:
        return f"{metric.value:.4f}"
    return f"{metric.value:.4f} ({metric.low:.4f} to {metric.high:.4f})"
