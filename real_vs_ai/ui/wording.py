"""Put conclusions, numbers and untrusted texts into words; pure functions, no Streamlit.

What is said here is a `Message`: the page says it in the visitor's language.

Streamlit's labels and messages are Markdown, and a file may be called `![](http://…)` or
`:material/check_circle: Real`. Text that comes from a file goes through `as_markdown`, or through
`st.text`, which shows it as it is.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from real_vs_ai.core.config import POSITIVE_CLASS
from real_vs_ai.core.messages import Message, in_language
from real_vs_ai.models.model_file import ModelMetadata
from real_vs_ai.out_of_distribution.check import compare_size, describe_sizes, scale_range
from real_vs_ai.provenance import FileSays
from real_vs_ai.verdicts.conclusion import Conclusion, ConclusionCode
from real_vs_ai.verdicts.track_record import of_100, read_track_record
from real_vs_ai.verdicts.verdict import Verdict

# What Streamlit's Markdown acts on. A dot or colon before a space only ends a clause.
_PUNCTUATION = re.compile(r"[!#$&*+/<=>@\[\\\]^_`{|}~]|[.:](?=\S)|(?<!\w)-|(?<=\d)[.)](?=\s)")
# What links, pictures, HTML, formulas, addresses and ":icons:" begin with, in Markdown.
_ACTIVE = re.compile(r"\\.|[\[<$@]|:(?=\S)|(?i:www)(?=\.)")
_JOINER = "\N{WORD JOINER}"
_LONGEST_NAME = 80
# A usual width and height of uploads, in pixels.
_A_PHOTO = (1024, 768)
# The pages where one uploads a picture oneself: a link to them sends nothing.
SEARCH_PAGES = {
    "Google Lens": "https://lens.google.com/",
    "TinEye": "https://tineye.com/",
    "Bing": "https://www.bing.com/visualsearch",
    "Yandex": "https://yandex.com/images/",
}
CREDENTIALS_PAGE = "https://contentcredentials.org/verify"
# Conclusions whose reliance depends on what the file says.
_BY_THE_FILE = {
    FileSays.AI_SIGNED: "reliance.signed",
    FileSays.AI: "reliance.claim",
    FileSays.PART_AI: "reliance.claim",
    FileSays.POSSIBLY_AI: "reliance.claim",
    FileSays.CAPTURED: "reliance.camera",
    FileSays.CAMERA: "reliance.camera",
}
_BY_THE_FILE_FIRST = {
    ConclusionCode.LABELLED_AI_SIGNED,
    ConclusionCode.LABELLED_AI,
    ConclusionCode.LABELLED_PART_AI,
    ConclusionCode.CAMERA_DATA,
}
# Symbol, where colours cannot be drawn, and colour: they only repeat what the words of a conclusion
# say.
_STYLES = {
    ConclusionCode.LABELLED_AI_SIGNED: ("▲", "red"),
    ConclusionCode.LABELLED_AI: ("▲", "red"),
    ConclusionCode.LABELLED_PART_AI: ("△", "red"),
    ConclusionCode.LOOKS_AI: ("▲", "red"),
    ConclusionCode.DISAGREE: ("≠", "orange"),
    ConclusionCode.CANT_TELL: ("?", "orange"),
    ConclusionCode.CANT_JUDGE: ("–", "gray"),
    ConclusionCode.CAMERA_DATA: ("○", "blue"),
    ConclusionCode.LOOKS_PHOTOGRAPH: ("○", "blue"),
    ConclusionCode.OTHER_CLASS: ("■", "blue"),
    ConclusionCode.UNREADABLE: ("✕", "gray"),
}


def rank(code: ConclusionCode) -> int:
    """The place of a conclusion among others, from 0."""
    return list(ConclusionCode).index(code)


def heading(conclusion: Conclusion, *, language: str) -> str:
    """Markdown of a conclusion's words, in its colour."""
    _, colour = _STYLES[conclusion.code]
    return f":{colour}[{as_markdown(in_language(conclusion.title, language))}]"


def plain(conclusion: Conclusion, *, language: str) -> str:
    """Symbol and words, for tables and reports."""
    symbol, _ = _STYLES[conclusion.code]
    return f"{symbol} {visible(in_language(conclusion.title, language))}"


def reliance(conclusion: Conclusion) -> str:
    """How far one can rely on a conclusion, in one sentence."""
    if conclusion.code in _BY_THE_FILE_FIRST:
        return Message(_BY_THE_FILE[conclusion.file_says])
    return Message(f"reliance.{conclusion.code}")


def class_words(name: str, metadata: ModelMetadata) -> str:
    """What a class of this model is called on the page."""
    if metadata.positive_index is None:
        return visible(name)
    return Message("class.ai" if name == POSITIVE_CLASS else "class.photograph")


def numbers_sentence(verdict: Verdict, metadata: ModelMetadata) -> str:
    """The model's numbers for an in-distribution image, and from which on it answers.

    They are called scores: beside an answer, a probability of one half would contradict it.
    """
    if metadata.positive_index is None:
        shares = (
            Message("number.class", name=visible(name), value=share)
            for name, share in verdict.probabilities.items()
        )
        limit = _limit(metadata.minimum_confidence)
        return Message("numbers.classes", scores=tuple(shares), limit=limit)
    limits = {"low": _limit(metadata.lower_threshold), "high": _limit(metadata.upper_threshold)}
    return Message("numbers.ai", score=verdict.probability_fake, **limits)


def thresholds_sentence(metadata: ModelMetadata) -> str:
    """When the model answers, in a sentence without its full stop."""
    if metadata.positive_index is None:
        return Message("facts.answers_classes", limit=_limit(metadata.minimum_confidence))
    limits = {"low": _limit(metadata.lower_threshold), "high": _limit(metadata.upper_threshold)}
    return Message("facts.answers", **limits)


def _limit(threshold: float | None) -> str:
    if threshold is None:
        return Message("numbers.never")
    return Message("number.score", value=threshold)


def known_sizes(metadatas: Iterable[ModelMetadata]) -> str:
    """The sizes of the training images: "about 32 × 32 pixels"; "" where one is not recorded."""
    sizes = [
        describe_sizes(metadata.training_images, crops=metadata.model_input.is_crops)
        for metadata in metadatas
    ]
    if not all(sizes):
        return ""
    return sizes[0] if len(sizes) == 1 else Message("size.several", sizes=tuple(sizes))


def judges_photographs(metadata: ModelMetadata) -> bool:
    """Whether a model is for photographs of usual sizes, not for thumbnails."""
    return compare_size(*_A_PHOTO, metadata.training_images) is None


def promise(metadatas: Iterable[ModelMetadata]) -> list[str]:
    """What happens to a picture, how often AI pictures are found, and what is not judged."""
    metadatas = list(metadatas)
    # Most visitors come with photographs.
    main = next(filter(judges_photographs, metadatas), metadatas[0])
    told: list[str] = [Message("promise.what")]
    if clean := read_track_record(main.metrics).clean:
        told.append(
            Message(
                "promise.rates",
                found=of_100(clean.found),
                passed=of_100(clean.passed),
                accused=of_100(clean.accused),
            )
        )
    else:
        told.append(Message("promise.no_rates"))
    known = scale_range(main.training_images)
    if main.model_input.is_crops:
        told.append(Message("promise.not_judged"))
        told += [Message("promise.at_least", side=round(known[0]))] if known else []
    elif sizes := known_sizes([main]):
        told.append(Message("promise.sizes", sizes=sizes))
    return told


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


def _parted(found: re.Match[str]) -> str:
    """A character that does nothing any more; escaped ones stay as they are."""
    character = found[0]
    if character.startswith("\\"):
        return character
    return f"\\{character}" if character in "[<$" else f"{character}{_JOINER}"


def as_markdown(text: str, *, longest: int = 400) -> str:
    """Markdown that shows exactly this text, in the surrounding font, and does nothing else."""
    return _PUNCTUATION.sub(_defused, visible(text, longest=longest).strip()) or "(no name)"


def _defused(found: re.Match[str]) -> str:
    """A character behind a backslash.

    Links and ":icons:" are found in escaped text too, so an invisible joiner parts what they need.
    """
    joiner = _JOINER if found[0] in ".:@" else ""
    return f"{joiner}\\{found[0]}{joiner}"
