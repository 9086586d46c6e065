"""Gemini's answers and failures reach the user in plain words (against a local server)."""

from __future__ import annotations

import base64
import io
import json
import threading

import numpy as np
import pytest
from app_site import make_gemini_server
from PIL import Image

from real_vs_ai.ui.gemini import InsightChat, InsightError, find_key

pytest.importorskip("google.genai")


@pytest.fixture
def gemini():
    server = make_gemini_server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


def open_chat(server, **options) -> InsightChat:
    return InsightChat(
        api_key="secret-key", base_url=f"http://127.0.0.1:{server.server_port}", **options
    )


def test_answers_arrive_in_pieces_and_a_follow_up_carries_the_conversation(gemini):
    chat = open_chat(gemini)
    pieces = list(chat.describe(np.zeros((20, 30, 3), np.uint8), finding="Real, 12 %"))
    assert pieces[0] == "A red square. " and len(pieces) == 2
    list(chat.ask("Why is it red?"))
    path, key, body = gemini.requests[1]
    assert ":streamGenerateContent" in path and key == "secret-key"
    texts = [part.get("text") for turn in json.loads(body)["contents"] for part in turn["parts"]]
    assert "A red square. " in texts and texts[-1] == "Why is it red?"


def test_only_a_reduced_picture_without_metadata_is_sent(gemini):
    pixels = np.zeros((1500, 3000, 3), np.uint8)
    list(open_chat(gemini).describe(pixels, finding="Real, 12 %"))
    parts = json.loads(gemini.requests[0][2])["contents"][0]["parts"]
    jpeg = base64.urlsafe_b64decode(parts[0]["inlineData"]["data"])
    picture = Image.open(io.BytesIO(jpeg))
    assert picture.size == (1024, 512) and not picture.getexif()


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        (400, "API key"),
        (403, "API key"),
        (404, "GEMINI_MODEL"),
        (429, "quota"),
        (500, "busy"),
        (418, "418"),
        ("blocked", "safety"),
        ("SAFETY", "safety"),
        ("MAX_TOKENS", "too long"),
        ("junk", "understood"),
        ("empty", "without any text"),
    ],
)
def test_each_failure_is_told_in_plain_words_without_the_key(gemini, mode, said):
    gemini.mode = mode
    with pytest.raises(InsightError, match=said) as caught:
        list(open_chat(gemini).describe(np.zeros((8, 8, 3), np.uint8), finding="Real"))
    assert "secret-key" not in str(caught.value)


def test_a_server_that_stays_silent_is_given_up(gemini):
    gemini.mode = "silent"
    with pytest.raises(InsightError, match="in time"):
        list(open_chat(gemini, timeout_s=0.3).ask("Are you there?"))


def test_pieces_are_shown_while_the_answer_is_still_being_written(gemini):
    gemini.mode = "slow"
    pieces = open_chat(gemini).describe(np.zeros((8, 8, 3), np.uint8), finding="Real")
    assert next(pieces) == "A red square. " and not gemini.released.is_set()
    gemini.released.set()
    assert "**Nothing** odd." in "".join(pieces)


def test_interrupted_answer_shows_its_beginning_and_an_error(gemini):
    gemini.mode = "slow"
    pieces = open_chat(gemini, timeout_s=0.5).ask("Are you there?")
    assert next(pieces) == "A red square. "
    with pytest.raises(InsightError, match="in time"):
        list(pieces)


def test_broken_connection_is_explained_in_plain_words(gemini):
    gemini.mode = "dropped"
    with pytest.raises(InsightError, match="broke off"):
        list(open_chat(gemini).ask("Are you there?"))


def test_an_answer_without_end_is_cut_off(gemini):
    with pytest.raises(InsightError, match="took too long"):
        list(open_chat(gemini, longest_answer_s=0.0).ask("Are you there?"))


def test_a_machine_without_network_is_told_so(gemini):
    chat = InsightChat(api_key="k", base_url="http://127.0.0.1:9", timeout_s=2)
    with pytest.raises(InsightError, match="online"):
        list(chat.ask("Are you there?"))


def test_the_key_comes_from_secrets_then_environment(monkeypatch):
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)
    monkeypatch.setenv("GEMINI_API_KEY", "from-environment")
    assert find_key({}) == "from-environment"
    assert find_key({"GEMINI_API_KEY": " from-secrets "}) == "from-secrets"
    monkeypatch.delenv("GEMINI_API_KEY")
    assert find_key({"GEMINI_API_KEY": ""}) is None
