"""Thresholds that keep the expected share of mistakes on a source that nobody has seen."""

import numpy as np
import pytest

from real_vs_ai.evaluation.calibration import calibrate_metadata
from real_vs_ai.evaluation.metrics import share_over_sources
from real_vs_ai.models.model_file import ModelMetadata
from real_vs_ai.verdicts.thresholds import choose_threshold_for_new_source
from real_vs_ai.verdicts.verdict import decide

METADATA = ModelMetadata(class_names=("Fake", "Real"), image_size=32)


def draw_sources(generator, count, *, images=20):
    """Scores of real images of sources that differ: some look generated, most do not."""
    levels = generator.normal(-2, 1.5, count)
    logits = levels[:, None] + generator.normal(size=(count, images))
    names = np.repeat([f"source {i}" for i in range(count)], images).astype(object)
    return (1 / (1 + np.exp(-logits))).ravel(), names


def draw_both_classes(generator, count):
    """Labels, probabilities and sources of as many sources of fakes as of real images."""
    fakes, fake_sources = draw_sources(generator, count)
    reals, real_sources = draw_sources(generator, count)
    fake = np.concatenate([1 - fakes, reals])
    labels = np.repeat([0, 1], [len(fakes), len(reals)])
    return labels, np.stack([fake, 1 - fake], axis=1), np.concatenate([fake_sources, real_sources])


def choose(scores, sources, *, rate, wrong=None):
    wrong = np.ones(len(scores), bool) if wrong is None else wrong
    return choose_threshold_for_new_source(scores, wrong, sources, rate=rate, lowest=0.5)


@pytest.mark.parametrize("rate", [0.05, 0.1])
def test_new_source_keeps_the_rate_on_average_and_little_is_given_away(rate):
    generator = np.random.default_rng(3)
    shares = []
    for _ in range(400):
        threshold = choose(*draw_sources(generator, 60), rate=rate).value
        shares.append(np.mean(draw_sources(generator, 20)[0] >= threshold))
    noise = 2 * np.std(shares) / np.sqrt(len(shares))
    assert rate / 2 < np.mean(shares) <= rate + noise


def test_rate_is_promised_from_enough_sources_only():
    generator = np.random.default_rng(5)
    scores, sources = draw_sources(generator, 49)
    # A fake beyond all real images.
    scores, sources = np.append(scores, 0.9999), np.append(sources, "fakes")
    wrong = sources != "fakes"
    found = choose(scores, sources, rate=0.02, wrong=wrong)
    assert found.reached and scores[wrong].max() < found.value < 0.9999
    fewer = sources != "source 0"
    refused = choose(scores[fewer], sources[fewer], rate=0.02, wrong=wrong[fewer])
    assert not refused.reached and refused.value is None


def test_a_probability_rounded_to_1_is_not_certain_where_nothing_may_be():
    generator = np.random.default_rng(5)
    labels, probabilities, sources = draw_both_classes(generator, 10)
    fitted, found = calibrate_metadata(
        METADATA, labels, probabilities, target_error=0.02, sources=sources
    )
    assert (fitted.lower_threshold, fitted.upper_threshold) == (None, None)
    assert (found["lower"], found["upper"]) == (None, None)
    assert decide(np.array([[1.0, 0.0], [0.0, 1.0]]), fitted).tolist() == [-1, -1]


def test_saturated_mistakes_leave_no_threshold():
    scores, sources = np.array([1.0, 1.0, 0.9]), np.array(["a", "fakes", "b"])
    found = choose(scores, sources, rate=0.34, wrong=np.array([True, False, True]))
    assert found.value is None and not found.reached


def test_every_source_counts_alike_whatever_its_size():
    scores = np.concatenate([np.full(980, 0.9), np.linspace(0.1, 0.4, 30), [0.6] * 19])
    sources = np.array(
        ["large"] * 980 + [f"s{i}" for i in range(30)] + [f"t{i}" for i in range(19)]
    )
    # All of 980 images of one source: (1 + 1) / 51 of the sources is more than 2 %.
    strict = choose(np.append(scores, 0.95), np.append(sources, "own"), rate=0.02)
    assert strict.value is None
    loose = choose(np.append(scores, 0.95), np.append(sources, "own"), rate=0.06)
    assert 0.6 < loose.value < 0.9


def test_thresholds_of_a_model_keep_both_rates():
    labels, probabilities, sources = draw_both_classes(np.random.default_rng(9), 80)
    metadata, found = calibrate_metadata(
        METADATA, labels, probabilities, target_error=0.05, sources=sources
    )
    decided = decide(metadata.calibrate(probabilities), metadata)
    of_fakes, of_reals = share_over_sources(labels, decided, sources, METADATA.class_names)
    assert of_reals["class"] == "Real" and of_reals["sources"] == 80
    assert (80 * of_reals["wrong"]["value"] + 1) / 81 <= 0.05
    # A false accusation is the worse mistake.
    assert 0.05 < (80 * of_fakes["wrong"]["value"] + 1) / 81 <= 0.1
    # Both would be broken by one per cent more.
    assert (80 * (of_reals["wrong"]["value"] + 0.01) + 1) / 81 > 0.05
    assert found["validation"]["upper"]["reached"] and found["validation"]["lower"]["reached"]
    assert of_reals["wrong"]["low"] < of_reals["wrong"]["value"] < of_reals["wrong"]["high"]
    assert of_reals["wrong_95"] > of_reals["wrong"]["value"]


def test_refused_images_are_no_mistakes():
    *images, sources = draw_both_classes(np.random.default_rng(4), 60)
    rule = {"target_error": 0.05, "sources": sources}
    plain, _ = calibrate_metadata(METADATA, *images, **rule)
    labels, probabilities = images
    real = labels == 1
    hard = real & np.isin(sources, sources[real & (probabilities[:, 0] >= 0.9)])
    eased, _ = calibrate_metadata(METADATA, *images, **rule, refused=hard)
    assert eased.upper_threshold < plain.upper_threshold


def test_no_kind_is_called_real_more_often_than_all_may_be():
    labels, probabilities, sources = draw_both_classes(np.random.default_rng(9), 80)
    kinds = np.full(len(labels), "easy", dtype=object)
    hard = np.isin(sources, [f"source {i}" for i in range(4)]) & (labels == 0)
    kinds[hard] = "hard"
    # One kind of generated images looks much more real than the others.
    fake = np.where(hard, probabilities[:, 0] * 0.02, probabilities[:, 0])
    probabilities = np.stack([fake, 1 - fake], axis=1)
    shares = {}
    for name, given in (("blind", None), ("by kind", kinds)):
        metadata, _ = calibrate_metadata(
            METADATA, labels, probabilities, target_error=0.05, sources=sources, kinds=given
        )
        decided = decide(metadata.calibrate(probabilities), metadata)
        shares[name] = np.mean(decided[hard] == 1)
    assert shares["blind"] > 0.3 and shares["by kind"] <= 0.1


def test_kinds_too_small_to_tell_count_together():
    scores = np.concatenate([np.full(400, 0.1), np.full(8, 0.9), [0.95]])
    wrong = np.append(np.ones(408, bool), False)
    sources = np.array([f"s{i}" for i in range(408)] + ["own"])
    kinds = np.array(["large"] * 400 + [f"small {i}" for i in range(8)] + ["own"], dtype=object)
    found = choose_threshold_for_new_source(
        scores, wrong, sources, rate=0.05, lowest=0.5, kinds=kinds
    )
    assert 0.9 < found.value < 0.95
    blind = choose_threshold_for_new_source(scores, wrong, sources, rate=0.05, lowest=0.5)
    assert blind.value == 0.5
