"""The CPU kernels are chosen before TensorFlow, and the user's own choice stands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SWITCH = "TF_ENABLE_ONEDNN_OPTS"


def switch_after(module: str, **environment: str) -> str:
    """What the switch is in a new process that imports a module."""
    clean = {name: value for name, value in os.environ.items() if name != SWITCH}
    code = f"import os, {module}; print(os.environ.get('{SWITCH}'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize("module", ["real_vs_ai", "real_vs_ai.model_file", "ModelTraining", "App"])
def test_onednn_is_asked_for_before_tensorflow_can_be_imported(module):
    assert switch_after(module) == "1"


def test_users_own_choice_of_kernels_is_respected():
    assert switch_after("real_vs_ai", TF_ENABLE_ONEDNN_OPTS="0") == "0"
