"""Lift deadlines for all tests, and load the released model in Keras once."""

from __future__ import annotations

from pathlib import Path

import hypothesis
import pytest

RELEASED = Path(__file__).resolve().parent.parent / "models" / "released" / "model.h5"
# No test depends on how fast the machine is.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


@pytest.fixture(scope="session")
def released_in_keras():
    """The network; called and not asked to predict, it is not traced."""
    import keras

    return keras.models.load_model(RELEASED, compile=False)


@pytest.fixture(scope="session")
def released_keras_detector():
    """The detector with Keras' engine; batches of 32 are traced once."""
    from real_vs_ai import Detector

    return Detector.open(RELEASED, engine="keras")


@pytest.fixture
def blank_figures(monkeypatch):
    """Figures become empty files: drawing those of one report takes six seconds."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda _, file, **__: file.touch())
