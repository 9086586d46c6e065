"""Show checked images: one with its details, a dozen as cards, more as a table.

show_results(judged, data_by_digest, chosen=chosen, metadata=metadata)
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import streamlit as st

from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.ui.cards import count_labels, label_words, show_card, show_picture, show_table
from real_vs_ai.ui.details import forget_details, show_details
from real_vs_ai.ui.held_files import ImageFile
from real_vs_ai.ui.image_input import clear_images
from real_vs_ai.ui.judging import JudgedUpload
from real_vs_ai.ui.model_choice import ChosenModel, model_digest
from real_vs_ai.ui.reports import ReportModel, csv_report, html_report, json_report
from real_vs_ai.ui.wording import as_markdown, track_record
from real_vs_ai.verdict import Verdict, thresholds_of

# More than these are shown as a table.
MOST_CARDS = 12
_WHY_KEY = "why"


def show_results(
    judged: Sequence[JudgedUpload],
    files: Mapping[str, ImageFile],
    *,
    chosen: ChosenModel,
    metadata: ModelMetadata,
) -> None:
    """Draw all results.

    Args:
        judged: The files and their verdicts, in the order of upload.
        files: One uploaded file for each content digest.
        chosen: The model that answered.
        metadata: The model's, with the thresholds now chosen.
    """
    if len(judged) == 1:
        _show_single(judged[0], files, chosen=chosen, metadata=metadata)
    else:
        counts = count_labels(judged, metadata)
        parts = [f"**{count}** {as_markdown(words)}" for words, count in counts.items() if count]
        st.markdown(" · ".join(parts))
        if len(judged) <= MOST_CARDS:
            _show_cards(judged, files, chosen=chosen, metadata=metadata)
        else:
            _show_many(judged, files, chosen=chosen, metadata=metadata)
    with st.container(horizontal=True):
        show_downloads(judged, model=ReportModel(chosen.name, metadata, model_digest(*chosen.key)))
        st.button("Clear all", on_click=_clear, icon=":material/delete:")
    if any(one.verdict and not one.verdict.out_of_distribution for one in judged):
        records = (
            dict.fromkeys(
                _track_record(own, own) for own in map(chosen.metadata_of, _verdicts(judged))
            )
            if chosen.is_several
            else [_track_record(chosen.metadata, metadata)]
        )
        st.caption(
            f"{' '.join(records)} A verdict is an estimate by one model, "
            "not proof: edited images can mislead it."
        )


def _verdicts(judged: Sequence[JudgedUpload]) -> list[Verdict]:
    return [one.verdict for one in judged if one.verdict is not None]


def _clear() -> None:
    clear_images()
    forget_details()


def _track_record(own: ModelMetadata, chosen: ModelMetadata) -> str:
    unchanged = thresholds_of(own) == thresholds_of(chosen)
    return track_record(own.metrics, own_thresholds=unchanged)


def _show_single(
    judged: JudgedUpload,
    files: Mapping[str, ImageFile],
    *,
    chosen: ChosenModel,
    metadata: ModelMetadata,
) -> None:
    # Picture and verdict stand side by side where there is room.
    with st.grid(columns=2, min_column_width=320):
        # First, so that on a phone the verdict is seen without scrolling.
        with st.container():
            show_card(judged, metadata=_metadata_of(judged, chosen, metadata))
        with st.container():
            show_picture(judged)
    _show_why(judged, files, chosen=chosen, metadata=metadata)


def _show_cards(
    judged: Sequence[JudgedUpload],
    files: Mapping[str, ImageFile],
    *,
    chosen: ChosenModel,
    metadata: ModelMetadata,
) -> None:
    with st.grid(columns=3, min_column_width=300):
        for number, one in enumerate(judged):
            with st.container(border=True):
                show_picture(one)
                show_card(one, metadata=_metadata_of(one, chosen, metadata))
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
        _why_dialog(judged[number], files, chosen=chosen, metadata=metadata)


def _show_many(
    judged: Sequence[JudgedUpload],
    files: Mapping[str, ImageFile],
    *,
    chosen: ChosenModel,
    metadata: ModelMetadata,
) -> None:
    present = [words for words, count in count_labels(judged, metadata).items() if count]
    with st.container(horizontal=True, vertical_alignment="bottom"):
        wanted = st.pills(
            "Show only",
            present,
            selection_mode="multi",
            format_func=as_markdown,
            key="shown_labels",
        )
        part = st.text_input("Name contains", key="shown_names", width=240)
    shown = [
        one
        for one in judged
        if (not wanted or label_words(one.verdict, metadata) in wanted)
        and part.casefold() in one.upload.name.casefold()
    ]
    selected = show_table(shown, metadata=metadata)
    if selected is None:
        st.caption("Select a row to see the image and why. Click a column's head to sort.")
    else:
        _show_single(shown[selected], files, chosen=chosen, metadata=metadata)


def _show_why(
    judged: JudgedUpload,
    files: Mapping[str, ImageFile],
    *,
    chosen: ChosenModel,
    metadata: ModelMetadata,
) -> None:
    if judged.verdict is None:
        return
    st.subheader("Why?")
    data = files[judged.upload.check.digest].getvalue()
    metadata = _metadata_of(judged, chosen, metadata)
    show_details(judged, data=data, chosen=chosen, metadata=metadata)


def _metadata_of(
    judged: JudgedUpload, chosen: ChosenModel, metadata: ModelMetadata
) -> ModelMetadata:
    """Of the model that judged an image; of a single model, with the user's thresholds."""
    return chosen.metadata_of(judged.verdict) if chosen.is_several else metadata


def _open_why(number: int) -> None:
    st.session_state[_WHY_KEY] = number


def _close_why() -> None:
    st.session_state.pop(_WHY_KEY, None)


@st.dialog("Why this verdict?", width="large", on_dismiss=_close_why)
def _why_dialog(
    judged: JudgedUpload,
    files: Mapping[str, ImageFile],
    *,
    chosen: ChosenModel,
    metadata: ModelMetadata,
) -> None:
    show_card(judged, metadata=metadata)
    data = files[judged.upload.check.digest].getvalue()
    metadata = _metadata_of(judged, chosen, metadata)
    show_details(judged, data=data, chosen=chosen, metadata=metadata)


def _metadata_of(
    judged: JudgedUpload, chosen: ChosenModel, metadata: ModelMetadata
) -> ModelMetadata:
    """Of the model that judged an image; of a single model, with the user's thresholds."""
    return chosen.metadata_of(judged.verdict) if chosen.is_several else metadata


def show_downloads(results: Sequence[JudgedUpload], *, model: ReportModel) -> None:
    """Three buttons; each file is made when its button is clicked."""
    created = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    stem = f"checked-images-{datetime.now(UTC):%Y%m%d-%H%M}"
    files = {
        "Report with pictures (HTML)": (
            functools.partial(html_report, results, model=model, created=created),
            "html",
            "text/html",
            ":material/description:",
        ),
        "Table (CSV)": (
            functools.partial(csv_report, results, metadata=model.metadata),
            "csv",
            "text/csv",
            ":material/table:",
        ),
        "Data (JSON)": (
            functools.partial(json_report, results, model=model, created=created),
            "json",
            "application/json",
            ":material/data_object:",
        ),
    }
    for label, (make, suffix, mime, icon) in files.items():
        st.download_button(
            label, make, file_name=f"{stem}.{suffix}", mime=mime, icon=icon, on_click="ignore"
        )
