"""Intervals cover what they are said to cover."""

import numpy as np
import pytest
from scipy.stats import binomtest

from real_vs_ai.core.intervals import (
    exact_interval,
    mean_of_shares,
    share_by_source,
    share_interval,
)
from real_vs_ai.dataset.confounds import measure_confounds


def covers(interval, value):
    return interval["low"] <= value <= interval["high"]


@pytest.mark.parametrize(("hits", "n"), [(0, 7), (7, 7), (3, 40), (1, 1)])
def test_exact_interval_is_clopper_and_pearsons(hits, n):
    low, high = binomtest(hits, n).proportion_ci(method="exact")
    assert exact_interval(hits, n) == pytest.approx({"value": hits / n, "low": low, "high": high})


def test_of_no_pictures_there_is_no_share():
    none = np.array([], dtype=bool)
    assert share_interval(none) is None
    assert share_by_source(none, none.astype(object)) is None


@pytest.mark.parametrize("rate", [0.02, 0.3])
def test_share_over_sources_covers_the_rate_where_pictures_of_a_source_are_alike(rate):
    generator = np.random.default_rng(1)
    covered, covered_by_pictures, n = 0, 0, 300
    for _ in range(n):
        sizes = generator.integers(5, 21, 60)
        # Every source has a rate of its own.
        rates = generator.beta(0.5 * rate, 0.5 * (1 - rate), 60)
        sources = np.repeat(np.arange(60), sizes).astype(str)
        which = generator.random(len(sources)) < np.repeat(rates, sizes)
        covered += covers(share_by_source(which, sources), rate)
        covered_by_pictures += covers(share_interval(which), rate)
    assert covered / n >= 0.95
    assert covered_by_pictures / n < 0.8


def test_sources_without_a_hit_say_little_of_others():
    sources = np.repeat(np.arange(59), 25).astype(str)
    none = share_by_source(np.zeros(len(sources), bool), sources)
    assert none["high"] == pytest.approx(exact_interval(0, 59)["high"])
    once = share_by_source(np.arange(len(sources)) == 0, sources)
    assert none["high"] < once["high"] < 0.08


def test_large_source_that_differs_widens_the_interval():
    even = np.repeat(np.arange(20), 10).astype(str)
    which = np.arange(200) % 2 == 0
    uneven = np.where(np.arange(200) < 100, "large", even)
    differs = np.where(np.arange(200) < 100, False, True)
    wide, narrow = share_by_source(differs, uneven), share_by_source(which, even)
    assert wide["value"] == narrow["value"] == 0.5
    assert wide["high"] - wide["low"] > narrow["high"] - narrow["low"]


def test_pictures_of_one_source_or_of_one_each_count_as_pictures():
    which = np.arange(30) < 9
    alone = np.array([f"source {i}" for i in range(30)])
    assert share_by_source(which, np.full(30, "same")) == share_interval(which)
    assert share_by_source(which, alone) == pytest.approx(share_interval(which), abs=0.01)


def test_balanced_accuracy_covers_with_12_against_3000():
    generator = np.random.default_rng(2)
    n, covered = 2000, 0
    for _ in range(n):
        shares = [
            share_interval(generator.random(12) < 0.7),
            share_interval(generator.random(3000) < 0.9),
        ]
        covered += covers(mean_of_shares(shares), 0.8)
    assert covered / n >= 0.95


def test_confounds_of_noise_cover_chance_with_12_against_3000():
    labels, missed = ["Fake"] * 12 + ["Real"] * 3000, 0
    for seed in range(30):
        noise = np.random.default_rng(seed).normal(size=(len(labels), 2))
        found = measure_confounds({"noise": noise}, labels, seed=seed, advice="")
        missed += not found.low <= 0.5 <= found.high
        assert found.low <= found.accuracy <= found.high
    assert missed <= 3
