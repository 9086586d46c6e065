"""The page words conclusions, models and numbers plainly, and shows untrusted text safely."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.out_of_distribution.check import summarise_training_images
from real_vs_ai.provenance import FileSays
from real_vs_ai.serving.conclusion import TITLES, Conclusion, ConclusionCode, ModelSees, conclude
from real_vs_ai.track_record import TrackRecord, read_track_record
from real_vs_ai.ui.wording import (
    as_markdown,
    harmless_markdown,
    heading,
    judges_photographs,
    numbers_sentence,
    percent,
    plain,
    promise,
    thresholds_sentence,
    visible,
    why_no_answer,
)
from real_vs_ai.verdict import CropScore, make_verdict

METADATA = ModelMetadata(("Fake", "Real"), 32)


@pytest.mark.parametrize(
    "name",
    [
        "![x](http://evil.example/p.png)",
        "[a](javascript:alert(1))",
        ":red[Real]",
        "www.evil.com",
        ":material/check: Real",
        "a_b_c",
        "**bold**",
        "$x^2$",
        "# big",
        "<b>x</b>",
        "a@b.example",
        ":smile:",
        "x`y``z",
        "| a | b |",
    ],
)
def test_strange_texts_lose_their_meaning_and_keep_their_characters(name):
    shown = as_markdown(name)
    assert re.sub(r"\u2060|\\(?=[^a-zA-Z\d\s])", "", shown) == name
    assert not re.search(r"(?<!\\)[!#$*<@\[`|_]|://|www\\?\.|:[a-z]", shown)


def test_plain_words_stay_plain_markdown():
    for text in ("Malignant (stage 2)", "It isn't sharp: 98.5 % of it, at most."):
        assert re.sub(r"\u2060|\\", "", as_markdown(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "![x](http://evil.example/p.png)",
        r"\[x](http://evil.example)",
        r"\\[x](http://evil.example)",
        "[x]: http://evil.example",
        "<img src=x>",
        "www.evil.example",
        "`a` :material/check: :red[x] :smile:",
        "me@evil.example",
    ],
)
def test_untrusted_card_loads_and_links_nothing(text):
    shown = re.sub(r"\\.", "", harmless_markdown(f"# Title\n\n| a | b |\n\n{text}"))
    assert shown.startswith("### Title\n\n| a | b |\n")
    assert not re.search(r"[\[<$]|:[a-z/]|www\.|@[a-z]", shown)


def test_characters_that_hide_or_turn_others_become_visible():
    assert visible("\u202egpj.exe\n\x00") == "�gpj.exe��"
    assert len(visible("x" * 5000)) <= 80


@pytest.mark.parametrize(
    ("fraction", "words"),
    [(0.9999, "over 99.9%"), (0.0001, "under 0.1%"), (1.0, "100.0%"), (0.5, "50.0%")],
)
def test_percentages_never_round_to_certainty(fraction, words):
    assert percent(fraction, digits=1) == words


def test_every_conclusion_has_an_icon_and_a_symbol_of_its_own():
    shown = [
        (heading(found), plain(found))
        for found in (
            Conclusion(code, title, FileSays.NOTHING, ModelSees.NOT_JUDGED)
            for code, title in TITLES.items()
        )
    ]
    assert len(set(shown)) == len(ConclusionCode)
    assert ":red[" in heading(conclude(make_verdict(np.array([0.9, 0.1]), METADATA), ()))


def knowing(*sides: int, **options) -> ModelMetadata:
    sizes = summarise_training_images(sides, sides, ["s"] * len(sides))
    return dataclasses.replace(METADATA, training_images=sizes, **options)


def test_the_promise_tells_how_often_photographs_are_answered_and_what_is_not_judged():
    crops = {"kind": "crops", "crops": 9}
    small = knowing(32, 32, metrics={"uncertain_share": 0.05})
    large = knowing(300, 1500, metrics={"uncertain_share": {"value": 0.83}}, input=crops)
    said = promise([small, large])
    assert "an answer for about 17 of 100 photographs" in said
    assert "does not judge documents, screenshots or drawings" in said
    assert "about 32 × 32 pixels or about 312 × 312 pixels or more" in said
    said = promise([small])
    assert "about 95 of 100 pictures that it knows" in said and "does not judge" not in said
    assert "not recorded" in promise([METADATA])


def test_models_for_photographs_are_told_from_those_for_thumbnails():
    assert judges_photographs(knowing(300, 1500)) and not judges_photographs(knowing(32, 32))


def test_scores_that_are_not_calibrated_are_not_called_probabilities():
    verdict = make_verdict(np.array([0.9, 0.1]), METADATA)
    assert "no probabilities" in numbers_sentence(verdict, METADATA)
    calibrated = dataclasses.replace(METADATA, calibrated=True)
    assert numbers_sentence(verdict, calibrated) == (
        "Probabilities: AI-generated 90.0%, a photograph 10.0%."
    )


def test_the_page_says_when_the_model_answers_and_why_it_does_not():
    metadata = dataclasses.replace(METADATA, lower_threshold=0.3, upper_threshold=0.8)
    assert thresholds_sentence(metadata) == (
        "Answers when the score of AI-generated is at most 0.300 or at least 0.800"
    )
    assert why_no_answer(make_verdict(np.array([0.9, 0.1]), metadata), metadata) == ""
    between = make_verdict(np.array([0.6, 0.4]), metadata)
    told = why_no_answer(between, metadata)
    assert told.endswith("wrong too often, so it gives no answer.")
    crops = tuple(CropScore((0, 0, 1, 1), (fake, 1 - fake)) for fake in (0.9, 0.7, 0.2))
    assert why_no_answer(dataclasses.replace(between, crops=crops), metadata) == (
        f"{told} It looked at 3 parts and found 2 rather AI-generated and 1 rather like a "
        "photograph."
    )
    classes = ModelMetadata(("a", "b", "c"), 32, minimum_confidence=0.7, calibrated=True)
    assert thresholds_sentence(classes).endswith("probability of one class is at least 0.700")
    assert why_no_answer(make_verdict(np.array([0.5, 0.3, 0.2]), classes), classes) == told


def record_of(**sources: tuple[int, float, float]) -> TrackRecord:
    """Of 100 pictures, half are answered and a tenth of the answers are wrong."""
    kinds = {
        name: {"n": n, "uncertain_share": {"value": 1 - answered}, "error_when_certain": wrong}
        for name, (n, answered, wrong) in sources.items()
    }
    metrics = {"n": 100, "uncertain_share": 0.5, "error_when_certain": 0.1, "per_source": kinds}
    return read_track_record(metrics)


def test_track_record_is_that_of_the_kind_with_the_most_wrong_answers():
    said = record_of(a=(50, 0.9, 0.0), b=(50, 0.3, 0.4), tiny=(49, 1.0, 1.0)).sentence
    assert said.startswith(
        "Of 100 pictures of the kind that the model judges worst (“b”, of 2 kinds tested),"
    )
    assert ", about 30 get an answer; about 12 of these are wrong. Of 100" in said
    assert said.endswith("of all kinds, about 50 get an answer; about 5 of these are wrong.")


@pytest.mark.parametrize("sources", [{}, {"a": (50, 0.3, 0.4)}])
def test_track_record_without_kinds_is_that_of_all_pictures(sources):
    said = record_of(**sources).sentence
    assert said == (
        "Of 100 pictures like yours, about 50 get an answer; about 5 of these are wrong."
    )
    assert read_track_record({"n": 100}).sentence == ""
