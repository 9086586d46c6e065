"""Figures take any numbers and names, and the same figure gives the same bytes."""

import dataclasses

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from PIL import Image

from real_vs_ai.evaluation import figures
from real_vs_ai.evaluation.figure_style import shorten
from real_vs_ai.evaluation.report_figures import (
    Curve,
    draw_history_file,
    reliability_bins,
    risk_coverage_points,
    verdict_matrix,
)
from real_vs_ai.runs import read_history
from tests.test_predictions import make_predictions

HOSTILE = ("$\\frac{1}{0", "<b>&amp;</b>" * 20, "line\nbreak\x00", "日本語 😀")
SUMMARY = {"value": 0.9, "low": 0.85, "high": 0.94}


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
    draw_history_file(history, keep="best", path=tmp_path / "history.png")
    assert 0.005 < ink(tmp_path / "history.png") < 0.5


def test_history_of_one_epoch_is_drawn(tmp_path):
    history = {"epoch": [1.0], "loss": [0.5]}
    draw_history_file(history, keep="best", path=tmp_path / "history.png")
    assert ink(tmp_path / "history.png") > 0.005


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


@pytest.mark.parametrize("n_classes", [2, 7])
def test_confusion_matrix_and_distribution_take_any_number_of_classes(tmp_path, n_classes):
    names = [f"class {i}" for i in range(n_classes)]
    matrix = np.arange(n_classes * (n_classes + 1)).reshape(n_classes, -1)
    figures.draw_confusion_matrix(
        matrix,
        class_names=names,
        verdicts=[*names, "Uncertain"],
        title="test",
        path=tmp_path / "c.png",
    )
    counts = {split: dict.fromkeys(names, 5) for split in ("train", "test")}
    figures.draw_class_distribution(counts, path=tmp_path / "d.png")
    assert ink(tmp_path / "c.png") > 0.03
    assert ink(tmp_path / "d.png") > 0.03


def test_names_are_drawn_as_text_whatever_they_hold(tmp_path):
    names = list(HOSTILE)
    figures.draw_confusion_matrix(
        np.ones((4, 4), int),
        class_names=names,
        verdicts=names,
        title="test",
        path=tmp_path / "c.png",
    )
    figures.draw_class_distribution({"test": dict.fromkeys(names, 3)}, path=tmp_path / "d.png")
    curves = [Curve(name, np.array([0, 1]), np.array([0, 1]), None, 5) for name in names]
    figures.draw_roc(curves, positive="each class", path=tmp_path / "r.png")
    counts = {name: np.array([1, 2]) for name in names}
    figures.draw_score_histogram(
        counts,
        edges=np.array([0, 0.5, 1]),
        bounds=(0.5, 0.5),
        axis="score",
        path=tmp_path / "s.png",
    )
    assert len(list(tmp_path.iterdir())) == 4
    assert shorten(names[1]).endswith("…")
    assert "\n" not in shorten(names[2])


def test_empty_class_is_drawn_without_dividing_by_zero(tmp_path):
    with np.errstate(all="raise"):
        figures.draw_confusion_matrix(
            [[0, 0], [2, 3]],
            class_names=("Fake", "Real"),
            verdicts=("Fake", "Real"),
            title="",
            path=tmp_path / "c.png",
        )
    assert ink(tmp_path / "c.png") > 0.03


def test_bins_of_known_scores():
    positive = np.array([True, True, False, False])
    scores = np.array([0.9, 0.4, 0.6, 0.1])
    bins = reliability_bins(positive, scores, name="as trained", error=0.1)
    assert bins.counts.sum() == 4
    assert bins.stated.tolist() == pytest.approx([0.1, 0.4, 0.6, 0.9])
    assert bins.observed.tolist() == [0, 1, 0, 1]
    # The exact interval of one hit among one image begins at 0.025.
    assert bins.margins[0].tolist() == pytest.approx([0, 0.975, 0, 0.975], abs=1e-3)


def test_confusion_matrix_counts_the_verdicts_and_not_the_probabilities():
    rows = dataclasses.replace(
        make_predictions(5),
        labels=np.array([0, 0, 1, 1, 1]),
        verdicts=np.array(["Fake", "Uncertain", "Uncertain", "Real", "Uncertain"], dtype=object),
    )
    assert verdict_matrix(rows).tolist() == [[1, 0, 1], [0, 1, 2]]


def test_the_users_matplotlib_settings_change_nothing_and_stay(tmp_path):
    bins = [
        reliability_bins(np.array([True, False]), np.array([0.9, 0.2]), name=name, error=0.1)
        for name in ("as trained", "calibrated")
    ]

    def draw(name):
        path = tmp_path / name
        figures.draw_reliability(bins, stated="stated", observed="observed", path=path)
        return path.read_bytes()

    plain = draw("a.png")
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 30, "lines.linewidth": 9}):
        assert draw("b.png") == plain
        assert matplotlib.rcParams["font.size"] == 30
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []


def test_robustness_is_drawn(tmp_path):
    rows = [{"name": f"change {i}", "accuracy": SUMMARY} for i in range(20)]
    figures.draw_robustness(
        rows,
        shares={"turned": [0.1] * 20, "Uncertain": [0.2] * 20},
        title="2,000 images",
        path=tmp_path / "r.png",
    )
    assert ink(tmp_path / "r.png") > 0.03


def test_risk_and_coverage_are_drawn(tmp_path):
    labels, probabilities = np.array([0, 1, 1]), np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    coverage, risk = risk_coverage_points(labels, probabilities)
    assert coverage[-1] == 1 and risk.tolist() == pytest.approx([0, 0, 1 / 3])
    curve = Curve("test", coverage, risk, None, 3)
    path = tmp_path / "risk.png"
    figures.draw_risk_coverage([curve], chosen={"test": (0.5, 0.1)}, path=path)
    assert ink(path) > 0.01


def test_failed_drawing_keeps_the_old_figure(tmp_path, monkeypatch):
    path = tmp_path / "d.png"
    figures.draw_class_distribution({"test": {"Fake": 1}}, path=path)
    before = path.read_bytes()

    def full_disk(self, staging, **_):
        staging.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full_disk)
    with pytest.raises(OSError, match="No space"):
        figures.draw_class_distribution({"test": {"Fake": 2}}, path=path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
