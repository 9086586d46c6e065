"""The page words conclusions, models and numbers plainly, and shows untrusted text safely."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest

from real_vs_ai.models.model_file import ModelMetadata
from real_vs_ai.out_of_distribution.check import summarise_training_images
from real_vs_ai.provenance import FileSays
from real_vs_ai.ui.wording import (
    as_markdown,
    harmless_markdown,
    heading,
    judges_photographs,
    numbers_sentence,
    plain,
    promise,
    reliance,
    thresholds_sentence,
    visible,
)
from real_vs_ai.verdicts.conclusion import (
    CONCLUSIONS,
    TITLES,
    Conclusion,
    ConclusionCode,
    ModelSees,
    conclude,
)
from real_vs_ai.verdicts.verdict import make_verdict

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


def test_every_conclusion_has_a_heading_and_a_symbol_of_its_own():
    shown = [
        (heading(found, language="en"), plain(found, language="en"))
        for found in (
            Conclusion(code, title, FileSays.NOTHING, ModelSees.NOT_JUDGED)
            for code, title in TITLES.items()
        )
    ]
    assert len(set(shown)) == len(ConclusionCode)
    accused = conclude(make_verdict(np.array([0.9, 0.1]), METADATA), ())
    assert ":red[" in heading(accused, language="en")


@pytest.mark.parametrize("says", FileSays)
@pytest.mark.parametrize("code", ConclusionCode)
def test_every_conclusion_says_in_a_sentence_how_far_it_can_be_relied_on(code, says):
    found = Conclusion(code, TITLES[code], says, ModelSees.NOT_JUDGED)
    if CONCLUSIONS[says].get(ModelSees.NOT_JUDGED) is code or not code.startswith(("lab", "cam")):
        assert reliance(found).endswith(".")


def knowing(*sides: int, **options) -> ModelMetadata:
    sizes = summarise_training_images(sides, sides, ["s"] * len(sides))
    return dataclasses.replace(METADATA, training_images=sizes, **options)


def test_the_promise_tells_what_is_found_what_is_not_judged_and_which_pictures_to_use():
    crops = {"kind": "crops", "crops": 9}
    small = knowing(32, 32, metrics=record_metrics(found=0.99))
    large = knowing(300, 1500, metrics=record_metrics(found=0.17), input=crops)
    said = " ".join(promise([small, large]))
    assert "Of 100 AI pictures the model finds about 17" in said
    assert "does not judge documents, screenshots or drawings" in said
    assert (
        said.endswith("Use pictures at least 312 pixels wide and high.") and "32 × 32" not in said
    )
    said = " ".join(promise([small]))
    assert "finds about 99" in said and "does not judge" not in said
    assert said.endswith("only pictures of about 32 × 32 pixels.")
    assert "not recorded" in " ".join(promise([METADATA]))


def test_models_for_photographs_are_told_from_those_for_thumbnails():
    assert judges_photographs(knowing(300, 1500)) and not judges_photographs(knowing(32, 32))


def test_scores_are_not_called_probabilities_beside_an_answer():
    """An accusation at 0.505 must not read as "50.5 % probable"."""
    metadata = dataclasses.replace(METADATA, calibrated=True)
    told = numbers_sentence(make_verdict(np.array([0.505, 0.495]), metadata), metadata)
    assert "score: 0.505" in told and "%" not in told and "no probability" in told
    classes = ModelMetadata(("a", "b"), 32, minimum_confidence=0.7)
    told = numbers_sentence(make_verdict(np.array([0.9, 0.1]), classes), classes)
    assert "a 0.900, b 0.100" in told and "from 0.700 on" in told


def test_the_page_says_when_the_model_answers():
    metadata = dataclasses.replace(METADATA, lower_threshold=0.3, upper_threshold=0.8)
    assert thresholds_sentence(metadata) == (
        "Answers when the score of AI-generated is at most 0.300 or at least 0.800"
    )
    classes = ModelMetadata(("a", "b", "c"), 32, minimum_confidence=0.7)
    assert thresholds_sentence(classes).endswith("score of one class is at least 0.700")


def record_metrics(
    *, found: float, passed: float = 0.03, accused: float = 0.002, generators=()
) -> dict[str, object]:
    """The part of a report that tells what is found, passed and accused."""
    clean = {
        "generated": {"found": {"value": found}, "called_real": {"value": passed}},
        "real": {"accused": {"value": accused}},
    }
    return {"conditions": {"hard": clean, "clean": clean}, "weakest": {"generators": generators}}
