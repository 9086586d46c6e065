"""Explain an answer: where, whether changes hide it, the file's data, numbers, Gemini.

Each part is computed when its tab is opened.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import streamlit as st
from PIL import Image

from real_vs_ai.core.config import UNCERTAIN
from real_vs_ai.core.messages import Message
from real_vs_ai.out_of_distribution.pixel_classifier import plain_blocks
from real_vs_ai.serving.explanation import overlay_heatmap
from real_vs_ai.serving.judge import Judge
from real_vs_ai.ui.checking import Card, fit_to_screen, judge_variants
from real_vs_ai.ui.gemini import forget_conversations, has_key, show_insight
from real_vs_ai.ui.language import local, tell
from real_vs_ai.ui.metadata_table import has_metadata, show_metadata
from real_vs_ai.ui.model_choice import show_error
from real_vs_ai.ui.places import darkened, deciding_parts, preview_of
from real_vs_ai.ui.wording import as_markdown, class_words, numbers_sentence, visible
from real_vs_ai.verdicts.verdict import ReasonCode, changes_class

_PIXELS_KEY = "details_pixels"
# Enough for a camera's photograph. Larger ones of a few visitors would fill the memory.
_MOST_KEPT_BYTES = 64 * 2**20
# The tabs, in their order; each is called by the message of this name.
_PLACES, _CHANGES, _FILE, _DETAILS, _GEMINI = "places", "changes", "file", "details", "gemini"
# On the shorter side, in pixels: a map of a smaller picture shows nothing that a person could name.
_SMALLEST_MAPPED = 128
# The longest side of a heat map, in pixels.
_SHOWN_SIZE = 768
# A reason that is of no part of the picture, and needs no such words.
_SAYS_IT_ALL = ReasonCode.SIZE


def show_details(judged: Card, *, judge: Judge) -> None:
    """Show tabs on one readable image; those that explain an answer only where there is one."""
    verdict = judged.given_verdict
    refused = verdict.out_of_distribution_reason
    shown = {
        _PLACES: _places_of(judged) is not None,
        # After a test that turned it, there is no answer any more, but a test to show.
        _CHANGES: bool(judged.variants) or verdict.label != UNCERTAIN,
        _FILE: bool(judged.answer.findings) or has_metadata(judged.read_file()),
        _DETAILS: True,
        _GEMINI: has_key(),
    }
    st.subheader(tell("details.why"), anchor=False)
    if refused and refused.code is not _SAYS_IT_ALL and not shown[_PLACES]:
        st.markdown(tell("details.whole"))
    names = [name for name, is_shown in shown.items() if is_shown]
    # The first tab is open at once, so it is one that costs nothing.
    names.sort(key=lambda name: _costs(name, judged))
    titles = [tell(f"details.{name}") for name in names]
    # A tab that was open is remembered by its name, which another set may lack.
    tabs = st.tabs(titles, on_change="rerun", key=f"details {titles}")
    for name, tab in zip(names, tabs, strict=True):
        with tab:
            if tab.open:
                _SHOW[name](judged, judge=judge)


def _costs(name: str, judged: Card) -> bool:
    return name == _CHANGES or (name == _PLACES and _places_of(judged) is _heat_map)


def forget_details() -> None:
    """Forget what was made for the tabs."""
    st.session_state.pop(_PIXELS_KEY, None)
    forget_conversations()


def _show_changes(judged: Card, *, judge: Judge) -> None:
    known, digest = st.session_state["variants"], judged.answer.sha256
    if digest not in known:
        with st.spinner(tell("changes.judging")):
            known[digest] = judge_variants(_pixels(judged, judge), judge=judge.judge_pixels)
        # The card above must learn of a flip.
        st.rerun()
    st.markdown(tell("changes.what"))
    metadata = judge.model_of(judged.given_verdict).metadata
    lines = [f"| {tell('changes.after')} | {tell('question.model_sees')} |", "|---|---|"]
    for change, verdict in judged.variants:
        sees = tell("changes.no_sign")
        if verdict.label != UNCERTAIN:
            sees = as_markdown(local(class_words(verdict.label, metadata)))
        lines.append(f"| {local(change)} | {sees} |")
    st.markdown("\n".join(lines))
    _conclude_changes(judged)


def _conclude_changes(judged: Card) -> None:
    """Say in a sentence whether changes hide what the model saw."""
    (_, own), *changed = judged.variants
    kept = sum(verdict.label == own.label for _, verdict in changed)
    if turned := [local(change) for change, verdict in changed if changes_class(own, verdict)]:
        st.warning(
            tell("changes.turned", changes=", ".join(turned)), icon=":material/sync_problem:"
        )
    else:
        st.info(tell("changes.kept", kept=kept, total=len(changed)), icon=":material/compare:")


def _pixels(judged: Card, judge: Judge, *, longest_side: int | None = None) -> np.ndarray:
    """The decoded image; the one looked at last is kept, so that each tab need not decode."""
    held, key = st.session_state.get(_PIXELS_KEY), (judged.answer.sha256, longest_side)
    if held is not None and held[0] == key:
        return held[1]
    st.session_state.pop(_PIXELS_KEY, None)
    pixels = judge.decode(judged.read_file(), longest_side=longest_side)
    if pixels.nbytes <= _MOST_KEPT_BYTES:
        st.session_state[_PIXELS_KEY] = (key, pixels)
    return pixels


def _places_of(judged: Card) -> Callable[..., tuple[Image.Image, str]] | None:
    """What shows where the conclusion comes from; None where no part of the picture stands out."""
    verdict = judged.given_verdict
    refused = verdict.out_of_distribution_reason
    if refused:
        return _plain_parts if refused.code is ReasonCode.PLAIN else None
    if verdict.label == UNCERTAIN:
        return None
    if verdict.crops:
        return _deciding_parts
    smaller = min(judged.answer.width or 0, judged.answer.height or 0)
    return _heat_map if smaller >= _SMALLEST_MAPPED else None


def _show_places(judged: Card, *, judge: Judge) -> None:
    """Where the conclusion comes from: the picture, dark but for those parts."""
    draw = _places_of(judged)
    if draw is None:
        return
    try:
        picture, told = draw(judged, judge=judge)
    except (OSError, ValueError, RuntimeError) as error:
        show_error(tell("places.failed"), str(error))
        return
    st.image(picture, alt=tell("places.alt", caption=told))
    st.caption(as_markdown(local(told)))


def _plain_parts(judged: Card, *, judge: Judge) -> tuple[Image.Image, str]:
    """The flat parts and those of one colour, for which a picture was taken for a document."""
    longest = judge.model_of(judged.given_verdict).metadata.model_input.longest_side
    pixels = _pixels(judged, judge, longest_side=longest)
    picture = preview_of(judged)
    plain = Image.fromarray(plain_blocks(pixels)).resize(picture.size)
    return Image.composite(picture, darkened(picture), plain), Message("places.plain")


def _deciding_parts(judged: Card, *, judge: Judge) -> tuple[Image.Image, str]:
    return deciding_parts(judged, metadata=judge.model_of(judged.given_verdict).metadata)


def _show_findings(judged: Card, *, judge: Judge) -> None:
    """Each finding of the file, as the file has it, and all its metadata."""
    for finding in judged.answer.findings:
        with st.container(border=True):
            # Names of standards are the same in all languages.
            kind = finding.kind if finding.kind.isupper() else tell(f"kind.{finding.kind}")
            st.text(f"{kind}: {local(finding.text)}")
            if finding.forgery:
                st.caption(as_markdown(local(finding.forgery)))
    show_metadata(judged.read_file(), key=judged.answer.sha256)


def _show_numbers(judged: Card, *, judge: Judge) -> None:
    """The model's numbers, what identifies picture and model, and how often the model is right."""
    model = judge.model_of(judged.given_verdict)
    if judged.given_verdict.out_of_distribution:
        st.markdown(tell("details.refused"))
    else:
        st.markdown(as_markdown(local(numbers_sentence(judged.given_verdict, model.metadata))))
    record = judged.given_verdict.record
    rates = [local(rate) for rate in (record.of_accusation, record.of_no_sign) if rate]
    if rates and not judged.given_verdict.out_of_distribution:
        st.markdown(as_markdown(" ".join(rates), longest=1_000))
    st.caption(
        tell(
            "details.identity", model=as_markdown(visible(model.name)), digest=judged.answer.sha256
        )
    )


def _show_gemini(judged: Card, *, judge: Judge) -> None:
    finding = f"{judged.conclusion.title}. {judged.conclusion.sentence}"
    show_insight(digest=judged.answer.sha256, pixels=_pixels(judged, judge), finding=finding)


def _heat_map(judged: Card, *, judge: Judge) -> tuple[Image.Image, str]:
    """The picture under a map of the parts that move its answer.

    No released model comes here: one judges thumbnails, too small for a map, and the other judges
    crops, which `_deciding_parts` shows. A model that is trained on whole images of 128 pixels or
    more does.

    Raises:
        OSError, ValueError, RuntimeError: The model cannot be explained.
    """
    verdict, digest = judged.given_verdict, judged.answer.sha256
    model, pixels = judge.model_of(verdict), _pixels(judged, judge)
    metadata, known = model.metadata, st.session_state["heat_maps"]
    if digest not in known:
        with st.spinner(tell("places.computing")):
            known[digest] = judge.heat_map(pixels, verdict)
    image = fit_to_screen(Image.fromarray(pixels), longest_side=_SHOWN_SIZE)
    cells = Image.fromarray(known[digest]).resize(image.size, Image.Resampling.BILINEAR)
    shown = overlay_heatmap(np.asarray(image), np.asarray(cells), strength=0.6)
    words = class_words(verdict.label, metadata)
    return Image.fromarray(shown), Message("places.map", words=words)


_SHOW: dict[str, Callable[..., None]] = {
    _PLACES: _show_places,
    _CHANGES: _show_changes,
    _FILE: _show_findings,
    _DETAILS: _show_numbers,
    _GEMINI: _show_gemini,
}
