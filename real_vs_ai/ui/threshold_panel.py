"""Show the slider for the thresholds and its effect on false alarms.

metadata = choose_thresholds(chosen)      # the model's metadata with the thresholds chosen
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import streamlit as st

from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.runs import RunFolder
from real_vs_ai.ui.held_files import forget_choice
from real_vs_ai.ui.model_choice import ChosenModel
from real_vs_ai.ui.thresholds import (
    ValidationScores,
    binary_outcome,
    confidence_outcome,
    read_validation_scores,
)
from real_vs_ai.ui.wording import percent


def choose_thresholds(chosen: ChosenModel) -> ModelMetadata:
    """Show the slider; the model's own thresholds are where it starts."""
    metadata = chosen.metadata
    if chosen.is_several:
        st.caption("Each model has thresholds of its own; choose one model to change them.")
        return metadata
    # Another model, or the same one trained again, starts from its own thresholds.
    key = f"thresholds_{chosen.key}"
    scores = _scores_of(chosen)
    if metadata.positive_index is None:
        metadata = _choose_confidence(metadata, scores, key=key)
    else:
        metadata = _choose_band(metadata, scores, key=key)
    if metadata != chosen.metadata:
        st.button(
            "Back to the model's own", on_click=forget_choice, args=(key,), icon=":material/undo:"
        )
    return metadata


def _choose_band(
    metadata: ModelMetadata, scores: ValidationScores | None, *, key: str
) -> ModelMetadata:
    own = (round(metadata.lower_threshold, 2), round(metadata.upper_threshold, 2))
    st.session_state.setdefault(key, own)
    band = st.slider(
        "Uncertain between",
        0.0,
        1.0,
        step=0.01,
        key=key,
        help="Below the left end an image is called real, above the right end AI-generated.",
    )
    if band != own:
        metadata = dataclasses.replace(metadata, lower_threshold=band[0], upper_threshold=band[1])
    if scores is None:
        _say_unknown()
        return metadata
    outcome = binary_outcome(scores, metadata)
    st.metric(
        "False alarms",
        _percent(outcome.false_alarms),
        border=True,
        help="Real validation images that would be called AI-generated.",
    )
    st.caption(
        f"Of {outcome.n_fake:,} AI-generated validation images {_percent(outcome.found)} are "
        f"found and {_percent(outcome.missed)} pass as real. Of all "
        f"{outcome.n_fake + outcome.n_real:,}, {_percent(outcome.uncertain)} stay Uncertain."
    )
    return metadata


def _choose_confidence(
    metadata: ModelMetadata, scores: ValidationScores | None, *, key: str
) -> ModelMetadata:
    own = round(metadata.minimum_confidence, 2)
    st.session_state.setdefault(key, own)
    confidence = st.slider(
        "Uncertain below",
        0.0,
        1.0,
        step=0.01,
        key=key,
        help="An image whose most likely class is less likely than this is called Uncertain.",
    )
    if confidence != own:
        metadata = dataclasses.replace(metadata, minimum_confidence=confidence)
    if scores is None:
        _say_unknown()
        return metadata
    outcome = confidence_outcome(scores, metadata)
    st.metric(
        "Right verdicts",
        _percent(outcome.right),
        border=True,
        help="Share of right verdicts among the validation images that get one.",
    )
    st.caption(
        f"{_percent(outcome.answered)} of the {outcome.n_images:,} validation images get a verdict."
    )
    return metadata


def _scores_of(chosen: ChosenModel) -> ValidationScores | None:
    path = RunFolder(chosen.path.parent).predictions
    try:
        return _read_scores(str(path), path.stat().st_mtime_ns, chosen.key, chosen.metadata)
    except OSError:
        return None


@st.cache_data(max_entries=4, show_spinner=False)
def _read_scores(
    path: str, modified_ns: int, model_key: tuple[str, int, int], _metadata: ModelMetadata
) -> ValidationScores | None:
    return read_validation_scores(Path(path), _metadata)


def _say_unknown() -> None:
    st.caption(
        "What this does to false alarms is not known: the model came without its validation "
        "results. `python ModelEvaluation.py` makes them."
    )


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else percent(share, digits=1)
