"""Portraits are recognised by the network's features of the whole image, and refused."""

import dataclasses

import numpy as np
import pytest

from real_vs_ai.out_of_distribution.check import read_check, write_check
from real_vs_ai.out_of_distribution.portraits import PortraitClassifier, fit_portraits
from real_vs_ai.verdict import ReasonCode
from tests.out_of_distribution.test_check import N_FEATURES, fitted, sample  # noqa: F401

SHIFT = np.where(np.arange(N_FEATURES) < 2, 3.0, 0.0)


def features(count, *, seed, portraits=False):
    noise = np.random.default_rng(seed).normal(size=(count, N_FEATURES))
    # The features have very different scales, and one never changes.
    scales = np.geomspace(0.01, 100, N_FEATURES)
    scales[-1] = 0
    return (noise + SHIFT * portraits) * scales


@pytest.fixture(scope="module")
def classifier():
    rows = np.concatenate([features(150, seed=0, portraits=True), features(900, seed=1)])
    sources = np.array(["faces"] * 150 + ["many"] * 800 + ["few"] * 100, dtype=object)
    return fit_portraits(rows, np.arange(1050) < 150, sources, features(2000, seed=2))


def test_new_portraits_are_found_and_few_other_images(classifier):
    assert classifier.find(features(500, seed=3, portraits=True)).mean() > 0.9
    assert classifier.find(features(5000, seed=4)).mean() == pytest.approx(0.02, abs=0.01)


def test_features_that_are_no_numbers_are_refused(classifier):
    assert classifier.find(np.full((1, N_FEATURES), np.nan)).all()


def test_classifier_survives_in_the_model_file(classifier, fitted, tmp_path):  # noqa: F811
    import h5py

    path = tmp_path / "model.h5"
    h5py.File(path, "w").close()
    write_check(path, dataclasses.replace(fitted, portraits=classifier))
    found = read_check(path).portraits
    assert np.array_equal(found.weights, classifier.weights) and found.bias == classifier.bias
    with h5py.File(path, "r+") as file:
        group = file["real_vs_ai_out_of_distribution/portraits"]
        del group["weights"]
        group.create_dataset("weights", data=np.zeros(N_FEATURES + 1))
    assert read_check(path) is None


def test_portrait_comes_before_other_reasons(classifier, fitted):  # noqa: F811
    images = sample(4, seed=5, offset=100.0)
    refuses_all = PortraitClassifier(np.zeros(N_FEATURES, np.float32), 1.0)
    check = dataclasses.replace(fitted, portraits=refuses_all)
    reasons = check.compare(images.features, images.pixels, whole=images.features)
    assert {reason.code for reason in reasons} == {ReasonCode.PORTRAIT}
    reasons = check.compare(images.features, images.pixels)
    assert {reason.code for reason in reasons} == {ReasonCode.FEATURES}
