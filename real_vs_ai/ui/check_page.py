"""Show the page where users upload pictures and read verdicts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode

import streamlit as st

from real_vs_ai.serving.judging_queue import ModelUnavailableError
from real_vs_ai.ui.checking import Card, check_image, content_digest, name_cards, settle
from real_vs_ai.ui.details import ask_variants, known_variants
from real_vs_ai.ui.image_input import ImageFile, ask_for_images
from real_vs_ai.ui.model_choice import (
    MODEL_KEY,
    ChosenModel,
    choose_model,
    offer_models,
    open_chosen,
    show_model_facts,
    show_unavailable,
)
from real_vs_ai.ui.results import MOST_CARDS, show_results
from real_vs_ai.ui.thresholds import choose_thresholds, link_thresholds
from real_vs_ai.ui.wording import scope_sentence

_WORKERS = 2
_TEST_ALL_KEY = "test_all"


def show_check_page(*, model: str | None, models_dir: Path) -> None:
    """Draw the page; for the arguments see `model_choice.offer_models`."""
    title, inputs, results = st.empty(), st.container(), st.container()
    title.title("Is this picture AI-generated?")
    with inputs:
        paths = offer_models(model=model, models_dir=models_dir)
    if not paths:
        return
    # This stands below the results, which depend on it.
    with st.expander("Advanced: model, thresholds, link", icon=":material/tune:"):
        name = choose_model(paths)
        settings = st.container()
    with inputs:
        chosen = open_chosen(name, paths[name])
    if chosen is None:
        return
    with settings:
        chosen, test_all = _choose_settings(chosen)
    if chosen.metadata.positive_index is None:
        title.title("Which class is this picture?")
    with inputs:
        st.markdown(scope_sentence(chosen.judge.metadatas.values()))
        files = ask_for_images()
        if not files:
            _resume()
            st.caption(
                "Pictures stay in the memory of the computer that runs this app and are never "
                "stored. Reloading or closing the page forgets them."
            )
    if files:
        with results:
            try:
                _show_verdicts(files, chosen=chosen, test_all=test_all)
            except ModelUnavailableError as error:
                show_unavailable(error)


def _choose_settings(chosen: ChosenModel) -> tuple[ChosenModel, bool]:
    """The model with the user's thresholds, and whether to test all verdicts."""
    show_model_facts(chosen)
    chosen = dataclasses.replace(chosen, metadata=choose_thresholds(chosen))
    test_all = st.toggle(
        "Test the stability of every verdict (takes about ten times as long)",
        key=_TEST_ALL_KEY,
        bind="query-params",
    )
    st.caption("This link opens the page with the same model and settings, without the pictures:")
    # The link holds default values too, since a newer model would change them.
    settings = [(MODEL_KEY, chosen.name), *link_thresholds(chosen)]
    link = [*settings, (_TEST_ALL_KEY, str(test_all).lower())]
    address = (st.context.url or "").split("?")[0]
    st.code(f"{address}?{urlencode(link)}", language=None, wrap_lines=True)
    return chosen, test_all


def _show_verdicts(files: Sequence[ImageFile], *, chosen: ChosenModel, test_all: bool) -> None:
    cards = _check_all(files, chosen)
    if not cards:
        return
    by_digest = dict(zip(_digests(files), files, strict=True))
    if test_all:
        _ask_all_variants(cards, by_digest, chosen=chosen)
    variants = known_variants(chosen)
    judged = [
        settle(
            card,
            metadata=chosen.metadata_of(card.answer.verdict),
            variants=variants.get(card.answer.sha256, ()),
        )
        for card in cards
    ]
    show_results(judged, by_digest, chosen=chosen)


def _ask_all_variants(
    cards: Sequence[Card], files: Mapping[str, ImageFile], *, chosen: ChosenModel
) -> None:
    """Judge the changed copies of every readable image that has not been tested yet."""
    known = known_variants(chosen)
    judged = [card.answer for card in cards if card.answer.verdict]
    digests = {a.sha256 for a in judged if not a.verdict.out_of_distribution} - known.keys()
    bar = st.empty()
    for done, digest in enumerate(sorted(digests), start=1):
        pixels = chosen.judge.decode(files[digest].getvalue()).pixels
        ask_variants(digest, pixels, chosen=chosen)
        bar.progress(done / len(digests), text=f"{done} of {len(digests)} verdicts tested")
    bar.empty()


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
    judge = chosen.judge
    if judge.is_opening:
        with st.spinner("Preparing the model. The first time this can take a minute …"):
            judge.detector()
    # Files arrive while others are checked, so what earlier runs checked counts too.
    total = len(known) + len(waiting)
    # Drawing the bar first keeps the button from moving away from the pointer.
    bar, stop = st.progress(0.0, text=_progress_text(len(known), total)), st.empty()
    if total > MOST_CARDS:
        stop.button("Stop", on_click=_stop, icon=":material/stop_circle:")
    pool = ThreadPoolExecutor(_WORKERS)
    try:
        checks = [
            pool.submit(lambda f=file: check_image(f.getvalue(), judge=judge))
            for file in waiting.values()
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


def _digests(files: Sequence[ImageFile]) -> list[str]:
    """Content digests; each file is hashed once in a session."""
    known: dict[str, str] = st.session_state.get("digests", {})
    digests = {
        file.file_id: known.get(file.file_id) or content_digest(file.getvalue()) for file in files
    }
    st.session_state["digests"] = digests
    return [digests[file.file_id] for file in files]


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
