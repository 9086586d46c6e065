"""Heat maps show the parts of an image that move the answer, of any engine and any input."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from real_vs_ai.models.model_file import ModelMetadata
from real_vs_ai.serving.explanation import heat_map, occlude, overlay_heatmap
from real_vs_ai.serving.fake_engine import FakeEngine, fake_detector
from real_vs_ai.serving.judge import Judge

SIZE = 24
METADATA = ModelMetadata(("Fake", "Real"), SIZE)
CROPS = {"kind": "crops", "crops": 4, "overview": 1, "longest_side": 96}


def red_speaks_for_fake(pixels):
    """More red than blue means Fake."""
    red, blue = (float(pixels[..., channel].mean()) for channel in (0, 2))
    return 1 / (1 + np.exp((blue - red) / 20))


def red_left_blue_right(width=SIZE, height=SIZE):
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 200
    pixels[:, width // 2 :, 2] = 200
    return pixels


def detector_of(**options):
    engine = FakeEngine(red_speaks_for_fake)
    return fake_detector(engine, metadata=dataclasses.replace(METADATA, **options))


@pytest.mark.parametrize(
    ("stored", "size"), [({}, (SIZE, SIZE)), ({}, (60, 40)), (CROPS, (60, 40)), (CROPS, (90, 90))]
)
def test_map_lies_on_the_parts_that_speak_for_the_class(stored, size):
    detector, (width, height) = detector_of(input=stored), size
    pixels = red_left_blue_right(width, height)
    red, blue = (heat_map(detector, pixels, class_index=index) for index in (0, 1))
    assert red.shape == (height, width) and red.dtype == np.float32
    assert red.min() == 0 and red.max() == 1
    margin = width // 8
    left, right = np.s_[:, : width // 2 - margin], np.s_[:, width // 2 + margin :]
    assert red[left].mean() > 0.3 > red[right].max()
    assert blue[right].mean() > 0.3 > blue[left].max()


def test_map_of_a_large_image_is_small_and_has_its_proportions():
    found = heat_map(detector_of(), red_left_blue_right(1024, 300), class_index=0)
    assert found.shape == (75, 256)


def test_image_whose_parts_do_not_move_the_answer_has_an_empty_map():
    detector = fake_detector(FakeEngine(lambda pixels: 0.7), metadata=METADATA)
    assert not heat_map(detector, red_left_blue_right(), class_index=0).any()


def test_effects_are_what_the_log_odds_lose_part_by_part():
    pixels = np.zeros((4, 4, 3), np.uint8)
    pixels[:2, :2, 0] = 255

    def predict(inputs):
        fake = (inputs[..., 0].mean(axis=(1, 2)) + 10) / 300
        return np.stack([fake, 1 - fake], axis=1)

    grey = pixels.mean(axis=(0, 1))
    (effects,) = occlude(predict, pixels[None], class_indices=[0], colours=[grey], parts=2)
    painted = pixels.copy()
    painted[:2, :2] = grey
    before, after = predict(np.stack([pixels, painted]))
    assert effects[0, 0] == pytest.approx(np.log(before[0] / before[1] * after[1] / after[0]))
    assert effects[0, 0] > 0 > effects[1, 1]


def test_judge_explains_a_verdict_by_the_model_that_gave_it():
    judge = Judge(detector_of())
    pixels = red_left_blue_right()
    pixels[:, : SIZE // 2, 0] = 255
    verdict = judge.judge_pixels(pixels)
    assert verdict.label == "Fake"
    found = judge.heat_map(pixels, verdict)
    np.testing.assert_array_equal(found, heat_map(judge.detector(), pixels, class_index=0))


def test_classes_that_the_model_does_not_have_are_refused():
    with pytest.raises(ValueError, match="below 2"):
        heat_map(detector_of(), red_left_blue_right(), class_index=2)


def test_overlay_leaves_places_without_evidence_as_they_are():
    pixels = np.full((4, 4, 3), 90, np.uint8)
    heatmap = np.zeros((4, 4), np.float32)
    heatmap[0, 0] = 1
    covered = overlay_heatmap(pixels, heatmap, strength=0.8)
    assert covered.dtype == np.uint8
    assert np.array_equal(covered[1:], pixels[1:])
    assert not np.array_equal(covered[0, 0], pixels[0, 0])
    np.testing.assert_array_equal(overlay_heatmap(pixels, heatmap, strength=0.0), pixels)


def test_overlay_has_the_colours_of_inferno():
    from matplotlib import colormaps

    heatmap = np.linspace(0, 1, 1000, dtype=np.float32)[None]
    black = np.zeros((1, 1000, 3), np.uint8)
    expected = colormaps["inferno"](heatmap)[..., :3] * 255 * heatmap[..., None]
    found = overlay_heatmap(black, heatmap, strength=1.0)
    np.testing.assert_allclose(found, expected, atol=8)
