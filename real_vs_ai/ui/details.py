"""Explain a verdict: origin data, stability, heat map, Gemini, and how to report a mistake.

Each part is computed when its tab is opened.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import streamlit as st
from PIL import Image

from real_vs_ai.config import UNCERTAIN
from real_vs_ai.images import resize_image
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.provenance import describe_origin
from real_vs_ai.serving.explanation import Explainer, map_crops, overlay_heatmap
from real_vs_ai.ui.checking import Card, Variant, fit_to_screen, judge_variants
from real_vs_ai.ui.insight_panel import forget_conversations, show_insight
from real_vs_ai.ui.model_choice import ChosenModel, show_error
from real_vs_ai.ui.reports import ReportModel, mistake_report
from real_vs_ai.ui.wording import as_markdown, percent, verdict_number, verdict_style
from real_vs_ai.verdict import Verdict

_PIXELS_KEY = "details_pixels"
# Enough for a camera's photograph. Larger ones of a few visitors would fill the memory.
_MOST_KEPT_BYTES = 64 * 2**20
# The first tab opens with the page, so it is the one that costs nothing.
_ORIGIN = ":material/fingerprint: Origin data"
_STABILITY = ":material/balance: Stability"
_HEAT_MAP = ":material/local_fire_department: Heat map"
_GEMINI = ":material/auto_awesome: Ask Gemini"
_MISTAKE = ":material/flag: Report a mistake"


def show_details(judged: Card, *, data: bytes, chosen: ChosenModel) -> None:
    """Show tabs on one readable image; those that explain a verdict only where there is one."""
    st.subheader("Why?")
    refused = judged.verdict.out_of_distribution
    names = [_ORIGIN, *([] if refused else [_STABILITY, _HEAT_MAP]), _GEMINI, _MISTAKE]
    show = {
        _ORIGIN: _show_provenance,
        _STABILITY: _show_stability,
        _HEAT_MAP: _show_heat_map,
        _GEMINI: _show_gemini,
        _MISTAKE: _show_mistake,
    }
    key = "details_refused" if refused else "details"
    for name, tab in zip(names, st.tabs(names, on_change="rerun", key=key), strict=True):
        with tab:
            if tab.open:
                show[name](judged, data=data, chosen=chosen)
    if refused:
        st.caption("There is no stability test and no heat map: they explain a verdict.")


def known_variants(chosen: ChosenModel) -> dict[str, tuple[Variant, ...]]:
    """The changed copies that this model judged in this session, by content digest."""
    if st.session_state.get("variants_model") != chosen.key:
        st.session_state["variants_model"] = chosen.key
        st.session_state["variants"] = {}
    return st.session_state["variants"]


def ask_variants(digest: str, pixels: np.ndarray, *, chosen: ChosenModel) -> None:
    """Judge changed copies of an image and remember the verdicts, for `known_variants`."""
    variants = judge_variants(pixels, judge=chosen.judge.judge_pixels)
    known_variants(chosen)[digest] = variants


def forget_details() -> None:
    """Forget what was made for the tabs."""
    st.session_state.pop(_PIXELS_KEY, None)
    forget_conversations()


def _show_stability(judged: Card, *, data: bytes, chosen: ChosenModel) -> None:
    digest = judged.answer.sha256
    metadata = chosen.metadata_of(judged.verdict)
    if digest not in known_variants(chosen):
        with st.spinner("Judging changed copies of the picture …"):
            ask_variants(digest, _pixels(digest, data, chosen=chosen), chosen=chosen)
        # The card above must learn of a flip.
        st.rerun()
    st.markdown(
        "Pictures on the web are recompressed, resized and cropped. A reliable verdict survives "
        "that. If one of these changes turns it into another class, the verdict is Uncertain."
    )
    number = "Probability" if metadata.calibrated else "Score"
    lines = [f"| After | Verdict | {number} |", "|---|---|---:|"]
    for change, verdict in (("no change", judged.own), *judged.variants):
        share = verdict_number(verdict)
        number_text = "–" if share is None else percent(share, digits=1)
        heading = verdict_style(verdict.label, metadata).heading
        lines.append(f"| {change} | {heading} | {number_text} |")
    st.markdown("\n".join(lines))
    _conclude_stability(judged)


def _conclude_stability(judged: Card) -> None:
    """Say in a sentence whether the verdict holds; an Uncertain one cannot."""
    kept = sum(verdict.label == judged.own.label for _, verdict in judged.variants)
    if judged.flipped_by:
        changes = ", ".join(judged.flipped_by)
        st.warning(f"It flips after {changes}.", icon=":material/sync_problem:")
    elif judged.own.label == UNCERTAIN:
        st.info("The verdict is Uncertain, so there is no verdict to test.", icon=":material/help:")
    elif kept < len(judged.variants) / 2:
        st.warning(
            f"Only {kept} of {len(judged.variants)} changed copies keep the verdict; the others "
            "are Uncertain.",
            icon=":material/help:",
        )
    else:
        st.success(
            f"{kept} of {len(judged.variants)} changed copies keep the verdict, and none turns "
            "into another class.",
            icon=":material/check_circle:",
        )


def _finding(judged: Card, metadata: ModelMetadata) -> str:
    """The verdict in plain words, for Gemini."""
    verdict = judged.verdict
    shares = ", ".join(
        f"{name} {percent(p, digits=1)}" for name, p in verdict.probabilities.items()
    )
    words = verdict_style(verdict.label, metadata).words
    reason = verdict.out_of_distribution_reason
    if reason:
        return f"{words}. {reason.sentence}"
    kind = "calibrated probabilities" if metadata.calibrated else "uncalibrated scores"
    return f"{words} ({kind}: {shares})"


def _pixels(digest: str, data: bytes, *, chosen: ChosenModel) -> np.ndarray:
    """The decoded image; the one looked at last is kept, so that a slider need not decode."""
    held = st.session_state.get(_PIXELS_KEY)
    if held is not None and held[0] == digest:
        return held[1]
    st.session_state.pop(_PIXELS_KEY, None)
    pixels = chosen.judge.decode(data).pixels
    if pixels.nbytes <= _MOST_KEPT_BYTES:
        st.session_state[_PIXELS_KEY] = (digest, pixels)
    return pixels


def _show_heat_map(judged: Card, *, data: bytes, chosen: ChosenModel) -> None:
    digest = judged.answer.sha256
    metadata = chosen.metadata_of(judged.verdict)
    names = metadata.class_names
    likeliest = max(judged.own.probabilities, key=judged.own.probabilities.get)
    name = st.segmented_control(
        "Show what speaks for",
        names,
        default=likeliest,
        format_func=lambda name: as_markdown(verdict_style(name, metadata).words),
        required=True,
        key=f"heat_class_{digest}",
    )
    strength = st.slider("Strength of the overlay", 0, 100, 60, format="%d%%", key="heat_strength")
    pixels = _pixels(digest, data, chosen=chosen)
    try:
        with st.spinner("Computing the heat map; the first one takes longer …"):
            heatmap = heat_map(chosen, pixels, verdict=judged.own, digest=digest, class_name=name)
    except (OSError, ValueError, RuntimeError) as error:
        show_error("This model has no heat map.", str(error))
        return
    words = verdict_style(name, metadata).words
    st.image(
        overlay(pixels, heatmap, strength=strength / 100),
        alt=f"The picture, coloured where it speaks for {words}",
    )
    if judged.own.crops:
        st.caption(
            f"Each crop that the model judges is as bright as its probability of "
            f"{as_markdown(words)}; parts that no crop shows are clear."
        )
        return
    st.caption(
        f"Bright places speak most for {as_markdown(words)} (Grad-CAM, Selvaraju et al. 2017). The "
        "map shows where the model looked, not whether it is right."
    )


def _show_provenance(judged: Card, *, data: bytes, chosen: ChosenModel) -> None:
    metadata = chosen.metadata_of(judged.verdict)
    findings = judged.answer.findings
    st.markdown(
        "What the file says about its origin is evidence of its own; it never changes the verdict."
        if findings
        else describe_origin(()).headline
    )
    for finding in findings:
        with st.container(border=True):
            st.text(f"{finding.kind}: {finding.text}")
            if finding.speaks_for is not None:
                style = verdict_style(finding.speaks_for, metadata)
                st.markdown(f"Speaks for {style.heading}")
            if finding.forgery:
                st.caption(finding.forgery)


def _show_gemini(judged: Card, *, data: bytes, chosen: ChosenModel) -> None:
    digest = judged.answer.sha256
    pixels = _pixels(digest, data, chosen=chosen)
    finding = _finding(judged, chosen.metadata_of(judged.verdict))
    show_insight(digest=digest, pixels=pixels, finding=finding)


def _show_mistake(judged: Card, *, data: bytes, chosen: ChosenModel) -> None:
    verdict = judged.verdict
    model = ReportModel(
        chosen.name_of(verdict), chosen.metadata_of(verdict), chosen.sha256_of(verdict)
    )
    st.markdown(
        "Is the verdict wrong? Copy this text and give it, with the picture if you may, to those "
        "who run this app. **Nothing is sent from here.**"
    )
    st.code(mistake_report(judged, model=model), language=None, wrap_lines=True)


# In pixels. The image is sent at each move of the slider.
_SHOWN_SIZE = 768


def heat_map(
    chosen: ChosenModel, pixels: np.ndarray, *, verdict: Verdict, digest: str, class_name: str
) -> np.ndarray:
    """Where the image speaks for a class: by its crops, or by Grad-CAM at the input size.

    Args:
        pixels: Upright, shape (height, width, 3), uint8.
        verdict: On the image; a verdict on crops says already where the evidence is.
        digest: The image's SHA-256; its map is computed once in a session.

    Returns:
        Shape (side, side), float32, 0 to 1.

    Raises:
        OSError, ValueError, RuntimeError: The model cannot be explained.
    """
    if verdict.crops:
        class_index = chosen.metadata_of(verdict).class_names.index(class_name)
        return map_crops(verdict.crops, class_index=class_index)
    known = st.session_state.setdefault("heat_maps", {})
    key = (chosen.key, digest, class_name)
    if key not in known:
        # The network saw the image at this size, and a map of it is small enough to keep.
        seen = resize_image(pixels, chosen.metadata_of(verdict).image_size)
        explainer = _explainer(*chosen.file_of(verdict))
        known[key] = explainer.explain(seen, class_name=class_name).heatmap
    return known[key]


def overlay(pixels: np.ndarray, heatmap: np.ndarray, *, strength: float) -> np.ndarray:
    """The image, at a size for the screen, under the heat map; see `overlay_heatmap`."""
    image = fit_to_screen(Image.fromarray(pixels), longest_side=_SHOWN_SIZE)
    cells = Image.fromarray(heatmap).resize(image.size, Image.Resampling.BILINEAR)
    return overlay_heatmap(np.asarray(image), np.asarray(cells), strength=strength)


@st.cache_resource(max_entries=1, show_spinner=False)
def _explainer(path: str, modified_ns: int, size: int) -> Explainer:
    return Explainer(Path(path))
