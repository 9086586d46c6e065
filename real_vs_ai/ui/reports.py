"""Write checked images as a PDF, as CSV and as JSON, and one of them as a text for maintainers.

The CSV has the columns of `ImageScoring.py`.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.cidfonts import UnicodeCIDFont
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import (
    Flowable,
    HRFlowable,
    Image,
    KeepTogether,
    Paragraph,
    SimpleDocTemplate,
    Spacer,
    Table,
)

from real_vs_ai import __version__
from real_vs_ai.config import UNCERTAIN
from real_vs_ai.model_file import ModelMetadata
from real_vs_ai.reporting import plural
from real_vs_ai.serving.judge import Judge, ServedModel
from real_vs_ai.serving.score_table import score_columns, score_document, score_row
from real_vs_ai.ui.checking import Card, describe_file
from real_vs_ai.ui.wording import numbers_sentence, rank, visible
from real_vs_ai.verdict import thresholds_of

# Both come with ReportLab. The first is embedded and has Latin letters. The second is not: readers
# have a font of their own for Chinese, Japanese, Greek and Russian.
_FONT, _BOLD_FONT, _OTHER_FONT = "Vera", "VeraBd", "STSong-Light"
_SIDE, _PICTURE_SIDE = 18 * mm, 50 * mm
_LONGEST = 1_000


def csv_report(results: Sequence[Card], *, metadata: ModelMetadata) -> bytes:
    """A table for spreadsheets, UTF-8 with the byte order mark that Excel looks for."""
    columns = [*score_columns(metadata), "same_as", "remarks"]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=columns)
    writer.writeheader()
    for result in results:
        remarks = " ".join([*result.answer.notes, *_reason_sentences(result)])
        row = {**score_row(result.answer, metadata), "same_as": result.same_as, "remarks": remarks}
        writer.writerow({column: _harmless_cell(row[column]) for column in columns})
    return buffer.getvalue().encode("utf-8-sig")


def json_report(results: Sequence[Card], *, judge: Judge, created: str) -> bytes:
    """The same for programs, with what is known of the models that answer."""
    document = {
        "created": created,
        "models": [model.describe() for model in judge.models],
        "images": [
            {**score_document(one.answer, judge.metadata), "same_as": one.same_as}
            for one in results
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=False).encode("utf-8", "replace")


def mistake_report(result: Card, *, model: ServedModel) -> str:
    """All that a maintainer needs to reproduce a wrong verdict; the file's name is left out."""
    answer, verdict, metadata = result.answer, result.verdict, model.metadata
    thresholds = ", ".join(f"{name} {value:.4f}" for name, value in thresholds_of(metadata).items())
    numbers = ", ".join(f"{name} {value:.4f}" for name, value in verdict.probabilities.items())
    versions = ", ".join(f"{name} {version}" for name, version in metadata.versions.items())
    lines = {
        "Picture": f"SHA-256 {answer.sha256}",
        "Format": f"{answer.width} × {answer.height} pixels, {answer.format}",
        "Conclusion": result.conclusion.title,
        "Verdict": verdict.label,
        "Probabilities" if metadata.calibrated else "Scores": numbers or "none",
        "Reasons": " ".join(_reason_sentences(result)) or "none",
        "Model": f"{visible(model.name)}, SHA-256 {model.sha256}",
        "Made": f"{metadata.created or 'date not recorded'}; {versions or 'versions not recorded'}",
        "Thresholds": thresholds,
        "App": f"real_vs_ai {__version__}",
        "What it should be": "(please fill in)",
    }
    return "\n".join(f"{name}: {value}" for name, value in lines.items())


def pdf_report(results: Sequence[Card], *, judge: Judge, created: str, record: str) -> bytes:
    """A PDF of A4 pages: a summary, then each picture with its conclusion and evidence.

    Args:
        created: When, for people.
        record: How often the models are right, in a sentence or two, or "".
    """
    for name in (_FONT, _BOLD_FONT):
        pdfmetrics.registerFont(TTFont(name, f"{name}.ttf"))
    pdfmetrics.registerFont(UnicodeCIDFont(_OTHER_FONT))
    ranked = sorted((result.conclusion for result in results), key=lambda found: rank(found.code))
    counts = Counter(found.title for found in ranked)
    used = "; ".join(f"{visible(model.name)} (SHA-256 {model.sha256})" for model in judge.models)
    told = f"{plural(len(results), 'file')}, {created}."
    story: list[Flowable] = [
        _paragraph("Checked pictures", size=18, bold=True),
        _paragraph(f"{told} {', '.join(f'{n} {title}' for title, n in counts.items())}."),
        *([_paragraph(record)] if record else []),
        _paragraph(f"Judged by {used}.", size=7),
        *(_entry(result, judge.model_of(result.verdict).metadata) for result in results),
    ]
    buffer = io.BytesIO()
    margins = dict.fromkeys(("leftMargin", "rightMargin", "topMargin", "bottomMargin"), _SIDE)
    document = SimpleDocTemplate(
        buffer, pagesize=A4, title="Checked pictures", author="", creator="real_vs_ai", **margins
    )
    document.build(story, onFirstPage=_number_page, onLaterPages=_number_page)
    return buffer.getvalue()


def _entry(result: Card, metadata: ModelMetadata) -> Flowable:
    """One picture beside its conclusion; it moves to the next page as a whole."""
    found = result.conclusion
    texts = [_paragraph(found.title, size=13, bold=True)]
    texts.append(_paragraph(visible(result.answer.name), bold=True))
    if result.verdict is None:
        texts.append(_paragraph(found.from_model))
    else:
        said = found.from_file or "Nothing about its origin."
        texts.append(_paragraph(f"What the file says: {said}"))
        texts.append(_paragraph(f"What the model sees: {found.from_model}"))
    if found.next_steps:
        texts.append(_paragraph(f"What now? {' '.join(found.next_steps)}"))
    texts.append(_paragraph(_details(result, metadata), size=7))
    first = _PICTURE_SIDE + 4 * mm
    columns = [first, A4[0] - 2 * _SIDE - first]
    table = Table([[_picture(result.preview), texts]], colWidths=columns)
    table.setStyle([("VALIGN", (0, 0), (-1, -1), "TOP"), ("LEFTPADDING", (0, 0), (0, 0), 0)])
    return KeepTogether([HRFlowable(width="100%", color="#8890a0"), table, Spacer(1, 2 * mm)])


def _details(result: Card, metadata: ModelMetadata) -> str:
    """Size, remarks, numbers and what identifies the file."""
    told = describe_file(result)
    # Beside an open answer, a percentage would accuse honest photographs.
    if result.verdict and result.verdict.label != UNCERTAIN:
        told.append(numbers_sentence(result.verdict, metadata))
    return " ".join([*told, f"SHA-256 {result.answer.sha256}."])


def _picture(jpeg: bytes) -> Flowable | str:
    if not jpeg:
        return ""
    return Image(io.BytesIO(jpeg), _PICTURE_SIDE, _PICTURE_SIDE, kind="proportional")


def _paragraph(text: str, *, size: float = 9, bold: bool = False) -> Paragraph:
    """A text that may come from a file; its markup is shown, not obeyed."""
    font = _BOLD_FONT if bold else _FONT
    style = ParagraphStyle(
        "text", fontName=font, fontSize=size, leading=1.35 * size, spaceAfter=3, splitLongWords=1
    )
    return Paragraph(_in_fonts_that_have_it(visible(text, longest=_LONGEST), font), style)


def _in_fonts_that_have_it(text: str, font: str) -> str:
    """ReportLab's markup of a text; what no font has is written as its number, "\\u05d0"."""
    letters = pdfmetrics.getFont(font).face.charToGlyph
    parts = []
    for character in text:
        if ord(character) in letters:
            parts.append(escape(character))
        elif character.encode("gb2312", "ignore"):
            parts.append(f'<font name="{_OTHER_FONT}">{character}</font>')
        else:
            parts.append(character.encode("ascii", "backslashreplace").decode("ascii"))
    return "".join(parts)


def _number_page(canvas, document) -> None:
    canvas.setFont(_FONT, 7)
    canvas.drawRightString(A4[0] - _SIDE, 10 * mm, str(document.page))


def _reason_sentences(result: Card) -> list[str]:
    return [reason.sentence for reason in result.verdict.reasons] if result.verdict else []


def _harmless_cell(value: Any) -> Any:
    """A cell that is spelled as in the scores table and that a spreadsheet cannot run.

    Spreadsheets run a text that begins like a formula; an apostrophe makes it text again.
    """
    if isinstance(value, bool):
        return str(value).lower()
    risky = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if risky else value
