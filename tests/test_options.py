"""An option means the same in every script."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from real_vs_ai.core.cli import add_fields, make_parser, options_from
from real_vs_ai.core.errors import InputError
from real_vs_ai.core.options import OptionError, number, whole_number
from real_vs_ai.evaluation.options import EvaluationOptions
from real_vs_ai.preparation.collections.gathering import CollectOptions
from real_vs_ai.preparation.merging import MergeOptions
from real_vs_ai.preparation.splitting import SplitOptions, TrainTestOptions
from real_vs_ai.training.options import TrainingOptions

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
    with pytest.raises(OptionError, match="above 0 and below 1"):
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


OPTION_CLASSES = (TrainingOptions, EvaluationOptions, SplitOptions, TrainTestOptions, MergeOptions)


@pytest.mark.parametrize("options_type", (*OPTION_CLASSES, CollectOptions))
def test_options_of_python_are_those_of_the_command_line(options_type):
    """Without arguments both give the defaults, each field has a sentence, and values are final."""
    options = options_type()
    parser = make_parser("")
    add_fields(parser, options_type)
    assert options_from(parser.parse_args([]), options_type) == options
    for field in dataclasses.fields(options_type):
        assert field.metadata.get("help") or field.name in NO_OPTIONS
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.workers = 3


NO_OPTIONS = ("command", "confounds", "repositories_dir")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dropout": 2}, "dropout: expected a finite number from 0 to 0.95, found 2"),
        ({"epochs": 2.5}, "epochs: expected a whole number of at least 0, found 2.5"),
        ({"epochs": True}, "epochs: expected a whole number"),
        ({"deterministic": "maybe"}, "deterministic: expected true or false, found maybe"),
        ({"backbone": "vgg"}, "backbone: expected resnet50, .* found vgg"),
        ({"run_name": "../away"}, "run_name: expected the name of a folder"),
        ({"epochs": 0, "frozen_epochs": 0}, "nothing to learn"),
        ({"minutes": 3, "deterministic": True}, "leave one of them out"),
    ],
)
def test_wrong_value_given_in_python_is_refused_with_its_name(changes, message):
    with pytest.raises(InputError, match=message):
        TrainingOptions(**changes)


def test_values_are_normalised_wherever_they_come_from():
    options = TrainingOptions(data="photos", hold_out="a, b", precision="bf16", epochs="3")
    assert options.data == Path("photos")
    assert (options.hold_out, options.epochs) == (("a", "b"), 3)
    assert options.precision == "mixed_bfloat16"
    assert TrainingOptions(hold_out=["a", "b"]).hold_out == ("a", "b")
    shares = {"train": 0.8, "validation": 0.2}
    assert SplitOptions(fractions=shares).fractions == shares
    assert SplitOptions().fractions == {"train": 0.7, "validation": 0.15, "test": 0.15}


def test_package_offers_training_and_evaluation_and_changes_nothing_in_the_interpreter():
    code = (
        "import sys\n"
        "from real_vs_ai import EvaluationOptions, TrainingOptions, evaluate, train\n"
        "import real_vs_ai.training.command_line\n"
        "assert callable(train) and callable(evaluate)\n"
        "assert TrainingOptions().epochs == 20 and EvaluationOptions().model is None\n"
        "assert sys.excepthook is sys.__excepthook__\n"
        "assert not {'keras', 'tensorflow'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[1])
