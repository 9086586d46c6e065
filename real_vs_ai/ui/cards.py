"""Show a checked image as a card or as a row of a table.

show_card(judged, metadata=metadata)
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

import streamlit as st

from real_vs_ai.config import POSITIVE_CLASS, UNCERTAIN
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.serving.provenance import Finding, describe_origin
from real_vs_ai.ui.judging import JudgedUpload
from real_vs_ai.ui.wording import (
    as_markdown,
    out_of_distribution_sentence,
    percent,
    probability_sentence,
    verdict_number,
    verdict_style,
    visible,
)
from real_vs_ai.verdict import ReasonCode, Verdict, thresholds_of, uncertain_range

UNREADABLE = "Unreadable"
# In pixels; narrower where there is less room.
_BAR_WIDTH = 480


def show_picture(judged: JudgedUpload) -> None:
    """The upright image, reduced; nothing for a file that cannot be read."""
    check = judged.upload.check
    if check.preview:
        name = visible(judged.upload.name)
        st.image(check.preview, alt=f"The uploaded image {name}", width="stretch")


def show_card(judged: JudgedUpload, *, metadata: ModelMetadata) -> None:
    """Name, origin data, verdict, probability and remarks, in the current container.

    Args:
        judged: The file and its verdict.
        metadata: The model's, with the thresholds now chosen.
    """
    upload, check = judged.upload, judged.upload.check
    st.text(visible(upload.name))
    if judged.verdict is None:
        st.error(f"Cannot be read: {as_markdown(check.error)}", icon=":material/broken_image:")
    else:
        show_origin(check.provenance)
        show_verdict(judged.verdict, metadata=metadata)
        size = f"{check.width} × {check.height} pixels, {as_markdown(check.format)}."
        model = judged.verdict.model
        by = [f"Judged by the model {as_markdown(visible(model))}."] if model else []
        st.caption(" ".join([size, *check.notes, *by]))
    if upload.same_as:
        st.caption(f":material/content_copy: Same content as {as_markdown(upload.same_as)}")


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


def show_verdict(verdict: Verdict, *, metadata: ModelMetadata) -> None:
    """Heading, number and bar of a verdict; first of all why an image is out-of-distribution."""
    st.markdown(f"## {verdict_style(verdict.label, metadata).heading}")
    reason = verdict.out_of_distribution_reason
    if reason:
        st.warning(out_of_distribution_sentence(reason), icon=":material/straighten:")
        return
    st.markdown(probability_sentence(verdict, metadata))
    if metadata.positive_index is None:
        _show_class_bars(verdict)
    else:
        _show_probability_bar(verdict, metadata)
    for reason in verdict.reasons:
        # The sentence with the number says so already.
        if reason.code is not ReasonCode.NOT_CALIBRATED:
            st.caption(f":material/info: {as_markdown(reason.sentence)}")


def _show_probability_bar(verdict: Verdict, metadata: ModelMetadata) -> None:
    probability = verdict.probabilities[POSITIVE_CLASS]
    lower, upper = uncertain_range(thresholds_of(metadata))
    words = f"{percent(probability, digits=1)} on a scale from 0 %, real, to 100 %, AI-generated"
    st.image(
        probability_bar(probability, lower=lower, upper=upper),
        alt=f"Bar: {words}; Uncertain lies between {percent(lower)} and {percent(upper)}",
        width=_BAR_WIDTH,
    )
    if lower < upper:
        band = f"striped: Uncertain, {percent(lower)} to {percent(upper)}"
    else:
        band = f"AI-generated from {percent(upper)} on"
    st.caption(f"Left: real. Right: AI-generated. {band[0].upper()}{band[1:]}.")


def _show_class_bars(verdict: Verdict) -> None:
    ranked = sorted(verdict.probabilities.items(), key=lambda item: -item[1])
    for name, probability in ranked[:5]:
        text = f"{as_markdown(name)}: {percent(probability, digits=1)}"
        st.progress(min(1.0, max(0.0, probability)), text=text)


def probability_bar(probability: float, *, lower: float, upper: float) -> str:
    """An SVG of the scale from real to AI-generated with the Uncertain band and a marker.

    Args:
        probability: Of being AI-generated, 0 to 1; where the marker stands.
        lower: Left end of the Uncertain band, 0 to 1.
        upper: Right end, at least `lower`.
    """
    width, left = 600.0, 12.0
    x_lower, x_upper, x_marker = (left + width * p for p in (lower, upper, probability))
    end = left + width
    # Mid-tones that stand out from a white and from a near-black page alike.
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


def show_table(judged: Sequence[JudgedUpload], *, metadata: ModelMetadata) -> int | None:
    """A sortable table with thumbnails; returns the index of the row the user selected."""
    import pandas as pd

    number = "Probability" if metadata.calibrated else "Score"
    rows = [table_row(one, metadata=metadata, number=number) for one in judged]
    event = st.dataframe(
        pd.DataFrame(rows),
        key="table",
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        row_height=56,
        height=520,
        alt="Table of the checked images with verdict and probability",
        column_config={
            "Image": st.column_config.ImageColumn(width="small"),
            number: st.column_config.ProgressColumn(min_value=0.0, max_value=1.0, format="percent"),
        },
    )
    selected = event.selection.rows
    return selected[0] if selected and selected[0] < len(judged) else None


def table_row(judged: JudgedUpload, *, metadata: ModelMetadata, number: str) -> dict[str, object]:
    """One row of the table: texts and numbers, the picture as a data URL.

    Args:
        judged: The file and its verdict.
        metadata: The model's.
        number: Name of the column for the probability.
    """
    upload, check, verdict = judged.upload, judged.upload.check, judged.verdict
    remarks = [check.error, *check.notes, *reason_sentences(verdict)]
    remarks += [finding.text for finding in check.provenance]
    if upload.same_as:
        remarks.append(f"Same content as {visible(upload.same_as)}")
    return {
        "Image": _data_url(check.thumbnail) if check.thumbnail else None,
        "File": visible(upload.name),
        "Verdict": label_words(verdict, metadata),
        number: verdict_number(verdict),
        "Size": f"{check.width} × {check.height}" if verdict else "",
        "Remarks": " ".join(filter(None, remarks)),
    }


def reason_sentences(verdict: Verdict | None) -> list[str]:
    """The sentences of a verdict's reasons; none for an image that cannot be read."""
    return [reason.sentence for reason in verdict.reasons] if verdict else []


def label_words(verdict: Verdict | None, metadata: ModelMetadata) -> str:
    """The verdict's words, also for images that have none."""
    if verdict is None:
        return UNREADABLE
    return verdict_style(verdict.label, metadata).words


def count_labels(judged: Sequence[JudgedUpload], metadata: ModelMetadata) -> dict[str, int]:
    """How many files have each verdict, in the order: classes, Uncertain, Unreadable."""
    labels = [*metadata.class_names, UNCERTAIN]
    counts = {verdict_style(label, metadata).words: 0 for label in labels}
    counts[UNREADABLE] = 0
    for one in judged:
        counts[label_words(one.verdict, metadata)] += 1
    return counts


def _data_url(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")
