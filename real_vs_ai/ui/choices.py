"""What a user chose on the page of images, kept while they look at another page.

    keep_choices()                                  # first thing on the page
    st.session_state.setdefault("key", default)     # in place of a widget's own default value

Streamlit forgets a widget's value when a page without that widget is drawn.
"""

from __future__ import annotations

import streamlit as st

_KEPT = "kept_choices"
# Keys of the widgets whose values are kept.
_CHOICES = frozenset({"image_source", "model", "test_all"})
_CHOICES_BEGIN = ("thresholds_", "examples_")


def keep_choices() -> None:
    """Note the values that widgets have, and give back those that were forgotten."""
    kept = st.session_state.setdefault(_KEPT, {})
    for key in map(str, list(st.session_state)):
        if key in _CHOICES or key.startswith(_CHOICES_BEGIN):
            kept[key] = st.session_state[key]
    for key, value in kept.items():
        if key not in st.session_state:
            st.session_state[key] = value


def forget_choice(key: str) -> None:
    """Let a widget begin anew with its default."""
    st.session_state.pop(key, None)
    st.session_state.get(_KEPT, {}).pop(key, None)
