"""The page on the models and their training."""

from __future__ import annotations

from pathlib import Path

import streamlit as st


def show_models_page(*, models_dir: Path) -> None:
    st.title("Models")
