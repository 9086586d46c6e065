"""A run that is killed at any moment resumes to the same end."""

import random
import signal
import sys
import time

import keras
import numpy as np
import pytest
from small_runs import options_for

from real_vs_ai.models.runs import RunFolder
from tests.script_processes import ScriptProcess

KILLS = 6

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL"),
]


def arguments_for(data, run):
    fields = "early_stopping=99 steps_per_epoch=40 warmup_steps=10 deterministic=true degrade=0.3"
    sets = [part for field in fields.split() for part in ("--set", field)]
    more = ("--run-name", run.name, "--epochs", "3", "--set", "checkpoint_steps=1")
    return options_for(data, run.parent, *more, *sets)


def start(*arguments, folder):
    return ScriptProcess("small_runs", *arguments, folder=folder)


def finish(*arguments, folder):
    status, said = start(*arguments, folder=folder).wait()
    assert status == 0, said


def wait_for_step(process, run, *, seconds=900):
    """Until a checkpoint is written that was not there before, or the process ends."""
    checkpoint = RunFolder(run).checkpoint

    def written():
        return checkpoint.stat().st_mtime_ns if checkpoint.is_file() else 0

    before, deadline = written(), time.monotonic() + seconds
    while written() == before and process.poll() is None:
        assert time.monotonic() < deadline, "no checkpoint came"
        time.sleep(0.02)


def arguments_to_go_on(data, run):
    """What a user types after a kill: --resume, or the first command when nothing had begun."""
    if RunFolder(run).config.is_file():
        return ("--resume", str(run))
    return arguments_for(data, run)


def history(run):
    """Rows of history.csv without the columns that tell the time."""
    lines = [line.split(",") for line in RunFolder(run).history.read_text().splitlines()]
    kept = [i for i, name in enumerate(lines[0]) if "second" not in name]
    return [[line[i] for i in kept] for line in lines]


def test_run_killed_at_random_instants_ends_as_an_undisturbed_one(data, tmp_path):
    whole, killed = tmp_path / "models" / "whole", tmp_path / "models" / "killed"
    finish(*arguments_for(data, whole), folder=tmp_path)
    generator = random.Random(7)
    for kill in range(KILLS):
        process = start(*arguments_to_go_on(data, killed), folder=tmp_path)
        if kill % 3:
            wait_for_step(process, killed)
            time.sleep(generator.uniform(0, 1))
        else:
            # While it decodes, makes its folder, or traces its first step.
            time.sleep(generator.uniform(0, 4))
        process.kill()
        process.wait()
        if RunFolder(killed).is_finished:
            break
    if not RunFolder(killed).is_finished:
        finish(*arguments_to_go_on(data, killed), folder=tmp_path)
    assert history(killed) == history(whole)
    models = [keras.models.load_model(run / "model.h5", compile=False) for run in (whole, killed)]
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(a, b)
    left = {path.name for path in killed.rglob("*") if path.is_file() and path.suffix != ".pdf"}
    assert {path.name for path in whole.rglob("*") if path.is_file()} <= left


def test_either_signal_saves_after_the_step_and_says_how_to_resume(data, tmp_path):
    run = tmp_path / "models" / "run"
    for number in (signal.SIGINT, signal.SIGTERM):
        process = start(*arguments_to_go_on(data, run), folder=tmp_path)
        wait_for_step(process, run)
        process.send_signal(number)
        status, said = process.wait()
        assert status not in (0, None)
        assert f"Resume with: python ModelTraining.py --resume {run}" in said
        assert "Traceback" not in said
        assert not RunFolder(run).is_finished
    finish("--resume", str(run), folder=tmp_path)
    assert len(history(run)) == 1 + 3


def test_folder_of_a_run_killed_before_it_began_is_reused(data, tmp_path):
    run = tmp_path / "models" / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / ".config.json.123.tmp").write_text("{")
    short = ("--epochs", "1", "--set", "steps_per_epoch=2")
    finish(*arguments_for(data, run), *short, folder=tmp_path)
    assert RunFolder(run).is_finished
