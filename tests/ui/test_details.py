"""A session keeps what its tabs need, and no longer than they need it."""

from __future__ import annotations

import types

import pytest
from streamlit.testing.v1 import AppTest

from real_vs_ai.ui import details


@pytest.fixture
def session(monkeypatch):
    state = {}
    monkeypatch.setattr(details, "st", types.SimpleNamespace(session_state=state))
    return state


def test_gemini_answers_about_another_verdict_are_hidden(monkeypatch):
    def page():
        import numpy as np
        import streamlit as st

        from real_vs_ai.ui.insight_panel import show_insight

        pixels = np.zeros((2, 2, 3), np.uint8)
        show_insight(digest="d", pixels=pixels, finding=st.session_state["finding"])

    monkeypatch.setenv("GEMINI_API_KEY", "secret-key")
    app = AppTest.from_function(page, default_timeout=60)
    app.session_state["insight_consent"] = True
    said = {"chat": None, "messages": [("assistant", "I agree.")], "finding": "AI-generated"}
    app.session_state["insights"] = {"d": said}
    app.session_state["finding"] = "AI-generated"
    assert [text.value for text in app.run().text] == ["I agree."]
    app.session_state["finding"] = "Uncertain"
    assert not app.run().text
    assert next(button.label for button in app.button) == "Ask Gemini about this image"
