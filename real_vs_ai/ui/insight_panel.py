"""Show Gemini's optional explanation, after asking for consent."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import streamlit as st
from streamlit.errors import StreamlitSecretNotFoundError

from real_vs_ai.serving.insights import (
    DEFAULT_MODEL,
    LONGEST_QUESTION,
    MODEL_NAME,
    InsightChat,
    InsightError,
    find_key,
)

_CONSENT_KEY = "insight_consent"
# Whether this session sent anything.
_SENT_KEY = "insight_sent"
_CONVERSATIONS_KEY = "insights"


def show_insight(*, digest: str, pixels: np.ndarray, finding: str) -> None:
    """Explain the option, ask for consent, then show the conversation about one image."""
    key = find_key(_secrets())
    if key is None:
        st.info(
            "Google's Gemini can describe the image, point at oddities and answer questions. "
            "To offer it, put `GEMINI_API_KEY` into the environment or into "
            "`.streamlit/secrets.toml` and start the app again. Everything else works without it.",
            icon=":material/key_off:",
        )
        return
    if not st.session_state.get(_CONSENT_KEY):
        st.markdown(
            "Gemini, a service of Google's, can describe the image and comment on the verdict. "
            "For that **a reduced copy of the picture, the verdict and your questions are sent to "
            "Google**. File name and metadata are not."
            + (
                " What was sent before stays with Google."
                if was_sent()
                else " Nothing has been sent so far."
            )
        )
        st.checkbox(
            "I agree that images I ask about are sent to Google in this session",
            key=_CONSENT_KEY + "_box",
            on_change=_agree,
        )
        return
    _show_conversation(key, digest=digest, pixels=pixels, finding=finding)


def was_sent() -> bool:
    """Whether a picture of this session went to Gemini."""
    return bool(st.session_state.get(_SENT_KEY))


def forget_conversations() -> None:
    """Forget the conversations about the images."""
    st.session_state.pop(_CONVERSATIONS_KEY, None)


def _show_conversation(key: str, *, digest: str, pixels: np.ndarray, finding: str) -> None:
    conversations: dict[str, dict[str, Any]] = st.session_state.setdefault(_CONVERSATIONS_KEY, {})
    conversation = conversations.get(digest)
    if conversation and conversation["finding"] != finding:
        # The conversation was about a verdict that has changed since.
        del conversations[digest]
        conversation = None
    for role, text in conversation["messages"] if conversation else []:
        with st.chat_message(role):
            # A picture could make Gemini write Markdown that loads other pictures, so this is text.
            st.text(text)
    if conversation is None:
        if st.button("Ask Gemini about this image", icon=":material/auto_awesome:"):
            _begin(conversations, key, digest=digest, pixels=pixels, finding=finding)
    else:
        question = st.chat_input("Ask about this image", max_chars=LONGEST_QUESTION)
        if question:
            with st.chat_message("user"):
                st.text(question)
            _answer(conversation, conversation["chat"].ask(question), question)
    st.caption("Gemini can be wrong. It gives an opinion; the verdict stays the model's.")
    st.button("Withdraw my consent", on_click=_withdraw, type="tertiary")


def _begin(
    conversations: dict[str, dict[str, Any]],
    key: str,
    *,
    digest: str,
    pixels: np.ndarray,
    finding: str,
) -> None:
    try:
        chat = InsightChat(api_key=key, model=os.environ.get(MODEL_NAME) or DEFAULT_MODEL)
    except InsightError as error:
        st.error(str(error), icon=":material/error:")
        return
    conversation = {"chat": chat, "messages": [], "finding": finding}
    st.session_state[_SENT_KEY] = True
    if _answer(conversation, chat.describe(pixels, finding=finding), question=None):
        conversations[digest] = conversation
        st.rerun(scope="app")


def _answer(conversation: dict[str, Any], pieces: Iterable[str], question: str | None) -> bool:
    """Show an answer as it comes and remember it; whether it came whole."""
    with st.chat_message("assistant"):
        place = st.empty()
        place.caption("Gemini is looking …")
        text = ""
        try:
            for piece in pieces:
                text += piece
                place.text(text)
        except InsightError as error:
            if not text:
                place.empty()
            st.error(str(error), icon=":material/error:")
            return False
    if question is not None:
        conversation["messages"].append(("user", question))
    conversation["messages"].append(("assistant", text))
    return True


def _secrets() -> dict[str, Any]:
    try:
        return dict(st.secrets)
    except (FileNotFoundError, StreamlitSecretNotFoundError):
        return {}


def _agree() -> None:
    # A widget that is not drawn forgets its value, so the session keeps it.
    st.session_state[_CONSENT_KEY] = True


def _withdraw() -> None:
    st.session_state[_CONSENT_KEY] = False
    forget_conversations()
