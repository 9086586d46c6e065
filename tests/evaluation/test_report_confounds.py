"""The confound warning fires only when sizes or sources give the labels away."""

import dataclasses

import numpy as np
import pytest

from real_vs_ai.core.config import SEED
from real_vs_ai.evaluation.report import find_confound
from real_vs_ai.preparation.file_traits import FileTraits, measure_files
from tests.test_predictions import make_predictions


@pytest.fixture
def rows():
    predictions = make_predictions(200)
    return dataclasses.replace(
        predictions,
        labels=np.arange(200) % 2,
        widths=np.full(200, 32),
        heights=np.full(200, 32),
        sources=np.full(200, "cifake", dtype=object),
    )


def test_chance_differences_do_not_fire(rows):
    generator = np.random.default_rng(0)
    for _ in range(10):
        rows = dataclasses.replace(
            rows,
            widths=generator.integers(100, 4000, 200),
            heights=generator.integers(100, 4000, 200),
        )
        assert find_confound(rows)["warning"] == ""


def test_many_sources_of_one_class_each_are_collections(rows):
    names = np.array([f"collection {i % 6}" for i in range(200)], dtype=object)
    found = find_confound(dataclasses.replace(rows, sources=names))
    assert found["warning"] == ""


@pytest.mark.parametrize("share", [0.0, 0.5, 0.7, 1.0])
def test_data_report_and_evaluation_warn_of_the_same_sizes(rows, share):
    """One rule and one limit: a share of the fakes has one size, and no photograph has."""
    generator = np.random.default_rng(0)
    sizes = generator.integers(560, 4000, 200)
    fixed = (rows.labels == 0) & (generator.random(200) < share)
    widths = np.where(fixed, 559, sizes)
    files = [
        FileTraits(("Fake", "Real")[label], "s", int(width), 32, "PNG", (0, 0), 1000, False)
        for label, width in zip(rows.labels, widths, strict=True)
    ]
    by_evaluation = find_confound(dataclasses.replace(rows, widths=widths))
    by_preparation = measure_files(files, seed=SEED)
    assert by_evaluation["balanced_accuracy"] == pytest.approx(by_preparation.accuracy)
    assert bool(by_evaluation["warning"]) == bool(by_preparation.warning)
