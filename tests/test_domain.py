"""Which images are unlike those a model learnt from."""

from __future__ import annotations

import pytest

from real_vs_ai.domain import FAMILIAR, compare_with_domain, describe_sizes, summarise_domain

SMALL = summarise_domain([32] * 200, [32] * 200, ["cifake"] * 200)


@pytest.mark.parametrize(
    ("size", "noted", "outside"),
    [
        ((32, 32), False, False),
        ((64, 64), False, False),
        ((65, 65), True, False),
        ((128, 128), True, False),
        ((129, 129), True, True),
        ((4000, 3000), True, True),
        ((16, 16), False, False),
        ((15, 15), True, False),
        ((7, 7), True, True),
        # A narrow strip has the scale of its area.
        ((64, 16), False, False),
        ((1, 1), True, True),
    ],
)
def test_the_further_from_the_training_sizes_the_less_is_promised(size, noted, outside):
    fit = compare_with_domain(*size, SMALL)
    assert (bool(fit.note), fit.outside) == (noted, outside)


def test_the_note_names_both_sizes_and_the_direction():
    larger = compare_with_domain(4000, 3000, SMALL).note
    assert "4000 × 3000" in larger and "larger" in larger and "32 × 32" in larger
    assert "smaller" in compare_with_domain(4, 4, SMALL).note


def test_a_few_odd_training_images_do_not_make_their_size_familiar():
    mixed = summarise_domain([32] * 999 + [4000], [32] * 999 + [4000], ["a"] * 1000)
    assert compare_with_domain(4000, 4000, mixed).outside


def test_models_of_many_sizes_know_all_of_them():
    wide = summarise_domain([32] * 50 + [1000] * 50, [32] * 50 + [1000] * 50, ["a"] * 100)
    for side in (20, 32, 200, 1000, 2000):
        assert compare_with_domain(side, side, wide) == FAMILIAR
    assert describe_sizes(wide) == "about 32 × 32 to 1000 × 1000 pixels"


def test_the_summary_counts_the_sources_that_are_known():
    assert SMALL["scale"] == {"low": 32.0, "median": 32.0, "high": 32.0}
    domain = summarise_domain([32, 32, 32], [32, 32, 32], ["b", "a", ""])
    assert domain["sources"] == {"a": 1, "b": 1}
    assert summarise_domain([], [], []) == {}


@pytest.mark.parametrize(
    "domain",
    [
        {},
        {"scale": None},
        {"scale": {}},
        {"scale": {"low": "x", "high": 2}},
        [],
        None,
        {"scale": {"low": float("nan"), "high": 1.0}},
        {"scale": {"low": 0, "high": 0}},
        {"scale": {"low": 9, "high": 3}},
        {"scale": [1, 2]},
        {"scale": {"low": [], "high": {}}},
    ],
)
def test_models_that_tell_nothing_usable_find_nothing_unlike(domain):
    assert compare_with_domain(4000, 3000, domain) == FAMILIAR
    assert describe_sizes(domain) == ""
