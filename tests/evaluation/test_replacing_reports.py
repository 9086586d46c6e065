"""A report, its thresholds and its model file change together, with --overwrite, and only once."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

import ModelEvaluation
from real_vs_ai.models.model_file import read_metadata, write_metadata
from real_vs_ai.models.runs import find_model
from real_vs_ai.verdicts.predictions import read_predictions
from tests.evaluation.evaluation_material import colour_model, make_run, write_images

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with data/ and a run that has its report, in which scripts are started."""
    for split in ("train", "validation", "test"):
        write_images(tmp_path / "data" / split, n=10)
    make_run(tmp_path / "models" / "run", colour_model())
    (tmp_path / "models" / "run" / "config.json").write_text('{"options": {"data": "data"}}')
    monkeypatch.chdir(tmp_path)
    assert evaluate("--model", "models/run") == 0
    return tmp_path


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def evaluate(*arguments):
    return ModelEvaluation.main(["--workers", "1", *map(str, arguments)])


def state_of(run):
    """Every file that an evaluation may change, and what the model file says of itself."""
    files = (path for path in run.rglob("*") if path.is_file() and path.name[0] != ".")
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in files}


def test_other_thresholds_replace_report_and_model_file_with_overwrite_only(project, capsys):
    run = project / "models" / "run"
    before = state_of(run)
    for more in ((), ("--robustness",)):
        assert evaluate("--model", "models/run", "--target-error", "0.2", *more) == 1
        error = capsys.readouterr().err
        assert "--overwrite" in error and len(error.strip().splitlines()) == 1
        assert state_of(run) == before
    assert evaluate("--model", "models/run", "--target-error", "0.2", "--overwrite") == 0
    assert metrics_of(run)["thresholds"]["target_error"] == 0.2
    assert state_of(run)["model.h5"] != before["model.h5"]


def test_report_of_a_model_that_was_exchanged_is_not_taken_for_its_own(project, capsys):
    file = project / "models" / "run" / "model.h5"
    write_metadata(file, replace(read_metadata(file), temperature=9.0))
    assert evaluate("--model", "models/run") == 1
    assert "--overwrite" in capsys.readouterr().err


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from matplotlib.figure import Figure
Figure.savefig = lambda _, file, **__: file.touch()
import ModelEvaluation
from real_vs_ai.core import transactions
left, move = int(sys.argv[2]), transactions._move
def move_some(*paths):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    move(*paths)
transactions._move = move_some
words = "--model models/run --workers 1 --target-error 0.2 --overwrite"
ModelEvaluation.main(words.split())
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no signal kills a process here")
def test_evaluation_killed_while_it_replaces_a_report_leaves_the_whole_new_one(project):
    run = project / "models" / "run"
    before = state_of(run)
    command = [sys.executable, "-c", KILLED, str(ROOT), "3"]
    ended = subprocess.run(command, cwd=project, capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL
    # The next reader of the model finds all of it.
    assert find_model("models/run") == Path("models/run/model.h5")
    metrics, metadata = metrics_of(run), read_metadata(run / "model.h5")
    assert metrics["thresholds"]["target_error"] == 0.2
    assert metadata.metrics["uncertain_share"] == metrics["test"]["uncertain_share"]
    assert read_predictions(run / "predictions.csv").verdicts.tolist().count("Uncertain") == sum(
        round(part["n"] * part["uncertain_share"]["value"])
        for part in (metrics["test"], metrics["validation"])
    )
    changed = state_of(run)
    assert all(changed[name] != before[name] for name in ("model.h5", "metrics.json"))
    assert not [path for path in run.iterdir() if path.name.startswith(".replacing")]


def test_evaluation_killed_before_it_decides_leaves_the_old_report(project, monkeypatch):
    run = project / "models" / "run"
    before = state_of(run)

    class Killed(BaseException):
        pass

    def die(*_, **__):
        raise Killed

    monkeypatch.setattr("real_vs_ai.evaluation.report_files.write_metadata", die)
    with pytest.raises(Killed):
        evaluate("--model", "models/run", "--target-error", "0.2", "--overwrite")
    assert state_of(run) == before


def test_second_evaluation_of_a_run_at_the_same_time_stops_with_one_line(project, capsys):
    before = state_of(project / "models" / "run")
    capsys.readouterr()
    with FileLock(project / "models" / "run" / ".evaluation.lock"):
        assert evaluate("--model", "models/run", "--overwrite") == 1
    error = capsys.readouterr().err
    assert "Another process is writing the report in models/run" in error
    assert len(error.strip().splitlines()) == 1
    assert state_of(project / "models" / "run") == before
    assert evaluate("--model", "models/run", "--overwrite") == 0
    assert not (project / "models" / "run" / ".evaluation.lock").exists()
