"""Explain a verdict: what the model looked at, whether it holds, what the file says.

    show_details(judged, data=file.getvalue(), chosen=chosen, metadata=metadata)

Each part is computed when its tab is opened.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import streamlit as st
from PIL import Image

from real_vs_ai.config import UNCERTAIN
from real_vs_ai.gradcam import overlay_heatmap
from real_vs_ai.images import resize_image
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.serving.explanation import Explainer, map_crops
from real_vs_ai.serving.provenance import describe_origin
from real_vs_ai.ui.checking import fit_to_screen
from real_vs_ai.ui.insight_panel import forget_conversations, show_insight
from real_vs_ai.ui.judging import JudgedUpload, Variant, judge_variants
from real_vs_ai.ui.model_choice import ChosenModel
from real_vs_ai.ui.wording import as_markdown, percent, verdict_number, verdict_style
from real_vs_ai.verdict import Verdict

_PIXELS_KEY = "details_pixels"
# A camera's photograph; of larger ones a few visitors' would fill the memory.
_MOST_KEPT_BYTES = 64 * 2**20
# The first one is open at once: it costs nothing, while the heat map loads TensorFlow.
_TABS = (
    ":material/fingerprint: What the file tells",
    ":material/balance: Does it hold?",
    ":material/local_fire_department: Where it looked",
    ":material/auto_awesome: Ask Gemini",
)


_REFUSED = (
    "{} explains a verdict, and the model gives none on an image so different from its training "
    "images."
)


def show_details(
    judged: JudgedUpload, *, data: bytes, chosen: ChosenModel, metadata: ModelMetadata
) -> None:
    """Tabs on one readable image.

    Args:
        judged: The file and its verdict.
        data: The file's bytes.
        chosen: The model that answered.
        metadata: The model's, with the thresholds now chosen.
    """
    provenance, stability, heat, insight = st.tabs(_TABS, on_change="rerun", key="details")
    digest = judged.upload.check.digest
    refused = judged.verdict.out_of_distribution
    with heat:
        if heat.open and refused:
            st.info(_REFUSED.format("A heat map"), icon=":material/help:")
        elif heat.open:
            _show_heat_map(digest, data=data, chosen=chosen, judged=judged)
    with stability:
        if stability.open and refused:
            st.info(_REFUSED.format("This test"), icon=":material/help:")
        elif stability.open:
            _show_stability(judged, data=data, chosen=chosen, metadata=metadata)
    with provenance:
        if provenance.open:
            _show_provenance(judged, metadata=metadata)
    with insight:
        if insight.open:
            pixels = _pixels(digest, data, chosen=chosen)
            show_insight(digest=digest, pixels=pixels, finding=_finding(judged, metadata))


def known_variants(chosen: ChosenModel) -> dict[str, tuple[Variant, ...]]:
    """The treated copies judged so far in this session by this model, by content digest."""
    if st.session_state.get("variants_model") != chosen.key:
        st.session_state["variants_model"] = chosen.key
        st.session_state["variants"] = {}
    return st.session_state["variants"]


def ask_variants(digest: str, pixels: np.ndarray, *, chosen: ChosenModel) -> None:
    """Judge treated copies of an image and remember what came out, for `known_variants`."""
    variants = judge_variants(pixels, predict_batch=chosen.service.predict_batch)
    known_variants(chosen)[digest] = variants


def forget_details() -> None:
    """Let go of what was made for the tabs."""
    st.session_state.pop(_PIXELS_KEY, None)
    forget_conversations()


def _show_stability(
    judged: JudgedUpload, *, data: bytes, chosen: ChosenModel, metadata: ModelMetadata
) -> None:
    digest = judged.upload.check.digest
    if digest not in known_variants(chosen):
        with st.spinner("Judging treated copies of the image …"):
            ask_variants(digest, _pixels(digest, data, chosen=chosen), chosen=chosen)
        # The card above must learn of a flip.
        st.rerun()
    st.markdown(
        "Images on the web are recompressed, resized and cropped. A verdict worth believing "
        "survives that; one that flips is given as Uncertain."
    )
    number = "Probability" if metadata.calibrated else "Score"
    lines = [f"| After | Verdict | {number} |", "|---|---|---:|"]
    for variant in (Variant("no change", judged.own), *judged.variants):
        verdict = variant.verdict
        share = verdict_number(verdict)
        number_text = "–" if share is None else percent(share, digits=1)
        heading = verdict_style(verdict.label, metadata).heading
        lines.append(f"| {variant.name} | {heading} | {number_text} |")
    st.markdown("\n".join(lines))
    _conclude_stability(judged)


def _conclude_stability(judged: JudgedUpload) -> None:
    """Say in a sentence whether the verdict holds; an Uncertain one cannot."""
    kept = sum(variant.verdict.label == judged.own.label for variant in judged.variants)
    if judged.flipped_by:
        changes = ", ".join(judged.flipped_by)
        st.warning(f"It flips after {changes}.", icon=":material/sync_problem:")
    elif judged.own.label == UNCERTAIN:
        st.info("The verdict is Uncertain, so there is nothing to hold.", icon=":material/help:")
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


def _finding(judged: JudgedUpload, metadata: ModelMetadata) -> str:
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
    pixels = chosen.service.decode(data).pixels
    if pixels.nbytes <= _MOST_KEPT_BYTES:
        st.session_state[_PIXELS_KEY] = (digest, pixels)
    return pixels


def _show_heat_map(digest: str, *, data: bytes, chosen: ChosenModel, judged: JudgedUpload) -> None:
    metadata = chosen.metadata_of(judged.verdict)
    names = metadata.class_names
    likeliest = max(judged.own.probabilities, key=judged.own.probabilities.get)
    name = st.segmented_control(
        "What speaks for",
        names,
        default=likeliest,
        format_func=lambda name: as_markdown(verdict_style(name, metadata).words),
        required=True,
        key=f"heat_class_{digest}",
    )
    strength = st.slider("Strength of the overlay", 0, 100, 60, format="%d%%", key="heat_strength")
    pixels = _pixels(digest, data, chosen=chosen)
    try:
        with st.spinner("Looking. The first time, the training library is loaded …"):
            heatmap = heat_map(chosen, pixels, verdict=judged.own, digest=digest, class_name=name)
    except (OSError, ValueError, RuntimeError) as error:
        st.error(f"No heat map for this model: {as_markdown(str(error))}", icon=":material/error:")
        return
    words = verdict_style(name, metadata).words
    st.image(
        overlay(pixels, heatmap, strength=strength / 100),
        alt=f"The image, coloured where it speaks for {words}",
    )
    if judged.own.crops:
        st.caption(
            f"Each crop that the model judges is as bright as its probability of "
            f"{as_markdown(words)}; parts that no crop shows are clear."
        )
        return
    st.caption(
        f"Grad-CAM (Selvaraju et al. 2017): bright places spoke most for {as_markdown(words)}, "
        "clear ones least. It shows where the model looked, not that it was right to."
    )


def _show_provenance(judged: JudgedUpload, *, metadata: ModelMetadata) -> None:
    st.markdown(
        "What the file says about itself is separate evidence. It never changes the verdict."
    )
    for finding in judged.upload.check.provenance:
        with st.container(border=True):
            st.text(f"{finding.kind}: {finding.text}")
            if finding.speaks_for is not None:
                style = verdict_style(finding.speaks_for, metadata)
                st.markdown(f"Speaks for {style.heading}")
            if finding.forgery:
                st.caption(finding.forgery)
    if not judged.upload.check.provenance:
        headline = describe_origin(()).headline
        st.info(headline, icon=":material/search_off:")


# In pixels; large enough to see, small enough to send at each move of the slider.
_SHOWN_SIZE = 768


def heat_map(
    chosen: ChosenModel, pixels: np.ndarray, *, verdict: Verdict, digest: str, class_name: str
) -> np.ndarray:
    """Where the image speaks for a class: by its crops, or by Grad-CAM at the input size.

    Args:
        chosen: The model.
        pixels: Upright, shape (height, width, 3), uint8.
        verdict: On the image; a verdict on crops says already where the evidence is.
        digest: Of the image; the map is computed once in a session.
        class_name: The class to explain.

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
        # What the network saw, and a map small enough to keep.
        seen = resize_image(pixels, chosen.metadata_of(verdict).image_size)
        explainer = _explainer(*chosen.file_of(verdict))
        known[key] = explainer.explain(seen, class_name=class_name).heatmap
    return known[key]


def overlay(pixels: np.ndarray, heatmap: np.ndarray, *, strength: float) -> np.ndarray:
    """The image, at a size for the screen, under the heat map; see `gradcam.overlay_heatmap`."""
    image = fit_to_screen(Image.fromarray(pixels), longest_side=_SHOWN_SIZE)
    cells = Image.fromarray(heatmap).resize(image.size, Image.Resampling.BILINEAR)
    return overlay_heatmap(np.asarray(image), np.asarray(cells), strength=strength)


@st.cache_resource(max_entries=1, show_spinner=False)
def _explainer(path: str, modified_ns: int, size: int) -> Explainer:
    return Explainer(Path(path))
