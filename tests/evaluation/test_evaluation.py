"""The files of a report fit together, are right, and can be drawn again."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import accuracy_score, roc_auc_score

from real_vs_ai.evaluation.by_collection import COLLECTION_COLUMNS
from real_vs_ai.evaluation.figures import kept_epoch
from real_vs_ai.evaluation.metrics import size_groups
from real_vs_ai.evaluation.report_files import redraw_report
from real_vs_ai.models.model_file import read_metadata
from real_vs_ai.verdicts.predictions import read_predictions
from tests.evaluation.evaluation_material import (
    colour_model,
    list_splits,
    make_run,
    write_images,
    write_report,
)

HISTORY = """epoch,stage,loss,accuracy,val_loss,val_accuracy
1,frozen,0.7,0.5,0.69,0.55
2,fine-tuning,0.6,0.7,0.61,0.66
3,fine-tuning,0.5,0.8,0.63,0.64
"""
FIGURES = {
    "class_distribution",
    "history",
    "confusion_matrix",
    "confusion_matrix_validation",
    "roc",
    "precision_recall",
    "reliability",
    "scores",
    "mistakes",
}


def no_nan(text):
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


def report(folder, *, splits=("validation", "test"), model=None, data=None, **classes):
    """A run of this model and its report on splits of images, after its history if it has one."""
    model = model or colour_model()
    run, metadata = make_run(folder / "run", model, **classes)
    if "train" in splits:
        run.history.write_text(HISTORY)
    images = list_splits(data or folder, splits=splits)
    return run, write_report(run, metadata, images, model=model)


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A run with its report, on images of which the model must get 2 of 12 wrong in each class."""
    folder = tmp_path_factory.mktemp("reported")
    for split, n in (("train", 6), ("validation", 40), ("test", 12)):
        write_images(folder / "data" / split, n=n, seed=n)
    return report(folder, data=folder / "data", splits=("train", "validation", "test"))


def test_report_has_every_file(reported):
    run, _ = reported
    # Keras draws the network where Graphviz is installed.
    network = {"network"} if shutil.which("dot") else set()
    assert {path.stem for path in run.figures.glob("*.png")} == FIGURES | network
    assert "maps (Conv2D)" in run.network.read_text()
    for path in run.figures.glob("*.png"):
        with Image.open(path) as picture:
            assert max(picture.size) > 500
    for path in (run.metrics, run.predictions, run.model_card, run.classification_report):
        assert path.stat().st_size > 100
    columns, *rows = list(csv.reader(run.collections.read_text().splitlines()))
    assert columns == list(COLLECTION_COLUMNS)
    named = {(row[0], row[2], row[3]) for row in rows}
    assert {("test", "source", "first"), ("test", "source", "second")} <= named
    assert not list(run.path.rglob(".*"))


def test_metrics_are_those_of_the_predictions(reported):
    run, metrics = reported
    assert no_nan(run.metrics.read_text()) == metrics
    test = metrics["test"]
    assert (test["n"], test["counts"]) == (24, {"Fake": 12, "Real": 12})
    assert test["confusion_matrix"] == [[10, 2], [2, 10]]
    rows = read_predictions(run.predictions).of_split("test")
    is_fake = rows.labels == 0
    assert test["accuracy"]["value"] == accuracy_score(is_fake, rows.probabilities[:, 0] >= 0.5)
    area = roc_auc_score(is_fake, rows.probabilities[:, 0])
    assert test["roc_auc"]["value"] == pytest.approx(area, rel=1e-12)
    assert set(test["per_source"]) == {"first", "second"}
    assert sum(part["n"] for part in test["per_source"].values()) == 24
    assert set(test["per_size"]) == {"below 64 px"}
    assert metrics["images"]["train"] == {"Fake": 6, "Real": 6}


def test_predictions_keep_path_order_and_raw_outputs(reported):
    run, _ = reported
    with run.predictions.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "path",
        "split",
        "label",
        "source",
        "width",
        "height",
        "verdict",
        "reason",
        "probability_Fake",
        "probability_Real",
    ]
    test = [row for row in rows if row["split"] == "test"]
    assert [row["path"] for row in test] == sorted(row["path"] for row in test)
    assert test[0]["path"] == "test/Fake/first__001.png"
    with Image.open(run.path.parent / "data" / test[3]["path"]) as image:
        pixels = np.asarray(image, dtype=np.float32)[None]
    expected = colour_model().predict(pixels, verbose=0)[0]
    assert float(test[3]["probability_Fake"]) == pytest.approx(float(expected[0]), abs=1e-6)


def test_model_file_carries_calibration_and_test_metrics(reported):
    run, metrics = reported
    metadata = read_metadata(run.model)
    assert metadata.calibrated
    assert metadata.temperature == metrics["temperature"] != 1.0
    assert metadata.upper_threshold == metrics["thresholds"]["upper"]
    assert metadata.metrics["accuracy"] == metrics["test"]["accuracy"]


def test_redrawing_gives_the_same_figures_without_the_model(reported, monkeypatch):
    run, _ = reported
    before = {path: path.read_bytes() for path in run.figures.glob("*.png")}
    table = run.collections.read_bytes()
    run.collections.unlink()
    drawn = redraw_report(run)
    assert run.collections.read_bytes() == table
    assert {path.stem for path in drawn} == FIGURES - {"mistakes"}
    assert all(path.read_bytes() == before[path] for path in drawn)


@pytest.mark.usefixtures("blank_figures")
@pytest.mark.parametrize(
    ("options", "epoch"), [({"keep": "last"}, 3), ({"keep": "best"}, 2), ({}, 2)]
)
def test_history_marks_the_epoch_whose_weights_were_kept(reported, monkeypatch, options, epoch):
    run, _ = reported
    marked = []
    monkeypatch.setattr(
        "real_vs_ai.evaluation.report_files.draw_history",
        lambda history, *, keep, path: marked.append(kept_epoch(history, keep=keep)),
    )
    run.config.write_text(json.dumps({"options": options}))
    try:
        redraw_report(run)
    finally:
        run.config.unlink()
    assert marked == [epoch]


def test_card_and_report_name_the_numbers(reported):
    run, metrics = reported
    card = run.model_card.read_text()
    assert f"{metrics['test']['accuracy']['value']:.4f}" in card
    assert "| train | 6 | 6 | 12 |" in card
    assert "test: 24 images, accuracy 0.8333" in run.classification_report.read_text()


@pytest.mark.usefixtures("blank_figures")
def test_three_classes_are_reported_with_macro_averages(tmp_path):
    names = ("benign", "malignant", "normal")
    for split in ("validation", "test"):
        write_images(tmp_path / split, class_names=names, n=20, wrong=3)
    run, metrics = report(tmp_path, model=colour_model(3), class_names=names)
    assert metrics["positive_class"] is None
    assert metrics["test"]["accuracy"]["value"] == pytest.approx(51 / 60)
    assert set(metrics["test"]["per_class"]) == set(names)
    assert metrics["test"]["recall"]["value"] == pytest.approx(51 / 60)
    assert "minimum_confidence" in metrics["thresholds"]
    # One image in seven is wrong, and as confidently as the others.
    assert any("--target-error" in note for note in metrics["notes"])
    assert not (run.figures / "history.png").exists()
    assert (run.figures / "roc.png").is_file()
    no_nan(run.metrics.read_text())


@pytest.mark.usefixtures("blank_figures")
def test_unreadable_images_are_named_and_left_out(tmp_path):
    for split in ("validation", "test"):
        write_images(tmp_path / split)
    (tmp_path / "test" / "Fake" / "broken.png").write_bytes(b"no image")
    _, metrics = report(tmp_path)
    (left_out,) = metrics["data"]["test"]["unreadable"]
    assert left_out["path"] == "Fake/broken.png"
    assert metrics["test"]["n"] == 24


@pytest.mark.usefixtures("blank_figures")
def test_without_validation_images_nothing_is_calibrated(tmp_path):
    write_images(tmp_path / "test")
    run, metrics = report(tmp_path, splits=("test",))
    assert (metrics["calibrated"], metrics["temperature"]) == (False, 1.0)
    assert "not calibrated" in run.model_card.read_text()


def test_diverged_model_is_refused_before_anything_is_written(tmp_path):
    write_images(tmp_path / "test")
    model = colour_model()
    model.layers[-1].set_weights([np.full((2, 2), np.nan), np.zeros(2)])
    with pytest.raises(ValueError, match="NaN"):
        report(tmp_path, splits=("test",), model=model)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"model.h5"}


@pytest.mark.usefixtures("blank_figures")
def test_failure_while_writing_leaves_the_run_unfinished(tmp_path, monkeypatch):
    write_images(tmp_path / "test")

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("real_vs_ai.evaluation.report_files.model_card", full_disk)
    with pytest.raises(OSError, match="No space"):
        report(tmp_path, splits=("test",))
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"model.h5"}


def test_predictions_of_another_report_are_not_drawn(reported, tmp_path):
    run, _ = reported
    text = run.predictions.read_text()
    try:
        run.predictions.write_text("\n".join(text.splitlines()[:-1]) + "\n")
        with pytest.raises(ValueError, match="belong together"):
            redraw_report(run)
    finally:
        run.predictions.write_text(text)


def test_images_are_grouped_by_their_shorter_side():
    widths = np.array([32, 64, 100, 255, 256, 4000, 1024])
    heights = np.array([32, 64, 2000, 300, 300, 1000, 5000])
    assert size_groups(widths, heights).tolist() == [
        "below 64 px",
        "64 to 255 px",
        "64 to 255 px",
        "64 to 255 px",
        "256 to 1023 px",
        "256 to 1023 px",
        "1024 px and more",
    ]
