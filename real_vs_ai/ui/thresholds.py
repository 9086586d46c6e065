"""Let the user move the thresholds, and estimate the effect from the validation images."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import streamlit as st

from real_vs_ai.errors import InputError
from real_vs_ai.model_file import ModelMetadata, calibrate
from real_vs_ai.predictions import read_predictions
from real_vs_ai.runs import RunFolder
from real_vs_ai.ui.model_choice import ChosenModel
from real_vs_ai.ui.wording import percent
from real_vs_ai.verdict import UNDECIDED, ReasonCode, decide, thresholds_of, uncertain_range

_KEY, _KEY_OF = "uncertain", "uncertain_of"
# Shares of the validation images beyond which thresholds are called extreme.
_MANY_WRONG, _MOST_UNCERTAIN = 0.1, 0.5


@dataclass(frozen=True)
class ValidationScores:
    """The model's calibrated answers on its validation images.

    Attributes:
        labels: Index of each image's true class, shape (n_images,).
        probabilities: Calibrated, shape (n_images, n_classes), rows summing to 1.
        refused: Which stay Uncertain at any thresholds, or did after sending them on, shape
            (n_images,), bool.
    """

    labels: np.ndarray
    probabilities: np.ndarray
    refused: np.ndarray

    def decide(self, metadata: ModelMetadata) -> np.ndarray:
        """The class of each image by these thresholds, UNDECIDED where it is Uncertain."""
        return np.where(self.refused, UNDECIDED, decide(self.probabilities, metadata))


@dataclass(frozen=True)
class BinaryOutcome:
    """Shares, 0 to 1, of the validation images of one class that end in one way.

    Attributes:
        false_alarms: Real images called AI-generated.
        missed: AI-generated images called real.
        found: AI-generated images called AI-generated.
        uncertain: Images of either class left Uncertain.
    """

    false_alarms: float
    missed: float
    found: float
    uncertain: float
    n_fake: int
    n_real: int


@dataclass(frozen=True)
class ConfidenceOutcome:
    """What a smallest confidence does, for models of any classes.

    Attributes:
        answered: Share of the validation images with a verdict, 0 to 1.
        right: Share of those verdicts that are right, 0 to 1; NaN when there are none.
        n_images: How many images were counted.
    """

    answered: float
    right: float
    n_images: int


def read_validation_scores(path: Path, metadata: ModelMetadata) -> ValidationScores | None:
    """Read the validation rows of a run's `predictions.csv`.

    Returns:
        None when there is no such file, or none of its rows can be used with this model.

    Raises:
        OSError: The file is there but cannot be read.
    """
    try:
        rows = read_predictions(path, strict=False).of_split("validation")
    except (FileNotFoundError, InputError):
        return None
    if rows.class_names != metadata.class_names or not len(rows):
        return None
    probabilities = calibrate(rows.probabilities, temperature=metadata.temperature)
    refused = rows.out_of_distribution | (rows.reasons == ReasonCode.UNSTABLE)
    return ValidationScores(rows.labels, probabilities, refused)


def binary_outcome(scores: ValidationScores, metadata: ModelMetadata) -> BinaryOutcome:
    """What the thresholds do to the validation images of a model that tells Fake from Real."""
    decided = scores.decide(metadata)
    fake = scores.labels == metadata.positive_index
    called_fake = decided == metadata.positive_index
    uncertain = decided == UNDECIDED
    return BinaryOutcome(
        false_alarms=_share(called_fake[~fake]),
        missed=_share((~called_fake & ~uncertain)[fake]),
        found=_share(called_fake[fake]),
        uncertain=_share(uncertain),
        n_fake=int(fake.sum()),
        n_real=int((~fake).sum()),
    )


def confidence_outcome(scores: ValidationScores, metadata: ModelMetadata) -> ConfidenceOutcome:
    """What the smallest confidence does to the validation images of a model of other classes."""
    decided = scores.decide(metadata)
    answered = decided != UNDECIDED
    right = decided == scores.labels
    return ConfidenceOutcome(_share(answered), _share(right[answered]), len(scores.labels))


def _share(values: np.ndarray) -> float:
    return float(values.mean()) if values.size else float("nan")


def choose_thresholds(chosen: ChosenModel) -> ModelMetadata:
    """Show the slider; the model's own thresholds are where it starts."""
    metadata = chosen.metadata
    if chosen.is_several:
        st.caption("Each of these models has its own thresholds; choose one model to change them.")
        return metadata
    binary = metadata.positive_index is not None
    low, high = uncertain_range(thresholds_of(metadata))
    own = (round(low, 2), round(high, 2)) if binary else round(high, 2)
    # Another model, or the same one trained again, starts from its own thresholds.
    if st.session_state.setdefault(_KEY_OF, chosen.key) != chosen.key:
        _restore(own, chosen.key)
    value = st.slider(
        "Uncertain between" if binary else "Uncertain below",
        0.0,
        1.0,
        value=own,
        step=0.01,
        key=_KEY,
        bind="query-params",
    )
    if value != own:
        changes = (
            {"lower_threshold": value[0], "upper_threshold": value[1]}
            if binary
            else {"minimum_confidence": value}
        )
        metadata = dataclasses.replace(metadata, **changes)
        st.button(
            "Back to the model's own",
            on_click=_restore,
            args=(own, chosen.key),
            icon=":material/undo:",
        )
    _show_effect(chosen, metadata)
    return metadata


def link_thresholds(chosen: ChosenModel) -> list[tuple[str, str]]:
    """Names and values of the thresholds in a link to the page."""
    if chosen.is_several:
        return []
    low, high = uncertain_range(thresholds_of(chosen.metadata))
    values = [high] if chosen.metadata.positive_index is None else [low, high]
    return [(_KEY, f"{value:.2f}") for value in values]


def _restore(own: tuple[float, float] | float, key: tuple[str, int, int]) -> None:
    st.session_state[_KEY] = own
    st.session_state[_KEY_OF] = key


def _show_effect(chosen: ChosenModel, metadata: ModelMetadata) -> None:
    """What the thresholds do to the validation images, in numbers."""
    if metadata.positive_index is not None:
        st.caption("Below the left end a picture is called Real, above the right end AI-generated.")
    else:
        st.caption("A picture whose most likely class is less likely than this is Uncertain.")
    scores = _scores_of(chosen)
    if scores is None:
        st.caption(
            "What this does to false alarms is not known: the model came without its validation "
            "results. `python ModelEvaluation.py` makes them."
        )
    elif metadata.positive_index is None:
        outcome = confidence_outcome(scores, metadata)
        st.metric("Right verdicts", _percent(outcome.right), border=True)
        st.caption(
            f"{_percent(outcome.answered)} of the {outcome.n_images:,} validation images get a "
            "verdict."
        )
    else:
        outcome = binary_outcome(scores, metadata)
        st.metric("False alarms", _percent(outcome.false_alarms), border=True)
        st.caption(
            f"That is the share of {outcome.n_real:,} real validation images, of the kind this "
            "model knows, that would be called AI-generated. Of "
            f"{outcome.n_fake:,} AI-generated ones, {_percent(outcome.found)} are found and "
            f"{_percent(outcome.missed)} pass as Real. {_percent(outcome.uncertain)} of all stay "
            "Uncertain."
        )


def extreme_thresholds(chosen: ChosenModel) -> str:
    """What is wrong with thresholds that the user chose, in a sentence; "" when nothing is."""
    metadata = chosen.metadata
    if chosen.has_own_thresholds:
        return ""
    scores = _scores_of(chosen)
    if metadata.positive_index is None:
        answered = confidence_outcome(scores, metadata).answered if scores else 1.0
        few = answered < 1 - _MOST_UNCERTAIN
        return f"{_percent(1 - answered)} of verdicts are Uncertain." if few else ""
    if metadata.upper_threshold < 0.5:
        return "A picture is called AI-generated although it is more likely real."
    if metadata.lower_threshold > 0.5:
        return "A picture is called Real although it is more likely AI-generated."
    if scores is None:
        wide = metadata.upper_threshold - metadata.lower_threshold > 0.95
        return "Nearly every verdict is Uncertain." if wide else ""
    outcome = binary_outcome(scores, metadata)
    if outcome.false_alarms > _MANY_WRONG:
        return f"{_percent(outcome.false_alarms)} of real pictures are called AI-generated."
    if outcome.missed > _MANY_WRONG:
        return f"{_percent(outcome.missed)} of AI-generated pictures are called Real."
    if outcome.uncertain > _MOST_UNCERTAIN:
        return f"{_percent(outcome.uncertain)} of verdicts are Uncertain."
    return ""


def _scores_of(chosen: ChosenModel) -> ValidationScores | None:
    path = RunFolder(chosen.path.parent).predictions
    try:
        own = chosen.judge.metadata
        return _read_scores(str(path), path.stat().st_mtime_ns, chosen.key, own)
    except OSError:
        return None


@st.cache_data(max_entries=4, show_spinner=False)
def _read_scores(
    path: str, modified_ns: int, model_key: tuple[str, int, int], _metadata: ModelMetadata
) -> ValidationScores | None:
    return read_validation_scores(Path(path), _metadata)


def _percent(share: float) -> str:
    return "–" if math.isnan(share) else percent(share, digits=1)
