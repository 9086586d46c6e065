"""Two processes on this machine train one model, as two hosts would."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from test_devices import arguments_for, losses

from real_vs_ai.models.runs import RunFolder
from real_vs_ai.training.devices import Hosts, join_hosts

HERE = Path(__file__).parent
pytestmark = pytest.mark.slow


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def start_two():
    """Starts two processes of one run; none of them outlives the test."""
    started = []

    def start(arguments, *, folder):
        processes = two_processes(arguments, folder=folder)
        started.extend(processes)
        return processes

    yield start
    for process in started:
        process.kill()
        process.wait()


def start_on_jax(arguments, *, output, **environment):
    """ModelTraining.py on the tiny network; what it prints is added to `output`."""
    root = HERE.parent.parent
    path = os.pathsep.join([str(root), str(HERE)])
    with output.open("a") as out:
        return subprocess.Popen(
            [sys.executable, str(HERE / "small_runs.py"), *arguments],
            env={**os.environ, "PYTHONPATH": path, "KERAS_BACKEND": "jax", **environment},
            cwd=root,
            stdout=out,
            stderr=subprocess.STDOUT,
        )


def two_processes(arguments, *, folder):
    """Two processes of one run; their output goes to `folder`."""
    hosts = {
        "KERAS_DISTRIBUTION_JOB_ADDRESSES": f"127.0.0.1:{free_port()}",
        "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
    }
    return [
        start_on_jax(
            arguments,
            output=folder / f"out{index}.txt",
            **hosts,
            KERAS_DISTRIBUTION_PROCESS_ID=str(index),
        )
        for index in range(2)
    ]


def finish(processes, *, folder):
    codes = [process.wait(timeout=900) for process in processes]
    return codes, [(folder / f"out{index}.txt").read_text() for index in range(2)]


@pytest.mark.optional
def test_two_processes_learn_as_one_and_one_of_them_writes(data, tmp_path, start_two):
    pytest.importorskip("jax")
    # With noise, dropout and augmentation: they too are those of the whole batch.
    extra = ("--noise", "0.1", "--dropout", "0.4", "--augmentation", "standard")
    said = tmp_path / "one.txt"
    one = start_on_jax([*arguments_for(data, tmp_path, "one"), *extra], output=said)
    assert one.wait(timeout=900) == 0, said.read_text()
    processes = start_two([*arguments_for(data, tmp_path, "two"), *extra], folder=tmp_path)
    codes, texts = finish(processes, folder=tmp_path)
    assert codes == [0, 0], texts
    runs = [RunFolder(tmp_path / name) for name in ("one", "two")]
    assert losses(runs[1]) == pytest.approx(losses(runs[0]), rel=1e-4)
    assert "in 2 processes" in texts[0]
    assert "the first one writes the report" in texts[1]
    models = [keras.models.load_model(run.model) for run in runs]
    for a, b in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)
    assert "accuracy" in json.loads((tmp_path / "two" / "metrics.json").read_text())["test"]


@pytest.mark.optional
def test_lost_process_ends_the_other_and_the_run_resumes(data, tmp_path, start_two):
    pytest.importorskip("jax")
    more = ("--epochs", "2000", "--set", "early_stopping=2000", "checkpoint_steps=2")
    arguments = [*arguments_for(data, tmp_path, "run"), *more]
    processes = start_two(arguments, folder=tmp_path)
    checkpoint = tmp_path / "run" / "checkpoints" / "state.npz"
    deadline = time.monotonic() + 900
    while not checkpoint.exists() and time.monotonic() < deadline:
        assert processes[1].poll() is None, (tmp_path / "out1.txt").read_text()
        time.sleep(0.2)
    processes[1].kill()
    codes, texts = finish(processes, folder=tmp_path)
    assert codes[0] == 1
    assert "Another of the 2 processes has ended" in texts[0]
    resume = ["--resume", str(tmp_path / "run"), "--epochs", "1"]
    codes, texts = finish(start_two(resume, folder=tmp_path), folder=tmp_path)
    assert codes == [0, 0], texts
    assert (tmp_path / "run" / "metrics.json").is_file()


def test_several_processes_on_another_backend_are_refused(monkeypatch):
    assert join_hosts() == Hosts(0, 1)
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    with pytest.raises(ValueError, match="KERAS_BACKEND=jax"):
        join_hosts()
