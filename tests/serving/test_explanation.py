"""An explanation shows the evidence where the model sees it."""

from __future__ import annotations

import numpy as np
import pytest

from real_vs_ai.images import ImageError
from real_vs_ai.serving.explanation import Explainer
from tests.serving.trivial_model import encode, uniform_image


@pytest.fixture(scope="module")
def explainer(model_path):
    return Explainer(model_path)


def test_what_is_bright_speaks_for_fake(explainer):
    pixels = uniform_image(10, (64, 48))
    pixels[:24, :32] = 250
    explanation = explainer.explain(encode(pixels), class_name="Fake")
    heatmap = explanation.heatmap
    assert heatmap.shape == (48, 64)
    assert 0 <= heatmap.min() <= heatmap.max() <= 1
    assert heatmap[:20, :28].mean() > 2 * heatmap[28:, 36:].mean()
    assert explanation.overlay.shape == (48, 64, 3)
    assert explanation.overlay.dtype == np.uint8
    assert not np.array_equal(explanation.overlay, pixels)


def test_no_strength_leaves_the_image_as_it_is(explainer):
    pixels = uniform_image(90)
    overlay = explainer.explain(pixels, class_name="Fake", strength=0.0).overlay
    np.testing.assert_array_equal(overlay, pixels)


def test_unknown_classes_and_broken_images_are_refused(explainer):
    with pytest.raises(ValueError, match="one of the classes"):
        explainer.explain(uniform_image(9), class_name="Cat")
    with pytest.raises(ImageError):
        explainer.explain(b"no image", class_name="Fake")
