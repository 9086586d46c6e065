"""ModelEvaluation.py finds model, images and folder, and refuses what does not fit."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

import ModelEvaluation
from real_vs_ai.dataset.decoded_images import find_splits
from real_vs_ai.evaluation import export
from real_vs_ai.models.model_file import read_metadata, write_metadata
from real_vs_ai.models.model_input import ModelInput
from real_vs_ai.models.runs import RunFolder
from tests.evaluation.evaluation_material import (
    SIZE,
    colour_model,
    list_splits,
    make_run,
    write_images,
    write_report,
)

ROOT = Path(__file__).resolve().parents[2]


# What the figures look like is tested elsewhere.
pytestmark = pytest.mark.usefixtures("blank_figures")


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with data/ and an unfinished run, in which scripts are started."""
    for split in ("train", "validation", "test"):
        write_images(tmp_path / "data" / split, n=10)
    (tmp_path / "data" / "train" / "Fake" / "broken.png").write_bytes(b"no image")
    make_run(tmp_path / "models" / "run", colour_model())
    (tmp_path / "models" / "run" / "config.json").write_text('{"options": {"data": "data"}}')
    monkeypatch.chdir(tmp_path)
    return tmp_path


def metrics_of(folder):
    return json.loads((folder / "metrics.json").read_text())


def evaluate(*arguments):
    return ModelEvaluation.main(["--workers", "1", *map(str, arguments)])


def test_own_data_refresh_the_run_others_get_a_folder(project, capsys):
    assert evaluate("--model", "models/run") == 0
    run = project / "models" / "run"
    metrics = metrics_of(run)
    assert set(metrics["images"]) == {"train", "validation", "test"}
    assert "Accuracy" in capsys.readouterr().out
    calibrated = read_metadata(run / "model.h5")
    assert calibrated.calibrated

    # Without arguments: the newest finished run on data/ again, whose report is there.
    times = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert evaluate() == 0
    output = capsys.readouterr().out
    assert "Accuracy" in output and "--overwrite judges them again" in output
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == times

    write_images(project / "photos", n=5, seed=9)
    model_before = (run / "model.h5").read_bytes()
    assert evaluate("--data", "photos") == 0
    report = run / "evaluations" / "photos"
    assert metrics_of(report)["test"]["n"] == 10
    assert metrics_of(run) == metrics
    assert (run / "model.h5").read_bytes() == model_before


def test_training_report_counts_as_one_on_the_same_images(project):
    model = colour_model()
    run, metadata = make_run(project / "models" / "trained", model)
    write_images(project / "data" / "test", n=10)
    (project / "data" / "test" / "Fake" / "broken.png").write_bytes(b"no image")
    # Training has decoded its images, and left the broken one out.
    images = list_splits(project / "data", splits=("train", "validation", "test"))
    test = images["test"]
    readable = [i for i, path in enumerate(test.paths) if "broken" not in path]
    images["test"] = test.take(readable)
    left_out = {"test": [("Fake/broken.png", "not an image")]}
    write_report(run, metadata, images, model=model, left_out=left_out)
    before = run.metrics.read_bytes()
    assert evaluate("--model", "models/trained") == 0
    assert not (run.path / "evaluations").exists()
    after = json.loads(run.metrics.read_bytes())
    assert after["test"] == json.loads(before)["test"]


def test_report_elsewhere_is_not_replaced_unasked(project, capsys):
    assert evaluate("--model", "models/run") == 0
    write_images(project / "photos", n=5, seed=9)
    before = (project / "models" / "run" / "metrics.json").read_bytes()
    assert evaluate("--data", "photos", "--output", "models/run") == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (project / "models" / "run" / "metrics.json").read_bytes() == before
    assert evaluate("--data", "photos", "--output", "out") == 0
    assert evaluate("--data", "photos", "--output", "out") == 1
    shutil.rmtree(project / "photos" / "Fake")
    write_images(project / "photos", n=6, seed=9)
    assert evaluate("--data", "photos", "--output", "out", "--overwrite") == 0


def test_report_on_photographs_gets_the_conditions_of_the_web_and_keeps_its_thresholds(
    project, capsys
):
    file = project / "models" / "run" / "model.h5"
    crops = ModelInput(size=SIZE, kind="crops", crops=2).stored()
    metadata = replace(read_metadata(file), input=crops)
    write_metadata(file, metadata)
    for split in ("train", "validation", "test"):
        shutil.rmtree(project / "data" / split)
        write_images(project / "data" / split, n=10, size=16)
    images = list_splits(project / "data", splits=("train", "validation", "test"))
    # As training leaves it.
    trained = write_report(RunFolder(file.parent), metadata, images, model=colour_model())
    assert set(trained["test"]["conditions"]) == {"clean"}
    assert evaluate("--model", "models/run") == 0
    assert "What it finds and whom it accuses: test" in capsys.readouterr().out
    metrics = metrics_of(file.parent)
    assert set(metrics["test"]["conditions"]) == {"clean", "web", "hard"}
    assert metrics["thresholds"] == trained["thresholds"]
    assert metrics["test"]["accuracy"] == trained["test"]["accuracy"]
    assert read_metadata(file).metrics["conditions"] == metrics["test"]["conditions"]
    assert evaluate("--model", "models/run") == 0
    assert "--overwrite judges them again" in capsys.readouterr().out


def test_redraw_needs_neither_the_model_nor_tensorflow(project):
    assert evaluate("--model", "models/run") == 0
    run = project / "models" / "run"
    (run / "model.h5").unlink()
    (run / "figures" / "roc.png").unlink()
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import ModelEvaluation;"
        "code = ModelEvaluation.main(['--model', 'models/run', '--redraw']);"
        "assert not {'tensorflow', 'keras'} & set(sys.modules); sys.exit(code)"
    )
    subprocess.run([sys.executable, "-c", code, str(ROOT)], cwd=project, check=True)
    assert (run / "figures" / "roc.png").is_file()


def test_robustness_comparison_and_export_are_added_to_the_report(project, capsys, monkeypatch):
    monkeypatch.setattr("real_vs_ai.evaluation.extras.MOST_IMAGES", 12)
    assert evaluate("--model", "models/run") == 0
    other = colour_model()
    other.layers[-1].set_weights([np.eye(2)[::-1], np.zeros(2)])
    make_run(project / "models" / "turned", other)
    capsys.readouterr()
    code = evaluate(
        "--model", "models/run", "--robustness", "--compare", "models/turned", "--export", "compact"
    )
    output = capsys.readouterr().out
    assert code == 0
    run = project / "models" / "run"
    metrics = metrics_of(run)
    assert metrics["robustness"]["n"] == 12
    compared = metrics["comparison"]["test"]
    right = round(20 * metrics["test"]["accuracy"]["value"])
    assert (compared["only_first"], compared["only_second"]) == (right, 20 - right)
    assert metrics["comparison"]["model"] == "turned"
    assert (run / "exports" / "model.h5").is_file()
    assert "JPEG quality 75" in (run / "MODEL_CARD.md").read_text()
    for text in ("screenshot", "McNemar", "exports/model.h5"):
        assert text in output

    # Evaluated again without --robustness, the table still holds and stays.
    assert evaluate("--model", "models/run") == 0
    again = metrics_of(run)
    assert again["robustness"] == metrics["robustness"]
    # With another Uncertain band its verdicts would be others.
    assert evaluate("--model", "models/run", "--target-error", "0.2", "--overwrite") == 0
    again = metrics_of(run)
    assert again["thresholds"]["target_error"] == 0.2
    assert "robustness" not in again


def test_images_of_another_kind_are_judged_as_the_app_would(project, capsys):
    model_file = project / "models" / "run" / "model.h5"
    scale = {"low": 8.0, "median": 8.0, "high": 8.0}
    write_metadata(model_file, replace(read_metadata(model_file), training_images={"scale": scale}))
    # As in data/, so that they are judged; and eight times as large, so that none is.
    write_images(project / "like", n=10)
    write_images(project / "unlike", n=10, size=64)
    assert evaluate("--model", "models/run", "--out-of-distribution", "like", "unlike") == 0
    assert "Images of another kind: 20 of like, 20 of unlike" in capsys.readouterr().out
    run = project / "models" / "run"
    metrics = metrics_of(run)
    like, unlike = metrics["other_images"]
    shares = ("out_of_distribution", "uncertain", "certain_right", "certain_wrong")
    for part in (like, unlike):
        assert part["n"] == 20
        assert sum(part[share]["value"] for share in shares) == pytest.approx(1)
        # Two of ten of each class show the other's colour.
        assert part["accuracy_unchecked"]["value"] == pytest.approx(0.8)
    assert like["out_of_distribution"]["value"] == 0
    assert like["certain_wrong"] == like["certain_wrong_unchecked"]
    assert unlike["out_of_distribution"]["value"] == 1
    assert unlike["out_of_distribution"]["low"] == pytest.approx(0.832, abs=0.001)
    assert unlike["certain_wrong"]["value"] == 0
    assert "unlike (n = 20)" in (run / "MODEL_CARD.md").read_text()

    # Evaluated again without --out-of-distribution, the shares still hold and stay.
    assert evaluate("--model", "models/run") == 0
    assert metrics_of(run)["other_images"] == metrics["other_images"]
    assert evaluate("--model", "models/run", "--out-of-distribution", "nowhere") == 1
    assert "nowhere" in capsys.readouterr().err


def test_failed_export_is_reported_and_the_report_still_written(project, capsys, monkeypatch):
    def write_nothing(*_):
        raise ImportError("No module named 'converter'")

    unwritable = replace(export.FORMATS["onnx"], write=write_nothing)
    monkeypatch.setitem(export.FORMATS, "onnx", unwritable)
    assert evaluate("--model", "models/run", "--export", "onnx") == 1
    output = capsys.readouterr().out
    assert "not written: No module named 'converter'; pip install -e \".[onnx]\"" in (output)
    assert (project / "models" / "run" / "metrics.json").is_file()


def test_models_of_other_classes_are_not_compared(project, capsys):
    make_run(project / "models" / "three", colour_model(3), class_names=("a", "b", "c"))
    assert evaluate("--model", "models/run", "--compare", "models/three") == 1
    assert "a, b, c" in capsys.readouterr().err


def test_second_model_file_leaves_the_runs_report_alone(project):
    run = project / "models" / "run"
    assert evaluate("--model", "models/run") == 0
    before = {name: (run / name).read_bytes() for name in ("metrics.json", "model.h5")}
    shutil.copyfile(run / "model.h5", run / "other.h5")
    assert evaluate("--model", "models/run/other.h5") == 0
    assert {name: (run / name).read_bytes() for name in before} == before
    assert (run / "evaluations" / "other-data" / "metrics.json").is_file()


def test_model_in_another_format_is_evaluated_unchanged(project, capsys):
    colour_model().save(project / "made.keras")
    before = (project / "made.keras").read_bytes()
    names = ("--class-names", "Fake", "Real", "--output", "report")
    assert evaluate("--model", "made.keras", *names) == 0
    assert "no HDF5 file" in capsys.readouterr().out
    assert (project / "report" / "metrics.json").is_file()
    assert (project / "made.keras").read_bytes() == before


def test_extras_that_cannot_be_done_are_refused_before_any_work(project, capsys, monkeypatch):
    monkeypatch.setattr(
        "real_vs_ai.evaluation.report.judge_split", lambda *_, **__: pytest.fail("work began")
    )
    assert evaluate("--model", "models/run", "--compare", "models/typo") == 1
    assert "models/typo" in capsys.readouterr().err
    write_images(project / "cats" / "Cat", n=4)
    assert evaluate("--model", "models/run", "--out-of-distribution", "cats") == 1
    assert "Expected" in capsys.readouterr().err


def test_model_made_elsewhere_needs_its_classes_named(project, capsys):
    path = project / "elsewhere.h5"
    colour_model().save(path)
    assert evaluate("--model", path) == 1
    assert "--class-names Fake Real" in capsys.readouterr().err
    assert evaluate("--model", path, "--class-names", "Fake", "Real") == 0
    metadata = read_metadata(path)
    assert (metadata.class_names, metadata.image_size) == (("Fake", "Real"), 8)
    assert metadata.calibrated
    assert (project / "evaluations" / "elsewhere-data" / "metrics.json").is_file()


def test_images_of_other_classes_are_refused(project, capsys):
    write_images(project / "tumours", class_names=("benign", "malignant", "normal"))
    assert evaluate("--model", "models/run", "--data", "tumours") == 1
    error = capsys.readouterr().err
    assert "benign" in error
    assert len(error.strip().splitlines()) == 1


def test_files_that_are_no_models_are_refused(project, capsys):
    (project / "text.h5").write_text("no model")
    with h5py.File(project / "data.h5", "w") as file:
        file["x"] = 1
    for name in ("text.h5", "data.h5"):
        assert evaluate("--model", name) == 1
        error = capsys.readouterr().err
        assert name in error
        assert len(error.strip().splitlines()) == 1


def test_splits_are_found_by_any_name_and_ambiguity_is_refused(tmp_path):
    for name in ("TRAIN", "val", "Test", "raw"):
        (tmp_path / name).mkdir()
    assert find_splits(tmp_path) == {
        "train": tmp_path / "TRAIN",
        "validation": tmp_path / "val",
        "test": tmp_path / "Test",
    }
    (tmp_path / "testing").mkdir()
    with pytest.raises(ValueError, match="one test folder"):
        find_splits(tmp_path)


def test_training_images_alone_are_not_evaluated_unasked(tmp_path):
    write_images(tmp_path / "train", n=2)
    with pytest.raises(ValueError, match="flatter"):
        find_splits(tmp_path)
    assert find_splits(tmp_path / "train") == {"test": tmp_path / "train"}


def test_wrong_usage_leaves_with_code_2():
    for arguments in (["--target-error", "0.9"], ["--export", "docx"], ["--class-names", "Fake"]):
        with pytest.raises(SystemExit) as stop:
            ModelEvaluation.main(arguments)
        assert stop.value.code == 2
