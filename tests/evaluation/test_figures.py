"""Figures take any numbers and names, and the same figure gives the same bytes."""

import dataclasses

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image

from real_vs_ai.evaluation import figures
from real_vs_ai.evaluation.curves import draw_reliability, reliability_bins
from real_vs_ai.evaluation.figures import shorten
from real_vs_ai.evaluation.metrics import split_metrics
from real_vs_ai.evaluation.report_files import draw_report
from real_vs_ai.models.runs import read_history
from tests.test_predictions import make_predictions

HOSTILE = ("$\\frac{1}{0", "<b>&amp;</b>" * 20, "line\nbreak\x00", "日本語 😀")


@pytest.fixture(autouse=True)
def _small_figures(monkeypatch):
    monkeypatch.setattr("real_vs_ai.evaluation.figures.DOTS_PER_INCH", 50)


def ink(path):
    """Share of the picture that is not white."""
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return float(np.mean(np.asarray(picture.convert("L")) < 250))


def test_history_of_two_stages_is_drawn(tmp_path):
    text = "epoch,stage,loss,val_loss,f1,val_f1\n" + "".join(
        f"{i},{'frozen' if i < 4 else 'fine-tuning'},{1 / i},{1.1 / i},{1 - 1 / i},\n"
        for i in range(1, 9)
    )
    (tmp_path / "history.csv").write_text(text)
    history = read_history(tmp_path / "history.csv")
    assert history["epoch"] == list(range(1, 9))
    assert np.isnan(history["val_f1"]).all()
    figures.draw_history(history, keep="best", path=tmp_path / "history.png")
    assert 0.005 < ink(tmp_path / "history.png") < 0.5


def test_damaged_histories_are_named(tmp_path):
    path = tmp_path / "history.csv"
    assert read_history(path) == {}
    path.write_text("epoch,loss\n")
    assert read_history(path) == {}
    path.write_text("loss\n1\n")
    with pytest.raises(ValueError, match="found no epoch"):
        read_history(path)
    path.write_text("epoch,loss\n1,many\n")
    with pytest.raises(ValueError, match="numbers in loss"):
        read_history(path)


def test_every_figure_is_drawn_whatever_the_classes_are_called(tmp_path):
    class_names = (*HOSTILE, *(f"class {i}" for i in range(4)))
    predictions = make_predictions(60, class_names=class_names)
    metrics = {
        "temperature": 1.5,
        "calibrated": True,
        "thresholds": {"minimum_confidence": 0.5},
        "images": {split: dict.fromkeys(class_names, 5) for split in ("train", "test")},
        **{s: split_metrics(predictions.of_split(s)) for s in ("test", "validation")},
    }
    drawn = draw_report(tmp_path, predictions, metrics)
    assert len(drawn) == 7
    assert all(ink(path) > 0.01 for path in drawn)


def test_class_distribution_of_four_hundred_sources_names_the_largest(tmp_path, monkeypatch):
    sizes = {f"source {i}": 1 + i % 40 for i in range(400)}
    counts = {split: {"Fake": sum(sizes.values()), "Real": 10} for split in ("train", "test")}
    sources = {
        "train": {"Fake": sizes, "Real": {"source 0": 10}},
        "test": {"Fake": {"one": 5}, "Real": {"one": 5}},
    }
    drawn = []
    save = figures.save_figure
    monkeypatch.setattr(figures, "save_figure", lambda *a, **b: (drawn.append(a[0]), save(*a, **b)))
    figures.draw_class_distribution(counts, sources, path=tmp_path / "c.png")
    assert ink(tmp_path / "c.png") > 0.05
    classes, train = (axes for axes in drawn[0].axes if axes.get_visible())
    assert classes.get_title() == "Images of each class"
    # One source in the test images is no distribution.
    assert train.get_title() == "train: 400 sources"
    labels = [label.get_text() for label in train.get_yticklabels()]
    assert len(labels) == 13
    assert labels[-1] == "388 others"
    assert labels[0] == "source 39"


def test_names_are_shortened_to_one_line():
    assert shorten(HOSTILE[1]).endswith("…")
    assert "\n" not in shorten(HOSTILE[2])


def test_empty_class_is_drawn_without_dividing_by_zero(tmp_path):
    rows = dataclasses.replace(make_predictions(5), labels=np.ones(5, int))
    with np.errstate(all="raise"):
        figures.draw_confusion_matrix(rows, split="test", path=tmp_path / "c.png")
    assert ink(tmp_path / "c.png") > 0.03


def test_bins_of_known_scores():
    positive = np.array([True, True, False, False])
    scores = np.array([0.9, 0.4, 0.6, 0.1])
    bins = reliability_bins(positive, scores)
    assert bins["counts"].sum() == 4
    assert bins["stated"].tolist() == pytest.approx([0.1, 0.4, 0.6, 0.9])
    assert bins["observed"].tolist() == [0, 1, 0, 1]
    # The exact interval of one hit among one image begins at 0.025.
    assert bins["margins"][0].tolist() == pytest.approx([0, 0.975, 0, 0.975], abs=1e-3)


def test_confusion_matrix_counts_the_verdicts_and_not_the_probabilities():
    rows = dataclasses.replace(
        make_predictions(5),
        labels=np.array([0, 0, 1, 1, 1]),
        verdicts=np.array(["Fake", "Uncertain", "Uncertain", "Real", "Uncertain"], dtype=object),
    )
    assert figures.verdict_matrix(rows).tolist() == [[1, 0, 1], [0, 1, 2]]


def test_the_users_matplotlib_settings_change_nothing_and_stay(tmp_path):
    rows, error = make_predictions(5), {"expected_calibration_error": {"value": 0.1}}
    metrics = {**error, "uncalibrated": error}

    def draw(name):
        path = tmp_path / name
        draw_reliability(rows, metrics, calibrated=True, path=path)
        return path.read_bytes()

    plain = draw("a.png")
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9}):
        assert draw("b.png") == plain
        assert matplotlib.rcParams["font.size"] == 30
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []


def test_failed_drawing_keeps_the_old_figure(tmp_path, monkeypatch):
    path = tmp_path / "d.png"
    figures.draw_history({"epoch": [1.0], "loss": [0.5]}, keep="best", path=path)
    assert ink(path) > 0.005
    before = path.read_bytes()

    def full_disk(self, staging, **_):
        staging.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full_disk)
    with pytest.raises(OSError, match="No space"):
        figures.draw_history({"epoch": [1.0], "loss": [0.4]}, keep="best", path=path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
