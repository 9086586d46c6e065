"""What the page says of models and refusals, in words."""

from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.ui import wording
from real_vs_ai.verdict import Reason, ReasonCode, Verdict


def test_every_refusal_has_its_few_words():
    refusals = [code for code in ReasonCode if make_refusal(code).out_of_distribution]
    assert len(refusals) > 4
    for code in refusals:
        assert wording.short_reason(Reason(code, "Why.")).endswith(".")


def make_refusal(code):
    return Verdict("Uncertain", None, None, {}, reasons=(Reason(code, "Why."),))


def test_a_model_of_crops_says_that_it_judges_larger_pictures_too():
    seen = {"scale": {"low": 256.0, "median": 700.0, "high": 1800.0}}
    crops = ModelMetadata(
        ("Fake", "Real"), 224, training_images=seen, input={"kind": "crops", "crops": 9}
    )
    assert "256 × 256 pixels or more" in wording.scope_sentence([crops])
