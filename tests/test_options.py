"""An option means the same in every script."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import pytest

from real_vs_ai.cli import number, whole_number

WITH_CLUSTER = (
    "DataUnZipper",
    "DataSplitD1",
    "DataSplitD2",
    "DataMerger",
    "DataAugmentation",
    "ImageScoring",
)
SCRIPTS = sorted(path.stem for path in Path(__file__).resolve().parents[1].glob("*.py"))
WITH_WORKERS = (*WITH_CLUSTER, "DataCollector", "ModelTraining", "ModelEvaluation")


def usage_error(script, *arguments, capsys):
    """The last line that a script prints about wrong usage."""
    module = importlib.import_module(script)
    parse = getattr(module, "parse_args", None) or module.main
    with pytest.raises(SystemExit) as end:
        parse(list(arguments))
    assert end.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("value", ["0", "-5", "1.5", "many"])
@pytest.mark.parametrize("script", WITH_WORKERS)
def test_workers_must_be_at_least_one(script, value, capsys):
    error = usage_error(script, f"--workers={value}", capsys=capsys)
    assert "expected a whole number of at least 1" in error


@pytest.mark.parametrize("value", ["nan", "-1", "inf", "much"])
def test_memory_must_be_a_finite_amount(value, capsys):
    error = usage_error("ModelTraining", f"--memory={value}", capsys=capsys)
    assert "expected a finite number from 0" in error


@pytest.mark.parametrize("script", WITH_CLUSTER)
def test_cluster_is_off_unless_asked_for(script):
    module = importlib.import_module(script)
    assert module.parse_args([]).cluster is None
    assert module.parse_args(["--cluster", "ray"]).cluster == "ray"


def test_engine_is_one_that_runs_the_network(capsys):
    module = importlib.import_module("ImageScoring")
    assert module.parse_args(["--engine", "keras"]).engine == "keras"
    error = usage_error("ImageScoring", "--engine", "abacus", capsys=capsys)
    assert "choose from" in error and "keras" in error


@pytest.mark.parametrize("text", ["0", "1", "nan", "inf", "x"])
def test_open_range_refuses_its_ends_and_what_is_no_number(text):
    with pytest.raises(argparse.ArgumentTypeError, match="above 0 and below 1"):
        number(0, 1, ends=False)(text)


def test_ranges_take_what_lies_in_them():
    assert number(0, 1)("1") == 1.0
    assert number(0, 1, ends=False)("0.5") == 0.5
    assert whole_number(3)("3") == 3


def options_of(script, monkeypatch):
    """The names of the options that a script's --help lists."""
    found = []

    def note(parser, *_, **__):
        found.extend(name for action in parser._actions for name in action.option_strings)
        raise SystemExit(0)

    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", note)
    module = importlib.import_module(script)
    with pytest.raises(SystemExit):
        (getattr(module, "parse_args", None) or module.main)([])
    return {name for name in found if name.startswith("--")} - {"--help"}


def test_scripts_have_at_most_111_options_and_training_21(monkeypatch):
    """What only recipes set is a field of a recipe; an option that is added replaces another."""
    options = {script: options_of(script, monkeypatch) for script in SCRIPTS}
    assert sum(map(len, options.values())) <= 111
    assert 10 <= len(options["ModelTraining"]) <= 21
