"""The table of predictions survives a round trip, and damaged tables are refused."""

import dataclasses

import numpy as np
import pytest

from real_vs_ai.verdicts.predictions import (
    Predictions,
    check_softmax,
    join_predictions,
    read_predictions,
    write_predictions,
)


def make_predictions(n=7, *, class_names=("Fake", "Real"), seed=0):
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet([1] * len(class_names), n).astype(np.float32)
    return Predictions(
        class_names=class_names,
        paths=np.array([f"test/Fake/{i}.png" for i in range(n)], dtype=object),
        splits=np.array(["test" if i % 2 else "validation" for i in range(n)], dtype=object),
        labels=generator.integers(0, len(class_names), n),
        sources=np.array(["cifake", ""] * n, dtype=object)[:n],
        widths=generator.integers(1, 4000, n),
        heights=generator.integers(1, 4000, n),
        verdicts=np.array([*class_names, "Uncertain"] * n, dtype=object)[:n],
        reasons=np.array(["", "plain", "unstable"] * n, dtype=object)[:n],
        probabilities=probabilities.astype(np.float64),
    )


def assert_equal(first, second):
    for field in dataclasses.fields(Predictions):
        assert np.array_equal(getattr(first, field.name), getattr(second, field.name)), field.name


@pytest.mark.parametrize("class_names", [("Fake", "Real"), ("a,b", 'c"d', "é=1")])
def test_predictions_survive_a_round_trip_to_the_last_digit(tmp_path, class_names):
    predictions = make_predictions(class_names=class_names)
    write_predictions(tmp_path / "predictions.csv", predictions)
    assert_equal(read_predictions(tmp_path / "predictions.csv"), predictions)


def test_verdicts_and_reasons_are_counted_as_they_stand_in_the_table():
    predictions = make_predictions(4)
    assert predictions.decided.tolist() == [0, 1, -1, 0]
    assert predictions.out_of_distribution.tolist() == [False, True, False, False]


def test_strange_file_names_survive(tmp_path):
    predictions = make_predictions(4)
    predictions.paths[:] = ["a,b.png", 'quote".png', "line\nbreak.png", "caf\udce9.png"]
    write_predictions(tmp_path / "p.csv", predictions)
    assert read_predictions(tmp_path / "p.csv").paths.tolist() == predictions.paths.tolist()


def test_splits_are_taken_apart_and_put_together(tmp_path):
    predictions = make_predictions()
    assert predictions.split_names == ("validation", "test")
    parts = [predictions.of_split("test"), predictions.of_split("validation")]
    assert [len(part) for part in parts] == [3, 4]
    assert len(predictions.of_split("train")) == 0
    together = join_predictions(parts)
    assert together.paths.tolist() == parts[0].paths.tolist() + parts[1].paths.tolist()


def test_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "p.csv"
    write_predictions(path, make_predictions())
    before = path.read_bytes()
    broken = dataclasses.replace(make_predictions(), labels=np.full(7, 9))
    with pytest.raises(IndexError):
        write_predictions(path, broken)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: "", "not a table"),
        (lambda text: text.replace("label", "lable"), "columns"),
        (lambda text: text.rsplit(",", 2)[0] + "\n", "line 8"),
        (lambda text: text.replace(",Fake,", ",Cat,").replace(",Real,", ",Cat,"), "damaged"),
        (lambda text: text.splitlines()[0] + "\n", "no rows"),
        (lambda text: text + "x,test,Fake,,10,10,Fake,,0.9,0.9\n", "softmax"),
        (lambda text: text + "x,test,Fake,,10,10,Fake,,nan,nan\n", "NaN"),
        (lambda text: text + "x,test,Fake,,ten,10,Fake,,0.5,0.5\n", "damaged"),
        (lambda text: text + "x,test,Fake,,10,10,Cat,,0.5,0.5\n", "no verdict"),
    ],
)
def test_damaged_tables_are_refused(tmp_path, damage, message):
    path = tmp_path / "predictions.csv"
    write_predictions(path, make_predictions())
    path.write_text(damage(path.read_text()))
    with pytest.raises(ValueError, match=message):
        read_predictions(path)


def test_missing_table_says_how_to_get_one(tmp_path):
    with pytest.raises(FileNotFoundError, match="without --redraw"):
        read_predictions(tmp_path / "predictions.csv")


@pytest.mark.parametrize(
    ("outputs", "message"),
    [([[0.2]], "one output for each"), ([[3.0, -2.0]], "softmax"), ([[0.2, 0.2]], "softmax")],
)
def test_outputs_that_are_no_probabilities_are_refused(outputs, message):
    with pytest.raises(ValueError, match=message):
        check_softmax(np.array(outputs), n_classes=2)
