"""Everything in a model card stands in the metrics, and no name becomes markup."""

import copy

from real_vs_ai.evaluation.model_card import model_card
from real_vs_ai.reporting import markdown_table

INTERVAL = {"value": 0.9512, "low": 0.94, "high": 0.96}
METRICS = {
    "class_names": ["Fake", "Real"],
    "positive_class": "Fake",
    "backbone": "resnet101",
    "image_size": 224,
    "temperature": 1.25,
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
    assert "| epochs | 20 |" in text
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
        "at most 5 % of a new source's real images expected to be called Fake, and 1.5 times that "
        "share of its generated ones Real",
        "| validation | Real | 24 | 0.2500 (0.1000 to 0.5000) |",
        "| 0.9512 (0.9400 to 0.9600) | 0.1000 |",
        "| reason | test (n = 11) |",
        "| plain | 2 |",
        "| share out-of-distribution | 0.1818 |",
        "| web | 0.9512 (0.9400 to 0.9600) | 0.912 | 0.800 | 25.0 % (10.0 to 50.0) |",
        "a\\|b: 25.0 % (10.0 to 50.0)",
        "| a\\|b | Real | 40 |",
    ):
        assert part in text, part
    assert "traces finer than that are lost" not in text
