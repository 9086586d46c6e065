"""Training chooses kernels and precision, and uses several devices."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import options_for, read_history

from real_vs_ai.models.runs import RunFolder
from real_vs_ai.training import devices
from real_vs_ai.training.devices import Hosts, choose_precision, is_out_of_memory
from tests.script_processes import ScriptProcess


def arguments_for(data, models, name):
    steady = "--noise 0 --dropout 0 --set batch_norm=frozen --augmentation none"
    return options_for(data, models, "--run-name", name, *steady.split())


def losses(run):
    return [float(row[name]) for row in read_history(run) for name in ("loss", "val_loss")]


def test_half_precision_is_chosen_only_where_it_gains_clearly():
    assert choose_precision({"float32": 10.0, "mixed_bfloat16": 10.5}) == "float32"
    assert choose_precision({"float32": 10.0, "mixed_bfloat16": 15.0}) == "mixed_bfloat16"
    rates = {"float32": 10.0, "mixed_bfloat16": 30.0, "mixed_float16": 30.0}
    assert choose_precision(rates) == "mixed_bfloat16"
    assert choose_precision({**rates, "mixed_float16": 40.0}) == "mixed_float16"


def test_precision_that_the_kernels_do_not_know_is_passed_over(monkeypatch):
    def measure(name, **options):
        if name == "mixed_bfloat16":
            raise RuntimeError("could not create a primitive descriptor")
        return 1e9

    monkeypatch.setattr(devices, "measure_learning", measure)
    options = {"deterministic": False, "image_size": 32, "batch_size": 8, "hosts": Hosts(0, 1)}
    assert devices.prepare_device(precision="auto", **options).precision == "float32"


def test_given_precision_is_not_measured(monkeypatch):
    monkeypatch.setattr(devices, "measure_learning", None)
    options = {"deterministic": False, "image_size": 32, "batch_size": 8, "hosts": Hosts(0, 1)}
    device = devices.prepare_device(precision="float32", **options)
    assert (device.precision, device.gain) == ("float32", 1.0)


def test_out_of_memory_is_told_from_other_errors():
    class ResourceExhaustedError(Exception):
        pass

    assert is_out_of_memory(ResourceExhaustedError("OOM"))
    assert is_out_of_memory(RuntimeError("RESOURCE_EXHAUSTED: Out of memory"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(ValueError("shape"))


@pytest.mark.slow
def test_two_devices_of_one_host_learn_as_one_does(data, tmp_path):
    for name, count in (("one", "0"), ("two", "2")):
        arguments = arguments_for(data, tmp_path, name)
        process = ScriptProcess("small_runs", *arguments, folder=tmp_path, LOGICAL_CPUS=count)
        status, output = process.wait()
        assert status == 0, output
        assert ("2 logical CPUs" in output) == (count == "2")
    one, two = (losses(RunFolder(tmp_path / name)) for name in ("one", "two"))
    assert two == pytest.approx(one, rel=1e-3)


def switch_after(module: str, **environment: str) -> str:
    """Whether TensorFlow is to use oneDNN's kernels, in a new process that imports a module."""
    clean = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    code = f"import os, {module}; print(os.environ.get('TF_ENABLE_ONEDNN_OPTS'))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, **environment},
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    "module", ["real_vs_ai", "real_vs_ai.models.model_file", "ModelTraining", "App"]
)
def test_onednn_is_asked_for_before_tensorflow_can_be_imported(module):
    assert switch_after(module) == "1"


def test_users_own_choice_of_kernels_is_respected():
    assert switch_after("real_vs_ai", TF_ENABLE_ONEDNN_OPTS="0") == "0"
