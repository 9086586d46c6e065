"""Every script answers wrong options and wrong paths in one helpful line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import App
import ImageScoring
from real_vs_ai.ui import launch

REPOSITORY = Path(__file__).resolve().parents[1]


def test_misspelled_option_is_answered_with_the_right_one(capsys):
    with pytest.raises(SystemExit) as stop:
        ImageScoring.parse_args(["photos", "--ouput", "scores.csv"])
    assert stop.value.code == 2
    assert "Did you mean --output?" in capsys.readouterr().err


def test_wrong_model_path_lists_the_known_models(tmp_path, monkeypatch, capsys):
    run = tmp_path / "models" / "first"
    run.mkdir(parents=True)
    (run / "model.h5").touch()
    (run / "metrics.json").touch()
    (tmp_path / "a.png").touch()
    monkeypatch.chdir(tmp_path)
    assert ImageScoring.main(["a.png", "--model", "models/frist"]) == 1
    assert "There are: models/first" in capsys.readouterr().err


def test_app_with_a_wrong_model_stops_before_it_serves(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("streamlit.web.cli.main", lambda *args, **kwargs: pytest.fail("served"))
    assert App.main(["--model", "nowhere"]) == 1
    assert "found nothing" in capsys.readouterr().err
    (tmp_path / "damaged.h5").write_bytes(b"no model")
    assert App.main(["--model", "damaged.h5"]) == 1
    assert launch.is_served() is False


@pytest.mark.parametrize("option", ["--model", "--data", "--compare", "--out-of-distribution"])
def test_evaluation_refuses_wrong_paths_before_importing_tensorflow(option, tmp_path):
    code = (
        "import sys, ModelEvaluation\n"
        "code = ModelEvaluation.main(sys.argv[1:])\n"
        "assert code == 1 and not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    (tmp_path / "data" / "test" / "Fake").mkdir(parents=True)
    done = subprocess.run(
        [sys.executable, "-c", code, option, "nowhere"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    # A slow machine is told every few seconds that the script is at work.
    lines = [line for line in done.stderr.splitlines() if ": at work for" not in line]
    assert len(lines) == 1 and "nowhere" in lines[0]
