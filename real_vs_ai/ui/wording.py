"""Put verdicts and untrusted texts into words; pure functions, no Streamlit.

Streamlit's labels and messages are Markdown, and a file may be called `![](http://…)` or
`:material/check_circle: Real`. Text that comes from a file goes through `as_markdown`, or through
`st.text`, which shows it as it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from real_vs_ai.config import POSITIVE_CLASS, UNCERTAIN
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.out_of_distribution.sizes import compare_size, describe_sizes
from real_vs_ai.verdict import Reason, ReasonCode, Verdict

# What Streamlit's Markdown acts on. A dot or colon before a space only ends a clause.
_PUNCTUATION = re.compile(r"[!#$&*+/<=>@\[\\\]^_`{|}~]|[.:](?=\S)|(?<!\w)-|(?<=\d)[.)](?=\s)")
# What links, pictures, HTML, formulas, addresses and ":icons:" begin with, in Markdown.
_ACTIVE = re.compile(r"\\.|[\[<$@]|:(?=\S)|(?i:www)(?=\.)")
_JOINER = "\N{WORD JOINER}"
_LONGEST_NAME = 80
# A usual width and height of uploads, in pixels.
_A_PHOTO = (1024, 768)


@dataclass(frozen=True)
class VerdictStyle:
    """How a label looks: words and icon carry the meaning, colour only repeats it.

    The symbol is one character, where icons cannot be drawn.
    """

    words: str
    icon: str
    symbol: str
    colour: str

    @property
    def heading(self) -> str:
        """Markdown of icon and words, in the label's colour."""
        return f":{self.colour}[{self.icon} {as_markdown(self.words)}]"

    @property
    def plain(self) -> str:
        """Symbol and words, for tables."""
        return f"{self.symbol} {self.words}"


UNREADABLE = VerdictStyle("Unreadable", ":material/broken_image:", "✕", "gray")


def verdict_style(label: str, metadata: ModelMetadata) -> VerdictStyle:
    """Words, icon and colour for a label of this model; "" for an unreadable file."""
    if not label:
        return UNREADABLE
    if label == UNCERTAIN:
        return VerdictStyle("Uncertain", ":material/help:", "?", "orange")
    if metadata.positive_index is None:
        return VerdictStyle(visible(label), ":material/label:", "■", "blue")
    if label == POSITIVE_CLASS:
        return VerdictStyle("AI-generated", ":material/smart_toy:", "▲", "red")
    return VerdictStyle(visible(label), ":material/photo_camera:", "●", "green")


def percent(fraction: float, *, digits: int = 0) -> str:
    """A share from 0 to 1 for people; never a rounded 0 % or 100 % that is not exact.

    >>> percent(0.5), percent(0.9999, digits=1)
    ('50%', 'over 99.9%')
    """
    step = 10.0 ** -(digits + 2)
    if 0 < fraction < step / 2:
        return f"under {step:.{digits}%}"
    if 1 - step / 2 < fraction < 1:
        return f"over {1 - step:.{digits}%}"
    return f"{fraction:.{digits}%}"


def probability_sentence(verdict: Verdict, metadata: ModelMetadata) -> str:
    """What the number of an in-distribution image is, and whether it is a probability."""
    probabilities = verdict.probabilities
    if metadata.positive_index is None:
        likeliest = max(probabilities, key=probabilities.get)
        shown = verdict.label if verdict.label in probabilities else likeliest
        what = as_markdown(visible(shown))
    else:
        shown, what = POSITIVE_CLASS, "AI-generated"
    number = f"**{percent(probabilities[shown], digits=1)}**"
    if metadata.calibrated:
        return f"Probability of {what}: {number}"
    return f"Score for {what}: {number} (not calibrated, so not a probability)"


def verdict_number(verdict: Verdict | None) -> float | None:
    """The number a verdict is shown with; None for unreadable and out-of-distribution images."""
    if verdict is None or verdict.probability_fake is not None:
        return verdict.probability_fake if verdict else None
    return verdict.confidence


# Under each of many cards that share a reason; the whole sentence stands above them once.
_SHORT_REASONS = {
    ReasonCode.SIZE: "Not a size that this model knows.",
    ReasonCode.SHARPNESS: "Sharper or softer than what this model knows.",
    ReasonCode.FEATURES: "Unlike the pictures that this model knows.",
    ReasonCode.PIXELS: "Unlike the pictures that this model knows.",
    ReasonCode.PLAIN: "Mostly flat, like a document, a screenshot or a drawing.",
    ReasonCode.PORTRAIT: "It looks like a portrait, which this model cannot judge.",
}


def short_reason(reason: Reason) -> str:
    """A few words on why the model gives no verdict."""
    return _SHORT_REASONS[reason.code]


def shared_reason(code: ReasonCode, *, count: int, metadatas: Iterable[ModelMetadata]) -> str:
    """Why the model gives no verdict on several images, said once; Markdown."""
    sizes = known_sizes(metadatas)
    if code is ReasonCode.SIZE and sizes:
        why = f"This model only knows pictures of {sizes}, and these have other sizes"
    elif code is ReasonCode.PLAIN:
        why = "They are mostly flat, like documents, screenshots and drawings"
    elif code is ReasonCode.PORTRAIT:
        why = "They look like portraits, which this model cannot judge"
    else:
        why = "They look different from the pictures that this model learnt from"
    return f"**Can't tell for {count} pictures.** {why}, so any answer would be a guess."


def known_sizes(metadatas: Iterable[ModelMetadata]) -> str:
    """The sizes of the training images: "about 32 × 32 pixels"; "" where one is not recorded."""
    sizes = [
        describe_sizes(metadata.training_images, crops=metadata.model_input.is_crops)
        for metadata in metadatas
    ]
    return " or ".join(sizes) if all(sizes) else ""


def scope_sentence(metadatas: Iterable[ModelMetadata]) -> str:
    """What the models can and cannot judge, in one sentence for the top of the page."""
    metadatas = list(metadatas)
    sizes = known_sizes(metadatas)
    several = len(metadatas) > 1
    if not sizes:
        which = "these models" if several else "this model"
        return f"It is not recorded which pictures {which} learnt from: read verdicts with care."
    knows = "These models only know" if several else "This model only knows"
    refused = all(compare_size(*_A_PHOTO, m.training_images) for m in metadatas)
    most = ", such as most photos from phones and the web" if refused else ""
    answer = "answer" if several else "answers"
    return f"{knows} pictures of {sizes} and {answer} “Uncertain” to others{most}."


def track_record(metadata: ModelMetadata, *, own_thresholds: bool = True) -> str:
    """How often this model is right on test images of the kind that it knows; or "".

    `own_thresholds`: whether the metrics were measured with the thresholds in use.
    """
    metrics = metadata.metrics
    false_alarms = metric_value(metrics, "false_positive_rate")
    recall = metric_value(metrics, "recall")
    accuracy = metric_value(metrics, "accuracy")
    wrong = metric_value(metrics, "error_when_certain")
    if false_alarms is not None and recall is not None:
        said = (
            f"with no verdict left Uncertain, it finds {percent(recall, digits=1)} of the "
            f"AI-generated ones and wrongly accuses {percent(false_alarms, digits=1)} of the real "
            "ones"
        )
        if wrong is not None and own_thresholds:
            said += f"; {_certain_record(metrics, wrong)}"
    elif accuracy is not None:
        said = f"it is right for {percent(accuracy, digits=1)}"
    else:
        return ""
    sizes = known_sizes([metadata])
    return f"On test pictures like those it learnt from{f' ({sizes})' if sizes else ''}, {said}."


def _certain_record(metrics: Mapping[str, Any], wrong: float) -> str:
    """How many verdicts stay Uncertain, and what share of the others is wrong."""
    uncertain, count = (metric_value(metrics, name) for name in ("uncertain_share", "n"))
    left = "" if uncertain is None else f"it leaves {percent(uncertain, digits=1)} Uncertain, and "
    if wrong or uncertain is None or count is None:
        return f"{left}of the verdicts it is sure of, {percent(wrong, digits=1)} are wrong"
    # With few verdicts, 0 % would promise more than was measured.
    return f"{left}of the {count * (1 - uncertain):,.0f} verdicts it is sure of, none is wrong"


def metric_value(metrics: Mapping[str, Any], name: str) -> float | None:
    """The value of one metric of `metrics.json`, with or without its interval; None if absent."""
    entry = metrics.get(name)
    value = entry.get("value") if isinstance(entry, Mapping) else entry
    return float(value) if isinstance(value, (int, float)) else None


def visible(text: str, *, longest: int = _LONGEST_NAME) -> str:
    """The text on one line, with characters that hide or turn others made visible, shortened.

    Control characters and Unicode's direction marks become "�": with them "gpj.exe" can read
    "exe.jpg".
    """
    shown = "".join(
        "�" if unicodedata.category(c) in {"Cc", "Cf", "Cs", "Zl", "Zp"} else c for c in text
    )
    if len(shown) <= longest:
        return shown
    half = (longest - 1) // 2
    return f"{shown[:half]}…{shown[-half:]}"


def harmless_markdown(text: str) -> str:
    """Untrusted Markdown with its headings, lists and tables, but no links, pictures or icons.

    Headings become two levels lower, to fit under those of the page.
    """
    lines = (
        "".join(c if c == "\t" or c.isprintable() else "�" for c in line)
        for line in text.splitlines()
    )
    lowered = (f"##{line}" if line.startswith("#") else line for line in lines)
    return _ACTIVE.sub(_parted, "\n".join(lowered))


def _parted(found: re.Match) -> str:
    """A character that does nothing any more; escaped ones stay as they are."""
    character = found[0]
    if character.startswith("\\"):
        return character
    return f"\\{character}" if character in "[<$" else f"{character}{_JOINER}"


def as_markdown(text: str) -> str:
    """Markdown that shows exactly this text, in the surrounding font, and does nothing else."""
    return _PUNCTUATION.sub(_defused, visible(text, longest=400).strip()) or "(no name)"


def _defused(found: re.Match) -> str:
    """A character behind a backslash.

    Links and ":icons:" are found in escaped text too, so an invisible joiner parts what they need.
    """
    joiner = _JOINER if found[0] in ".:@" else ""
    return f"{joiner}\\{found[0]}{joiner}"
