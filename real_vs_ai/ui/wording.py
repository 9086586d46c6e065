"""Put verdicts and untrusted texts into words; pure functions, no Streamlit.

    style = verdict_style("Fake", metadata)     # AI-generated, red, with an icon
    st.error(f"{as_markdown(upload.name)}: damaged image")

Streamlit's labels and messages are Markdown, and a file may be called `![](http://…)` or
`:material/check_circle: Real`: whatever comes from a file goes through `as_markdown`, or through
`st.text`, which shows it as it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from real_vs_ai.config import POSITIVE_CLASS, UNCERTAIN
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.verdict import Reason, Verdict

# Letters, digits and marks that mean nothing in Streamlit's Markdown.
_HARMLESS = re.compile(r"[^\W_](?:[^\W_]|[ ,;()×%'?–-]|\.(?=[ \d]|$)|:(?= |$))*")
_LONGEST_NAME = 80


@dataclass(frozen=True)
class VerdictStyle:
    """How a label looks: words and icon carry the meaning, colour only repeats it.

    Attributes:
        words: What people read: "AI-generated", "Real", "Uncertain", or a class name.
        icon: A Streamlit icon code.
        colour: A colour name of Streamlit's Markdown.
    """

    words: str
    icon: str
    colour: str

    @property
    def heading(self) -> str:
        """Markdown of icon and words, in the label's colour."""
        return f":{self.colour}[{self.icon} {as_markdown(self.words)}]"


def verdict_style(label: str, metadata: ModelMetadata) -> VerdictStyle:
    """Words, icon and colour for a label of this model."""
    if label == UNCERTAIN:
        return VerdictStyle("Uncertain", ":material/help:", "orange")
    if metadata.positive_index is None:
        return VerdictStyle(visible(label), ":material/label:", "blue")
    if label == POSITIVE_CLASS:
        return VerdictStyle("AI-generated", ":material/smart_toy:", "red")
    return VerdictStyle(visible(label), ":material/photo_camera:", "green")


def percent(fraction: float, *, digits: int = 0) -> str:
    """A share from 0 to 1 for people; never a rounded 0 % or 100 % that is not exact."""
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
        number = percent(probabilities[shown], digits=1)
        subject = f"{number} for {as_markdown(visible(shown))}"
    else:
        number = percent(probabilities[POSITIVE_CLASS], digits=1)
        subject = f"{number} that it is AI-generated"
    if metadata.calibrated:
        return f"Calibrated probability: **{subject}**"
    return f"Score: **{subject}** (not calibrated yet, so not a probability)"


def verdict_number(verdict: Verdict | None) -> float | None:
    """The number a verdict is shown with; None for unreadable and out-of-distribution images."""
    if verdict is None or verdict.probability_fake is not None:
        return verdict.probability_fake if verdict else None
    return verdict.confidence


def out_of_distribution_sentence(reason: Reason) -> str:
    """Why the model gives no verdict on an image."""
    return f"**Can't tell.** {as_markdown(reason.sentence)}"


def track_record(metrics: Mapping[str, Any], *, own_thresholds: bool = True) -> str:
    """A sentence on how often this model is right, from its metrics on test images; or "".

    Args:
        metrics: Of `metrics.json`.
        own_thresholds: Whether the thresholds are those that the metrics were measured with.
    """
    parts = []
    false_alarms = metric_value(metrics, "false_positive_rate")
    recall = metric_value(metrics, "recall")
    accuracy = metric_value(metrics, "accuracy")
    wrong = metric_value(metrics, "error_when_certain")
    if false_alarms is not None and recall is not None:
        parts.append(
            f"with nothing left Uncertain, it finds {percent(recall, digits=1)} of the "
            f"AI-generated images and wrongly accuses {percent(false_alarms, digits=1)} of the "
            "real ones"
        )
        if wrong is not None and own_thresholds:
            share = percent(wrong, digits=1)
            parts.append(f"; with its own thresholds {share} are wrong of those it is sure of")
    elif accuracy is not None:
        parts.append(f"it is right for {percent(accuracy, digits=1)} of the images")
    sentence = " ".join(parts).replace(" ;", ";")
    return f"On test images like those it learnt from, {sentence}." if parts else ""


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


def as_markdown(text: str) -> str:
    """Markdown that shows exactly this text: as it is when harmless, otherwise as inline code."""
    text = visible(text, longest=400)
    if _HARMLESS.fullmatch(text):
        return text
    # A fence longer than any run of backticks inside; spaces keep an outer backtick literal.
    longest_run = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * (longest_run + 1)
    return f"{fence} {text} {fence}" if text.strip() else "(no name)"
