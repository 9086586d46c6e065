"""Everything in a model card stands in the metrics, and no name becomes markup."""

import copy

import pytest

from real_vs_ai.core.reporting import markdown_table
from real_vs_ai.evaluation.by_collection import COLLECTION_COLUMNS, collection_rows
from real_vs_ai.evaluation.model_card import model_card
from real_vs_ai.evaluation.tables import METRIC_TITLES

INTERVAL = {"value": 0.9512, "low": 0.94, "high": 0.96}
METRICS = {
    "class_names": ["Fake", "Real"],
    "positive_class": "Fake",
    "backbone": "resnet101",
    "image_size": 224,
    "temperature": 1.25,
    "offset": -0.5,
    "calibrated": True,
    "thresholds": {
        "lower": 0.2,
        "upper": 0.7,
        "target_error": 0.05,
        "validation": {"lower": {"reached": True}, "upper": {"reached": True}},
    },
    "images": {"train": {"Fake": 1000, "Real": 2000}, "test": {"Fake": 5, "Real": 6}},
    "data": {"test": {"unreadable": [{"path": "x", "reason": "y"}]}},
    "test": {
        "n": 11,
        "accuracy": INTERVAL,
        "per_source": {"cifake": {"n": 5, "accuracy": INTERVAL}, "a|b": {"n": 6}},
        "per_size": {"below 64 px": {"n": 11, "accuracy": INTERVAL}},
    },
}


def card(metrics, config=None):
    return model_card("run", metrics, config or {})


def test_card_tells_data_results_calibration_and_limits():
    text = card(METRICS)
    for part in (
        "| train | 1,000 | 2,000 | 3,000 |",
        "0.9512 (0.9400 to 0.9600)",
        "224 × 224",
        "Temperature 1.250",
        "above 0.200 and below 0.700 is Uncertain",
        "at most 5 % wrong",
        "Left out: 1 file that could not be read.",
        "## Limits",
        "## Licence",
        "Fake is the positive class",
        "| cifake | 5 |",
        "not defined",
        "Not measured",
    ):
        assert part in text, part
    # One size group alone is no comparison.
    assert "shorter side" not in text


def test_recipe_comes_from_the_configuration_without_the_machines_paths():
    config = {
        "options": {"epochs": 20, "backbone": "resnet101", "data": "/home/me/data", "workers": 8},
        "started": "2026-01-01T00:00:00+00:00",
        "versions": {"keras": "3.15.1"},
    }
    text = card(METRICS, config)
    assert "epochs 20, backbone resnet101." in text
    assert "keras 3.15.1" in text
    assert "/home/me" not in text


def test_card_tells_robustness_comparison_and_confounds():
    metrics = copy.deepcopy(METRICS) | {
        "robustness": {
            "split": "test",
            "n": 11,
            "rows": [{"name": "JPEG quality 75", "accuracy": INTERVAL, "flips": 2, "uncertain": 3}],
        },
        "comparison": {
            "model": "other",
            "test": {
                "n": 11,
                "accuracy_difference": INTERVAL,
                "only_first": 4,
                "only_second": 1,
                "p_value": 0.375,
            },
        },
        "confound": {"balanced_accuracy": 0.98, "chance": 0.5, "warning": "Size tells the class."},
    }
    text = card(metrics)
    assert "| JPEG quality 75 | 0.9512 (0.9400 to 0.9600) | 2 | 3 |" in text
    assert "Compared with other" in text
    assert "0.375" in text
    assert "**Warning.** Size tells the class." in text


def test_promise_that_cannot_be_kept_is_not_made():
    metrics = copy.deepcopy(METRICS)
    metrics["thresholds"]["validation"]["upper"]["reached"] = False
    assert "too few, or the model too poor" in card(metrics)


def test_names_cannot_become_markup():
    table = markdown_table(["<script>"], [["a|b\n# heading *x* [link](http://y)"]])
    assert len(table.splitlines()) == 3
    assert "\\<script\\>" in table
    assert "a\\|b \\# heading \\*x\\* \\[link\\]" in table


def test_card_lists_the_licence_of_every_public_collection(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "collections.csv").write_text(
        "collection,label,generator_or_source,repository,licence\n"
        "hills,Real,cameras,owner/hills,CC0\nother,Fake,x,owner/other,MIT\n"
    )
    monkeypatch.chdir(tmp_path)
    text = card(METRICS, {"data": {"sources": {"train": ["hills", "mine"]}}})
    assert "| hills | train | Real | cameras | owner/hills | CC0 |" in text
    assert "owner/other" not in text and "CIFAKE" not in text
    many = {"data": {"sources": {"train": ["hills"] * 41}}}
    text = card(METRICS, many)
    assert "owner/hills" not in text and "from 41 public collections" in text


def test_card_credits_what_the_run_was_made_from_and_nothing_else():
    def credits(backbone, weights, *sources):
        config = {"options": {"weights": weights}, "data": {"sources": {"train": list(sources)}}}
        text = card({**METRICS, "backbone": backbone}, config).split("## Licence")[1]
        names = ("CIFAKE", "Fake or Real", "ResNet", "EfficientNet:", "Apache", "ImageNet")
        return {name for name in names if name in text}

    assert credits("resnet50", "none", "mine") == {"ResNet"}
    assert credits("resnet50", "imagenet", "CIFAKE") == {"ResNet", "ImageNet", "CIFAKE"}
    assert credits("efficientnet-lite0", "none", "fake-or-real-sample") == {
        "EfficientNet:",
        "Fake or Real",
    }
    assert {"Apache", "ImageNet"} <= credits("efficientnet-lite0", "imagenet", "x")
    # The package's licence asks for its notice in what continues a run of its weights.
    assert "Apache" in credits("efficientnet-lite0", "models/head/model.h5", "x")
    assert credits("colours", "none", "cifake-mini") == {"CIFAKE"}


def test_card_lists_sources_reasons_and_collections():
    share = {"value": 0.25, "low": 0.1, "high": 0.5}
    row = {"name": "a|b", "class": "Real", "n": 40, "fake": share, "real": share}
    row |= {"uncertain": share, "wrong_of_certain": None, "auc": INTERVAL}
    overall = {"auc": 0.912, "balanced_accuracy": 0.8, "coverage": share, "certain_wrong": share}
    overall |= {"pooled_auc": INTERVAL}
    overall |= {"worst_real": {"name": "a|b", **share}, "worst_generator": None}
    version = {"overall": overall, "collections": [row], "generators": []}
    metrics = copy.deepcopy(METRICS)
    metrics["input"] = {"kind": "crops", "crops": 5}
    counted = {"class": "Real", "sources": 24, "certain": share, "wrong": INTERVAL, "wrong_95": 0.1}
    metrics["over_sources"] = {"validation": [counted]}
    metrics["test"]["reasons"] = {"plain": 2, "unstable": 1}
    metrics["out_of_distribution"] = {"test": {"n": 11, "share": 2 / 11}}
    metrics["collections"] = [{"split": "test", "n": 40, "versions": {"web": version}}]
    text = card(metrics)
    for part in (
        "5 crops of 224 × 224 pixels",
        "at most 5 % of a new source's real images expected to be called Fake, and twice that "
        "share of its generated ones Real",
        "| validation | Real | 24 | 0.2500 (0.1000 to 0.5000) |",
        "| 0.9512 (0.9400 to 0.9600) | 0.1000 |",
        "| reason | test (n = 11) |",
        "| plain | 2 |",
        "| share out-of-distribution | 0.1818 |",
        "| web | 0.9512 (0.9400 to 0.9600) | 0.912 | 0.800 | 25.0 % (10.0 to 50.0) |",
        "a\\|b: 25.0 % (10.0 to 50.0)",
        "| a\\|b | 40 | 25.0 % (10.0 to 50.0) |",
        "calibrated as if half of all pictures were generated",
        "Temperature 1.250 and -0.50 on the log-odds of Fake",
    ):
        assert part in text, part
    del metrics["offset"]
    assert "as if half" not in card(metrics)
    assert "traces finer than that are lost" not in text


def share(value):
    return {"value": value, "low": max(0, value - 0.1), "high": min(1, value + 0.1)}


def of_collection(name, kind, fake):
    row = {"name": name, "class": kind, "n": 20, "fake": share(fake), "real": share(1 - fake)}
    return row | {"uncertain": share(0), "wrong_of_certain": None, "auc": INTERVAL}


@pytest.fixture
def many():
    """A report on 400 collections, half of them generated, in three conditions."""
    real = [of_collection(f"real {i:03}", "Real", i / 1000) for i in range(200)]
    generated = [of_collection(f"made {i:03}", "Fake", i / 200) for i in range(200)]
    makers = [of_collection(f"maker {i:03}", "Fake", i / 50) for i in range(50)]
    overall = {"auc": 0.9, "balanced_accuracy": 0.8, "coverage": share(0.5)}
    overall |= {"certain_wrong": share(0.1), "worst_real": None, "worst_generator": None}
    version = {"overall": overall, "collections": real + generated, "generators": makers}
    metrics = copy.deepcopy(METRICS)
    metrics["test"]["per_source"] = {
        row["name"]: {"n": 20, "accuracy": share(0.5)} for row in real + generated
    }
    metrics["test"]["weakest"] = {
        "real_makers": [
            {"name": f"camera {i}", "n": 9, "sources": 2, "accused": share(0.1)}
            | {"called_real": share(0.5)}
            for i in range(8)
        ]
    }
    metrics["test"] |= dict.fromkeys(METRIC_TITLES, INTERVAL)
    metrics["test"]["per_size"] = {size: {"n": 1} for size in "abcd"}
    found = {"found": INTERVAL, "accused": INTERVAL, "called_real": INTERVAL}
    condition = {"n": 8000, "generated": found, "real": found, "balanced_accuracy": {}}
    metrics["test"]["conditions"] = dict.fromkeys(("clean", "web", "hard"), condition)
    counted = {"class": "Real", "sources": 24, "certain": INTERVAL, "wrong": INTERVAL}
    metrics["over_sources"] = dict.fromkeys(("validation", "test"), [counted | {"wrong_95": 0}] * 2)
    reasons = ("between_thresholds", "features", "plain", "sharpness")
    metrics["test"]["reasons"] = dict.fromkeys(reasons, 9)
    metrics["out_of_distribution"] = {"test": {"n": 8000, "share": 0.1}}
    metrics["confound"] = {"warning": "Size tells the class."}
    metrics["collections"] = [
        {"split": "test", "n": 8000, "versions": dict.fromkeys(("clean", "web", "hard"), version)}
    ]
    return metrics


def test_card_of_many_collections_is_short_and_names_the_worst_first(many):
    config = {"options": {f"option{i}": i for i in range(45)}}
    config["data"] = {"sources": {"train": [f"real {i:03}" for i in range(200)]}}
    text = card(many, config)
    assert len(text.splitlines()) <= 150
    assert "[collections.csv](collections.csv)" in text
    accusations, misses = text.split("### Accusations")[1].split("### Misses")
    order = [accusations.index(f"| real {i} |") for i in range(199, 189, -1)]
    assert order == sorted(order) and "real 189" not in accusations and "made" not in accusations
    assert "| camera 0 | 9 | 2 |" in accusations
    order = [misses.index(f"| {kind} {i:03} |") for kind in ("maker", "made") for i in range(10)]
    assert order == sorted(order) and "made 010" not in misses and "| real" not in misses


def test_real_collection_without_an_accusation_is_not_among_the_worst(many):
    assert "real 000" not in card(many)
    for version in many["collections"][0]["versions"].values():
        version["collections"] = [of_collection("innocent", "Real", 0.0)]
    many["test"]["weakest"] = {}
    assert "Accusations" not in card(many)


def test_table_beside_the_card_holds_every_collection_generator_and_source(many):
    rows = [dict(zip(COLLECTION_COLUMNS, row, strict=True)) for row in collection_rows(many)]
    assert len(rows) == 3 * (400 + 50) + 400 + 4
    found = [row for row in rows if row["name"] == "made 100" and row["condition"] == "hard"]
    assert len(found) == 1
    expected = {"split": "test", "kind": "collection", "class": "Fake", "images": 20}
    expected |= {"called_fake": 0.5, "called_fake_low": 0.4, "called_fake_high": 0.6}
    expected |= {"wrong_of_certain": "", "roc_auc": 0.9512, "accuracy": ""}
    assert expected.items() <= found[0].items()
    assert {row["accuracy"] for row in rows if row["kind"] == "source"} == {0.5}


def test_card_of_many_sources_without_collections_keeps_the_worst():
    metrics = copy.deepcopy(METRICS)
    names = [f"source {i:02}" for i in range(40)]
    metrics["test"]["per_source"] = {
        name: {"n": 500, "accuracy": share(i / 40)} for i, name in enumerate(names)
    }
    text = card(metrics)
    assert "The 10 worst of 40 sources" in text
    order = [text.index(f"| {name} |") for name in names[:10]]
    assert order == sorted(order) and names[10] not in text
