"""The record says what a model finds, what it lets pass, and whom it accuses, each by itself."""

from __future__ import annotations

import pytest

from real_vs_ai.verdicts.track_record import TrackRecord, of_100, read_track_record


def share(value: float) -> dict[str, float]:
    return {"value": value, "low": value, "high": value}


def report(*, found: float, passed: float, accused: float, generators: list = ()) -> dict:
    """The test part of a report."""
    clean = {
        "generated": {"n": 90, "found": share(found), "called_real": share(passed)},
        "real": {"n": 90, "accused": share(accused)},
    }
    return {"conditions": {"web": clean, "clean": clean}, "weakest": {"generators": generators}}


def generator(name: str, *, n: int, found: float, passed: float) -> dict:
    return {"name": name, "n": n, "found": share(found), "called_real": share(passed)}


def test_each_answer_has_a_rate_of_its_own():
    record = read_track_record(report(found=0.39, passed=0.031, accused=0.013))
    assert record.of_accusation == "Of 100 photographs it accuses about 1."
    assert record.of_no_sign == (
        "Of 100 AI pictures it finds about 39 and lets about 3 pass. "
        "This does not show that a picture is real."
    )
    assert [one.name for one in record.conditions] == ["clean", "web"]


def test_hardest_kind_is_the_one_that_passes_most_and_tiny_kinds_do_not_count():
    kinds = [
        generator("Midjourney", n=28, found=0.3, passed=0.1),
        generator("nano-banana", n=146, found=0.14, passed=0.09),
        generator("rare", n=19, found=0.0, passed=1.0),
    ]
    record = read_track_record(report(found=0.39, passed=0.03, accused=0.0, generators=kinds))
    assert "of the hardest kind tested, Midjourney, it lets about 10 pass" in record.of_no_sign
    assert record.of_accusation == "Of 100 photographs it accuses none."


@pytest.mark.parametrize(
    ("found", "generator_name", "misses"),
    [(0.39, "ComfyUI, flux1", True), (0.9, "ComfyUI", False), (0.9, "Krea, krea-1", True)],
)
def test_model_misses_most_of_a_tool_by_its_own_record_or_else_by_that_of_all(
    found, generator_name, misses
):
    kinds = [generator("Krea", n=40, found=0.2, passed=0.2)]
    record = read_track_record(report(found=found, passed=0.03, accused=0.0, generators=kinds))
    assert record.misses_most_of(generator_name) == misses


def test_report_without_these_numbers_says_nothing():
    record = read_track_record({"n": 100, "uncertain_share": 0.4})
    assert record == TrackRecord(answered=0.6)
    assert record.of_no_sign == record.of_accusation == ""
    assert not record.misses_most_of("Krea")


@pytest.mark.parametrize(
    ("value", "words"),
    [(0.0, "none"), (0.004, "fewer than 1"), (0.39, "about 39"), (0.999, "about 99"), (1.0, "100")],
)
def test_share_of_100_is_never_rounded_to_certainty(value, words):
    assert of_100(value) == words
