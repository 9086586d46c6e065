"""Show the page where users upload pictures and read answers.

An upload is decoded in memory and never written to disk. Of its pixels only a small preview is
kept.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import streamlit as st
from PIL import Image

from real_vs_ai.images import DecodedImage, ImageError
from real_vs_ai.serving.judge import Answer, Judge
from real_vs_ai.serving.judging_queue import ModelUnavailableError
from real_vs_ai.ui.checking import Card, fit_to_screen, name_cards, settle
from real_vs_ai.ui.details import known_variants
from real_vs_ai.ui.image_input import ImageFile, ask_for_images
from real_vs_ai.ui.model_choice import (
    ChosenModel,
    choose_model,
    offer_models,
    open_chosen,
    promise_of,
    show_model_facts,
    show_unavailable,
)
from real_vs_ai.ui.results import MOST_CARDS, show_results
from real_vs_ai.ui.wording import WHO_SEES

_WORKERS = 2
# Longest sides in pixels.
_PREVIEW_SIZE = 640
_THUMBNAIL_SIZE = 96
_PDF = b"%PDF-"


def show_check_page(*, model: str | None, models_dir: Path) -> None:
    """Draw the page; for the arguments see `model_choice.offer_models`."""
    title = st.empty()
    title.title("Is this picture AI-generated?")
    # On a phone the answers must stand above the list of files.
    results, inputs = st.container(), st.container()
    with inputs:
        paths = offer_models(model=model, models_dir=models_dir)
    if not paths:
        return
    with st.expander("Advanced: the model", icon=":material/tune:"):
        name = choose_model(paths)
        facts = st.container()
    with inputs:
        chosen = open_chosen(name, paths[name])
    if chosen is None:
        return
    with facts:
        show_model_facts(chosen)
    if chosen.metadata.positive_index is None:
        title.title("Which class is this picture?")
    with inputs:
        before = st.empty()
        files = ask_for_images()
        if not files:
            _resume()
            before.markdown(promise_of(chosen))
            st.caption(f"**Who sees my pictures?** {WHO_SEES}")
    if files:
        with results:
            try:
                _show_answers(files, chosen=chosen)
            except ModelUnavailableError as error:
                show_unavailable(error)


def _show_answers(files: Sequence[ImageFile], *, chosen: ChosenModel) -> None:
    cards = _check_all(files, chosen)
    if not cards:
        return
    by_digest = dict(zip(_digests(files), files, strict=True))
    variants = known_variants(chosen)
    judged = [settle(card, variants.get(card.answer.sha256, ())) for card in cards]
    show_results(judged, by_digest, chosen=chosen)


def _check_all(files: Sequence[ImageFile], chosen: ChosenModel) -> list[Card]:
    """Checks of all the files; those of an earlier run of the script are kept.

    A click on Stop, like any other, ends the run at the next update of the bar; what was checked
    until then stays.
    """
    digests = _digests(files)
    known: dict[str, Card] = _known_checks(chosen, set(digests))
    waiting = {d: file for d, file in zip(digests, files, strict=True) if d not in known}
    # After Stop, files that arrive later wait too.
    if waiting and not st.session_state.get("stopped"):
        _run_checks(waiting, chosen, known)
    missing = [file.name for d, file in zip(digests, files, strict=True) if d not in known]
    if missing:
        st.warning(
            f"Stopped: {len(files) - len(missing)} of {len(files)} pictures were checked.",
            icon=":material/pause_circle:",
        )
        st.button("Check the rest", on_click=_resume, icon=":material/play_arrow:")
    else:
        _resume()
    return name_cards(
        (file.name, known[d]) for d, file in zip(digests, files, strict=True) if d in known
    )


def _run_checks(waiting: dict[str, ImageFile], chosen: ChosenModel, known: dict[str, Card]) -> None:
    """Check the files and put each result in `known` as it comes."""
    if chosen.judge.is_opening:
        with st.spinner("Preparing the model. The first time this can take a minute …"):
            chosen.judge.detector()
    # Files arrive while others are checked, so what earlier runs checked counts too.
    total = len(known) + len(waiting)
    # Drawing the bar first keeps the button from moving away from the pointer.
    bar, stop = st.progress(0.0, text=_progress_text(len(known), total)), st.empty()
    if total > MOST_CARDS:
        stop.button("Stop", on_click=_stop, icon=":material/stop_circle:")
    pool = ThreadPoolExecutor(_WORKERS)
    try:
        checks = [
            pool.submit(_check, file, digest, chosen=chosen) for digest, file in waiting.items()
        ]
        for future in checks:
            card = future.result()
            known[card.answer.sha256] = card
            bar.progress(len(known) / total, text=_progress_text(len(known), total))
    finally:
        # A rerun (Stop, a closed page) leaves the loop by an exception.
        pool.shutdown(wait=False, cancel_futures=True)
    bar.empty()
    stop.empty()


def _progress_text(done: int, total: int) -> str:
    return f"{done} of {total} pictures checked"


def _check(file: ImageFile, digest: str, *, chosen: ChosenModel) -> Card:
    try:
        return check_image(file.getvalue(), judge=chosen.judge)
    except ImageError as error:
        return Card(Answer("", error=str(error), sha256=digest))


def check_image(data: bytes, *, judge: Judge) -> Card:
    """Judge one image; of its pixels only small previews are kept.

    Raises:
        ModelUnavailableError: The model cannot answer.
    """
    if data.startswith(_PDF):
        error = (
            "a PDF, not a picture: save its pictures one by one, or take a screenshot of the page"
        )
        return Card(Answer("", error=error, sha256=hashlib.sha256(data).hexdigest()))
    shown = {}

    def show(image: DecodedImage) -> None:
        preview = fit_to_screen(_thin_out(image.image), longest_side=_PREVIEW_SIZE)
        shown["preview"] = _to_jpeg(preview)
        shown["thumbnail"] = _to_jpeg(fit_to_screen(preview, longest_side=_THUMBNAIL_SIZE))

    answer = judge.judge("", data, show=show)
    return Card(answer, **(shown if answer.verdict else {}))


def _thin_out(image: Image.Image) -> Image.Image:
    """The image with whole rows and columns left out, still twice the size of a preview.

    Reading all 12 megapixels of a photograph once more would take longer than judging it.
    """
    step = max(1, max(image.size) // (2 * _PREVIEW_SIZE))
    size = (-(-image.width // step), -(-image.height // step))
    return image if step == 1 else image.resize(size, Image.Resampling.NEAREST)


def _to_jpeg(image: Image.Image) -> bytes:
    """A JPEG without metadata."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=88)
    return buffer.getvalue()


def _digests(files: Sequence[ImageFile]) -> list[str]:
    """Content digests; each file is hashed once in a session."""
    known: dict[str, str] = st.session_state.get("digests", {})
    digests = {file.file_id: known.get(file.file_id) or _digest(file) for file in files}
    st.session_state["digests"] = digests
    return [digests[file.file_id] for file in files]


def _digest(file: ImageFile) -> str:
    try:
        return hashlib.sha256(file.getvalue()).hexdigest()
    except ImageError:
        # Nothing else has this identifier.
        return file.file_id


def _known_checks(chosen: ChosenModel, digests: set[str]) -> dict[str, Card]:
    """This session's checks by the same model, without those of files that are gone."""
    kept = {}
    if st.session_state.get("checks_model") == chosen.key:
        earlier: dict[str, Card] = st.session_state.get("checks", {})
        kept = {digest: check for digest, check in earlier.items() if digest in digests}
    st.session_state["checks_model"] = chosen.key
    st.session_state["checks"] = kept
    return kept


def _stop() -> None:
    st.session_state["stopped"] = True


def _resume() -> None:
    st.session_state.pop("stopped", None)
