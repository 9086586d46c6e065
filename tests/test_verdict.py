"""The Uncertain rule covers thresholds, out-of-distribution images and unstable verdicts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pytest

import real_vs_ai
from real_vs_ai.core.config import UNCERTAIN
from real_vs_ai.models.model_file import ModelMetadata, read_metadata, write_metadata
from real_vs_ai.models.model_input import softmax
from real_vs_ai.verdicts.verdict import (
    Reason,
    ReasonCode,
    Verdict,
    apply_stability,
    decide,
    decide_label,
    describe_thresholds,
    make_verdict,
    recalibrate,
    uncertain_range,
)

METADATA = ModelMetadata(
    ("Fake", "Real"), 32, calibrated=True, lower_threshold=0.3, upper_threshold=0.8
)
OTHERS = ModelMetadata(("benign", "malignant", "normal"), 32, minimum_confidence=0.5)
TOO_LARGE = Reason(ReasonCode.SIZE, "Much larger.")
# Words that only those modules may contain that state, store, fit or ask for the rule.
RULE = ("lower_threshold", "upper_threshold", "minimum_confidence")


def verdict_of(probability_fake: float):
    row = (probability_fake, 1 - probability_fake)
    return dataclasses.replace(make_verdict(np.array(row), METADATA), uncalibrated=row)


@pytest.mark.parametrize(
    ("probability_fake", "label"),
    [(0.9, "Fake"), (0.8, "Fake"), (0.5, UNCERTAIN), (0.3, "Real"), (0.1, "Real")],
)
def test_thresholds_themselves_are_certain(probability_fake, label):
    row = np.array([probability_fake, 1 - probability_fake])
    assert decide_label(row, METADATA) == make_verdict(row, METADATA).label == label


@pytest.mark.parametrize(
    ("lower", "upper", "labels"),
    [
        (None, None, [UNCERTAIN, UNCERTAIN]),
        (0.3, None, [UNCERTAIN, "Real"]),
        (None, 0.8, ["Fake", UNCERTAIN]),
    ],
)
def test_saturated_probability_is_uncertain_where_there_is_no_threshold(lower, upper, labels):
    metadata = dataclasses.replace(METADATA, lower_threshold=lower, upper_threshold=upper)
    # In float64 both rows are exactly 0 and 1.
    rows = softmax(np.array([[800.0, 0.0], [0.0, 800.0]]))
    assert [decide_label(row, metadata) for row in rows] == labels
    others = dataclasses.replace(OTHERS, minimum_confidence=None)
    assert decide_label(np.array([1.0, 0.0, 0.0]), others) == UNCERTAIN


def test_no_threshold_survives_the_model_file(tmp_path):
    path = tmp_path / "model.h5"
    h5py.File(path, "w").close()
    for names in (METADATA.class_names, OTHERS.class_names):
        for value in (None, 0.7):
            written = ModelMetadata(
                names, 32, lower_threshold=None, upper_threshold=value, minimum_confidence=value
            )
            write_metadata(path, written)
            assert read_metadata(path) == written


def test_unreachable_thresholds_of_older_files_are_none(tmp_path):
    path = tmp_path / "model.h5"
    h5py.File(path, "w").close()
    older = {"lower_threshold": 0.0, "upper_threshold": 1.0, "minimum_confidence": 1.0}
    write_metadata(path, dataclasses.replace(METADATA, **older))
    found = read_metadata(path)
    assert {getattr(found, name) for name in older} == {None}


@pytest.mark.parametrize(
    ("thresholds", "sentence", "band"),
    [
        ({"lower": None, "upper": None}, "Every verdict is Uncertain", (0, 1)),
        ({"lower": 0.2, "upper": None}, "A probability of Fake above 0.200 is Uncertain", (0.2, 1)),
        ({"lower": None, "upper": 0.7}, "A probability of Fake below 0.700 is Uncertain", (0, 0.7)),
        ({"minimum_confidence": None}, "Every verdict is Uncertain", (0, 1)),
        ({"minimum_confidence": 0.6}, "A confidence below 0.600 is Uncertain", (0, 0.6)),
    ],
)
def test_reports_say_what_has_no_threshold(thresholds, sentence, band):
    assert describe_thresholds(thresholds) == sentence
    assert uncertain_range(thresholds) == band


def test_equal_thresholds_leave_nothing_uncertain():
    metadata = dataclasses.replace(METADATA, lower_threshold=0.5, upper_threshold=0.5)
    rows = np.array([[0.49, 0.51], [0.5, 0.5], [0.51, 0.49]])
    assert decide(rows, metadata).tolist() == [1, 0, 0]


def test_other_classes_are_uncertain_below_the_minimum_confidence():
    rows = np.array([[0.5, 0.3, 0.2], [0.4, 0.3, 0.3]])
    assert decide(rows, OTHERS).tolist() == [0, -1]
    verdict = make_verdict(rows[1], OTHERS)
    assert verdict.reasons[0].code is ReasonCode.LOW_CONFIDENCE and verdict.probability_fake is None


def test_uncertain_verdict_says_that_the_signs_are_weak_and_tells_no_number():
    (reason,) = make_verdict(np.array([0.5, 0.5]), METADATA).reasons
    assert reason.sentence == "The signs are too weak for a reliable answer."


def test_certain_verdict_of_a_calibrated_model_has_no_reasons():
    assert verdict_of(0.9).reasons == () and not verdict_of(0.9).out_of_distribution


@pytest.mark.parametrize("probability_fake", [0.9, 0.5])
def test_out_of_distribution_verdict_has_one_reason_and_no_numbers(probability_fake):
    blurred = Reason(ReasonCode.SHARPNESS, "Blurred.")
    row = np.array([probability_fake, 1 - probability_fake])
    verdict = make_verdict(row, METADATA, out_of_distribution=[None, TOO_LARGE, blurred])
    assert verdict == Verdict(UNCERTAIN, None, None, {}, (TOO_LARGE,))
    assert verdict.out_of_distribution
    lower = dataclasses.replace(METADATA, lower_threshold=0.2, upper_threshold=0.4)
    assert recalibrate(verdict, lower) == verdict


def test_other_thresholds_give_another_verdict():
    again = recalibrate(verdict_of(0.9), dataclasses.replace(METADATA, upper_threshold=0.95))
    assert (again.label, again.reasons[0].code) == (UNCERTAIN, ReasonCode.BETWEEN_THRESHOLDS)


def test_verdict_turned_by_a_harmless_change_is_uncertain():
    variants = [("blur", verdict_of(0.5)), ("crop", verdict_of(0.1)), ("JPEG", verdict_of(0.9))]
    verdict = apply_stability(verdict_of(0.9), variants)
    assert "changes after crop." in verdict.reasons[0].sentence
    assert (verdict.label, verdict.reasons[0].code) == (UNCERTAIN, ReasonCode.UNSTABLE)
    assert apply_stability(verdict_of(0.9), variants[:1]) == verdict_of(0.9)


def test_at_most_five_modules_know_the_uncertain_rule():
    package = Path(real_vs_ai.__file__).parent
    texts = {path: path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    knowing = [path.name for path, text in texts.items() if any(word in text for word in RULE)]
    assert len(knowing) <= 5, knowing
