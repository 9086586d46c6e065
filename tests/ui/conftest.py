"""Serve two models to the app's tests, in surroundings without secrets."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from app_site import GREY, image_bytes, make_colour_model


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """A folder with two trained models: `colour`, the newest, and `three`, of three classes."""
    folder = tmp_path_factory.mktemp("app") / "models"
    make_colour_model(folder / "three", class_names=("malignant", "benign", "normal"))
    make_colour_model(folder / "colour", calibrated=True, lower_threshold=0.3, upper_threshold=0.7)
    (folder / "colour" / "MODEL_CARD.md").write_text("# Card\n![x](http://tracker.example/x.png)")
    (folder / "colour" / "figures").mkdir()
    (folder / "colour" / "figures" / "roc.png").write_bytes(image_bytes(GREY))
    (folder / "colour" / "figures" / "broken.png").write_bytes(b"no image")
    return folder


@pytest.fixture
def surroundings(tmp_path, monkeypatch):
    """An empty folder to start in, no key, no released model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["App.py"])
    monkeypatch.setattr("real_vs_ai.models.runs.PACKAGED_RELEASED_MODEL_DIR", tmp_path / "none")
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def copied_models(models, tmp_path) -> Path:
    """A copy of the models in this test's `models/`, to be damaged."""
    return Path(shutil.copytree(models, tmp_path / "models"))
