"""Show a checked image as a card or as a row of a table."""

from __future__ import annotations

import base64
import contextlib
import logging
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

import streamlit as st

from real_vs_ai.config import POSITIVE_CLASS, UNCERTAIN
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.provenance import Finding, describe_origin
from real_vs_ai.ui.checking import MOST_RATIO, Card
from real_vs_ai.ui.image_input import Example
from real_vs_ai.ui.model_choice import ChosenModel
from real_vs_ai.ui.reports import reason_sentences
from real_vs_ai.ui.wording import (
    UNREADABLE,
    as_markdown,
    percent,
    probability_sentence,
    short_reason,
    verdict_number,
    verdict_style,
    visible,
)
from real_vs_ai.verdict import ReasonCode, Verdict, thresholds_of, uncertain_range

_LOG = logging.getLogger(__name__)
# In pixels; a narrow page shows less. With these a card fits on a phone's screen.
_BAR_WIDTH = 480
_PICTURE_HEIGHT, _SMALL_PICTURE_HEIGHT = 220, 180
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
# Characters that identify a model file to people.
SHORT_HASH = 12


def show_card(
    judged: Card,
    *,
    chosen: ChosenModel,
    example: Example | None,
    said_above: Collection[ReasonCode] = (),
    small: bool = False,
) -> None:
    """Show origin data, verdict, picture, reason and details in the current container.

    An error in drawing is shown in the card and logged; other cards are drawn all the same.

    Args:
        example: What the picture is, when it is one of the app's examples.
        said_above: Reasons that are explained once for many cards.
        small: One card of many: picture and texts stand below each other, and are shorter.
    """
    answer = judged.answer
    with _keep_errors_in_card(judged.answer.name):
        if judged.verdict is None:
            st.markdown(f"## {UNREADABLE.heading}")
            st.text(visible(judged.answer.name))
            st.text(error_sentence(answer.error))
            return
        metadata = chosen.metadata_of(judged.verdict)
        if answer.findings or not small:
            show_origin(answer.findings)
        st.markdown(f"## {verdict_style(judged.verdict.label, metadata).heading}")
        # Side by side where there is room for both.
        with st.grid(columns=1 if small else 2, min_column_width=280):
            with st.container():
                show_picture(judged, height=_SMALL_PICTURE_HEIGHT if small else _PICTURE_HEIGHT)
            with st.container():
                _show_reasons(judged.verdict, metadata, said_above=said_above, small=small)
                if example:
                    _show_truth(judged.verdict, example)
                st.caption(_details(judged, chosen))


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


def show_origin(findings: Sequence[Finding]) -> None:
    """What the file says of its own origin: often the strongest evidence, so it stands first."""
    origin = describe_origin(findings)
    headline = f":material/fingerprint: {as_markdown(origin.headline)}"
    if not findings:
        st.caption(headline)
        return
    st.markdown(f"**{headline}**")
    details = [finding.text for finding in findings if finding.text != origin.headline]
    st.caption(" ".join(as_markdown(text) for text in [*details, origin.forgery] if text))


def _show_reasons(
    verdict: Verdict, metadata: ModelMetadata, *, said_above: Collection[ReasonCode], small: bool
) -> None:
    """Show why there is no verdict, or the number, its bar and what limits them."""
    refused = verdict.out_of_distribution_reason
    if refused:
        if refused.code in said_above:
            st.markdown(short_reason(refused))
        else:
            st.markdown(f"**Can't tell.** {as_markdown(refused.sentence)}")
        return
    st.markdown(probability_sentence(verdict, metadata))
    if metadata.positive_index is None:
        _show_class_bars(verdict)
    else:
        _show_probability_bar(verdict, metadata, small=small)
    for reason in verdict.reasons:
        # The sentence with the number has said so.
        if reason.code is not ReasonCode.NOT_CALIBRATED:
            st.markdown(as_markdown(reason.sentence))


def _show_truth(verdict: Verdict, example: Example) -> None:
    if verdict.label == UNCERTAIN:
        outcome = "the model gives no verdict"
    else:
        outcome = "the model is right" if verdict.label == example.label else "the model is wrong"
    st.markdown(f":material/school: {example.caption} Here {outcome}.")


def _details(judged: Card, chosen: ChosenModel) -> str:
    answer, verdict = judged.answer, judged.verdict
    made = chosen.metadata_of(verdict).created[:10]
    model = as_markdown(visible(chosen.name_of(verdict)))
    parts = [
        as_markdown(judged.answer.name),
        f"{answer.width} × {answer.height} pixels, {as_markdown(answer.format)}",
        f"Model {model}{f' of {as_markdown(made)}' if made else ''}, "
        f"SHA-256 {chosen.sha256_of(verdict)[:SHORT_HASH]}",
    ]
    same = judged.same_as
    remarks = [*answer.notes, *([f"Same content as {as_markdown(same)}."] if same else [])]
    return " ".join([f"{' · '.join(parts)}.", *remarks])


def _show_probability_bar(verdict: Verdict, metadata: ModelMetadata, *, small: bool) -> None:
    probability = verdict.probabilities[POSITIVE_CLASS]
    lower, upper = uncertain_range(thresholds_of(metadata))
    words = f"{percent(probability, digits=1)} on a scale from 0 %, real, to 100 %, AI-generated"
    st.image(
        probability_bar(probability, lower=lower, upper=upper),
        alt=f"Bar: {words}; Uncertain lies between {percent(lower)} and {percent(upper)}",
        width=_BAR_WIDTH,
    )
    if small:
        return
    if lower < upper:
        band = f"Striped: Uncertain, {percent(lower)} to {percent(upper)}"
    else:
        band = f"AI-generated from {percent(upper)} on"
    st.caption(f"Left: Real. Right: AI-generated. {band}.")


def _show_class_bars(verdict: Verdict) -> None:
    ranked = sorted(verdict.probabilities.items(), key=lambda item: -item[1])
    for name, probability in ranked[:5]:
        text = f"{as_markdown(name)}: {percent(probability, digits=1)}"
        st.progress(min(1.0, max(0.0, probability)), text=text)


def probability_bar(probability: float, *, lower: float, upper: float) -> str:
    """An SVG of the scale from real (0) to AI-generated (1) with Uncertain band and marker."""
    width, left = 600.0, 12.0
    x_lower, x_upper, x_marker = (left + width * p for p in (lower, upper, probability))
    end = left + width
    # These colours stand out from a white page and from a near-black one.
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width + 2 * left:.0f} 44">'
        '<defs><pattern id="stripes" width="8" height="8" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><rect width="8" height="8" fill="#e0a040"/>'
        '<rect width="3" height="8" fill="#8a5a10"/></pattern></defs>'
        f'<rect x="{left}" y="16" width="{x_lower - left:.1f}" height="18" fill="#2f9e5b"/>'
        f'<rect x="{x_lower:.1f}" y="16" width="{x_upper - x_lower:.1f}" height="18" '
        'fill="url(#stripes)"/>'
        f'<rect x="{x_upper:.1f}" y="16" width="{end - x_upper:.1f}" height="18" fill="#d9534a"/>'
        f'<path d="M{x_marker - 10:.1f} 1h20l-10 14z" fill="#1b2130" stroke="#fff" '
        'stroke-width="1.5"/>'
        f'<rect x="{x_marker - 2.5:.1f}" y="13" width="5" height="26" fill="#1b2130" '
        'stroke="#fff" stroke-width="1.5"/></svg>'
    )


def show_table(judged: Sequence[Card], *, chosen: ChosenModel) -> int | None:
    """A sortable table with thumbnails; returns the index of the row the user selected."""
    import pandas as pd

    number = "Probability" if chosen.metadata.calibrated else "Score"
    table = pd.DataFrame([table_row(one, chosen=chosen, number=number) for one in judged])
    dark = st.context.theme.type == "dark"
    styles = {
        verdict_style(label, chosen.metadata).plain: _cell_style(label, chosen.metadata, dark=dark)
        for label in map(label_of, judged)
    }
    event = st.dataframe(
        table.style.map(lambda words: styles.get(words, ""), subset=["Verdict"]),
        key="table",
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        row_height=_ROW_HEIGHT,
        # As many rows as there are; more than ten are scrolled.
        height=_HEAD_HEIGHT + min(10, len(judged)) * _ROW_HEIGHT,
        placeholder="–",
        alt="Table of the checked images with verdict and probability",
        column_config={
            "Image": st.column_config.ImageColumn(width=70),
            "File": st.column_config.TextColumn(width=160),
            "Verdict": st.column_config.TextColumn(width=140),
            number: st.column_config.ProgressColumn(
                min_value=0.0, max_value=1.0, format="percent", width=130
            ),
            "Size": st.column_config.TextColumn(width=100),
            "Remarks": st.column_config.TextColumn(width=420),
        },
    )
    selected = event.selection.rows
    return selected[0] if selected and selected[0] < len(judged) else None


def _cell_style(label: str, metadata: ModelMetadata, *, dark: bool) -> str:
    light_colour, dark_colour = _COLOURS[verdict_style(label, metadata).colour]
    return f"color: {dark_colour if dark else light_colour}; font-weight: 600"


def table_row(judged: Card, *, chosen: ChosenModel, number: str) -> dict[str, object]:
    """One row of the table; `number` is the name of the column for the probability."""
    answer, verdict = judged.answer, judged.verdict
    thumbnail = base64.b64encode(judged.thumbnail).decode("ascii")
    error = error_sentence(answer.error) if answer.error else ""
    remarks = [error, *reason_sentences(verdict), *answer.notes]
    remarks += [finding.text for finding in answer.findings]
    if judged.same_as:
        remarks.append(f"Same content as {visible(judged.same_as)}.")
    return {
        "Image": f"data:image/jpeg;base64,{thumbnail}" if thumbnail else None,
        "File": visible(answer.name),
        "Verdict": verdict_style(label_of(judged), chosen.metadata_of(verdict)).plain,
        number: verdict_number(verdict),
        "Size": f"{answer.width} × {answer.height}" if verdict else "",
        "Remarks": " ".join(filter(None, remarks)),
    }


def error_sentence(error: str) -> str:
    """Why a file cannot be read, with a capital and a full stop."""
    return f"{error[:1].upper()}{error[1:]}."


def label_of(judged: Card) -> str:
    """The label of a file; "" for an unreadable one."""
    return judged.verdict.label if judged.verdict else ""


def count_labels(judged: Sequence[Card], metadata: ModelMetadata) -> dict[str, int]:
    """How many files have each label that occurs: classes, Uncertain, "" for unreadable ones."""
    counts = Counter(map(label_of, judged))
    order = [*metadata.class_names, UNCERTAIN, ""]
    return dict(sorted(counts.items(), key=lambda item: order.index(item[0])))
