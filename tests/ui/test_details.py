"""A session keeps what its tabs need, and no longer than they need it."""

from __future__ import annotations

import types

import pytest
from streamlit.testing.v1 import AppTest


def test_gemini_answers_about_another_verdict_are_hidden(monkeypatch):
    def page():
        import numpy as np
        import streamlit as st

        from real_vs_ai.ui.gemini import show_insight

        pixels = np.zeros((2, 2, 3), np.uint8)
        show_insight(digest="d", pixels=pixels, finding=st.session_state["finding"])

    monkeypatch.setenv("GEMINI_API_KEY", "secret-key")
    app = AppTest.from_function(page, default_timeout=60)
    app.session_state["insight_consent"] = True
    said = types.SimpleNamespace(messages=[("assistant", "I agree.")], finding="AI-generated")
    app.session_state["insights"] = {"d": said}
    app.session_state["finding"] = "AI-generated"
    assert [text.value for text in app.run().text] == ["I agree."]
    app.session_state["finding"] = "Uncertain"
    assert not app.run().text
    assert next(button.label for button in app.button) == "Ask Gemini about this image"


def refused_page(code: str) -> None:
    """The details of a picture that was refused: its left half is white, the right one noise."""
    import io
    import types

    import numpy as np
    from PIL import Image

    from real_vs_ai.models.model_file import ModelMetadata
    from real_vs_ai.serving.judge import Answer
    from real_vs_ai.ui.checking import Card
    from real_vs_ai.ui.details import show_details
    from real_vs_ai.verdicts.verdict import Reason, ReasonCode, Verdict

    pixels = np.random.default_rng(0).integers(0, 200, (320, 480, 3), dtype=np.uint8)
    pixels[:, :240] = 255
    preview = io.BytesIO()
    Image.fromarray(pixels).save(preview, "JPEG")
    verdict = Verdict("Uncertain", None, None, {}, (Reason(ReasonCode(code), "Refused."),))
    answer = Answer("a.png", verdict, width=480, height=320, format="PNG", sha256="d")
    metadata = ModelMetadata(("Fake", "Real"), 32, input={"kind": "crops", "crops": 9})
    judge = types.SimpleNamespace(
        decode=lambda data, longest_side: pixels,
        model_of=lambda verdict: types.SimpleNamespace(name="m", metadata=metadata, sha256="5b"),
    )
    show_details(Card(answer, preview=preview.getvalue(), file=io.BytesIO()), judge=judge)


def test_picture_taken_for_a_document_shows_its_plain_parts():
    app = AppTest.from_function(refused_page, default_timeout=60, kwargs={"code": "plain"}).run()
    assert not app.exception and len(app.image) == 1
    assert "bright parts are flat or of one colour" in app.caption[0].value


@pytest.mark.parametrize("code", ["sharpness", "features", "size"])
def test_other_refusals_say_that_they_are_of_the_whole_picture(code):
    app = AppTest.from_function(refused_page, default_timeout=60, kwargs={"code": code}).run()
    assert not app.exception and not app.image
    told = any("picture as a whole" in part.value for part in app.markdown)
    # A picture of the wrong size is told its size.
    assert told == (code != "size")
