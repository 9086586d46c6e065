"""The page words models, refusals and numbers plainly, and shows untrusted text safely."""

from __future__ import annotations

import dataclasses
import re

import pytest

from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.out_of_distribution.sizes import summarise_training_images
from real_vs_ai.ui.wording import (
    as_markdown,
    harmless_markdown,
    percent,
    scope_sentence,
    short_reason,
    track_record,
    verdict_style,
    visible,
)
from real_vs_ai.verdict import Reason, ReasonCode, Verdict

METADATA = ModelMetadata(("Fake", "Real"), 32)


def test_every_refusal_has_its_few_words():
    refusals = [code for code in ReasonCode if make_refusal(code).out_of_distribution]
    assert len(refusals) > 4
    for code in refusals:
        assert short_reason(Reason(code, "Why.")).endswith(".")


def make_refusal(code):
    return Verdict("Uncertain", None, None, {}, reasons=(Reason(code, "Why."),))


def test_model_of_crops_says_that_it_judges_larger_pictures():
    seen = {"scale": {"low": 256.0, "median": 700.0, "high": 1800.0}}
    crops = ModelMetadata(
        ("Fake", "Real"), 224, training_images=seen, input={"kind": "crops", "crops": 9}
    )
    assert "256 × 256 pixels or more" in scope_sentence([crops])


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


def test_verdicts_have_words_and_icons_of_their_own():
    styles = [verdict_style(label, METADATA) for label in ("Fake", "Real", "Uncertain")]
    assert [style.words for style in styles] == ["AI-generated", "Real", "Uncertain"]
    assert len({style.icon for style in styles}) == 3


def test_the_track_record_names_false_accusations():
    metrics = {"recall": {"value": 0.93}, "false_positive_rate": {"value": 0.04}}
    record = track_record(dataclasses.replace(METADATA, metrics=metrics))
    assert "93.0%" in record and "accuses 4.0%" in record
    metrics["error_when_certain"] = {"value": 0.021}
    metadata = dataclasses.replace(METADATA, metrics=metrics)
    assert "2.1% are wrong" in track_record(metadata)
    assert "sure of" not in track_record(metadata, own_thresholds=False)
    few = dict(metadata.metrics, n=371, uncertain_share=0.943, error_when_certain={"value": 0.0})
    record = track_record(dataclasses.replace(metadata, metrics=few))
    assert (
        "it leaves 94.3% Uncertain, and of the 21 verdicts it is sure of, none is wrong" in record
    )
    assert track_record(METADATA) == ""


def test_scope_names_the_sizes_that_each_model_knows():
    def knowing(*sides: int) -> ModelMetadata:
        sizes = summarise_training_images(sides, sides, ["s"] * len(sides))
        return dataclasses.replace(METADATA, training_images=sizes)

    small, large = knowing(32, 32), knowing(300, 1500)
    assert "about 32 × 32 pixels" in scope_sentence([small])
    assert "photos from phones" in scope_sentence([small])
    both = scope_sentence([small, large])
    assert "32 × 32" in both and " or about " in both and "phones" not in both
    assert "not recorded" in scope_sentence([METADATA])
