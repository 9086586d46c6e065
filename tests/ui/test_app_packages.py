"""The app and ImageScoring.py start lightly, with the packages of requirements-app.txt alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from app_driver import start
from app_site import APP, GREY, image_bytes
from starlette.formparsers import MultiPartParser

from real_vs_ai.ui.image_input import MAX_BYTES

REPOSITORY = Path(__file__).resolve().parents[2]
# What only training, evaluation and data preparation import.
ABSENT = (
    "tensorflow",
    "keras",
    "jax",
    "torch",
    "matplotlib",
    "sklearn",
    "skimage",
    "scipy",
    "cv2",
    "joblib",
    "imagehash",
    "pydot",
)
_BLOCKER = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: (
    None if name.partition(".")[0] in {ABSENT!r} else find_spec(name, package)
)
"""
_SCORING = """
import ImageScoring
sys.exit(ImageScoring.main(sys.argv[1:]))
"""
_PAGE = """
from app_driver import start, upload, verdicts
from app_site import RED, image_bytes
models = sys.argv[1]
app = start("--models-dir", models, "--model", f"{models}/colour")
print(verdicts(upload(app, {"red.png": image_bytes(RED)}))[0])
"""
_HEAT_MAP = """
import numpy as np
from real_vs_ai import Detector
from real_vs_ai.serving.explanation import heat_map
pixels = np.full((48, 40, 3), 90, np.uint8)
print(heat_map(Detector.open(sys.argv[1]), pixels, class_index=0).shape)
"""


def run(code: str, *arguments: object, folder: Path) -> subprocess.CompletedProcess:
    """Run code where the packages are absent."""
    search_path = os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests" / "ui")])
    return subprocess.run(
        [sys.executable, "-c", _BLOCKER + code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": search_path},
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def photograph(tmp_path) -> Path:
    (tmp_path / "photograph.png").write_bytes(image_bytes(GREY))
    return tmp_path / "photograph.png"


def test_image_is_scored(models, photograph):
    done = run(_SCORING, photograph, "--model", models / "colour", folder=photograph.parent)
    assert done.returncode == 0, done.stderr
    assert "scored with openvino" in done.stderr


def test_page_gives_a_verdict(models, tmp_path):
    done = run(_PAGE, models, folder=tmp_path)
    assert "AI-generated" in done.stdout, done.stderr


def test_heat_map_is_drawn(models, tmp_path):
    done = run(_HEAT_MAP, models / "colour" / "model.h5", folder=tmp_path)
    assert done.stdout == "(48, 40)\n", done.stderr


def test_keras_is_asked_for_with_the_command_that_installs_it(models, photograph):
    options = ("--model", models / "colour", "--engine", "keras")
    done = run(_SCORING, photograph, *options, folder=photograph.parent)
    assert done.returncode == 1
    assert "pip install -r requirements.txt" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "script", ["ModelTraining", "ModelEvaluation", "RunPipeline", "DataMerger", "DataAugmentation"]
)
def test_other_scripts_name_the_command_that_installs_the_rest(script, tmp_path):
    code = f"import {script}\nsys.exit({script}.main([]))"
    done = run(code, folder=tmp_path)
    assert done.returncode == 1
    assert "pip install -r requirements.txt" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_requirements_of_the_app_leave_out_what_training_needs():
    app = (REPOSITORY / "requirements-app.txt").read_text()
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    training = "\n".join(extras["optional-dependencies"]["training"])
    everything = (REPOSITORY / "requirements.txt").read_text().splitlines()
    assert everything[-2:] == ["-r requirements-app.txt", "-e .[training]"]
    names = set(re.findall(r"^([\w-]+)==", app, re.MULTILINE))
    assert not names & {"tensorflow", "keras", "matplotlib", "scikit-learn", "scipy", "jax"}
    assert not names & set(re.findall(r"^([\w-]+)==", training, re.MULTILINE))


@pytest.mark.usefixtures("surroundings")
def test_large_uploads_stay_in_memory(models):
    start("--models-dir", models)
    assert MultiPartParser.spool_max_size > MAX_BYTES


def test_server_protects_uploads_and_reports_nothing_home():
    settings = tomllib.loads((APP.parent / ".streamlit" / "config.toml").read_text())
    server = settings["server"]
    assert server["enableXsrfProtection"] and server["enableCORS"]
    assert server["address"] == "localhost" and server["maxUploadSize"] * 2**20 == MAX_BYTES
    assert settings["browser"]["gatherUsageStats"] is False
