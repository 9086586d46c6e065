"""The model that answers is named by the user or released; no date and no export chooses it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import ImageScoring
from real_vs_ai.core.errors import InputError
from real_vs_ai.models import runs
from real_vs_ai.models.runs import (
    RunFolder,
    find_model,
    find_models,
    how_to_use,
    list_runs,
    make_default,
    newest_run,
)


def make_run(folder: Path, *, trained: int, reported: int | None = None) -> Path:
    folder.mkdir(parents=True)
    for name in ("config.json", "model.h5", "metrics.json"):
        (folder / name).write_text("{}")
    os.utime(folder / "config.json", (trained, trained))
    os.utime(folder / "metrics.json", (reported or trained,) * 2)
    return folder


@pytest.fixture
def models(tmp_path, monkeypatch) -> Path:
    """A released model with another inside, and two runs, of which the older has a new report."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "PACKAGED_RELEASED_MODEL_DIR", tmp_path / "none")
    folder = Path("models")
    make_run(folder / "released", trained=1)
    make_run(folder / "released" / "photographs", trained=1)
    make_run(folder / "old", trained=10, reported=1_000)
    make_run(folder / "demo", trained=100)
    return folder


def names(found: tuple[Path, ...]) -> list[str]:
    return [path.parent.as_posix() for path in found]


def test_released_models_answer_whatever_was_trained_or_evaluated_last(models):
    assert names(find_models(None)) == ["models/released", "models/released/photographs"]
    assert [run.name for run in list_runs()] == [
        *("released", "released/photographs", "demo", "old")
    ]


def test_evaluating_an_old_run_again_does_not_make_it_the_newest(models):
    assert newest_run().name == "demo"


def test_the_user_chooses_the_default_once_for_all_doors(models, capsys):
    assert ImageScoring.main(["--model", "models/demo", "--make-default"]) == 0
    assert "models/demo answers where no --model is named" in capsys.readouterr().out
    assert names(find_models(None)) == ["models/demo"]
    assert list_runs()[0].name == "demo"
    assert (models / "default.txt").read_text() == "demo\n"

    assert ImageScoring.main(["--model", "models/released/photographs", "--make-default"]) == 0
    assert names(find_models(None)) == ["models/released/photographs"]
    assert [run.name for run in list_runs()].count("released/photographs") == 1

    assert ImageScoring.main(["--model", "models/released", "--make-default"]) == 0
    assert len(find_models(None)) == 2
    assert not (models / "default.txt").exists()


@pytest.mark.parametrize("arguments", [["--make-default"], ["a.jpg", "--model", "m"]])
def test_the_choice_takes_a_run_and_no_images(models, arguments):
    with pytest.raises(SystemExit):
        ImageScoring.parse_args([*arguments, "--make-default"])


def test_only_a_run_of_the_models_folder_becomes_the_default(models, tmp_path):
    elsewhere = make_run(tmp_path / "elsewhere", trained=1)
    for path in (elsewhere, models / "demo" / "model.h5"):
        with pytest.raises(InputError, match="Expected a run folder in models"):
            make_default(path)
    with pytest.raises(FileNotFoundError):
        make_default(models / "none")


def test_a_default_that_was_deleted_is_named_with_what_to_do(models):
    make_default(models / "demo")
    (models / "demo" / "model.h5").unlink()
    with pytest.raises(FileNotFoundError, match=r"models/demo.*default\.txt.*--make-default"):
        find_model(None)


def test_an_export_is_no_further_model(models):
    make_run(models / "demo" / "exports", trained=1)
    assert names(find_models(models / "demo")) == ["models/demo"]
    make_default(models / "demo")
    assert names(find_models(None)) == ["models/demo"]


def test_without_any_released_model_the_error_names_the_others(models, monkeypatch):
    for path in (models / "released" / "model.h5", models / "released/photographs/model.h5"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"--make-default.*models/demo"):
        find_model(None)


def test_a_new_run_is_announced_with_the_commands_that_use_it(models):
    text = how_to_use(RunFolder(models / "demo"))
    assert "ImageScoring.py PICTURE --model models/demo" in text
    assert "App.py --model models/demo" in text
    assert "ImageScoring.py --model models/demo --make-default" in text
