"""Write answers as rows of a table, as JSON documents and as lines for the terminal."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from real_vs_ai.core.config import UNCERTAIN
from real_vs_ai.models.model_file import ModelMetadata
from real_vs_ai.verdicts.conclusion import ConclusionCode

if TYPE_CHECKING:
    from real_vs_ai.serving.judge import Answer

Row = dict[str, Any]
# Finer differences are the engine's rounding, not the image's.
_DECIMALS = 6
_TERMINAL_COLUMNS = 80
_LONGEST_TITLE = 34
# The path stands last: only its length is not known before the last image is.
_TERMINAL_LAYOUT = f"{{:<{_LONGEST_TITLE}}}  {{}}"
TERMINAL_HEADER = _TERMINAL_LAYOUT.format("conclusion", "image")
# Their titles say what the model sees; an accusation has its reason, and how often it is wrong.
_PLAIN = {ConclusionCode.LOOKS_PHOTOGRAPH, ConclusionCode.OTHER_CLASS}


# The columns, with the kind of their values; only texts are never missing. To add one, add a line
# here and its value to `score_row`. The first ones keep their places.
COLUMNS = {
    "path": str,
    "label": str,
    "probability_fake": float,
    "confidence": float,
    "width": int,
    "height": int,
    "format": str,
    "provenance": str,
    "error": str,
}
# Between them stands each class's probability, a float, unless the classes are Fake and Real.
LAST_COLUMNS = {
    "out_of_distribution": bool,
    # The first reason of the verdict: its code for programs, its sentence for people.
    "reason": str,
    "note": str,
    # The model that judged the image, where several answer together.
    "model": str,
    "sha256": str,
    "conclusion": str,
    "file_says": str,
    "generator": str,
}


def score_columns(metadata: ModelMetadata) -> list[str]:
    """The names of all columns, in their order."""
    of_classes = () if metadata.positive_index is not None else metadata.class_names
    return [*COLUMNS, *(f"probability_{name}" for name in of_classes), *LAST_COLUMNS]


def score_row(answer: Answer, metadata: ModelMetadata) -> Row:
    """One row of the table, with None where there is nothing to say."""
    verdict, found = answer.verdict, answer.conclusion
    reason = verdict.reasons[0] if verdict and verdict.reasons else None
    values = {
        "path": answer.name,
        "label": verdict.label if verdict else "",
        "probability_fake": verdict and verdict.probability_fake,
        # Of no answer there is none.
        "confidence": verdict.confidence if verdict and verdict.label != UNCERTAIN else None,
        "width": answer.width,
        "height": answer.height,
        "format": answer.format,
        "provenance": " ".join(finding.text for finding in answer.findings),
        "error": answer.error,
        "out_of_distribution": verdict and verdict.out_of_distribution,
        "reason": reason.code.value if reason else "",
        "note": reason.sentence if reason else "",
        "model": verdict.model if verdict else "",
        "sha256": answer.sha256,
        "conclusion": found.code.value,
        "file_says": found.file_says.value,
        "generator": found.generator,
    }
    if verdict:
        values |= {f"probability_{name}": p for name, p in verdict.probabilities.items()}
    row = {name: values.get(name) for name in score_columns(metadata)}
    return {k: round(v, _DECIMALS) if isinstance(v, float) else v for k, v in row.items()}


def score_document(answer: Answer, metadata: ModelMetadata) -> Row:
    """The row with all that is known besides, for JSON."""
    verdict, found = answer.verdict, answer.conclusion
    return {
        **score_row(answer, metadata),
        "title": found.title,
        "from_file": found.from_file,
        "from_model": found.from_model,
        "next_steps": list(found.next_steps),
        "history": list(found.history),
        "ingredients": list(found.ingredients),
        "reasons": [
            {"code": reason.code.value, "sentence": reason.sentence}
            for reason in (verdict.reasons if verdict else ())
        ],
        "probabilities": dict(verdict.probabilities) if verdict else {},
        "provenance": [
            {
                "code": finding.code,
                "kind": finding.kind,
                "sentence": finding.text,
                "speaks_for": finding.speaks_for,
                "forgery": finding.forgery,
                "generator": finding.generator,
                "seal": finding.seal,
            }
            for finding in answer.findings
        ],
        "remarks": list(answer.notes),
    }


def terminal_lines(answer: Answer) -> str:
    """One file under TERMINAL_HEADER: the conclusion, then its reasons; ends with a line break.

    No line is longer than 80 characters. A longer path is shown by its end.
    """
    found = answer.conclusion
    title = _on_one_line(found.title)[:_LONGEST_TITLE]
    path, room = _on_one_line(answer.name), _TERMINAL_COLUMNS - _LONGEST_TITLE - 2
    shown = path if len(path) <= room else f"…{path[1 - room :]}"
    why = "" if found.code in _PLAIN and not found.from_file else found.sentence
    indent = " " * 4
    reasons = textwrap.wrap(
        _on_one_line(why), _TERMINAL_COLUMNS, initial_indent=indent, subsequent_indent=indent
    )
    return "".join(f"{line}\n" for line in (_TERMINAL_LAYOUT.format(title, shown), *reasons))


def _on_one_line(text: str) -> str:
    """Without line breaks and escape sequences, which file names and metadata may hold."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
