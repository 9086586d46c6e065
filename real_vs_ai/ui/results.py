"""Show checked images: one with its details, a dozen as cards, more as a table."""

from __future__ import annotations

import base64
import contextlib
import functools
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

import streamlit as st

from real_vs_ai.config import UNCERTAIN
from real_vs_ai.serving.conclusion import Conclusion, ConclusionCode
from real_vs_ai.serving.judge import Judge
from real_vs_ai.ui.checking import MOST_RATIO, Card, describe_file
from real_vs_ai.ui.details import forget_details, show_details
from real_vs_ai.ui.gemini import was_sent
from real_vs_ai.ui.image_input import LocalFile, clear_images, example_of
from real_vs_ai.ui.wording import (
    RELIANCE,
    WHO_SEES,
    as_markdown,
    heading,
    known_sizes,
    plain,
    rank,
    visible,
)

# More than these are shown as a table.
MOST_CARDS = 12
_LOG = logging.getLogger(__name__)
_WHY_KEY = "why"
# In pixels; a narrow page shows less. With these a card fits on a phone's screen.
_PICTURE_HEIGHT, _SMALL_PICTURE_HEIGHT = 220, 180
# In the table a row holds a thumbnail, or three lines of text.
_ROW_HEIGHT, _HEAD_HEIGHT = 66, 38
# The pages where one uploads a picture oneself: a link to them sends nothing.
_SEARCHES = {
    "Google Lens": "https://lens.google.com/",
    "TinEye": "https://tineye.com/",
    "Bing": "https://www.bing.com/visualsearch",
    "Yandex": "https://yandex.com/images/",
}
_CREDENTIALS = "https://contentcredentials.org/verify"
_NOTHING_SAID = "Nothing about its origin, like most pictures from the web."


def show_results(judged: Sequence[Card], *, judge: Judge) -> None:
    """Draw all results."""
    counts = count_conclusions(judged)
    if len(judged) == 1:
        _show_single(judged[0], judge=judge)
    elif len(judged) <= MOST_CARDS:
        st.markdown(" · ".join(counts.values()))
        _show_cards(judged, judge=judge)
        _show_questions(judged, judge=judge)
    else:
        shown = _choose_shown(judged, counts)
        selected = _show_table(shown)
        if selected is None:
            st.caption("Select a row to see the picture, the evidence and what to do next.")
            _show_questions(shown, judge=judge)
        else:
            _show_single(shown[selected], judge=judge)
    with st.container(horizontal=True):
        _show_downloads(judged, judge=judge)
        st.button("Clear all", on_click=_clear, icon=":material/delete:")


def count_conclusions(judged: Sequence[Card]) -> dict[str, str]:
    """Each conclusion that occurs with its count, as Markdown, by its title; sorted by code."""
    ranked = sorted((one.conclusion for one in judged), key=lambda c: (rank(c.code), c.title))
    headings = {conclusion.title: heading(conclusion) for conclusion in ranked}
    counts = Counter(conclusion.title for conclusion in ranked)
    return {title: f"**{counts[title]}** {shown}" for title, shown in headings.items()}


def _clear() -> None:
    clear_images()
    forget_details()


def describe_record(judged: Sequence[Card], judge: Judge) -> str:
    """How often the models that judged these pictures answer, and are wrong; "" if not recorded."""
    models = {one.verdict.model: judge.model_of(one.verdict) for one in judged if one.verdict}
    records = {known_sizes([one.metadata]): one.record.sentence for one in models.values()}
    told = [
        f"Pictures of {sizes}: {sentence[0].lower()}{sentence[1:]}"
        if len(records) > 1
        else sentence
        for sizes, sentence in records.items()
        if sentence
    ]
    if not told:
        return ""
    return f"What the model sees is an estimate, not proof; edits can mislead it. {' '.join(told)}"


def _show_questions(judged: Sequence[Card], *, judge: Judge) -> None:
    """Answer what visitors ask of every answer: whether to rely on it, and who sees the picture."""
    of_file = RELIANCE.get(judged[0].conclusion.file_says, "") if len(judged) == 1 else ""
    reliable = f"{of_file} {describe_record(judged, judge)}".strip()
    if reliable:
        # A report names its kinds after folders.
        st.markdown(f"**Can I rely on it?** {as_markdown(reliable, longest=1_000)}")
    sent = " Those that you asked Gemini about went to Google." if was_sent() else ""
    st.markdown(f"**Who sees my pictures?** {WHO_SEES}{sent}")


def _show_single(judged: Card, *, judge: Judge) -> None:
    _show_card(judged)
    _show_next_steps(judged.conclusion)
    _show_questions([judged], judge=judge)
    if judged.verdict:
        show_details(judged, judge=judge)


def _show_card(judged: Card, *, small: bool = False) -> None:
    """Show conclusion, picture and evidence in the current container.

    An error in drawing is shown in the card and logged; other cards are drawn all the same.
    """
    answer, conclusion = judged.answer, judged.conclusion
    with _keep_errors_in_card(answer.name):
        st.markdown(f"## {heading(conclusion)}")
        if judged.verdict is None:
            st.text(visible(answer.name))
            st.text(conclusion.from_model)
            return
        left, right = (st.container(), st.container()) if small else st.columns([2, 3])
        with left:
            show_picture(judged, height=_SMALL_PICTURE_HEIGHT if small else _PICTURE_HEIGHT)
        with right:
            for title, icon, text in (
                ("What the file says", "fingerprint", conclusion.from_file or _NOTHING_SAID),
                ("What the model sees", "visibility", conclusion.from_model),
            ):
                st.markdown(f":material/{icon}: **{title}**  \n{as_markdown(text, longest=1_000)}")
            if example := example_of(judged.file):
                _show_truth(judged, example)
            facts = " ".join(describe_file(judged))
            st.caption(f"{as_markdown(answer.name)} · {as_markdown(facts, longest=1_000)}")


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


def _show_truth(judged: Card, example: LocalFile) -> None:
    label = judged.verdict.label
    if label == UNCERTAIN:
        outcome = "the model gives no answer"
    else:
        outcome = "the model is right" if label == example.label else "the model is wrong"
    st.markdown(f":material/school: {example.caption} Here {outcome}.")


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


def _show_cards(judged: Sequence[Card], *, judge: Judge) -> None:
    with st.grid(columns=3, min_column_width=280):
        for number, one in enumerate(judged):
            with st.container(border=True):
                _show_card(one, small=True)
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
        _why_dialog(judged[number], judge=judge)


def _open_why(number: int) -> None:
    st.session_state[_WHY_KEY] = number


def _close_why() -> None:
    st.session_state.pop(_WHY_KEY, None)


@st.dialog("Why, and what now?", width="large", on_dismiss=_close_why)
def _why_dialog(judged: Card, *, judge: Judge) -> None:
    _show_single(judged, judge=judge)


def _choose_shown(judged: Sequence[Card], counts: Mapping[str, str]) -> list[Card]:
    """Let the user filter by conclusions; returns what is to be shown, in their order."""
    wanted = st.pills(
        "Show only",
        list(counts),
        selection_mode="multi",
        format_func=counts.get,
        key="shown_conclusions",
    )
    shown = [one for one in judged if not wanted or one.conclusion.title in wanted]
    return sorted(shown, key=lambda one: (rank(one.conclusion.code), one.conclusion.title))


def _show_table(judged: Sequence[Card]) -> int | None:
    """A table with thumbnails; returns the index of the row the user selected."""
    rows = [table_row(one) for one in judged]
    # No generator is known of most pictures, and an empty column only takes room.
    columns = [name for name in rows[0] if name != "Made by" or any(row[name] for row in rows)]
    # With these the name of the file stands on a phone's screen too; long texts wrap.
    widths = {"Conclusion": 130, "File": 135, "Made by": 170, "Size": 110}
    event = st.dataframe(
        rows,
        key="table",
        column_order=columns,
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        row_height=_ROW_HEIGHT,
        # As many rows as there are; more than ten are scrolled.
        height=_HEAD_HEIGHT + min(10, len(judged)) * _ROW_HEIGHT,
        placeholder="–",
        alt="Table of the checked images with the conclusion on each",
        column_config={
            "Image": st.column_config.ImageColumn(width=60),
            **{name: st.column_config.TextColumn(width=width) for name, width in widths.items()},
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


def _make_report(kind: str, judged: Sequence[Card], *, judge: Judge, created: str) -> bytes:
    # ReportLab takes a while to import, and most visitors want no report.
    from real_vs_ai.ui.reports import csv_report, json_report, pdf_report

    if kind == "csv":
        return csv_report(judged, metadata=judge.metadata)
    if kind == "json":
        return json_report(judged, judge=judge, created=created)
    record = describe_record(judged, judge)
    return pdf_report(judged, judge=judge, created=created, record=record)


def _show_downloads(judged: Sequence[Card], *, judge: Judge) -> None:
    """Three buttons; each file is made when its button is clicked."""
    now = datetime.now(UTC)
    created = f"{now:%Y-%m-%d %H:%M} UTC"
    for label, kind, mime, icon in (
        ("Report (PDF)", "pdf", "application/pdf", ":material/description:"),
        ("Table (CSV)", "csv", "text/csv", ":material/table:"),
        ("Data (JSON)", "json", "application/json", ":material/data_object:"),
    ):
        st.download_button(
            label,
            functools.partial(_make_report, kind, judged, judge=judge, created=created),
            file_name=f"checked-images-{now:%Y%m%d-%H%M}.{kind}",
            mime=mime,
            icon=icon,
            on_click="ignore",
        )
