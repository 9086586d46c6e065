"""Show checked images: one with its details, a dozen as cards, more as a table."""

from __future__ import annotations

import base64
import contextlib
import functools
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import streamlit as st

from real_vs_ai.config import UNCERTAIN
from real_vs_ai.serving.conclusion import Conclusion, ConclusionCode
from real_vs_ai.track_record import read_track_record
from real_vs_ai.ui.checking import MOST_RATIO, Card
from real_vs_ai.ui.details import forget_details, show_details
from real_vs_ai.ui.image_input import Example, ImageFile, clear_images, example_of
from real_vs_ai.ui.model_choice import ChosenModel
from real_vs_ai.ui.reports import ReportModel, csv_report, json_report
from real_vs_ai.ui.wording import as_markdown, heading, known_sizes, plain, rank, style_of, visible

# More than these are shown as a table.
MOST_CARDS = 12
_WHY_KEY = "why"
# In the table a row holds a thumbnail, or three lines of text.
_ROW_HEIGHT, _HEAD_HEIGHT = 66, 38
# The colours of the theme in .streamlit/config.toml, on a light page and on a dark one.
_COLOURS = {
    "red": ("#a8201a", "#ff8f87"),
    "green": ("#156a35", "#6fdc94"),
    "orange": ("#8a4b00", "#ffbd66"),
    "blue": ("#1f5fbf", "#7fb0ff"),
    "gray": ("#50586a", "#b3bccd"),
}


def show_results(
    judged: Sequence[Card], files: Mapping[str, ImageFile], *, chosen: ChosenModel
) -> None:
    """Draw all results; `files` holds one uploaded file for each content digest."""
    record = describe_record(judged, chosen)
    if len(judged) == 1:
        _show_single(judged[0], files, chosen=chosen, record=record)
    else:
        counts = count_conclusions(judged)
        if len(judged) <= MOST_CARDS:
            st.markdown(" · ".join(counts.values()))
            st.caption(record)
            _show_cards(judged, files, chosen=chosen)
        else:
            _show_many(_choose_shown(judged, counts), files, chosen=chosen)
            st.caption(record)
    with st.container(horizontal=True):
        show_downloads(judged, chosen=chosen)
        st.button("Clear all", on_click=_clear, icon=":material/delete:")
    st.caption("Reloading or closing this page forgets pictures and answers.")


def count_conclusions(judged: Sequence[Card]) -> dict[str, str]:
    """Each conclusion that occurs with its count, as Markdown, by its title; sorted by code."""
    ranked = sorted((one.conclusion for one in judged), key=lambda c: (rank(c.code), c.title))
    headings = {conclusion.title: heading(conclusion) for conclusion in ranked}
    counts = Counter(conclusion.title for conclusion in ranked)
    return {title: f"**{counts[title]}** {shown}" for title, shown in headings.items()}


# Sorting keeps the order given where two are alike.
_ORDERS: dict[str, Callable[[Card], Any]] = {
    "Conclusion": lambda card: (rank(card.conclusion.code), card.conclusion.title),
    "File name": lambda card: card.answer.name.casefold(),
    "Order given": lambda card: 0,
}


def _clear() -> None:
    clear_images()
    forget_details()


def describe_record(judged: Sequence[Card], chosen: ChosenModel) -> str:
    """How often the models that judged these pictures answer, and are wrong; "" if not recorded."""
    used = [chosen.metadata_of(one.verdict) for one in judged if one.verdict]
    records = {known_sizes([m]): read_track_record(m.metrics).sentence for m in used}
    told = [
        f"Pictures of {sizes}: {sentence[0].lower()}{sentence[1:]}"
        if len(records) > 1
        else sentence
        for sizes, sentence in records.items()
        if sentence
    ]
    if not told:
        return ""
    return f"{' '.join(told)} What the model sees is an estimate, not proof; edits can mislead it."


def _show_single(
    judged: Card, files: Mapping[str, ImageFile], *, chosen: ChosenModel, record: str
) -> None:
    file = files[judged.answer.sha256]
    show_card(judged, example=example_of(file))
    if judged.verdict is None:
        return
    if record:
        st.markdown(f"**Can I rely on it?** {record}")
    show_details(judged, data=file.getvalue(), chosen=chosen)


def _show_cards(
    judged: Sequence[Card], files: Mapping[str, ImageFile], *, chosen: ChosenModel
) -> None:
    with st.grid(columns=3, min_column_width=280):
        for number, one in enumerate(judged):
            with st.container(border=True):
                show_card(one, example=example_of(files[one.answer.sha256]), small=True)
                if one.verdict is not None:
                    st.button(
                        "Why, and what now?",
                        key=f"why_{number}",
                        icon=":material/search_insights:",
                        on_click=_open_why,
                        args=(number,),
                    )
    number = st.session_state.get(_WHY_KEY)
    if number is not None and number < len(judged) and judged[number].verdict is not None:
        _why_dialog(judged[number], files, chosen=chosen)


def _choose_shown(judged: Sequence[Card], counts: Mapping[str, str]) -> list[Card]:
    """Let the user filter and sort; returns what is to be shown."""
    wanted = st.pills(
        "Show only",
        list(counts),
        selection_mode="multi",
        format_func=counts.get,
        key="shown_conclusions",
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        order = st.selectbox("Sort by", list(_ORDERS), key="shown_order", width=165)
        part = st.text_input("Name contains", key="shown_names", width=165)
    shown = [
        one
        for one in judged
        if (not wanted or one.conclusion.title in wanted)
        and part.casefold() in one.answer.name.casefold()
    ]
    return sorted(shown, key=_ORDERS[order])


def _show_many(
    shown: Sequence[Card], files: Mapping[str, ImageFile], *, chosen: ChosenModel
) -> None:
    if not shown:
        st.caption("No picture has such a name and conclusion.")
        return
    selected = _show_table(shown)
    if selected is None:
        st.caption("Select a row to see the picture, the evidence and what to do next.")
    else:
        _show_single(shown[selected], files, chosen=chosen, record="")


def _show_table(judged: Sequence[Card]) -> int | None:
    """A table with thumbnails; returns the index of the row the user selected."""
    import pandas as pd

    table = pd.DataFrame([table_row(one) for one in judged])
    dark = st.context.theme.type == "dark"
    styles = {
        plain(one.conclusion): f"color: {_COLOURS[style_of(one.conclusion).colour][dark]}; "
        "font-weight: 600"
        for one in judged
    }
    event = st.dataframe(
        table.style.map(lambda words: styles.get(words, ""), subset=["Conclusion"]),
        key="table",
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        row_height=_ROW_HEIGHT,
        # As many rows as there are; more than ten are scrolled.
        height=_HEAD_HEIGHT + min(10, len(judged)) * _ROW_HEIGHT,
        placeholder="–",
        alt="Table of the checked images with the conclusion on each",
        column_config={
            "Image": st.column_config.ImageColumn(width=70),
            "Conclusion": st.column_config.TextColumn(width=260),
            "File": st.column_config.TextColumn(width=300),
            "Made by": st.column_config.TextColumn(width=200),
            "Size": st.column_config.TextColumn(width=110),
        },
    )
    selected = event.selection.rows
    return selected[0] if selected and selected[0] < len(judged) else None


def table_row(judged: Card) -> dict[str, object]:
    """One row of the table."""
    answer, conclusion = judged.answer, judged.conclusion
    thumbnail = base64.b64encode(judged.thumbnail).decode("ascii")
    return {
        "Image": f"data:image/jpeg;base64,{thumbnail}" if thumbnail else None,
        "Conclusion": plain(conclusion),
        "File": visible(answer.name),
        "Made by": visible(conclusion.generator),
        "Size": f"{answer.width} × {answer.height}" if judged.verdict else "",
    }


def _open_why(number: int) -> None:
    st.session_state[_WHY_KEY] = number


def _close_why() -> None:
    st.session_state.pop(_WHY_KEY, None)


@st.dialog("Why, and what now?", width="large", on_dismiss=_close_why)
def _why_dialog(judged: Card, files: Mapping[str, ImageFile], *, chosen: ChosenModel) -> None:
    _show_single(judged, files, chosen=chosen, record=describe_record([judged], chosen))


def _make_pdf(judged: Sequence[Card], **options: Any) -> bytes:
    # ReportLab takes a while to import, and most visitors want no report.
    from real_vs_ai.ui.reports import pdf_report

    return pdf_report(judged, **options)


def show_downloads(judged: Sequence[Card], *, chosen: ChosenModel) -> None:
    """Three buttons; each file is made when its button is clicked."""
    now = datetime.now(UTC)
    created = f"{now:%Y-%m-%d %H:%M} UTC"
    models = [ReportModel(*model) for model in chosen.models]
    record = describe_record(judged, chosen)
    make_pdf = functools.partial(_make_pdf, judged, models=models, created=created, record=record)
    make_csv = functools.partial(csv_report, judged, metadata=chosen.metadata)
    make_json = functools.partial(json_report, judged, models=models, created=created)
    for label, make, suffix, mime, icon in (
        ("Report (PDF)", make_pdf, "pdf", "application/pdf", ":material/description:"),
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


_LOG = logging.getLogger(__name__)
# In pixels; a narrow page shows less. With these a card fits on a phone's screen.
_PICTURE_HEIGHT, _SMALL_PICTURE_HEIGHT = 220, 180
# The pages where one uploads a picture oneself: a link to them sends nothing.
_SEARCHES = {
    "Google Lens": "https://lens.google.com/",
    "TinEye": "https://tineye.com/",
    "Bing": "https://www.bing.com/visualsearch",
    "Yandex": "https://yandex.com/images/",
}
_CREDENTIALS = "https://contentcredentials.org/verify"
_NOTHING_SAID = "Nothing about its origin, like most pictures from the web."


def show_card(judged: Card, *, example: Example | None, small: bool = False) -> None:
    """Show conclusion, picture, evidence and next steps in the current container.

    An error in drawing is shown in the card and logged; other cards are drawn all the same.

    Args:
        example: What the picture is, when it is one of the app's examples.
        small: One card of many: without the next steps, which its dialog shows.
    """
    answer, conclusion = judged.answer, judged.conclusion
    with _keep_errors_in_card(answer.name):
        st.markdown(f"## {heading(conclusion)}")
        if judged.verdict is None:
            st.text(visible(answer.name))
            st.text(conclusion.from_model)
        else:
            left, right = (st.container(), st.container()) if small else st.columns([2, 3])
            with left:
                show_picture(judged, height=_SMALL_PICTURE_HEIGHT if small else _PICTURE_HEIGHT)
            with right:
                _show_evidence(conclusion)
                if example:
                    _show_truth(judged, example)
                st.caption(_file_line(judged))
        if not small:
            _show_next_steps(conclusion)


@contextlib.contextmanager
def _keep_errors_in_card(name: str) -> Iterator[None]:
    try:
        yield
    except Exception:
        _LOG.exception("A card cannot be drawn.")
        st.error(
            f"The result for {as_markdown(visible(name))} cannot be shown. The app's log says why."
        )


def show_picture(judged: Card, *, height: int) -> None:
    """The upright image, about as high as this in pixels, or twice as wide."""
    ratio = max(1 / MOST_RATIO, judged.answer.width / judged.answer.height)
    st.image(
        judged.preview,
        alt=f"The uploaded image {visible(judged.answer.name)}",
        width=round(height * min(2.0, ratio)),
    )


def _show_evidence(conclusion: Conclusion) -> None:
    """The two lines of evidence, apart."""
    for title, icon, text in (
        ("What the file says", "fingerprint", conclusion.from_file or _NOTHING_SAID),
        ("What the model sees", "visibility", conclusion.from_model),
    ):
        st.markdown(f":material/{icon}: **{title}**  \n{as_markdown(text, longest=1_000)}")


def _show_truth(judged: Card, example: Example) -> None:
    label = judged.verdict.label
    if label == UNCERTAIN:
        outcome = "the model gives no answer"
    else:
        outcome = "the model is right" if label == example.label else "the model is wrong"
    st.markdown(f":material/school: {example.caption} Here {outcome}.")


def _file_line(judged: Card) -> str:
    """Name, size and format, and what was done to the picture."""
    answer = judged.answer
    told = [
        f"{as_markdown(answer.name)} · {answer.width} × {answer.height} pixels, "
        f"{as_markdown(answer.format)}.",
        *answer.notes,
    ]
    if judged.same_as:
        told.append(f"Same content as {as_markdown(judged.same_as)}.")
    return " ".join(told)


def _show_next_steps(conclusion: Conclusion) -> None:
    if not conclusion.next_steps:
        return
    lines = [f"- {as_markdown(step)}" for step in conclusion.next_steps]
    if conclusion.code is not ConclusionCode.UNREADABLE:
        links = " · ".join(f"[{name}]({address})" for name, address in _SEARCHES.items())
        lines.append(
            f"- Search for it: {links}. Read its content credentials: [Verify]({_CREDENTIALS}). "
            "These pages open in a new tab and get nothing unless you upload the picture there."
        )
    st.markdown("**What now?**\n\n" + "\n".join(lines))
