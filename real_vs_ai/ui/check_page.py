"""Show the page where users upload pictures and read answers.

An upload is decoded in memory and never written to disk. Of its pixels only a small preview is
kept.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import streamlit as st
from PIL import Image

from real_vs_ai.images import DecodedImage, ImageError
from real_vs_ai.serving.judge import Answer, Judge
from real_vs_ai.serving.micro_batcher import ModelUnavailableError
from real_vs_ai.ui.checking import Card, fit_to_screen, name_repeats, settle
from real_vs_ai.ui.image_input import ImageFile, ask_for_images
from real_vs_ai.ui.model_choice import (
    choose_model,
    offer_models,
    open_chosen,
    show_model_facts,
    show_unavailable,
)
from real_vs_ai.ui.results import MOST_CARDS, show_results
from real_vs_ai.ui.wording import WHO_SEES, promise

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
        judge = open_chosen(name, paths[name])
    if judge is None:
        return
    with facts:
        show_model_facts(judge)
    if judge.metadata.positive_index is None:
        title.title("Which class is this picture?")
    with inputs:
        before = st.empty()
        files = ask_for_images()
        if not files:
            _resume()
            before.markdown(promise(model.metadata for model in judge.models))
            st.caption(f"**Who sees my pictures?** {WHO_SEES}")
    if files:
        with results:
            try:
                _show_answers(files, judge=judge)
            except ModelUnavailableError as error:
                show_unavailable(error)


def _show_answers(files: Sequence[ImageFile], *, judge: Judge) -> None:
    known = _check_all(files, judge)
    cards = [replace(known[f.file_id], file=f) for f in files if f.file_id in known]
    if cards:
        variants = st.session_state["variants"]
        judged = [settle(c, variants.get(c.answer.sha256, ())) for c in name_repeats(cards)]
        show_results(judged, judge=judge)


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
            f"Stopped: {len(known)} of {len(files)} pictures were checked.",
            icon=":material/pause_circle:",
        )
        st.button("Check the rest", on_click=_resume, icon=":material/play_arrow:")
    else:
        _resume()
    return known


def _run_checks(files: Sequence[ImageFile], judge: Judge, known: dict[str, Card]) -> None:
    """Check the files that are not in `known` and put each result there as it comes."""
    if judge.is_opening:
        with st.spinner("Preparing the model. The first time this can take a minute …"):
            judge.detector()
    # Drawing the bar first keeps the button from moving away from the pointer.
    bar, stop = st.progress(0.0, text=_progress_text(len(known), len(files))), st.empty()
    if len(files) > MOST_CARDS:
        stop.button("Stop", on_click=_stop, icon=":material/stop_circle:")
    pool = ThreadPoolExecutor(_WORKERS)
    try:
        waiting = [file for file in files if file.file_id not in known]
        checks = [pool.submit(_check, file, judge=judge) for file in waiting]
        for file, check in zip(waiting, checks, strict=True):
            known[file.file_id] = check.result()
            bar.progress(len(known) / len(files), text=_progress_text(len(known), len(files)))
    finally:
        # A rerun (Stop, a closed page) leaves the loop by an exception.
        pool.shutdown(wait=False, cancel_futures=True)
    bar.empty()
    stop.empty()


def _progress_text(done: int, total: int) -> str:
    return f"{done} of {total} pictures checked"


def _check(file: ImageFile, *, judge: Judge) -> Card:
    try:
        return check_image(file.name, file.getvalue(), judge=judge)
    except ImageError as error:
        return Card(Answer(file.name, error=str(error)))


def check_image(name: str, data: bytes, *, judge: Judge) -> Card:
    """Judge one image; of its pixels only small previews are kept.

    Raises:
        ModelUnavailableError: The model cannot answer.
    """
    if data.startswith(_PDF):
        error = (
            "a PDF, not a picture: save its pictures one by one, or take a screenshot of the page"
        )
        return Card(Answer(name, error=error, sha256=hashlib.sha256(data).hexdigest()))
    shown = {}

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
