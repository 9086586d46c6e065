"""The Models page shows, compares and follows runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from app_driver import TIMEOUT_S, shown_texts
from streamlit.testing.v1 import AppTest

pytestmark = pytest.mark.usefixtures("surroundings")


def models_page(models_dir: str) -> None:
    """Runs inside AppTest, so that it imports for itself."""
    from pathlib import Path

    from real_vs_ai.ui.models_page import show_models_page

    show_models_page(models_dir=Path(models_dir))


def start_models_page(models_dir: Path) -> AppTest:
    app = AppTest.from_function(
        models_page, default_timeout=TIMEOUT_S, kwargs={"models_dir": str(models_dir)}
    ).run()
    assert not app.exception
    return app


def test_the_models_page_shows_metrics_with_intervals_figures_and_card(models):
    app = start_models_page(models)
    texts = shown_texts(app)
    assert "95% interval: 30.0% to 50.0%" in texts and app.metric[0].value == "40.0%"
    assert "### Card" in texts and "](http" in texts and "![x]" not in texts
    assert "figure cannot be read" in app.warning[0].value


def test_the_models_page_without_models_says_how_to_get_one(tmp_path):
    app = start_models_page(tmp_path)
    assert "python RunPipeline.py --demo" in [code.value for code in app.code]
