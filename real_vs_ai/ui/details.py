"""Explain an answer: where, whether it holds, the file's data, numbers, Gemini.

Each part is computed when its tab is opened.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import streamlit as st
from PIL import Image, ImageDraw, ImageEnhance

from real_vs_ai.config import UNCERTAIN
from real_vs_ai.images import resize_image
from real_vs_ai.model_input import reduce_to
from real_vs_ai.out_of_distribution.pixel_classifier import plain_blocks
from real_vs_ai.serving.explanation import GradCam, deciding_crops, overlay_heatmap
from real_vs_ai.serving.judge import Judge
from real_vs_ai.ui.checking import Card, fit_to_screen, judge_variants
from real_vs_ai.ui.gemini import forget_conversations, show_insight
from real_vs_ai.ui.metadata_table import has_metadata, show_metadata
from real_vs_ai.ui.model_choice import file_key, show_error
from real_vs_ai.ui.wording import as_markdown, class_words, numbers_sentence, why_no_answer
from real_vs_ai.verdict import CropScore, ReasonCode, turns

_PIXELS_KEY = "details_pixels"
# Enough for a camera's photograph. Larger ones of a few visitors would fill the memory.
_MOST_KEPT_BYTES = 64 * 2**20
_PLACES = ":material/frame_inspect: Where"
_FILE = ":material/fingerprint: The file's data"
_STABILITY = ":material/balance: Does it hold?"
_DETAILS = ":material/numbers: Details"
_GEMINI = ":material/auto_awesome: Ask Gemini"
# On the shorter side, in pixels: a map of a smaller picture shows nothing that a person could name.
_SMALLEST_MAPPED = 128
# The longest side of a heat map, in pixels.
_SHOWN_SIZE = 768
_NO_PROOF = "This shows where the model looked, not whether it is right."
_WHOLE = "This was measured on the picture as a whole: no single part of it is the reason."
# A reason that is of no part of the picture, and needs no such words.
_SAYS_IT_ALL = ReasonCode.SIZE


def show_details(judged: Card, *, judge: Judge) -> None:
    """Show tabs on one readable image; those that explain an answer only where there is one."""
    st.subheader("Why?")
    show = {_DETAILS: _show_numbers, _GEMINI: _show_gemini}
    if judged.answer.findings or has_metadata(judged.file.getvalue()):
        show = {_FILE: _show_findings, **show}
    # After a test that turned it, there is no answer any more, but a test to show.
    if judged.variants or judged.verdict.label != UNCERTAIN:
        show = {_STABILITY: _show_stability, **show}
    refused = judged.verdict.out_of_distribution_reason
    if _places_of(judged):
        show = {_PLACES: _show_places, **show}
    elif refused and refused.code is not _SAYS_IT_ALL:
        st.markdown(_WHOLE)
    if open_answer := why_no_answer(judged.verdict, judge.model_of(judged.verdict).metadata):
        st.markdown(open_answer)
    # The first tab is open at once, so it is one that costs nothing.
    first = next(name for name in show if not _costs(name, judged))
    names = [first, *(name for name in show if name != first)]
    # A tab that was open is remembered by its name, which another set may lack.
    key = f"details {names}"
    for name, tab in zip(names, st.tabs(names, on_change="rerun", key=key), strict=True):
        with tab:
            if tab.open:
                show[name](judged, judge=judge)


def _costs(name: str, judged: Card) -> bool:
    return name == _STABILITY or (name == _PLACES and _places_of(judged) is _heat_map)


def forget_details() -> None:
    """Forget what was made for the tabs."""
    st.session_state.pop(_PIXELS_KEY, None)
    forget_conversations()


def _show_stability(judged: Card, *, judge: Judge) -> None:
    known, digest = st.session_state["variants"], judged.answer.sha256
    if digest not in known:
        with st.spinner("Judging changed copies of the picture …"):
            known[digest] = judge_variants(_pixels(judged, judge), judge=judge.judge_pixels)
        # The card above must learn of a flip.
        st.rerun()
    st.markdown(
        "Pictures on the web are recompressed, resized and cropped. A reliable answer survives "
        "that. If one of these changes turns it into another, we can't tell."
    )
    metadata = judge.model_of(judged.verdict).metadata
    lines = ["| After | The model sees |", "|---|---|"]
    for change, verdict in judged.variants:
        sees = "no clear sign"
        if verdict.label != UNCERTAIN:
            sees = as_markdown(class_words(verdict.label, metadata))
        lines.append(f"| {change} | {sees} |")
    st.markdown("\n".join(lines))
    _conclude_stability(judged)


def _conclude_stability(judged: Card) -> None:
    """Say in a sentence whether the answer holds."""
    (_, own), *changed = judged.variants
    kept = sum(verdict.label == own.label for _, verdict in changed)
    if turned := [change for change, verdict in changed if turns(own, verdict)]:
        st.warning(f"The answer turns after {', '.join(turned)}.", icon=":material/sync_problem:")
    elif kept < len(changed) / 2:
        st.warning(
            f"Only {kept} of {len(changed)} changed copies keep the answer; in the others the "
            "model finds no clear sign.",
            icon=":material/help:",
        )
    else:
        st.success(
            f"{kept} of {len(changed)} changed copies keep the answer, and none turns into "
            "another.",
            icon=":material/check_circle:",
        )


def _pixels(judged: Card, judge: Judge) -> np.ndarray:
    """The decoded image; the one looked at last is kept, so that each tab need not decode."""
    held, digest = st.session_state.get(_PIXELS_KEY), judged.answer.sha256
    if held is not None and held[0] == digest:
        return held[1]
    st.session_state.pop(_PIXELS_KEY, None)
    pixels = judge.decode(judged.file.getvalue()).pixels
    if pixels.nbytes <= _MOST_KEPT_BYTES:
        st.session_state[_PIXELS_KEY] = (digest, pixels)
    return pixels


def _places_of(judged: Card) -> Callable[..., tuple[Image.Image, str]] | None:
    """What shows where the conclusion comes from; None where no part of the picture stands out."""
    verdict, refused = judged.verdict, judged.verdict.out_of_distribution_reason
    if refused:
        return _plain_parts if refused.code is ReasonCode.PLAIN else None
    if verdict.label == UNCERTAIN:
        return None
    if verdict.crops:
        return _deciding_parts
    smaller = min(judged.answer.width, judged.answer.height)
    return _heat_map if smaller >= _SMALLEST_MAPPED else None


def _show_places(judged: Card, *, judge: Judge) -> None:
    """Where the conclusion comes from: the picture, dark but for those parts."""
    try:
        picture, told = _places_of(judged)(judged, judge=judge)
    except (OSError, ValueError, RuntimeError) as error:
        show_error("The places cannot be shown.", str(error))
        return
    st.image(picture, alt=f"The picture. {told}")
    st.caption(as_markdown(told))


def _plain_parts(judged: Card, *, judge: Judge) -> tuple[Image.Image, str]:
    """The flat parts and those of one colour, for which a picture was taken for a document."""
    longest = judge.model_of(judged.verdict).metadata.model_input.longest_side
    pixels = reduce_to(_pixels(judged, judge), longest)
    picture = _preview(judged)
    plain = Image.fromarray(plain_blocks(pixels)).resize(picture.size)
    told = "The bright parts are flat or of one colour. There is little in them to judge by."
    return Image.composite(picture, _darkened(picture), plain), told


def _deciding_parts(judged: Card, *, judge: Judge) -> tuple[Image.Image, str]:
    """The crops that speak most for the answer."""
    metadata, label = judge.model_of(judged.verdict).metadata, judged.verdict.label
    index = metadata.class_names.index(label)
    crops = deciding_crops(judged.verdict.crops, class_index=index)
    told = (
        "The model judged parts of the picture. The bright ones speak most for "
        f"“{class_words(label, metadata)}”. {_NO_PROOF}"
    )
    return frame_crops(_preview(judged), crops), told


def _preview(judged: Card) -> Image.Image:
    return Image.open(io.BytesIO(judged.preview)).convert("RGB")


def _darkened(image: Image.Image) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(0.4)


def frame_crops(image: Image.Image, crops: Sequence[CropScore]) -> Image.Image:
    """The image, dark but for these crops, which have a frame."""
    shown = _darkened(image)
    boxes = [
        tuple(
            round(edge * side)
            for edge, side in zip(crop.window, 2 * (image.width, image.height), strict=True)
        )
        for crop in crops
    ]
    for box in boxes:
        shown.paste(image.crop(box), box[:2])
    draw = ImageDraw.Draw(shown)
    for left, top, right, bottom in boxes:
        # Two colours stand out from any picture.
        draw.rectangle((left, top, right - 1, bottom - 1), outline="black", width=4)
        draw.rectangle((left + 1, top + 1, right - 2, bottom - 2), outline="white", width=2)
    return shown


def _show_findings(judged: Card, *, judge: Judge) -> None:
    """Each finding of the file, as the file has it, and all its metadata."""
    for finding in judged.answer.findings:
        with st.container(border=True):
            st.text(f"{finding.kind}: {finding.text}")
            if finding.forgery:
                st.caption(finding.forgery)
    show_metadata(judged.file.getvalue(), key=judged.answer.sha256)


def _show_numbers(judged: Card, *, judge: Judge) -> None:
    """The model's numbers and what identifies picture and model: enough to report a mistake."""
    from real_vs_ai.ui.reports import mistake_report

    refused = judged.verdict.out_of_distribution_reason
    if refused:
        st.markdown(f"Out-of-distribution ({refused.code}): the model gives no numbers here.")
    st.markdown(
        "Is the answer wrong? Copy this text and give it, with the picture if you may, to those "
        "who run this app. **Nothing is sent from here.**"
    )
    # Beside an open answer, a percentage would accuse honest photographs.
    with st.expander("The model's numbers; picture and model by SHA-256", expanded=bool(refused)):
        model = judge.model_of(judged.verdict)
        if not refused:
            st.markdown(as_markdown(numbers_sentence(judged.verdict, model.metadata)))
        text = mistake_report(judged, model=model)
        st.code(text, language=None, wrap_lines=True)


def _show_gemini(judged: Card, *, judge: Judge) -> None:
    finding = f"{judged.conclusion.title}. {judged.conclusion.sentence}"
    show_insight(digest=judged.answer.sha256, pixels=_pixels(judged, judge), finding=finding)


def _heat_map(judged: Card, *, judge: Judge) -> tuple[Image.Image, str]:
    """The picture under Grad-CAM of its answer.

    Raises:
        OSError, ValueError, RuntimeError: The model cannot be explained.
    """
    verdict, digest = judged.verdict, judged.answer.sha256
    model, pixels = judge.model_of(verdict), _pixels(judged, judge)
    metadata, known = model.metadata, st.session_state["heat_maps"]
    if digest not in known:
        # The network saw the image at this size, and a map of it is small enough to keep.
        seen, names = resize_image(pixels, metadata.image_size), metadata.class_names
        with st.spinner("Computing the heat map; the first one takes longer …"):
            grad_cam = _grad_cam(*file_key(model.path))
            (known[digest],) = grad_cam([seen], class_indices=[names.index(verdict.label)])
    image = fit_to_screen(Image.fromarray(pixels), longest_side=_SHOWN_SIZE)
    cells = Image.fromarray(known[digest]).resize(image.size, Image.Resampling.BILINEAR)
    shown = overlay_heatmap(np.asarray(image), np.asarray(cells), strength=0.6)
    told = f"Bright places speak most for “{class_words(verdict.label, metadata)}”. {_NO_PROOF}"
    return Image.fromarray(shown), told


@st.cache_resource(max_entries=1, show_spinner=False)
def _grad_cam(path: str, modified_ns: int, size: int) -> GradCam:
    return GradCam(Path(path))
