"""Show checked images: one with its details, a dozen as cards, more as a table."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import streamlit as st

from real_vs_ai.config import UNCERTAIN
from real_vs_ai.provenance import describe_origin
from real_vs_ai.ui.cards import count_labels, label_of, show_card, show_table
from real_vs_ai.ui.checking import Card
from real_vs_ai.ui.details import forget_details, show_details
from real_vs_ai.ui.image_input import ImageFile, clear_images, example_of
from real_vs_ai.ui.model_choice import ChosenModel
from real_vs_ai.ui.reports import ReportModel, csv_report, html_report, json_report
from real_vs_ai.ui.thresholds import extreme_thresholds
from real_vs_ai.ui.wording import shared_reason, track_record, verdict_style
from real_vs_ai.verdict import ReasonCode

# More than these are shown as a table.
MOST_CARDS = 12
_WHY_KEY = "why"


def show_results(
    judged: Sequence[Card], files: Mapping[str, ImageFile], *, chosen: ChosenModel
) -> None:
    """Draw all results; `files` holds one uploaded file for each content digest."""
    extreme = extreme_thresholds(chosen)
    if extreme:
        st.warning(f"With the thresholds under Advanced: {extreme}", icon=":material/warning:")
    elif not chosen.has_own_thresholds:
        st.caption("The thresholds under Advanced are not the model's own.")
    if len(judged) == 1:
        _show_single(judged[0], files, chosen=chosen)
    else:
        counts = count_labels(judged, chosen.metadata)
        st.markdown(
            " · ".join(
                f"**{count}** {verdict_style(label, chosen.metadata).heading}"
                for label, count in counts.items()
            )
        )
        if len(judged) <= MOST_CARDS:
            _show_cards(judged, files, chosen=chosen)
        else:
            _show_many(judged, files, chosen=chosen)
    _show_track_record(judged, chosen)
    with st.container(horizontal=True):
        show_downloads(judged, chosen=chosen)
        st.button("Clear all", on_click=_clear, icon=":material/delete:")
    st.caption(
        "For a PDF, open the report and print it to a file. Reloading or closing this page forgets "
        "pictures and verdicts."
    )


def _clear() -> None:
    clear_images()
    forget_details()


def _show_track_record(judged: Sequence[Card], chosen: ChosenModel) -> None:
    """How often the models that are sure of a verdict here are right."""
    answers = [one.verdict for one in judged if one.verdict and one.verdict.label != UNCERTAIN]
    if not answers:
        return
    records = {
        track_record(chosen.metadata_of(verdict), own_thresholds=chosen.has_own_thresholds): None
        for verdict in answers
    }
    st.caption(
        f"{' '.join(filter(None, records))} A verdict is an estimate by a model, not proof; "
        "edited pictures can mislead it."
    )


def _show_single(judged: Card, files: Mapping[str, ImageFile], *, chosen: ChosenModel) -> None:
    file = files[judged.answer.sha256]
    show_card(judged, chosen=chosen, example=example_of(file))
    if judged.verdict is not None:
        show_details(judged, data=file.getvalue(), chosen=chosen)


def _show_cards(
    judged: Sequence[Card], files: Mapping[str, ImageFile], *, chosen: ChosenModel
) -> None:
    shared = _explain_shared_reasons(judged, chosen)
    readable = [one for one in judged if one.verdict]
    if readable and not any(one.answer.findings for one in readable):
        st.caption(f":material/fingerprint: {describe_origin(()).headline}")
    with st.grid(columns=3, min_column_width=280):
        for number, one in enumerate(judged):
            with st.container(border=True):
                example = example_of(files[one.answer.sha256])
                show_card(one, chosen=chosen, example=example, said_above=shared, small=True)
                if one.verdict is not None:
                    st.button(
                        "Why?",
                        key=f"why_{number}",
                        icon=":material/search_insights:",
                        on_click=_open_why,
                        args=(number,),
                    )
    number = st.session_state.get(_WHY_KEY)
    if number is not None and number < len(judged) and judged[number].verdict is not None:
        _why_dialog(judged[number], files, chosen=chosen)


def _explain_shared_reasons(judged: Sequence[Card], chosen: ChosenModel) -> set[ReasonCode]:
    """Explain once what several images have in common; returns these reasons."""
    reasons = [one.verdict.out_of_distribution_reason for one in judged if one.verdict]
    counts = Counter(reason.code for reason in reasons if reason)
    shared = {code: count for code, count in counts.items() if count > 1}
    for code, count in shared.items():
        models = chosen.judge.metadatas.values()
        st.warning(shared_reason(code, count=count, metadatas=models), icon=":material/help:")
    return set(shared)


def _show_many(
    judged: Sequence[Card], files: Mapping[str, ImageFile], *, chosen: ChosenModel
) -> None:
    present = list(count_labels(judged, chosen.metadata))
    with st.container(horizontal=True, vertical_alignment="bottom"):
        wanted = st.pills(
            "Show only",
            present,
            selection_mode="multi",
            format_func=lambda label: verdict_style(label, chosen.metadata).heading,
            key="shown_labels",
        )
        part = st.text_input("Name contains", key="shown_names", width=240)
    shown = [
        one
        for one in judged
        if (not wanted or label_of(one) in wanted) and part.casefold() in one.answer.name.casefold()
    ]
    if not shown:
        st.caption("No picture has such a name and verdict.")
        return
    selected = show_table(shown, chosen=chosen)
    if selected is None:
        st.caption("Select a row to see the picture and why. Click a column's head to sort.")
    else:
        _show_single(shown[selected], files, chosen=chosen)


def _open_why(number: int) -> None:
    st.session_state[_WHY_KEY] = number


def _close_why() -> None:
    st.session_state.pop(_WHY_KEY, None)


@st.dialog("Why this verdict?", width="large", on_dismiss=_close_why)
def _why_dialog(judged: Card, files: Mapping[str, ImageFile], *, chosen: ChosenModel) -> None:
    _show_single(judged, files, chosen=chosen)


def show_downloads(judged: Sequence[Card], *, chosen: ChosenModel) -> None:
    """Three buttons; each file is made when its button is clicked."""
    now = datetime.now(UTC)
    created = f"{now:%Y-%m-%d %H:%M} UTC"
    models = [
        ReportModel(name, metadata, sha256, own_thresholds=chosen.has_own_thresholds)
        for name, metadata, sha256 in chosen.models
    ]
    make_html = functools.partial(html_report, judged, models=models, created=created)
    make_csv = functools.partial(csv_report, judged, metadata=chosen.metadata)
    make_json = functools.partial(json_report, judged, models=models, created=created)
    for label, make, suffix, mime, icon in (
        ("Report (HTML, PDF)", make_html, "html", "text/html", ":material/description:"),
        ("Table (CSV)", make_csv, "csv", "text/csv", ":material/table:"),
        ("Data (JSON)", make_json, "json", "application/json", ":material/data_object:"),
    ):
        st.download_button(
            label,
            make,
            file_name=f"checked-images-{now:%Y%m%d-%H%M}.{suffix}",
            mime=mime,
            icon=icon,
            on_click="ignore",
        )
