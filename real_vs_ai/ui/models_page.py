"""Show how good each model is: for people first, then figures and the model card for experts.

Run folders may be incomplete: a file that is missing or damaged gives what can be read of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from real_vs_ai.core.errors import InputError, describe_error
from real_vs_ai.core.files import read_json
from real_vs_ai.models.model_file import ModelFileError, ModelMetadata, read_metadata
from real_vs_ai.models.runs import RunFolder, list_runs
from real_vs_ai.ui.language import local, tell
from real_vs_ai.ui.model_choice import show_error, show_how_to_get_a_model
from real_vs_ai.ui.wording import (
    as_markdown,
    harmless_markdown,
    judges_photographs,
    known_sizes,
    visible,
)
from real_vs_ai.verdicts.track_record import Condition, Kind, TrackRecord, of_100, read_track_record

_MOST_FIGURES = 60
# What people meet: as published, as the web sends pictures on, and as it does at its worst.
_CONDITIONS = ("clean", "web", "hard")
_FIGURES = frozenset(
    {
        "confusion_matrix",
        "confusion_matrix_validation",
        "history",
        "precision_recall",
        "reliability",
        "roc",
        "scores",
    }
)


def show_models_page(*, models_dir: Path) -> None:
    """Draw the page for the runs in `models_dir`."""
    st.title(tell("page.models"), anchor=False)
    try:
        runs = {visible(run.name): run for run in list_runs(models_dir)}
    except FileNotFoundError as error:
        show_error(tell("models.absent"), describe_error(error))
        return
    if not runs:
        show_how_to_get_a_model(models_dir)
        return
    # First the one for photographs.
    known = {name: _metadata_of(run) for name, run in runs.items()}

    def is_for_others(name: str) -> bool:
        metadata = known[name]
        return metadata is None or not judges_photographs(metadata)

    names = sorted(runs, key=is_for_others)

    def describe(name: str) -> str:
        metadata = known[name]
        sizes = local(known_sizes([metadata])) if metadata else ""
        return tell("models.of_sizes", name=name, sizes=sizes) if sizes else name

    name = st.selectbox(tell("models.choose"), names, format_func=describe, key="shown_run")
    _show_run(runs[name])


def _metadata_of(run: RunFolder) -> ModelMetadata | None:
    try:
        return read_metadata(run.model)
    except (OSError, ModelFileError):
        return None


def _show_run(run: RunFolder) -> None:
    st.header(tell("models.how_good"), anchor=False)
    _show_record(read_record(run))
    figures = sorted(p for p in run.figures.glob("*.png") if p.is_file())[:_MOST_FIGURES]
    card = ""
    with contextlib.suppress(OSError):
        card = run.model_card.read_text(encoding="utf-8", errors="replace")
    if not figures and not card:
        return
    with st.expander(tell("models.experts"), icon=":material/school:"):
        with st.grid(columns=2, min_column_width=340):
            for path in figures:
                _show_figure(path)
        st.markdown(harmless_markdown(card))


def read_record(run: RunFolder) -> TrackRecord:
    """What the run's report says of the test images; an empty record where it cannot be read."""
    try:
        return read_track_record(read_json(run.metrics)["test"])
    except (OSError, InputError, ValueError, KeyError, TypeError, OverflowError, AttributeError):
        return TrackRecord()


def _show_record(record: TrackRecord) -> None:
    """Three numbers to know, then the same by what happened to the pictures, and by generator."""
    clean = record.clean
    if clean is None:
        st.info(tell("models.no_record"), icon=":material/info:")
        return
    with st.grid(columns=3, min_column_width=240):
        for name in ("found", "passed", "accused"):
            with st.container(border=True):
                st.metric(tell(f"models.{name}"), local(of_100(getattr(clean, name))))
    st.caption(tell("models.only_tested"))
    met = [one for one in record.conditions if one.name in _CONDITIONS]
    if len(met) > 1:
        st.subheader(tell("models.by_condition"), anchor=False)
        st.table(_by_condition(sorted(met, key=lambda one: _CONDITIONS.index(one.name))))
    if record.generators:
        st.subheader(tell("models.by_kind"), anchor=False)
        st.table(_by_kind(record.generators))


def _by_condition(conditions: Sequence[Condition]) -> list[dict[str, str]]:
    return [
        {
            tell("models.condition"): tell(f"models.condition_{one.name}"),
            **{
                tell(f"models.{name}"): local(of_100(getattr(one, name)))
                for name in ("found", "passed", "accused")
            },
        }
        for one in conditions
    ]


def _by_kind(kinds: Sequence[Kind]) -> list[dict[str, str]]:
    return [
        {
            tell("models.kind"): as_markdown(kind.name),
            tell("models.found"): local(of_100(kind.found)),
            tell("models.passed"): local(of_100(kind.passed)),
        }
        for kind in kinds
    ]


def _show_figure(path: Path) -> None:
    name = visible(path.stem.replace("_", " ").replace("-", " ")).capitalize()
    title = tell(f"figure.{path.stem}") if path.stem in _FIGURES else name
    with st.container(border=True):
        try:
            st.image(path.read_bytes(), alt=tell("figure.alt", title=title), width="stretch")
        except (OSError, ValueError, SyntaxError):
            st.warning(tell("figure.unreadable"), icon=":material/broken_image:")
        st.caption(as_markdown(title))
