"""A user's mistake is one line; a bug keeps its traceback."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest

import real_vs_ai.dataset
import real_vs_ai.preparation
from real_vs_ai.core.cli import command
from real_vs_ai.core.errors import InputError, RealVsAIError, describe_error, one_line, print_error


@pytest.mark.parametrize(
    "error",
    [InputError("Expected a\nfolder."), PermissionError(13, "denied", "data"), MemoryError()],
)
def test_expected_error_is_one_line_and_exit_code_1(error, capsys):
    @command
    def main(argv):
        raise error

    assert main([]) == 1
    written = capsys.readouterr().err
    assert written.startswith("error: ")
    assert written.count("\n") == 1


def test_a_terminal_shows_an_error_in_80_columns_with_its_paths_whole(monkeypatch, capsys):
    path = "folder-with-a-name/" * 6
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    print_error(f"Expected an image, folder or zip, and found nothing at all at this path: {path}")
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if len(line) > 80] == [f"  {path}"]
    assert lines[0].startswith("error: Expected") and len(lines) > 1


def test_numpy_value_error_keeps_its_traceback():
    @command
    def main(argv):
        np.ones(3) + np.ones(4)

    with pytest.raises(ValueError, match="operands could not be broadcast"):
        main([])


def test_interrupted_script_exits_with_1(capsys):
    @command
    def main(argv):
        raise KeyboardInterrupt

    assert main([]) == 1
    assert "Interrupted" in capsys.readouterr().err


def test_system_error_names_the_file():
    assert describe_error(FileNotFoundError(2, "No such file", "x.h5")) == "No such file: x.h5"


def test_error_without_text_gives_its_name():
    assert one_line(KeyError()) == "KeyError"


def test_long_error_text_is_cut():
    assert len(one_line(RuntimeError("a " * 500), longest=40)) <= 40


@pytest.mark.parametrize("package", [real_vs_ai.dataset, real_vs_ai.preparation])
def test_import_without_opencv_is_an_ordinary_import_error(package, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"package cv2, found .* pip install") as caught:
        importlib.reload(package)
    assert isinstance(caught.value, RealVsAIError)
