"""A picture takes a short way from its upload to its answer."""

from __future__ import annotations

import sys
import threading

from real_vs_ai.models.model_input import ModelInput
from real_vs_ai.serving.judge import Judge
from real_vs_ai.ui.check_page import check_image
from tests.serving.trivial_model import encode, uniform_image

CROPS = ModelInput(32, kind="crops", crops=4, longest_side=256)


def test_uploaded_picture_passes_seven_modules_of_serving_and_page_at_most(model_with):
    judge = Judge(model_with(input=CROPS.stored()))
    judge.detector()
    passed = set()

    def note(frame, event, _):
        name = frame.f_globals.get("__name__", "")
        if event == "call" and name.startswith(("real_vs_ai.serving.", "real_vs_ai.ui.")):
            passed.add(name)

    # The batcher's threads start with the first picture.
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        card = check_image("a.png", encode(uniform_image(250, (220, 210))), judge=judge)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    assert card.verdict.label == "Fake"
    assert len(passed) <= 7, sorted(passed)
    assert "real_vs_ai.serving.openvino_engine" in passed
