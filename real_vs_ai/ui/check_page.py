"""Show the page where users upload pictures and read answers.

An upload is decoded in memory and never written to disk. Of its pixels only a small preview is
kept.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path
from typing import Any

import streamlit as st
from PIL import Image
from streamlit.delta_generator import DeltaGenerator

from real_vs_ai.core.errors import one_line
from real_vs_ai.core.images import DecodedImage, ImageError
from real_vs_ai.core.messages import Message
from real_vs_ai.serving.judge import Answer, Judge
from real_vs_ai.serving.micro_batcher import ModelUnavailableError
from real_vs_ai.ui.checking import Card, fit_to_screen, name_repeats, settle
from real_vs_ai.ui.image_input import ImageFile, ask_for_images
from real_vs_ai.ui.language import local, tell
from real_vs_ai.ui.model_choice import (
    choose_model,
    offer_models,
    open_chosen,
    show_model_facts,
    show_unavailable,
)
from real_vs_ai.ui.page_script import announce
from real_vs_ai.ui.results import MOST_CARDS, show_progress, show_results, who_sees
from real_vs_ai.ui.wording import promise

# So many wait for the model together that it computes full batches; the judge bounds how many are
# decoded at a time.
_WORKERS = 8
# Between two drawings of the answers while others are awaited, in seconds.
_REDRAW_SECONDS = 1.0
# Longest sides in pixels.
_PREVIEW_SIZE = 640
_THUMBNAIL_SIZE = 96
_PDF = b"%PDF-"


def show_check_page(*, model: str | None, models_dir: Path) -> None:
    """Draw the page; for the arguments see `model_choice.offer_models`."""
    title = st.empty()
    title.title(tell("page.title"), anchor=False)
    # On a phone the answers must stand above the list of files.
    results, inputs = st.container(), st.container()
    with inputs:
        paths = offer_models(model=model, models_dir=models_dir)
    if not paths:
        return
    with st.expander(tell("page.advanced"), icon=":material/tune:"):
        name = choose_model(paths)
        facts = st.container()
    with inputs:
        judge = open_chosen(name, paths[name])
    if judge is None:
        return
    with facts:
        show_model_facts(judge)
    if judge.metadata.positive_index is None:
        title.title(tell("page.title_classes"), anchor=False)
    with inputs:
        files = ask_for_images()
        if not files:
            _resume()
            announce("")
            st.markdown(" ".join(map(local, promise(model.metadata for model in judge.models))))
            st.caption(f"**{tell('question.who_sees')}** {who_sees()}")
    if files:
        with results:
            try:
                _show_answers(files, judge=judge)
            except ModelUnavailableError as error:
                show_unavailable(error)


def _show_answers(files: Sequence[ImageFile], *, judge: Judge) -> None:
    known = _check_all(files, judge)
    cards = _cards_of(files, known)
    if cards:
        variants = st.session_state["variants"]
        judged = [settle(c, variants.get(c.answer.sha256, ())) for c in cards]
        show_results(judged, judge=judge)


def _cards_of(files: Sequence[ImageFile], known: Mapping[str, Card]) -> list[Card]:
    """The cards of the files that were checked, in the files' order."""
    return name_repeats([replace(known[f.file_id], file=f) for f in files if f.file_id in known])


def _check_all(files: Sequence[ImageFile], judge: Judge) -> dict[str, Card]:
    """Checks by the files' identifiers; those of an earlier run of the script are kept.

    A click on Stop, like any other, ends the run at the next update of the bar; what was checked
    until then stays.
    """
    earlier: Mapping[str, Card] = st.session_state["checks"]
    known = {file.file_id: earlier[file.file_id] for file in files if file.file_id in earlier}
    st.session_state["checks"] = known
    # After Stop, files that arrive later wait too.
    if len(known) < len(files) and not st.session_state.get("stopped"):
        _run_checks(files, judge, known)
    if len(known) < len(files):
        st.warning(
            tell("progress.stopped", done=len(known), total=len(files)),
            icon=":material/pause_circle:",
        )
        st.button(tell("progress.rest"), on_click=_resume, icon=":material/play_arrow:")
    else:
        _resume()
    return known


def _run_checks(files: Sequence[ImageFile], judge: Judge, known: dict[str, Card]) -> None:
    """Check the files that are not in `known`; show each result, and put it there, as it comes."""
    if judge.is_opening:
        with st.spinner(tell("progress.opening")):
            judge.detector()
    # Drawing the bar first keeps the button from moving away from the pointer.
    bar, stop, place = st.empty(), st.empty(), st.empty()
    _show_bar(bar, known, files)
    if len(files) > MOST_CARDS:
        stop.button(tell("progress.stop"), on_click=_stop, icon=":material/stop_circle:")
    pool = ThreadPoolExecutor(_WORKERS)
    drawn = time.monotonic()
    try:
        waiting = [file for file in files if file.file_id not in known]
        checks = {pool.submit(_check, file, judge=judge): file for file in waiting}
        for check in as_completed(checks):
            known[checks[check].file_id] = check.result()
            _show_bar(bar, known, files)
            if len(known) < len(files) and time.monotonic() - drawn > _REDRAW_SECONDS:
                with place.container():
                    show_progress(_cards_of(files, known), total=len(files))
                drawn = time.monotonic()
    finally:
        # A rerun (Stop, a closed page) leaves the loop by an exception.
        pool.shutdown(wait=False, cancel_futures=True)
    for part in (bar, stop, place):
        part.empty()


def _show_bar(bar: DeltaGenerator, known: Mapping[str, Card], files: Sequence[ImageFile]) -> None:
    text = tell("progress.checked", done=len(known), total=len(files))
    bar.progress(len(known) / len(files), text=text)


def _check(file: ImageFile, *, judge: Judge) -> Card:
    try:
        return check_image(file.name, file.getvalue(), judge=judge)
    except ImageError as error:
        return Card(Answer(file.name, error=one_line(error)))


def check_image(name: str, data: bytes, *, judge: Judge) -> Card:
    """Judge one image; of its pixels only small previews are kept.

    Raises:
        ModelUnavailableError: The model cannot answer.
    """
    if data.startswith(_PDF):
        digest = hashlib.sha256(data).hexdigest()
        return Card(Answer(name, error=Message("error.pdf"), sha256=digest))
    shown: dict[str, Any] = {}

    def show(image: DecodedImage) -> None:
        preview = fit_to_screen(image.image, longest_side=_PREVIEW_SIZE)
        shown["preview"] = _to_jpeg(preview)
        shown["thumbnail"] = _to_jpeg(fit_to_screen(preview, longest_side=_THUMBNAIL_SIZE))

    answer = judge.judge(name, data, show=show)
    return Card(answer, **(shown if answer.verdict else {}))


def _to_jpeg(image: Image.Image) -> bytes:
    """A JPEG without metadata."""
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=88)
    return buffer.getvalue()


def _stop() -> None:
    st.session_state["stopped"] = True


def _resume() -> None:
    st.session_state.pop("stopped", None)
