"""The tabs under "Why?" explain an answer, where there is one (AppTest, with the real detector)."""

from __future__ import annotations

import hashlib
import threading

import pytest
from app_driver import button, shown_texts, start, upload, verdicts
from app_site import BLUE, GREY, RED, encode, image_bytes, make_gemini_server
from PIL import Image
from streamlit.testing.v1 import AppTest

pytestmark = pytest.mark.usefixtures("surroundings")


def patchwork() -> bytes:
    """Blue all round, red in the middle: the whole is blue, its middle part is red."""
    image = Image.new("RGB", (80, 80), BLUE)
    image.paste(RED, (16, 16, 64, 64))
    return encode(image, "PNG")


@pytest.mark.parametrize(
    ("colour", "told", "not_told"),
    [
        (RED, "Of 100 photographs it accuses about 2.", "lets about"),
        (
            BLUE,
            "finds about 40 and lets about 5 pass; of the hardest kind tested, Krea, it lets",
            "accuses",
        ),
        (GREY, "The signs are too weak for a reliable answer.", "Of 100"),
    ],
)
def test_each_answer_has_its_own_rate_and_no_answer_has_none(models, colour, told, not_told):
    app = upload(start("--models-dir", models), {"a.png": image_bytes(colour)})
    (seen,) = [m.value for m in app.markdown if "**What the model sees**" in m.value]
    assert told in seen and not_told not in seen
    assert "%" not in shown_texts(app)


def test_an_answer_that_turns_when_cropped_is_none(models):
    app = upload(start("--models-dir", models), {"patchwork.png": patchwork()})
    assert "No sign of AI found" in verdicts(app)[0]
    open_tab(app, "changes")
    assert "We can't tell" in verdicts(app)[0]
    assert "turns after cropping to 75 %" in shown_texts(app)


def test_an_open_answer_has_its_reason_but_no_test_and_no_map(models):
    app = upload(start("--models-dir", models), {"g.png": image_bytes(GREY, size=(200, 200))})
    assert "signs are too weak for a reliable answer" in shown_texts(app)
    assert "parts" not in shown_texts(app)
    assert [tab.label for tab in app.tabs] == ["Details"]


def test_test_of_changes_does_not_promise_that_an_answer_is_right(models):
    app = upload(start("--models-dir", models), {"red.png": image_bytes(RED)})
    open_tab(app, "changes")
    texts = shown_texts(app)
    assert "same answer on" in texts and "not more often right" in texts
    assert "reliable answer survives" not in texts


def test_the_heat_map_shows_where_the_image_speaks_for_the_answer(models):
    app = upload(start("--models-dir", models), {"red.png": image_bytes(RED, size=(200, 200))})
    before = len(app.image)
    open_tab(app, "Where")
    assert "where the model looked" in shown_texts(app) and len(app.image) == before + 1
    app = upload(start("--models-dir", models), {"red.png": image_bytes(RED)})
    assert not [tab.label for tab in app.tabs if "Where" in tab.label]


def test_a_mistake_is_reported_as_text_to_copy(models):
    app = upload(start("--models-dir", models), {"red.png": image_bytes(RED)})
    assert not app.code
    app.session_state["mistake"] = True
    app.run()
    (text,) = [code.value for code in app.code if "Thresholds" in code.value]
    digest = hashlib.sha256(image_bytes(RED)).hexdigest()
    model = hashlib.sha256((models / "colour" / "model.h5").read_bytes()).hexdigest()
    assert digest in text and model in text and "lower 0.3000, upper 0.7000" in text
    assert "Conclusion: Looks AI-generated" in text and "red.png" not in text


def open_tab(app: AppTest, part: str) -> None:
    """Select the tab whose name contains `part`, as a click does."""
    tab = next(tab for tab in app.tabs if part in tab.label)
    app.session_state[f"details {[tab.label for tab in app.tabs]}"] = tab.label
    app.run()
    assert not app.exception


def test_gemini_has_a_tab_only_with_a_key(models, monkeypatch):
    app = upload(start("--models-dir", models), {"red.png": image_bytes(RED)})
    assert not [tab.label for tab in app.tabs if "Gemini" in tab.label]
    monkeypatch.setenv("GEMINI_API_KEY", "secret-key")
    assert [tab.label for tab in app.run().tabs if "Gemini" in tab.label]


def test_nothing_goes_to_gemini_before_the_user_agrees(models, monkeypatch):
    server = make_gemini_server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setenv("GEMINI_API_KEY", "secret-key")
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    try:
        app = upload(start("--models-dir", models), {"red.png": image_bytes(RED)})
        open_tab(app, "Gemini")
        assert "Nothing has been sent so far" in shown_texts(app) and server.requests == []
        app.checkbox[0].check().run()
        assert server.requests == []
        button(app, "Ask Gemini about this image").click().run()
        assert len(server.requests) == 1
        # The answer's Markdown is shown as text: a picture in it would be loaded from elsewhere.
        assert any("![pixel](http" in text.value for text in app.text)
        assert all("tracker.example" not in m.value for m in app.markdown)
        app.chat_input[0].set_value("Why red?").run()
        assert len(server.requests) == 2 and "Why red?" in [text.value for text in app.text]
        server.mode = 429
        app.chat_input[0].set_value("And now?").run()
        assert "quota" in app.error[0].value and not app.exception
        button(app, "Withdraw my consent").click().run()
        assert "Nothing has been sent" not in shown_texts(app) and not app.chat_input
        assert "stays with Google" in shown_texts(app)
    finally:
        server.shutdown()
        server.server_close()


def test_single_broken_file_is_told_who_sees_it(models):
    app = upload(start("--models-dir", models), {"empty.png": b""})
    assert shown_texts(app).count("**Who sees my pictures?** Nobody but you") == 1
