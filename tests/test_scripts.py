"""Every script answers --help at once, and says by its exit code how it went."""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.preparation.material import make_flat, make_train_test

ROOT = Path(__file__).resolve().parent.parent
DATA_SCRIPTS = (
    "DataUnZipper",
    "DataZipper",
    "DataSplitD1",
    "DataSplitD2",
    "DataMerger",
    "DataAugmentation",
    "MoveAugmentedImages",
    "DataDeleter",
)
# Every script must answer without loading TensorFlow until a tensor is needed.
SCRIPTS = (
    *DATA_SCRIPTS,
    "DataCollector",
    "ModelTraining",
    "ModelEvaluation",
    "ImageScoring",
    "RunPipeline",
    "ApiServer",
    "App",
)
FORBIDDEN_AT_HELP = ("tensorflow", "keras", "torch", "streamlit", "openvino")


def run_script(name, *arguments, folder, stdin=""):
    """(exit code, standard output, standard error) of a script started in `folder`."""
    result = subprocess.run(
        [sys.executable, str(ROOT / f"{name}.py"), *map(str, arguments)],
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"},
    )
    return result.returncode, result.stdout, result.stderr


@pytest.mark.parametrize("name", SCRIPTS)
def test_help_shows_usage_an_example_and_defaults_without_heavy_imports(name, tmp_path):
    probe = (
        "import runpy, sys\n"
        f"sys.argv = ['{name}.py', '--help']\n"
        "try:\n"
        f"    runpy.run_path(r'{ROOT / name}.py', run_name='__main__')\n"
        "except SystemExit as end:\n"
        f"    loaded = [m for m in {FORBIDDEN_AT_HELP} if m in sys.modules]\n"
        "    print('LOADED', loaded, 'CODE', end.code)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"}
    result = subprocess.run(
        [sys.executable, "-c", probe],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
        env=environment,
    )
    assert "LOADED [] CODE 0" in result.stdout
    assert f"python {name}.py" in result.stdout
    assert "usage:" in result.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_a_docstring_parse_args_and_main(name):
    module = importlib.import_module(name)
    assert module.__doc__
    with pytest.raises(SystemExit) as usage_error:
        module.parse_args(["--no-such-option"])
    assert usage_error.value.code == 2


@pytest.mark.parametrize("name", DATA_SCRIPTS)
def test_data_script_without_input_exits_1_and_says_why(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert importlib.import_module(name).main([]) == 1
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("error: Expected")
    assert "found" in errors[0]


def test_the_data_scripts_run_in_order_without_arguments(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_flat(tmp_path / "flat", count=12)
    make_train_test(tmp_path / "nested", train=15, test=4)
    (tmp_path / "data" / "archives").mkdir(parents=True)
    for name in ("flat", "nested"):
        archive = tmp_path / "data" / "archives" / f"{name}.zip"
        assert importlib.import_module("DataZipper").main([name, "--output", str(archive)]) == 0
    for name in DATA_SCRIPTS:
        monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
        code = importlib.import_module(name).main([])
        output, errors = capsys.readouterr()
        if name == "DataZipper":
            # It comes second in the list and packs merged data, which is not there yet.
            assert code == 1
            continue
        assert code == 0, errors
        assert output.strip()
    data = tmp_path / "data"
    assert {path.name for path in data.iterdir() if not path.name.startswith(".")} >= {
        "archives",
        "train",
        "validation",
        "test",
        "manifest.csv",
    }
    assert not (data / "raw").exists()
    n_train = sum(1 for path in (data / "train").rglob("*.jpg"))
    n_augmented = sum(1 for path in (data / "train").rglob("*__augmented*.jpg"))
    assert n_augmented * 2 == n_train
    assert importlib.import_module("DataZipper").main([]) == 0
    assert (data / "prepared.zip").is_file()


def test_the_deleter_deletes_nothing_unless_the_answer_is_yes(tmp_path):
    make_flat(tmp_path / "data" / "raw" / "set", count=2)
    for answer in ("", "n\n", "\n", "maybe\n"):
        code, output, _ = run_script("DataDeleter", folder=tmp_path, stdin=answer)
        assert code == 1
        assert "4" in output
        assert (tmp_path / "data" / "raw" / "set").is_dir()
    assert run_script("DataDeleter", "--yes", folder=tmp_path)[0] == 0
    assert not (tmp_path / "data" / "raw").exists()
