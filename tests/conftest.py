"""Lift deadlines for all tests, end what they started, and load the released model once."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import hypothesis
import pytest

from tests.script_processes import end_scripts

RELEASED = Path(__file__).resolve().parent.parent / "models" / "released" / "model.h5"
# They assert, and are no tests themselves.
pytest.register_assert_rewrite("tests.promise_checks")
# No test depends on how fast the machine is.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")


def pytest_configure():
    # Without a handler, nothing below would run and joblib's workers would wait for minutes.
    signal.signal(signal.SIGTERM, lambda *_: pytest.exit("terminated", returncode=143))


def pytest_sessionfinish():
    """Leave no process behind, however the session ends."""
    end_scripts()
    # The executor that joblib keeps; asking joblib for it would start one.
    pools = sys.modules.get("joblib.externals.loky.reusable_executor")
    if pools is not None and pools._executor is not None:
        pools._executor.shutdown(wait=True, kill_workers=True)
    if (ray := sys.modules.get("ray")) and ray.is_initialized():
        ray.shutdown()


@pytest.fixture(scope="session")
def released_in_keras():
    """The network; called and not asked to predict, it is not traced."""
    import keras

    return keras.models.load_model(RELEASED, compile=False)


@pytest.fixture
def blank_figures(monkeypatch):
    """Figures become empty files: drawing those of one report takes six seconds."""
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", lambda _, file, **__: file.touch())
