"""Mount the page's own script: paste anywhere, and tell screen readers the answer.

It is a component of Streamlit's; what it does in the browser stands in `page.js`.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import streamlit as st

from real_vs_ai.ui.image_input import PASTED_NAME
from real_vs_ai.ui.language import tell, visitor_language

_ANNOUNCED_KEY = "announced"


def announce(answer: str) -> None:
    """What a screen reader says once the page is drawn; the focus goes to the first answer.

    Args:
        answer: A sentence, or "" where there is no answer. One that was said is not said again.
    """
    st.session_state[_ANNOUNCED_KEY] = answer


def show_style() -> None:
    """What the page looks like beyond Streamlit's own theme."""
    st.html(Path(__file__).with_name("page.css"))


def run_page_script() -> None:
    """Mount the script, and say why nothing happens where an address was pasted."""
    data = {
        "language": visitor_language(),
        "answer": st.session_state.get(_ANNOUNCED_KEY, ""),
        "pasted": PASTED_NAME,
        "drop": tell("input.drop"),
        "choose": tell("input.choose"),
    }
    with st.container(key="page_script"):
        result = _component()(key="page_script_component", data=data, on_address_change=_ignore)
    if result.get("address"):
        st.toast(tell("input.address"), icon=":material/link_off:", duration="long")


def _ignore() -> None:
    """A pasted address only draws the page again."""


@functools.cache
def _component() -> Any:
    script = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
    return st.components.v2.component("real_vs_ai_page", js=script)
