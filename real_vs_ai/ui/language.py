"""Say the page's sentences in the language of the visitor's browser."""

from __future__ import annotations

from typing import Any

import streamlit as st

from real_vs_ai.core.messages import Message, choose_language, in_language


def visitor_language() -> str:
    """The first language of the browser that there is a table for, else English."""
    return choose_language(st.context.locale or st.context.headers.get("Accept-Language"))


def local(text: str) -> str:
    """A `Message` in the visitor's language; any other text as it is."""
    return in_language(text, visitor_language())


def tell(key: str, **fields: Any) -> str:
    """A sentence of the table in the visitor's language; see `Message`."""
    return local(Message(key, **fields))
