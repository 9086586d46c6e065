"""Both classes' shares stand apart, by source, and the weakest groups come first."""

import dataclasses

import numpy as np
import pytest

from real_vs_ai.evaluation.conditions import describe_condition, find_weakest
from real_vs_ai.evaluation.model_card import model_card
from real_vs_ai.evaluation.tables import headline
from tests.evaluation.test_model_card import INTERVAL, METRICS
from tests.test_predictions import make_predictions


def make_rows(*groups):
    """Rows of (label, source, verdicts): F, R and U for Fake, Real and Uncertain."""
    words = {"F": "Fake", "R": "Real", "U": "Uncertain"}
    labels = [label for label, _, verdicts in groups for _ in verdicts]
    sources = [source for _, source, verdicts in groups for _ in verdicts]
    verdicts = [words[one] for _, _, some in groups for one in some]
    rows = make_predictions(len(labels)).of_split("test")
    n = len(labels)
    given = np.array([0.9 if verdict == "Fake" else 0.2 for verdict in verdicts])
    return dataclasses.replace(
        rows,
        paths=np.array([f"test/{i}.png" for i in range(n)], dtype=object),
        splits=np.array(["test"] * n, dtype=object),
        labels=np.array([("Fake", "Real").index(label) for label in labels]),
        sources=np.array(sources, dtype=object),
        widths=np.full(n, 32),
        heights=np.full(n, 32),
        verdicts=np.array(verdicts, dtype=object),
        reasons=np.array([""] * n, dtype=object),
        probabilities=np.stack([given, 1 - given], axis=1),
    )


ROWS = make_rows(
    ("Fake", "a", "FFFFU"), ("Fake", "b", "RRRUU"), ("Real", "c", "RRRRRU"), ("Real", "d", "FRUU")
)


def test_shares_of_both_classes_stand_apart():
    found = describe_condition(ROWS)
    generated, real = found["generated"], found["real"]
    assert (found["n"], generated["n"], generated["sources"], real["n"]) == (20, 10, 2, 10)
    assert generated["found"]["value"] == pytest.approx(0.4)
    assert generated["called_real"]["value"] == pytest.approx(0.3)
    assert generated["unanswered"]["value"] == pytest.approx(0.3)
    assert real["accused"]["value"] == pytest.approx(0.1)
    assert real["called_real"]["value"] == pytest.approx(0.6)
    # Two sources tell little of a third one.
    assert generated["unit"] == "source"
    assert generated["found"]["high"] - generated["found"]["low"] > 0.8


def test_balanced_accuracy_is_given_forced_and_of_the_answers():
    found = describe_condition(ROWS)["balanced_accuracy"]
    # Unsure ones have 0.2, which is Real when they must be something.
    assert found["forced"]["value"] == pytest.approx((0.4 + 0.9) / 2)
    assert found["answered"]["value"] == pytest.approx((4 / 7 + 6 / 7) / 2)


def test_class_without_answers_has_no_balanced_accuracy_of_answers():
    rows = make_rows(("Fake", "a", "UU"), ("Real", "b", "RR"))
    assert set(describe_condition(rows)["balanced_accuracy"]) == {"forced"}


def test_pictures_of_unknown_source_count_one_by_one():
    found = describe_condition(make_rows(("Fake", "", "FFFFFFFF"), ("Real", "one", "RRRR")))
    assert (found["generated"]["unit"], found["generated"]["sources"]) == ("source", 8)
    assert found["real"]["unit"] == "picture"


def test_other_classes_have_neither():
    rows = make_predictions(12, class_names=("a", "b", "c"))
    assert describe_condition(rows) is None
    assert find_weakest(rows, np.array([""] * len(rows), dtype=object)) == {}


def test_weakest_groups_come_first_and_few_pictures_prove_little():
    rows = make_rows(
        ("Fake", "good", "F" * 20),
        ("Fake", "bad", "R" * 15 + "F" * 5),
        # None of one found: it may be chance.
        ("Fake", "tiny", "R"),
        ("Real", "fine", "R" * 20),
        ("Real", "accused", "F" * 6 + "R" * 6),
    )
    makers = np.array(
        [{"good": "Tool A", "bad": "Tool B"}.get(s, "") for s in rows.sources], object
    )
    found = find_weakest(rows, makers)
    assert [row["name"] for row in found["generated_sources"]] == ["bad", "tiny", "good"]
    assert [row["name"] for row in found["generators"]] == ["Tool B", "Tool A"]
    assert [row["name"] for row in found["real_sources"]] == ["accused", "fine"]
    assert found["real_sources"][0]["accused"]["value"] == pytest.approx(0.5)
    assert found["generators"][0]["called_real"]["value"] == pytest.approx(0.75)
    assert "real_makers" not in found


def test_card_names_shares_conditions_and_the_weakest_groups():
    makers = np.array([""] * len(ROWS), dtype=object)
    test = {**METRICS["test"], "conditions": {"clean": describe_condition(ROWS)}}
    text = model_card(
        "run", {**METRICS, "test": test | {"weakest": find_weakest(ROWS, makers)}}, {}
    )
    assert "What it finds and whom it accuses" in text
    assert "| clean | 20 | 40.0 % (" in text
    misses = text.split("### Misses")[1]
    assert "| b | 5 | 1 | 0.0 % (" in misses
    assert misses.index("| b |") < misses.index("| a |")


def test_terminal_shows_the_worst_sources_beside_the_headline():
    def part(value, n=500):
        return {"n": n, "accuracy": {"value": value, "low": value, "high": value}}

    test = {"n": 1000, "accuracy": INTERVAL}
    two = {"CIFAKE": part(0.98), "Fake-or-Real": part(0.5)}
    text = headline({**METRICS, "test": {**test, "per_source": two}})
    worst, best = text.index("Fake-or-Real"), text.index("CIFAKE")
    assert text.index("Accuracy by source") < worst < best
    many = {f"source {i:02}": part(0.5 + i / 100) for i in range(40)}
    lines = headline({**METRICS, "test": {**test, "per_source": many}}).splitlines()
    assert sum("source" in line for line in lines[-8:]) == 7
    assert lines[-1].startswith("33 better ones")
    alone = headline({**METRICS, "test": {**test, "per_source": {"one": part(0.9)}}})
    assert "by source" not in alone
