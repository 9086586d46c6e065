"""Put conclusions, numbers and untrusted texts into words; pure functions, no Streamlit.

Streamlit's labels and messages are Markdown, and a file may be called `![](http://…)` or
`:material/check_circle: Real`. Text that comes from a file goes through `as_markdown`, or through
`st.text`, which shows it as it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from real_vs_ai.config import POSITIVE_CLASS
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.out_of_distribution.check import compare_size, describe_sizes
from real_vs_ai.provenance import FileSays
from real_vs_ai.serving.conclusion import Conclusion, ConclusionCode
from real_vs_ai.track_record import read_track_record
from real_vs_ai.verdict import ReasonCode, Verdict

# What Streamlit's Markdown acts on. A dot or colon before a space only ends a clause.
_PUNCTUATION = re.compile(r"[!#$&*+/<=>@\[\\\]^_`{|}~]|[.:](?=\S)|(?<!\w)-|(?<=\d)[.)](?=\s)")
# What links, pictures, HTML, formulas, addresses and ":icons:" begin with, in Markdown.
_ACTIVE = re.compile(r"\\.|[\[<$@]|:(?=\S)|(?i:www)(?=\.)")
_JOINER = "\N{WORD JOINER}"
_LONGEST_NAME = 80
# A usual width and height of uploads, in pixels.
_A_PHOTO = (1024, 768)
WHO_SEES = (
    "Nobody but you: they stay in the memory of the computer that runs this app, are never "
    "stored, and are forgotten when you reload or close this page."
)
_CLAIM = "What the file says is a claim that anybody could have written."
# How far one can rely on what a file says.
RELIANCE = {
    FileSays.AI_SIGNED: "On the label, yes: only its signer can have written it.",
    FileSays.AI: _CLAIM,
    FileSays.PART_AI: _CLAIM,
    FileSays.POSSIBLY_AI: _CLAIM,
    FileSays.CAMERA: "Camera data are a hint and no proof: programs can copy them.",
}

# Icon, character (where icons cannot be drawn) and colour: they only repeat what the words of a
# conclusion say.
_STYLES = {
    ConclusionCode.LABELLED_AI_SIGNED: (":material/verified:", "▲", "red"),
    ConclusionCode.LABELLED_AI: (":material/sell:", "▲", "red"),
    ConclusionCode.LABELLED_PART_AI: (":material/extension:", "△", "red"),
    ConclusionCode.LOOKS_AI: (":material/smart_toy:", "▲", "red"),
    ConclusionCode.DISAGREE: (":material/balance:", "≠", "orange"),
    ConclusionCode.CANT_TELL: (":material/help:", "?", "orange"),
    ConclusionCode.CANT_JUDGE: (":material/block:", "–", "gray"),
    ConclusionCode.CAMERA_DATA: (":material/photo_camera:", "○", "blue"),
    ConclusionCode.LOOKS_PHOTOGRAPH: (":material/landscape:", "●", "green"),
    ConclusionCode.OTHER_CLASS: (":material/label:", "■", "blue"),
    ConclusionCode.UNREADABLE: (":material/broken_image:", "✕", "gray"),
}


def rank(code: ConclusionCode) -> int:
    """The place of a conclusion among others, from 0."""
    return list(ConclusionCode).index(code)


def heading(conclusion: Conclusion) -> str:
    """Markdown of a conclusion's icon and words, in its colour."""
    icon, _, colour = _STYLES[conclusion.code]
    return f":{colour}[{icon} {as_markdown(conclusion.title)}]"


def plain(conclusion: Conclusion) -> str:
    """Symbol and words, for tables and reports."""
    _, symbol, _ = _STYLES[conclusion.code]
    return f"{symbol} {visible(conclusion.title)}"


def class_words(name: str, metadata: ModelMetadata) -> str:
    """What a class of this model is called on the page."""
    if metadata.positive_index is None:
        return visible(name)
    return "AI-generated" if name == POSITIVE_CLASS else "a photograph"


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


def numbers_sentence(verdict: Verdict, metadata: ModelMetadata) -> str:
    """The model's numbers for an in-distribution image, and whether they are probabilities."""
    shares = ", ".join(
        f"{class_words(name, metadata)} {percent(share, digits=1)}"
        for name, share in verdict.probabilities.items()
    )
    if metadata.calibrated:
        return f"Probabilities: {shares}."
    return f"Scores, which are no probabilities, as the model is not calibrated: {shares}."


def thresholds_sentence(metadata: ModelMetadata) -> str:
    """When the model answers, in a sentence without its full stop."""
    number = "probability" if metadata.calibrated else "score"
    if metadata.positive_index is None:
        return (
            f"Answers when the {number} of one class is at least {metadata.minimum_confidence:.3f}"
        )
    low, high = f"{metadata.lower_threshold:.3f}", f"{metadata.upper_threshold:.3f}"
    return f"Answers when the {number} of AI-generated is at most {low} or at least {high}"


def why_no_answer(verdict: Verdict, metadata: ModelMetadata) -> str:
    """Why a model that judges this kind of picture has no answer; "" where it has one."""
    codes = {reason.code for reason in verdict.reasons}
    if not codes & {ReasonCode.BETWEEN_THRESHOLDS, ReasonCode.LOW_CONFIDENCE}:
        return ""
    told = "With numbers like this picture's the model is wrong too often, so it gives no answer."
    positive = metadata.positive_index
    if positive is None or len(verdict.crops) < 2:
        return told
    lean = sum(crop.probabilities[positive] >= 0.5 for crop in verdict.crops)
    return (
        f"{told} It looked at {len(verdict.crops)} parts and found {lean} rather AI-generated and "
        f"{len(verdict.crops) - lean} rather like a photograph."
    )


def known_sizes(metadatas: Iterable[ModelMetadata]) -> str:
    """The sizes of the training images: "about 32 × 32 pixels"; "" where one is not recorded."""
    sizes = [
        describe_sizes(metadata.training_images, crops=metadata.model_input.is_crops)
        for metadata in metadatas
    ]
    return " or ".join(sizes) if all(sizes) else ""


def judges_photographs(metadata: ModelMetadata) -> bool:
    """Whether a model is for photographs of usual sizes, not for thumbnails."""
    return compare_size(*_A_PHOTO, metadata.training_images) is None


def promise(metadatas: Iterable[ModelMetadata]) -> str:
    """What happens to a picture, how often there is an answer, and what is not judged."""
    metadatas = list(metadatas)
    # Most visitors come with photographs.
    main = next(filter(judges_photographs, metadatas), metadatas[0])
    told = (
        "This page shows what a picture's file says about its origin and what a model sees in it."
    )
    answered = read_track_record(main.metrics).answered
    if answered is None:
        told += " How often the model has an answer is not recorded: read its answers with care."
    else:
        what = "photographs" if judges_photographs(main) else "pictures that it knows"
        told += f" The model has an answer for about {round(100 * answered)} of 100 {what}."
    if any(metadata.model_input.is_crops for metadata in metadatas):
        told += " It does not judge documents, screenshots or drawings."
    sizes = known_sizes(metadatas)
    return f"{told} It knows only pictures of {sizes}." if sizes else told


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


def as_markdown(text: str, *, longest: int = 400) -> str:
    """Markdown that shows exactly this text, in the surrounding font, and does nothing else."""
    return _PUNCTUATION.sub(_defused, visible(text, longest=longest).strip()) or "(no name)"


def _defused(found: re.Match) -> str:
    """A character behind a backslash.

    Links and ":icons:" are found in escaped text too, so an invisible joiner parts what they need.
    """
    joiner = _JOINER if found[0] in ".:@" else ""
    return f"{joiner}\\{found[0]}{joiner}"
