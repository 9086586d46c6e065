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


def test_the_models_page_tells_people_what_is_found_passed_and_accused(models):
    app = start_models_page(models)
    numbers = {one.label: one.value for one in app.metric}
    assert numbers == {
        "Of 100 AI pictures it finds": "about 40",
        "Of 100 AI pictures it lets pass": "about 5",
        "Of 100 photographs it accuses": "about 2",
    }
    conditions, kinds = (table.value for table in app.table)
    assert len(conditions) == 2 and "about 30" in conditions.to_string()
    assert "Krea" in kinds.to_string()


def test_figures_and_card_are_folded_for_experts(models):
    app = start_models_page(models)
    (experts,) = app.expander
    assert "experts" in experts.label and "### Card" in experts.markdown[-1].value
    texts = shown_texts(app)
    assert "](http" in texts and "![x]" not in texts
    assert "figure cannot be read" in app.warning[0].value


def test_model_without_a_record_says_so(copied_models):
    (copied_models / "colour" / "metrics.json").write_text('{"test": {"n": 100}}')
    app = start_models_page(copied_models)
    app.selectbox(key="shown_run").set_value("colour").run()
    assert not app.exception and not app.metric
    assert "is not recorded" in app.info[0].value


def test_the_models_page_without_models_says_how_to_get_one(tmp_path):
    app = start_models_page(tmp_path)
    assert "python RunPipeline.py --demo" in [code.value for code in app.code]


def test_default_model_that_is_gone_is_told_in_one_sentence(copied_models):
    (copied_models / "default.txt").write_text("gone\n")
    app = start_models_page(copied_models)
    (told,) = app.text
    assert "Expected the default model" in told.value and not app.selectbox
