"""Show checked images: one large beside its answer, a dozen as cards, more as a table."""

from __future__ import annotations

import base64
import contextlib
import functools
import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import urlsplit

import streamlit as st

from real_vs_ai.core.config import UNCERTAIN
from real_vs_ai.serving.judge import Judge
from real_vs_ai.ui.checking import MOST_RATIO, Card, describe_file
from real_vs_ai.ui.details import forget_details, show_details
from real_vs_ai.ui.gemini import was_sent
from real_vs_ai.ui.image_input import LocalFile, clear_images, example_of, was_pasted
from real_vs_ai.ui.language import local, tell, visitor_language
from real_vs_ai.ui.mistakes import show_mistake_report
from real_vs_ai.ui.page_script import announce
from real_vs_ai.ui.wording import (
    CREDENTIALS_PAGE,
    SEARCH_PAGES,
    as_markdown,
    heading,
    plain,
    rank,
    reliance,
    visible,
)
from real_vs_ai.verdicts.conclusion import Conclusion, ConclusionCode

# More than these are shown as a table.
MOST_CARDS = 12
_LOG = logging.getLogger(__name__)
_WHY_KEY = "why"
# In pixels; a narrow page shows less. With these a card fits on a phone's screen.
_PICTURE_HEIGHT, _LARGE_HEIGHT = 180, 340
_COLUMNS = 3
# In the table a row holds a thumbnail, or three lines of text.
_ROW_HEIGHT, _HEAD_HEIGHT = 66, 38
_LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1"}
_LONGEST = 1_000


def show_results(judged: Sequence[Card], *, judge: Judge) -> None:
    """Draw all results."""
    counts = count_conclusions(judged)
    with st.container(key="answers"):
        if len(judged) == 1:
            _show_single(judged[0], judge=judge)
        elif len(judged) <= MOST_CARDS:
            st.markdown(" · ".join(counts.values()))
            _show_cards(judged, judge=judge)
        else:
            shown = _choose_shown(judged, counts)
            selected = _show_table(shown)
            if selected is None:
                st.caption(tell("table.select"))
            else:
                _show_single(shown[selected], judge=judge)
        # A single picture has it among its questions.
        if len(judged) > 1 or judged[0].verdict is None:
            st.caption(f"**{tell('question.who_sees')}** {who_sees()}")
    with st.container(horizontal=True):
        _show_downloads(judged, judge=judge)
        st.button(tell("page.clear"), on_click=_clear, icon=":material/delete:")
    announce(_spoken(judged))


def show_progress(judged: Sequence[Card], *, total: int) -> None:
    """Draw the answers that are there while others are awaited; nothing can be clicked yet."""
    if total > MOST_CARDS:
        st.dataframe(**_table(judged))
        return
    with st.grid(columns=_COLUMNS, min_column_width=280):
        for one in judged:
            with st.container(border=True):
                _show_card(one, height=_PICTURE_HEIGHT)


def count_conclusions(judged: Sequence[Card]) -> dict[str, str]:
    """Each conclusion that occurs with its count, as Markdown, by its title; sorted by code."""
    ranked = sorted((one.conclusion for one in judged), key=lambda c: (rank(c.code), c.title))
    language = visitor_language()
    headings = {found.title: heading(found, language=language) for found in ranked}
    counts = Counter(found.title for found in ranked)
    return {title: f"**{counts[title]}** {shown}" for title, shown in headings.items()}


def who_sees() -> str:
    """Who sees an uploaded picture, as Markdown; it names the server if it is another computer."""
    host = urlsplit(st.context.url or "").hostname or "localhost"
    if host in _LOCAL_HOSTS:
        return tell("who.this_computer")
    return tell("who.server", host=as_markdown(host))


def _spoken(judged: Sequence[Card]) -> str:
    """The answer as a screen reader says it."""
    if len(judged) == 1:
        found = judged[0].conclusion
        return f"{local(found.title)}. {_joined(found.model_sentences)}"
    counts = Counter(local(one.conclusion.title) for one in judged)
    return ", ".join(f"{count} {title}" for title, count in counts.items())


def _joined(sentences: Sequence[str]) -> str:
    return " ".join(map(local, sentences))


def _clear() -> None:
    clear_images()
    forget_details()


def _show_single(judged: Card, *, judge: Judge) -> None:
    with _keep_errors_in_card(judged.answer.name):
        if judged.verdict is None:
            _show_unreadable(judged)
            return
        # On a phone the first column stands above the second.
        answer, picture = st.columns(2, gap="large")
        with answer:
            _show_heading(judged.conclusion)
            _show_evidence(judged)
            show_mistake_report(judged, judge=judge, key="mistake")
        with picture, st.container(key="single_picture"):
            st.image(judged.preview, alt=_alt(judged), width="stretch")
        _show_questions(judged)
    show_details(judged, judge=judge)


def _show_heading(found: Conclusion) -> None:
    st.markdown(f"## {heading(found, language=visitor_language())}")


def _show_evidence(judged: Card) -> None:
    """The two lines of evidence that the conclusion rests on, and what is known of the file."""
    found = judged.conclusion
    said = _joined(found.file_sentences) or tell("file.nothing")
    for title, text in (
        ("question.file_says", said),
        ("question.model_sees", _joined(found.model_sentences)),
    ):
        st.markdown(f"**{tell(title)}**  \n{as_markdown(text, longest=_LONGEST)}")
    if example := example_of(judged.file):
        _show_truth(judged, example)
    if was_pasted(judged.answer.name):
        st.markdown(f":orange[{tell('input.pasted')}]")
    facts = _joined(describe_file(judged))
    st.caption(f"{as_markdown(judged.answer.name)} · {as_markdown(facts, longest=_LONGEST)}")


def _show_unreadable(judged: Card) -> None:
    found = judged.conclusion
    _show_heading(found)
    st.text(visible(judged.answer.name))
    st.text(f"{_joined(found.model_sentences)} {_joined(found.next_steps)}")


def _show_questions(judged: Card) -> None:
    """Answer what visitors ask of every answer, in a line each."""
    found = judged.conclusion
    steps = [local(step) for step in found.next_steps]
    st.markdown(f"**{tell('question.rely')}** {local(reliance(found))}")
    if steps:
        st.markdown(f"**{tell('question.now')}** {steps[0]}")
        with st.expander(tell("next.more")):
            st.markdown("\n".join(f"- {line}" for line in [*steps[1:], *_searches(found)]))
    sent = f" {tell('who.gemini')}" if was_sent() else ""
    st.caption(f"**{tell('question.who_sees')}** {who_sees()}{sent}")


def _searches(found: Conclusion) -> list[str]:
    """Where to search for a picture, and what to do there, as Markdown."""
    links = " · ".join(f"[{name}]({address})" for name, address in SEARCH_PAGES.items())
    lines = [tell("next.search", pages=links)]
    if found.code is not ConclusionCode.CANT_JUDGE:
        lines.append(tell("next.verify", page=f"[Verify]({CREDENTIALS_PAGE})"))
    return lines


def _show_card(judged: Card, *, height: int) -> None:
    """Show conclusion, picture and evidence in the current container.

    An error in drawing is shown in the card and logged; other cards are drawn all the same.
    """
    with _keep_errors_in_card(judged.answer.name):
        if judged.verdict is None:
            _show_unreadable(judged)
            return
        _show_heading(judged.conclusion)
        show_picture(judged, height=height)
        _show_evidence(judged)


@contextlib.contextmanager
def _keep_errors_in_card(name: str) -> Iterator[None]:
    try:
        yield
    except Exception:
        _LOG.exception("A card cannot be drawn.")
        st.error(tell("page.card_failed", name=as_markdown(visible(name))))


def show_picture(judged: Card, *, height: int) -> None:
    """The upright image, about as high as this in pixels, or twice as wide."""
    answer = judged.answer
    ratio = max(1 / MOST_RATIO, (answer.width or 1) / (answer.height or 1))
    st.image(judged.preview, alt=_alt(judged), width=round(height * min(2.0, ratio)))


def _alt(judged: Card) -> str:
    return tell("page.picture", name=visible(judged.answer.name))


def _show_truth(judged: Card, example: LocalFile) -> None:
    label = judged.given_verdict.label
    if label == UNCERTAIN:
        outcome = tell("example.no_answer")
    else:
        outcome = tell("example.right" if label == example.label else "example.wrong")
    st.markdown(f"{local(example.caption)} {outcome}")


def _show_cards(judged: Sequence[Card], *, judge: Judge) -> None:
    # Two pictures stand large, side by side.
    are_few = len(judged) in (2, 4)
    columns, height = (2, _LARGE_HEIGHT) if are_few else (_COLUMNS, _PICTURE_HEIGHT)
    with st.grid(columns=columns, min_column_width=280):
        for number, one in enumerate(judged):
            with st.container(border=True):
                _show_card(one, height=height)
                if one.verdict is None:
                    continue
                with st.container(horizontal=True):
                    st.button(
                        tell("page.why"),
                        key=f"why_{number}",
                        icon=":material/search_insights:",
                        on_click=_open_why,
                        args=(number,),
                    )
                    show_mistake_report(one, judge=judge, key=f"mistake_{number}")
    number = st.session_state.get(_WHY_KEY)
    if number is not None and number < len(judged) and judged[number].verdict is not None:
        _open_dialog(judged[number], judge=judge)


def _open_why(number: int) -> None:
    st.session_state[_WHY_KEY] = number


def _close_why() -> None:
    st.session_state.pop(_WHY_KEY, None)


def _open_dialog(judged: Card, *, judge: Judge) -> None:
    # The title is in the visitor's language, so the dialog is made when it is opened.
    dialog = st.dialog(tell("page.why"), width="large", on_dismiss=_close_why)
    dialog(_show_single)(judged, judge=judge)


def _choose_shown(judged: Sequence[Card], counts: Mapping[str, str]) -> list[Card]:
    """Let the user filter by conclusions; returns what is to be shown, in their order."""
    wanted = st.pills(
        tell("table.filter"),
        list(counts),
        selection_mode="multi",
        format_func=counts.get,
        key="shown_conclusions",
    )
    shown = [one for one in judged if not wanted or one.conclusion.title in wanted]
    return sorted(shown, key=lambda one: (rank(one.conclusion.code), one.conclusion.title))


def _show_table(judged: Sequence[Card]) -> int | None:
    """A table with thumbnails; returns the index of the row the user selected."""
    event = st.dataframe(
        **_table(judged), key="table", on_select="rerun", selection_mode="single-row"
    )
    selected = event.selection.rows
    return selected[0] if selected and selected[0] < len(judged) else None


def _table(judged: Sequence[Card]) -> dict[str, object]:
    """What `st.dataframe` shows of these pictures."""
    rows = [table_row(one, language=visitor_language()) for one in judged]
    # No generator is known of most pictures, and an empty column only takes room.
    columns = [name for name in rows[0] if name != "generator" or any(row[name] for row in rows)]
    # With these the name of the file stands on a phone's screen too; long texts wrap.
    widths = {"conclusion": 130, "file": 135, "generator": 170, "size": 110}
    return {
        "data": rows,
        "column_order": columns,
        "hide_index": True,
        "row_height": _ROW_HEIGHT,
        # As many rows as there are; more than ten are scrolled.
        "height": _HEAD_HEIGHT + min(10, len(judged)) * _ROW_HEIGHT,
        "placeholder": "–",
        "alt": tell("table.alt"),
        "column_config": {
            "image": st.column_config.ImageColumn(tell("table.image"), width=60),
            **{
                name: st.column_config.TextColumn(tell(f"table.{name}"), width=width)
                for name, width in widths.items()
            },
        },
    }


def table_row(judged: Card, *, language: str) -> dict[str, object]:
    """One row of the table."""
    answer, conclusion = judged.answer, judged.conclusion
    thumbnail = base64.b64encode(judged.thumbnail).decode("ascii")
    return {
        "image": f"data:image/jpeg;base64,{thumbnail}" if thumbnail else None,
        "conclusion": plain(conclusion, language=language),
        "file": visible(answer.name),
        "generator": visible(conclusion.generator),
        "size": f"{answer.width} × {answer.height}" if judged.verdict else "",
    }


def _make_report(
    kind: str, judged: Sequence[Card], *, judge: Judge, created: str, language: str
) -> bytes:
    # ReportLab takes a while to import, and most visitors want no report.
    from real_vs_ai.ui.reports import csv_report, json_report, pdf_report

    if kind == "csv":
        return csv_report(judged, metadata=judge.metadata)
    if kind == "json":
        return json_report(judged, judge=judge, created=created)
    return pdf_report(judged, judge=judge, created=created, language=language)


def _show_downloads(judged: Sequence[Card], *, judge: Judge) -> None:
    """Three buttons; each file is made when its button is clicked."""
    now = datetime.now(UTC)
    make = functools.partial(
        _make_report,
        judged=judged,
        judge=judge,
        created=f"{now:%Y-%m-%d %H:%M} UTC",
        language=visitor_language(),
    )
    for kind, mime, icon in (
        ("pdf", "application/pdf", ":material/description:"),
        ("csv", "text/csv", ":material/table:"),
        ("json", "application/json", ":material/data_object:"),
    ):
        st.download_button(
            tell(f"download.{kind}"),
            functools.partial(make, kind),
            file_name=f"checked-images-{now:%Y%m%d-%H%M}.{kind}",
            mime=mime,
            icon=icon,
            on_click="ignore",
        )
