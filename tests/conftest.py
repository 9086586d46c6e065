"""The released model in Keras, once for all tests: it takes seconds to load, and more to trace."""

from __future__ import annotations

from pathlib import Path

import pytest

RELEASED = Path(__file__).resolve().parent.parent / "models" / "released" / "model.h5"


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
