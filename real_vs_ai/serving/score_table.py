"""Write answers as rows of a table, as JSON documents and as lines for the terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.serving.conclusion import ConclusionCode
from real_vs_ai.verdict import Reason

if TYPE_CHECKING:
    from real_vs_ai.serving.judge import Answer

# Finer differences are the engine's rounding, not the image's.
_DECIMALS = 6
_TERMINAL_COLUMNS = 80
_LONGEST_TITLE = 31
# The path stands last: only its length is not known before the last image is.
_TERMINAL_LAYOUT = f"{{:<{_LONGEST_TITLE}}}  {{}}"
TERMINAL_HEADER = _TERMINAL_LAYOUT.format("conclusion", "image")
# Their titles say what the model sees.
_PLAIN = {ConclusionCode.LOOKS_AI, ConclusionCode.LOOKS_PHOTOGRAPH, ConclusionCode.OTHER_CLASS}


@dataclass(frozen=True)
class Column:
    """One column of the scores table.

    Attributes:
        kind: Of its values: str, int, float or bool. Only str is never None.
        value: Takes an `Answer`.
    """

    kind: type
    value: Callable[[Answer], Any]


def _of_verdict(kind: type, name: str) -> Column:
    missing = "" if kind is str else None
    return Column(kind, lambda answer: getattr(answer.verdict, name) if answer.verdict else missing)


def _of_first_reason(value: Callable[[Reason], str]) -> Column:
    def found(answer: Answer) -> str:
        reasons = answer.verdict.reasons if answer.verdict else ()
        return value(reasons[0]) if reasons else ""

    return Column(str, found)


# To add a column, add a line to one of these.
COLUMNS = {
    "path": Column(str, lambda answer: answer.name),
    "label": _of_verdict(str, "label"),
    "probability_fake": _of_verdict(float, "probability_fake"),
    "confidence": _of_verdict(float, "confidence"),
    "width": Column(int, lambda answer: answer.width),
    "height": Column(int, lambda answer: answer.height),
    "format": Column(str, lambda answer: answer.format),
    "provenance": Column(str, lambda answer: " ".join(f.text for f in answer.findings)),
    "error": Column(str, lambda answer: answer.error),
}
# The first reason of the verdict: its code for programs, its sentence for people.
REASON_COLUMNS = {
    "out_of_distribution": _of_verdict(bool, "out_of_distribution"),
    "reason": _of_first_reason(lambda reason: reason.code.value),
    "note": _of_first_reason(lambda reason: reason.sentence),
    # The model that judged the image, where several answer together.
    "model": _of_verdict(str, "model"),
}
# The file, and what is concluded from the verdict and from what the file says.
LAST_COLUMNS = {
    "sha256": Column(str, lambda answer: answer.sha256),
    "conclusion": Column(str, lambda answer: answer.conclusion.code.value),
    "file_says": Column(str, lambda answer: answer.conclusion.file_says.value),
    "generator": Column(str, lambda answer: answer.conclusion.generator),
}
# Kind of each column; those that are not here (the classes' probabilities) are float.
KINDS = {name: c.kind for name, c in {**COLUMNS, **REASON_COLUMNS, **LAST_COLUMNS}.items()}


def score_columns(metadata: ModelMetadata) -> dict[str, Column]:
    """COLUMNS, each class's probability unless Fake and Real, and the columns after them."""
    of_classes = () if metadata.positive_index is not None else metadata.class_names
    probabilities = {f"probability_{name}": _probability(name) for name in of_classes}
    return {**COLUMNS, **probabilities, **REASON_COLUMNS, **LAST_COLUMNS}


def _probability(class_name: str) -> Column:
    def found(answer: Answer) -> float | None:
        return answer.verdict.probabilities.get(class_name) if answer.verdict else None

    return Column(float, found)


def score_row(answer: Answer, metadata: ModelMetadata) -> dict[str, Any]:
    """One row of the table, with None where there is nothing to say."""
    columns = score_columns(metadata)
    return {name: _rounded(column.value(answer)) for name, column in columns.items()}


def score_document(answer: Answer, metadata: ModelMetadata) -> dict[str, Any]:
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


def _rounded(value: Any) -> Any:
    return round(value, _DECIMALS) if isinstance(value, float) else value
